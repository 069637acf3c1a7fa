"""Decode: a .bin from anywhere; its header as codec.info prints it, and what it holds, cut behind any of its layers."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from app.page import JOBS, Page, explain, log, reporting
from app.tabs.layers import LABEL, ladder
from app.widgets import download, listening, looking, widget
from app.words import empty
from codec.errors import CodecError

INVITATION = empty(
    "Drop a .bin", "One that you made in Compare, or with python -m codec.compress. It is checked and decoded."
)


def build(page: Page) -> None:
    """Adds the tab's content."""
    gr.HTML('<p class="lead">A .bin holds only numbers, and the name of the model that can read them.</p>')
    given = gr.File(label="A .bin file", type="filepath", elem_id="decode-file", height=130)
    layer = gr.Slider(1, 2, 2, step=1, label=LABEL, visible=False, elem_id="decode-layer")
    header = gr.HTML(INVITATION, elem_id="decode-header", min_height=120)
    listener = widget("listener", elem_id="decode-listener", visible=False)
    viewer = widget("viewer", elem_id="decode-viewer", visible=False)

    def decode(path: str | None, number: float | None, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        reporting(progress)(0.1, "Checking the file, decoding")
        return shown(page, path, number)

    outputs = [header, listener, viewer, layer]
    given.change(decode, [given, gr.State(None)], outputs, **JOBS, show_progress_on=[header])
    layer.release(decode, [given, layer], outputs, **JOBS, show_progress_on=[header])


def shown(page: Page, path: str | None, number: float | None) -> list[Any]:
    """Updates of header, listener, viewer and slider: a file at its last layer, or at the one that the slider chose."""
    hidden = [gr.update(visible=False, value={})] * 2
    if not path:
        return [INVITATION, *hidden, gr.update(visible=False)]
    try:
        stops = page.workshop.layers(path)
        chosen = None if number is None else list(stops)[min(max(int(number), 1), len(stops)) - 1]
        version, _ = page.workshop.decode(path, chosen)
        rows = page.workshop.info(version.file)
    except Exception as error:
        if isinstance(error, CodecError):
            log.info("refused: %s", error)
        return [_fault(page, path, error), *hidden, gr.update(visible=False)]
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
    kept = {"series": path}
    if version.medium == "speech":
        return [head, gr.update(visible=True, value=listening(None, [version]) | kept), hidden[1], slider]
    return [head, hidden[0], gr.update(visible=True, value=looking(None, [version]) | kept), slider]


def _fault(page: Page, path: str, error: Exception) -> str:
    """Why it cannot be decoded, and its header, if at least that is whole."""
    title, text = explain(error)
    try:
        rows = page.workshop.info(path)
    except CodecError:
        rows = {}
    return f'<div class="notice fault" role="alert"><b>{escape(title)}</b><p>{escape(text)}</p></div>{_table(rows)}'


def _table(rows: dict[str, str]) -> str:
    """The header's fields, in the order and words of codec.info."""
    cells = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in rows.items())
    return f'<dl class="header">{cells}</dl>' if rows else ""
