"""The codebook's start and its fit: latents of the training data, and what a bottleneck makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from codec.bottleneck import Bottleneck
from codec.bottlenecks.parts import gather_rows
from codec.model import Codec
from train import parallel
from train.data import Store

FIT_TOKENS = 400_000  # latents that a codebook is built from, at most: 24 for each of 16384 entries


@torch.no_grad()
def latents(codec: Codec, store: Store, batch: Callable[[], Tensor]) -> Tensor:
    """Latents of a codec's encoder over random crops of the training data, (N <= FIT_TOKENS, D_in) float32.

    Augmented, as all that the encoder learnt from; the VP-VAE paper encodes the training set as it is.

    Args:
        codec: Whose encoder; best the averaged one.
        store: How much data there are: no more latents than they give once.
        batch: Gives the next batch of crops, this process's rows.
    """
    rows: list[Tensor] = []
    count, total = 0, min(FIT_TOKENS, int(store.weights.sum() / codec.stride**codec.axes))
    while count < total:
        z = gather_rows(codec.encoder(batch()).float())
        rows.append(z.flatten(2).transpose(1, 2).flatten(0, 1))
        count += len(rows[-1])
    return torch.cat(rows)[:total]


def fit(bottleneck: Bottleneck, found: Callable[[], Tensor]) -> None:
    """Builds or starts the codebook from latents, the same on all processes; `found` gives them, if they are needed."""
    if type(bottleneck).fit is not Bottleneck.fit:  # or encoding all those latents were for nothing
        bottleneck.fit(found())
        parallel.copy_first(bottleneck)  # sums on a GPU differ in the last bit
