"""Whose turn it is among the long jobs of a tab: the newest counts, and its user can cancel it.

Gradio's own way to cancel drops what a job returns, and takes it out of the queue, but lets a
function that runs go on to its end. A `Turn` ends that, too, where the job next reports.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.comparison import Report
from app.handlers import LONG_JOBS, QUICK, Stopped, plainly
from app.input_panel import Given, InputPanel

# What the browser sends for an event: its inputs, in the order of their ids, with the number of
# the press at its place. Gradio gives the outputs behind them.
PRESS = """(...given) => {
    window.codecPresses = (window.codecPresses || 0) + 1;
    given[%d] = window.codecPresses;
    return given.slice(0, %d);
}"""
LAST_PRESS = "(turn) => [turn, window.codecPresses || 0]"


class Turn:
    """Whose turn it is in one tab of one session. Several threads may ask."""

    def __init__(self) -> None:
        self._now: object = None
        self._over = 0  # presses up to this one are not wanted any more

    def begin(self, progress: gr.Progress, ticket: int | None = None) -> Report:
        """Begins a job, and ends those before it.

        Args:
            progress: Where the page shows what is reported.
            ticket: The number of the press that asked for the job, where it can be cancelled.

        Returns:
            What the job reports to. It raises `Stopped` once the turn is over.

        Raises:
            Stopped: While the job was waiting, the press was cancelled, or a later one began.
        """
        if ticket is not None:
            if ticket <= self._over:
                raise Stopped
            self._over = ticket - 1
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

    def cancel(self, ticket: int) -> None:
        """Ends the turn, and what waits to begin: the presses up to a number."""
        self._over = max(self._over, ticket)
        self.end()


class CancelButton:
    """A button that is seen while a job of its tab runs, and cancels it.

    The browser numbers the presses of a page, from 1 on. Jobs that still wait in Gradio's queue
    are known by that number, however late they begin.

    Attributes:
        turn: The turn of the tab, for what ends with its jobs.
    """

    def __init__(self, name: str, panel: InputPanel) -> None:
        self.turn = gr.State(Turn())
        self._ticket = gr.Number(0, visible=False)
        self._medium = panel.medium
        self._button = gr.Button(
            "Cancel", elem_id=f"{name}-cancel", elem_classes=["cancel"], scale=0, min_width=110
        )
        self._jobs: list[Any] = []

    def job(
        self, event: Any, function: Any, inputs: set[Component], outputs: Any, **shown: Any
    ) -> None:
        """Wires an event to a long job that the button cancels; its function calls `begin`."""
        ids = sorted(component._id for component in {*inputs, self.turn, self._ticket})
        press = PRESS % (ids.index(self._ticket._id), len(ids))
        given = {*inputs, self.turn, self._ticket}
        self._jobs.append(event(plainly(function), given, outputs, **LONG_JOBS, **shown, js=press))

    def begin(self, given: Given, progress: gr.Progress) -> Report:
        """Begins a job of the tab with what its function was given, as `Turn.begin` says."""
        turn: Turn = given[self.turn]
        return turn.begin(progress, int(given[self._ticket]))

    def cancels(self, *others: Any) -> None:
        """Wires the button, also to events beside its jobs. Another medium cancels them, too.

        Call it before the tab wires what it shows of another medium, so that nothing comes after.
        """
        gr.on(
            [self._button.click, self._medium.change],
            Turn.cancel,
            [self.turn, self._ticket],
            cancels=[*self._jobs, *others],
            js=LAST_PRESS,
            **QUICK,
        )
