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
from app.choices import Given, PerMedium, follow
from app.handlers import CHOICES, QUICK, plainly
from app.input_panel import InputPanel
from app.service import Service
from app.tabs.compare import BESIDE, boxes, classic_choices
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
        with gr.Row(elem_classes=["actions"]):
            metric = PerMedium(panel.medium, metric_choice)
            classics = boxes(panel, classic_defaults, label=BESIDE)
            cancel = CancelButton("sweep", panel)
            start = gr.Button(
                "Sweep", variant="primary", elem_id="sweep-start", scale=0, min_width=180
            )
        whose = gr.HTML(elem_classes=["whose"])
        plot = widget("chart", INVITATION, elem_id="sweep-chart", min_height=170)
        shown = views.place("sweep", str(panel.medium.value))
        notices = gr.HTML()
        table = gr.HTML(elem_id="sweep-facts")
        found = gr.State(None)
        blank = [whose, plot, notices, table, found, *shown]
        outputs = [*blank, *metric.controls]
        self._metric, self._classics, self._cancel = metric, classics, cancel
        inputs = {*panel.inputs, *metric.controls, *classics.controls}
        cancel.job(start.click, self._sweep, inputs, outputs, show_progress_on=[plot])
        plot.select(plainly(self._choose), found, shown, **CHOICES)
        for control in metric.controls:
            control.change(plainly(self._redraw), [control, found], plot, **QUICK)
        cancel.cancels()
        follow(panel.medium, metric, classics)
        panel.switched.then(self._switch, panel.medium, blank, **QUICK)

    def _sweep(
        self,
        given: Given,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        service, report = self._panel.service, self._cancel.begin(given, request, progress)
        report(0, "Reading your input, loading the models")
        original = self._panel.open(given)
        versions = comparison.sweep(service, original, self._classics.of(given), report)
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
        metric = self._metric.of(given)
        names = measured(versions) or [metric]
        chosen = metric if metric in names else names[0]
        # What was offered is offered still: a page may be asking for it.
        offered = list(dict.fromkeys([*metrics(original.medium), *names]))
        choice = gr.update(choices=offered, value=chosen)
        report.finish()
        return [
            heading(original, "Sweep"),
            chart(kept, chosen),
            remarks,
            facts(versions) + saved,
            (kept, seen),
            *shown,
            *self._metric.only(original.medium, choice),
        ]

    def _choose(self, event: gr.EventData, found: Found | None) -> list[Any]:
        if not found or not 0 <= int(event.row) < len(found[0]):
            return [gr.skip()] * len(views.VIEWS)
        version, view = found[0][int(event.row)], found[1][int(event.row)]
        return views.filled(version.medium, view)

    def _redraw(self, metric: str, found: Found | None) -> Any:
        return chart(found[0], metric) if found else gr.skip()

    def _switch(self, medium: str) -> list[Any]:
        blank = ["", gr.update(value={"empty": INVITATION}), "", "", None]
        return [*blank, *views.switched(medium, {})]


def classic_defaults(service: Service, medium: str) -> dict[str, Any]:
    """Returns the choice of Compare and one more picture codec, as curves show more."""
    choices = classic_choices(service, medium)
    return choices | {
        "value": [*choices["value"], *(name for _, name in choices["choices"] if name == "jpeg")]
    }


def metric_choice(medium: str, seen: bool) -> gr.Radio:
    """Adds the choice of a medium's metric."""
    names = metrics(medium)
    return gr.Radio(
        names, value=names[-1], label="Quality by", visible=seen, elem_classes=["sweep-metric"]
    )


def metrics(medium: str) -> list[str]:
    """Returns the metrics to choose from before there are figures.

    They stand here once more, as importing eval.metrics takes seconds, and the page comes first.
    """
    return {"speech": ["PESQ", "STOI"], "image": ["PSNR", "SSIM"]}[medium]
