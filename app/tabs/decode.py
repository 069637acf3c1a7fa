"""Decode: a .bin from anywhere.

It shows its header as codec.info prints it, and what it holds, cut behind any of its layers.
"""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from app import views
from app.handlers import JOBS, explain, log, reporting
from app.input_panel import InputPanel
from app.service import Service
from app.tabs.layers import LABEL, ladder
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
        layer = gr.Slider(1, 2, 2, step=1, label=LABEL, visible=False, elem_id="decode-layer")
        header = gr.HTML(INVITATION, elem_id="decode-header", min_height=120)
        outputs = [header, *views.place("decode"), layer]
        given.change(
            self._decode, [given, gr.State(None)], outputs, **JOBS, show_progress_on=[header]
        )
        layer.release(self._decode, [given, layer], outputs, **JOBS, show_progress_on=[header])

    def _decode(
        self,
        path: str | None,
        number: float | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        reporting(progress)(0.1, "Checking the file, decoding")
        return shown(self._service, path, number)


def shown(service: Service, path: str | None, number: float | None) -> list[Any]:
    """Returns updates of the header, the place of the version, and the slider, for a file.

    Args:
        service: What decodes it.
        path: The file, if there is one.
        number: The layer that the slider chose; None for the last one.
    """
    if not path:
        return [INVITATION, *views.HIDDEN, gr.update(visible=False)]
    try:
        stops = service.bins.layers(path)
        chosen = None if number is None else list(stops)[min(max(int(number), 1), len(stops)) - 1]
        version, _ = service.decode(path, chosen)
        rows = service.bins.info(version.file)
    except Exception as error:
        if isinstance(error, CodecError):
            log.info("refused: %s", error)
        return [_fault(service, path, error), *views.HIDDEN, gr.update(visible=False)]
    what = f"{version.label}, {version.num_bytes:,} bytes, decoded in {version.decode_s:.2f} s"
    save = download(version.media, f"Save as {version.media.suffix}")
    slider: Any = gr.skip()
    if len(stops) > 1:
        save += download(version.file, "Save this .bin")
    if number is None:
        last = len(stops)
        slider = gr.update(visible=last > 1, maximum=max(last, 2), value=max(last, 2))
    steps = ladder(stops, version.codebook_size or 0)
    head = f'<p class="save"><b>{escape(what)}</b>{save}</p>{steps}{_table(rows)}'
    value = views.drawn(None, [version]) | {"series": path}
    return [head, *views.showing(version.medium, value), slider]


def _fault(service: Service, path: str, error: Exception) -> str:
    """Says why a file cannot be decoded, and its header, if at least that is whole."""
    title, text = explain(error)
    try:
        rows = service.bins.info(path)
    except CodecError:
        rows = {}
    said = f"<b>{escape(title)}</b><p>{escape(text)}</p>"
    return f'<div class="notice fault" role="alert">{said}</div>{_table(rows)}'


def _table(rows: dict[str, str]) -> str:
    """Lists the header's fields, in the order and words of codec.info."""
    cells = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in rows.items()
    )
    return f'<dl class="header">{cells}</dl>' if rows else ""
