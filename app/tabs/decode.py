"""Decode: a .bin from anywhere.

It shows its header as codec.info prints it, and what it holds, cut behind any of its layers.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import views
from app.handlers import JOBS, LONG_JOBS, explain, log, working
from app.input_panel import InputPanel
from app.service import Service
from app.tabs.layers import layer_choice, layers_to_choose
from app.turns import Turn
from app.widgets import download
from app.words import empty
from codec.errors import CodecError

INVITATION = empty(
    "Drop a .bin",
    "One that you made in Compare, or with python -m codec.compress. It is checked and decoded.",
)


class DecodeTab:
    """The tab's content."""

    def __init__(self, panel: InputPanel) -> None:
        self._service = panel.service
        gr.HTML(
            '<p class="lead">A .bin holds only numbers, and the name of the model that can read '
            "them.</p>"
        )
        given = gr.File(label="A .bin file", type="filepath", elem_id="decode-file", height=130)
        layer = layer_choice("decode-layer")
        header = gr.HTML(INVITATION, elem_id="decode-header", min_height=120)
        outputs = [header, *views.place("decode"), layer]
        turn = gr.State(Turn())
        inputs, shown_on = [given, turn], [header]
        given.change(working(self._decode), inputs, outputs, **JOBS, show_progress_on=shown_on)
        layer.select(working(self._cut), inputs, outputs, **LONG_JOBS, show_progress_on=shown_on)

    def _cut(
        self,
        event: gr.SelectData,
        path: str | None,
        turn: Turn,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        # A size of a file that was there before shows the present one whole.
        size = event.value if path and event.value in self._service.bins.layers(path) else None
        return self._decode(path, turn, progress, size)

    def _decode(
        self,
        path: str | None,
        turn: Turn,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        size: int | None = None,
    ) -> list[Any]:
        report = turn.begin(progress)
        report(0.1, "Checking the file, decoding")
        result = shown(self._service, path, size)
        report(0.99, "Drawing")
        return result


def shown(service: Service, path: str | None, size: int | None) -> list[Any]:
    """Returns updates of the header, the place of the version, and the layers, for a file.

    Args:
        service: What decodes it.
        path: The file, if there is one.
        size: The codebook size that was chosen, of a layer; None for all that the file has.
    """
    if not path:
        return [INVITATION, *views.HIDDEN, gr.update(visible=False)]
    try:
        stops = service.bins.layers(path)
        version, _ = service.decode(path, size)
        rows = service.bins.info(version.file)
    except Exception as error:
        if isinstance(error, CodecError):
            log.info("refused: %s", error)
        return [_fault(service, path, error), *views.HIDDEN, gr.update(visible=False)]
    what = f"{Path(path).name}: {version.label}, {version.num_bytes:,} bytes, "
    what += f"decoded in {version.decode_s:.2f} s"
    save = download(version.media, f"Save as {version.media.suffix}")
    if len(stops) > 1:
        save += download(version.file, "Save this .bin")
    layers = layers_to_choose(stops, size)
    head = f'<p class="save"><b>{escape(what)}</b>{save}</p>{_table(rows)}'
    value = views.drawn(None, [version]) | {"series": path}
    return [head, *views.showing(version.medium, value), layers]


def _fault(service: Service, path: str, error: Exception) -> str:
    """Says why a file cannot be decoded, and its header, if at least that is whole."""
    title, text = explain(error)
    try:
        rows = service.bins.info(path)
    except (CodecError, OSError):  # OSError: the file was deleted after a while
        rows = {}
    said = f"<b>{escape(title)}</b><p>{escape(text)}</p>"
    return f'<div class="notice fault" role="alert">{said}</div>{_table(rows)}'


def _table(rows: dict[str, str]) -> str:
    """Lists the header's fields, in the order and words of codec.info."""
    cells = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in rows.items()
    )
    return f'<dl class="header">{cells}</dl>' if rows else ""
