"""Measures how much of a codebook is in use, see docs/methods/metrics.md.

Perplexity means three things in the literature, and they differ: exp H of the batch's mean posterior (the GM-VQ paper),
of the batch's index counts, and of the index counts of the whole test set (CVU is the last one over K).
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(weights: Tensor) -> float:
    """Returns H in nats of a distribution, given as counts or probabilities (K,), not all zero."""
    p = weights.double() / weights.double().sum()
    return float(-torch.xlogy(p, p).sum())


def perplexity(weights: Tensor) -> float:
    """Returns exp H of a distribution (K,), a number from 1 to K."""
    return float(torch.tensor(entropy(weights), dtype=torch.float64).exp())


def soft_perplexity(posteriors: Tensor) -> float:
    """Returns exp H of the mean of (N, K) posteriors."""
    return perplexity(posteriors.mean(0))


def hard_usage(batches: list[Tensor], num_codes: int) -> dict[str, float]:
    """Returns statistics of the indices of a test set.

    Args:
        batches: Integer indices of each batch, any shape. Batches smaller than the first are left out of the mean over
            batches, since perplexity is bounded by the number of tokens.
        num_codes: The number of codes K.

    Returns:
        "perplexity_hard_batch" (mean over batches), "perplexity_hard_global", "cvu" = global / K, "h0" in bits per
        token, and "used", the share of codes that occur.
    """
    counts = [batch.flatten().bincount(minlength=num_codes) for batch in batches]
    whole = [perplexity(c) for c, batch in zip(counts, batches, strict=True) if batch.numel() == batches[0].numel()]
    total = torch.stack(counts).sum(0)
    everywhere = perplexity(total)
    return {
        "perplexity_hard_batch": sum(whole) / len(whole),
        "perplexity_hard_global": everywhere,
        "cvu": everywhere / num_codes,
        "h0": float(torch.tensor(everywhere).log2()),
        "used": float((total > 0).double().mean()),
    }
