"""Pictures of a run.

They are rate-distortion curves, codebook use, contact sheets and spectrograms at equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from codec.medium import MEDIA, SAMPLE_RATE
from eval.metrics import LOWER_IS_BETTER
from eval.trained import Trained, mark

Record = dict[str, Any]
Panel = tuple[str, NDArray[Any]]  # caption and signal
SPECTROGRAM_SECONDS, FFT, HOP = 4.0, 512, 128
RANGE_DB = 80  # of a spectrogram
DPI = 110


def rd_curves(
    path: Path,
    medium: str,
    metrics: Sequence[str],
    curves: Mapping[str, list[Record]],
    trained: Mapping[str, Trained],
) -> None:
    """Draws quality against coded rate, a panel for each metric, with 95 % intervals.

    Args:
        path: The .png that is written.
        medium: "image" or "speech".
        metrics: The names of the metrics.
        curves: For each title the entries of the summary, one for each setting; models are drawn
            thick.
        trained: For each model the metrics that it was trained on, for the mark in the legend.
    """
    figure = Figure(figsize=(5.2 * len(metrics), 4.2), layout="constrained")
    for axes, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        for number, (title, entries) in enumerate(curves.items()):
            points = [e for e in entries if e["metrics"].get(metric, {}).get("mean") is not None]
            if points:
                label = f"{title} {mark(metric, trained.get(title))}".strip()
                _curve(
                    axes,
                    label,
                    sorted(points, key=lambda e: float(e["rate"]["mean"])),
                    metric,
                    number,
                )
        axes.set(xlabel=f"{MEDIA[medium].rate_unit} of the whole file", ylabel=metric, xscale="log")
        axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        if metric in LOWER_IS_BETTER:
            axes.invert_yaxis()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _save(figure, path)


def _curve(axes: Axes, title: str, points: list[Record], metric: str, number: int) -> None:
    found = [point["metrics"][metric] for point in points]
    means = [f["mean"] for f in found]
    spread = [
        [f["mean"] - f[end] if f[end] is not None else 0.0 for f in found]
        if end == "low"
        else [f[end] - f["mean"] if f[end] is not None else 0.0 for f in found]
        for end in ("low", "high")
    ]
    style: dict[str, Any] = {"lw": 1.0, "marker": ".", "ms": 5, "ls": "--"}
    if "use" in points[0]:  # a model's, which has tokens
        style = {"lw": 2.2, "marker": "o", "ms": 5}
    axes.errorbar(
        [p["rate"]["mean"] for p in points],
        means,
        spread,
        label=title,
        capsize=2,
        color=f"C{number % 10}",
        **style,
    )


def codebook_use(path: Path, counts: Mapping[str, NDArray[np.int64]]) -> None:
    """Draws the share of tokens that each code has, by falling use; the dotted line is even use.

    Args:
        path: The .png that is written.
        counts: For each title how often each code occurs, (K,).
    """
    columns = min(4, len(counts))
    rows = -(-len(counts) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, count) in zip(panels, counts.items(), strict=False):
        share = np.sort(count)[::-1] / max(count.sum(), 1)
        codes = np.arange(1, len(share) + 1)
        axes.fill_between(codes, share, step="mid", alpha=0.7)
        axes.axhline(1 / len(share), color="k", ls=":", lw=0.8)
        axes.set(
            yscale="log",
            xlim=(1, len(share)),
            title=title,
            xlabel="code, by use",
            ylabel="share of tokens",
        )
        axes.title.set_fontsize(8)
        positive = share[share > 0]
        axes.set_ylim(
            positive.min() / 2 if len(positive) else 1e-6, 2 * share.max() if len(positive) else 1
        )
    for axes in panels[len(counts) :]:
        axes.set_visible(False)
    _save(figure, path)


def contact_sheet(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    """Draws pictures side by side, a row for each, pixel for pixel where they are small."""
    columns = max(map(len, rows))
    heights = [row[0][1].shape[0] / row[0][1].shape[1] for row in rows]
    figure = Figure(
        figsize=(2.8 * columns, sum(2.8 * h + 0.45 for h in heights)), layout="constrained"
    )
    for axes_row, panels in zip(
        figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights), rows, strict=True
    ):
        for axes, panel in zip(axes_row, [*panels, *[None] * (columns - len(panels))], strict=True):
            axes.set_axis_off()
            if panel is not None:
                axes.imshow(panel[1], interpolation="none")
                axes.set_title(panel[0], fontsize=8)
    _save(figure, path, dpi=130)


def spectrograms(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    """Draws log-magnitude spectrograms of the first seconds, a row for each clip.

    The scale of a row is that of its first panel, the original.
    """
    columns = max(map(len, rows))
    figure = Figure(figsize=(3.6 * columns, 2.3 * len(rows)), layout="constrained")
    for axes_row, panels in zip(
        figure.subplots(len(rows), columns, squeeze=False), rows, strict=True
    ):
        pictures = [(caption, _decibels(signal)) for caption, signal in panels]
        top = max(float(picture.max()) for _, picture in pictures[:1])
        for axes, panel in zip(
            axes_row, [*pictures, *[None] * (columns - len(panels))], strict=True
        ):
            if panel is None:
                axes.set_axis_off()
                continue
            seconds = panel[1].shape[1] * HOP / SAMPLE_RATE
            axes.imshow(
                panel[1],
                origin="lower",
                aspect="auto",
                vmin=top - RANGE_DB,
                vmax=top,
                cmap="magma",
                extent=(0, seconds, 0, SAMPLE_RATE / 2000),
            )
            axes.set_title(panel[0], fontsize=8)
            axes.tick_params(labelsize=6)
    _save(figure, path)


def _decibels(signal: NDArray[Any]) -> NDArray[Any]:
    """Returns the spectrogram of a (T,) signal in dB, (FFT / 2 + 1, frames)."""
    part = np.pad(signal[: int(SPECTROGRAM_SECONDS * SAMPLE_RATE)], (0, max(FFT - len(signal), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(part, FFT)[::HOP] * np.hanning(FFT)
    return 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-5)


def _save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
