"""Controls of which each medium has its own, and the one of the chosen medium is seen.

What such a control offers stays what it is. A control whose choices the server changed would refuse
what a page still shows that has not heard of the change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import gradio as gr
from gradio.components import Component

from app.handlers import QUICK

Control = TypeVar("Control", bound=Component)
Given = dict[Any, Any]  # the values of a handler's inputs, by component


class PerMedium(Generic[Control]):
    """A control for each medium that the page offers.

    Args:
        medium: The choice of the medium.
        make: Adds the control of a medium, seen or not.

    Attributes:
        controls: The controls, in the order of the media.
    """

    def __init__(self, medium: gr.Radio, make: Callable[[str, bool], Control]) -> None:
        self._medium = medium
        self._each = {name: make(str(name), name == medium.value) for _, name in medium.choices}
        self.controls = list(self._each.values())

    def __getitem__(self, medium: str) -> Control:
        """Returns the control of a medium."""
        return self._each[medium]

    def of(self, given: Given) -> Any:
        """Returns what is chosen for the medium that is chosen.

        Args:
            given: What a handler got whose inputs have the choice of the medium and `controls`.
        """
        return given[self._each[given[self._medium]]]

    def only(self, medium: str, update: Any) -> list[Any]:
        """Returns the updates of `controls` that change the one of a medium alone."""
        return [update if name == medium else gr.skip() for name in self._each]

    def seen(self, medium: str) -> list[Any]:
        """Returns the updates of `controls` that show that of a medium, if it offers anything."""
        return [
            gr.update(visible=name == medium and bool(getattr(control, "choices", True)))
            for name, control in self._each.items()
        ]


def follow(medium: gr.Radio, *choices: PerMedium[Any]) -> Any:
    """Shows the controls of the medium that is chosen, from now on.

    Returns:
        The event, whose `.then` goes on from there.
    """
    outputs = [control for choice in choices for control in choice.controls]

    def switch(name: str) -> list[Any]:
        return [update for choice in choices for update in choice.seen(name)]

    return medium.change(switch, medium, outputs, **QUICK)
