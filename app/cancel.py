"""The button that cancels the long jobs of a tab, and what numbers them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.choices import Given
from app.handlers import LONG_JOBS, QUICK, working
from app.input_panel import InputPanel
from app.turns import Job, Turn

# What the browser sends for an event: its inputs, in the order of their ids, with the number of
# the press at its place. Gradio gives the outputs behind them.
PRESS = """(...given) => {
    window.codecPresses = (window.codecPresses || 0) + 1;
    given[%d] = window.codecPresses;
    return given.slice(0, %d);
}"""
LAST_PRESS = "(turn) => [turn, window.codecPresses || 0]"


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
        self._panel = panel
        self._button = gr.Button(
            "Cancel", elem_id=f"{name}-cancel", elem_classes=["cancel"], scale=0, min_width=110
        )
        self._jobs: list[Any] = []

    def job(
        self, event: Any, function: Any, inputs: set[Component], outputs: Any, **shown: Any
    ) -> None:
        """Wires an event to a long job that the button cancels; its function calls `begin`."""
        given = {*inputs, self.turn, self._ticket}
        ids = sorted(component._id for component in given)
        press = PRESS % (ids.index(self._ticket._id), len(ids))
        self._jobs.append(event(working(function), given, outputs, **LONG_JOBS, **shown, js=press))

    def begin(self, given: Given, request: gr.Request, progress: gr.Progress) -> Job:
        """Begins a job of the tab with what its function was given, as `Turn.begin` says."""
        turn: Turn = given[self.turn]
        self._panel.sessions.add(request, turn)
        return turn.begin(progress, int(given[self._ticket]))

    def cancels(self, *others: Any) -> None:
        """Wires the button, also to events beside its jobs. Another medium cancels them, too.

        Call it before the tab wires what it shows of another medium, so that nothing comes after.
        """
        given = [self.turn, self._ticket]
        self._button.click(
            Turn.cancel, given, cancels=[*self._jobs, *others], js=LAST_PRESS, **QUICK
        )
        self._panel.switched.then(Turn.cancel, given, js=LAST_PRESS, **QUICK)
