"""The panel with the input: speech or picture, upload, microphone or camera, examples."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from app.choices import BROWSER, Given, PerMedium, follow
from app.handlers import CHOICES, QUICK, explain, plainly
from app.originals import Original, digest
from app.service import Service
from app.turns import Sessions
from app.widgets import url, widget
from codec.medium import IMAGE, SPEECH

THUMB = (240, 160)
# Recordings in gradio's wheel, photographs in scikit-image's: media that are installed with the
# app.
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
    """A recording or picture that comes with a package which the app needs anyway."""

    title: str
    note: str
    path: Path


def examples(medium: str) -> list[Example]:
    """Finds those of the examples that are installed here, without importing their packages."""
    found = []
    for title, package, inside, note in EXAMPLES[medium]:
        spec = find_spec(package)
        path = Path(spec.origin).parent / inside if spec and spec.origin else Path(inside)
        if path.is_file():
            found.append(Example(title, note, path))
    return found


def as_it_came(payload: Any) -> str | None:
    """Returns the path of an upload, for codec.media to read and to say what is wrong with it."""
    return payload.path if payload else None


class InputPanel:
    """The panel, and what tabs take from it.

    Attributes:
        service: What does the work.
        sessions: Where jobs of a session are noted, to end with it.
        medium: The choice between speech and picture.
        inputs: The components that hold the input: the medium, and a field for each. Handlers get
            their values by component, see `open`.
        taken: The events that an example was chosen; `.success` goes on from there.
        switched: The event that another medium was chosen. What the server does about it goes on
            from there, by `.then`: as an event of `medium` it would keep those behind it waiting,
            and the browser's own must come at once.
    """

    def __init__(self, service: Service, sessions: Sessions) -> None:
        self.service, self.sessions = service, sessions
        gr.HTML('<h2 class="step">Choose something</h2>')
        media = [medium for medium in FIELDS if service.models.of(medium)]
        self.medium = gr.Radio(
            [(FIELDS[medium].name, medium) for medium in media],
            value=media[0],
            label="Speech or picture",
            show_label=False,
            container=False,
            elem_id="medium",
        )
        examples = PerMedium(self.medium, self._examples)
        self._fields = PerMedium(self.medium, lambda medium, seen: FIELDS[medium].add(seen))
        fields = self._fields.controls
        about = PerMedium(
            self.medium,
            lambda _, seen: gr.HTML(_about(service), elem_id="about", visible=seen),
        )
        self.inputs: set[Any] = {self.medium, *fields}
        self.taken = []
        follow(self.medium, self._fields, examples, about)
        self.switched = self.medium.change(None, js="() => {}", **BROWSER)
        for medium in media:
            field = self._fields[medium]
            field.change(partial(self._describe, medium), field, about[medium], **QUICK)
            take = plainly(self._taking(medium))
            self.taken.append(examples[medium].select(take, None, field, **CHOICES))

    def path(self, given: Given) -> str | None:
        """Returns the file that is chosen now, if there is one."""
        chosen: str | None = self._fields.of(given)
        return chosen

    def open(self, given: Given) -> Original:
        """Reads the input that is chosen now.

        Args:
            given: What a handler of `inputs` got.

        Raises:
            MediaError: There is none, or it cannot be used.
        """
        return self.service.open(self.path(given), given[self.medium])

    def _examples(self, medium: str, seen: bool) -> gr.HTML:
        control = widget("choices", elem_id="examples", visible=seen)
        control.value = _cards(self.service, medium)
        return control

    def _taking(self, medium: str) -> Callable[[gr.EventData], str]:
        """Returns what takes an example of a medium; Gradio gives an event to no partial."""
        known = {example.path.name: example.path for example in examples(medium)}

        def take(event: gr.EventData) -> str:
            path = known[event.name]  # a name that is not in the list is an error like any other
            return shutil.copy(path, str(self.service.files.folder() / path.name))

        return take

    def _describe(self, medium: str, path: str | None) -> str:
        if not path:
            return _about(self.service)
        try:
            original = self.service.open(path, medium)
        except Exception as error:
            return _about(self.service, explain(error)[1], "fault")
        return _about(
            self.service, original.description, "known", original.digest, original.notices
        )


def _recording(visible: bool) -> gr.Audio:
    return gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="Your own recording",
        visible=visible,
        elem_id="recording",
        buttons=[],
    )


def _picture(visible: bool) -> gr.Image:
    picture = gr.Image(
        sources=["upload", "webcam"],
        type="filepath",
        image_mode=None,
        label="Your own picture",
        show_label=False,
        visible=visible,
        height=220,
        elem_id="picture",
        buttons=[],
    )
    picture.preprocess = as_it_came  # type: ignore[method-assign]  # Gradio's fails on what it cannot read
    return picture


@dataclass(frozen=True, slots=True)
class Field:
    """How the page takes the inputs of one medium.

    Attributes:
        name: What the page calls the medium.
        add: Adds the component that takes a file, seen or not.
        thumbs: Whether examples are shown as small pictures.
    """

    name: str
    add: Callable[[bool], gr.Audio | gr.Image]
    thumbs: bool = False


FIELDS = {
    SPEECH.name: Field("Speech", _recording),
    IMAGE.name: Field("Picture", _picture, thumbs=True),
}


def _about(
    service: Service,
    text: str = "",
    kind: str = "",
    digest: str = "",
    notices: Sequence[str] = (),
) -> str:
    """Returns a line about the input; it says the limits where there is no input.

    It carries the digest of the input, by which the page knows what belongs to it.
    """
    settings = service.settings
    if not text:
        text = (
            f"Up to {settings.max_seconds:g} s, {settings.max_pixels / 1e6:g} megapixels and "
            f"{settings.max_upload_bytes >> 20} MiB. Files are deleted after "
            f"{settings.keep_s // 60} minutes."
        )
    extra = "".join(f"<small>{escape(line)}</small>" for line in notices)
    head = f'<p class="about {kind}" data-input="{digest}" role="status">'
    return f"{head}{escape(text)}{extra}</p>"


def _cards(service: Service, medium: str) -> dict[str, Any]:
    cards = []
    for example in examples(medium):
        card = {"name": example.path.name, "title": example.title, "note": example.note}
        card["input"] = digest(example.path.read_bytes())
        if FIELDS[medium].thumbs:
            card["thumb"] = url(_thumb(service, example.path))
        cards.append(card)
    return {"cards": cards}


def _thumb(service: Service, path: Path) -> Path:
    """Returns a small copy of a picture, which is made once; temporary files would be deleted."""
    target = service.files.root / "thumbs" / f"{path.stem}.jpg"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((THUMB[0] * 2, THUMB[1] * 2))
            small.save(target, "JPEG", quality=82)
    return target
