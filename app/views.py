"""How the page shows versions of each medium: one control for each, of which one is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.originals import Original
from app.versions import Version
from app.widgets import listening, looking, widget
from codec.medium import IMAGE, SPEECH


@dataclass(frozen=True, slots=True)
class View:
    """How versions of one medium are shown.

    Attributes:
        control: The kind of control, see `app.widgets.widget`.
        draw: Returns what it shows; see `drawn`.
    """

    control: str
    draw: Callable[..., dict[str, Any]]


VIEWS = {SPEECH.name: View("listener", listening), IMAGE.name: View("viewer", looking)}
HIDDEN = [gr.update(visible=False, value={})] * len(VIEWS)  # updates of a place with nothing


def place(name: str, medium: str | None = None, empty: str = "", **options: Any) -> list[gr.HTML]:
    """Adds a place where versions are shown, a control for each medium.

    Args:
        name: The first part of the controls' ids.
        medium: Whose control is seen at first; None for neither.
        empty: What it says as long as there is nothing.
        options: Of the controls.
    """
    return [
        widget(
            view.control,
            empty,
            elem_id=f"{name}-{view.control}",
            visible=known == medium,
            **options,
        )
        for known, view in VIEWS.items()
    ]


def drawn(
    original: Original | None,
    versions: Sequence[Version],
    names: Sequence[str] | None = None,
    traces: bool = True,
) -> dict[str, Any]:
    """Returns what the control of the versions' medium shows.

    Args:
        original: Stands beside them, if there is one.
        versions: At least one, all of one medium.
        names: Other names than the versions' own.
        traces: Whether to draw what tells versions apart at a glance: waveforms, spectrograms.
    """
    return VIEWS[versions[0].medium].draw(original, versions, names, traces)


def showing(medium: str, value: dict[str, Any]) -> list[Any]:
    """Returns updates of a place: the control of the medium shows `value`, others are hidden."""
    return [
        gr.update(visible=True, value=value)
        if known == medium
        else gr.update(visible=False, value={})
        for known in VIEWS
    ]


def switched(medium: str, value: dict[str, Any]) -> list[Any]:
    """Returns updates of a place: all controls show `value`, and that of the medium is seen."""
    return [gr.update(visible=known == medium, value=value) for known in VIEWS]


def filled(medium: str, value: dict[str, Any]) -> list[Any]:
    """Returns updates of a place: the control of the medium shows `value`, others stay."""
    return [value if known == medium else gr.skip() for known in VIEWS]
