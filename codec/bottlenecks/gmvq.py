"""GM-VQ, Gaussian mixture vector quantisation (Yan, Wu, Shah, Liu).

With its entropy term it is GM-VQ+Entropy.

Each code is the mean of a Gaussian. The encoder predicts a point z^ and positive weights w, which
give a soft choice of codes; training draws a code from it, with straight-through gradients, and
adds noise as large as the point's distance to that code.

    z (B, 2L, *S) = z^, r        w = softplus(r)
    train  logits -w|z^ - mu|^2/2 ──Gumbel──> code j ──> mu_j + sigma eps
           pulls: the distance, KL(q_B || uniform)
    eval   logits ──argmax──> index ──> mu
"""

from __future__ import annotations

from math import log
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.arguments import choice, positive, real, whole
from codec.bottleneck import BottleneckOutput, Size, to_grid, to_tokens
from codec.bottlenecks._mixture import code_moments, draw
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import SoftCodebooks
from codec.bottlenecks._start import check_latents, kmeans_start
from codec.bottlenecks._sync import mean_of_all

LatentTerm = Literal["sampled", "posterior", "literal"]

# Of the paper, which gives no shape; exponential as usual for Gumbel-softmax.
TAU_START, TAU_END = 2.0, 0.1
SMALLEST_VARIANCE = 1e-12  # the gradient of a square root at 0 is infinite


class GMVQ(SoftCodebooks):
    """Gaussian mixture vector quantisation.

    Losses "latent", the pull of points and codes to each other per dimension, and "kl",
    KL(q_B || uniform) in nats of the batch's mean posterior q_B. Written with means over signal
    elements, the paper's objective (eqs. 13, 14, 21) is

        mse + g' (latent + (beta / L) kl)

    that is, recipe weights latent = g' and kl = g' beta / L,
    with g' = gamma * tokens * L / elements of the signal; KL counts once per token. Begin at
    g' = 0.03 and beta = 1; beta > 1 is GM-VQ+Entropy. The paper calls the objective a bound on the
    likelihood; it is one only where a differential entropy, whose sign depends on the latents'
    scale, is not negative. Treat it as an objective.

    "latent" has three readings, of which the paper's text (eq. 14) and its algorithm (eq. 18) imply
    different ones:
        sampled: |z - mu_j|^2 of the drawn code and noise, as a commitment loss. The default: in a
            short run on CIFAR (one seed) it kept 471 codes in use and reached the lower error.
        posterior: its mean over codes and noise. Less variance, but it sharpens q(c|x) early: 127
            codes in that run.
        literal: z and c independent, as eq. 14 is written; it pulls everything to one point. For
            ablation only.

    The scale drifts: shrinking z^ and the codes while growing w changes nothing but "latent", which
    falls. Weight decay on the codebook resists; watch the stats "latent_std" and "weight". w is cut
    at `max_weight`.

    Each size in `codebook_sizes` has its own codebook, a parameter; encoder and decoder are shared
    and the size is drawn for a batch at a time.

    Args:
        dim: L (64 in the paper).
        codebook_sizes: The sizes K (1024 in the paper).
        two_sigma2: 2 sigma^2 of eq. 18. With "2 sigma_z^2 = beta" and beta = 1 in the paper's
            appendix it is 1; it stays a constant of its own when beta is raised.
        latent_term: Which reading of the distance.
        max_weight: Upper limit of w.
        weight_offset: Added to r. With 0, as in the paper, w begins at 0.69 and logits spread by
            about w L / 2. Few dimensions ask for far more than 0.69 * 64 / L, or most draws are
            codes far from the point and the decoder learns from those: L = 8, pictures, 300 steps,
            one seed: mse 0.0122 at 5.5, 0.0086 at 40, 0.0082 at 100 and 200; the posterior's
            entropy was 4.9, 3.2, 2.1 and 1.3 nats.

    Raises:
        ValueError: The sizes are not ascending, there is no such latent term, or a number is out
            of its range.
    """

    loss_names = ("latent", "kl")
    fitted: Tensor  # () bool

    def __init__(
        self,
        dim: int = 64,
        codebook_sizes: tuple[int, ...] = (1024,),
        two_sigma2: float = 1.0,
        latent_term: LatentTerm = "sampled",
        max_weight: float = 1e3,
        weight_offset: float = 0.0,
    ) -> None:
        super().__init__(dim, codebook_sizes, in_dim=2 * whole(dim, "dim", 1))
        self.latent_term = choice(latent_term, "latent term", get_args(LatentTerm))
        self.two_sigma2 = positive(two_sigma2, "two_sigma2")
        self.max_weight = positive(max_weight, "max_weight")
        self.weight_offset = real(weight_offset, "weight_offset")
        self.register_buffer("fitted", torch.tensor(False))

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Draws codes and adds noise.

        Returns:
            z_q (B, L, *S); indices (B, 1, *S), the codes j that were drawn: real draws, good for
            counting usage, but z_q is their rows plus noise. The stats "entropy" (mean H(q(c|x)),
            nats; the KL alone does not keep it low), "perplexity" (exp H(q_B)), "latent_std",
            "weight" and "sigma" (means).
        """
        z_hat, weights = self.points(z)
        codebook = self.codebook(self.check_size(codebook_size))
        draws = draw(z_hat, weights, codebook, self.tau, self.latent_term == "posterior")
        variance = code_variance(z_hat, F.embedding(draws.drawn, codebook), self.two_sigma2)
        noise = torch.randn_like(z_hat)
        sigma = variance.sqrt()
        z_q = draws.choice + sigma[:, None] * noise
        q = mean_of_all(draws.mean)
        kl = kl_to_uniform(q)
        if self.latent_term == "sampled":
            # |z - mu_j|^2: the drawn mean cancels.
            latent = (variance * noise.square().sum(1)).mean()
        elif draws.moments is not None:  # posterior
            latent = mean_distance(z_hat, draws.moments, codebook).mean() / self.two_sigma2
        else:
            latent = mean_distance(z_q, q[None] @ code_moments(codebook), codebook).mean()
        with torch.no_grad():
            stats = {
                "entropy": draws.entropy.mean(),
                "perplexity": len(codebook) * torch.exp(-kl),
                "latent_std": z_hat.std(correction=0),
                "weight": weights.mean(),
                "sigma": sigma.mean(),
            }
        losses = {"latent": latent / self.dim, "kl": kl}
        return BottleneckOutput(to_grid(z_q, z), to_grid(draws.drawn[:, None], z), losses, stats)

    def _encode(self, z: Tensor, size: int) -> Tensor:
        """argmax over c of eq. 16, with the encoder's weights.

        That is not always the Euclidean nearest code.
        """
        z_hat, weights = self.points(z)
        return to_grid(nearest(z_hat, self.codebook(size), weights)[:, None], z)

    @staticmethod
    def temperature(progress: float) -> float:
        """tau = 2 (0.05)^progress, from 2 to 0.1."""
        return float(TAU_START * (TAU_END / TAU_START) ** progress)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Initialises every codebook by k-means on encoder outputs: once, before training.

        A fitted codebook belongs to the optimiser; a later call leaves it alone.

        Args:
            latents: (N, 2L) encoder outputs of several batches, of which max(20 K, 20000) rows are
                used; with fewer rows than codes the rest are noisy copies.

        Raises:
            TypeError: `latents` is no tensor.
            ValueError: `latents` is not (N >= 1, 2L), has no float type or is not finite.
        """
        points = check_latents(latents, self.in_dim)[:, : self.dim]
        if self.fitted:
            return
        for size in self.codebook_sizes:
            self.codebook(size).copy_(kmeans_start(points, size))
        self.fitted.fill_(True)

    def points(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the points z^ (N, L) of (B, 2L, *S), and their weights w, eq. 15.

        The weights are (N, L) in [0, max_weight]: in float32 softplus is 0 far below -100.
        """
        z_hat, raw = to_tokens(z).chunk(2, dim=1)
        return z_hat, F.softplus(raw + self.weight_offset).clamp(max=self.max_weight)


def code_variance(z_hat: Tensor, codes: Tensor, two_sigma2: float) -> Tensor:
    """Eq. 18, sigma_c^2 = |z^ - mu_c|^2 / (L 2 sigma^2): (N, L), (N, L) -> (N,).

    Gradients reach both.
    """
    return (z_hat - codes).square().mean(1) / two_sigma2 + SMALLEST_VARIANCE


def mean_distance(points: Tensor, moments: Tensor, codebook: Tensor) -> Tensor:
    """sum_c p_nc |x_n - mu_c|^2, the mean distance of points to codes under p.

    (N, L) points, (N or 1, L + 1) `code_moments` under p, (K, L) codes -> (N,).
    """
    offsets = points - codebook.detach().mean(0)
    return offsets.square().sum(1) - 2 * (offsets * moments[:, :-1]).sum(1) + moments[:, -1]


def kl_to_uniform(q: Tensor) -> Tensor:
    """Eq. 12: KL(q || uniform) in nats.

    q is q_B (K,), the mean posterior over all tokens of the batch.

    Where float32 makes some q exactly 0, its logarithm is cut, or q log q would send a gradient of
    -infinity.
    """
    return log(len(q)) + (q * q.clamp(min=torch.finfo(q.dtype).tiny).log()).sum()
