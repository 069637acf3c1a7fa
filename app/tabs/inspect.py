"""Inspect: the tokens of one file, its codebook, and what becomes of sound or picture when tokens change."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from app import pictures
from app.jobs import Version, Workshop
from app.page import JOBS, QUICK, Page, plainly, reporting
from app.tabs.compare import size_choices
from app.tokens import CHANGES, Tokens, edit, tokens
from app.widgets import download, listening, looking, url, widget
from app.words import empty, number, tip
from codec.errors import MediaError

INVITATION = empty(
    "Look inside a file", "Choose something on the left, then press Look inside: every square is one token."
)
MAX_HOVER = 70_000  # tokens whose numbers go to the page


def build(page: Page) -> None:
    """Adds the tab's content."""
    medium = str(page.medium.value)
    with gr.Row(elem_classes=["actions"]):
        model = gr.Dropdown(label="Model", **_models(page.workshop, medium))
        size = gr.Dropdown(label="Codebook size", **_sizes(page.workshop, medium))
        start = gr.Button("Look inside", variant="primary", elem_id="inspect-start", scale=0, min_width=180)
    field = widget("map", INVITATION, elem_id="inspect-map", min_height=170)
    usage = gr.HTML(elem_id="inspect-usage")
    kept = gr.State(None)
    spot = gr.State(None)
    with gr.Column(visible=False, elem_id="inspect-edit") as editor:
        gr.HTML(
            "<h3>Change tokens, and decode</h3>"
            '<p class="lead">Click the map to choose a spot, or change the whole file.</p>'
        )
        with gr.Row():
            change = gr.Radio(
                [("Random tokens", "random"), ("One token", "one token"), ("Shuffle them", "shuffle")],
                value=CHANGES[0],
                label="Put there",
            )
            token = gr.Number(0, label="Which token", precision=0, minimum=0, visible=False)
            where = gr.Radio(["The spot", "Everywhere"], value="Everywhere", label="Where")
        with gr.Row():
            share = gr.Slider(1, 100, 10, step=1, label="How many of them, %", elem_id="inspect-share")
            side = gr.Slider(1, 32, 6, step=1, label="Size of the spot", info="Tokens across")
            decode = gr.Button("Decode the change", variant="primary", elem_id="inspect-decode", scale=0, min_width=210)
    result = gr.HTML(elem_id="inspect-result")
    listener = widget("listener", elem_id="inspect-listener", visible=False)
    viewer = widget("viewer", elem_id="inspect-viewer", visible=False)
    shown = [listener, viewer]

    @plainly
    def look(
        medium: str,
        recording: str | None,
        picture: str | None,
        model: str,
        size: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        report = reporting(progress)
        report(0, "Reading your input, waking the model")
        source = page.open(medium, recording, picture)
        report(0.3, f"{model} with {size:,} codes: encode, decode")
        version = page.workshop.code(source, model, size)
        inside = tokens(page.workshop, version)
        report(0.9, "Drawing the codebook")
        hidden = [gr.update(visible=False, value={})] * 2
        light = replace(version, samples=np.empty(0))
        return [_map(version, inside), _usage(version, inside), light, None, gr.update(visible=True), "", *hidden]

    def choose(event: gr.EventData) -> list[Any]:
        index = event.index
        here = {"x": float(event.x), "y": float(event.y)}
        return [here, "The spot", gr.skip() if index is None else int(index)]

    @plainly
    def alter(
        version: Version | None,
        spot: dict[str, float] | None,
        change: str,
        token: int,
        where: str,
        share: int,
        side: int,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        if version is None:
            raise MediaError("there is no file yet; press Look inside first")
        reporting(progress)(0.2, "Decoding the changed tokens")
        area = None
        if where == "The spot":
            area = (spot["x"], spot["y"], float(side)) if spot else (0.5, 0.5, float(side))
        changed, count = edit(page.workshop, version, change, share / 100, int(token or 0), area)
        before, _ = page.workshop.decode(version.file)
        names = ["As it was", "Changed"]
        text = f"{count:,} {'token' if count == 1 else 'tokens'} replaced: the file went from {version.num_bytes:,} "
        text += f"to {changed.num_bytes:,} bytes"
        line = f'<p class="save"><span>{escape(text)}</span>{download(changed.file, "Download the changed .bin")}</p>'
        hidden = gr.update(visible=False, value={})
        if version.medium == "speech":
            return [line, gr.update(visible=True, value=listening(None, [before, changed], names)), hidden]
        view = looking(None, [before, changed], names)
        if area:
            view |= {"focus": area[:2], "cut": area[0]}
        return [line, hidden, gr.update(visible=True, value=view)]

    def switch(medium: str) -> list[Any]:
        new = [gr.update(**_models(page.workshop, medium)), gr.update(**_sizes(page.workshop, medium))]
        hidden = [gr.update(visible=False, value={})] * 2
        return [*new, {"empty": INVITATION}, "", None, None, gr.update(visible=False), "", *hidden]

    outputs = [field, usage, kept, spot, editor, result, *shown]
    start.click(look, [*page.source, model, size], outputs, **JOBS, show_progress_on=[field])
    model.change(
        lambda name: gr.update(**_sizes(page.workshop, name=name)), model, size, **QUICK, show_progress="hidden"
    )
    field.select(plainly(choose), None, [spot, where, token], **QUICK, show_progress="hidden")
    change.change(lambda kind: gr.update(visible=kind == "one token"), change, token, **QUICK, show_progress="hidden")
    side.release(
        lambda side, field: {**field, "side": side} if field.get("url") else gr.skip(), [side, field], field, **QUICK
    )
    given = [kept, spot, change, token, where, share, side]
    decode.click(alter, given, [result, *shown], **JOBS, show_progress_on=[result])
    page.medium.change(switch, page.medium, [model, size, *outputs], **QUICK, show_progress="hidden")


def _models(workshop: Workshop, medium: str) -> dict[str, Any]:
    names = [card.name for card in workshop.models.of(medium)]
    return {"choices": names, "value": names[0]}


def _sizes(workshop: Workshop, medium: str | None = None, name: str | None = None) -> dict[str, Any]:
    offered = workshop.models.card(name or workshop.models.of(str(medium))[0].name)
    choices = [c for c in size_choices(workshop, offered.medium)["choices"] if c[1] in offered.num_codes]
    sizes = [size for _, size in choices]
    return {"choices": choices, "value": 1024 if 1024 in sizes else sizes[0]}


def _map(version: Version, inside: Tokens) -> dict[str, Any]:
    """What the "map" control shows."""
    image = pictures.token_map(inside.map, inside.header.num_codes, version.media.with_suffix(".tokens.png"))
    value = {"url": url(image), "rows": inside.rows, "columns": inside.columns, "num_codes": inside.header.num_codes}
    value |= {"side": 6, "caption": "Point at a square to read its number"}
    if inside.map.size <= MAX_HOVER:
        value["indices"] = inside.map.ravel().tolist()
    if version.medium == "image":
        value["picture"] = url(version.media)
    else:
        value["per_second"] = inside.columns
        value["caption"] = "Each row is one second, left to right; point at a square"
    return value


def _usage(version: Version, inside: Tokens) -> str:
    """How the codebook is used: bars, and its vectors seen from their two widest sides."""
    counts = inside.counts
    plane = pictures.codebook_plane(inside.vectors, counts, version.media.with_suffix(".codebook.png"))
    bars = pictures.histogram(counts)
    tallest = max(bar["share"] for bar in bars) or 1
    drawn = "".join(
        f'<i style="height:{100 * bar["share"] / tallest:.2f}%;background:{bar["colour"]}" '
        f'title="tokens {bar["first"]:,} to {bar["last"]:,}: {100 * bar["share"]:.2f} %"></i>'
        for bar in bars
    )
    used, total = int((counts > 0).sum()), len(counts)
    top = 100 * float(counts.max()) / max(int(counts.sum()), 1)
    return (
        '<div class="usage"><figure><figcaption><b>How often each code is used</b><span>'
        f"{number(used)} of {number(total)} {tip('codes', 'codebook')}, the most frequent {top:.1f} % of the time"
        f'</span></figcaption><div class="bars" role="img" aria-label="Usage of the codebook by index">{drawn}</div>'
        f'<div class="ends"><span>0</span><span>code number</span><span>{total - 1:,}</span></div></figure>'
        "<figure><figcaption><b>The codebook, flattened</b><span>"
        f"{inside.vectors.shape[1]} dimensions, looked at from their widest side: used codes lit, the others grey"
        f'</span></figcaption><img class="plane" src="{url(plane)}" alt="Codebook vectors in two dimensions"></figure>'
        "</div>"
    )
