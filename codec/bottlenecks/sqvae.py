"""SQ-VAE, stochastically quantised VAE, of type Gaussian-I (Takida et al. 2022).

A latent vector is a noisy code, and its variance, one learnt number, says how noisy. Training
decodes a soft mixture of codes; as reconstruction improves the variance falls, and the mixture
hardens by itself.

    train  logits -|z - mu|^2 / (2 var) ──Gumbel, softmax──> mixture of codes
           pulls: distance, KL(q(c|x) || uniform)
    eval   nearest code ──> index ──> mu
"""

from __future__ import annotations

from math import exp, log

import torch
from torch import Tensor, nn

from codec.bottleneck import BottleneckOutput, Size, to_grid, to_tokens
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import SoftCodebooks, gumbel_softmax, perplexity
from codec.bottlenecks._start import check_latents, kmeans_start
from codec.bottlenecks._sync import mean_of_all

# Of the code: its posterior's own log variance stays 0, which adds 1.
VARIANCE_START, VARIANCE_FLOOR = 20.0, 1.0
# tau = exp(-1e-5 step) over the published 125 000 steps of CIFAR (100 epochs of 40 000, batch 32)
TAU_RATE = 1.25


class SQVAE(SoftCodebooks):
    """Stochastically quantised VAE, form Gaussian-I (Takida et al. 2022).

    Losses: "latent", |z - z_q|^2 / (2 var) per dimension, and "kl", log K - H(q(c|x)) in nats per
    token. With means over signal elements, the objective is

        distortion + g' (latent + kl / L)        that is, recipe weights  latent = g',  kl = g' / L

    The published distortion is D/2 log(sum of squared errors), which learns its own weight: g' = 2
    T L mse / D for T tokens and D elements of a signal, so it falls as the error does. A constant
    g', as for GM-VQ, is the form that the recipes of this project share.

    Each size has its own codebook and variance.

    Args:
        dim: L (64 in the paper).
        codebook_sizes: The sizes K (512 in the paper).

    Raises:
        ValueError: The sizes are not ascending.
    """

    fitted: Tensor  # () bool

    loss_names = ("latent", "kl")

    def __init__(self, dim: int = 64, codebook_sizes: tuple[int, ...] = (1024,)) -> None:
        super().__init__(dim, codebook_sizes)
        start = torch.tensor(log(VARIANCE_START), dtype=torch.float32)
        self.log_variances = nn.ParameterDict(
            {str(k): nn.Parameter(start.clone()) for k in self.codebook_sizes}
        )
        self.register_buffer("fitted", torch.tensor(False))

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Mixes codes.

        Returns:
            z_q (B, L, *S), a mixture, and no indices; the stats "perplexity" (of the batch's mean
            posterior), "entropy" (mean H(q(c|x)), nats) and "variance".
        """
        size = self.check_size(codebook_size)
        points, codebook, variance = to_tokens(z), self.codebook(size), self.variance(size)
        scores = logits(points, codebook, variance)
        log_p = scores.log_softmax(1)
        mixed = gumbel_softmax(scores, self.tau) @ codebook  # soft: no straight-through
        entropy = -(log_p.exp() * log_p).sum(1).mean()
        latent = (points - mixed).square().mean() / (2 * variance)
        stats = {
            "perplexity": perplexity(mean_of_all(log_p.detach().exp().mean(0))),
            "entropy": entropy.detach(),
            "variance": variance.detach(),
        }
        return BottleneckOutput(
            to_grid(mixed, z), None, {"latent": latent, "kl": log(size) - entropy}, stats
        )

    def _encode(self, z: Tensor, size: int) -> Tensor:
        """argmax over c of the logits, which is the Euclidean nearest code."""
        return to_grid(nearest(to_tokens(z), self.codebook(size))[:, None], z)

    def variance(self, codebook_size: int | None = None) -> Tensor:
        """() var = 1 + exp(rho), 21 at the start."""
        rho: Tensor = self.log_variances[str(self.check_size(codebook_size))]
        return VARIANCE_FLOOR + rho.exp()

    @staticmethod
    def temperature(progress: float) -> float:
        """tau = exp(-1.25 progress), from 1 to 0.29 as in the published run."""
        return exp(-TAU_RATE * progress)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Initialises every codebook by k-means on (N, L) encoder outputs: once, before training.

        Raises:
            TypeError: `latents` is no tensor.
            ValueError: `latents` is not (N >= 1, L), has no float type or is not finite.
        """
        points = check_latents(latents, self.in_dim)
        if self.fitted:
            return
        for size in self.codebook_sizes:
            self.codebook(size).copy_(kmeans_start(points, size))
        self.fitted.fill_(True)


def logits(points: Tensor, codebook: Tensor, variance: Tensor) -> Tensor:
    """(N, K) logits: -|z - mu|^2 / (2 var) less its part that is the same for all codes.

    z is (N, L), mu (K, L), var ().

    Both are centred on the codebook's mean first, or the products would cancel far from the origin.
    """
    centre = codebook.detach().mean(0)
    codes = codebook - centre
    return ((points - centre) @ codes.T - 0.5 * codes.square().sum(1)) / variance
