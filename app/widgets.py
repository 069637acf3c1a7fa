"""The page's own controls.

Each is a gr.HTML whose drawing and manners are a file in static/, and what it is told to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from app import pictures
from app.originals import Original
from app.versions import UNIT, Version
from app.words import empty, notice, number, ratio, tip
from eval.trained import mark, note

NOTHING_TO_DRAW = empty(
    "No figure could be measured on this input",
    "It is too short, too small or silent. The files are in the table.",
)
STATIC = Path(__file__).parent / "static"
ORIGINAL_TONE = "var(--ink)"
# Okabe and Ito's colours, which stay apart for eyes that see fewer; one for each model or classic
# codec.
TONES = ("#0b7fc7", "#d55e00", "#009e73", "#b8579b", "#b37f00", "#2a92c2", "#7a6cc9", "#6d7a83")


def widget(kind: str, empty: str = "", **options: Any) -> gr.HTML:
    """Makes a control that static/<kind>.js draws from plain data.

    The data are {"empty": html} when there is nothing to draw.

    A function, since Gradio writes a .pyi beside the original of every subclass of its components.
    """
    script = "\n".join(
        (STATIC / f"{name}.js").read_text(encoding="utf-8") for name in ("common", kind)
    )
    return gr.HTML(
        value={"empty": empty},
        html_template=f'<div class="{kind}"></div>',
        js_on_load=f"(() => {{{script}}})()",
        apply_default_css=False,
        elem_classes=["widget"],
        **options,
    )


def url(path: Path) -> str:
    """Returns the address at which the page finds a file of the app's own folder."""
    return "gradio_api/file=" + quote(str(path))


def tones(versions: Sequence[Version]) -> dict[str, str]:
    """Gives a colour to each model and each classic codec, in the order they come."""
    names = list(dict.fromkeys(version.family for version in versions))
    return {name: TONES[i % len(TONES)] for i, name in enumerate(names)}


def short_names(versions: Sequence[Version]) -> list[str]:
    """Returns labels, without the model's name where only one model is there."""
    models = {version.model for version in versions if version.model}
    return [
        version.label.removeprefix(f"{version.model}, ") if len(models) == 1 else version.label
        for version in versions
    ]


def heading(original: Original, button: str) -> str:
    """Returns what stands above all that was made of an input.

    Args:
        original: The input. Once it is not the one that is chosen, static/current.js sees that by
            its digest; what stands below turns grey, and this says why.
        button: What to press then.
    """
    return (
        f'<div data-input="{original.digest}"><h3>Results for {escape(original.name)}</h3>'
        f"{notice([f'the input has changed since: press {button} again'])}</div>"
    )


def short_note(version: Version) -> str:
    """Returns what stands under a version's name: bytes and rate."""
    return f"{version.num_bytes:,} B · {version.rate:.3g} {short_unit(version.medium)}"


def short_unit(medium: str) -> str:
    """Returns the unit of a medium's rates, where there is little room."""
    return UNIT[medium].replace("bits per pixel", "bpp")


def listening(
    original: Original | None,
    versions: Sequence[Version],
    names: Sequence[str] | None = None,
    traces: bool = True,
) -> dict[str, Any]:
    """Returns what a "listener" shows: the original, if there is one, and the versions.

    Args:
        names: Other names than the versions' own.
        traces: Draw waveforms and spectrograms.
    """
    colour = tones(versions)
    signals = ([original.reference] if original else []) + [version.samples for version in versions]
    media = ([original.media] if original else []) + [version.media for version in versions]
    labels = (["Original"] if original else []) + list(names or short_names(versions))
    notes = [f"{original.raw_bytes:,} B raw"] if original else []
    notes += [short_note(version) for version in versions]
    shades = [ORIGINAL_TONE] if original else []
    shades += [colour[version.family] for version in versions]
    gains = pictures.playback_gains([pictures.loudness(signal) for signal in signals])
    shown: list[dict[str, Any]] = [
        {"label": label, "note": note, "url": url(path), "gain": gain, "tone": shade}
        for label, note, path, gain, shade in zip(labels, notes, media, gains, shades, strict=True)
    ]
    if traces:
        loudest = None
        for entry, signal, path in zip(shown, signals, media, strict=True):
            image = path.with_suffix(".spectrogram.png")
            loudest = pictures.spectrogram(signal, image, loudest)
            entry |= {"peaks": pictures.peaks(signal), "spectrogram": url(image)}
    return {"duration": len(signals[0]) / 16000, "versions": shown}


def looking(
    original: Original | None,
    versions: Sequence[Version],
    names: Sequence[str] | None = None,
    traces: bool = True,  # noqa: ARG001  pictures are seen as they are
) -> dict[str, Any]:
    """Returns what a "viewer" shows: the original, if there is one, and the versions."""
    colour = tones(versions)
    height, width = (original.reference if original else versions[0].samples).shape[:2]
    shown = []
    if original:
        raw = f"{original.raw_bytes:,} B raw"
        shown.append(
            {"label": "Original", "note": raw, "url": url(original.media), "tone": ORIGINAL_TONE}
        )
    for version, label in zip(versions, names or short_names(versions), strict=True):
        tone = colour[version.family]
        shown.append(
            {"label": label, "note": short_note(version), "url": url(version.media), "tone": tone}
        )
    return {"width": width, "height": height, "versions": shown}


def chart(versions: Sequence[Version], metric: str) -> dict[str, Any]:
    """Returns what a "chart" shows: a line for each model and each classic codec.

    It says so where no version has a figure of the metric.
    """
    colour = tones(versions)
    series: dict[str, dict[str, Any]] = {}
    for row, version in enumerate(versions):
        value = version.scores.get(metric)
        name = version.family
        line = series.setdefault(
            name,
            {"name": name, "tone": colour[name], "dashed": version.kind == "classic", "points": []},
        )
        if value is not None:
            figure = f"{value:.3f}{mark(metric, version.trained)}"
            label = f"{version.label}: {version.rate:.3g} {UNIT[version.medium]}, {metric} {figure}"
            size = f"{version.codebook_size:,}" if version.codebook_size else ""
            line["points"].append(
                {"x": version.rate, "y": value, "row": row, "label": label, "size": size}
            )
    lines = [s for s in series.values() if s["points"]]
    if not lines:
        return {"empty": NOTHING_TO_DRAW}
    return {
        "result": url(versions[0].file),
        "x_label": UNIT[versions[0].medium],
        "y_label": metric,
        "series": lines,
    }


def measured(versions: Sequence[Version]) -> list[str]:
    """Returns the metrics of which some version has a figure, in the order of the table."""
    names = dict.fromkeys(name for version in versions for name in version.scores)
    return [
        name for name in names if any(version.scores.get(name) is not None for version in versions)
    ]


def framed(table: str, label: str, below: str = "") -> str:
    """Returns a table that scrolls sideways where it is too wide, also by keyboard.

    Args:
        table: Its element.
        label: What it has, for those who do not see it.
        below: What stands in the same frame and does not scroll.
    """
    return (
        f'<div class="facts"><div class="across" role="region" tabindex="0" '
        f'aria-label="{escape(label)}">{table}</div>{below}</div>'
    )


def facts(versions: Sequence[Version]) -> str:
    """Returns the table of figures, with a link to each file."""
    if not versions:
        return ""
    unit, colour = UNIT[versions[0].medium], tones(versions)
    metrics = measured(versions)
    heads = ["bytes", unit, "ratio", *metrics, "codes used", "time"]
    rows = []
    for version, name in zip(versions, short_names(versions), strict=True):
        used = (
            "–" if version.num_codes is None else f"{version.used_codes:,} of {version.num_codes:,}"
        )
        cells = [number(version.num_bytes), f"{version.rate:.3g}", ratio(version.ratio)]
        cells += [_score(version, name) for name in metrics]
        cells += [used, f"{version.encode_s:.2f} + {version.decode_s:.2f} s"]
        body = "".join(
            f'<td data-head="{escape(head)}">{cell}</td>'
            for head, cell in zip(heads, cells, strict=True)
        )
        rows.append(
            f'<tr style="--tone:{colour[version.family]}"><th scope="row"><i></i>'
            f'{escape(name)}</th><td data-head="file">{download(version.file)}</td>{body}</tr>'
        )
    titles = "".join(f'<th scope="col">{tip(head, head.split("-")[0])}</th>' for head in heads)
    return framed(
        '<table><thead><tr><th scope="col">version</th><th scope="col">file</th>'
        f"{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>",
        "Figures of every version",
        _below(versions, metrics),
    )


def _score(version: Version, metric: str) -> str:
    value = version.scores.get(metric)
    return number(value) + (mark(metric, version.trained) if value is not None else "")


def _below(versions: Sequence[Version], metrics: Sequence[str]) -> str:
    """Which metrics have no figure here, and which models were trained on which of the others."""
    missing = [n for n in dict.fromkeys(n for v in versions for n in v.scores) if n not in metrics]
    said = [f"Could not be measured on this input: {', '.join(missing)}."] if missing else []
    said += [
        note({version.family: version.trained for version in versions if version.model}, metrics)
    ]
    text = " ".join(filter(None, said))
    return f'<p class="below">{escape(text)}</p>' if text else ""


def download(path: Path, text: str | None = None) -> str:
    """Returns a link that saves a file."""
    label = text or path.suffix
    return (
        f'<a class="download" href="{escape(url(path))}" download="{escape(path.name)}" '
        f'aria-label="Download {escape(path.name)}">{escape(label)}</a>'
    )
