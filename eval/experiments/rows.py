"""The rows of the GM-VQ paper's Table 1, as data: what is trained, with which loss weights, and
what was published.

The objective is mean form: mse over pixels in [0, 1] plus weight * loss, losses as means over
elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import cos, pi
from typing import Any

LATENT = 64  # L, of the paper
# G' = gamma * tokens * L / elements. The lowest error on held-out pictures had gmvq-grid here.
GAMMA = 0.003
BETA = 16.0  # of GM-VQ+Entropy, chosen likewise; the paper says above 1, without a value
# Of pixels in [0, 1]; the first VQ-VAE code divides the squared error by it.
CIFAR_VARIANCE = 0.0633


@dataclass(frozen=True, slots=True)
class Row:
    """One method.

    Attributes:
        name: What the table calls it.
        bottleneck: A key of `BOTTLENECKS`.
        weights: The weight of each loss by its name.
        source: Where the weights come from.
        ramps: For some losses the share of the training in which the weight rises from 0, along
            half a cosine.
        self_weighted: SQ-VAE's likelihood with a learnt variance, D/2 log mse + T L (losses): the
            same gradient as with weights times 2 T L mse / D, which fall as the error does.
        posterior: Whether the method has a q(c|x), whose perplexity the training forward reports.
        options: Further arguments of the bottleneck.
    """

    name: str
    bottleneck: str
    weights: Mapping[str, float]
    source: str
    self_weighted: bool = False
    posterior: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    ramps: Mapping[str, float] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Returns what decides a run, as plain JSON data."""
        return {key: value for key, value in asdict(self).items() if key not in ("name", "source")}

    def weights_at(self, progress: float) -> dict[str, float]:
        """Returns the weights at `progress` in [0, 1] of the training."""
        risen = {name: min(progress / share, 1.0) for name, share in self.ramps.items()}
        return {
            name: weight * (1 - cos(pi * risen.get(name, 1.0))) / 2
            for name, weight in self.weights.items()
        }


def gmvq(
    name: str, beta: float, options: Mapping[str, Any] | None = None, gamma: float = GAMMA
) -> Row:
    """Returns GM-VQ at one beta: the latent term weighs g', the KL g' beta / L."""
    weights = {"latent": gamma, "kl": gamma * beta / LATENT}
    return Row(name, "gmvq", weights, GMVQ_SOURCE, posterior=True, options=options or {})


VQ_WEIGHTS = {"codebook": CIFAR_VARIANCE, "commitment": 0.25 * CIFAR_VARIANCE}
VQ_SOURCE = "van den Oord et al.: 1 and 0.25 beside the error over the data's variance"
OPT_WEIGHTS = {"commitment": 0.0}
SQ_SOURCE = "Takida et al.: the likelihood's own, times 2 T L mse / D"
GMVQ_SOURCE = "chosen by gmvq-grid"
GUMBEL_SOURCE = (
    "Karpathy: 5e-4 beside the error over twice the data's variance, from 0 in the first thirtieth"
)
# Updates of the KL's ramp and of the temperature's, which here takes the whole training.
GUMBEL_RAMP = 5000 / 150_000
OPT_SOURCE = "Huh et al.: the encoder learns from the task alone"

ROWS: tuple[Row, ...] = (
    Row("vq", "vq", VQ_WEIGHTS, VQ_SOURCE),
    Row("vq-l2", "vq-l2", VQ_WEIGHTS, VQ_SOURCE),
    Row("vq-replace", "vq-replace", VQ_WEIGHTS, VQ_SOURCE),
    Row("vq-l2-replace", "vq-l2-replace", VQ_WEIGHTS, VQ_SOURCE),
    Row("vq-affine", "vq-affine", VQ_WEIGHTS, VQ_SOURCE),
    Row("vq-opt", "vq-opt", OPT_WEIGHTS, OPT_SOURCE),
    Row("vq-affine-opt", "vq-affine-opt", OPT_WEIGHTS, OPT_SOURCE),
    Row(
        "sqvae",
        "sqvae",
        {"latent": 1.0, "kl": 1 / LATENT},
        SQ_SOURCE,
        self_weighted=True,
        posterior=True,
    ),
    Row(
        "gumbelvq",
        "gumbelvq",
        {"kl": 5e-4 * 2 * CIFAR_VARIANCE},
        GUMBEL_SOURCE,
        posterior=True,
        ramps={"kl": GUMBEL_RAMP},
    ),
    gmvq("gmvq", beta=1.0),
    gmvq("gmvq+entropy", beta=BETA),
)

# MSE x 1e-3 and perplexity as published; the baselines agree with Huh et al. 2023 and were probably
# copied from there.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "cifar10": {
        "vq": (5.65, 14.0),
        "vq-l2": (3.21, 57.0),
        "vq-replace": (4.07, 109.8),
        "vq-l2-replace": (3.24, 115.6),
        "vq-affine": (5.15, 69.5),
        "vq-opt": (4.73, 15.5),
        "vq-affine-opt": (4.00, 79.3),
        "sqvae": (3.36, 769.3),
        "gumbelvq": (6.16, 20.3),
        "gmvq": (3.13, 731.9),
        "gmvq+entropy": (3.11, 878.7),
    },
    "celeba": {
        "vq": (10.02, 16.2),
        "vq-l2": (6.49, 188.7),
        "vq-replace": (4.77, 676.4),
        "vq-l2-replace": (4.93, 861.7),
        "vq-affine": (7.47, 112.6),
        "vq-opt": (7.78, 30.5),
        "vq-affine-opt": (6.60, 186.6),
        "sqvae": (9.17, 769.1),
        "gumbelvq": (7.34, 96.7),
        "gmvq": (1.38, 338.6),
        "gmvq+entropy": (0.97, 831.0),
    },
}
