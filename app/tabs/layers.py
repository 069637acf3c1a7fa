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
from app.handlers import LONG_JOBS, working
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
        made, latest = gr.State(None), gr.State(Turn())
        size = layer_choice("compare-layer")
        head = gr.HTML(elem_id="compare-layer-file")
        shown_on = views.place("compare-layer")
        self.outputs: list[Any] = [made, size, head, *shown_on]
        self.cut = size.select(
            working(self._cut),
            [made, turn, latest],
            self.outputs[1:],
            **LONG_JOBS,
            show_progress_on=shown_on,
        )

    def _cut(
        self,
        event: gr.SelectData,
        made: Layered | None,
        turn: Turn,
        latest: Turn,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        report, mine = turn.join(progress), latest.begin(progress)
        service = self._panel.service
        # The size is of the file that was there when it was chosen.
        if made is None or event.value not in service.bins.layers(made.file):
            return [gr.skip()] * len(self.outputs[1:])
        report(0.1, "Cutting the file, decoding")
        original = service.open(made.source, made.medium)
        cut = shown(service, made.file, original, event.value)
        for job in (report, mine):
            job(0.99, "Drawing")
        return [event.value, *cut]

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
    """Adds the choice of a layer, which is hidden until there is a file with layers.

    Take the size from the event of its `select`: as an input it would be refused where the file has
    changed meanwhile.
    """
    return gr.Radio([], label=LABEL, visible=False, interactive=True, elem_id=name)


def layers_to_choose(stops: dict[int, int], size: int | None = None) -> Any:
    """Returns the update of the choice for a file: its sizes, each with the bytes up to there.

    It stays hidden for a file without layers.

    Args:
        stops: The bytes up to each codebook size.
        size: The one that is chosen; None for the last.
    """
    choices = [(f"{size:,} codes · {stop:,} B", size) for size, stop in stops.items()]
    return gr.update(visible=len(stops) > 1, choices=choices, value=size or max(stops))


def shown(service: Service, file: Path, original: Original, size: int) -> list[Any]:
    """Updates of the words and the place of the version: a file, cut to a codebook size."""
    version, _ = service.decode(file, size)
    save = download(version.file, "Save this .bin")
    what = f"One file for every size: {version.label}, {version.num_bytes:,} bytes"
    head = f'<p class="save"><b>{escape(what)}</b>{save}</p>'
    value = views.drawn(original, [version]) | {"series": str(file), "heard": 1}
    return [head, *views.showing(version.medium, value)]
