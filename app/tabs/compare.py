"""Compare: one input, several models and codebook sizes, and classic codecs at the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from app import comparison, views
from app.cancel import CancelButton
from app.choices import Given, PerMedium, follow
from app.handlers import QUICK
from app.input_panel import InputPanel
from app.media import SEARCH
from app.service import Service
from app.tabs.layers import Layers
from app.widgets import facts, heading
from app.words import empty, notice

INVITATION = empty(
    "Nothing to compare yet",
    "Choose an example. It is compressed at once, and you hear or see what is left.",
)
DEFAULT_SIZES = (256, 1024, 16384)
DEFAULT_CLASSICS = ("webp", "opus", "codec2")
BESIDE = "Beside it, at the same bytes"  # what the choice of classic codecs is called


class Options:
    """The choice of models, sizes and classic codecs, which Compare and Blind test have."""

    def __init__(self, panel: InputPanel) -> None:
        with gr.Row(elem_classes=["options"]):
            self._models = boxes(panel, model_choices, label="Models", scale=2, min_width=160)
            self._sizes = boxes(panel, size_choices, label="Codebook sizes", scale=4, min_width=250)
            self._classics = boxes(panel, classic_choices, label=BESIDE, scale=3, min_width=230)
        chosen = (self._models, self._sizes, self._classics)
        self.inputs = [control for choice in chosen for control in choice.controls]
        follow(panel.medium, *chosen)

    def chosen(self, given: Given) -> tuple[list[str], list[int], list[str]]:
        """Returns the models, sizes and classic codecs that a handler of `inputs` got."""
        return self._models.of(given), self._sizes.of(given), self._classics.of(given)


def boxes(
    panel: InputPanel, choices: Callable[[Service, str], dict[str, Any]], **options: Any
) -> PerMedium[gr.CheckboxGroup]:
    """Adds boxes to tick for each medium.

    Args:
        panel: Where the medium is chosen.
        choices: Returns the choices of a medium and those that are ticked at first.
        options: Options of the group of boxes.
    """

    def group(medium: str, seen: bool) -> gr.CheckboxGroup:
        offered = choices(panel.service, medium)
        return gr.CheckboxGroup(**offered, visible=seen and bool(offered["choices"]), **options)

    return PerMedium(panel.medium, group)


def model_choices(service: Service, medium: str) -> dict[str, Any]:
    names = [card.name for card in service.models.of(medium)]
    return {"choices": names, "value": names[:1]}


def size_choices(service: Service, medium: str) -> dict[str, Any]:
    """Returns all sizes of the medium's models; what each costs is in the table of the result."""
    sizes = sorted({size for card in service.models.of(medium) for size in card.num_codes})
    chosen = [size for size in DEFAULT_SIZES if size in sizes] or sizes[:3]
    return {"choices": [(f"{size:,}", size) for size in sizes], "value": chosen}


def classic_choices(service: Service, medium: str) -> dict[str, Any]:
    """Returns the classic codecs that work here; those that people know are chosen at first."""
    known = [(baseline.title, baseline.name) for baseline in service.classics.of(medium)]
    chosen = [name for _, name in known if name in DEFAULT_CLASSICS]
    return {"choices": known, "value": chosen}


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
            searched = gr.Checkbox(
                label="Models also with a search for nearer codes, which takes a while",
                value=False,
                container=False,
                elem_id="compare-searched",
            )
            cancel = CancelButton("compare", panel)
            start = gr.Button(
                "Compare", variant="primary", elem_id="compare-start", scale=0, min_width=180
            )
        whose = gr.HTML(elem_classes=["whose"])
        notices = gr.HTML(elem_id="compare-notices")
        shown_on = views.place("compare", str(panel.medium.value), INVITATION, min_height=170)
        table = gr.HTML(elem_id="compare-facts")
        self._layers = Layers(panel, cancel.turn)
        self._outputs = [whose, notices, *shown_on, table, *self._layers.outputs]
        self._options, self._match_all, self._searched = options, match_all, searched
        self._active, self._cancel = active, cancel
        inputs = {*panel.inputs, *options.inputs, match_all, searched}
        cancel.job(start.click, self._compare, inputs, self._outputs, show_progress_on=shown_on)
        for taken in panel.taken:
            given = {active, *inputs}
            cancel.job(
                taken.success, self._compare, given, self._outputs, show_progress_on=shown_on
            )
        cancel.cancels(self._layers.cut)
        panel.switched.then(self._switch, panel.medium, self._outputs, **QUICK)

    def _compare(
        self,
        given: Given,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        # After an example: another tab is open, or the medium was changed meanwhile.
        if self._active in given and (
            given[self._active] != "compare" or self._panel.path(given) is None
        ):
            return [gr.skip()] * len(self._outputs)
        models, sizes, classics = self._options.chosen(given)
        job = self._cancel.begin(given, request, progress)
        job(0, "Reading your input, loading the models")
        original = self._panel.open(given)
        versions = comparison.compare(
            self._panel.service,
            original,
            models,
            sizes,
            classics,
            bool(given[self._match_all]),
            job,
            search=SEARCH if given[self._searched] else 0,
        )
        job(0.98, "One file with layers")
        below = self._layers.update(original, str(self._panel.path(given)), models, sizes)
        job(0.99, "Drawing")
        remarks = notice(
            original.notices + [line for version in versions for line in version.notices]
        )
        seen = views.filled(original.medium, views.drawn(original, versions))
        job.finish()  # a cut of the former file that is still being made is not wanted any more
        return [heading(original, "Compare"), remarks, *seen, facts(versions), *below]

    def _switch(self, medium: str) -> list[Any]:
        shown = views.switched(medium, {"empty": INVITATION})
        return ["", "", *shown, "", *self._layers.hidden()]
