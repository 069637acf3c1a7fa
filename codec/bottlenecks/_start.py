"""How a coupled codebook starts: by k-means on the first encoder outputs, once.

Afterwards it belongs to training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.bottlenecks._kmeans import kmeans, subsample
from codec.tensors import check_tensor

SEED = 0
ROWS_PER_CODE, FEWEST_ROWS = 20, 20_000  # of latents that k-means sees
ITERATIONS = 20  # of Lloyd: the optimiser goes on from there


def check_latents(latents: Tensor, in_dim: int) -> Tensor:
    """(N, in_dim) float32.

    Raises TypeError where `latents` is no tensor, and ValueError where it is not (N >= 1, in_dim),
    has no float type or is not finite.
    """
    latents = check_tensor(latents, "latents")
    rows = latents.shape[0] if latents.dim() == 2 and latents.shape[1] == in_dim else 0
    if not rows or not latents.is_floating_point():
        raise ValueError(
            f"fit needs floats (N, {in_dim}), got {tuple(latents.shape)} of {latents.dtype}"
        )
    latents = latents.float()  # first, since a float64 may be too large for it
    if not latents.isfinite().all():
        raise ValueError("fit needs finite latents; look for NaN or infinity in the encoder")
    return latents


def kmeans_start(points: Tensor, size: int) -> Tensor:
    """(N, D) points -> (K, D) first codes.

    With fewer points than codes the rest are noisy copies.
    """
    generator = torch.Generator(points.device).manual_seed(SEED)
    return kmeans(
        subsample(points, max(ROWS_PER_CODE * size, FEWEST_ROWS), generator), size, SEED, ITERATIONS
    )
