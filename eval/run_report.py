"""Writes the report of a run, report.md and its pictures, from what the run left in its folder.

OUT/results.json + timing.json + journal.jsonl + samples/ ─write─> OUT/report.md, OUT/report/*.png
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.cli.frame import UsageError
from codec.files import writing
from codec.medium import MEDIA
from eval import figures
from eval.baselines import BASELINES, title_of
from eval.curves import bd_rates
from eval.galleries import GALLERIES
from eval.journal import read_journal, unpack_tokens
from eval.markdown import table
from eval.metrics import DECIMALS, LOWER_IS_BETTER
from eval.paths import sample_path
from eval.run import SAMPLES
from eval.signals import SIGNALS
from eval.summary import read_results
from eval.trained import Trained, mark, note

Record = dict[str, Any]
SHOWN_SETTING = "1024"  # of contact sheets and spectrograms, where a model has it
MOST_PANELS = 6  # a row of these, the original among them
MOST_SKIPPED = 20  # lines
# Per cent; files further off were not matched, as a codec reaches no such rate, and cannot be best.
EQUAL = 10.0


def write(folder: Path, anchor: str | None = None) -> Path:
    """Writes the report of a finished run; returns its path.

    Args:
        folder: The folder that `python -m eval --out` wrote.
        anchor: The system that BD-rates are against; by default, and of a medium that it does not
            code, the medium's first classic codec.

    Raises:
        MediaError: There is no finished run.
        UsageError: The anchor is not in the run.
    """
    results, timing = read_results(folder), read_results(folder, "timing.json")
    systems = _systems(results)
    if anchor is not None and anchor not in systems:
        raise UsageError(f"--anchor {anchor} is not in this run; it has {', '.join(systems)}")
    parts = ["# Evaluation", _plan(results)]
    for name in results["plan"]["sets"]:
        for medium in MEDIA:
            parts.append(_set(folder, name, medium, results, timing, anchor))
    path = folder / "report.md"
    with writing(str(path), force=True) as file:
        file.write(("\n\n".join(filter(None, parts)) + "\n").encode())
    return path


def _systems(results: Record) -> list[str]:
    """Names what a run measured, or was to measure and failed."""
    plan = results["plan"]
    named = [*(model[0] for model in plan["models"]), *plan["baselines"]]
    return list(dict.fromkeys([*named, *(entry["system"] for entry in results["summary"])]))


def _plan(results: Record) -> str:
    plan = results["plan"]
    models = ", ".join(f"{name} ({identity[:8]})" for name, identity, _ in plan["models"]) or "none"
    packages = ", ".join(f"{name} {number}" for name, number in plan["packages"].items())
    lines = [
        f"Models: {models}. Classic codecs: {', '.join(plan['baselines']) or 'none'}. Software: "
        f"{packages}.",
        "Rates are of whole files, total bits over total seconds or pixels of the set; quality is "
        "the mean over items. Brackets are 95 % bootstrap intervals over items; n/m: n of m items "
        f"were scored. Bold is the best mean of a group, among files within {EQUAL:g} % of the "
        "bytes of its first system; a codec at matched bytes that is further off has no setting so "
        "small, or so large.",
    ]
    pictures = any(not MEDIA[entry["medium"]].timed for entry in results["summary"])
    if pictures and not plan["lpips"]:
        lines.append(
            "LPIPS: unavailable, no backbone was given (`--lpips-backbone`, or `--lpips` to fetch "
            "one)."
        )
    for kind, title in (
        ("skipped", "Skipped, and in no mean"),
        ("failed", "Failed, and in no mean"),
        ("notices", "Measured, with a notice"),
    ):
        found = results.get(kind)  # a run of an earlier version has no notices
        if found:
            shown = [
                f"- {f['set']}/{f['item']}{_system(f)}: {f['reason']}" for f in found[:MOST_SKIPPED]
            ]
            more = f"\n- and {len(found) - MOST_SKIPPED} more" if len(found) > MOST_SKIPPED else ""
            lines.append(f"{title} ({len(found)}):\n\n" + "\n".join(shown) + more)
    return "\n\n".join(lines)


def _system(found: Record) -> str:
    return f" by {found['system']} {found['setting']}" if "system" in found else ""


def _set(
    folder: Path, name: str, medium: str, results: Record, timing: list[Record], anchor: str | None
) -> str:
    entries = [e for e in results["summary"] if (e["set"], e["medium"]) == (name, medium)]
    if not entries:
        return ""
    count = len(
        {r["item"] for r in results["records"] if (r["set"], r["medium"]) == (name, medium)}
    )
    crop = results["plan"]["sets"][name]["crop"]
    stem = f"{''.join(c if c.isalnum() else '-' for c in name)}-{medium}"
    models = [e for e in entries if "use" in e]
    baselines = [e for e in entries if "use" not in e and "matched_to" not in e]
    cut = f", cut to {crop} x {crop}" if crop and not MEDIA[medium].timed else ""
    parts = [f"## {name}: {count} {SIGNALS[medium].items}{cut}"]
    known = results["plan"].get("trained_on") or {}
    trained: dict[str, Trained] = {e["system"]: known.get(e["system"]) for e in models}
    if models:
        matched = any("matched_to" in e for e in entries)
        parts += [
            "### At the bytes of each model" if matched else "### Models",
            _quality(_groups(entries), medium, trained),
        ]
        if said := note(trained, [metric for entry in models for metric in entry["metrics"]]):
            parts.append(said)
    originals = [
        o for o in results.get("originals", []) if o["set"] == name and MEDIA[medium].timed
    ]
    parts += [f"{o['metric']} of the originals: {_cell(o, o['metric'], None)}." for o in originals]
    unscored = _unscored(entries)
    if unscored:
        parts.append(unscored)
    if models:
        parts += ["### Codebook use", _use(models), _histograms(folder, name, stem, models)]
    if baselines:
        parts += ["### Classic codecs", _quality([[e] for e in baselines], medium, {}, bold=False)]
    mine = [r for r in results["records"] if (r["set"], r["medium"]) == (name, medium)]
    rates = _bd_table(entries, mine, name, anchor, trained)
    if rates:
        parts += ["### Bjontegaard rates", rates]
    shown = (*models, *baselines)
    scored = {
        m for entry in shown for m, found in entry["metrics"].items() if found["mean"] is not None
    }
    metrics = [m for m in GALLERIES[medium].panels if m in scored]
    curves: dict[str, list[Record]] = {}
    for entry in shown:
        curves.setdefault(title_of(entry["system"]), []).append(entry)
    if metrics:
        figures.rd_curves(folder / "report" / f"{stem}-rd.png", medium, metrics, curves, trained)
        parts += ["### Rate and quality", f"![quality against rate](report/{stem}-rd.png)"]
    parts += _samples(folder, name, medium, stem, entries, results)
    return "\n\n".join(
        [
            *parts,
            "### Speed",
            _speed([t for t in timing if (t["set"], t["medium"]) == (name, medium)]),
        ]
    )


# ------------------------------------------------------------------------------------------- tables


def _groups(entries: list[Record]) -> list[list[Record]]:
    """Groups what stands together in the table of qualities.

    A group is a model at one size with what was matched to it; where nothing was matched, it is
    all models at one size.
    """
    models = [e for e in entries if "use" in e]
    matched: dict[str, list[Record]] = {}
    for entry in entries:
        if "matched_to" in entry:
            matched.setdefault(entry["matched_to"], []).append(entry)
    if matched:
        return [[e, *matched.get(f"{e['system']} {e['setting']}", [])] for e in models]
    settings = dict.fromkeys(e["setting"] for e in models)
    return [[e for e in models if e["setting"] == setting] for setting in settings]


def _quality(
    groups: list[list[Record]], medium: str, trained: Mapping[str, Trained], bold: bool = True
) -> str:
    names = list(
        dict.fromkeys(name for group in groups for entry in group for name in entry["metrics"])
    )
    rows = []
    for group in groups:
        fair = [e for e in group if abs(_bytes_off(e, group[0])) <= EQUAL]
        best = {name: _best([e["metrics"].get(name) for e in fair], name) for name in names}
        for entry in group:
            setting = (
                f"{_bytes_off(entry, group[0]):+.1f} % bytes"
                if "matched_to" in entry
                else entry["setting"]
            )
            count = entry["items"] + entry["failed"]
            label = title_of(entry["system"]) + (
                f" ({entry['items']}/{count})" if entry["failed"] else ""
            )
            shown = {
                n: best[n] if bold and len(fair) > 1 and entry in fair else None for n in names
            }
            cells = [
                _cell(entry["metrics"].get(n), n, shown[n], mark(n, trained.get(entry["system"])))
                for n in names
            ]
            rates = [f"{entry[rate]['mean']:.3f}" for rate in ("rate", "payload_rate")]
            rows.append([label, setting, *rates, *cells])
    return table(["system", "setting", MEDIA[medium].rate_unit, "without container", *names], rows)


def _unscored(entries: list[Record]) -> str:
    """Says why items are missing from means."""
    found: dict[tuple[str, str, int], list[str]] = {}
    for entry in entries:
        for metric, reasons in entry["unscored"].items():
            for reason, count in reasons.items():
                found.setdefault((metric, reason, count), []).append(
                    f"{title_of(entry['system'])} {entry['setting']}"
                )
    lines = [
        f"- {metric}, {count} x {reason}: {', '.join(names)}"
        for (metric, reason, count), names in found.items()
    ]
    return "Not scored, and in no mean:\n\n" + "\n".join(lines) if lines else ""


def _bytes_off(entry: Record, first: Record) -> float:
    """Returns by how many per cent files are larger than those of a group's first system.

    Those that were matched to it are held against the same items' files.
    """
    if "matched_to" in entry:
        return float(entry["bytes_off"]["mean"])
    return 100 * (float(entry["rate"]["mean"]) / float(first["rate"]["mean"]) - 1)


def _best(found: list[Record | None], name: str) -> Record | None:
    """Returns the best of those that scored most items: a mean of fewer is not of the same."""
    means = [f for f in found if f and f["mean"] is not None]
    most = max((f["scored"] for f in means), default=0)
    sign = 1 if name in LOWER_IS_BETTER else -1
    return min(
        (f for f in means if f["scored"] == most), key=lambda f: sign * f["mean"], default=None
    )


def _cell(found: Record | None, name: str, best: Record | None, mark_behind: str = "") -> str:
    if found is None or found["mean"] is None:
        return "unscored" if found else "-"
    digits = DECIMALS.get(name, 3)
    text = f"{found['mean']:.{digits}f}"
    if (
        best is not None
        and found["scored"] == best["scored"]
        and text == f"{best['mean']:.{digits}f}"
    ):
        text = f"**{text}**"
    text += mark_behind
    if found["low"] is not None:
        text += f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
    return text if found["scored"] == found["of"] else f"{text} {found['scored']}/{found['of']}"


USE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "num_codes": ("codes", str),
    "tokens": ("tokens", str),
    "bits_per_token": ("coded bits/token", lambda v: f"{v:.2f}"),
    "H0": ("H0", lambda v: f"{v:.2f}"),
    "CVU": ("CVU", lambda v: f"{v:.3f}"),
    "used": ("codes used", lambda v: f"{100 * v:.1f} %"),
    "perplexity_soft_batch": (
        "perplexity, soft, by item",
        lambda v: "-" if v is None else f"{v:.0f}",
    ),
    "perplexity_hard_batch": ("hard, by batch", lambda v: f"{v:.0f}"),
    "batch_tokens": ("tokens a batch", str),
    "perplexity_hard_global": ("hard, global", lambda v: f"{v:.0f}"),
}


def _use(models: list[Record]) -> str:
    rows = [
        [e["system"], e["setting"], *(show(e["use"][key]) for key, (_, show) in USE.items())]
        for e in models
    ]
    return table(["model", "K", *(title for title, _ in USE.values())], rows)


def _bd_table(
    entries: list[Record],
    records: list[Record],
    name: str,
    anchor: str | None,
    trained: Mapping[str, Trained],
) -> str | None:
    systems = list(dict.fromkeys(e["system"] for e in entries if "matched_to" not in e))
    known = [s for s in systems if s in BASELINES]
    anchor = anchor if anchor in systems else next(iter(known), None)
    if anchor is None or len(systems) < 2:
        return None
    metrics = list(dict.fromkeys(m for e in entries for m in e["metrics"]))
    rates = {metric: bd_rates(records, name, anchor, metric) for metric in metrics}
    rows = [
        [
            title_of(s),
            *(
                "-" if rates[m].get(s) is None else f"{rates[m][s]:+.1f} %{mark(m, trained.get(s))}"
                for m in metrics
            ),
        ]
        for s in systems
        if s != anchor
    ]
    note = (
        f"Bytes against {title_of(anchor)} at equal quality, over the qualities that both curves "
        "reach and the items that all settings of both scored; negative is better; a dash where "
        "they share less than a tenth of the narrower one's."
    )
    return f"{note}\n\n{table(['system', *metrics], rows)}"


def _speed(timing: list[Record]) -> str:
    if not timing:
        return "Nothing was timed."
    medium = MEDIA[timing[0]["medium"]]
    unit, scale = medium.pace_unit, medium.pace_units
    rows = [
        [
            title_of(t["system"]),
            t["setting"],
            *(f"{t[f'{way}_speed'] / scale:.3g}" for way in ("encode", "decode")),
        ]
        for t in timing
        if not t["setting"].startswith("@")
    ]
    peak = max(t["worker_peak_bytes"] for t in timing) / 2**20
    note = (
        "One thread, on a machine that may have had other work. "
        f"A worker, with metrics, took at most {peak:.0f} MiB."
    )
    return f"{note}\n\n{table(['system', 'setting', f'encode, {unit}', f'decode, {unit}'], rows)}"


# ----------------------------------------------------------------------------------------- pictures


def _histograms(folder: Path, name: str, stem: str, models: list[Record]) -> str:
    lines = [line for (one, _), line in sorted(read_journal(folder).lines.items()) if one == name]
    counts: dict[str, NDArray[np.int64]] = {}
    for entry in models:
        key = f"{entry['system']} {entry['setting']}"
        tokens = [
            unpack_tokens(line["tokens"][key]["indices"])
            for line in lines
            if key in line.get("tokens", {})
        ]
        together = np.concatenate([t.ravel() for t in tokens])
        counts[f"{key}: CVU {entry['use']['CVU']:.2f}"] = np.bincount(
            together, minlength=entry["use"]["num_codes"]
        )
    figures.codebook_use(folder / "report" / f"{stem}-use.png", counts)
    return f"![codebook use](report/{stem}-use.png)"


def _samples(
    folder: Path, name: str, medium: str, stem: str, entries: list[Record], results: Record
) -> list[str]:
    """Draws a contact sheet or spectrograms, and returns the lines of the report that show it.

    A row has an original, the models at one size, and what was matched to the first of them.
    """
    models = [e for e in entries if "use" in e]
    if not models:
        return []
    systems = dict.fromkeys(e["system"] for e in models)
    shown = []
    for system in systems:
        settings = [e["setting"] for e in models if e["system"] == system]
        shown.append(
            (system, SHOWN_SETTING if SHOWN_SETTING in settings else settings[len(settings) // 2])
        )
    first = " ".join(shown[0])
    shown += [(e["system"], e["setting"]) for e in entries if e.get("matched_to") == first]
    records: dict[tuple[str, str, str], Record] = {
        (r["item"], r["system"], r["setting"]): r
        for r in results["records"]
        if (r["set"], r["medium"]) == (name, medium)
    }
    rows: list[list[figures.Panel]] = []
    suffix = SIGNALS[medium].suffix
    for item in dict.fromkeys(key[0] for key in records):
        original = sample_path(folder, name, item, "original", suffix)
        if not original.is_file() or len(rows) == SAMPLES:
            continue
        row = [(f"{Path(item).stem[:28]}", _load(original, medium))]
        for system, setting in shown[: MOST_PANELS - 1]:
            record = records.get((item, system, setting))
            path = sample_path(folder, name, item, f"{system} {setting}", suffix)
            if record and path.is_file():
                row.append((_caption(system, setting, record, medium), _load(path, medium)))
        rows.append(row)
    if not rows:
        return []
    gallery = GALLERIES[medium]
    gallery.draw(folder / "report" / f"{stem}-{gallery.stem}.png", rows)
    matched = any(e.get("matched_to") == first for e in entries)
    title = f"{gallery.title} at equal bytes" if matched else gallery.title
    return [
        f"### {title}",
        f"![{title[0].lower()}{title[1:]}](report/{stem}-{gallery.stem}.png)",
    ]


def _caption(system: str, setting: str, record: Record, medium: str) -> str:
    metric = GALLERIES[medium].metric
    value = "unscored" if record[metric] is None else f"{record[metric]:.{DECIMALS[metric]}f}"
    which = "" if setting.startswith("@") else f" {setting}"
    return f"{title_of(system)}{which}\n{record['bytes']} bytes, {metric} {value}"


def _load(path: Path, medium: str) -> NDArray[Any]:
    with path.open("rb") as file:
        return GALLERIES[medium].read(file)
