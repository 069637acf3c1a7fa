"""Inspect: the tokens of one file and its codebook.

It shows what becomes of sound or picture when tokens change.
"""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from app import pictures, views
from app.choices import BROWSER, Given, PerMedium, follow
from app.handlers import JOBS, working
from app.input_panel import InputPanel
from app.tokens import CHANGES, Tokens, edit, tokens
from app.turns import Turn
from app.versions import Version
from app.widgets import download, heading, url, widget
from app.words import empty, number, tip
from codec.cards import Card
from codec.errors import MediaError
from codec.medium import IMAGE, SPEECH

INVITATION = empty(
    "Look inside a file",
    "Choose something on the left, then press Look inside: every square is one token.",
)
MAX_HOVER = 70_000  # tokens whose numbers go to the page
# Of each medium what the size of a spot counts, its size at first, and the largest. 36 tokens of
# speech are a fifth of a second, 6 across a picture 48 pixels.
SPOTS = {SPEECH.name: ("Tokens in a row", 36, 256), IMAGE.name: ("Tokens across", 6, 32)}
# What the browser does by itself, so that what is decoded is what the page shows: it takes the spot
# that was clicked, and its token; draws it in another size, where it is; and gives a codebook size
# to those of the other models that offer it.
CHOOSE = """(token) => {
    const { index, ...spot } = JSON.parse(document.querySelector("#inspect-map .map").dataset.spot);
    return [spot, "The spot", index ?? token];
}"""
RESIZE = "(side, spot, field) => (field.url ? { ...field, side, spot } : field)"
SIZES = """(medium, ...models) => {
    const model = models[%s.indexOf(medium)];
    return %s.map((name) => ({ __type__: "update", visible: name === model }));
}"""
BLANK = """() => [
    "", { empty: %s }, "", null, "Everywhere", "",
    ...Array(%d).fill({ __type__: "update", visible: false }),
]"""
SAME_SIZE = "(size, ...others) => %s.map((all, i) => (all.includes(size) ? size : others[i]))"


class InspectTab:
    """The tab's content."""

    def __init__(self, panel: InputPanel) -> None:
        self._panel, self._service = panel, panel.service
        with gr.Row(elem_classes=["actions"]):
            self._models = models = PerMedium(panel.medium, self._model_choice)
            first = models[str(panel.medium.value)].value
            self._sizes = {
                card.name: self._size_choice(card, card.name == first)
                for card in panel.service.models.cards.values()
            }
            start = gr.Button(
                "Look inside", variant="primary", elem_id="inspect-start", scale=0, min_width=180
            )
        self._turn = turn = gr.State(Turn())
        chosen: list[gr.Radio | gr.Dropdown] = [panel.medium, *models.controls]
        sizes = list(self._sizes.values())
        whose = gr.HTML(elem_classes=["whose"])
        field = widget("map", INVITATION, elem_id="inspect-map", min_height=170)
        usage = gr.HTML(elem_id="inspect-usage")
        self._kept = kept = gr.State(None)
        self._editor = editor = Editor(panel.medium)
        result = gr.HTML(elem_id="inspect-result")
        shown = [result, *views.place("inspect")]
        outputs = [whose, field, usage, kept, editor.spot, editor.where, *shown]
        start.click(
            working(self._look),
            {*panel.inputs, *chosen, *sizes, turn, *editor.side.controls},
            outputs,
            **JOBS,
            show_progress_on=[field],
        )
        follow(panel.medium, models, editor.side)
        media = [name for _, name in panel.medium.choices]
        script = SIZES % (json.dumps(media), json.dumps(list(self._sizes)))
        for control in chosen:
            control.change(None, chosen, sizes, js=script, **BROWSER)
        for card in panel.service.models.cards.values():
            self._keep_size(card)
        taken = [editor.spot, editor.where, editor.token]
        field.select(None, editor.token, taken, js=CHOOSE, **BROWSER)
        for side in editor.side.controls:
            side.input(None, [side, editor.spot, field], field, js=RESIZE, **BROWSER)
        editor.decode.click(
            working(self._change),
            {panel.medium, kept, turn, *editor.inputs},
            shown,
            **JOBS,
            show_progress_on=[result],
        )
        blank = [whose, field, usage, editor.spot, editor.where, result]
        hidden = shown[1:]
        panel.medium.change(
            None,
            None,
            [*blank, *hidden],
            js=BLANK % (json.dumps(INVITATION), len(hidden)),
            **BROWSER,
        )

    def _look(
        self,
        given: Given,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        job = given[self._turn].begin(progress)
        job(0, "Reading your input, loading the model")
        original = self._panel.open(given)
        model = self._models.of(given)
        size = int(given[self._sizes[model]])
        job(0.3, f"{model} with {size:,} codes: encode, decode")
        version = self._service.code(original, model, size)
        inside = tokens(self._service, version)
        job(0.9, "Drawing the codebook")
        light = replace(version, samples=np.empty(0))
        mapped = _map(version, inside, given[self._editor.side[original.medium]])
        shown = [heading(original, "Look inside"), mapped, _usage(version, inside)]
        job.finish()  # a change of the former file is not wanted any more
        return [*shown, light, None, "Everywhere", "", *views.HIDDEN]

    def _model_choice(self, medium: str, seen: bool) -> gr.Dropdown:
        names = [card.name for card in self._service.models.of(medium)]
        return gr.Dropdown(names, value=names[0], label="Model", visible=seen)

    def _size_choice(self, card: Card, seen: bool) -> gr.Dropdown:
        sizes = sorted(card.num_codes)
        return gr.Dropdown(
            [(f"{size:,}", size) for size in sizes],
            value=1024 if 1024 in sizes else sizes[0],
            label="Codebook size",
            visible=seen,
        )

    def _keep_size(self, card: Card) -> None:
        """Lets a size that is chosen for a model be that of its medium's other models, too."""
        others = [
            other for other in self._service.models.of(card.medium) if other.name != card.name
        ]
        if others:
            outputs = [self._sizes[other.name] for other in others]
            script = SAME_SIZE % json.dumps([list(other.num_codes) for other in others])
            size = self._sizes[card.name]
            size.input(None, [size, *outputs], outputs, js=script, **BROWSER)

    def _change(
        self,
        given: Given,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        version: Version | None = given[self._kept]
        # The state of a former medium stays, as the browser alone blanks the page.
        if version is None or version.medium != given[self._panel.medium]:
            raise MediaError("there is no file yet; press Look inside first")
        report = given[self._turn].join(progress)
        report(0.2, "Decoding the changed tokens")
        change, share, token, area = self._editor.chosen(given, version.medium)
        changed, count = edit(self._service, version, change, share, token, area)
        before, _ = self._service.decode(version.file)
        names = ["As it was", "Changed"]
        text = f"{count:,} {'token' if count == 1 else 'tokens'} replaced: the file went from "
        text += f"{version.num_bytes:,} to {changed.num_bytes:,} bytes"
        link = download(changed.file, "Download the changed .bin")
        line = f'<p class="save"><span>{escape(text)}</span>{link}</p>'
        view = views.drawn(None, [before, changed], names)
        if area:
            view |= {"focus": area[:2], "cut": area[0]}
        report(0.99, "Drawing")
        return [line, *views.showing(version.medium, view)]


class Editor:
    """The controls that say how tokens are changed.

    Args:
        medium: The choice of the medium.

    Attributes:
        spot: The place on the map that was clicked, as the browser knows it.
        where: Whether the spot is changed, or the whole file.
        side: The size of the spot.
        inputs: What a handler needs that calls `chosen`.
    """

    def __init__(self, medium: gr.Radio) -> None:
        self.spot = gr.JSON(visible=False)
        with gr.Column(elem_id="inspect-edit"):
            gr.HTML(
                "<h3>Change tokens, and decode</h3>"
                '<p class="lead">Click the map to choose a spot, or change the whole file.</p>'
            )
            with gr.Row():
                self._change = change = gr.Radio(
                    [
                        ("Random tokens", "random"),
                        ("One token", "one token"),
                        ("Shuffle them", "shuffle"),
                    ],
                    value=CHANGES[0],
                    label="Put there",
                )
                self.token = gr.Number(0, label="Which token", precision=0, minimum=0)
                self.where = gr.Radio(["The spot", "Everywhere"], value="Everywhere", label="Where")
            with gr.Row():
                self._share = gr.Slider(
                    1, 100, 10, step=1, label="How many of them, %", elem_id="inspect-share"
                )
                self.side = PerMedium(medium, _side)
                self.decode = gr.Button(
                    "Decode the change",
                    variant="primary",
                    elem_id="inspect-decode",
                    scale=0,
                    min_width=210,
                )
        self.inputs = [self.spot, change, self.token, self.where, self._share, *self.side.controls]

    def chosen(
        self, given: Given, medium: str
    ) -> tuple[str, float, int, tuple[float, float, float] | None]:
        """Returns what `app.tokens.edit` shall do: the change, its share, the token and the area.

        Args:
            given: What a handler of `inputs` got.
            medium: That of the file.

        Raises:
            MediaError: The spot is to be changed, and none is chosen.
        """
        area = None
        if given[self.where] == "The spot":
            spot = given[self.spot]
            if spot is None:
                raise MediaError("there is no spot yet; click the map, or choose Everywhere")
            area = (float(spot["x"]), float(spot["y"]), float(given[self.side[medium]]))
        return given[self._change], given[self._share] / 100, int(given[self.token] or 0), area


def _side(medium: str, seen: bool) -> gr.Slider:
    """Adds the size of a spot, which counts other tokens in each medium."""
    info, value, maximum = SPOTS[medium]
    return gr.Slider(
        1,
        maximum,
        value,
        step=1,
        label="Size of the spot",
        info=info,
        visible=seen,
        elem_classes=["inspect-side"],
    )


def _map(version: Version, inside: Tokens, side: int) -> dict[str, Any]:
    """Returns what the "map" control shows; `side` is the size of a spot, if one is chosen."""
    image = pictures.token_map(
        inside.map, inside.header.num_codes, version.media.with_suffix(".tokens.png")
    )
    value: dict[str, Any] = {
        "url": url(image),
        "rows": inside.rows,
        "columns": inside.columns,
        "num_codes": inside.header.num_codes,
    }
    value |= {"side": int(side), "positions": inside.indices.shape[2]}
    value["caption"] = "Point at a square to read its number"
    if inside.map.size <= MAX_HOVER:
        value["indices"] = inside.map.ravel().tolist()
    if inside.header.kind.timed:
        value["per_second"] = inside.columns
        value["caption"] = "Each row is one second, left to right; point at a square"
        if len(inside.indices) > 1:
            value["caption"] += ". This is the first channel"
    else:
        value["picture"] = url(version.media)
    return value


def _usage(version: Version, inside: Tokens) -> str:
    """Draws how the codebook is used: bars, and its vectors seen from their two widest sides."""
    counts = inside.counts
    plane = pictures.codebook_plane(
        inside.vectors, counts, version.media.with_suffix(".codebook.png")
    )
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
        f"{number(used)} of {number(total)} {tip('codes', 'codebook')}, the most frequent "
        f"{top:.1f} % of the time"
        '</span></figcaption><div class="bars" role="img" aria-label="Usage of the codebook by '
        f'index">{drawn}</div>'
        '<div class="ends"><span>0</span><span>code '
        f"number</span><span>{total - 1:,}</span></div></figure>"
        "<figure><figcaption><b>The codebook, flattened</b><span>"
        f"{inside.vectors.shape[1]} dimensions, looked at from their widest side: used codes lit, "
        "the others grey"
        f'</span></figcaption><img class="plane" src="{url(plane)}" alt="Codebook vectors in two '
        'dimensions"></figure>'
        "</div>"
    )
