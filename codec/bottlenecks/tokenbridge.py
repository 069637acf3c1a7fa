"""TokenBridge (Wang et al. 2025): a Gaussian VAE, quantised by dimension after training.

    z (B, 2d, *S) = mean, log variance
    train  mean + std eps ──> z_q         pull: KL(N(mean, var) || N(0, 1))
    eval   mean ──nearest of n fixed values, in each dimension──> digits ──mixed radix──> index

The values are those of n equally likely cells of a standard normal, cut at +-3. Nothing is learnt
about quantisation, and a KL strong enough to make the latents normal also makes them empty: expect
a weak baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from codec.arguments import positive
from codec.bottleneck import BottleneckOutput, Size
from codec.bottlenecks._grid import LevelGrid, along_channels
from codec.bottlenecks.fsp import LEVELS

CUT = 3.0  # where the outermost cells of the standard normal end
MOST = 740  # levels: of one more, the outermost cell would lie beyond the cut
# Of latent diffusion's Gaussian VAE, whose latents the method takes.
LOG_VARIANCE_LIMITS = (-30.0, 20.0)


class TokenBridge(LevelGrid):
    """Gaussian VAE, quantised after training (Wang et al. 2025).

    Loss "kl": KL(N(mean, var) || N(0, 1)) in nats, mean over dimensions; 1e-6 to 1e-4 are usual
    weights. VP-VAE's 11.5 dB for this method look like posterior collapse under a larger one.

    Args:
        levels: For each offered size K, the number n of values of each dimension; all of one length
            d. FSP's table if None; the papers have 64 or, in VP-VAE, 4 in all of them.
        latent_range: Latents in [-latent_range, latent_range] are mapped linearly to [-3, 3],
            others cut. The published code has 5; 3 would suit latents that are standard normal.

    Raises:
        ValueError: Levels of unequal length, below 1 or above `MOST`, or a range that is not
            positive.
    """

    table: Tensor  # (sizes, d, n) float32, the values in increasing order, padded by infinity
    borders: Tensor  # (sizes, d, n - 1) float32, halfway between neighbours, padded by infinity

    loss_names = ("kl",)

    def __init__(
        self, levels: Mapping[int, Sequence[int]] | None = None, latent_range: float = 5.0
    ) -> None:
        super().__init__(LEVELS if levels is None else levels, fewest=1, most=MOST, inputs=2)
        latent_range = positive(latent_range, "latent_range")
        table = torch.full(
            (*self.levels.shape, int(self.levels.max())), torch.inf, dtype=torch.float64
        )
        borders = table[..., 1:].clone()
        for place in torch.cartesian_prod(*map(torch.arange, self.levels.shape)).tolist():
            values = cell_means(int(self.levels[tuple(place)])) * latent_range / CUT
            table[tuple(place)][: len(values)] = values
            borders[tuple(place)][: len(values) - 1] = (values[1:] + values[:-1]) / 2
        self.register_buffer("table", table.float(), persistent=False)
        self.register_buffer("borders", borders.float(), persistent=False)

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Samples the Gaussian; the stat "std" is its mean standard deviation."""
        mean, log_variance = z.chunk(2, 1)
        # Training is the same for all sizes, but must be of one on offer.
        self._levels_like(mean, codebook_size)
        log_variance = log_variance.clamp(*LOG_VARIANCE_LIMITS)
        losses = {"kl": 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()}
        std = (0.5 * log_variance).exp()
        return BottleneckOutput(
            mean + std * torch.randn_like(mean), None, losses, {"std": std.detach().mean()}
        )

    def _digits(self, z: Tensor, row: int) -> Tensor:
        """Finds the nearest value, not the cell that holds the mean.

        Values stand off-centre in their cells.
        """
        mean = z[:, : self.dim]
        digits = torch.zeros_like(mean, dtype=torch.int64)
        for border in self.borders[row].unbind(1):
            digits += mean > along_channels(border, mean)
        return digits

    def _values(self, digits: Tensor, row: int) -> Tensor:
        tokens = digits.movedim(1, -1)
        return (
            self.table[row][torch.arange(self.dim, device=digits.device), tokens]
            .movedim(-1, 1)
            .contiguous()
        )


def cell_means(count: int) -> Tensor:
    """(count,) float64 means of a standard normal in `count` equally likely cells.

    The outermost cells are cut at +-3.
    """
    share = torch.arange(count + 1, dtype=torch.float64) / count
    edges = torch.special.ndtri(share).clamp(-CUT, CUT)
    density = torch.exp(-edges.square() / 2) / (2 * torch.pi) ** 0.5
    means = -density.diff() / torch.special.ndtr(edges).diff()
    symmetric: Tensor = (means - means.flip(0)) / 2  # to the last bit
    return symmetric
