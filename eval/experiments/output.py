"""What an experiment writes: its report in Markdown, and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from codec.cli.frame import print_text
from eval.experiments.runs import write

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def cell(value: tuple[float, float | None] | None, digits: int = 2, scale: float = 1.0) -> str:
    """Returns "mean ± deviation", or "-" of no run.

    What is the same in all runs, as a number of steps, stands alone, as does a single run's.
    """
    if value is None:
        return "-"
    mean, deviation = value
    text = f"{mean * scale:.{digits}f}"
    return f"{text} ± {deviation * scale:.{digits}f}" if deviation else text


def save_report(path: Path, title: str, notes: list[str], tables: list[str]) -> None:
    """Writes PATH.md, a title, notes on how it was made, and the tables, and prints it, too."""
    text = (
        "\n\n".join(
            [f"# {title}", "\n".join(f"- {note}" for note in notes), *(t.strip() for t in tables)]
        )
        + "\n"
    )
    write(path.with_suffix(".md"), text)
    print_text(text)


@contextmanager
def picture(
    path: Path, columns: int = 1, rows: int = 1, size: tuple[float, float] = (4.2, 3.4)
) -> Iterator[list[Axes]]:
    """Gives axes to draw on, row by row, and writes PATH.png afterwards.

    It does without pyplot, and so without global state and a display.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        FigureCanvasAgg(figure)
        yield list(figure.subplots(rows, columns, squeeze=False).flat)
        figure.savefig(path.with_suffix(".png"), dpi=150)
