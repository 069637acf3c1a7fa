"""Decodes a file with layers, whole or with a damaged base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from codec.container import End, Header, Indices, Reader, Salvage
from codec.entropy import NO_TABLES, Tables, refinement
from codec.errors import BitstreamError
from codec.layers.bytes import Layer, check_of, read_layers


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
        if check_of(indices) != piece.check:
            raise BitstreamError(
                "a layer's indices are not those that were written: another model's", piece.offset
            )
        found.append(indices.astype(np.uint16))  # a prior has no more codes
    return found
