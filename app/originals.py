"""The original that versions are compared with.

It is a recording or a picture, read once, within the limits.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.media import KINDS, Signal
from app.store import Settings, TemporaryFiles
from codec.container import MAGIC
from codec.errors import MediaError
from codec.media import detect
from codec.medium import MEDIA
from eval.signals import SIGNALS


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
        signal: What classic codecs take: (n, 1) float32 at 16 kHz, or (H, W, 3) uint8.
        streams: The channels of a recording, each of which a model codes; 1 for a picture.
        description: It, in one line.
        notices: Remarks that its reader made.
    """

    name: str
    medium: str
    data: bytes
    media: Path
    units: float
    raw_bytes: int
    signal: Signal
    streams: int
    description: str
    notices: list[str]

    @property
    def reference(self) -> Signal:
        """The signal that versions are scored against: (T,) at 16 kHz, or (H, W, 3)."""
        return SIGNALS[self.medium].compared(self.signal)

    @property
    def digest(self) -> str:
        return digest(self.data)


def digest(data: bytes) -> str:
    """Returns what tells an input, a file as it came, from others."""
    return hashlib.sha256(data).hexdigest()[:16]


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
        found = MEDIA[detect(data[:16])]
        if data.startswith(MAGIC):
            raise MediaError("this is a compressed .bin already; open it in the Decode tab")
        if medium not in (None, found.name):
            raise MediaError(KINDS[found.name].mistaken)
        with collected_notices() as notices:
            opened = KINDS[found.name].open(data, self._settings)
        return Original(
            name=path.name,
            medium=found.name,
            data=data,
            media=self._files.save(found, opened.size, opened.blocks, "original"),
            units=found.units(opened.size, sum(map(len, opened.blocks))),
            raw_bytes=found.value_bytes * sum(block.size for block in opened.blocks),
            signal=opened.signal,
            streams=opened.size.channels if found.timed else 1,
            description=f"{opened.description}, {len(data):,} bytes",
            notices=[*notices, *opened.notices],
        )


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
