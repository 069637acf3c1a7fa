"""Whose turn it is among the long jobs of a tab: the newest counts, and its user can cancel it.

Gradio's own way to cancel drops what a job returns, and takes it out of the queue, but lets a
function that runs go on to its end. A `Turn` ends that, too, where the job next reports.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.comparison import Report
from app.handlers import QUICK, Stopped
from app.input_panel import InputPanel


class Turn:
    """Whose turn it is in one tab of one session. Several threads may ask."""

    def __init__(self) -> None:
        self._now: object = None

    def begin(self, progress: gr.Progress) -> Report:
        """Begins a job, and ends those before it.

        Returns:
            What the job reports to. It raises `Stopped` once the turn is over.
        """
        self._now = object()
        return self.join(progress)

    def join(self, progress: gr.Progress) -> Report:
        """Begins a job that is to end with the present turn; otherwise like `begin`."""
        mine = self._now

        def report(share: float, what: str) -> None:
            if self._now is not mine:
                raise Stopped
            progress(share, desc=what)

        return report

    def end(self) -> None:
        """Ends the turn: what was begun in it, or joined it, is not wanted any more."""
        self._now = None


class CancelButton:
    """A button that is seen while a job of its tab runs, and cancels it.

    Attributes:
        turn: The turn of the tab, an input of its jobs.
    """

    def __init__(self, name: str, panel: InputPanel) -> None:
        self.turn = gr.State(Turn())
        self._medium = panel.medium
        self._button = gr.Button(
            "Cancel", elem_id=f"{name}-cancel", elem_classes=["cancel"], scale=0, min_width=110
        )

    def cancels(self, *jobs: Any) -> None:
        """Wires the button to the events of jobs. The choice of another medium cancels them, too.

        Call it before the tab wires what it shows of another medium, so that nothing comes after.
        """
        gr.on(
            [self._button.click, self._medium.change],
            Turn.end,
            self.turn,
            cancels=list(jobs),
            **QUICK,
        )
