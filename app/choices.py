"""Controls of which each medium has its own, and the one of the chosen medium is seen.

What such a control offers stays what it is. A control whose choices the server changed would refuse
what a page still shows that has not heard of the change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import gradio as gr
from gradio.components import Component

Control = TypeVar("Control", bound=Component)
# Options of events that the browser sees to by itself.
BROWSER: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
SHOW = "(chosen) => %s.map((name) => ({ __type__: 'update', visible: name === chosen }))"
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
        media = [str(name) for _, name in medium.choices]
        self._each = {name: make(name, name == medium.value) for name in media}
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

    def seen_for(self) -> list[str | None]:
        """Returns the medium of each of `controls`; None for one that offers nothing."""
        return [
            name if getattr(control, "choices", True) else None
            for name, control in self._each.items()
        ]


def follow(medium: gr.Radio, *choices: PerMedium[Any]) -> None:
    """Shows the controls of the medium that is chosen, from now on.

    The browser does it, at once: an answer of the server would come after what is pressed next.
    """
    outputs = [control for choice in choices for control in choice.controls]
    names = [name for choice in choices for name in choice.seen_for()]
    medium.change(None, medium, outputs, js=SHOW % json.dumps(names), **BROWSER)
