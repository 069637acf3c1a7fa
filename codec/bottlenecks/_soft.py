"""Soft choices among K codes, and how many of them a batch uses."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_softmax(logits: Tensor, tau: Tensor) -> Tensor:
    """softmax((logits + g) / tau) with g ~ Gumbel(0, 1) (Jang et al. 2017): (N, K) -> (N, K), rows sum to 1.

    torch's own takes -log of exponential draws, of which a CPU makes one in 2^24 exactly 0: an infinity, and then NaN.
    """
    clock = torch.empty_like(logits).exponential_().clamp_(min=torch.finfo(logits.dtype).tiny)
    return ((logits - clock.log_()) / tau).softmax(1)


def perplexity(probabilities: Tensor) -> Tensor:
    """exp of the entropy of one distribution (K,), in [1, K]: how many equally likely codes would be as many."""
    entropy: Tensor = torch.special.entr(probabilities).sum()
    return entropy.exp()


def batch_perplexity(indices: Tensor, size: int) -> Tensor:
    """Perplexity of the indices of a batch, any shape, int64 in [0, size)."""
    counts = torch.bincount(indices.flatten(), minlength=size)
    return perplexity(counts / counts.sum())
