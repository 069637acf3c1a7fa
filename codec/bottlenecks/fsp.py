"""FSP, finite scalar perturbation (VP-VAE, arXiv 2602.17133, section on FSP, eqs. 14-18).

Each latent dimension is squashed into [0, 1] by a CDF-like activation and cut into L equal cells
whose midpoints are the codebook: the Lloyd-Max quantiser of a uniform variable. While training,
half of the tokens are quantised with a straight-through gradient and half are moved by uniform
noise as wide as a cell, refused where it would leave [0, 1].

    a (B, d, *S) ──g──> [0,1]^d ──floor(L z)──> digits ──mixed radix──> index
                                                digits ──(l + 1/2)/L──> z_q, scaled to unit variance

There are no parameters and no codebook to store, so one trained encoder and decoder serve every
size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import pi, sqrt
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from codec.arguments import choice, real
from codec.bottleneck import BottleneckOutput, Size, straight_through, to_tokens
from codec.bottlenecks._grid import LevelGrid, along_channels
from codec.bottlenecks._sync import var_mean_of_all

# The levels of every offered size have the same length d, so that one latent space serves all of
# them. The paper ties d to K: [8,6,5] and [8,5,5,5] for its two small sizes (docs/methods/fsp.md
# gives tables of constant d).
LEVELS: dict[int, tuple[int, ...]] = {
    256: (4, 4, 4, 2, 2),
    1024: (4, 4, 4, 4, 4),
    4096: (7, 5, 5, 5, 5),
    16384: (8, 8, 8, 6, 5),
}
EPS = torch.finfo(torch.float32).eps
# Of U(0, 1); the output is divided by it so that the decoder sees unit variance.
UNIFORM_STD = 1 / sqrt(12)


class Activation(NamedTuple):
    """A CDF-like map R -> [0, 1], and the variance of the inputs that make its output uniform.

    The variance is None where those inputs have none.
    """

    forward: Callable[[Tensor], Tensor]
    variance: float | None


# Functions with names, so that a bottleneck can be pickled.
def _tanh_cdf(a: Tensor) -> Tensor:
    return (torch.tanh(a) + 1) / 2


def _laplace_cdf(a: Tensor) -> Tensor:
    tail = 0.5 * torch.exp(-torch.where(a < 0, -a, a))  # abs(a) has no gradient at 0
    return torch.where(a < 0, tail, 1 - tail)


def _cauchy_cdf(a: Tensor) -> Tensor:
    return torch.atan(a) / pi + 0.5


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(_tanh_cdf, pi**2 / 12),
    "sigmoid": Activation(torch.sigmoid, pi**2 / 3),
    "normal": Activation(torch.special.ndtr, 1.0),
    "laplace": Activation(_laplace_cdf, 2.0),
    "cauchy": Activation(_cauchy_cdf, None),
}

Accept = Literal["element", "vector"]


class FSP(LevelGrid):
    """Finite scalar perturbation.

    Args:
        levels: For each offered size K, the number of levels of each dimension; all of one length
            d.
        activation: One of `ACTIVATIONS`; tanh and sigmoid are one family at two scales. With
            "cauchy" both losses are 0: that distribution has neither mean nor variance, so eq. 14
            has no target that would make its output uniform.
        eta: Width of the noise in cells (eq. 16).
        quantise_probability: Share of tokens that are quantised while training (eq. 18). The
            published code's default is 0, the paper's 1/2 at each forward pass; a mask per token
            has the same mean and less variance.
        accept: "element" refuses noise for each dimension by itself (published code), "vector" all
            or nothing (paper).

    Raises:
        ValueError: Levels of unequal length or below 1, an activation or `accept` that is not
            known, or a number that is out of its range.
    """

    loss_names = ("mean", "variance")

    def __init__(
        self,
        levels: Mapping[int, Sequence[int]] | None = None,
        activation: str = "tanh",
        eta: float = 1.0,
        quantise_probability: float = 0.5,
        accept: Accept = "element",
    ) -> None:
        super().__init__(LEVELS if levels is None else levels, fewest=1)
        self.activation = ACTIVATIONS[choice(activation, "activation", ACTIVATIONS)]
        self.eta = real(eta, "eta", 0)
        self.quantise_probability = real(quantise_probability, "quantise_probability", 0, 1)
        self.accept = choice(accept, "accept", get_args(Accept))

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        levels = self._levels_like(z, codebook_size)
        u = self._squash(z)
        moved, accepted = self._perturb(u, levels)
        token = (u.shape[0], 1, *u.shape[2:])
        quantise = torch.rand(token, device=u.device, dtype=u.dtype) < self.quantise_probability
        value = torch.where(quantise, (_cells(u, levels) + 0.5) / levels, moved)
        z_q = self._scale(straight_through(value, u))
        return BottleneckOutput(
            z_q, None, self._moments(z), {"accept_rate": accepted.float().mean()}
        )

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:  # noqa: ARG002
        return self._scale(self._squash(z))

    def parents(self, codebook_size: int, coarser: int) -> Tensor | None:
        """Nested where every level is cut into 1, 2, 4 ... parts.

        There floor(L u) = floor(2 L u) // 2, exactly in floats.
        """
        row, coarse_row = self._row(codebook_size), self._row(coarser)
        fine, coarse = self.levels[row], self.levels[coarse_row]
        parts = fine // coarse
        if (coarse * parts != fine).any() or (parts & (parts - 1)).any():
            return None
        indices = torch.arange(self.num_codes(codebook_size), device=fine.device)[:, None]
        return (indices // self.basis[row] % fine // parts * self.basis[coarse_row]).sum(1)

    def target(self, z: Tensor) -> Tensor:
        return self._scale(self._squash(z.float()))

    def _digits(self, z: Tensor, row: int) -> Tensor:
        return _cells(self._squash(z), along_channels(self.levels[row], z)).long()

    def _values(self, digits: Tensor, row: int) -> Tensor:
        return self._scale((digits.float() + 0.5) / along_channels(self.levels[row], digits))

    def _squash(self, a: Tensor) -> Tensor:
        """g(a) in [0, 1 - eps].

        float32 tanh reaches 1 exactly above 9, which would be a level too many.
        """
        return self.activation.forward(a).clamp(max=1 - EPS)

    def _scale(self, u: Tensor) -> Tensor:
        """[0, 1] -> what the decoder gets, of unit variance where u is uniform."""
        return (u - 0.5) / UNIFORM_STD

    def _perturb(self, u: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Eqs. 16-17: noise one cell wide, refused where it leaves [0, 1].

        This is a Metropolis step for a uniform density.
        """
        proposal = u.detach() + (torch.rand_like(u) - 0.5) * (self.eta / levels.float())
        inside = (proposal >= 0) & (proposal <= 1)
        if self.accept == "vector":
            inside = inside.all(1, keepdim=True).expand_as(inside)
        return torch.where(inside, proposal, u.detach()), inside

    def _moments(self, a: Tensor) -> dict[str, Tensor]:
        """Eq. 14 on pre-activations, as means over dimensions.

        The target variance makes g(a) uniform.

        The variance is unbiased, as VP's is.
        """
        target = self.activation.variance
        if target is None:
            return {"mean": a.new_zeros(()), "variance": a.new_zeros(())}
        variance, mean = var_mean_of_all(to_tokens(a))
        return {"mean": mean.square().mean(), "variance": (variance - target).square().mean()}


def _cells(u: Tensor, levels: Tensor) -> Tensor:
    """min(floor(L u), L - 1), eq. 18, as floats."""
    return torch.minimum(torch.floor(u.detach() * levels), levels - 1)
