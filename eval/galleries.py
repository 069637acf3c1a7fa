"""How a report shows decoded media side by side: speech as spectrograms, pictures as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from codec.media import load_audio, load_image
from codec.medium import IMAGE, SPEECH
from eval import figures


@dataclass(frozen=True, slots=True)
class Gallery:
    """What a report says and draws of one medium.

    Attributes:
        title: The heading of the drawing.
        stem: The end of the name of its file.
        metric: The figure below each signal.
        panels: Metrics of the rate-distortion curves, a panel for each.
        read: Reads a media file as the drawing wants it.
        draw: Draws rows of such signals into a file.
    """

    title: str
    stem: str
    metric: str
    panels: tuple[str, ...]
    read: Callable[[BinaryIO], NDArray[Any]]
    draw: Callable[[Path, list[list[figures.Panel]]], None]


def _signal(file: BinaryIO) -> NDArray[Any]:
    return load_audio(file)[0][:, 0]


GALLERIES: Mapping[str, Gallery] = {
    SPEECH.name: Gallery(
        "Spectrograms",
        "spectrograms",
        "PESQ",
        ("PESQ", "STOI", "ESTOI", "DistillMOS"),
        _signal,
        figures.spectrograms,
    ),
    IMAGE.name: Gallery(
        "Pictures",
        "sheet",
        "PSNR",
        ("PSNR", "MS-SSIM", "SSIMULACRA2", "LPIPS-squeeze", "LPIPS-alex", "LPIPS-vgg"),
        load_image,
        figures.contact_sheet,
    ),
}
