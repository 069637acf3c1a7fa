"""Real media of the lengths and sizes that `eval.bench.path` wants."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from codec import cards
from codec.errors import MediaError
from codec.files import walk
from codec.media import load_audio, load_image
from codec.medium import SAMPLE_RATE


def make_media(
    data: Path, folder: Path, seconds: tuple[float, ...], megapixels: tuple[float, ...]
) -> dict[str, Path]:
    """Makes media to measure: real speech joined to lengths, real photographs tiled to sizes.

    Returns:
        The files by their names, such as "60 s" and "4 MP".
    """
    made = {}
    clips = [
        load_audio(io.BytesIO(content), SAMPLE_RATE)[0]
        for _, content in walk([data / "speech-test.tar"])
    ]
    if not clips:
        raise MediaError(f"{data / 'speech-test.tar'} is empty; copy it again")
    speech = np.concatenate([clip.mean(1) for clip in clips])
    for length in seconds:
        made[f"{length:g} s"] = folder / f"{length:g}.wav"
        soundfile.write(
            made[f"{length:g} s"], np.resize(speech, int(length * SAMPLE_RATE)), SAMPLE_RATE
        )
    photos = [load_image(io.BytesIO(content)) for _, content in walk([data / "image-kodak-00.tar"])]
    if not photos:
        raise MediaError(f"{data / 'image-kodak-00.tar'} is empty; copy it again")
    photos = [photo for photo in photos if photo.shape == photos[0].shape]
    height, width = photos[0].shape[:2]
    for size in megapixels:
        side = (1e6 * size / (height * width)) ** 0.5
        rows, columns = round(side * height), round(side * width)
        across, down = -(-columns // width), -(-rows // height)
        strips = [
            np.concatenate(
                [photos[(across * row + column) % len(photos)] for column in range(across)], 1
            )
            for row in range(down)
        ]
        made[f"{size:g} MP"] = folder / f"{size:g}.bmp"
        Image.fromarray(np.concatenate(strips)[:rows, :columns]).save(made[f"{size:g} MP"])
    return made


def fits(name: str, label: str) -> bool:
    """Says whether a model is of the medium of a file that `make_media` calls `label`."""
    return (cards.find(name).medium == "image") == label.endswith("MP")
