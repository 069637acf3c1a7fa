"""Recordings read block by block, whatever they come in.

a plain .wav, from a file or a pipe ───────────────> WavReader ─┐
any other file ─survey─> parts ─┬─ libsndfile ─> SoundReader ───┼─> AudioReader ─> blocks
                                └─ or else PyAV ─> AvReader ────┘
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

import numpy as np
import soundfile

from codec.errors import MediaError, reason_of
from codec.media import boxes, chunks, flac, mpeg, ogg
from codec.media.kinds import HEAD_BYTES, Samples
from codec.media.pyav import AvReader
from codec.media.resampling import at_rate, resample, with_channels
from codec.media.survey import LEFT_OUT, Part, Survey, on_disk
from codec.media.wav import (
    BLOCK,
    MAX_BLOCK_VALUES,
    OtherWavError,
    WavReader,
    declared_samples,
    is_wav,
)
from codec.media.window import Window
from codec.medium import MAX_RATE_HZ, MIN_RATE_HZ

log = logging.getLogger("codec")

# What sizes, counts and names that are wrong lead a reader to.
MISREAD = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, struct.error)
LONGEST_BLOCK = 1 << 13  # samples of what ADPCM codes at once
UNKNOWN_FRAMES = 1 << 62  # libsndfile says more where a FLAC does not tell its length


class Reader(Protocol):
    """One recording of a file.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        cut: It was found to end too early; known once all blocks were taken.
    """

    sample_rate: int
    channels: int
    cut: bool

    def blocks(self) -> Iterator[Samples]: ...


class AudioReader:
    """A recording read block by block; recordings that follow in the same file are appended.

    What is cut short is read as far as it goes. That, and all that is left out, is said through the
    log.

    Args:
        file: A binary file at its start.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.

    Raises:
        MediaError: Not audio, no samples, or a sample rate outside 1..768 kHz.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._readers = _readers(file)
        self._first = next(self._readers)
        self._cut = False
        self.sample_rate, self.channels = self._first.sample_rate, self._first.channels
        if not MIN_RATE_HZ <= self.sample_rate <= MAX_RATE_HZ:
            raise MediaError(
                f"sample rate of {self.sample_rate} Hz; want {MIN_RATE_HZ}..{MAX_RATE_HZ}"
            )

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks in [-1, 1], n > 0, at most `BLOCK` where nothing is resampled.

        Raises:
            MediaError: NaN or infinite samples, or the file is damaged.
        """
        position, clipped = 0, False
        for block in self._joined():
            if not np.isfinite(block).all():
                where = position + int(np.argwhere(~np.isfinite(block))[0][0])
                raise MediaError(
                    f"sample {where} is not a number or infinite; repair the recording first"
                )
            position += len(block)
            if np.abs(block).max() > 1:  # floats only; 16 bits could not hold them on the way out
                if not clipped:
                    log.warning("samples beyond full scale: clipped")
                block, clipped = block.clip(-1, 1), True
            yield block
        if position == 0 and self._cut:
            raise MediaError("damaged recording: it breaks off before its first sample")
        if position == 0:
            raise MediaError("the recording has no samples")
        if self._cut:
            log.warning("the recording is cut short: coded as far as it goes")

    def _joined(self) -> Iterator[Samples]:
        """The blocks of all recordings of the file, like those of the first."""
        yield from self._first.blocks()
        self._cut, said = self._first.cut, False
        for reader in self._readers:
            rate, channels = reader.sample_rate, reader.channels
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                raise MediaError(f"sample rate of {rate} Hz; want {MIN_RATE_HZ}..{MAX_RATE_HZ}")
            if not said and (rate, channels) != (self.sample_rate, self.channels):
                said = True
                log.warning(
                    "recordings of different kinds in one file: "
                    "all are coded like the first, %g kHz, channels: %d",
                    self.sample_rate / 1000,
                    self.channels,
                )
            blocks = with_channels(reader.blocks(), self.channels)
            yield from at_rate(blocks, rate, self.sample_rate, self.channels)
            self._cut |= reader.cut


def streamed(pipe: BinaryIO, head: bytes) -> AudioReader | None:
    """A recording that can be read while it still comes in: a plain .wav.

    Of any other, None; some bytes are gone then.

    Args:
        head: The first bytes of what comes, which are still to be read.
    """
    try:
        return AudioReader(pipe) if is_wav(head) else None
    except OtherWavError:
        return None


class Recording:
    """A recording that is to be coded: all its channels, or their mean.

    Args:
        source: A binary file at its start, or a reader of one.
        mono: Mix the channels into one.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels that `blocks` have.

    Raises:
        MediaError: As for `AudioReader`.
    """

    def __init__(self, source: BinaryIO | AudioReader, mono: bool = False) -> None:
        self._reader = source if isinstance(source, AudioReader) else AudioReader(source)
        self._mono = mono
        self.sample_rate = self._reader.sample_rate
        self.channels = 1 if mono else self._reader.channels

    def describe(self, seconds: float) -> dict[str, Any]:
        """What a report says of its size; `seconds` of it were read."""
        return {"duration_s": seconds, "sample_rate": self.sample_rate, "channels": self.channels}

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 in [-1, 1]. Raises MediaError as `AudioReader.blocks` does."""
        for block in self._reader.blocks():
            yield block.mean(1, keepdims=True, dtype=np.float32) if self._mono else block


def load_audio(file: BinaryIO, sample_rate: int | None = None) -> tuple[Samples, int]:
    """A whole recording as (T, C) float32 and its rate in Hz.

    It is resampled to `sample_rate` where that is given.
    """
    reader = AudioReader(file)
    samples = np.concatenate(list(reader.blocks()))
    if sample_rate is None or sample_rate == reader.sample_rate:
        return samples, reader.sample_rate
    return resample(samples, reader.sample_rate, sample_rate), sample_rate


def _readers(file: BinaryIO) -> Iterator[Reader]:
    """All recordings of a file, each to be read before the next is asked for."""
    if not file.seekable():
        yield from _wav_readers(WavReader(file))
        return
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if is_wav(head):
        try:
            wav = WavReader(file)
        except OtherWavError:
            file.seek(0)
        else:
            yield from _wav_readers(wav)
            return
    window = Window(file)
    with _damage_told():
        found = _survey(window, head)
    said: set[str] = set()

    def say(notice: str) -> None:
        if notice not in said:
            said.add(notice)
            log.warning(notice)

    for notice in found.notices:
        say(notice)
    for number, part in enumerate(found.parts or [Part(((0, window.size),))]):
        with on_disk(file, part, window.size) as piece:
            try:
                with _damage_told():
                    reader = _reader(piece, found.cut, part.whole_end, say)
            except MediaError:
                if number == 0:
                    raise
                say(LEFT_OUT)
                continue
            yield reader
            while isinstance(reader, AvReader) and reader.following():
                yield reader


@contextmanager
def _damage_told() -> Iterator[None]:
    """Makes a MediaError of what the numbers in a damaged header lead to."""
    try:
        yield
    except MISREAD as error:
        raise MediaError(f"damaged recording ({reason_of(error)}); repair it first") from None


def _reader(
    file: BinaryIO, cut: bool, whole_end: bool | None, say: Callable[[str], None]
) -> SoundReader | AvReader:
    """A decoder that knows the file."""
    try:
        return SoundReader(file, cut, whole_end)
    except soundfile.LibsndfileError as error:
        # It moved the descriptor below the file's buffer, which only a look at the end empties.
        file.seek(0, os.SEEK_END)
        return AvReader(file, cut, reason_of(error), say)


def _wav_readers(wav: WavReader) -> Iterator[Reader]:
    yield wav
    while wav.following():
        yield wav


def _survey(window: Window, head: bytes) -> Survey:
    if head.startswith(ogg.MAGIC):
        return ogg.survey(window)
    if window.read(mpeg.tag_bytes(window, 0), 4) == flac.MAGIC:
        return flac.survey(window)
    if mpeg.is_mpeg(head):
        return mpeg.survey(window)
    return chunks.survey(window) or boxes.survey(window)


class SoundReader:
    """A file as libsndfile reads it.

    Args:
        file: A file on disk.
        cut: It is known to end too early.
        whole_end: See `Part`.

    Raises:
        soundfile.LibsndfileError: Not of a kind that it knows, or of one that it misreads: VOC,
            where it takes heads of blocks for sound; 8SVX of two channels, which lie behind one
            another, and which it takes for samples in turn.
    """

    def __init__(self, file: BinaryIO, cut: bool, whole_end: bool | None) -> None:
        declared = declared_samples(file)
        file.seek(0)
        self._order = ogg.wav_order(file.read(64))
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        # A descriptor of its own: libsndfile's callbacks to a Python file swallow every exception.
        descriptor = os.dup(file.fileno())
        try:
            self._file = _Sequential(descriptor)
        except TypeError as error:  # headerless: it asks for the format
            raise soundfile.LibsndfileError(1, f"{error}: ") from None
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        kind = self._file.format
        if kind == "VOC" or (kind == "SVX" and self.channels > 1):
            self._file.close()
            raise soundfile.LibsndfileError(1, f"{kind} of this kind is misread: ")
        self.cut, self._whole_end = cut, whole_end
        padded = self._file.format in ("WAV", "WAVEX") and "PCM_" not in self._file.subtype
        padding = self._file.frames - (declared or 0)  # of the last block
        self._end = declared if padded and declared and 0 <= padding < LONGEST_BLOCK else None

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks, n > 0. Raises MediaError if the file is damaged."""
        position = 0
        length = max(min(BLOCK, MAX_BLOCK_VALUES // self.channels), 1)
        while True:
            block = np.full((length, self.channels), np.nan, np.float32)
            failure = None
            try:
                count = len(self._file.read(out=block))
            except soundfile.LibsndfileError as error:
                failure, count = error, int((~np.isnan(block[:, 0])).sum())
            position += count
            kept = count if self._end is None else count - max(position - self._end, 0)
            if kept > 0:
                found = block[:kept]
                yield found if self._order is None else found.take(self._order, 1)
            if failure is not None or count < length:
                break
        frames = self._file.frames
        self._file.close()
        if failure is None and self._whole_end is None:
            return
        complete = (
            position >= frames
            if frames < UNKNOWN_FRAMES
            else failure is None and self._whole_end is True
        )
        if failure is not None and not complete and not self.cut and self._whole_end is not False:
            raise MediaError(
                f"damaged recording after {position} samples ({reason_of(failure)}); "
                "repair it first"
            )
        self.cut |= not complete


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """Reads from front to back, which asks for neither lengths nor places.

    A FLAC from a pipe knows none.
    """

    def seekable(self) -> bool:
        return False
