"""Integers to payload bytes and back; no torch, and no floating-point number anywhere.

    encode_indices                                          decode_indices
                   ┌─> fixed       0 | packed bits ───┐
    indices (G, n) ┤                                  ├─ the shorter ──> bytes ──> first byte ──> indices (G, n)
                   └─> range_coder 1 | range coded ───┘
                             ^ table (G, K)                                            ^ table (G, K)

The first byte names the coder, so a later format version adds a coder by adding a number. Every byte string stands
alone: no coder remembers anything from one call to the next.

Shapes: G codebooks, K entries of a codebook (`num_codes`), n positions.
"""

import numpy as np
from numpy.typing import NDArray

from codec.entropy import fixed, range_coder
from codec.entropy.range_coder import quantise_counts
from codec.errors import BitstreamError

__all__ = ["MAX_CODES", "decode_indices", "encode_indices", "max_encoded_size", "quantise_counts"]

FIXED, RANGE = 0, 1  # coder numbers: part of the file format
MAX_CODES = 1 << 24


def max_encoded_size(num_indices: int, num_codes: int) -> int:
    """The most bytes that `encode_indices` makes of `num_indices` indices: a coder number and the packed bits."""
    return 1 + fixed.packed_size(num_indices, num_codes)


def encode_indices(indices: NDArray[np.int64], num_codes: int, table: NDArray[np.int64] | None) -> bytes:
    """Encodes indices with whichever coder makes fewer bytes of them.

    Args:
        indices: (G, n) integers, each in [0, num_codes).
        num_codes: K, from 1 to 2**24.
        table: (G, K) frequencies from `quantise_counts`, or None for fixed width only.

    Returns:
        The coder number and what that coder wrote.

    Raises:
        ValueError: An argument has the wrong shape, type or range.
    """
    _check_num_codes(num_codes)
    if indices.ndim != 2 or indices.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers of shape (G, n), not {indices.dtype} of shape {indices.shape}")
    if indices.size and not 0 <= indices.min() <= indices.max() < num_codes:
        raise ValueError(f"indices must lie in [0, {num_codes}), not in [{indices.min()}, {indices.max()}]")
    candidates = [bytes([FIXED]) + fixed.encode(indices, num_codes)]
    if table is not None:
        range_coder.check_table(table, len(indices), num_codes)
        candidates.append(bytes([RANGE]) + range_coder.encode(indices, table))
    return min(candidates, key=len)  # the first of equals: fixed width decodes faster


def decode_indices(
    data: bytes, num_codebooks: int, count: int, num_codes: int, table: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Decodes what `encode_indices` made.

    Args:
        data: The encoded bytes, all of them and nothing else.
        num_codebooks: G.
        count: n, positions per codebook.
        num_codes: K, from 1 to 2**24.
        table: (G, K), the table that the encoder had, or None if it had none.

    Returns:
        (G, n) int64, each in [0, num_codes).

    Raises:
        BitstreamError: The bytes are damaged, need a newer version, or need a table and there is none.
        ValueError: An argument has the wrong shape or range.
    """
    _check_num_codes(num_codes)
    if not data:
        raise BitstreamError("encoded indices are missing: the file is damaged")
    coder, payload = data[0], data[1:]
    if coder == FIXED:
        return fixed.decode(payload, num_codebooks, count, num_codes)
    if coder == RANGE:
        if table is None:
            raise BitstreamError("the indices are range coded, but this model has no coder tables: find its model")
        range_coder.check_table(table, num_codebooks, num_codes)
        return range_coder.decode(payload, count, table)
    raise BitstreamError(f"the indices are in coder {coder}, which needs a newer version of codec: upgrade it")


def _check_num_codes(num_codes: int) -> None:
    if not 1 <= num_codes <= MAX_CODES:
        raise ValueError(f"num_codes must be in 1 to {MAX_CODES}, not {num_codes}")
