"""Blind test: rate shuffled versions, or tell one from the original, unseen."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app import comparison, trials, views
from app.cancel import CancelButton
from app.choices import Given
from app.handlers import ANSWERS, QUICK, plainly
from app.input_panel import InputPanel
from app.service import Service
from app.tabs.compare import Options
from app.versions import write_csv
from app.widgets import download, framed, heading, url
from app.words import empty, notice
from codec.errors import MediaError

INVITATION = empty(
    "Trust your senses, not the labels",
    "Choose something on the left, what to test it against, and press Start.",
)
KINDS = [("Rate them all, 0 to 100", "rate"), ("Tell it from the original (ABX)", "abx")]
ABX_INFO = "ABX takes the first model at the largest size that is chosen."
OVER = "this test is over; start another one"
TONE = "var(--ink-soft)"
MAX_RATED = 8
SCALE = (
    "80 to 100 is excellent, 60 good, 40 fair, 20 poor, below it is bad. "
    "One of the letters is the original itself."
)


# Of an ABX test: medium, both files, what the control shows.
Material = tuple[str, list[Path], dict[str, Any]]


class BlindTab:
    """The tab's content."""

    def __init__(self, panel: InputPanel) -> None:
        self._panel, self._service = panel, panel.service
        options = Options(panel)
        with gr.Row(elem_classes=["actions"]):
            kind = gr.Radio(
                KINDS, value="rate", label="Kind of test", info=ABX_INFO, elem_id="blind-kind"
            )
            cancel = CancelButton("blind", panel)
            start = gr.Button(
                "Start", variant="primary", elem_id="blind-start", scale=0, min_width=180
            )
        whose = gr.HTML(elem_classes=["whose"])
        lead = gr.HTML(INVITATION, elem_id="blind-lead", min_height=64)
        shown = views.place("blind")
        with gr.Row(visible=False, elem_id="blind-answers") as answers:
            is_a = gr.Button("X is A")
            is_b = gr.Button("X is B")
            stop = gr.Button("Stop, show the result", variant="secondary")
        result = gr.HTML(elem_id="blind-result")
        test, material = gr.State(None), gr.State(None)
        outputs = [lead, *shown, answers, result, test, material]
        self._options, self._kind, self._cancel = options, kind, cancel
        inputs = {*panel.inputs, *options.inputs, kind}
        cancel.job(start.click, self._begin, inputs, [whose, *outputs], show_progress_on=[lead])
        for control in shown:
            control.submit(plainly(self._rated), test, [result, test], **ANSWERS)
        for button, says_a in ((is_a, True), (is_b, False)):
            button.click(
                plainly(self._answer), [gr.State(says_a), test, material], outputs, **ANSWERS
            )
        stop.click(plainly(self._finish), test, outputs, **ANSWERS)
        cancel.cancels()
        panel.switched.then(self._switch, panel.medium, [whose, *outputs], **QUICK)

    def _begin(
        self,
        given: Given,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        report = self._cancel.begin(given, request, progress)
        report(0, "Reading your input, loading the models")
        original, kind = self._panel.open(given), given[self._kind]
        models, sizes, classics = self._options.chosen(given)
        if kind == "abx":
            models, sizes, classics = models[:1], sorted(sizes)[-1:], []
        versions = comparison.compare(
            self._service, original, models, sizes, classics, report=report, most=MAX_RATED
        )
        report(0.99, "Drawing")
        payload = views.drawn(original, versions, traces=False)
        above = heading(original, "Start")
        media = [original.media, *(version.media for version in versions)]
        if kind == "abx":
            test = trials.start_abx(versions[0])
            report.finish()
            return [above, *_next_trial(self._service, test, (original.medium, media, payload))]
        rating = trials.start_rating(versions)
        value = {
            **payload,
            "versions": self._rated_versions(rating, media, payload),
            "rate": True,
            "quiet": True,
        }
        report.finish()
        text = f'<p class="lead">How close does each letter come to the reference? {SCALE}</p>'
        return [
            above,
            text,
            *views.showing(original.medium, value),
            gr.update(visible=False),
            "",
            rating,
            None,
        ]

    def _rated_versions(
        self, rating: trials.Rating, media: list[Path], payload: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Returns what the control shows of the reference and of the letters behind it."""
        places = [0, *rating.order]
        names = ["Reference", *trials.letters(len(rating.order))]
        copies = trials.disguise(self._service.files, [media[place] for place in places])
        return [
            {
                "label": name,
                "note": "",
                "tone": TONE,
                "url": url(copy),
                "rate": number > 0,
                "gain": _gain(payload, place),
            }
            for number, (name, copy, place) in enumerate(zip(names, copies, places, strict=True))
        ]

    def _rated(self, event: gr.EventData, test: trials.Rating | None) -> list[Any]:
        if test is None:
            raise MediaError(OVER)
        rows = trials.finish_rating(test, event.ratings)
        return [_table(self._service, rows, "Your ratings, best first."), None]

    def _answer(
        self, says_a: bool, test: trials.Abx | None, material: Material | None
    ) -> list[Any]:
        if test is None or material is None:
            raise MediaError(OVER)
        trials.answer(test, says_a)
        return self._finish(test) if test.done else _next_trial(self._service, test, material)

    def _finish(self, test: trials.Abx | None) -> list[Any]:
        if test is None:
            raise MediaError(OVER)
        row = trials.finish_abx(test)
        known = row["by_chance"] < 0.05
        verdict = (
            "You can tell them apart"
            if known
            else "This does not show that you can tell them apart"
        )
        text = (
            f"{row['right']} of {row['trials']} right. {verdict}: "
            f"guessing does as well or better in {100 * row['by_chance']:.1f} % of such tests."
        )
        return [
            "",
            *views.HIDDEN,
            gr.update(visible=False),
            _table(self._service, [row], text),
            None,
            None,
        ]

    def _switch(self, _: str) -> list[Any]:
        return ["", INVITATION, *views.HIDDEN, gr.update(visible=False), "", None, None]


def _gain(payload: dict[str, Any], place: int) -> float:
    return float(payload["versions"][place].get("gain", 0.0))


def _next_trial(service: Service, test: trials.Abx, material: Material) -> list[Any]:
    """Puts A, B and a new X on the page."""
    medium, media, payload = material
    trials.toss(test)
    places = [0, 1, 0 if test.x_is_a else 1]
    copies = trials.disguise(service.files, [media[place] for place in places])
    shown = [
        {
            "label": label,
            "note": note,
            "tone": TONE,
            "url": url(copy),
            "gain": _gain(payload, place),
        }
        for label, note, copy, place in zip(
            ("A", "B", "X"),
            ("the original", escape(test.name), "A or B?"),
            copies,
            places,
            strict=True,
        )
    ]
    count = len(test.answers)
    trial = f"<b>Trial {count + 1} of {trials.TRIALS}.</b>"
    lead = f'<p class="lead">{trial} Is X the same as A, or as B?</p>'
    value = {**payload, "versions": shown, "quiet": True, "right": 2}
    return [lead, *views.showing(medium, value), gr.update(visible=True), "", test, material]


def _table(service: Service, rows: list[dict[str, Any]], text: str) -> str:
    heads = list(dict.fromkeys(key for row in rows for key in row))
    body = "".join(
        "<tr>"
        + "".join(f'<td data-head="{head}">{escape(str(row.get(head, "")))}</td>' for head in heads)
        + "</tr>"
        for row in rows
    )
    titles = "".join(f'<th scope="col">{head.replace("_", " ")}</th>' for head in heads)
    path = write_csv(service.files.folder() / "blind-test.csv", rows)
    return (
        notice([text.rstrip(".")])
        + framed(
            f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>",
            "What was which",
        )
        + f'<p class="save">{download(path, "Download the result (.csv)")}</p>'
    )
