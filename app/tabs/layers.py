"""One file for every size: a slider that cuts a layered .bin.

What is left of it can be heard or seen, and downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import views
from app.handlers import JOBS, plainly, reporting
from app.input_panel import InputPanel
from app.originals import Original
from app.service import Service
from app.widgets import download

LABEL = "Layers to keep: the file is cut behind them"


@dataclass(frozen=True, slots=True)
class Layered:
    """What the slider of a session works on.

    It is the input, and the file with layers that was made of it.
    """

    medium: str
    source: Path
    file: Path


class Layers:
    """The part of Compare below its table. Its updates are in the order of `outputs`."""

    def __init__(self, panel: InputPanel) -> None:
        self._panel = panel
        made = gr.State(None)
        self._slider = gr.Slider(
            1, 2, 2, step=1, label=LABEL, visible=False, elem_id="compare-layer"
        )
        head = gr.HTML(elem_id="compare-layer-file")
        shown_on = views.place("compare-layer")
        self.outputs: list[Any] = [made, self._slider, head, *shown_on]
        cut = plainly(self._cut)
        self._slider.release(
            cut, [made, self._slider], self.outputs[2:], **JOBS, show_progress_on=shown_on
        )

    def _cut(
        self,
        made: Layered | None,
        number: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        if made is None:
            return [gr.skip()] * len(self.outputs[2:])
        reporting(progress)(0.1, "Cutting the file, decoding")
        original = self._panel.service.open(made.source, made.medium)
        return shown(self._panel.service, made.file, original, int(number))

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
        last = len(self._panel.service.bins.layers(file))
        slider = gr.update(visible=True, maximum=last, value=last)
        made = Layered(original.medium, Path(path), file)
        return [made, slider, *shown(self._panel.service, file, original, last)]


def shown(service: Service, file: Path, original: Original, number: int) -> list[Any]:
    """Updates of the words and the place of the version: a file with its first `number` layers."""
    stops = service.bins.layers(file)
    size = list(stops)[min(max(number, 1), len(stops)) - 1]
    version, _ = service.decode(file, size)
    save = download(version.file, "Save this .bin")
    what = f"One file for every size: {version.label}, {version.num_bytes:,} bytes"
    head = f'<p class="save"><b>{escape(what)}</b>{save}</p>{ladder(stops, size)}'
    value = views.drawn(original, [version]) | {"series": str(file), "heard": 1}
    return [head, *views.showing(version.medium, value)]


def ladder(stops: dict[int, int], size: int) -> str:
    """The bytes of a file cut behind each of its layers, in a line.

    The layer that it is cut behind stands out.
    """
    if len(stops) < 2:
        return ""
    steps = (
        f"<li{' aria-current=true' if k == size else ''}><b>{k:,}</b> {number:,} B</li>"
        for k, number in stops.items()
    )
    return f'<ol class="ladder" aria-label="Bytes up to each codebook size">{"".join(steps)}</ol>'
