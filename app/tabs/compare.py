"""Compare: one input, several models and codebook sizes, and classic codecs at the same bytes."""

from __future__ import annotations

from math import log2
from typing import Any

import gradio as gr

from app.jobs import Workshop
from app.page import JOBS, QUICK, Page, plainly, reporting
from app.tabs.layers import Layers
from app.widgets import facts, listening, looking, widget
from app.words import empty, notice

INVITATION = empty(
    "Nothing to compare yet", "Choose an example. It is compressed at once, and you hear or see what is left."
)
DEFAULT_SIZES = (256, 1024, 16384)
DEFAULT_CLASSICS = ("webp", "opus", "codec2")


class Options:
    """Which models, sizes and classic codecs; shared by Compare and Blind test."""

    def __init__(self, page: Page) -> None:
        self._workshop = page.workshop
        medium = str(page.medium.value)
        with gr.Row(elem_classes=["options"]):
            first = [choices(page.workshop, medium) for choices in (model_choices, size_choices, classic_choices)]
            self.models = gr.CheckboxGroup(label="Models", scale=2, min_width=160, **first[0])
            self.sizes = gr.CheckboxGroup(label="Codebook sizes", scale=4, min_width=250, **first[1])
            self.classics = gr.CheckboxGroup(label="Beside it, at the same bytes", scale=3, min_width=230, **first[2])
        self.inputs: list[Any] = [self.models, self.sizes, self.classics]
        page.medium.change(self._switch, page.medium, self.inputs, **QUICK, show_progress="hidden")

    def _switch(self, medium: str) -> list[Any]:
        return [
            gr.update(**choices(self._workshop, medium)) for choices in (model_choices, size_choices, classic_choices)
        ]


def model_choices(workshop: Workshop, medium: str) -> dict[str, Any]:
    names = [card.name for card in workshop.models.of(medium)]
    return {"choices": names, "value": names[:1]}


def size_choices(workshop: Workshop, medium: str) -> dict[str, Any]:
    """All sizes of all models of the medium, with the rate that each makes before entropy coding."""
    rates: dict[int, float] = {}
    for card in workshop.models.of(medium):
        for size, codes in card.num_codes.items():
            rates.setdefault(size, card.tokens_per_unit * log2(max(codes, 2)))
    unit, scale = ("kbit/s", 1000) if medium == "speech" else ("bpp", 1)
    choices = [(f"{size:,} · {rates[size] / scale:.2f} {unit}", size) for size in sorted(rates)]
    chosen = [size for size in DEFAULT_SIZES if size in rates] or sorted(rates)[:3]
    return {"choices": choices, "value": chosen}


def classic_choices(workshop: Workshop, medium: str) -> dict[str, Any]:
    """Those that work here; at first the ones that people know."""
    known = [(baseline.title, baseline.name) for baseline in workshop.classics(medium)]
    chosen = [name for _, name in known if name in DEFAULT_CLASSICS]
    return {"choices": known, "value": chosen, "visible": bool(known)}


def build(page: Page, active: gr.State) -> None:
    """Adds the tab's content; choosing an example while it is the active tab starts it."""
    options = Options(page)
    with gr.Row(elem_classes=["actions"]):
        match_all = gr.Checkbox(
            label="Classic codecs at the bytes of every size, not only of the largest", value=False, container=False
        )
        start = gr.Button("Compare", variant="primary", elem_id="compare-start", scale=0, min_width=180)
    notices = gr.HTML(elem_id="compare-notices")
    speech = page.medium.value == "speech"
    listener = widget("listener", INVITATION, elem_id="compare-listener", visible=speech, min_height=170)
    viewer = widget("viewer", INVITATION, elem_id="compare-viewer", visible=not speech, min_height=170)
    table = gr.HTML(elem_id="compare-facts")
    layers = Layers(page)
    outputs = [notices, listener, viewer, table, *layers.outputs]

    @plainly
    def compare(
        tab: str,
        medium: str,
        recording: str | None,
        picture: str | None,
        models: list[str],
        sizes: list[int],
        classics: list[str],
        every: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        if tab != "compare":
            return [gr.skip()] * len(outputs)
        report = reporting(progress)
        report(0, "Reading your input, waking the models")
        source = page.open(medium, recording, picture)
        versions = page.workshop.compare(source, models, sizes, classics, every, report)
        report(0.98, "One file with layers")
        below = layers.update(source, str(picture if medium == "image" else recording), models, sizes)
        report(0.99, "Drawing")
        remarks = notice(source.notices + [line for version in versions for line in version.notices])
        if medium == "speech":
            return [remarks, listening(source, versions), gr.skip(), facts(versions), *below]
        return [remarks, gr.skip(), looking(source, versions), facts(versions), *below]

    def switch(medium: str) -> list[Any]:
        shown = [gr.update(visible=medium == kind, value={"empty": INVITATION}) for kind in ("speech", "image")]
        return ["", *shown, "", *layers.hidden()]

    page.medium.change(switch, page.medium, outputs, **QUICK, show_progress="hidden")
    inputs = [*page.source, *options.inputs, match_all]
    shown_on = [listener, viewer]
    start.click(compare, [gr.State("compare"), *inputs], outputs, **JOBS, show_progress_on=shown_on)
    page.taken.success(compare, [active, *inputs], outputs, **JOBS, show_progress_on=shown_on)
