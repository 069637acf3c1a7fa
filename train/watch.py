"""python -m train.watch RUN...: draws the curves of runs.

They go to the terminal or to a plot file, while the runs train or after.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from codec.cli import frame
from codec.cli.frame import Parser, filled_path, positive
from codec.errors import CodecError, not_installed
from codec.streams import process
from train.log import LOG_NAME, read

HEIGHT, WIDTH, NARROWEST = 10, 72, 20
MARGIN = 12  # columns in front of a curve
BARS = " ▁▂▃▄▅▆▇█"
Curve = tuple[list[float], list[float]]  # minutes, values


def curves(run: Path, keys: list[str]) -> dict[str, Curve]:
    """Reads what a run logged under each key.

    Raises:
        CodecError: There is no log, or no such key in it.
    """
    records = [_numbers(record) for record in _log_of(run)]
    found = {}
    for key in keys:
        pairs = [(r["minutes"], r[key]) for r in records if {"minutes", key} <= r.keys()]
        points = [pair for pair in pairs if all(map(math.isfinite, pair))]
        if pairs and not points:
            raise CodecError(
                f"{run}: no numbers logged as {key}, it was never finite; "
                "lower optimiser.learning_rate, or look at the data"
            )
        if not points:
            known = sorted({name for record in records for name in record} - {"minutes"})
            raise CodecError(f"{run}: no numbers logged as {key}; there is {', '.join(known)}")
        found[key] = ([p[0] for p in points], [p[1] for p in points])
    return found


def _log_of(run: Path) -> list[dict[str, Any]]:
    """Reads the log of a run, by its folder or by the file.

    Raises:
        CodecError: There is none, or no line in it yet.
    """
    path = run / LOG_NAME if run.is_dir() else run
    if records := read(path):
        return records
    if path.is_file():
        raise CodecError(f"{run}: no line in the log yet; the first comes after --log-steps steps")
    raise CodecError(f"{run}: no log here; name a folder that python -m train wrote")


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """Returns the part of a record that can be drawn; the name of a stage cannot."""
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def draw(curve: Curve, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Draws a curve as lines of text, the highest first.

    Each column is the mean of its part of the time, or that of the column before where there is
    none.
    """
    minutes, values = curve
    start, end = minutes[0], minutes[-1]
    cells: list[list[float]] = [[] for _ in range(width)]
    for minute, value in zip(minutes, values, strict=True):
        cells[min(width - 1, int((minute - start) / max(end - start, 1e-9) * width))].append(value)
    columns: list[float] = []
    for cell in cells:
        columns.append(sum(cell) / len(cell) if cell else columns[-1])
    low, high = min(columns), max(columns)
    levels = [(c - low) / max(high - low, 1e-12) * (height * 8 - 1) + 1 for c in columns]
    lines = []
    for row in reversed(range(height)):
        label = f"{high:10.4g}" if row == height - 1 else f"{low:10.4g}" if row == 0 else " " * 10
        lines.append(
            f"{label} │" + "".join(BARS[max(0, min(8, round(level - 8 * row)))] for level in levels)
        )
    lines.append(" " * 11 + "└" + "─" * width)
    lines.append(f"{'':12}{start:<10.4g}{'minutes':^{width - 20}}{end:>10.4g}")
    return lines


def show(runs: list[Path], keys: list[str], width: int = WIDTH) -> str:
    """Draws all curves of all runs, and says where each run stands.

    A value that is no finite number any more is said as it is, with the last one that was.
    """
    lines = []
    for run in runs:
        found = curves(run, keys)
        records = _log_of(run)
        last = records[-1]
        facts = [
            f"{k} {last[k]}"
            for k in ("stage", "step", "minutes", "steps_per_s", "tokens_per_s")
            if k in last
        ]
        lines.append(f"{run.name}: {', '.join(facts)}")
        for key, curve in found.items():
            minutes, values = curve
            now = next(r[key] for r in map(_numbers, reversed(records)) if key in r)
            told = f"{key}: {now:.5g}"
            if not math.isfinite(now):
                told += f", after {values[-1]:.5g} at {minutes[-1]:.4g} minutes"
            lines += ["", told, *draw(curve, width)]
        lines.append("")
    return "\n".join(lines)


def plot(runs: list[Path], keys: list[str], target: Path) -> None:
    """Plots one panel for each key, with one line for each run, into a picture file."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CodecError(not_installed("--plot: matplotlib", "train")) from None
    figure = Figure(figsize=(8, 3 * len(keys)), layout="constrained")
    for axes, key in zip(figure.subplots(len(keys), squeeze=False)[:, 0], keys, strict=True):
        for run in runs:
            axes.plot(*curves(run, [key])[key], label=run.name, linewidth=1)
        axes.set(xlabel="minutes", ylabel=key)
        axes.legend()
    try:
        figure.savefig(target, dpi=120)
    except ValueError as error:
        raise CodecError(
            f"{target}: cannot write this kind of picture ({error}); try .png, .svg or .pdf"
        ) from None


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.watch", description=__doc__, epilog="See docs/train.md")
    parser.add_argument(
        "runs",
        nargs="+",
        type=filled_path,
        metavar="RUN",
        help="folders that python -m train wrote",
    )
    parser.add_argument("--keys", default="loss", help="what to show, with commas (default: loss)")
    parser.add_argument(
        "--plot",
        type=filled_path,
        metavar="FILE",
        help="writes a picture instead: .png, .svg, .pdf",
    )
    parser.add_argument(
        "--follow",
        type=positive(float),
        metavar="SECONDS",
        help="shows again every so often, until Ctrl-C",
    )
    return frame.run(parser, arguments, _command, "interrupted")


def _command(options: argparse.Namespace) -> None:
    keys = [key.strip() for key in options.keys.split(",")]
    columns = shutil.get_terminal_size().columns - MARGIN if sys.stdout.isatty() else WIDTH
    width = max(NARROWEST, min(WIDTH, columns))
    while True:
        if options.plot:
            plot(options.runs, keys, options.plot)
        else:
            print(
                ("\033[2J\033[H" if options.follow and sys.stdout.isatty() else "")
                + show(options.runs, keys, width)
            )
        if not options.follow:
            return
        time.sleep(options.follow)


if __name__ == "__main__":
    sys.exit(process(main))
