"""python -m eval.compare A/results.json B/results.json: is B worse than A?

Runs are paired by item; a regression has exit code 1.

A metric has regressed where B's mean over the items that both scored is worse by more than the
margin, and that is no accident: p < 0.05 in a Wilcoxon signed-rank test of the differences in the
mean's direction, times two (where fewer than six items differ, which no such test can tell from
chance, the margin alone decides); or where B leaves items unscored, or out, that A scored. An item
that comes back without a difference is too good for PSNR and SI-SDR, and not lost. One item that
fell far moves the mean, and not the test: it is named, and so is a metric that B did not measure. A
setting of A that B lacks is a regression, too, of a system that B has or that failed there. Classic
codecs at matched bytes are left out: they are as good as the model's files are long.

    A, B ─pairs of (set, system, setting)─> items of both ─differences─> a line each, exit 0 or 1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.cli.frame import Parser, UsageError, filled_path, print_line, print_text, run
from codec.errors import MediaError, not_installed
from codec.medium import MEDIA
from codec.streams import process

try:
    from scipy.stats import wilcoxon

    from eval.metrics import DECIMALS, LOWER_IS_BETTER, NO_DIFFERENCE
    from eval.summary import NOT_METRICS, statistic, total_rate
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval')}")

Record = dict[str, Any]
Values = NDArray[np.float64]
Key = tuple[str, str, str]  # set, system, setting
LEVEL = 0.05
FEWEST = 6  # differences that are not 0; six of one sign have p = 1/32, and five 1/16
MARGINS = {  # that of the rate is a share of A's
    "PSNR": 0.1, "SSIMULACRA2": 0.5, "SI-SDR": 0.1, "PESQ": 0.02, "DistillMOS": 0.02, "rate": 0.01,
}  # fmt: skip
FAR = 10  # margins; an item that is worse by more is named
MATCHED = "@ "  # begins the setting of a classic codec at the bytes of a model
OTHER_MARGIN = 0.005  # of metrics that are not among these


@dataclass(frozen=True, slots=True)
class Finding:
    """How one metric of one system differs between two runs, over the items that both scored.

    Attributes:
        what: The set, system and setting.
        metric: The name of the metric; "rate" is that of the file.
        a, b: The means; that of B is None where it scored nothing.
        low, high: The 95 % interval of the difference B - A, where it is known.
        p: How often chance makes a difference in this direction, times two.
        items: The number of items that both scored.
        lost: The number of items that A scored and B did not, or that only A gave back exactly.
        regressed: Whether B is worse beyond the margin.
        worst: The item that is worse by most, if that is `FAR` margins or more.
        worst_by: Its difference B - A.
    """

    what: str
    metric: str
    a: float
    b: float | None
    low: float | None
    high: float | None
    p: float | None
    items: int
    lost: int
    regressed: bool
    worst: str | None = None
    worst_by: float | None = None


def compare(a: Record, b: Record, same: dict[str, str], margins: dict[str, float]) -> list[Finding]:
    """Compares two runs in all metrics of all systems that both have.

    A setting of such a system that B lacks makes one finding, of the rate.

    Args:
        a: The content of a results.json, the reference.
        b: The content of another.
        same: For a system of A, the one of B that it is held against, where it is called otherwise.
        margins: For each metric, how much worse is too much; for "rate" as a share of A's.

    Raises:
        MediaError: They have no set, system and setting in common, or a pair has no item in common.
    """
    of_a, of_b = _by_key(a, same), _by_key(b, {})
    lost = _lost(of_a, of_b, b)
    shared = [key for key in of_a if key in of_b]
    if not shared and not lost:
        have = [
            ", ".join(sorted({" ".join(key) for key in found})[:4]) or "nothing"
            for found in (of_a, of_b)
        ]
        raise MediaError(
            f"nothing to compare: A has {have[0]} ..., B has {have[1]} ...; pair models by --as A=B"
        )
    findings = [
        finding
        for key in lost
        if (finding := _finding(" ".join(key), "rate", of_a[key], {}, margins)) is not None
    ]
    for key in shared:
        items = [item for item in of_a[key] if item in of_b[key]]
        if not items:
            raise MediaError(f"{' '.join(key)}: A and B have no item in common")
        measured = _metrics(of_b[key])
        for metric in ("rate", *(m for m in _metrics(of_a[key]) if m in measured)):
            finding = _finding(" ".join(key), metric, of_a[key], of_b[key], margins)
            if finding is not None:
                findings.append(finding)
    return findings


def unlike(a: Record, b: Record) -> list[str]:
    """Says in what two runs differ that may be why their figures do.

    Raises:
        MediaError: A set was cropped, or brought to a level, in another way.
    """
    plans = [results.get("plan", {}) for results in (a, b)]
    sets = [plan.get("sets", {}) for plan in plans]
    notices = []
    for name in sets[0].keys() & sets[1].keys():
        ours, theirs = (one[name] for one in sets)
        for key in ("crop", "level_dbfs"):
            if ours.get(key) != theirs.get(key):
                raise MediaError(
                    f"{name}: A has {key} {ours.get(key)} and B {theirs.get(key)}; runs are "
                    "compared on the same data"
                )
        if ours.get("listing") != theirs.get("listing"):
            notices.append(f"{name}: A and B are of other items, or of files that were changed")
    packages = [plan.get("packages", {}) for plan in plans]
    changed = [
        f"{name} {packages[0].get(name)} and {packages[1].get(name)}"
        for name in sorted(packages[0].keys() | packages[1].keys())
        if name != "codec" and packages[0].get(name) != packages[1].get(name)
    ]
    if changed and all(packages):
        notices.append(f"A and B were measured with {', '.join(changed)}")
    return notices


def unmeasured(a: Record, b: Record, same: dict[str, str]) -> list[str]:
    """Names the metrics that A has of a system, and B measured on none of that system's items."""
    of_a, of_b = _by_key(a, same), _by_key(b, {})
    return list(
        dict.fromkeys(
            metric
            for key in of_a.keys() & of_b.keys()
            for metric in sorted(_metrics(of_a[key]).keys() - _metrics(of_b[key]).keys())
        )
    )


def _metrics(records: dict[str, Record]) -> dict[str, None]:
    """Names the metrics that were measured, whether or not they had a value."""
    return dict.fromkeys(
        key for record in records.values() for key in record if key not in NOT_METRICS
    )


def _by_key(results: Record, same: dict[str, str]) -> dict[Key, dict[str, Record]]:
    """Returns a run's records by set, system and setting, and then by item.

    A system that has the name of another's partner in `same` has none itself, and is left out.
    """
    taken = set(same.values()) - same.keys()
    found: dict[Key, dict[str, Record]] = {}
    for record in results["records"]:
        if "matched_to" not in record and record["system"] not in taken:
            system = same.get(record["system"], record["system"])
            found.setdefault((record["set"], system, record["setting"]), {})[record["item"]] = (
                record
            )
    return found


def _lost(of_a: Iterable[Key], of_b: Iterable[Key], b: Record) -> list[Key]:
    """Returns the keys of A that B lacks, of systems that B measured or tried to measure.

    A classic codec that failed at matched bytes says nothing of its curve, which B may do without.
    """
    tried = {key[:2] for key in of_b} | {
        (failed["set"], failed["system"])
        for failed in b.get("failed", [])
        if not failed["setting"].startswith(MATCHED)
    }
    return [key for key in of_a if key not in of_b and key[:2] in tried]


def _finding(
    what: str, metric: str, a: dict[str, Record], b: dict[str, Record], margins: dict[str, float]
) -> Finding | None:
    scored = {
        item: value for item, record in a.items() if (value := _value(record, metric)) is not None
    }
    both = [item for item in scored if item in b and _value(b[item], metric) is not None]
    lost = sum(_rank(b.get(item), metric) < _rank(record, metric) for item, record in a.items())
    if not scored or not (both or lost):
        return None
    if not both:
        of_scored = np.array([a[item]["units"] for item in scored], np.float64)
        before = _mean(metric, np.array(list(scored.values())), of_scored)
        return Finding(what, metric, before, None, None, None, None, 0, lost, True)
    units = np.array([a[item]["units"] for item in both], np.float64)
    x = np.array([scored[item] for item in both])
    y = np.array([_value(b[item], metric) for item in both], np.float64)
    differences = y - x
    differing = int(np.count_nonzero(differences))  # the test leaves the others out
    if metric == "rate":
        spread = total_rate((differences * units).tolist(), units.tolist(), what + metric)
    else:
        spread = statistic(differences.tolist(), what + metric)
    before = _mean(metric, x, units)
    change = float(spread["mean"])
    # Against the ranks' own direction the mean was moved by few items, which proves nothing.
    direction = "greater" if change > 0 else "less"
    one_sided = float(wilcoxon(differences, alternative=direction).pvalue) if differing else 1.0
    p = min(1.0, 2 * one_sided)
    sign = 1 if metric in LOWER_IS_BETTER or metric == "rate" else -1
    margin = margins.get(metric, OTHER_MARGIN) * (before if metric == "rate" else 1)
    regressed = bool(lost) or (sign * change > margin and (p < LEVEL or differing < FEWEST))
    last = int((sign * differences).argmax())
    far = sign * float(differences[last]) > FAR * margin
    return Finding(
        what, metric, before, before + change, spread["low"], spread["high"], p, len(both), lost,
        regressed, both[last] if far else None, float(differences[last]) if far else None,
    )  # fmt: skip


def _mean(metric: str, values: Values, units: Values) -> float:
    """Returns the mean over items, where a rate weighs as many seconds or pixels as it is of."""
    return float(np.average(values, weights=units if metric == "rate" else None))


def _rank(record: Record | None, metric: str) -> int:
    """Returns 0 without a value, 1 with one, and 2 where there is none for want of a difference."""
    if record is not None and record.get("unscored", {}).get(metric) == NO_DIFFERENCE:
        return 2
    return int(record is not None and _value(record, metric) is not None)


def _value(record: Record, metric: str) -> float | None:
    return 8 * record["bytes"] / record["units"] if metric == "rate" else record.get(metric)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m eval.compare", description=__doc__, epilog="See docs/evaluate.md"
    )
    parser.add_argument(
        "a",
        type=filled_path,
        metavar="A",
        help="results.json, or the folder of a run: the reference",
    )
    parser.add_argument("b", type=filled_path, metavar="B", help="the one that must not be worse")
    parser.add_argument(
        "--as", dest="pairs", action="append", default=[], metavar="A=B", help="model A is B's B"
    )
    parser.add_argument(
        "--margin", action="append", default=[], metavar="METRIC=N",
        help="how much worse is too much; default "
        f"{', '.join(f'{k}={v:g}' for k, v in MARGINS.items())} (a share), "
        f"others {OTHER_MARGIN}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    code = 0

    def command(options: argparse.Namespace) -> None:
        nonlocal code
        a, b = _read(options.a), _read(options.b)
        for notice in unlike(a, b):
            print_line(f"notice: {notice}", sys.stderr)
        margins = MARGINS | _margins(options.margin, a, b)
        same = _same(options.pairs, a, b)
        findings = compare(a, b, same, margins)
        for name in _alone(a, b, same):
            print_line(
                f"notice: {name}: B has none of it, so it is not compared; pair models by --as A=B",
                sys.stderr,
            )
        if missing := unmeasured(a, b, same):
            print_line(
                f"notice: {', '.join(missing)}: B did not measure this, so it is not compared",
                sys.stderr,
            )
        if options.json:
            fields = Finding.__dataclass_fields__
            listing = [{name: getattr(f, name) for name in fields} for f in findings]
            print_text(json.dumps(listing, indent=1))
        else:
            for finding in findings:
                print_line(_line(finding), sys.stdout)
        bad = [f for f in findings if f.regressed]
        code = 1 if bad else 0
        if bad:
            others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            first = f"{bad[0].what} {bad[0].metric}"
            print(
                f"error: {len(bad)} of {len(findings)} regressed: {first}{others}", file=sys.stderr
            )

    return run(parser, arguments, command) or code


def _read(path: Path) -> Record:
    path = path / "results.json" if path.is_dir() else path
    try:
        results: Record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_figure)
        names = {"set", "item", "system", "setting"}
        if not (
            all(names | {"medium", "bytes", "units"} <= r.keys() for r in results["records"])
            and all(names <= failed.keys() for failed in results.get("failed", []))
        ):
            raise KeyError("a record without its names")
        if not all(map(_has_figures, results["records"])):
            raise ValueError("a record without its figures")
    except OSError as error:
        raise MediaError(
            f"{path}: cannot read ({error.strerror}); give the results.json of python -m eval"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MediaError(f"{path}: no results.json of python -m eval ({error})") from None
    return results


def _no_figure(name: str) -> None:
    """Refuses NaN and Infinity, which no run writes and nothing can be compared with."""
    raise ValueError(f"{name} is no figure")


def _has_figures(record: Record) -> bool:
    found = (value for key, value in record.items() if key not in NOT_METRICS)
    return (
        record["bytes"] >= 0
        and record["units"] > 0
        and all(value is None or isinstance(value, int | float) for value in found)
    )


def _same(pairs: list[str], a: Record, b: Record) -> dict[str, str]:
    """Pairs systems of A with those of B by name.

    Without --as, a medium's only model in A is paired with its only model in B.
    """
    same: dict[str, str] = {}
    for pair in pairs:
        left, equals, right = pair.partition("=")
        if not equals or not left or not right:
            raise UsageError(f"--as {pair}: want A=B")
        for name, results, run_name in ((left, a, "A"), (right, b, "B")):
            known = sorted({r["system"] for r in [*results["records"], *results.get("failed", [])]})
            if name not in known:
                raise UsageError(f"--as {pair}: {run_name} has {', '.join(known)}, and no {name}")
        kinds = [
            {r["medium"] for r in results["records"] if r["system"] == name}
            for name, results in ((left, a), (right, b))
        ]
        if all(kinds) and not kinds[0] & kinds[1]:
            raise UsageError(
                f"--as {pair}: {left} codes {', '.join(kinds[0])}, and {right} codes "
                f"{', '.join(kinds[1])}; pair models of one medium"
            )
        if left in same or right in same.values():
            raise UsageError(f"--as {pair}: one of them has another partner already")
        same[left] = right
    if same:
        return same
    media = {(r["set"], r["item"]): r["medium"] for one in (a, b) for r in one["records"]}
    for medium in MEDIA:
        ours = [_models(results, medium, media) for results in (a, b)]
        if len(ours[0]) == len(ours[1]) == 1 and ours[0] != ours[1]:
            same |= {ours[0][0]: ours[1][0]}
    return same


def _alone(a: Record, b: Record, same: dict[str, str]) -> list[str]:
    """Names the systems that A measured on a set, and B did not try there.

    One that has the name of another's partner is left out knowingly.
    """
    tried = {(one["set"], one["system"]) for one in [*b["records"], *b.get("failed", [])]}
    taken = set(same.values()) - same.keys()
    measured = dict.fromkeys((r["set"], r["system"]) for r in a["records"] if "matched_to" not in r)
    return [
        f"{system} on {name}"
        for name, system in measured
        if system not in taken and (name, same.get(system, system)) not in tried
    ]


def _models(results: Record, medium: str, media: dict[tuple[str, str], str]) -> list[str]:
    """Names the models of a medium that a run measured, or that failed on all there was.

    Args:
        results: The content of a results.json.
        medium: "image" or "speech".
        media: The medium of each (set, item), as a failure does not say its own.
    """
    models = {model[0] for model in results.get("plan", {}).get("models", [])}
    tried = [*results["records"], *results.get("failed", [])]
    return sorted(
        {
            one["system"]
            for one in tried
            if one["system"] in models and media.get((one["set"], one["item"])) == medium
        }
    )


def _margins(words: list[str], a: Record, b: Record) -> dict[str, float]:
    margins = {}
    known = {"rate", *(key for r in [*a["records"], *b["records"]] for key in r)} - set(NOT_METRICS)
    for word in words:
        name, _, number = word.partition("=")
        if name not in known:
            raise UsageError(f"--margin {word}: the runs have {', '.join(sorted(known))}")
        try:
            margins[name] = float(number)
        except ValueError:
            raise UsageError(f"--margin {word}: want METRIC=N") from None
        if not margins[name] >= 0:
            raise UsageError(f"--margin {word}: want at least 0")
    return margins


def _line(f: Finding) -> str:
    digits = DECIMALS.get(f.metric, 3) + 1
    spread = "" if f.low is None else f" [{f.low:+.{digits}f}, {f.high:+.{digits}f}]"
    p = "" if f.p is None else f", p {f.p:.2g}"
    lost = f", {f.lost} items no longer scored or exact" if f.lost else ""
    verdict = "  REGRESSED" if f.regressed else ""
    if f.worst is not None and f.worst_by is not None:
        verdict = f", worst {f.worst} {f.worst_by:+.{digits}f}{verdict}"
    change = "nothing" if f.b is None else f"{f.b:.{digits}f}, {f.b - f.a:+.{digits}f}{spread}{p}"
    return f"{f.what} {f.metric}: {f.a:.{digits}f} -> {change}, {f.items} items{lost}{verdict}"


if __name__ == "__main__":
    sys.exit(process(main))
