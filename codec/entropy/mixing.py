"""Context mixing: each index costs what its neighbours leave open.

All in integers, so every machine decodes the same.

An index is a row of digits, and a digit is a walk down a binary tree: is it at least `middle`? The
probability of each answer comes from a small network of integers that looks at the indices decoded
before. Its last layer is a logistic mixer (one row of weights per question) that goes on learning
from every answer, so that a chunk's own habits count.

    neighbours (J) ─embedding──┐
    trends of what came before ┴─wide─> clip ─hidden─> start (H) ─clip─> hidden (H) ─weights─> logit
                                        (W)             ^ + digits[d]                 ^          │
                                                        after each digit            learn     squash
                                                                                      └─ answer <┘
The weights are those of the question that is asked. A prior without the wide layer goes from the
embeddings to `start` at once.

The trained tables are the model's `codec.entropy.prior.Prior`; nothing else is carried into a
chunk, and nothing out of it. The same bytes come from `code`, plain NumPy below, and from its
compiled twin in `_compiled`, which is used where numba is installed.

Tried at K = 1024 and left out, in bits per index of about 7.5: adaptive counts in up to four
contexts as further inputs of the mixer (-.04 speech, -.07 photographs), an adaptive map after it
(-.01), state carried from chunk to chunk (-.02). What the mixer learns within a chunk is worth .21
on speech and .10 on photographs.

Shapes: n positions, D digits of an index, J neighbours, E features of an embedding, Q trends, W
units of the wide layer, H hidden units.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codec.entropy.prior import (
    BIT_BITS,
    HIGHEST,
    LOGIT_LIMIT,
    MAX_WEIGHT,
    Ints,
    Net,
    Prior,
    squash,
)
from codec.entropy.range_coder import FLOOR, FULL, KEPT_BITS, WORD_BITS, join, shortest_tail
from codec.errors import BitstreamError

# All are part of the file format.
HIDDEN_SHIFT = 10
LOGIT_SHIFT = 12
# How fast the mixer learns; 19 and 21 cost .1 to .5 % more bits on speech and photographs.
RATE_SHIFT = 20
# Of errors, with digits that are given: half as fast takes .006 bits a position less in a layer.
REFINED_SHIFT = 1
SPEED_BITS = 8
NEVER = 1 << 40  # bits / 256
PLAIN_POSITIONS = 2048  # the plain twin codes them in half the time that numba takes to load
COMPILED = "codec.entropy._compiled"


@cache
def prices() -> Ints:
    """Bits / 256 that a yes costs at every logit, (4095,).

    Only an encoder that chooses needs them.
    """
    return np.round(-256 * np.log2(squash() / (1 << BIT_BITS))).astype(np.int64)


class Choice(NamedTuple):
    """What encoding may choose from, if from anything.

    Attributes:
        options: (n, M, D) int64 digits of the indices that a position may have; M = 0 for no
            choice.
        penalties: (n, M) int64, what each option costs besides its bits, in bits / 256; the coder
            adds its bits.
        prices: `prices()`.
    """

    options: Ints
    penalties: Ints
    prices: Ints


class Place(NamedTuple):
    """Where coding begins in a payload.

    Attributes:
        words: int64; room for the words that are written, or those that are read with zeros after
            them.
        capacity: Words that there may be.
        low: Encoding: the lower end of the interval. Decoding: the payload's number, less that end.
        width: Of the interval.
    """

    words: Ints
    capacity: int
    low: int
    width: int


NO_CHOICE = Choice(np.empty((0, 0, 0), np.int64), np.empty((0, 0), np.int64), np.empty(0, np.int64))


def columns_of(prior: Prior, width: int, count: int) -> int:
    """Positions in a row: of a picture `width` pixels wide, or all `count` of them."""
    return -(-width // prior.stride) if prior.stride else max(count, 1)


def encode(indices: Ints, prior: Prior, columns: int, max_bytes: int) -> bytes | None:
    """Encodes one codebook's indices; of a prior with digits that are given, the others alone.

    Args:
        indices: (n,), each in [0, K).
        prior: The model's.
        columns: Positions in a row.
        max_bytes: The most bytes worth having.

    Returns:
        The payload; None if it would be longer.
    """
    digits = prior.to_digits(indices)
    capacity = max_bytes // 2
    words = np.zeros(capacity + 1, np.int64)
    count, low, width = _run(
        False, digits, NO_CHOICE, columns, Place(words, capacity, 0, FULL), prior.net
    )
    if count < 0:
        return None
    last_word, num_bytes = shortest_tail(low, width)
    data = join([*words[:count].tolist(), last_word])[: 2 * count + num_bytes]
    return data if len(data) <= max_bytes else None


def decode(
    data: bytes, count: int, prior: Prior, columns: int, parents: Ints | None = None
) -> Ints:
    """Decodes what `encode` made with the same prior and columns.

    The work is bounded by `count` whatever the bytes are.

    Args:
        parents: (n,) indices of the layer below, each in [0, K / M), where the prior has digits
            that are given.

    Returns:
        (count,) int64, each in [0, K).

    Raises:
        BitstreamError: The bytes are not what `encode` writes for any indices of this count.
    """
    words = np.frombuffer(data + bytes(6 + len(data) % 2), ">u2").astype(np.int64)
    window = int(words[0]) << 32 | int(words[1]) << 16 | int(words[2])
    digits = np.zeros((count, len(prior.levels)), np.int64)
    if parents is not None:
        shape = tuple(prior.levels[: prior.given].tolist())
        digits[:, : prior.given] = np.stack(np.unravel_index(parents, shape), axis=-1)
    begin = Place(words[3:], len(data) // 2, window, FULL)
    taken, code, width = _run(True, digits, NO_CHOICE, columns, begin, prior.net)
    if taken < 0:
        raise BitstreamError("entropy-coded data end too early: damaged, or made for another model")
    window = int(words[taken]) << 32 | int(words[taken + 1]) << 16 | int(words[taken + 2])
    last_word, num_bytes = shortest_tail((window - code) % FULL, width)
    if data[2 * taken :] != (last_word & 0xFFFF).to_bytes(2, "big")[:num_bytes]:
        raise BitstreamError(
            "entropy-coded data do not end where the indices do: damaged, or another model's"
        )
    return prior.to_indices(digits)


def bits_of(options: Ints, prior: Prior, columns: int) -> NDArray[np.float64]:
    """What each option of a position costs, where all positions take their first option.

    Args:
        options: (n, M) indices, M at least 1.
        prior: The model's.
        columns: Positions in a row.

    Returns:
        (n, M) bits.

    Raises:
        ValueError: The prior has digits that are given.
    """
    penalties = np.full(options.shape, NEVER)
    penalties[:, 0] = 0
    costs = _chosen(options, penalties, prior, columns)[1]
    return np.asarray((costs - penalties) / 256)


def choose(options: Ints, penalties: Ints, prior: Prior, columns: int) -> Ints:
    """Picks an index for every position: the one whose bits and penalty cost least.

    One position after the other, each with what the coder will have learnt from those before.

    Args:
        options: (n, M) indices, M at least 1.
        penalties: (n, M) non-negative, in bits / 256.
        prior: The model's.
        columns: Positions in a row.

    Returns:
        (n,) indices.

    Raises:
        ValueError: The prior has digits that are given.
    """
    return _chosen(options, penalties, prior, columns)[0]


def _chosen(options: Ints, penalties: Ints, prior: Prior, columns: int) -> tuple[Ints, Ints]:
    """(n,) indices, and (n, M), what each option would have cost with its bits."""
    if prior.given:
        raise ValueError("a prior with digits that are given leaves no choice")
    count, num_options = options.shape
    digits = prior.to_digits(options.ravel()).reshape(count, num_options, len(prior.levels))
    chosen = digits[:, 0].copy()
    room = 2 * chosen.size * 16 + 1  # more than any indices take
    choice = Choice(digits, penalties.astype(np.int64), prices())
    _run(False, chosen, choice, columns, Place(np.zeros(room, np.int64), room, 0, FULL), prior.net)
    return prior.to_indices(chosen), choice.penalties


def code(
    decoding: bool, positions: Ints, choice: Choice, columns: int, begin: Place, net: Net
) -> tuple[int, int, int]:
    """The coder in plain NumPy: the reference, and what runs where numba is not installed.

    Args:
        decoding: Whether `positions` is filled from `words`, or the other way round.
        positions: (n, D) digits of the indices.
        choice: From which encoding chooses them, if from anything.
        columns: Positions in a row.
        begin: The payload. Decoding has taken its first three words into `low` already.
        net: The model's.

    Returns:
        Words written or read, or -1 where they would be more than `begin.capacity`; low; width.
    """
    options, penalties, price = choice
    words, capacity, low, width = begin
    (
        levels,
        starts,
        offsets,
        embedding,
        first,
        speeds,
        trend_weights,
        first_bias,
        inner,
        bias,
        digits,
        nodes,
        table,
        given,
    ) = net
    squashed = table.tolist()
    weights = nodes.astype(np.int64)
    first_node = int(levels[:given].sum()) - given
    slower = REFINED_SHIFT if given else 0
    trend = np.zeros((len(speeds), embedding.shape[1]), np.int64)
    num_words = 0
    for position, place in enumerate(positions):
        row, column = divmod(position, columns)
        total = first_bias.astype(np.int64)
        for neighbour, (up, right) in enumerate(offsets.tolist()):
            place_there = position - up * columns + right
            if up <= row and 0 <= column + right < columns and place_there < len(positions):
                seen = len(starts) if place_there < position else given
                total += first[neighbour, (starts + positions[place_there])[:seen]].sum(0)
            else:
                total += first[neighbour, -1]
        total += ((trend >> SPEED_BITS)[:, :, None] * trend_weights).sum((0, 1))
        if len(inner):
            total = bias + np.clip(total >> HIDDEN_SHIFT, 0, HIGHEST) @ inner.astype(np.int64)
        if options.shape[1]:
            costs = penalties[position]  # which become those of the bits, too
            for option, wanted in enumerate(options[position]):
                sketch = total.copy()
                for digit, start in enumerate(starts.tolist()):
                    hidden = np.clip(sketch >> HIDDEN_SHIFT, 0, HIGHEST)
                    below, above = 0, int(levels[digit])
                    while above - below > 1:
                        middle = (below + above) >> 1
                        logit = int(hidden @ weights[start - digit + middle - 1]) >> LOGIT_SHIFT
                        logit = min(max(logit, -LOGIT_LIMIT), LOGIT_LIMIT)
                        bit = wanted[digit] >= middle
                        below, above = (middle, above) if bit else (below, middle)
                        costs[option] += price[LOGIT_LIMIT + (logit if bit else -logit)]
                    if digit < len(starts) - 1:
                        sketch += digits[start + below]
            place[:] = options[position, int(np.argmin(costs))]
        for digit, start in enumerate(starts.tolist()):
            if digit < given:
                total += digits[start + place[digit]]
                continue
            hidden = np.clip(total >> HIDDEN_SHIFT, 0, HIGHEST)
            below, above = 0, int(levels[digit])
            while above - below > 1:
                middle = (below + above) >> 1
                weight = weights[start - digit + middle - 1 - first_node]
                logit = min(max(int(hidden @ weight) >> LOGIT_SHIFT, -LOGIT_LIMIT), LOGIT_LIMIT)
                probability = squashed[logit + LOGIT_LIMIT]
                bound = (width >> BIT_BITS) * probability
                bit = low < bound if decoding else place[digit] >= middle
                if bit:
                    below, width, error = middle, bound, (1 << BIT_BITS) - probability
                else:
                    above, width, error = middle, width - bound, -probability
                    low += -bound if decoding else bound
                if width < FLOOR:  # once is enough: no answer has a probability under 2**-12
                    if num_words == capacity:
                        return -1, low, width
                    if decoding:
                        low = low << WORD_BITS | int(words[num_words])
                    else:
                        words[num_words] = low >> KEPT_BITS
                        low = (low & (FLOOR - 1)) << WORD_BITS
                    width <<= WORD_BITS
                    num_words += 1
                weight += ((error >> slower) * hidden + (1 << RATE_SHIFT - 1)) >> RATE_SHIFT
                np.clip(weight, -MAX_WEIGHT, MAX_WEIGHT, out=weight)
            place[digit] = below
            if digit < len(starts) - 1:
                total += digits[start + below]
        target = embedding[starts + place].astype(np.int64).sum(0) << SPEED_BITS
        trend += (target - trend) >> speeds[:, None]
    return num_words, low, width


_coded_plainly = 0  # positions, in this process


def _run(
    decoding: bool, positions: Ints, choice: Choice, columns: int, begin: Place, net: Net
) -> tuple[int, int, int]:
    """`code` for the first few positions of a process, its compiled twin for more.

    A short run is done before numba would be loaded.
    """
    global _coded_plainly
    count = len(positions) * (1 + choice.options.shape[1])
    if COMPILED not in sys.modules and _coded_plainly + count <= PLAIN_POSITIONS:
        _coded_plainly += count
        return code(decoding, positions, choice, columns, begin, net)
    return _coder()(decoding, positions, choice, columns, begin, net)


@cache
def _coder() -> Callable[..., tuple[int, int, int]]:
    """The compiled twin, or the plain one where numba is not installed or CODEC_PLAIN is set."""
    if os.environ.get("CODEC_PLAIN"):
        return code
    try:
        from codec.entropy import _compiled
    except ImportError:
        return code
    compiled: Callable[..., tuple[int, int, int]] = _compiled.code
    return compiled
