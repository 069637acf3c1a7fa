"""The bytes of layers: reading them undecoded, and cutting a file behind one."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from codec.arguments import whole
from codec.container import (
    FIRST_CHUNK,
    LAYERED,
    MAGIC,
    NO_LIMITS,
    Header,
    Indices,
    Reader,
    Source,
    Summary,
    checksum_of,
    scan_with_counts,
)
from codec.entropy import MAX_CODES, refinement
from codec.errors import BitstreamError

# Of an index checksum: bytes are proved by a CRC-32, a coder's tables mostly by where its payload
# ends.
CHECK_BITS = 8
MOST_CHILDREN = 1 << 16


@dataclass(frozen=True, slots=True)
class Piece:
    """A layer's part of one data chunk, undecoded.

    It has the streams' bytes, and the check of their indices.
    """

    offset: int
    check: int
    streams: list[bytes]


@dataclass(frozen=True, slots=True)
class Layer:
    """One refinement.

    Args:
        codebook_size: The K that it refines to.
        num_codes: The real number of codes there.
        pieces: One for each data chunk.
        stop: Offset in the file behind its last byte.
        num_bytes: Of it in the file, container included.
    """

    codebook_size: int
    num_codes: int
    pieces: list[Piece]
    stop: int
    num_bytes: int

    @property
    def payload_bytes(self) -> int:
        """Encoded indices alone."""
        return sum(len(stream) for piece in self.pieces for stream in piece.streams)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file with layers holds, as far as its bytes tell.

    Args:
        summary: Of the base alone.
        layers: Those that are whole, coarsest first.
        damage: Why there are no more, or None where the file ends behind a layer.
    """

    summary: Summary
    layers: list[Layer]
    damage: BitstreamError | None

    @property
    def stops(self) -> dict[int, int]:
        """Codebook size -> bytes of the file up to and with its layer, coarsest first."""
        base = {self.summary.header.codebook_size: self.summary.file_bytes}
        return base | {layer.codebook_size: layer.stop for layer in self.layers}


def check_of(indices: Indices) -> int:
    """What a piece of a layer says of its indices, (A, 1, n): the lowest bits of their CRC-32."""
    return checksum_of(indices) & (1 << CHECK_BITS) - 1


def survey(file: BinaryIO) -> Survey:
    """Reads a whole file without its model, with or without layers.

    Raises:
        BitstreamError: As for `codec.container.scan`: of the base. What is wrong with layers is in
            `damage`.
    """
    reader = Reader(file, NO_LIMITS)
    summary, counts = scan_with_counts(reader)
    if reader.version[1] < LAYERED:
        return Survey(summary, [], None)
    return Survey(summary, *read_layers(reader.source, reader.seal, reader.header, counts))


def cut(data: bytes, found: Survey, codebook_size: int) -> bytes:
    """Cuts a file behind a layer.

    The bytes that stay are what they were, but for the version of a file without layers.

    Args:
        data: A file.
        found: Its survey.
        codebook_size: The K of its last layer then.

    Raises:
        ValueError: The file has no such layer.
        BitstreamError: That layer is damaged.
    """
    codebook_size = whole(codebook_size, "a codebook size")
    stops = found.stops
    if codebook_size not in stops:
        if found.damage is not None and codebook_size > max(stops):
            raise found.damage
        raise ValueError(
            f"the file has no layer K = {codebook_size}; choose from {', '.join(map(str, stops))}"
        )
    shorter = data[: stops[codebook_size]]
    if codebook_size == found.summary.header.codebook_size and found.summary.version[1] == LAYERED:
        # Which a reader of 1.1 takes.
        return shorter[: FIRST_CHUNK - 1] + bytes([LAYERED - 1]) + shorter[FIRST_CHUNK:]
    return shorter


def read_layers(
    behind: Source, seal: bytes, header: Header, counts: list[int]
) -> tuple[list[Layer], BitstreamError | None]:
    """Reads what follows the end chunk, undecoded.

    Args:
        behind: A file, where the end chunk ends.
        seal: The end chunk's CRC-32.
        header: Of the base.
        counts: The positions of each data chunk.

    Returns:
        The layers that are whole, and why there are no more, or None where the file ends there.
    """
    source = _Tape(behind)
    layers: list[Layer] = []
    size, num_codes = header.codebook_size, header.num_codes
    while counts:
        start, pieces = source.offset, list[Piece]()
        try:
            children = source.varint("the number of children")
            if not 2 <= children <= MOST_CHILDREN:
                raise BitstreamError(
                    f"a layer declares {children} children of a code, not 2 to {MOST_CHILDREN}",
                    start,
                )
            if header.num_codebooks > 1:
                raise BitstreamError(
                    f"layers of {header.num_codebooks} codebooks are none of this version", start
                )
            if max(size, num_codes) * children > MAX_CODES:
                raise BitstreamError(f"a layer has more than {MAX_CODES} codes", start)
            for count in counts:
                piece, seal = _read_piece(
                    source, seal, refinement.longest(count, children), header.num_streams
                )
                pieces.append(piece)
        except BitstreamError as error:
            if source.offset == start:
                return layers, None
            other = "another file follows, which is no layer of this one"
            return layers, BitstreamError(other, start) if source.begins(MAGIC) else error
        size, num_codes = size * children, num_codes * children
        layers.append(Layer(size, num_codes, pieces, source.offset, source.offset - start))
    return layers, None


class _Tape(Source):
    """Reads on where another source is, and remembers what was read since the last CRC-32."""

    def __init__(self, source: Source) -> None:
        super().__init__(io.BytesIO(), source.offset)
        self._source = source
        self._read = bytearray()

    def take_up_to(self, length: int) -> bytes:
        data = self._source.take_up_to(length)
        self.offset = self._source.offset
        self._read += data
        return data

    def begins(self, name: bytes) -> bool:
        """Whether what was read since the last CRC-32, or comes then, begins so."""
        self.take_up_to(len(name) - len(self._read))
        return self._read.startswith(name)

    def seal(self, before: bytes) -> bytes:
        """The CRC-32 of another one's bytes and of all that was read since.

        The next begins here.
        """
        seal = zlib.crc32(before + self._read).to_bytes(4, "big")
        self._read.clear()
        return seal


def _read_piece(source: _Tape, seal: bytes, longest: int, num_streams: int) -> tuple[Piece, bytes]:
    """The next piece of a layer and its CRC-32, which holds for that before it, too.

    Args:
        source: It has the bytes since the last CRC-32.
        seal: That CRC-32.
        longest: Bytes of a stream in fixed width.
        num_streams: A.
    """
    at, lengths = source.offset, []
    for _ in range(num_streams):
        saved = source.varint("the length of a refinement")
        if saved > longest:
            raise BitstreamError(
                f"a refinement is {saved} bytes shorter than the {longest} of fixed width", at
            )
        lengths.append(longest - saved)
    check = source.take(1, "the check of the indices")[0]
    streams = [source.take(length, "a refinement") for length in lengths]
    wanted = source.seal(seal)
    found = source.take(4, "the CRC-32 of a layer")
    source.seal(found)
    if found != wanted:
        raise BitstreamError(
            "the CRC-32 of a layer does not match; the file is damaged: copy it again", at
        )
    return Piece(at, check, streams), found
