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

The trained tables are the model's `Prior`; nothing else is carried into a chunk, and nothing out of
it. The same bytes come from `code`, plain NumPy below, and from its compiled twin in `_compiled`,
which is used where numba is installed.

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codec.entropy.range_coder import FLOOR, FULL, KEPT_BITS, WORD_BITS, join, shortest_tail
from codec.errors import BitstreamError
from codec.locks import computed_once

# All are part of the file format.
BIT_BITS = 16  # a probability is out of 2**16
HIDDEN_SHIFT = 10
HIGHEST = 1023  # of a hidden unit; 256 stands for 1
DIGIT_SHIFT = 5
LOGIT_SHIFT = 12
LOGIT_LIMIT = 2047  # 256 units are a factor of e in the odds, so 1 : 2980 at most
# How fast the mixer learns; 19 and 21 cost .1 to .5 % more bits on speech and photographs.
RATE_SHIFT = 20
# Of errors, with digits that are given: half as fast takes .006 bits a position less in a layer.
REFINED_SHIFT = 1
MAX_WEIGHT = 32767
MAX_HIDDEN = 64  # units: HIGHEST * MAX_WEIGHT * MAX_HIDDEN is still below 2**31
MAX_WIDE = 1024
SPEED_BITS = 8
MAX_CODES = 1 << 16
PLAIN_POSITIONS = 2048  # the plain twin codes them in half the time that numba takes to load
FIRST_EXP = 1 << 40
NEXT_EXP = 1095225038176  # round(2**40 * exp(-1 / 256))

Ints = NDArray[np.int64]


@cache
def squash() -> Ints:
    """The logistic function out of 2**16, (4095,), by integers alone.

    Entry x + 2047 is 2**16 / (1 + exp(-x / 256)).
    """
    table = np.empty(2 * LOGIT_LIMIT + 1, np.int64)
    exp = FIRST_EXP
    for x in range(LOGIT_LIMIT + 1):
        table[LOGIT_LIMIT + x] = (FIRST_EXP << BIT_BITS) // (FIRST_EXP + exp)
        table[LOGIT_LIMIT - x] = (1 << BIT_BITS) - table[LOGIT_LIMIT + x]
        exp = exp * NEXT_EXP >> 40
    return table


@cache
def prices() -> Ints:
    """Bits / 256 that a yes costs at every logit, (4095,).

    Only an encoder that chooses needs them.
    """
    return np.round(-256 * np.log2(squash() / (1 << BIT_BITS))).astype(np.int64)


COMPILED = "codec.entropy._compiled"
NUMBERS = ("stride", "given")  # of a prior's fields; the rest are tables


class Net(NamedTuple):
    """What both twins of `code` take of a prior; R and the digit rows as `Prior` has them.

    Attributes:
        levels: (D,) int64.
        starts: (D,) int64, the row of each digit's value 0.
        offsets: (J, 2) int64.
        embedding: (R + 1, E) int32.
        first: (J, R + 1, W or H) int32, what a row contributes as each neighbour.
        speeds: (Q,) int64.
        trend_weights: (Q, E, W or H) int32.
        first_bias: (W or H,) int32.
        inner: (W, H) int32, of the wide layer's units; (0, H) without one.
        bias: (H,) int32, what the wide layer's units are added to.
        digits: (R - L_(D-1), H) int32, shifted by `DIGIT_SHIFT`.
        nodes: (R - D, H) int32, the mixer's first weights.
        squash: `squash()`.
        given: B, digits that are known before.
    """

    levels: Ints
    starts: Ints
    offsets: Ints
    embedding: NDArray[np.int32]
    first: NDArray[np.int32]
    speeds: Ints
    trend_weights: NDArray[np.int32]
    first_bias: NDArray[np.int32]
    inner: NDArray[np.int32]
    bias: NDArray[np.int32]
    digits: NDArray[np.int32]
    nodes: NDArray[np.int32]
    squash: Ints
    given: int


class Choice(NamedTuple):
    """What encoding may choose from, if from anything.

    Attributes:
        options: (n, M, D) int64 digits of the indices that a position may have; M = 0 for no
            choice.
        penalties: (n, M) int64, what each option costs besides its bits, in bits / 256.
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


@dataclass(frozen=True, eq=False)
class Prior:
    """What a model knows of its indices before the first: the tables of `mixing`, all integers.

    Rows are numbered through all digits: digit d with value v has row L_0 + ... + L_(d-1) + v;
    R = their sum.

    Args:
        levels: (D,) values of each digit, at least 2; their product is K.
        order: (K,) where each index stands among the digit rows; empty for the identity. The digits
            of an index are those of its place, the first digit the most significant.
        offsets: (J, 2) neighbours, rows up and columns to the right: (1, 0) is above, (0, -1) the
            position before.
        embedding: (R + 1, E) int8 of every row, added over the digits of an index; the last is that
            of no neighbour.
        hidden: ((J + Q) * E, H) int16, from the neighbours' embeddings and then the trends'; with a
            wide layer (W, H), from its units.
        bias: (H,) int32.
        speeds: (Q,) shifts 1 to 8: a trend moves by 2**-speed towards each index's embedding.
        digits: (R - L_(D-1), H) int16, what a digit once known adds for the digits after it.
        nodes: (R - D, H) int16, the mixer's first weights; row L_0 + ... + L_(d-1) - d + m - 1 asks
            whether digit d is at least m. Without the rows of the digits that are given.
        stride: Pixels that a position of a picture covers along each side; 0 for speech, whose
            positions are one row.
        given: B, digits that every position has from the layers below, before the first position is
            coded. Neighbours that come later are seen with these alone.
        wide: ((J + Q) * E, W) int16, from the embeddings to the wide layer; empty for none.
        wide_bias: (W,) int32.

    Raises:
        ValueError: A shape or a value is impossible, or sums could leave 32 bits.
    """

    levels: Ints
    order: Ints
    offsets: Ints
    embedding: Ints
    hidden: Ints
    bias: Ints
    speeds: Ints
    digits: Ints
    nodes: Ints
    stride: int
    given: int = 0
    wide: Ints = field(default_factory=lambda: np.empty((0, 0), np.int16))
    wide_bias: Ints = field(default_factory=lambda: np.empty(0, np.int32))

    def __post_init__(self) -> None:
        if any(array.dtype.kind not in "iu" for array in self._arrays().values()):
            raise ValueError("the tables of a prior are integers")
        num_digits, num_rows = len(self.levels), int(self.levels.sum())
        size, num_wide, num_features = len(self.bias), len(self.wide_bias), self.embedding.shape[-1]
        num_inputs = (len(self.offsets) + len(self.speeds)) * num_features
        shapes = {
            "levels": (num_digits,),
            "order": (self.num_codes,) if self.order.size else (0,),
            "offsets": (len(self.offsets), 2),
            "embedding": (num_rows + 1, num_features),
            "wide": (num_inputs, num_wide) if num_wide else (0, 0),
            "wide_bias": (num_wide,),
            "hidden": (num_wide or num_inputs, size),
            "bias": (size,),
            "speeds": (len(self.speeds),),
            "digits": (num_rows - int(self.levels[-1]), size),
            "nodes": (num_rows - num_digits - self.first_node, size),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} of a prior must be {shape}, not {getattr(self, name).shape}"
                )
        seen = (self.before != 0) if self.given else self.before > 0
        ranges = [
            (
                1 <= num_digits <= 16 and self.levels.min() >= 2 and self.num_codes <= MAX_CODES,
                "levels",
            ),
            (size in range(8, MAX_HIDDEN + 1, 8), "units"),
            (num_wide in range(0, MAX_WIDE + 1, 8), "units of the wide layer"),
            (seen.all() and np.abs(self.offsets).max(initial=0) < 128, "offsets"),
            (
                not self.order.size or (np.sort(self.order) == np.arange(self.num_codes)).all(),
                "order",
            ),
            (all(1 <= speed <= 8 for speed in self.speeds), "speeds"),
            (0 <= self.stride < 1 << 17, "stride"),
            (0 <= self.given < num_digits, "given"),
            (np.abs(self.embedding).max() < 1 << 7, "embedding"),
            (np.abs(self.nodes).max() <= MAX_WEIGHT, "nodes"),
            (
                max(np.abs(a).max(initial=0) for a in (self.wide, self.hidden, self.digits))
                < 1 << 15,
                "weights",
            ),
            (self._largest_sum() < 1 << 31, "sums"),
        ]
        for fine, name in ranges:
            if not fine:
                raise ValueError(f"{name} of a prior are out of range")

    def _arrays(self) -> dict[str, Ints]:
        return {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in NUMBERS
        }

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """What a model file stores; nothing of `given` and the wide layer where there is none."""
        arrays = {
            name: array
            for name, array in self._arrays().items()
            if len(self.wide_bias) or not name.startswith("wide")
        }
        numbers = {name: np.array([getattr(self, name)], np.int32) for name in NUMBERS}
        return {
            **arrays,
            **{name: array for name, array in numbers.items() if name == "stride" or array[0]},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Prior:
        """The inverse of `to_tensors`.

        Raises ValueError or TypeError on tensors of another kind.
        """
        if any(tensors[name].shape != (1,) for name in NUMBERS if name in tensors):
            raise ValueError("stride and given of a prior are one number each")
        fields: dict[str, Any] = {
            name: int(array[0]) if name in NUMBERS else array for name, array in tensors.items()
        }
        return cls(**fields)

    @property
    def num_codes(self) -> int:
        return prod(self.levels.tolist())

    @computed_once
    def starts(self) -> Ints:
        """(D,) the row of each digit's value 0."""
        starts: Ints = np.cumsum(self.levels) - self.levels
        return starts

    @property
    def first_node(self) -> int:
        """Rows of `nodes` that the digits that are given would have."""
        return int(self.levels[: self.given].sum()) - self.given

    @computed_once
    def before(self) -> Ints:
        """(J,) 1 for neighbours before a position, -1 for those after it, 0 for itself."""
        rows_up, right = self.offsets.astype(np.int64).T
        return np.asarray(np.sign(np.where(rows_up == 0, -right, rows_up)), np.int64)

    @property
    def num_refined(self) -> int:
        """M, values that the digits that are not given have together."""
        return prod(self.levels[self.given :].tolist())

    @property
    def outer(self) -> tuple[Ints, Ints]:
        """The layer that sees the embeddings: its weights ((J + Q) * E, W or H) and its bias."""
        return (self.wide, self.wide_bias) if len(self.wide_bias) else (self.hidden, self.bias)

    @computed_once
    def first(self) -> NDArray[np.int32]:
        """(J, R + 1, W or H): what a row contributes as each neighbour."""
        shape = len(self.offsets), len(self.embedding), len(self.outer[1])
        first = np.empty(shape, np.int32)
        for table, product in zip(first, self._first(), strict=True):
            table[:] = product
        return first

    def _first(self) -> Iterator[NDArray[np.float64]]:
        """Yields the tables of `first` one by one.

        Floats hold these whole numbers exactly, and NumPy multiplies them faster than integers.
        """
        embedding, num_features = self.embedding.astype(np.float64), self.embedding.shape[1]
        for start in range(0, len(self.offsets) * num_features, num_features):
            yield embedding @ self.outer[0][start : start + num_features].astype(np.float64)

    @computed_once
    def trend_weights(self) -> NDArray[np.int32]:
        """(Q, E, W or H)."""
        num_features = self.embedding.shape[1]
        weights, bias = self.outer
        rest = weights[len(self.offsets) * num_features :]
        return rest.reshape(len(self.speeds), num_features, len(bias)).astype(np.int32)

    def _largest_sum(self) -> int:
        """A bound on the magnitude of the sums before both clips."""

        def over_digits(rows: NDArray[Any]) -> NDArray[Any]:
            """(..., R, C) -> (..., C): the largest sum that one value of every digit can have."""
            parts = np.split(np.abs(rows), np.cumsum(self.levels)[:-1], axis=-2)
            return np.asarray(sum(part.max(-2, initial=0) for part in parts))

        neighbours = np.zeros(len(self.outer[1]))
        for first in self._first():
            neighbours += np.maximum(over_digits(first[:-1]), np.abs(first[-1]))
        highest = over_digits(self.embedding[:-1].astype(np.int64)) + 1
        trends = (highest[:, None] * np.abs(self.trend_weights.astype(np.int64))).sum((0, 1))
        outer = np.abs(self.outer[1].astype(np.int64)) + neighbours + trends
        later = over_digits(self.digits.astype(np.int64)) << DIGIT_SHIFT
        if not len(self.wide_bias):
            return int((outer + later).max())
        inner = HIGHEST * np.abs(self.hidden.astype(np.int64)).sum(0)
        start = np.abs(self.bias.astype(np.int64)) + inner + later
        return int(max(outer.max(), start.max()))

    @computed_once
    def net(self) -> Net:
        """What both twins of `code` take."""
        of_units = self.hidden if len(self.wide_bias) else self.hidden[:0]
        bias, first_bias, inner, digits, nodes, embedding = (
            array.astype(np.int32)
            for array in (
                self.bias,
                self.outer[1],
                of_units,
                self.digits,
                self.nodes,
                self.embedding,
            )
        )
        levels, offsets, speeds = (
            array.astype(np.int64) for array in (self.levels, self.offsets, self.speeds)
        )
        return Net(
            levels=levels,
            starts=self.starts,
            offsets=offsets,
            embedding=embedding,
            first=self.first,
            speeds=speeds,
            trend_weights=self.trend_weights,
            first_bias=first_bias,
            inner=inner,
            bias=bias,
            digits=digits << DIGIT_SHIFT,
            nodes=nodes,
            squash=squash(),
            given=self.given,
        )

    @computed_once
    def _index_at(self) -> Ints:
        """(K,) the inverse of `order`."""
        return np.argsort(self.order)

    def to_digits(self, indices: Ints) -> Ints:
        """(n,) -> (n, D)."""
        shape = tuple(self.levels.tolist())
        return np.stack(np.unravel_index(self.to_places(indices), shape), axis=-1).astype(np.int64)

    def to_indices(self, digits: Ints) -> Ints:
        """The inverse of `to_digits`."""
        places = np.ravel_multi_index(tuple(digits.T), tuple(self.levels.tolist()))
        return self.from_places(np.asarray(places, np.int64))

    def to_places(self, indices: Ints) -> Ints:
        """(n,) -> (n,): where they stand among the digit rows."""
        return self.order.astype(np.int64)[indices] if self.order.size else indices

    def from_places(self, places: Ints) -> Ints:
        """The inverse of `to_places`."""
        return np.asarray(self._index_at[places] if self.order.size else places, np.int64)


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
    """
    count, num_options = options.shape
    digits = prior.to_digits(options.ravel()).reshape(count, num_options, len(prior.levels))
    chosen = digits[:, 0].copy()
    room = 2 * chosen.size * 16 + 1  # more than any indices take
    choice = Choice(digits, penalties.astype(np.int64), prices())
    _run(False, chosen, choice, columns, Place(np.zeros(room, np.int64), room, 0, FULL), prior.net)
    return prior.to_indices(chosen)


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
            costs = penalties[position].copy()
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
