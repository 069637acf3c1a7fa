"""How a coupled codebook starts: by k-means on the first encoder outputs, once.

Afterwards it belongs to training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.bottlenecks._kmeans import kmeans, subsample

SEED = 0
ROWS_PER_CODE, FEWEST_ROWS = 20, 20_000  # of latents that k-means sees
ITERATIONS = 20  # of Lloyd: the optimiser goes on from there


def check_latents(latents: Tensor, in_dim: int) -> Tensor:
    """(N, in_dim) float32.

    Raises ValueError where `latents` is not (N >= 1, in_dim) or not finite.
    """
    if (
        latents.dim() != 2
        or latents.shape[1] != in_dim
        or not len(latents)
        or not latents.isfinite().all()
    ):
        raise ValueError(f"fit needs finite (N, {in_dim}) latents, got {tuple(latents.shape)}")
    return latents.float()


def kmeans_start(points: Tensor, size: int) -> Tensor:
    """(N, D) points -> (K, D) first codes.

    With fewer points than codes the rest are noisy copies.
    """
    generator = torch.Generator(points.device).manual_seed(SEED)
    return kmeans(
        subsample(points, max(ROWS_PER_CODE * size, FEWEST_ROWS), generator), size, SEED, ITERATIONS
    )
