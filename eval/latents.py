"""Latents of a training set, for what is measured on a model's codebooks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec.bottleneck import Bottleneck, to_tokens
from codec.bottlenecks.gmvq import GMVQ
from codec.model import Codec
from train.store import Store

TOKENS = 600_000
SEED = 0

# (N, d) latents, and (N, d) weights of their distances or None.
Tokens = tuple[Tensor, Tensor | None]


def tokens_of(bottleneck: Bottleneck, z: Tensor) -> Tokens:
    """(B, D_in, *S) latents as rows."""
    return bottleneck.points(z) if isinstance(bottleneck, GMVQ) else (to_tokens(z), None)


@torch.inference_mode()
def training_latents(codec: Codec, store: Store, count: int = TOKENS) -> Tokens:
    """Returns latents of random items of a training set, on the CPU.

    Args:
        codec: A VP or GM-VQ model.
        store: The training set.
        count: How many latents; fewer where the set has fewer.
    """
    parts: list[Tokens] = []
    found = 0
    order = np.random.default_rng(SEED).permutation(len(store.shapes))
    for number in tqdm(order.tolist(), desc="latents", disable=None):
        if found >= count:
            break
        parts.append(tokens_of(codec.bottleneck, codec.latents(store.whole(number))))
        found += len(parts[-1][0])
    weights = [part for _, part in parts if part is not None]
    points = torch.cat([part for part, _ in parts])[:count]
    return points, torch.cat(weights)[:count] if weights else None
