"""The panel that holds the input: medium, upload, microphone or camera, examples."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from app.jobs import Workshop
from app.page import QUICK, Page, explain, plainly
from app.widgets import url, widget

THUMB = (240, 160)
# Recordings in gradio's wheel, photographs in scikit-image's: media that are installed with the app.
EXAMPLES = {
    "speech": (
        ("A speaker", "gradio", "media_assets/audio/cate_blanch.mp3", "woman, 8 s"),
        ("An interview", "gradio", "media_assets/audio/heath_ledger.mp3", "man, 4 s"),
        ("A thank-you", "gradio", "media_assets/audio/cate_blanch_2.mp3", "woman, 4 s"),
        ("A saxophone", "gradio", "media_assets/audio/sax.wav", "no speech: hear it fail"),
    ),
    "image": (
        ("Astronaut", "skimage", "data/astronaut.png", "a face, sharp edges"),
        ("Cat", "skimage", "data/chelsea.png", "fine fur"),
        ("Coffee", "skimage", "data/coffee.png", "wood and shine"),
        ("Rocket", "skimage", "data/rocket.jpg", "night, thin lines"),
    ),
}


@dataclass(frozen=True, slots=True)
class Example:
    title: str
    note: str
    path: Path


def examples(medium: str) -> list[Example]:
    """Those of the bundled media that are installed here; found without importing their packages."""
    found = []
    for title, package, inside, note in EXAMPLES[medium]:
        spec = find_spec(package)
        path = Path(spec.origin).parent / inside if spec and spec.origin else Path(inside)
        if path.is_file():
            found.append(Example(title, note, path))
    return found


def as_it_came(payload: Any) -> str | None:
    """The path of an upload: codec.media reads it, and says in plain words what is wrong with it."""
    return payload.path if payload else None


def build(workshop: Workshop) -> Page:
    """The panel."""
    gr.HTML('<h2 class="step">Choose something</h2>')
    media = [m for m in ("speech", "image") if workshop.models.of(m)]
    names = {"speech": "Speech", "image": "Picture"}
    medium = gr.Radio(
        [(names[m], m) for m in media],
        value=media[0],
        label="Speech or picture",
        show_label=False,
        container=False,
        elem_id="medium",
    )
    is_speech = media[0] == "speech"
    cards = widget("choices", elem_id="examples")
    cards.value = _cards(workshop, media[0])
    recording = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="Your own recording",
        visible=is_speech,
        elem_id="recording",
        buttons=[],
    )
    picture = gr.Image(
        sources=["upload", "webcam"],
        type="filepath",
        image_mode=None,
        label="Your own picture",
        show_label=False,
        visible=not is_speech,
        height=220,
        elem_id="picture",
        buttons=[],
    )
    picture.preprocess = as_it_came  # Gradio's own opens the file, and fails on what it cannot read
    about = gr.HTML(_about(workshop, "", ""), elem_id="about")
    inputs = [medium, recording, picture]

    def switch(medium: str) -> list[Any]:
        speech = medium == "speech"
        return [_cards(workshop, medium), gr.update(visible=speech), gr.update(visible=not speech)]

    def take(event: gr.EventData, medium: str) -> list[Any]:
        known = {example.path.name: example.path for example in examples(medium)}
        path = known[event.name]  # a name that is not in the list is an error like any other
        copy = shutil.copy(path, workshop.shelf.folder() / path.name)
        return [copy, gr.skip()] if medium == "speech" else [gr.skip(), copy]

    def describe(medium: str, recording: str | None, picture: str | None) -> str:
        if not (picture if medium == "image" else recording):
            return _about(workshop, "", "")
        try:
            source = workshop.open(picture if medium == "image" else recording, medium)
        except Exception as error:
            return _about(workshop, explain(error)[1], "fault")
        return _about(workshop, source.description, "known", source.notices)

    medium.change(switch, medium, [cards, recording, picture], **QUICK, show_progress="hidden").then(
        describe, inputs, about, **QUICK, show_progress="hidden"
    )
    for component in (recording, picture):
        component.change(describe, inputs, about, **QUICK, show_progress="hidden")
    taken = cards.select(plainly(take), medium, [recording, picture], **QUICK, show_progress="hidden")
    return Page(workshop, inputs, medium, taken)


def _about(workshop: Workshop, text: str, kind: str, notices: list[str] | None = None) -> str:
    """A line about the input; the limits where there is none."""
    settings = workshop.settings
    if not text:
        text = (
            f"Up to {settings.max_seconds:g} s, {settings.max_pixels / 1e6:g} megapixels and "
            f"{settings.max_upload_bytes >> 20} MiB. Files are deleted after {settings.keep_s // 60} minutes."
        )
    extra = "".join(f"<small>{escape(line)}</small>" for line in notices or [])
    return f'<p class="about {kind}" role="status">{escape(text)}{extra}</p>'


def _cards(workshop: Workshop, medium: str) -> dict[str, Any]:
    cards = []
    for example in examples(medium):
        card = {"name": example.path.name, "title": example.title, "note": example.note}
        if medium == "image":
            card["thumb"] = url(_thumb(workshop, example.path))
        cards.append(card)
    return {"cards": cards}


def _thumb(workshop: Workshop, path: Path) -> Path:
    """A small copy, made once; not on the shelf, which is emptied."""
    target = workshop.shelf.root / "thumbs" / f"{path.stem}.jpg"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((THUMB[0] * 2, THUMB[1] * 2))
            small.save(target, "JPEG", quality=82)
    return target
