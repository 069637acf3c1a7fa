"""Soft choices among K codes: what the methods that draw or mix codes share."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.arguments import real
from codec.bottleneck import Bottleneck
from codec.bottlenecks._sync import sum_of_all


class SoftCodebooks(Bottleneck):
    """A bottleneck whose training draws or mixes codes at a temperature.

    Each size has one codebook, a parameter.

    Args:
        dim: L.
        codebook_sizes: The sizes K.
        in_dim: Channels of z; `dim` if None.

    Raises:
        ValueError: The sizes are not ascending.
    """

    tau: Tensor  # () float32, the temperature; saved so that a resumed run goes on, unused in eval

    def __init__(
        self, dim: int, codebook_sizes: tuple[int, ...], in_dim: int | None = None
    ) -> None:
        super().__init__(dim, codebook_sizes, in_dim)
        start = [(k, torch.randn(k, dim, dtype=torch.float32)) for k in self.codebook_sizes]
        self.codebooks = nn.ParameterDict({str(k): nn.Parameter(codes) for k, codes in start})
        self.register_buffer("tau", torch.tensor(self.temperature(0.0), dtype=torch.float32))

    @property
    def settled(self) -> bool:
        return True

    @staticmethod
    @abstractmethod
    def temperature(progress: float) -> float:
        """tau at `progress` in [0, 1] of the training."""

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        """Codebook rows, without noise."""
        return F.embedding(indices[:, 0], self.codebook(size)).movedim(-1, 1).contiguous()

    def codebook(self, codebook_size: int | None = None) -> Tensor:
        """(K, L), the parameter."""
        parameter: Tensor = self.codebooks[str(self.check_size(codebook_size))]
        return parameter

    def anneal(self, progress: float) -> None:
        """Sets tau to its `temperature`. Raises ValueError outside [0, 1]."""
        self.tau.fill_(self.temperature(real(progress, "progress", 0, 1)))


def gumbel(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gumbel(0, 1) noise in the shape of a float32 tensor, at most 17.4.

    -log of an exponential draw -log(1 - u). torch's own exponential draws are four times as slow on
    a CPU; and both are exactly 0 once in 2^24, an infinity and then NaN, so 0 is taken for half of
    the least step.

    Args:
        like: Gives shape, device and type.
        generator: Where the draws come from; None for torch's own.
    """
    draws = (
        torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
        .neg_()
        .log1p_()
        .neg_()
    )
    return draws.clamp_(min=2.0**-25).log_().neg_()


def gumbel_softmax(logits: Tensor, tau: Tensor) -> Tensor:
    """softmax((logits + g) / tau) with g ~ Gumbel(0, 1) (Jang et al. 2017).

    (N, K) -> (N, K), rows sum to 1.
    """
    # A copy, since `anneal` may set tau anew before backward.
    return ((logits + gumbel(logits)) / tau.clone()).softmax(1)


def perplexity(probabilities: Tensor) -> Tensor:
    """How many equally likely codes would be as many: exp of the entropy, in [1, K].

    Args:
        probabilities: (K,), one distribution.
    """
    entropy: Tensor = torch.special.entr(probabilities).sum()
    return entropy.exp()


def batch_perplexity(indices: Tensor, size: int) -> Tensor:
    """Perplexity of the indices of a batch, any shape, int64 in [0, size)."""
    counts = sum_of_all(count(indices.flatten(), size))
    return perplexity(counts / counts.sum())


def count(indices: Tensor, size: int) -> Tensor:
    """(size,) float32, how often each code occurs among (N,) indices.

    torch.bincount would wait for a GPU.
    """
    counts = torch.zeros(size, dtype=torch.int64, device=indices.device)
    return counts.scatter_add_(0, indices, torch.ones_like(indices)).float()
