"""Distances to the m-th nearest neighbour, the density estimate of VP-VAE (arXiv 2602.17133)."""

from __future__ import annotations

import torch
from torch import Tensor

from codec.bottlenecks._search import chunk_rows


@torch.no_grad()
def knn_radii(queries: Tensor, rows: Tensor, ks: tuple[int, ...]) -> Tensor:
    """D_m(x|S) for each m in `ks`.

    Differences, not the matmul expansion: an acceptance test raises ratios of these radii to the power d, and near
    duplicates (digital silence) would cancel to noise. In few dimensions that is no slower: 4096 queries against
    16384 rows at d = 5 take a fifth of a second on one CPU core, three quarters of it in topk.

    Args:
        queries: (N, d) float32.
        rows: (Q, d) float32, S. A query that is itself in S finds itself at distance 0.
        ks: Which neighbours, counted from 1.

    Returns:
        (len(ks), N) float32 Euclidean distances.

    Raises:
        ValueError: A neighbour below the first or beyond the last row is asked for.
    """
    if min(ks) < 1 or max(ks) > len(rows):
        raise ValueError(f"neighbours {ks} do not exist among {len(rows)} rows")
    columns = rows.float().T.contiguous()
    picks = torch.tensor(ks, device=rows.device) - 1
    radii = []
    step = chunk_rows(len(rows), rows.device)
    for start in range(0, len(queries), step):
        part = queries[start : start + step].float()
        squared = torch.zeros(len(part), len(rows), device=rows.device)
        difference = torch.empty_like(squared)
        for i in range(queries.shape[1]):
            torch.sub(part[:, i, None], columns[i], out=difference)
            squared.addcmul_(difference, difference)
        near = squared.topk(max(ks), 1, largest=False, sorted=True).values
        radii.append(near[:, picks].sqrt())
    return torch.cat(radii).T
