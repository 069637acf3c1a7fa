"""Layers: a file that holds its indices at a coarse codebook first, then what refines them, so that it can be cut.

    magic | 1.2 | H | D | D | E | L L | L L | L L          two chunks of data, three refinements
                  └ base, K = 256 ┘ 1024  4096  16384

Up to and with `E` this is a file of the base alone. Every layer after it has a chunk for each data chunk, with the same
positions. The CRC-32 of an `L` chunk begins with that of the chunk before it, so each proves all that it stands on.
Cutting such a file anywhere behind a layer leaves a file, and no model is needed for that. Where the last layers are
damaged or cut in the middle, those below them decode.

    indices at the finest K ──LayerWriter──> file ──Reader, Layered──> indices at the finest whole layer, or a coarser
                                               └──survey──> Survey ──cut──> file up to a layer

Shapes: A streams of indices, n positions of a chunk; one codebook. M children of a code in the next finer codebook.
"""

from __future__ import annotations

import io
import operator
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.container import (
    FIRST_CHUNK,
    LAYERED,
    MAX_CHUNK_BYTES,
    NO_LIMITS,
    End,
    Header,
    Indices,
    Reader,
    Source,
    Summary,
    Writer,
    checksum_of,
    scan_with_counts,
    varint,
)
from codec.entropy import MAX_CODES, NO_TABLES, Tables, refinement
from codec.errors import BitstreamError

TYPE = b"L"
CHECK_BITS = 16  # of an index checksum: that of the whole base is certain already
MOST_CHILDREN = 1 << 16


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of a layer, undecoded: the streams' bytes and the lowest bits of the CRC-32 of their indices."""

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
    """The codebook sizes that a file with layers has, coarsest first, `codebook_size` last; alone if it refines none.

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
    """Writes a file with layers; used as `Writer` is. The refinements follow at the end: 2 bytes a position wait there.

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
            header, codebook_size=sizes[0], num_codes=header.num_codes // prod(p.num_refined for p in self._layers)
        )
        self._base = Writer(file, base, tables[sizes[0]], minor=LAYERED)
        self._file = file
        self._waiting: list[NDArray[np.uint16]] = []
        self.total_bytes = self._base.total_bytes
        self.payload_bytes = 0

    def write(self, indices: Indices) -> None:
        """Appends positions. Arguments and errors as for `Writer.write`, with the indices of the finest codebook."""
        if indices.size and not 0 <= indices.min() <= indices.max() < self._header.num_codes:
            raise ValueError(f"indices must lie in [0, {self._header.num_codes})")
        for piece in self._base.pieces(indices):
            self._waiting.append(piece.astype(np.uint16))
            for layer in reversed(self._layers):
                piece = np.stack([refinement.parents(stream[0], layer)[None] for stream in piece])
            self._base.write(piece)
        self.total_bytes, self.payload_bytes = self._base.total_bytes, self._base.payload_bytes

    def finish(self, num_samples: int = 0) -> None:
        """Writes the base's end and all refinements. Arguments and errors as for `Writer.finish`."""
        self._base.finish(num_samples)
        self.total_bytes = self._base.total_bytes
        seal = self._base.seal
        for number, layer in enumerate(self._layers):
            for fine in self._waiting:
                indices = fine.astype(np.int64)
                for finer in reversed(self._layers[number + 1 :]):
                    indices = np.stack([refinement.parents(stream[0], finer)[None] for stream in indices])
                streams = [refinement.encode(stream[0], layer, self._header.width) for stream in indices]
                payload = varint(layer.num_refined) + _check(indices).to_bytes(2, "big")
                payload += b"".join(varint(len(data)) + data for data in streams[:-1]) + streams[-1]
                body = TYPE + varint(len(payload)) + payload
                seal = zlib.crc32(seal + body).to_bytes(4, "big")
                self._file.write(body + seal)
                self.total_bytes += len(body) + len(seal)
                self.payload_bytes += sum(map(len, streams))
        self._waiting = []


def _check(indices: Indices) -> int:
    """What a chunk of a layer says of its indices, (A, 1, n)."""
    return checksum_of(indices) & (1 << CHECK_BITS) - 1


def read_layers(reader: Reader, counts: list[int]) -> tuple[list[Layer], BitstreamError | None]:
    """Reads what follows the end chunk, undecoded.

    Args:
        reader: All of whose data chunks are read.
        counts: Their positions.

    Returns:
        The layers that are whole, and why there are no more, or None where the file ends there.
    """
    header, source, seal = reader.header, reader.source, reader.seal
    layers: list[Layer] = []
    size, num_codes = header.codebook_size, header.num_codes
    while counts:
        start, pieces, children = source.offset, list[Piece](), 0
        try:
            for count in counts:
                at = source.offset
                kind = source.take_up_to(1)
                if not kind and not pieces:
                    return layers, None
                payload, seal = _sealed(source, kind, at, seal)
                found, piece = _parse(payload, at, count, header)
                if children not in (0, found) or header.num_codebooks > 1:
                    raise BitstreamError("a layer's chunks do not agree", at)
                children = found
                if max(size, num_codes) * children > MAX_CODES:
                    raise BitstreamError(f"a layer has more than {MAX_CODES} codes", at)
                pieces.append(piece)
        except BitstreamError as error:
            return layers, error
        size, num_codes = size * children, num_codes * children
        layers.append(Layer(size, num_codes, pieces, source.offset, source.offset - start))
    return layers, None


def _sealed(source: Source, kind: bytes, at: int, seal: bytes) -> tuple[Source, bytes]:
    """The payload of an `L` chunk whose type was just read, and its CRC-32, which holds for the chunk before, too."""
    if kind != TYPE:
        raise BitstreamError("the list of layers ends early" if not kind else "this is not a layer", at)
    length = source.varint("a chunk length")
    if length > MAX_CHUNK_BYTES:
        raise BitstreamError(f"a layer's chunk declares {length} bytes, over the limit of {MAX_CHUNK_BYTES}", at)
    start = source.offset
    payload = source.take(length, "a layer")
    found = source.take(4, "the CRC-32 of a layer")
    if zlib.crc32(seal + kind + varint(length) + payload).to_bytes(4, "big") != found:
        raise BitstreamError("the CRC-32 of a layer does not match", at)
    return Source(io.BytesIO(payload), start, "chunk"), found


def _parse(payload: Source, at: int, count: int, header: Header) -> tuple[int, Piece]:
    """M and the rest of a layer's chunk of `count` positions."""
    children = payload.varint("the number of children")
    if not 2 <= children <= MOST_CHILDREN:
        raise BitstreamError(f"a layer declares {children} children of a code, not 2 to {MOST_CHILDREN}", at)
    check = int.from_bytes(payload.take(2, "the check of the indices"), "big")
    longest = refinement.longest(count, children)
    streams = []
    for _ in range(header.num_streams - 1):
        length = payload.varint("the length of a refinement")
        if length > longest:
            raise BitstreamError(f"{length} bytes of a refinement, more than {longest}", at)
        streams.append(payload.take(length, "a refinement"))
    streams.append(payload.take_up_to(longest))
    payload.expect_end("bytes follow the refinement")
    return children, Piece(at, check, streams)


def survey(file: BinaryIO) -> Survey:
    """Reads a whole file without its model, with or without layers.

    Raises:
        BitstreamError: As for `codec.container.scan`: of the base. What is wrong with layers is in `damage`.
    """
    reader = Reader(file, NO_LIMITS)
    summary, counts = scan_with_counts(reader)
    if reader.version[1] < LAYERED:
        return Survey(summary, [], None)
    return Survey(summary, *read_layers(reader, counts))


def whole(value: object, name: str) -> int:
    """An argument as an integer of Python's. Raises ValueError for a float, a text and whatever else is none."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is what is tried
    except TypeError:
        raise ValueError(f"{name} is a whole number, not {value!r}") from None


def cut(data: bytes, found: Survey, codebook_size: int) -> bytes:
    """Cuts a file behind a layer. The bytes that stay are what they were, but for the version of a file without layers.

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
        raise ValueError(f"the file has no layer K = {codebook_size}; choose from {', '.join(map(str, stops))}")
    shorter = data[: stops[codebook_size]]
    if codebook_size == found.summary.header.codebook_size and found.summary.version[1] == LAYERED:
        return shorter[: FIRST_CHUNK - 1] + bytes([LAYERED - 1]) + shorter[FIRST_CHUNK:]  # which a reader of 1.1 takes
    return shorter


class Layered:
    """Stands in for a `Reader`: the indices of a file at the finest layer that is sound, or at a coarser one.

    All is read, checked and decoded at once, at 2 bytes for each position, before the first index is handed out.

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

    def __init__(self, reader: Reader, tables: Mapping[int, Tables], codebook_size: int | None = None) -> None:
        header = reader.header
        chunks: list[NDArray[np.unsignedinteger]] = [
            chunk.astype(np.uint16 if header.num_codes <= 1 << 16 else np.uint32)
            for chunk in reader.chunks(tables.get(header.codebook_size, NO_TABLES))
        ]
        self.version, self.num_samples, self.num_positions = reader.version, reader.num_samples, reader.num_positions
        self.budget, self.header, self._chunks = reader.budget, header, chunks
        layers, self.damage = read_layers(reader, [chunk.shape[2] for chunk in chunks])
        sizes = [header.codebook_size, *(layer.codebook_size for layer in layers)]
        wanted = sizes[-1] if codebook_size is None else codebook_size
        if codebook_size is not None and wanted <= sizes[-1]:
            self.damage = None  # it lies above what is wanted
        if wanted not in sizes and self.damage is None:
            raise ValueError(f"the file has no layer K = {wanted}; choose from {', '.join(map(str, sizes))}")
        for layer in layers[: sizes.index(wanted) if wanted in sizes else None]:
            try:
                self._chunks = self._refined(layer, tables.get(layer.codebook_size, NO_TABLES))
            except BitstreamError as error:
                self.damage = error
                break
            self.header = replace(header, codebook_size=layer.codebook_size, num_codes=layer.num_codes)

    def chunks(self, tables: Tables = NO_TABLES) -> Iterator[Indices]:  # noqa: ARG002
        """All positions in order, (A, 1, n) int64 each in [0, num_codes), in the file's chunks."""
        for chunk in self._chunks:
            yield chunk.astype(np.int64)

    def foresee(self) -> End:
        """What the end chunk declares, as `Reader.foresee`; here it is read already."""
        return End(0, self.num_samples, self.num_positions, 0)

    def _refined(self, layer: Layer, tables: Tables) -> list[NDArray[np.unsignedinteger]]:
        """The indices of the next layer."""
        prior = tables.layer
        if prior is None or (prior.num_codes, prior.num_codes // prior.num_refined) != (
            layer.num_codes,
            self.header.num_codes,
        ):
            raise BitstreamError(
                f"the model has no tables for the layer K = {layer.codebook_size}; find a later version of it"
            )
        chunks: list[NDArray[np.unsignedinteger]] = []
        for piece, below in zip(layer.pieces, self._chunks, strict=True):
            try:
                streams = [
                    refinement.decode(data, coarse[0].astype(np.int64), prior, self.header.width)[None]
                    for data, coarse in zip(piece.streams, below, strict=True)
                ]
            except BitstreamError as error:
                raise BitstreamError(str(error), piece.offset) from None
            indices = np.stack(streams)
            if _check(indices) != piece.check:
                raise BitstreamError("a layer's indices are not those that were written: another model's", piece.offset)
            chunks.append(indices.astype(np.uint16))
        return chunks
