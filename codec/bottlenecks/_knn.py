"""Distances to the m-th nearest neighbour, the density estimate of VP-VAE (arXiv 2602.17133)."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from codec.bottlenecks._search import chunk_rows
from codec.bottlenecks._threads import in_threads
from codec.host import on_host


class Neighbours:
    """D_m(x|S), the distance of x to its m-th nearest row of S, for many x.

    On a CPU a tree of S is made once and serves every search, on a GPU a kernel counts.

    Both compare differences in float32; the tree is exact, the kernel within .03 %
    (`_radii_kernel`).

    Differences, not the matmul expansion: an acceptance test raises ratios of these radii to the
    power d, and near duplicates (digital silence) would cancel to noise. The tree is for few
    dimensions: a query among 8192 rows takes 2 us at d = 5 and 4 us at 8, where all distances and
    topk take 30 us. Above about 16 it sees nearly every row.

    Args:
        rows: (Q, d) float32, S.

    Raises:
        ValueError: There are no rows.
    """

    def __init__(self, rows: Tensor) -> None:
        if not len(rows):
            raise ValueError("no rows to find neighbours among")
        self.rows = rows.detach().float()
        self.tree = None
        # With a NaN the tree's halves would have no order.
        if on_host(rows) and rows.isfinite().all():
            from codec.bottlenecks import _tree  # here, since numba takes half a second to load

            self.tree = _tree.Tree(self.rows.contiguous().numpy())

    @torch.no_grad()
    def radii(self, queries: Tensor, ks: tuple[int, ...]) -> Tensor:
        """D_m for each m in `ks`.

        Args:
            queries: (N, d) float32. A query that is itself in S finds itself at distance 0, a NaN
                is NaN away.
            ks: Which neighbours, counted from 1.

        Returns:
            (len(ks), N) float32 Euclidean distances.

        Raises:
            ValueError: A neighbour below the first or beyond the last row is asked for.
        """
        if not ks or min(ks) < 1 or max(ks) > len(self.rows):
            raise ValueError(f"neighbours {ks} do not exist among {len(self.rows)} rows")
        queries, ascending = queries.float(), tuple(sorted(set(ks)))
        if self.tree is None:
            found = _on_device(queries, self.rows, ascending)
        else:
            points, ranks, tree = queries.contiguous().numpy(), np.array(ascending), self.tree
            radii = np.empty((len(ascending), len(points)), np.float32)
            in_threads(len(points), lambda part: tree.radii(points[part], ranks, radii[:, part]))
            found = torch.from_numpy(radii)
        return torch.stack([found[ascending.index(k)] for k in ks])


def _on_device(queries: Tensor, rows: Tensor, ks: tuple[int, ...]) -> Tensor:
    if rows.device.type == "cuda" and find_spec("triton") is not None:
        from codec.bottlenecks import _radii_kernel

        if _radii_kernel.works(rows.device):
            return _radii_kernel.radii(queries, rows, ks)
    return radii_by_blocks(queries, rows, ks)


def radii_by_blocks(queries: Tensor, rows: Tensor, ks: tuple[int, ...]) -> Tensor:
    """All distances and topk, for a block of queries at a time."""
    columns = rows.T.contiguous()
    radii = []
    step = chunk_rows(len(rows), rows.device)
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        squared = rows.new_zeros(len(part), len(rows))
        difference = torch.empty_like(squared)
        for i in range(queries.shape[1]):
            torch.sub(part[:, i, None], columns[i], out=difference)
            squared.addcmul_(difference, difference)
        near = squared.topk(max(ks), 1, largest=False, sorted=True).values
        radii.append(torch.stack([near[:, k - 1] for k in ks]).sqrt())
    return torch.cat(radii, 1)
