"""Integers to payload bytes and back; no torch, and no floating-point number anywhere.

    encode_indices                                            decode_indices
                   ┌─> fixed       0 | packed bits ─┐
    indices (G, n) ┼─> range_coder 1 | range coded ─┼─ shorter ─> bytes ─> first byte ─> indices
                   └─> mixing      2 | range coded ─┘
                             ^ Tables                                           ^ Tables

The first byte names the coder, so a later format version adds a coder by adding a number. Every
byte string stands alone: no coder remembers anything from one call to the next.

Shapes: G codebooks, K entries of a codebook (`num_codes`), n positions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.arguments import whole
from codec.entropy import fixed, mixing, range_coder
from codec.entropy.prior import Prior
from codec.entropy.range_coder import quantise_counts
from codec.errors import BitstreamError

__all__ = [
    "MAX_CODES",
    "Prior",
    "Tables",
    "decode_indices",
    "encode_indices",
    "max_encoded_size",
    "quantise_counts",
]

FIXED, RANGE, MIXING = 0, 1, 2  # coder numbers: part of the file format
MAX_CODES = 1 << 24


@dataclass(frozen=True, eq=False)
class Tables:
    """What a model tells the coders of one codebook size; a coder without its table is not used.

    Args:
        frequencies: (G, K) from `quantise_counts`, for the range coder, or None.
        prior: For the mixing coder, where there is one codebook; or None.
        layer: For the mixing coder, when the indices of a coarser codebook are known (see
            `codec.layers`); or None.
    """

    frequencies: NDArray[np.int64] | None = None
    prior: Prior | None = None
    layer: Prior | None = None

    def fit(self, num_codebooks: int, num_codes: int) -> bool:
        """Whether they are for that many codebooks and codes."""
        shapes = [] if self.frequencies is None else [self.frequencies.shape]
        shapes += [(1, prior.num_codes) for prior in (self.prior, self.layer) if prior is not None]
        return all(shape == (num_codebooks, num_codes) for shape in shapes)


NO_TABLES = Tables()


def max_encoded_size(num_indices: int, num_codes: int) -> int:
    """The most bytes that `encode_indices` makes of `num_indices` indices below `num_codes`.

    That is fixed width, and one byte. Raises ValueError for what are no such numbers.
    """
    num_indices = whole(num_indices, "num_indices", 0)
    num_codes = _check(NO_TABLES, 0, num_codes)
    return 1 + fixed.packed_size(num_indices, num_codes)


def encode_indices(
    indices: NDArray[np.int64], num_codes: int, tables: Tables = NO_TABLES, width: int = 0
) -> bytes:
    """Encodes indices with whichever coder makes fewer bytes of them.

    Args:
        indices: (G, n) integers, each in [0, num_codes).
        num_codes: K, from 1 to 2**24.
        tables: The model's; without any, fixed width.
        width: Of the picture in pixels; 0 for speech.

    Returns:
        The coder number and what that coder wrote.

    Raises:
        ValueError: An argument has the wrong shape, type or range.
        TypeError: The indices are no array.
    """
    if not isinstance(indices, np.ndarray):
        raise TypeError(f"indices are an array of numpy, not {type(indices).__name__}")
    if indices.ndim != 2 or indices.dtype.kind not in "iu":
        raise ValueError(
            "indices must be integers of shape (G, n), "
            f"not {indices.dtype} of shape {indices.shape}"
        )
    num_codes = _check(tables, len(indices), num_codes)
    if indices.size and not 0 <= indices.min() <= indices.max() < num_codes:
        raise ValueError(
            f"indices must lie in [0, {num_codes}), not in [{indices.min()}, {indices.max()}]"
        )
    candidates: list[bytes] = []
    if tables.prior is not None:
        room = fixed.packed_size(indices.size, num_codes) - 1  # to be shorter than fixed width
        columns = mixing.columns_of(tables.prior, width, indices.shape[1])
        mixed = mixing.encode(indices[0].astype(np.int64), tables.prior, columns, room)
        candidates = [] if mixed is None else [bytes([MIXING]) + mixed]
    if not candidates:  # fixed width is longer than mixed
        candidates = [bytes([FIXED]) + fixed.encode(indices, num_codes)]
    frequencies = tables.frequencies
    if frequencies is not None and (
        1 + range_coder.ideal_bytes(indices, frequencies) < len(candidates[0])
    ):
        candidates.append(bytes([RANGE]) + range_coder.encode(indices, frequencies))
    return min(candidates, key=len)  # the first of equals: fixed width decodes faster


def decode_indices(
    data: bytes,
    num_codebooks: int,
    count: int,
    num_codes: int,
    tables: Tables = NO_TABLES,
    width: int = 0,
) -> NDArray[np.int64]:
    """Decodes what `encode_indices` made.

    Args:
        data: The encoded bytes, all of them and nothing else.
        num_codebooks: G.
        count: n, positions per codebook.
        num_codes: K, from 1 to 2**24.
        tables: Those that the encoder had.
        width: As for `encode_indices`.

    Returns:
        (G, n) int64, each in [0, num_codes).

    Raises:
        BitstreamError: The bytes are damaged, need a newer version, or need a table and there is
            none.
        ValueError: An argument has the wrong shape or range.
    """
    num_codes = _check(tables, whole(num_codebooks, "num_codebooks", 0), num_codes)
    count = whole(count, "count", 0)
    if not data:
        raise BitstreamError("encoded indices are missing: the file is damaged")
    coder, payload = data[0], data[1:]
    if coder == FIXED:
        return fixed.decode(payload, num_codebooks, count, num_codes)
    if coder == RANGE:
        if tables.frequencies is None:
            raise BitstreamError(
                "the indices are range coded, but this model has no coder tables: find its model"
            )
        return range_coder.decode(payload, count, tables.frequencies)
    if coder == MIXING:
        if tables.prior is None:
            raise BitstreamError(
                "the indices are coded by context, but this model has no prior: find its model"
            )
        columns = mixing.columns_of(tables.prior, width, count)
        return mixing.decode(payload, count, tables.prior, columns)[None]
    raise BitstreamError(
        f"the indices are in coder {coder}, which needs a newer version of codec: upgrade it"
    )


def _check(tables: Tables, num_codebooks: int, num_codes: int) -> int:
    """K. Raises ValueError where it is out of range, or the tables are not for it."""
    num_codes = whole(num_codes, "num_codes")
    if not 1 <= num_codes <= MAX_CODES:
        raise ValueError(f"num_codes must be in 1 to {MAX_CODES}, not {num_codes}")
    if not tables.fit(num_codebooks, num_codes):
        raise ValueError(f"the coder tables are not for {num_codebooks} codebooks of {num_codes}")
    if tables.frequencies is not None:
        range_coder.check_table(tables.frequencies, num_codebooks, num_codes)
    return num_codes
