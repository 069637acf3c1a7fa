"""The original that versions are compared with.

It is a recording or a picture, read once, within the limits.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.store import Settings, TemporaryFiles
from codec.container import MAGIC
from codec.container.limits import SAMPLES_PER_SECOND
from codec.errors import MediaError
from codec.media import (
    IMAGE_FORMATS,
    AudioReader,
    AudioWriter,
    Samples,
    detect,
    load_image,
    resample,
    save_image,
)
from codec.medium import MAX_CHANNELS, SAMPLE_RATE

MAX_STEM_BYTES = 150  # of the 255 that a file name may have


@dataclass(frozen=True, slots=True)
class Original:
    """What the user gave, read once.

    Attributes:
        name: The name of its file.
        medium: "speech" or "image".
        data: The file as it came, which is what the codec compresses.
        media: A .wav or .png of it, for the page.
        units: Its seconds of speech, or its pixels.
        raw_bytes: Its size uncompressed: 16 bits a sample, or 8 bits a channel of a pixel.
        reference: The signal that versions are scored against: (T,) float32 at 16 kHz, or
            (H, W, 3) uint8.
        shape: (samples, channels) at `rate`, or (height, width).
        rate: The sample rate of a recording; 0 for a picture.
        notices: Remarks that its reader made.
    """

    name: str
    medium: str
    data: bytes
    media: Path
    units: float
    raw_bytes: int
    reference: NDArray[Any]
    shape: tuple[int, int]
    rate: int
    notices: list[str]

    @property
    def description(self) -> str:
        """Describes it in one line."""
        if self.medium == "image":
            return f"{self.shape[1]} × {self.shape[0]} pixels, {len(self.data):,} bytes"
        channels = {1: "mono", 2: "stereo"}.get(self.shape[1], f"{self.shape[1]} channels")
        return f"{self.units:.1f} s, {self.rate / 1000:g} kHz {channels}, {len(self.data):,} bytes"


class InputReader:
    """Reads inputs and writes what the page shows of them."""

    def __init__(self, settings: Settings, files: TemporaryFiles) -> None:
        self._settings = settings
        self._files = files

    def open(self, path: str | Path | None, medium: str | None = None) -> Original:
        """Reads a recording or picture.

        Raises:
            MediaError: There is none, it cannot be read, is of the other medium, or is beyond the
                limits.
        """
        if not path:
            raise MediaError("nothing is chosen yet; choose an example or add a file of your own")
        path = Path(path)
        size = path.stat().st_size
        if size > self._settings.max_upload_bytes:
            limit = self._settings.max_upload_bytes >> 20
            raise MediaError(
                f"the file has {size / 2**20:.0f} MiB; at most {limit} MiB are taken here"
            )
        data = path.read_bytes()
        found = detect(data[:16])
        if data.startswith(MAGIC):
            raise MediaError("this is a compressed .bin already; open it in the Decode tab")
        if medium == "image" and found == "speech":
            raise MediaError(
                "this is no picture in a known format (PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF)"
            )
        if medium == "speech" and found == "image":
            raise MediaError("this is a picture; switch to Picture, or choose a recording")
        with collected_notices() as notices:
            if found == "image":
                return self._open_picture(path.name, data, notices)
            return self._open_recording(path.name, data, notices)

    def _open_picture(self, name: str, data: bytes, notices: list[str]) -> Original:
        try:
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                width, height = image.size
        except Exception:  # load_image knows what to say
            width = height = 0
        if width * height > self._settings.max_pixels:
            raise MediaError(
                f"the picture has {width} × {height} = {width * height:,} pixels; at most "
                f"{self._settings.max_pixels:,} are taken here: scale it down"
            )
        if max(width, height) > self._settings.max_width:  # it may lie on its side
            raise MediaError(
                f"the picture has {width} × {height} pixels; at most {self._settings.max_width:,} "
                "a side are taken "
                "here: cut it"
            )
        pixels = load_image(io.BytesIO(data), self._settings.max_pixels)
        media = self.save_picture(pixels, "original")
        height, width = pixels.shape[:2]
        return Original(
            name,
            "image",
            data,
            media,
            height * width,
            pixels.size,
            pixels,
            (height, width),
            0,
            list(notices),
        )

    def _open_recording(self, name: str, data: bytes, notices: list[str]) -> Original:
        reader = AudioReader(io.BytesIO(data))
        if reader.channels > MAX_CHANNELS:  # a block of theirs alone may not fit into memory
            raise MediaError(
                f"{reader.channels} channels; the format has {MAX_CHANNELS}: mix them first"
            )
        blocks, total = [], 0
        for block in reader.blocks():
            total += len(block)
            if total > self._settings.max_seconds * reader.sample_rate:
                raise MediaError(
                    f"the recording is longer than {self._settings.max_seconds:g} s, the most that "
                    "is taken here: "
                    "cut it, or use python -m codec.compress, which has no limit"
                )
            if total * reader.channels > self._settings.max_seconds * SAMPLES_PER_SECOND:
                raise MediaError(
                    f"{reader.channels} channels at {reader.sample_rate / 1000:g} kHz are too much "
                    "for this page: "
                    "mix it to stereo"
                )
            blocks.append(block)
        samples, rate = np.concatenate(blocks), reader.sample_rate
        if rate > SAMPLE_RATE:
            notices.append(f"recorded at {rate / 1000:g} kHz: the codec keeps sounds up to 8 kHz")
        if not samples.any():
            notices.append("the recording is silent: there is nothing to hear or to score")
        media = self.save_recording([samples], rate, samples.shape[1], "original")
        mono = at_speech_rate(samples, rate)
        raw = samples.size * 2
        return Original(
            name, "speech", data, media, total / rate, raw, mono, samples.shape, rate, list(notices)
        )

    def save_picture(self, pixels: NDArray[np.uint8], name: str) -> Path:
        path = self._files.folder() / f"{file_stem(name)}.png"
        with path.open("wb") as file:
            save_image(file, pixels)
        return path

    def save_recording(
        self, blocks: Sequence[Samples], rate: int, channels: int, name: str
    ) -> Path:
        path = self._files.folder() / f"{file_stem(name)}.wav"
        with path.open("w+b") as file:
            writer = AudioWriter(file, rate, channels)
            for block in blocks:
                writer.write(block)
            writer.close()
        return path


def file_stem(name: str) -> str:
    """Cuts a name so that endings can be added to it."""
    return name.encode()[:MAX_STEM_BYTES].decode(errors="ignore")


def at_speech_rate(samples: Samples, rate: int) -> Samples:
    """Turns (T, C) at any rate into what is scored: the channels' mean at 16 kHz, (T,)."""
    return resample(samples.mean(1, keepdims=True), rate, SAMPLE_RATE)[:, 0]


@contextmanager
def collected_notices() -> Iterator[list[str]]:
    """Collects the notices that codec logs in this thread, for the user to see."""
    notices: list[str] = []
    me = threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == me:
                notices.append(record.getMessage())

    log, handler = logging.getLogger("codec"), Collector(logging.WARNING)
    log.addHandler(handler)
    try:
        yield notices
    finally:
        log.removeHandler(handler)
