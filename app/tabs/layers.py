"""One file for every size: a choice that cuts a layered .bin.

What is left of it can be heard or seen, and downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import views
from app.handlers import JOBS, plainly
from app.input_panel import InputPanel
from app.originals import Original
from app.service import Service
from app.turns import Turn
from app.widgets import download

LABEL = "Cut the file behind the layer of a codebook size"


@dataclass(frozen=True, slots=True)
class Layered:
    """What the choice of a session works on.

    It is the input, and the file with layers that was made of it.
    """

    medium: str
    source: Path
    file: Path


class Layers:
    """The part of Compare below its table. Its updates are in the order of `outputs`."""

    def __init__(self, panel: InputPanel, turn: gr.State) -> None:
        self._panel = panel
        made = gr.State(None)
        size = layer_choice("compare-layer")
        head = gr.HTML(elem_id="compare-layer-file")
        shown_on = views.place("compare-layer")
        self.outputs: list[Any] = [made, size, head, *shown_on]
        self.cut = size.input(
            plainly(self._cut),
            [made, size, turn],
            self.outputs[2:],
            **JOBS,
            show_progress_on=shown_on,
        )

    def _cut(
        self,
        made: Layered | None,
        size: int,
        turn: Turn,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        if made is None:
            return [gr.skip()] * len(self.outputs[2:])
        report = turn.join(progress)
        report(0.1, "Cutting the file, decoding")
        original = self._panel.service.open(made.source, made.medium)
        cut = shown(self._panel.service, made.file, original, size)
        report(0.99, "Drawing")
        return cut

    def hidden(self) -> list[Any]:
        """Updates where no file has layers."""
        return [None, gr.update(visible=False), "", *views.HIDDEN]

    def update(
        self, original: Original, path: str, models: list[str], sizes: list[int]
    ) -> list[Any]:
        """Updates after a comparison: the file of the first model that has layers, uncut."""
        file = self._panel.service.layered(original, models, sizes)
        if file is None:
            return self.hidden()
        stops = self._panel.service.bins.layers(file)
        made = Layered(original.medium, Path(path), file)
        last = shown(self._panel.service, file, original, max(stops))
        return [made, layers_to_choose(stops), *last]


def layer_choice(name: str) -> gr.Radio:
    """Adds the choice of a layer, which is hidden until there is a file with layers."""
    return gr.Radio([], label=LABEL, visible=False, elem_id=name)


def layers_to_choose(stops: dict[int, int]) -> Any:
    """Returns the update of the choice for a file: its sizes, each with the bytes up to there.

    It stays hidden for a file without layers.
    """
    choices = [(f"{size:,} codes · {stop:,} B", size) for size, stop in stops.items()]
    return gr.update(visible=len(stops) > 1, choices=choices, value=max(stops))


def shown(service: Service, file: Path, original: Original, size: int) -> list[Any]:
    """Updates of the words and the place of the version: a file, cut to a codebook size."""
    version, _ = service.decode(file, size)
    save = download(version.file, "Save this .bin")
    what = f"One file for every size: {version.label}, {version.num_bytes:,} bytes"
    head = f'<p class="save"><b>{escape(what)}</b>{save}</p>'
    value = views.drawn(original, [version]) | {"series": str(file), "heard": 1}
    return [head, *views.showing(version.medium, value)]
