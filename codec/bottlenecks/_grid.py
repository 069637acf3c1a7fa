"""What scalar quantisers share: levels for each dimension, and indices of mixed radix.

z ──_digits──> (l_1 ... l_d) ──sum of l_i b_i──> index ──> digits ──_values──> z_q
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from codec.arguments import whole
from codec.bottleneck import Bottleneck, Size
from codec.host import may_read
from codec.tensors import one_each

MAX_INDEX = 2**63 - 1  # of int64


class LevelGrid(Bottleneck):
    """A bottleneck whose codes are the points of a grid.

    No parameters, and one latent space for every size.

    Args:
        levels: For each offered size K, the number of levels of each dimension; all of one length
            d.
        fewest: Levels that a dimension must have.
        most: Levels that it may have.
        inputs: Input channels for each dimension.

    Raises:
        ValueError: Levels of unequal length, too few or too many; or more codes than an int64
            index tells apart.
    """

    coupled = False
    levels: Tensor  # (sizes, d) int64
    basis: Tensor  # (sizes, d) int64, b_i = product of the levels before i
    offered: Tensor  # (sizes,) int64, `codebook_sizes`

    def __init__(
        self,
        levels: Mapping[int, Sequence[int]],
        fewest: int,
        most: int = 1 << 24,
        inputs: int = 1,
    ) -> None:
        try:
            rows = [  # JSON's keys are text
                (
                    whole(int(size) if isinstance(size, str) else size, "a size", 1),
                    tuple(whole(level, "a level", fewest) for level in row),
                )
                for size, row in levels.items()
            ]
        except (AttributeError, TypeError, ValueError):
            rows = []
        table = dict(sorted(rows))
        lengths = {len(row) for row in table.values()}
        largest = max((level for row in table.values() for level in row), default=most + 1)
        if len(lengths) != 1 or 0 in lengths or len(table) != len(rows) or largest > most:
            raise ValueError(
                f"levels are lists of one common length, of whole numbers from {fewest} to {most}, "
                f"by codebook size, such as {{8: [2, 4]}}; not {levels!r}"
            )
        if any(prod(row) > MAX_INDEX for row in table.values()):
            raise ValueError(f"levels have at most {MAX_INDEX} codes; not {levels!r}")
        dim = lengths.pop()
        super().__init__(dim, tuple(table), in_dim=inputs * dim)
        self._num_codes = [prod(row) for row in table.values()]
        basis = [[prod(row[:i]) for i in range(dim)] for row in table.values()]
        self.register_buffer("levels", torch.tensor(list(table.values())), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)
        self.register_buffer("offered", torch.tensor(list(table)), persistent=False)

    @property
    def settled(self) -> bool:
        return True

    @abstractmethod
    def _digits(self, z: Tensor, row: int) -> Tensor:
        """(B, D_in, *S) float32 -> (B, d, *S) int64 in [0, levels)."""

    @abstractmethod
    def _values(self, digits: Tensor, row: int) -> Tensor:
        """(B, d, *S) int64 -> (B, d, *S) float32."""

    def num_codes(self, codebook_size: int | None = None) -> int:
        return self._num_codes[self._row(codebook_size)]

    def _encode(self, z: Tensor, size: int) -> Tensor:
        row = self._row(size)
        return self._fold(self._digits(z, row), row)

    @torch.no_grad()
    def _decode(self, indices: Tensor, size: int) -> Tensor:
        row = self._row(size)
        levels = along_channels(self.levels[row], indices)
        basis = along_channels(self.basis[row], indices)
        # Integers: float32 digits go wrong above 2**24.
        return self._values(indices // basis % levels, row)

    def _fold(self, digits: Tensor, row: int) -> Tensor:
        """(B, d, *S) int64 digits -> (B, 1, *S) indices."""
        return (digits * along_channels(self.basis[row], digits)).sum(1, keepdim=True)

    def _row(self, codebook_size: Size) -> int:
        return self.codebook_sizes.index(self.check_size(codebook_size))

    def _levels_like(self, z: Tensor, codebook_size: Size) -> Tensor:
        """The levels of each sample, (B or 1, d, 1, ...) int64.

        Raises ValueError for a size that is not offered, and for one that is no integer.
        """
        if not isinstance(codebook_size, Tensor):
            return along_channels(self.levels[self._row(codebook_size)], z)
        wrong = f"want one offered size per sample, from {list(self.codebook_sizes)}"
        if not one_each(codebook_size, z):
            raise ValueError(wrong)
        size = codebook_size.to(self.offered.device)
        if may_read() and not torch.isin(size, self.offered).all():
            raise ValueError(wrong)
        rows = torch.searchsorted(self.offered, size)
        return self.levels[rows].reshape(z.shape[0], self.dim, *[1] * (z.dim() - 2))


def along_channels(row: Tensor, like: Tensor) -> Tensor:
    """(d,) -> (1, d, 1, ...), to go with (B, d, *S)."""
    return row.reshape(1, -1, *[1] * (like.dim() - 2))
