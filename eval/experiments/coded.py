"""Bits that the indices of a test set take as a file: what the papers' nominal log2 K leaves out.

    indices of training data ──train.priors──> prior ─┐
    indices of test data ──────────────────> codec.entropy ──> bits a token

The coder is the one of the project's files. Its prior is smaller than those of the models that ship
and learns from less, so these bits compare methods and are above what a shipped model would need.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.bottleneck import Bottleneck
from codec.entropy import Prior, Tables, encode_indices, quantise_counts
from codec.medium import Medium
from train.priors import SMALL, Grid, fit_prior

TOKENS = 200_000  # of the training data
STEPS = 400


def tables_of(
    grids: list[Grid], bottleneck: Bottleneck, size: int, medium: Medium, stride: int
) -> Tables:
    """Returns the coder's tables of one codebook, learnt from indices of training data.

    Args:
        grids: Indices (rows, columns); speech has one row.
        bottleneck: What made them.
        size: Its codebook size.
        medium: What was coded.
        stride: Samples, or pixels of a side, for each index.
    """
    prior: Prior | None = fit_prior(
        grids, bottleneck, size, medium, stride, STEPS, prior_size=SMALL[medium.name]
    )
    count = bottleneck.num_codes(size)
    counts = np.bincount(np.concatenate([grid.ravel() for grid in grids]), minlength=count)
    return Tables(quantise_counts(counts[None].astype(np.int64)), prior)


def bits(grid: NDArray[np.int64], num_codes: int, tables: Tables, width: int = 0) -> int:
    """Returns the bits of one file's indices, (rows, columns).

    Args:
        grid: The indices; speech has one row.
        num_codes: K.
        tables: The coder's, of `tables_of`.
        width: Of the picture in pixels; 0 for speech.
    """
    return 8 * len(encode_indices(grid.reshape(1, -1), num_codes, tables, width))
