"""Layers: a file that can be cut to a coarser codebook.

It holds its indices at a coarse codebook first, then what refines them.

    magic | 1.2 | H | D | D | E | M P P | M P P | M P P       two chunks of data, three refinements
                  └ base, K = 256 ┘  1024    4096    16384

Up to and with `E` this is a file of the base alone. Every layer after it has a piece for each data
chunk, with the same positions: 6 bytes and what it holds, since the layer says once what all have
in common, and a piece only by how much it is shorter than fixed width. The CRC-32 of a piece begins
with that of the piece before it, so each proves all that it stands on. Cutting such a file anywhere
behind a layer leaves a file, and no model is needed for that. Where the last layers are damaged or
cut in the middle, those below them decode.

    indices at the finest K ──LayerWriter──> file
    file ──Reader, Layered──> indices at the finest whole layer, or a coarser
         └──survey──> Survey ──cut──> file up to a layer

Shapes: A streams of indices, n positions of a chunk; one codebook. M children of a code in the next
finer codebook.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from codec.arguments import whole
from codec.container import (
    FIRST_CHUNK,
    LAYERED,
    MAGIC,
    NO_LIMITS,
    End,
    Header,
    Indices,
    Reader,
    Salvage,
    Source,
    Summary,
    Writer,
    checksum_of,
    scan_with_counts,
    varint,
)
from codec.entropy import MAX_CODES, NO_TABLES, Tables, refinement
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


def ladder(tables: Mapping[int, Tables], codebook_size: int) -> list[int]:
    """The codebook sizes that a file with layers has, coarsest first, `codebook_size` last.

    Alone if it refines none.

    Args:
        tables: Of a model, by codebook size.
        codebook_size: One of them.
    """
    sizes = [codebook_size]
    while True:
        layer = tables.get(sizes[0], NO_TABLES).layer
        below = 0 if layer is None else sizes[0] // layer.num_refined
        if layer is None or below * layer.num_refined != sizes[0] or below not in tables:
            return sizes
        sizes.insert(0, below)


class LayerWriter:
    """Writes a file with layers; used as `Writer` is.

    The refinements follow at the end: 2 bytes a position wait there.

    Args:
        file: As for `Writer`.
        header: Of the finest codebook.
        tables: The model's, by codebook size.

    Attributes:
        total_bytes: Bytes written so far.
        payload_bytes: Those of them that are encoded indices.

    Raises:
        ValueError: The codebook size refines no other of this model.
    """

    def __init__(self, file: BinaryIO, header: Header, tables: Mapping[int, Tables]) -> None:
        sizes = ladder(tables, header.codebook_size)
        if len(sizes) < 2 or header.num_codebooks != 1:
            raise ValueError(f"K = {header.codebook_size} refines no other codebook of this model")
        self._layers = [layer for size in sizes[1:] if (layer := tables[size].layer) is not None]
        self._header = header
        base = replace(
            header,
            codebook_size=sizes[0],
            num_codes=header.num_codes // prod(p.num_refined for p in self._layers),
        )
        self._base = Writer(file, base, tables[sizes[0]], minor=LAYERED)
        self._file = file
        self._waiting: list[NDArray[np.uint16]] = []
        self.total_bytes = self._base.total_bytes
        self.payload_bytes = 0

    def write(self, indices: Indices) -> None:
        """Appends positions.

        Arguments and errors as for `Writer.write`, with the indices of the finest codebook.
        """
        if indices.size and not 0 <= indices.min() <= indices.max() < self._header.num_codes:
            raise ValueError(f"indices must lie in [0, {self._header.num_codes})")
        for piece in self._base.pieces(indices):
            self._waiting.append(piece.astype(np.uint16))
            for layer in reversed(self._layers):
                piece = np.stack([refinement.parents(stream[0], layer)[None] for stream in piece])
            self._base.write(piece)
        self.total_bytes, self.payload_bytes = self._base.total_bytes, self._base.payload_bytes

    def finish(self, num_samples: int = 0) -> None:
        """Writes the base's end and all refinements.

        Arguments and errors as for `Writer.finish`.
        """
        self._base.finish(num_samples)
        self.total_bytes = self._base.total_bytes
        seal = self._base.seal
        for number, layer in enumerate(self._layers):
            head = varint(layer.num_refined)
            for fine in self._waiting:
                indices = fine.astype(np.int64)
                for finer in reversed(self._layers[number + 1 :]):
                    indices = np.stack(
                        [refinement.parents(stream[0], finer)[None] for stream in indices]
                    )
                streams = [
                    refinement.encode(stream[0], layer, self._header.width) for stream in indices
                ]
                longest = refinement.longest(indices.shape[2], layer.num_refined)
                lengths = b"".join(varint(longest - len(data)) for data in streams)
                body = head + lengths + bytes([_check(indices)]) + b"".join(streams)
                seal = zlib.crc32(seal + body).to_bytes(4, "big")
                self._file.write(body + seal)
                self.total_bytes += len(body) + len(seal)
                self.payload_bytes += sum(map(len, streams))
                head = b""
        self._waiting = []


def _check(indices: Indices) -> int:
    """What a piece of a layer says of its indices, (A, 1, n): the lowest bits of their CRC-32."""
    return checksum_of(indices) & (1 << CHECK_BITS) - 1


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
        raise BitstreamError("the CRC-32 of a layer does not match", at)
    return Piece(at, check, streams), found


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


class Layered:
    """Stands in for a `Reader` of a file with layers.

    It gives the indices at the finest layer that is sound, or at a coarser one.

    All is read, checked and decoded at once, at 2 bytes for each position, before the first index
    is handed out.

    Args:
        reader: At the beginning of its data chunks.
        tables: The model's, by codebook size.
        codebook_size: The layer to stop at; None for the last.

    Attributes:
        header: The file's, with the codebook size that is decoded.
        budget: What the reader's limits leave to this file.
        damage: Why a finer layer is not, which was wanted; None where nothing is wrong.

    Raises:
        BitstreamError: The base is damaged.
        ValueError: The file has no such layer.
    """

    gaps = ()
    finished = True

    def __init__(
        self, reader: Reader, tables: Mapping[int, Tables], codebook_size: int | None = None
    ) -> None:
        header = reader.header
        chunks: list[NDArray[np.unsignedinteger]] = [
            chunk.astype(np.uint16 if header.num_codes <= 1 << 16 else np.uint32)
            for chunk in reader.chunks(tables.get(header.codebook_size, NO_TABLES))
        ]
        self.version = reader.version
        self.num_samples = reader.num_samples
        self.num_positions = reader.num_positions
        self.budget, self.header, self._chunks = reader.budget, header, chunks
        counts = [chunk.shape[2] for chunk in chunks]
        found = read_layers(reader.source, reader.seal, header, counts)
        layers, self.damage = wanted(header, *found, codebook_size)
        for layer in layers:
            try:
                self._chunks = refined(
                    layer, self._chunks, self.header, tables.get(layer.codebook_size, NO_TABLES)
                )
            except BitstreamError as error:
                self.damage = error
                break
            self.header = replace(
                header, codebook_size=layer.codebook_size, num_codes=layer.num_codes
            )

    def chunks(self, tables: Tables = NO_TABLES) -> Iterator[Indices]:  # noqa: ARG002
        """All positions in order, (A, 1, n) int64 each in [0, num_codes), in the file's chunks."""
        for chunk in self._chunks:
            yield chunk.astype(np.int64)

    def foresee(self) -> End:
        """What the end chunk declares, as `Reader.foresee`; here it is read already."""
        return End(0, self.num_samples, self.num_positions, 0)


def refine(
    salvage: Salvage, tables: Mapping[int, Tables], codebook_size: int | None = None
) -> BitstreamError | None:
    """Goes on to the layers of a file whose base is damaged, those that are whole.

    Changes `salvage`.

    A layer stands behind the end chunk and has a piece for each data chunk, so what the base lost
    stays lost and the rest becomes finer. All is decoded here, at 2 bytes for each position.

    Args:
        salvage: What is left of the base.
        tables: The model's, by codebook size.
        codebook_size: The layer to stop at; None for the last.

    Returns:
        Why a finer layer is not, which was wanted; None where nothing is wrong.

    Raises:
        ValueError: The file has no such layer.
    """
    base = salvage.header
    chunks = salvage.in_chunks(tables.get(base.codebook_size, NO_TABLES))
    if salvage.behind is None:
        lost = BitstreamError(
            "the end of the base is lost, and with it the place where layers begin"
        )
        layers, damage = wanted(base, [], lost, codebook_size)
    else:
        found = read_layers(salvage.behind, salvage.seal, base, [count for count, _ in chunks])
        layers, damage = wanted(base, *found, codebook_size)
    header, indices = base, [chunk for _, chunk in chunks]
    for layer in layers:
        try:
            indices = refined(layer, indices, header, tables.get(layer.codebook_size, NO_TABLES))
        except BitstreamError as error:
            damage = error
            break
        header = replace(base, codebook_size=layer.codebook_size, num_codes=layer.num_codes)
    salvage.go_on_with(
        header, [(count, chunk) for (count, _), chunk in zip(chunks, indices, strict=True)]
    )
    return damage


def wanted(
    header: Header, layers: list[Layer], damage: BitstreamError | None, codebook_size: int | None
) -> tuple[list[Layer], BitstreamError | None]:
    """The layers to decode.

    Args:
        header: Of the base.
        layers: Those that are whole.
        damage: Why there are no more.
        codebook_size: The layer to stop at; None for the last.

    Returns:
        The layers, and why a finer one is not, which was wanted.

    Raises:
        ValueError: The file has no such layer.
    """
    sizes = [header.codebook_size, *(layer.codebook_size for layer in layers)]
    if codebook_size is None:
        return layers, damage
    if codebook_size in sizes:
        return layers[: sizes.index(codebook_size)], None
    if damage is None or codebook_size < sizes[-1]:
        raise ValueError(
            f"the file has no layer K = {codebook_size}; choose from {', '.join(map(str, sizes))}"
        )
    return layers, damage


Chunk = TypeVar("Chunk", NDArray[np.unsignedinteger], NDArray[np.unsignedinteger] | None)


def refined(layer: Layer, chunks: Sequence[Chunk], header: Header, tables: Tables) -> list[Chunk]:
    """The indices of the next layer.

    Args:
        layer: Whole, as far as its CRC-32s tell.
        chunks: (A, 1, n) of the layer below; None for a chunk that is lost, and stays so.
        header: Of the layer below.
        tables: The model's for this layer.

    Raises:
        BitstreamError: The layer is not of this model, or is damaged.
    """
    prior = tables.layer
    if prior is None or (prior.num_codes, prior.num_codes // prior.num_refined) != (
        layer.num_codes,
        header.num_codes,
    ):
        raise BitstreamError(
            f"the model has no tables for the layer K = {layer.codebook_size}; "
            "find a later version of it"
        )
    found: list[Chunk] = []
    for piece, below in zip(layer.pieces, chunks, strict=True):
        if below is None:
            found.append(below)
            continue
        try:
            streams = [
                refinement.decode(data, coarse[0].astype(np.int64), prior, header.width)[None]
                for data, coarse in zip(piece.streams, below, strict=True)
            ]
        except BitstreamError as error:
            raise BitstreamError(str(error), piece.offset) from None
        indices = np.stack(streams)
        if _check(indices) != piece.check:
            raise BitstreamError(
                "a layer's indices are not those that were written: another model's", piece.offset
            )
        found.append(indices.astype(np.uint16 if layer.num_codes <= 1 << 16 else np.uint32))
    return found
