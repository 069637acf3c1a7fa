"""A range coder with one static integer table per codebook: frequent indices cost fewer bits.

The coder narrows an interval, once per index, in proportion to the index's frequency out of `TOTAL`
(G. N. N. Martin, "Range encoding", 1979); the payload is the shortest number inside the last
interval. All arithmetic is on integers, so every machine decodes the same indices.

    low                                          low + width     width: 33 to 49 bits
    |-----------|---------------|-------|----|---|
                |  step * freq  |                                step = width >> TOTAL_BITS
                low'            low' + width'                    start: sum of frequencies before

    width' < 2**32:  the top 16 bits of low go out as one word; low and width move up 16 bits

`low` may overflow its 48 bits by one; a word then holds 17 bits, and the surplus is added to the
words before it once, at the end. Of the final interval only the 0, 1 or 2 bytes that identify it
are written: the decoder reads zeros after them. The decoder rebuilds `low` and compares this tail,
so that a payload is accepted only if it is byte for byte what the encoder writes.

Shapes: G codebooks, K entries of a codebook, n positions.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from codec.errors import BitstreamError

# A flat table over 32768 entries still gives each 32 units, and width >> 20 keeps 12 bits of
# precision.
TOTAL_BITS = 20
TOTAL = 1 << TOTAL_BITS
WORD_BITS = 16
# Three words: small enough for two digits of a Python integer and, carry included, for a 64-bit
# one.
STATE_BITS = 48
KEPT_BITS = STATE_BITS - WORD_BITS
FULL = 1 << STATE_BITS
FLOOR = 1 << KEPT_BITS
MAX_COUNT_BITS = 42  # counts * TOTAL has to fit into int64


def quantise_counts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turns training counts into coder tables, by integers alone: any machine gets the same tables.

    Every entry gets 1, the rest is shared in proportion to the counts, and what rounding leaves
    over goes to the largest remainders, the lower index first where they tie. A codebook with no
    counts at all gets a flat table.

    Args:
        counts: (G, K) non-negative, how often each index occurred.

    Returns:
        (G, K) int64 frequencies, each at least 1, each row summing to `TOTAL`.

    Raises:
        ValueError: Not integers of shape (G, K) with 1 <= K <= TOTAL, or negative, or a row sums to
            2**42 or more.
    """
    if counts.dtype.kind not in "iu" or counts.ndim != 2 or not 1 <= counts.shape[1] <= TOTAL:
        raise ValueError(
            f"counts must be integers (G, K), 1 <= K <= {TOTAL}, not {counts.dtype} {counts.shape}"
        )
    if (counts < 0).any() or any(sum(row) >= 1 << MAX_COUNT_BITS for row in counts.tolist()):
        raise ValueError(
            f"counts must be non-negative and sum to less than 2**{MAX_COUNT_BITS} per codebook"
        )
    num_codes = counts.shape[1]
    table = np.ones(counts.shape, np.int64)
    for row, frequencies in zip(counts.astype(np.int64), table, strict=True):
        weights = row if row.any() else np.ones_like(row)
        shares, remainders = np.divmod(weights * (TOTAL - num_codes), weights.sum())
        frequencies += shares
        frequencies[np.argsort(-remainders, kind="stable")[: TOTAL - frequencies.sum()]] += 1
    return table


def check_table(table: NDArray[np.int64], num_codebooks: int, num_codes: int) -> None:
    """Refuses a table that the coder cannot work with.

    Raises:
        ValueError: The table is not (num_codebooks, num_codes) integers of at least 1 with rows
            summing to `TOTAL`.
    """
    if table.shape != (num_codebooks, num_codes):
        raise ValueError(f"the coder table must be {(num_codebooks, num_codes)}, not {table.shape}")
    if table.dtype.kind not in "iu" or table.min() < 1 or (table.sum(axis=1) != TOTAL).any():
        raise ValueError(
            f"a coder table holds integers of at least 1, and each row sums to {TOTAL}"
        )


def _starts(frequencies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each entry's share of [0, TOTAL) begins: (K,) -> (K,)."""
    return np.cumsum(frequencies) - frequencies


def shortest_tail(low: int, width: int) -> tuple[int, int]:
    """Finds the shortest end of the payload: a number in [low, low + width) of few bytes.

    Since width >= 2**32, two bytes always suffice.

    Returns:
        The last word, with a possible carry in bit 16, and how many of its two bytes are to be
        written.
    """
    num_bytes, value = 0, -(-low // FULL) * FULL
    while value >= low + width:
        num_bytes += 1
        unit = FULL >> 8 * num_bytes
        value = -(-low // unit) * unit
    return value >> KEPT_BITS, num_bytes


def join(words: list[int]) -> bytes:
    """Writes 17-bit words as 16-bit ones: one long addition carries the surplus bits leftwards."""
    digits = np.array(words, np.int64)
    kept = int.from_bytes((digits & 0xFFFF).astype(">u2").tobytes(), "big")
    carried = int.from_bytes((digits >> WORD_BITS).astype(">u2").tobytes(), "big")
    return (kept + (carried << WORD_BITS)).to_bytes(2 * len(words), "big")


def ideal_bytes(indices: NDArray[np.int64], table: NDArray[np.int64]) -> float:
    """Returns what no payload of `encode` is below, at the cost of a sum."""
    frequencies = np.take_along_axis(table, indices.astype(np.int64), 1)
    return float(TOTAL_BITS * frequencies.size - np.log2(frequencies).sum()) / 8


def encode(indices: NDArray[np.int64], table: NDArray[np.int64]) -> bytes:
    """Encodes codebook after codebook into one payload.

    Args:
        indices: (G, n), each in [0, K).
        table: (G, K) frequencies that `check_table` accepts.

    Returns:
        The payload, within a few bytes of sum(-log2(frequency / TOTAL)) / 8.
    """
    low, width = 0, FULL
    words: list[int] = []
    for row, frequencies in zip(indices, table, strict=True):
        starts = _starts(frequencies)[row].tolist()
        for start, frequency in zip(starts, frequencies[row].tolist(), strict=True):
            step = width >> TOTAL_BITS
            low += step * start
            width = step * frequency
            while width < FLOOR:
                words.append(low >> KEPT_BITS)
                low = (low & (FLOOR - 1)) << WORD_BITS
                width <<= WORD_BITS
    last_word, num_bytes = shortest_tail(low, width)
    return join([*words, last_word])[: 2 * len(words) + num_bytes]


def decode(data: bytes, count: int, table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Decodes what `encode` made with the same table.

    The work is bounded by G * count whatever the bytes are. Bytes that were made with another table
    are mostly, but not always, recognised: the container's index checksum is there for the rest.

    Args:
        data: The payload, all of it and nothing else.
        count: n, positions per codebook.
        table: (G, K) frequencies that `check_table` accepts.

    Returns:
        (G, n) int64, each in [0, K).

    Raises:
        BitstreamError: The bytes are not what `encode` writes for any indices of this count.
    """
    words: list[int] = np.frombuffer(data + bytes(6 + len(data) % 2), ">u2").tolist()
    window = words[0] << 32 | words[1] << 16 | words[2]
    next_word = 3
    code, width = window, FULL  # code: the payload's number, less low
    rows: list[list[int]] = []
    try:
        for frequencies in table:
            starts, sizes = _starts(frequencies).tolist(), frequencies.tolist()
            row: list[int] = []
            for _ in range(count):
                step = width >> TOTAL_BITS
                slot = code // step
                if slot >= TOTAL:  # the sliver above step * TOTAL, which the encoder never enters
                    raise BitstreamError(
                        "entropy-coded data leave the coder's interval: damaged, or another model's"
                    )
                index = bisect_right(starts, slot) - 1
                row.append(index)
                code -= step * starts[index]
                width = step * sizes[index]
                while width < FLOOR:
                    code = code << WORD_BITS | words[next_word]
                    next_word += 1
                    width <<= WORD_BITS
            rows.append(row)
    except IndexError:
        raise BitstreamError(
            "entropy-coded data end too early: damaged, or made for another model"
        ) from None
    consumed = 2 * (next_word - 3)
    window = words[next_word - 3] << 32 | words[next_word - 2] << 16 | words[next_word - 1]
    last_word, num_bytes = shortest_tail((window - code) % FULL, width)
    tail = (last_word & 0xFFFF).to_bytes(2, "big")[:num_bytes]
    if consumed > len(data) or data[consumed:] != tail:
        raise BitstreamError(
            "entropy-coded data do not end where the indices do: damaged, or another model's"
        )
    return np.array(rows, np.int64).reshape(len(table), count)
