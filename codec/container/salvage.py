"""What is left of a damaged file: every data chunk whose CRC-32 still matches, in its place.

    magic | H | D | D | ## | D | E
                     └ lost: its positions are known from E and from the other chunks

A `Salvage` stands in for a `Reader`: it hands out all positions of the file, the lost ones as
repeats of the last good index, and says in `gaps` which those are, so that they can be silenced or
greyed after decoding. What layers add to it is the matter of `codec.layers.refine`.
"""

from __future__ import annotations

import io
import zlib
from bisect import insort
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.container.chunks import MAX_CHUNK_BYTES, Indices, Source, checksum_of
from codec.container.header import LAYERED, Header
from codec.container.limits import DEFAULT_LIMITS, Budget, Limits
from codec.container.payloads import End, decode_data, parse_data, parse_end
from codec.container.pieces import Piece, fill, without_repeat
from codec.container.reader import Reader
from codec.entropy import NO_TABLES, Tables
from codec.errors import BitstreamError

MAX_FILE_BYTES = 1 << 30
MAX_END_BYTES = 24  # of an end chunk's payload: two numbers and a checksum
# How often a byte may be checked, on average: of a sound file once, of a damaged one twice and a
# little. Only what is forged to look like many long chunks asks for more.
CHECKS = 8
MAX_STREAMS = 1 << 20  # encoded ones, all chunks together: a day of speech in stereo has 14400
# Positions, and (A, G, n) indices where they are not lost.
Chunk = tuple[int, NDArray[np.unsignedinteger] | None]


class Salvage:
    """Reads what a damaged file still holds, in memory.

    Args:
        file: A binary file open for reading.
        limits: Refuse anything larger.
        num_positions: Positions of the whole file where they are known from elsewhere, as a
            picture's are; or None.

    Attributes:
        header: The header, which must be sound.
        gaps: Positions that are lost, as (first, one after the last), in order.
        complete: Whether nothing of the base is missing, as far as can be told without decoding.
        behind: What follows the end chunk, where there may be layers; None if that is lost.
        seal: The end chunk's CRC-32.

    Raises:
        BitstreamError: The header is damaged, or the file exceeds the limits.
    """

    finished = True

    def __init__(
        self, file: BinaryIO, limits: Limits = DEFAULT_LIMITS, num_positions: int | None = None
    ) -> None:
        content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise BitstreamError(f"only files up to {MAX_FILE_BYTES} bytes can be recovered")
        reader = Reader(io.BytesIO(content), limits)
        self.header, self.version = reader.header, reader.version
        self.budget = Budget(limits, self.header)
        self._end: End | None = None
        self.behind: Source | None = None
        self.seal = b""
        self._refined: list[Chunk] | None = None
        self._checks = CHECKS * len(content)
        pieces, damaged = self._walk(content, reader.offset)
        known = (
            num_positions if num_positions is not None else self._end and self._end.num_positions
        )
        if known is not None and not damaged:
            pieces = without_repeat(pieces, known)
        self._pieces = fill(pieces, known)
        self.num_positions = sum(piece.count for piece in self._pieces)
        most = self.budget.most_positions
        if self.num_positions > most:
            raise BitstreamError(
                f"the file claims {self.num_positions} positions, over the limit of {most}"
            )
        self.budget.spend_positions(self.num_positions)
        self.num_samples = 0 if self._end is None else self._end.num_samples
        self.complete = not damaged and self._end is not None
        self.gaps: list[tuple[int, int]] = []
        start = 0
        for piece in self._pieces:
            if piece.data is None and piece.count:
                self.gaps.append((start, start + piece.count))
            start += piece.count

    def foresee(self) -> End | None:
        """What the end chunk declares; None where it is lost."""
        return self._end

    @property
    def length_known(self) -> bool:
        """Whether the end chunk, with the length of a recording, survived."""
        return self._end is not None

    def in_chunks(self, tables: Tables) -> list[Chunk]:
        """Every data chunk that the file had.

        What is lost is cut as it says it was, or else into chunks of the usual length: encoders
        write chunks of equal length, but for the last.

        Args:
            tables: The model's.
        """
        kind = np.uint16 if self.header.num_codes <= 1 << 16 else np.uint32
        usual = Counter(piece.count for piece in self._pieces if piece.data).most_common(1)
        found: list[Chunk] = []
        for piece, (_, indices) in zip(self._pieces, self._decoded(tables), strict=True):
            if indices is not None:
                found.append((piece.count, indices.astype(kind)))
                continue
            step = usual[0][0] if usual and piece.data is None else max(piece.count, 1)
            parts = piece.parts or [
                min(step, piece.count - at) for at in range(0, piece.count, step)
            ]
            found += [(part, None) for part in parts]
        return found

    def go_on_with(self, header: Header, chunks: list[Chunk]) -> None:
        """Hands out these chunks from now on, of another codebook.

        They take the place of those that `in_chunks` gave.
        """
        self.header, self._refined = header, chunks

    def chunks(self, tables: Tables = NO_TABLES) -> Iterator[Indices]:
        """All positions in order, (A, G, n) int64.

        A chunk that passes its CRC-32 but not its coder joins the gaps.

        Args:
            tables: The model's; after `go_on_with` they are not needed.

        Raises:
            BitstreamError: Nothing is missing, and yet the index checksum does not match.
        """
        header, checksum = self.header, 0
        last: Indices = np.zeros((header.num_streams, header.num_codebooks, 1), np.int64)
        for count, found in self._decoded(tables) if self._refined is None else self._refined:
            indices = None if found is None else found.astype(np.int64)
            for at in range(0, count, header.max_chunk_positions):
                some = min(header.max_chunk_positions, count - at)
                yield np.repeat(last, some, 2) if indices is None else indices[:, :, at : at + some]
            if indices is not None:
                last, checksum = indices[:, :, -1:], checksum_of(indices, checksum)
        whole = self.complete and not self.gaps and self._refined is None
        if whole and self._end is not None and checksum != self._end.index_checksum:
            raise BitstreamError(
                "every chunk is whole, but the index checksum does not match: "
                "chunks are out of order, or the model is not the encoder's",
                self._end.offset,
            )

    def _decoded(self, tables: Tables) -> Iterator[tuple[int, Indices | None]]:
        """Positions and indices of every piece of the base.

        None stands for a piece that is lost or turns out to be.
        """
        start = 0
        for piece in self._pieces:
            indices = None
            if piece.data is not None:
                try:
                    indices = decode_data(piece.data, self.header, tables)
                except BitstreamError:
                    insort(self.gaps, (start, start + piece.count))
            yield piece.count, indices
            start += piece.count

    def _walk(self, content: bytes, at: int) -> tuple[list[Piece], bool]:
        """Data chunks and damaged stretches in order.

        Also whether there are any of these or no end chunk.
        """
        pieces: list[Piece] = []
        damaged, num_streams = False, 0
        while at < len(content) and self._end is None:
            found = self._chunk_at(content, at)
            if found is None:
                damaged = True
                begin, at = at, at + 1
                while at < len(content) and (
                    content[at] not in b"DE" or self._chunk_at(content, at) is None
                ):
                    at += 1
                stretch = content[begin:at]
                if at == len(content) and self.version[1] >= LAYERED:
                    stretch = _without_layers(stretch)
                parts = _claimed(stretch, self.header)
                pieces.append(Piece(sum(parts), None, len(stretch), parts))
                continue
            kind, start, payload, at = found
            num_streams += self.header.num_streams
            if num_streams > MAX_STREAMS:
                raise BitstreamError(
                    f"only files of up to {MAX_STREAMS} encoded streams can be recovered", start
                )
            source = Source(io.BytesIO(payload), start, "chunk")
            try:
                if kind == ord("D"):
                    data = parse_data(source, start, self.header)
                    pieces.append(Piece(data.count, data))
                elif kind == ord("E"):
                    self._end = parse_end(source, start)
                    self.behind = Source(io.BytesIO(content[at:]), at)
                    self.seal = content[at - 4 : at]
            except BitstreamError:
                damaged = True
                pieces.append(Piece(0, None, len(payload)))
        return pieces, damaged or self._end is None

    def _chunk_at(self, content: bytes, at: int) -> tuple[int, int, bytes, int] | None:
        """The chunk that begins at a byte, if one does.

        Returns its type, where its payload starts, the payload, and where it ends.
        """
        kind = content[at]
        try:
            length, start = _varint(content, at + 1)
            stop = start + length
            if (
                not (chr(kind).isalpha() and kind <= 127)
                or length > (MAX_END_BYTES if kind == ord("E") else MAX_CHUNK_BYTES)
                or stop + 4 > len(content)
                or (kind == ord("D") and not _is_filled(content, start, stop, self.header))
                or stop - at > self._checks
            ):
                return None
        except BitstreamError:
            return None
        self._checks -= stop - at
        if zlib.crc32(content[at:stop]) != int.from_bytes(content[stop : stop + 4], "big"):
            return None
        return kind, start, content[start:stop], stop + 4


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises BitstreamError where there is none."""
    source = Source(io.BytesIO(content[at : at + 10]), at)
    return source.varint("a number"), source.offset


def _is_filled(content: bytes, start: int, stop: int, header: Header) -> bool:
    """Whether a data chunk's payload is as long as its streams say together.

    Those of all sound chunks are; of bytes that only look like a chunk next to none.
    """
    count, at = _varint(content, start)
    for _ in range(header.num_streams):
        length, at = _varint(content, at)
        at += length
        if at > stop:
            break
    return at == stop and 1 <= count <= header.max_chunk_positions


def _claimed(stretch: bytes, header: Header) -> tuple[int, ...]:
    """The positions that each chunk of a damaged stretch says it holds.

    None where they do not fill it exactly.

    A flipped byte is most often in a payload, and leaves types, lengths and counts as they were.
    """
    at, parts = 0, []
    while at < len(stretch):
        try:
            length, start = _varint(stretch, at + 1)
            stop, count = start + length + 4, _varint(stretch, start)[0]
        except BitstreamError:
            return ()
        if (
            stretch[at] != ord("D")
            or stop > len(stretch)
            or not 1 <= count <= header.max_chunk_positions
        ):
            return ()
        at = stop
        parts.append(count)
    return tuple(parts)


def _without_layers(stretch: bytes) -> bytes:
    """The data chunks at the beginning of a stretch that is the rest of a file.

    Its end chunk and layers are included.

    All of it, if the first of them is cut short: then the file is.
    """
    at = 0
    while at < len(stretch) and stretch[at] == ord("D"):
        try:
            length, start = _varint(stretch, at + 1)
        except BitstreamError:
            break
        stop = start + length + 4
        if stop > len(stretch):
            return stretch
        at = stop
    return stretch[:at]
