"""Varints, chunks, and a source of bytes that says where it ends too early."""

import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError

MAX_CHUNK_BYTES = 1 << 22  # the longest data chunk has 3 bytes per index and 6 more per stream
MAX_VARINT = (1 << 64) - 1
PIECE_BYTES = 1 << 16  # a declared length is read in pieces of this size
DAMAGED = "the file is damaged: copy it again"
CUT_SHORT = "it was cut short: copy it again"
Indices = NDArray[np.int64]


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, the top bit set on all bytes but the last."""
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"a varint must be in 0 to 2**64 - 1, not {value}")
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def checksum_of(indices: Indices, value: int = 0) -> int:
    """Continues the index checksum: CRC-32 of (A, G, n) indices as big-endian u32."""
    return zlib.crc32(indices.astype(">u4").tobytes(), value)


class Source:
    """Reads exactly what is asked for, and knows its offset in the file for the error messages.

    Args:
        file: A binary file, or the payload of a chunk wrapped into one.
        offset: Where in the file it starts.
        name: What it is, for messages.
        ending: What to say if it ends too early.
    """

    def __init__(
        self, file: BinaryIO, offset: int = 0, name: str = "file", ending: str = CUT_SHORT
    ) -> None:
        self.offset = offset
        self._file = file
        self._name = name
        self._ending = ending

    def take_up_to(self, length: int) -> bytes:
        """Reads `length` bytes, or fewer at the end; never allocates much more than there are."""
        data = bytearray()
        while len(data) < length and (
            piece := self._file.read(min(length - len(data), PIECE_BYTES))
        ):
            data += piece
        self.offset += len(data)
        return bytes(data)

    def take(self, length: int, what: str) -> bytes:
        """Reads exactly `length` bytes; `what` names them in the error."""
        data = self.take_up_to(length)
        if len(data) < length:
            raise BitstreamError(
                f"the {self._name} ends inside {what}; {self._ending}", self.offset
            )
        return data

    def varint(self, what: str) -> int:
        """Reads a varint, the one shortest form of a number below 2**64."""
        start, value = self.offset, 0
        for shift in range(0, 70, 7):
            octet = self.take(1, what)[0]
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value > MAX_VARINT or (octet == 0 and shift > 0):
                    break
                return value
        raise BitstreamError(f"{what} is not a valid varint; {DAMAGED}", start)

    def expect_end(self, what: str) -> None:
        """Refuses anything more."""
        offset = self.offset
        if self.take_up_to(1):
            raise BitstreamError(f"{what}; remove them or copy the file again", offset)


@dataclass(frozen=True, slots=True)
class Chunk:
    kind: int
    offset: int  # of the type byte
    payload: Source
