"""Recordings written block by block, 16 bits a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import soundfile

from codec.errors import MediaError, reason_of
from codec.media import ogg
from codec.media.kinds import Samples
from codec.media.wav import BLOCK, to_int16
from codec.medium import SPEECH

MAX_RIFF_BYTES = 2**32 - 2**16  # a WAV or AIFF says its size in 32 bits
MAX_VORBIS_HZ = 200_000  # libsndfile ends the process beyond it


class AudioWriter:
    """A recording written block by block, 16 bits a sample; format by file suffix.

    Raises:
        MediaError: A suffix, sample rate or channel count that cannot be written.
        OSError: The file cannot be written to; so do all methods.
    """

    def __init__(
        self, file: BinaryIO, sample_rate: int, channels: int, suffix: str = "wav"
    ) -> None:
        name = SPEECH.suffixes.get(suffix.lower())
        if name is None:
            raise MediaError(
                f"cannot write audio as .{suffix}; use one of {', '.join(sorted(SPEECH.suffixes))}"
            )
        if name == "OGG" and suffix.lower() != "opus" and sample_rate > MAX_VORBIS_HZ:
            raise MediaError(
                f"a .{suffix} holds at most {MAX_VORBIS_HZ} Hz, not {sample_rate}; write a .flac"
            )
        subtype = {"WAV": "PCM_16", "FLAC": "PCM_16", "AIFF": "PCM_16"}.get(name)
        if suffix.lower() == "opus":
            subtype = "OPUS"
        order = ogg.WAV_ORDER.get(channels) if name == "OGG" else None
        self._order = None if order is None else np.argsort(order)
        self._room = MAX_RIFF_BYTES if name in ("WAV", "AIFF") else None
        self._wide = name == "MP3"  # libsndfile makes noise of 16-bit integers of two channels
        self._target = _Target(file)
        with self._target.checked(f".{suffix} cannot hold {channels} channels at {sample_rate} Hz"):
            self._file = soundfile.SoundFile(
                self._target, "w", sample_rate, channels, subtype, format=name
            )

    def write(self, block: Samples) -> None:
        """Appends (n, C) float32 samples, rounded and clipped to 16 bits.

        Raises:
            MediaError: The recording outgrows the format.
        """
        values = to_int16(block)
        if self._order is not None:
            values = values.take(self._order, 1)
        if self._room is not None:
            self._room -= values.nbytes
            if self._room < 0:
                raise MediaError("the recording is above the 4 GiB of this format; write a .flac")
        with self._target.checked("cannot write the recording"):
            for start in range(0, len(values), BLOCK):
                piece = values[start : start + BLOCK]
                self._file.write(piece.astype(np.int32) << 16 if self._wide else piece)

    def close(self) -> None:
        """Completes the file."""
        with self._target.checked("cannot complete the recording"):
            self._file.close()


class _Target:
    """The file that libsndfile writes to.

    Its callbacks swallow every exception, a full disk or Ctrl-C: kept here.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    def write(self, data: bytes) -> int:
        return self._keep(self._file.write, data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._keep(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._keep(self._file.tell)

    def _keep(self, method: Callable[..., int], *arguments: Any) -> int:
        try:
            return method(*arguments)
        except BaseException as error:
            self._error = self._error or error
            return 0

    @contextmanager
    def checked(self, failure: str) -> Iterator[None]:
        """Raises what the file raised.

        In place of libsndfile's own errors, a MediaError of `failure` and the reason.
        """
        reason: Exception | None = None
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError, TypeError, ValueError) as error:
            # soundfile asserts, too.
            reason = error
        if self._error is not None:
            raise self._error
        if reason is not None:
            raise MediaError(f"{failure} ({reason_of(reason)})")
