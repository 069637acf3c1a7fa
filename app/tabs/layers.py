"""One file for every size: a slider that cuts a layered .bin.

What is left of it can be heard or seen, and downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.handlers import JOBS, plainly, reporting
from app.input_panel import InputPanel
from app.originals import Original
from app.service import Service
from app.widgets import download, listening, looking, widget

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
        listener = widget("listener", elem_id="compare-layer-listener", visible=False)
        viewer = widget("viewer", elem_id="compare-layer-viewer", visible=False)
        self.outputs: list[Any] = [made, self._slider, head, listener, viewer]
        cut, shown_on = plainly(self._cut), [listener, viewer]
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
            return [gr.skip()] * 3
        reporting(progress)(0.1, "Cutting the file, decoding")
        original = self._panel.service.open(made.source, made.medium)
        return shown(self._panel.service, made.file, original, int(number))

    def hidden(self) -> list[Any]:
        """Updates where no file has layers."""
        return [None, gr.update(visible=False), "", *[gr.update(visible=False, value={})] * 2]

    def update(
        self, original: Original, path: str, models: list[str], sizes: list[int]
    ) -> list[Any]:
        """Updates after a comparison: the file of the first model that has layers, uncut."""
        file = self._panel.service.layered(original, models, sizes)
        if file is None:
            return self.hidden()
        last = len(self._panel.service.layers(file))
        slider = gr.update(visible=True, maximum=last, value=last)
        made = Layered(original.medium, Path(path), file)
        return [made, slider, *shown(self._panel.service, file, original, last)]


def shown(service: Service, file: Path, original: Original, number: int) -> list[Any]:
    """Updates of the words, the listener and the viewer: a file with its first `number` layers."""
    stops = service.layers(file)
    size = list(stops)[min(max(number, 1), len(stops)) - 1]
    version, _ = service.decode(file, size)
    save = download(version.file, "Save this .bin")
    what = f"One file for every size: {version.label}, {version.num_bytes:,} bytes"
    head = f'<p class="save"><b>{escape(what)}</b>{save}</p>{ladder(stops, size)}'
    hidden = gr.update(visible=False, value={})
    kept = {"series": str(file)}
    if version.medium == "speech":
        return [
            head,
            gr.update(visible=True, value=listening(original, [version]) | kept | {"heard": 1}),
            hidden,
        ]
    return [head, hidden, gr.update(visible=True, value=looking(original, [version]) | kept)]


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
