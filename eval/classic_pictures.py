"""Classic codecs of pictures, by Pillow and pillow-heif: (H, W, 3) uint8 to a whole file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from codec.media.heic import opened
from eval.signals import Signal


def write_picture(
    pixels: Signal, setting: int, kind: str, name: str = "quality", **options: Any
) -> bytes:
    """Codes by Pillow as a file of this kind, with `setting` as the option of this name."""
    if kind == "JXL":
        import pillow_jxl  # noqa: F401  registers itself with Pillow
    file = io.BytesIO()
    value: Any = [setting] if name == "quality_layers" else setting
    Image.fromarray(pixels).save(file, kind, **{name: value}, **options)
    return file.getvalue()


def read_picture(data: bytes, length: int | None = None) -> Signal:  # noqa: ARG001  a picture's file knows its size
    """Reads any of Pillow's pictures as (H, W, 3) uint8."""
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        import pillow_jxl  # noqa: F401
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def write_heic(pixels: Signal, setting: int) -> bytes:
    """Codes as HEVC, intra alone, by x265."""
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, quality=setting)
    return file.getvalue()


def read_heic(data: bytes, length: int | None = None) -> Signal:  # noqa: ARG001
    """Reads HEIC as (H, W, 3) uint8."""
    return np.array(opened(io.BytesIO(data)).convert("RGB"))


def heic_payload(data: bytes) -> int:
    """Counts what the box "mdat" holds; the boxes before it take some hundred bytes."""
    start = 0
    while data[start + 4 : start + 8] != b"mdat":
        start += int.from_bytes(data[start : start + 4], "big")
    return int.from_bytes(data[start : start + 4], "big") - 8
