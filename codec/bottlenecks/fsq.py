"""FSQ, finite scalar quantisation (Mentzer et al. 2023), and NoiseFSQ (Parker et al. 2024).

Each dimension is squashed by tanh and rounded to one of L levels; there is no codebook to learn and
no loss of its own.

    FSQ       z ──tanh, shifted if L is even──> [-L/2, L/2] ──round──> digits ──/ (L // 2)──> z_q
    NoiseFSQ  z ──(tanh + 1) / 2──> t in [0, 1] ──round, or in training noise as wide──> 2 t - 1

z_q lies in [-1, 1].

The outermost levels of both are half as wide as the others where the latents are uniform; FSP's are
equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from codec.arguments import real
from codec.bottleneck import BottleneckOutput, Size, straight_through
from codec.bottlenecks._grid import LevelGrid, along_channels
from codec.bottlenecks.fsp import LEVELS

SQUEEZE = 1e-3  # the published eps: keeps tanh's limits inside the outermost cells,
MOST = 1000  # of so many levels at most


class FSQ(LevelGrid):
    """Finite scalar quantisation (Mentzer et al. 2023, appendix).

    The published shift is tan(1/2 / half); the inverse of the tanh that follows would be atanh.
    From L = 4 on they differ by less than 4e-4; at L = 2 atanh does not exist, so the published one
    is kept.

    Trained with one size for each sample, the indices of a batch have no common range and are None.

    Args:
        levels: For each offered size K, the levels L >= 2 of each dimension (5 or more, the paper
            advises); all of one length d. FSP's table if None.

    Raises:
        ValueError: Levels of unequal length, or outside 2 to `MOST`.
    """

    def __init__(self, levels: Mapping[int, Sequence[int]] | None = None) -> None:
        super().__init__(LEVELS if levels is None else levels, fewest=2, most=MOST)

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Quantises, in training as in eval.

        Indices (B, 1, *S), None where each sample has its own size.
        """
        levels = self._levels_like(z, codebook_size)
        through = bound(z, levels)
        rounded, half = through.detach().round(), levels // 2
        indices = None
        if not isinstance(codebook_size, Tensor):
            indices = self._fold(rounded.long() + half, self._row(codebook_size))
        return BottleneckOutput(straight_through(rounded / half, through / half), indices)

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:
        levels = self._levels_like(z, size)
        return bound(z, levels) / (levels // 2)

    def _digits(self, z: Tensor, row: int) -> Tensor:
        levels = along_channels(self.levels[row], z)
        return bound(z, levels).round().long() + levels // 2  # half to even, as published

    def _values(self, digits: Tensor, row: int) -> Tensor:
        half = along_channels(self.levels[row], digits) // 2
        return (digits - half).float() / half


class NoiseFSQ(LevelGrid):
    """Symmetric finite scalar quantisation with noise (Parker et al. 2024, as VP-VAE's baseline).

    While training, half of the tokens are quantised with a straight-through gradient and half get
    uniform noise one level step wide; that noise may leave [-1, 1] by half a step. A mask per
    token, as in FSP; L3AC's code draws one per element, and divides by L instead of L - 1.

    Args:
        levels: For each offered size K, the levels L >= 2 of each dimension; all of one length d.
            FSP's table if None.
        quantise_probability: Share of tokens that are quantised while training.

    Raises:
        ValueError: Levels of unequal length, or below 2; or a probability outside [0, 1].
    """

    def __init__(
        self, levels: Mapping[int, Sequence[int]] | None = None, quantise_probability: float = 0.5
    ) -> None:
        super().__init__(LEVELS if levels is None else levels, fewest=2)
        self.quantise_probability = real(quantise_probability, "quantise_probability", 0, 1)

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Quantises half of the tokens and perturbs the others; no indices."""
        t = (torch.tanh(z) + 1) / 2
        steps = self._levels_like(z, codebook_size) - 1
        token = (t.shape[0], 1, *t.shape[2:])
        quantise = torch.rand(token, device=t.device, dtype=t.dtype) < self.quantise_probability
        moved = t + (torch.rand_like(t) - 0.5) / steps
        value = torch.where(quantise, torch.floor(steps * t + 0.5) / steps, moved)
        return BottleneckOutput(straight_through(2 * value - 1, 2 * t - 1), None)

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:  # noqa: ARG002
        return 2 * ((torch.tanh(z) + 1) / 2) - 1

    def _digits(self, z: Tensor, row: int) -> Tensor:
        steps = along_channels(self.levels[row], z) - 1
        return torch.floor(steps * (torch.tanh(z) + 1) / 2 + 0.5).long()

    def _values(self, digits: Tensor, row: int) -> Tensor:
        return (2 * digits).float() / (along_channels(self.levels[row], digits) - 1) - 1


def bound(z: Tensor, levels: Tensor) -> Tensor:
    """(B, d, *S) -> inside the L levels that rounding gives, -(L // 2) to (L - 1) // 2.

    z = 0 stays (nearly) 0.
    """
    levels = levels.float()
    half = (levels - 1) * (1 - SQUEEZE) / 2
    offset = 0.5 * (1 - levels % 2)  # 0.5 where L is even
    return torch.tanh(z + torch.tan(offset / half)) * half - offset
