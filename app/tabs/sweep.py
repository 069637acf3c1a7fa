"""Sweep: one input through every model at every codebook size.

It draws rate against quality, and each point can be heard or seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from app import comparison, views
from app.cancel import CancelButton
from app.handlers import CHOICES, QUICK, plainly
from app.input_panel import Given, InputPanel
from app.service import Service
from app.tabs.compare import classic_choices
from app.versions import Version, write_csv
from app.widgets import chart, download, facts, heading, measured, widget
from app.words import empty, notice

INVITATION = empty(
    "Every size, every method, one plot", "Choose something on the left, then press Sweep."
)
POINTS = empty("Press a point of the plot", "Its version is put here, beside the original.")


Found = tuple[list[Version], list[Any]]  # the versions of a plot, and what shows each of them


class SweepTab:
    """The tab's content."""

    def __init__(self, panel: InputPanel) -> None:
        self._panel = panel
        medium = str(panel.medium.value)
        with gr.Row(elem_classes=["actions"]):
            metric = gr.Radio(
                metrics(medium),
                value=metrics(medium)[-1],
                label="Quality by",
                elem_id="sweep-metric",
            )
            classics = gr.CheckboxGroup(
                label="Beside it, at the same bytes", **classic_defaults(panel.service, medium)
            )
            cancel = CancelButton("sweep", panel)
            start = gr.Button(
                "Sweep", variant="primary", elem_id="sweep-start", scale=0, min_width=180
            )
        whose = gr.HTML(elem_classes=["whose"])
        plot = widget("chart", INVITATION, elem_id="sweep-chart", min_height=170)
        shown = views.place("sweep", medium)
        notices = gr.HTML()
        table = gr.HTML(elem_id="sweep-facts")
        found = gr.State(None)
        outputs = [whose, plot, notices, table, found, *shown, metric]
        self._metric, self._classics, self._cancel = metric, classics, cancel
        inputs = {*panel.inputs, metric, classics}
        cancel.job(start.click, self._sweep, inputs, outputs, show_progress_on=[plot])
        plot.select(plainly(self._choose), found, shown, **CHOICES)
        metric.change(plainly(self._redraw), [metric, found], plot, **QUICK)
        cancel.cancels()
        panel.medium.change(self._switch, panel.medium, [classics, *outputs], **QUICK)

    def _sweep(
        self,
        given: Given,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        service, report = self._panel.service, self._cancel.begin(given, request, progress)
        report(0, "Reading your input, loading the models")
        original = self._panel.open(given)
        versions = comparison.sweep(service, original, given[self._classics], report)
        report(0.99, "Drawing")
        seen = [views.drawn(original, [version]) for version in versions]
        path = write_csv(
            service.files.folder() / "sweep.csv", [version.record() for version in versions]
        )
        kept = [replace(version, samples=np.empty(0)) for version in versions]
        shown = views.switched(original.medium, {"empty": POINTS})
        saved = f'<p class="save">{download(path, "Download the table (.csv)")}</p>'
        remarks = notice(
            original.notices + [line for version in versions for line in version.notices]
        )
        metric = given[self._metric]
        names = measured(versions) or [metric]
        chosen = metric if metric in names else names[0]
        choice = gr.update(choices=names, value=chosen)
        return [
            heading(original, "Sweep"),
            chart(kept, chosen),
            remarks,
            facts(versions) + saved,
            (kept, seen),
            *shown,
            choice,
        ]

    def _choose(self, event: gr.EventData, found: Found | None) -> list[Any]:
        if not found or not 0 <= int(event.row) < len(found[0]):
            return [gr.skip()] * len(views.VIEWS)
        version, view = found[0][int(event.row)], found[1][int(event.row)]
        return views.filled(version.medium, view)

    def _redraw(self, metric: str, found: Found | None) -> Any:
        return chart(found[0], metric) if found else gr.skip()

    def _switch(self, medium: str) -> list[Any]:
        names = metrics(medium)
        blank = ["", gr.update(value={"empty": INVITATION}), "", "", None]
        hidden = views.switched(medium, {})
        new = gr.update(choices=names, value=names[-1])
        return [gr.update(**classic_defaults(self._panel.service, medium)), *blank, *hidden, new]


def classic_defaults(service: Service, medium: str) -> dict[str, Any]:
    """Returns the choice of Compare and one more picture codec, as curves show more."""
    choices = classic_choices(service, medium)
    return choices | {
        "value": [*choices["value"], *(name for _, name in choices["choices"] if name == "jpeg")]
    }


def metrics(medium: str) -> list[str]:
    """Returns the metrics to choose from before there are figures.

    They stand here once more, as importing eval.metrics takes seconds, and the page comes first.
    """
    return {"speech": ["PESQ", "STOI"], "image": ["PSNR", "SSIM"]}[medium]
