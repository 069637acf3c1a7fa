"""What a model knows of its indices before the first: the tables of the mixing coder.

They are a small network of integers, which `codec.entropy.mixing` runs and describes. Nothing here
codes: a prior checks its tables, gives them to a model file, and lays them out for the coder.

Shapes: D digits of an index, R rows of all digits together, J neighbours, E features of an
embedding, Q trends, W units of the wide layer, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codec.locks import computed_once

# All are part of the file format.
BIT_BITS = 16  # a probability is out of 2**16
HIGHEST = 1023  # of a hidden unit; 256 stands for 1
DIGIT_SHIFT = 5
LOGIT_LIMIT = 2047  # 256 units are a factor of e in the odds, so 1 : 2980 at most
MAX_WEIGHT = 32767
MAX_HIDDEN = 64  # units: HIGHEST * MAX_WEIGHT * MAX_HIDDEN is still below 2**31
MAX_WIDE = 1024
MAX_CODES = 1 << 16
FIRST_EXP = 1 << 40
NEXT_EXP = 1095225038176  # round(2**40 * exp(-1 / 256))

NUMBERS = ("stride", "given")  # of a prior's fields; the rest are tables

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


@dataclass(frozen=True, eq=False)
class Prior:
    """What a model knows of its indices before the first, all in integers.

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
