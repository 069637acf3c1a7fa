"""Indices of a finer codebook, when those of a coarser one are known.

This is what a layer of a file holds (`codec.layers`).

Every coarse code is the parent of M fine ones. Of a fine index only the child is coded, a number
below M: by the mixing coder, which sees the parents of all positions and the fine indices of those
before, or in fixed width. No byte says which it was: a payload as long as fixed width is fixed
width, and mixing is used only where it is shorter.

    parents (n,) ──────────┐
    indices (n,) ──child──encode──> bytes        bytes, parents ──decode──> indices (n,)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.entropy import fixed, mixing
from codec.entropy.prior import Prior
from codec.errors import BitstreamError

Ints = NDArray[np.int64]


def parents(indices: Ints, prior: Prior) -> Ints:
    """The index of the coarser codebook that each index refines, in [0, K / M)."""
    return prior.to_places(indices) // prior.num_refined


def encode(indices: Ints, prior: Prior, width: int) -> bytes:
    """Encodes one stream of a chunk.

    Args:
        indices: (n,) of the finer codebook, each in [0, K).
        prior: The model's for this layer.
        width: Of the picture in pixels; 0 for speech.

    Returns:
        At most `longest(n, M)` bytes.
    """
    room = longest(len(indices), prior.num_refined) - 1
    mixed = mixing.encode(indices, prior, mixing.columns_of(prior, width, len(indices)), room)
    if mixed is not None:
        return mixed
    return fixed.encode(prior.to_places(indices)[None] % prior.num_refined, prior.num_refined)


def decode(data: bytes, coarse: Ints, prior: Prior, width: int) -> Ints:
    """Decodes what `encode` made.

    Args:
        data: All bytes of the stream.
        coarse: (n,) indices of the coarser codebook, each in [0, K / M).
        prior: As for `encode`.
        width: As for `encode`.

    Returns:
        (n,) indices, each in [0, K), whose parents are `coarse`.

    Raises:
        BitstreamError: The bytes are not what `encode` writes.
    """
    count, children = len(coarse), prior.num_refined
    if len(data) > longest(count, children):
        raise BitstreamError(
            f"a refinement of {count} positions has {len(data)} bytes: the file is damaged"
        )
    if len(data) < longest(count, children):
        return mixing.decode(data, count, prior, mixing.columns_of(prior, width, count), coarse)
    return prior.from_places(coarse * children + fixed.decode(data, 1, count, children)[0])


def longest(count: int, children: int) -> int:
    """The most bytes that `encode` makes of `count` positions with M children each.

    Those are the bytes of fixed width.
    """
    return fixed.packed_size(count, children)
