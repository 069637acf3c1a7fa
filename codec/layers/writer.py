"""Writes a file with layers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from codec.container import LAYERED, Header, Indices, Writer, varint
from codec.entropy import NO_TABLES, Tables, refinement
from codec.layers.bytes import check_of


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
                body = head + lengths + bytes([check_of(indices)]) + b"".join(streams)
                seal = zlib.crc32(seal + body).to_bytes(4, "big")
                self._file.write(body + seal)
                self.total_bytes += len(body) + len(seal)
                self.payload_bytes += sum(map(len, streams))
                head = b""
        self._waiting = []
