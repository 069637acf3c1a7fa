"""The codebook's start and its fit, from latents of the training data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from codec.bottleneck import Bottleneck
from codec.bottlenecks.parts import gather_rows
from codec.model import Codec
from train import parallel
from train.store import Store

FIT_TOKENS = 400_000  # latents that a codebook is built from, at most: 24 for each of 16384 entries


@torch.no_grad()
def latents(codec: Codec, store: Store, batch: Callable[[], Tensor]) -> Tensor:
    """Encodes random crops of the training data.

    They are augmented, as all that the encoder learnt from; the VP-VAE paper encodes the training
    set as it is.

    Args:
        codec: The codec whose encoder is used, best the averaged one.
        store: The training data, which say how many latents there are: no more than they give once.
        batch: A function that gives the next batch of crops, this process's rows.

    Returns:
        (N <= FIT_TOKENS, D_in) float32 latents.
    """
    rows: list[Tensor] = []
    count, total = 0, min(FIT_TOKENS, int(store.weights.sum() / codec.stride**codec.axes))
    while count < total:
        z = gather_rows(codec.latents(batch()).float())
        rows.append(z.flatten(2).transpose(1, 2).flatten(0, 1))
        count += len(rows[-1])
    return torch.cat(rows)[:total]


def fit(bottleneck: Bottleneck, found: Callable[[], Tensor]) -> None:
    """Builds or starts the codebook from latents, the same on all processes.

    Args:
        bottleneck: The bottleneck with the codebook.
        found: A function that gives the latents; it is called only where the bottleneck wants them.
    """
    # Else encoding all those latents would be for nothing.
    if type(bottleneck).fit is not Bottleneck.fit:
        bottleneck.fit(found())
        parallel.copy_first(bottleneck)  # sums on a GPU differ in the last bit
