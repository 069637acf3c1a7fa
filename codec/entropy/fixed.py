"""Fixed-width packing: every index in the same number of bits.

It is the baseline that an entropy coder has to beat.

    indices (G, n) ─> codebook after codebook, ceil(log2 K) bits each, highest bit first ─> bytes

Zero bits fill the last byte, and the decoder insists on them: one sequence of indices has exactly
one packing.
"""

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError


def bits_per_index(num_codes: int) -> int:
    """The width of one index in bits: ceil(log2 K), so 0 for a codebook with a single entry."""
    return (num_codes - 1).bit_length()


def packed_size(num_indices: int, num_codes: int) -> int:
    """The size of `num_indices` packed indices in bytes."""
    return (num_indices * bits_per_index(num_codes) + 7) // 8


def encode(indices: NDArray[np.int64], num_codes: int) -> bytes:
    """Packs indices.

    Args:
        indices: (G, n), each in [0, num_codes).
        num_codes: K, from 1 to 2**24.

    Returns:
        `packed_size(G * n, num_codes)` bytes.
    """
    width = bits_per_index(num_codes)
    octets = indices.astype(">u4").reshape(-1, 1).view(np.uint8)
    return np.packbits(np.unpackbits(octets, axis=1)[:, 32 - width :]).tobytes()


def decode(data: bytes, num_codebooks: int, count: int, num_codes: int) -> NDArray[np.int64]:
    """Unpacks what `encode` packed.

    Args:
        data: The packed bytes, all of them and nothing else.
        num_codebooks: G.
        count: n, positions per codebook.
        num_codes: K, from 1 to 2**24.

    Returns:
        (G, n) int64, each in [0, num_codes).

    Raises:
        BitstreamError: The length is wrong, a pad bit is set, or an index lies outside the
            codebook.
    """
    width = bits_per_index(num_codes)
    num_indices = num_codebooks * count
    expected = packed_size(num_indices, num_codes)
    if len(data) != expected:  # checked before anything is allocated
        raise BitstreamError(
            f"{num_indices} packed indices take {expected} bytes, not {len(data)}: "
            "the file is damaged"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[num_indices * width :].any():
        raise BitstreamError("a pad bit after the packed indices is set: the file is damaged")
    octets = np.zeros((num_indices, 32), np.uint8)
    octets[:, 32 - width :] = bits[: num_indices * width].reshape(num_indices, width)
    indices = np.packbits(octets, axis=1).view(">u4").astype(np.int64)
    if indices.size and indices.max() >= num_codes:
        raise BitstreamError(
            f"index {indices.max()} lies outside the codebook of {num_codes}: the file is damaged"
        )
    return indices.reshape(num_codebooks, count)
