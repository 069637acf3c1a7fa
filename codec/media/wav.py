"""WAV, read and written as it comes.

Through a pipe nobody can seek, and headers written ahead of the sound lie.

What the header says of sizes is taken so: the size of the whole file is ignored; a size of the
sound that stands for "not known" (0, or near 2**31 or 2**32, as programs write into pipes) means
all there is; any other is believed, and a file that ends before it is cut short. Several WAV files
in a row, as `cat` makes them, are read one after the other.

Format: Microsoft, Multiple Channel Audio Data and WAVE Files; EBU Tech 3306 (RF64); ITU-R BS.2088
(BW64).
"""

from __future__ import annotations

import logging
import os
import struct
import uuid
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import MediaError
from codec.media.kinds import Samples
from codec.media.survey import LEFT_OUT

log = logging.getLogger("codec")

BLOCK = 1 << 16  # samples per channel read at a time
MAX_BLOCK_VALUES = 1 << 22  # and of all channels
PROBE = 4096  # bytes of sound that are looked at before they are read
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
FORMS = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}  # and the order of their bytes
# What may lie behind the sound: it ends a sound of unknown size, if it comes where the placeholder
# says.
CHUNK_NAMES = (
    b"LIST fact bext ID3  id3  cue  PEAK smpl inst iXML "
    b"axml chna JUNK junk PAD  FLLR afsp cart acid _PMX"
)
KNOWN_CHUNKS = frozenset(CHUNK_NAMES[i : i + 4] for i in range(0, len(CHUNK_NAMES), 5))
EXTENSIBLE_GUID = uuid.UUID("00000000-0000-0010-8000-00aa00389b71").bytes_le[2:]  # behind the tag


class OtherWavError(Exception):
    """A WAV that this module does not decode: A-law, ADPCM and the like."""


def is_wav(head: bytes) -> bool:
    """Whether a file begins so."""
    return head[:4] in FORMS and head[8:12] == b"WAVE"


def is_placeholder(size: int) -> bool:
    """Whether a size in a header stands for one that was not known when it was written."""
    return (
        size == 0
        or 0x7EFFFE00 <= size <= 0x7F000000  # SoX, of an AIFF: as many whole samples as fit
        or 0x7FFF0000 <= size <= 0x80000100
        or 0xFFFF0000 <= size <= 0xFFFFFFFF
        or size >= 1 << 62
    )


def declared_samples(file: BinaryIO) -> int | None:
    """How many samples per channel a WAV has, as its chunk "fact" says; None without one.

    Of codings in blocks, the last block may have more than these.
    """
    file.seek(0)
    head = file.read(12)
    name, size = b"", 0
    while is_wav(head) and name != b"data":
        file.seek(size + size % 2, os.SEEK_CUR)
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        order = FORMS[head[:4]]
        name, size = chunk[:4], struct.unpack(f"{order}I", chunk[4:])[0]
        if name == b"fact" and size >= 4:
            count = file.read(4)
            return int(struct.unpack(f"{order}I", count)[0]) if len(count) == 4 else None
    return None


class WavReader:
    """One recording of a stream, block by block.

    Args:
        file: A binary file at its first byte; it need not seek.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        cut: It was found to end too early.

    Raises:
        OtherWavError: Not PCM or floats.
        MediaError: The header is damaged or there is no sound behind it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._stream, self.cut = _Stream(file), False
        self._open()

    def _open(self) -> None:
        head = self._stream.take(12)
        if not is_wav(head):
            raise MediaError("damaged recording (no WAV header); repair it first")
        self._order = FORMS[head[:4]]
        self._format, self._size = b"", 0
        long_size = None
        while True:
            name, size = self._chunk()
            if name == b"data":
                break
            if name == b"fmt ":
                self._format = self._stream.take(min(size, 64))
                self._stream.skip(size - len(self._format))
            elif name == b"ds64":
                long_size = struct.unpack(
                    "<8xQ", self._stream.take(min(size, 16)).ljust(16, b"\xff")
                )[0]
                self._stream.skip(size - 16)
            else:
                self._stream.skip(size)
            self._stream.pad(size)
        self._size = long_size if long_size is not None and size == 0xFFFFFFFF else size
        self._read_format()

    def _chunk(self) -> tuple[bytes, int]:
        head = self._stream.take(8)
        if len(head) < 8:
            raise MediaError(
                "not a recording in a known format: this .wav breaks off before its sound begins"
            )
        return head[:4], struct.unpack(f"{self._order}I", head[4:])[0]

    def _read_format(self) -> None:
        if len(self._format) < 16:
            raise MediaError(
                "damaged recording (its header does not say the format); repair it first"
            )
        fields = struct.unpack(f"{self._order}HHIIHH", self._format[:16])
        tag, self.channels, self.sample_rate, _, align, bits = fields
        if tag == EXTENSIBLE and len(self._format) >= 40 and self._format[26:40] == EXTENSIBLE_GUID:
            tag = struct.unpack(f"{self._order}H", self._format[24:26])[0]
        width = -(-bits // 8)
        if tag not in (PCM, FLOAT) or width not in ((2, 4, 8) if tag == FLOAT else (1, 2, 3, 4, 8)):
            raise OtherWavError
        if self.channels == 0:
            raise MediaError("damaged recording (it has no channels); repair its header first")
        held = align // self.channels if align % self.channels == 0 else width
        container = tag == PCM and 1 < width < held == 4
        self._samples = _Samples(
            tag == FLOAT, width, self._order, self._stream.peek(PROBE) if container else None
        )

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks, n > 0, at most `BLOCK`.

        Floats as they are, integers in [-1, 1).
        """
        frame = self._samples.width * self.channels
        most = max(min(BLOCK, MAX_BLOCK_VALUES // self.channels), 1) * frame
        unknown, taken = is_placeholder(self._size), 0
        while True:
            want = min(most, self._size - taken) if not unknown or self._size >= taken else most
            if want == 0:
                if not unknown or self._stream.peek(4) in KNOWN_CHUNKS or self._next_begins():
                    break
                want = most
            data = self._stream.take(want)
            taken += len(data)
            rest = data[len(data) - len(data) % frame :]
            if len(data) > len(rest):
                yield self._samples.decode(data[: len(data) - len(rest)]).reshape(-1, self.channels)
            if len(data) < want:
                if not unknown or rest not in (b"", b"\0"):
                    self.cut = True
                break
        self._stream.pad(taken)

    def _next_begins(self) -> bool:
        return is_wav(self._stream.peek(12))

    def following(self) -> bool:
        """Goes on to the next recording in the stream, where there is one.

        For when all blocks were taken.
        """
        while True:
            if self._next_begins():
                self._open()
                return True
            name = self._stream.peek(4)
            head = self._stream.take(8)
            if len(head) < 8:
                return False
            if not name.isascii() or not name.decode("ascii").isprintable():
                rest = head.strip(b"\0")
                while not rest and (piece := self._stream.take(1 << 16)):
                    rest = piece.strip(b"\0")
                if rest:
                    log.warning(LEFT_OUT)
                self._stream.drain()
                return False
            size = struct.unpack(f"{self._order}I", head[4:])[0]
            if name == b"data" and size:
                self._size = size
                return True
            self._stream.skip(size)
            self._stream.pad(size)


class _Stream:
    """A file read from front to back, a few bytes ahead where they decide how to go on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead = b""

    def take(self, size: int) -> bytes:
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        while len(data) < size and (piece := self._file.read(size - len(data))):
            data += piece
        return data

    def peek(self, size: int) -> bytes:
        self._ahead = self.take(max(size, len(self._ahead)))
        return self._ahead[:size]

    def skip(self, size: int) -> None:
        while size > 0 and (piece := self.take(min(size, 1 << 16))):
            size -= len(piece)

    def drain(self) -> None:
        while self.take(1 << 16):
            pass

    def pad(self, size: int) -> None:
        """Chunks have even lengths; a program that forgot it shows by the name of the next one."""
        if size % 2 and not (self.peek(5)[:1].isalpha() and self.peek(5)[:4].isalnum()):
            self.take(1)


class _Samples:
    """Bytes of a WAV as floats.

    Args:
        floats: Rather than integers.
        width: Bytes of a sample.
        order: "<" or ">".
        probe: The first of the sound, if the header claims containers of four bytes, wider than the
            samples need. These lie at the containers' upper end or at their lower one, or there are
            no containers: no header tells which.

    Attributes:
        width: Bytes from one sample to the next.
    """

    def __init__(self, floats: bool, width: int, order: str, probe: bytes | None) -> None:
        self._floats, self._order, self._bits, self._shift = floats, order, 8 * width, 0
        self._undecided, self.width = False, width
        if probe is not None and not (width == 2 and self._place(probe) is None):
            self._undecided, self.width = True, 4

    def decode(self, data: bytes) -> Samples:
        """(n,) of the bytes of n samples."""
        if self._floats:
            with np.errstate(over="ignore"):  # what is too large for a float32 is infinite
                return np.frombuffer(data, f"{self._order}f{self.width}").astype(np.float32)
        if self.width == 1:
            return np.asarray(np.frombuffer(data, np.uint8) / 128 - 1, np.float32)
        if self.width == 3:
            octets = np.frombuffer(data, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(octets), 4), np.uint8)
            wide[:, 1:] = octets if self._order == "<" else octets[:, ::-1]
            return np.asarray(wide.view("<i4")[:, 0] / 2**31, np.float32)
        values: NDArray[np.integer] = np.frombuffer(data, f"{self._order}i{self.width}")
        if self.width == 2:
            return np.asarray(values.astype(np.float32) / np.float32(2**15))
        if self._undecided and values.any():
            self._shift, self._undecided = self._place(data) or 0, False
        scaled = (values << self._shift if self._shift else values) / 2.0 ** (8 * self.width - 1)
        return np.asarray(scaled, np.float32)

    def _place(self, data: bytes) -> int | None:
        """By how many bits samples have to move up in their containers.

        None if these do not look like containers.

        Of samples that might lie at either end, all quiet, it is the upper one, which the
        definition asks for.
        """
        values = np.frombuffer(data[: len(data) // 4 * 4], f"{self._order}i4")
        if not (values & ((1 << 32 - self._bits) - 1)).any():
            return 0
        return 32 - self._bits if np.isin(values >> self._bits, (0, -1)).all() else None


class WavStream:
    """A 16-bit .wav written to a pipe as it is made, with the interface of `AudioWriter`.

    The header comes first, so it cannot know the length: the sizes are the largest, as other tools
    write them.
    """

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int) -> None:
        self._file = file
        frame = 2 * channels
        form = struct.pack(
            "<4sIHHIIHH", b"fmt ", 16, PCM, channels, sample_rate, sample_rate * frame, frame, 16
        )
        unknown = b"\xff\xff\xff\xff"
        file.write(b"RIFF" + unknown + b"WAVE" + form + b"data" + unknown)

    def write(self, block: Samples) -> None:
        """Appends (n, C) float32 samples, rounded and clipped to 16 bits."""
        self._file.write(to_int16(block).astype("<i2").tobytes())
        self._file.flush()

    def close(self) -> None:
        """Nothing is left to be written."""


def to_int16(block: Samples) -> NDArray[np.int16]:
    """The inverse of reading, bit for bit."""
    return (block * 32768).round().clip(-32768, 32767).astype(np.int16)
