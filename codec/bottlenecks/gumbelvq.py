"""GumbelVQ, codes by classification (Jang et al. 2017; Karpathy; Esser et al. 2021).

Jang et al. gave the Gumbel-softmax, Karpathy and Esser et al. made a VQ-VAE of it.

The encoder's output is projected to K logits, one for each code; no distance is involved, and the
codebook is free.

    train  logits ──Gumbel, softmax──> weights ──> mixture of codes
           (or the drawn code, straight-through)
    eval   logits ──argmax──> index ──> code
"""

from __future__ import annotations

from math import cos, log, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.arguments import flag
from codec.bottleneck import BottleneckOutput, Size, to_grid, to_tokens
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import SoftCodebooks, gumbel_softmax, perplexity
from codec.bottlenecks._sync import mean_of_all

TAU_START, TAU_END = 1.0, 1 / 16


class GumbelVQ(SoftCodebooks):
    """Codes by classification (Jang et al. 2017; Karpathy; Esser et al. 2021).

    Loss "kl": KL(q(c|x) || uniform) in nats, mean over tokens; 5e-4 is the usual weight. Karpathy
    raises that weight along half a cosine over the first 5000 of the temperature's 150 000 steps,
    which is the recipe's to do (`eval.experiments` does). (The published 1e-10 inside the KL's
    logarithm is not needed: log q comes from log_softmax.)

    The published eval draws Gumbel noise too; here it takes the most likely code and no random
    number.

    Each size has its own projection and codebook. There is nothing to fit: no code stands near its
    latents.

    Args:
        dim: L (64 in the papers).
        codebook_sizes: The sizes K.
        in_dim: Channels of z, those that are projected to logits; `dim` if None.
        hard: Decode the drawn code, with the gradient of the mixture (Esser et al.), instead of the
            mixture (Karpathy).

    Raises:
        ValueError: The sizes are not ascending.
    """

    loss_names = ("kl",)

    def __init__(
        self,
        dim: int = 64,
        codebook_sizes: tuple[int, ...] = (1024,),
        in_dim: int | None = None,
        hard: bool = False,
    ) -> None:
        super().__init__(dim, codebook_sizes, in_dim)
        self.hard = flag(hard, "hard")
        # At each position: a convolution of 1 x 1.
        projections = {
            str(k): nn.Linear(self.in_dim, k, dtype=torch.float32) for k in self.codebook_sizes
        }
        self.projections = nn.ModuleDict(projections)

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Draws or mixes codes.

        Returns:
            z_q (B, L, *S); indices (B, 1, *S), the drawn codes if `hard`, else None; the stats
            "perplexity" (of the batch's mean posterior) and "entropy" (mean H(q(c|x)), nats).
        """
        size = self.check_size(codebook_size)
        codebook = self.codebook(size)
        logits = self._projection(size)(to_tokens(z))
        log_q = logits.log_softmax(1)
        kl = uniform_kl(log_q)
        weights = gumbel_softmax(logits, self.tau)
        drawn = None
        if self.hard:
            drawn = weights.argmax(1)
            # onehot + y - sg(y): the gradient reaches the drawn row, and the logits through all
            # rows
            mixed = F.embedding(drawn, codebook) + (weights - weights.detach()) @ codebook.detach()
            drawn = to_grid(drawn[:, None], z)
        else:
            mixed = weights @ codebook
        stats = {
            "perplexity": perplexity(mean_of_all(log_q.detach().exp().mean(0))),
            "entropy": log(size) - kl.detach(),
        }
        return BottleneckOutput(to_grid(mixed, z), drawn, {"kl": kl}, stats)

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:
        """That of the softmax mixture."""
        return to_grid(self._projection(size)(to_tokens(z)).softmax(1) @ self.codebook(size), z)

    def _encode(self, z: Tensor, size: int) -> Tensor:
        """argmax over c of w_c x + b_c.

        Searched as the nearest of the rows (w_c, a_c) to (x, 0) with a_c^2 = C - |w_c|^2 - 2 b_c:
        their squared distance is |x|^2 + C - 2 (w_c x + b_c), and the search gives one answer
        whatever the batch.
        """
        projection = self._projection(size)
        weight, bias = projection.weight.double(), projection.bias.double()
        norm = weight.square().sum(1) + 2 * bias
        rows = torch.cat([weight, (norm.max() - norm).sqrt()[:, None]], 1).float()
        tokens = F.pad(to_tokens(z), (0, 1))
        return to_grid(nearest(tokens, rows)[:, None], z)

    @staticmethod
    def temperature(progress: float) -> float:
        """tau from 1 to 1/16 along a cosine (Karpathy)."""
        return TAU_END + (TAU_START - TAU_END) * (1 + cos(pi * progress)) / 2

    def _projection(self, size: int) -> nn.Linear:
        layer = self.projections[str(size)]
        assert isinstance(layer, nn.Linear)
        return layer


def uniform_kl(log_q: Tensor) -> Tensor:
    """() mean over tokens of KL(q || uniform) = log K + sum_c q log q, nats.

    (N, K) log probabilities.
    """
    return log(log_q.shape[1]) + (log_q.exp() * log_q).sum(1).mean()
