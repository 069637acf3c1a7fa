"""Compare: one input, several models and codebook sizes, and classic codecs at the same bytes."""

from __future__ import annotations

from math import log2
from typing import Any

import gradio as gr

from app.handlers import JOBS, QUICK, plainly, reporting
from app.input_panel import InputPanel
from app.service import Service
from app.tabs.layers import Layers
from app.widgets import facts, listening, looking, widget
from app.words import empty, notice

INVITATION = empty(
    "Nothing to compare yet",
    "Choose an example. It is compressed at once, and you hear or see what is left.",
)
DEFAULT_SIZES = (256, 1024, 16384)
DEFAULT_CLASSICS = ("webp", "opus", "codec2")


class Options:
    """The choice of models, sizes and classic codecs, which Compare and Blind test have."""

    def __init__(self, panel: InputPanel) -> None:
        self._workshop = panel.service
        medium = str(panel.medium.value)
        with gr.Row(elem_classes=["options"]):
            first = [
                choices(panel.service, medium)
                for choices in (model_choices, size_choices, classic_choices)
            ]
            self.models = gr.CheckboxGroup(label="Models", scale=2, min_width=160, **first[0])
            self.sizes = gr.CheckboxGroup(
                label="Codebook sizes", scale=4, min_width=250, **first[1]
            )
            self.classics = gr.CheckboxGroup(
                label="Beside it, at the same bytes", scale=3, min_width=230, **first[2]
            )
        self.inputs: list[Any] = [self.models, self.sizes, self.classics]
        panel.medium.change(self._switch, panel.medium, self.inputs, **QUICK)

    def _switch(self, medium: str) -> list[Any]:
        return [
            gr.update(**choices(self._workshop, medium))
            for choices in (model_choices, size_choices, classic_choices)
        ]


def model_choices(service: Service, medium: str) -> dict[str, Any]:
    names = [card.name for card in service.models.of(medium)]
    return {"choices": names, "value": names[:1]}


def size_choices(service: Service, medium: str) -> dict[str, Any]:
    """Returns all sizes of the medium's models, with the rate of each before entropy coding."""
    rates: dict[int, float] = {}
    for card in service.models.of(medium):
        for size, codes in card.num_codes.items():
            rates.setdefault(size, card.tokens_per_unit * log2(max(codes, 2)))
    unit, scale = ("kbit/s", 1000) if medium == "speech" else ("bpp", 1)
    choices = [(f"{size:,} · {rates[size] / scale:.2f} {unit}", size) for size in sorted(rates)]
    chosen = [size for size in DEFAULT_SIZES if size in rates] or sorted(rates)[:3]
    return {"choices": choices, "value": chosen}


def classic_choices(service: Service, medium: str) -> dict[str, Any]:
    """Returns the classic codecs that work here; those that people know are chosen at first."""
    known = [(baseline.title, baseline.name) for baseline in service.classics(medium)]
    chosen = [name for _, name in known if name in DEFAULT_CLASSICS]
    return {"choices": known, "value": chosen, "visible": bool(known)}


class CompareTab:
    """The tab's content; choosing an example while it is the open tab starts it."""

    def __init__(self, panel: InputPanel, active: gr.State) -> None:
        self._panel = panel
        options = Options(panel)
        with gr.Row(elem_classes=["actions"]):
            match_all = gr.Checkbox(
                label="Classic codecs at the bytes of every size, not only of the largest",
                value=False,
                container=False,
            )
            start = gr.Button(
                "Compare", variant="primary", elem_id="compare-start", scale=0, min_width=180
            )
        notices = gr.HTML(elem_id="compare-notices")
        speech = panel.medium.value == "speech"
        listener = widget(
            "listener", INVITATION, elem_id="compare-listener", visible=speech, min_height=170
        )
        viewer = widget(
            "viewer", INVITATION, elem_id="compare-viewer", visible=not speech, min_height=170
        )
        table = gr.HTML(elem_id="compare-facts")
        self._layers = Layers(panel)
        self._outputs = [notices, listener, viewer, table, *self._layers.outputs]
        inputs = [*panel.inputs, *options.inputs, match_all]
        compare, shown_on = plainly(self._compare), [listener, viewer]
        panel.medium.change(self._switch, panel.medium, self._outputs, **QUICK)
        start.click(
            compare,
            [gr.State("compare"), *inputs],
            self._outputs,
            **JOBS,
            show_progress_on=shown_on,
        )
        panel.taken.success(
            compare, [active, *inputs], self._outputs, **JOBS, show_progress_on=shown_on
        )

    def _compare(
        self,
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
            return [gr.skip()] * len(self._outputs)
        report = reporting(progress)
        report(0, "Reading your input, loading the models")
        original = self._panel.open(medium, recording, picture)
        versions = self._panel.service.compare(original, models, sizes, classics, every, report)
        report(0.98, "One file with layers")
        below = self._layers.update(
            original, str(picture if medium == "image" else recording), models, sizes
        )
        report(0.99, "Drawing")
        remarks = notice(
            original.notices + [line for version in versions for line in version.notices]
        )
        if medium == "speech":
            return [remarks, listening(original, versions), gr.skip(), facts(versions), *below]
        return [remarks, gr.skip(), looking(original, versions), facts(versions), *below]

    def _switch(self, medium: str) -> list[Any]:
        shown = [
            gr.update(visible=medium == kind, value={"empty": INVITATION})
            for kind in ("speech", "image")
        ]
        return ["", *shown, "", *self._layers.hidden()]
