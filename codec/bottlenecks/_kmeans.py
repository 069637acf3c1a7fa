"""k-means: k-means++ seeds (Arthur and Vassilvitskii 2007), then Lloyd's iterations.

Seeds come from a sample, iterations run over everything.

And cells that are cut into smaller ones, by k-means inside each: the codebooks of a tree.

Deterministic under its seed on a CPU and apart from the global random state. (A GPU adds the
float64 cell sums in no fixed order; the last bit of a centre may differ.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.arguments import whole
from codec.bottlenecks._search import NotFiniteError, nearest, nearest_child

SEEDING_ROWS = 4  # sample rows per cluster for k-means++, which costs K passes over them...
SEEDING_MINIMUM = 4096  # ...but enough that no cluster of the data is missed where K is small


@torch.no_grad()
def kmeans(
    data: Tensor, num_clusters: int, seed: int, iterations: int = 50, tolerance: float = 1e-3
) -> Tensor:
    """Centres of `num_clusters` clusters.

    Args:
        data: (N, d) finite rows. With fewer rows than clusters the centres are the rows, then
            copies of them with noise of 1e-3, so that a codebook always has its size.
        num_clusters: K.
        seed: Of every draw.
        iterations: Lloyd iterations, at most.
        tolerance: Stop when the centres' shift falls below this share of their spread (both
            Frobenius norms).

    Returns:
        (K, d) float32.

    Raises:
        ValueError: There is no data, or not one cluster is wanted.
        NotFiniteError: A row is not finite.
    """
    whole(num_clusters, "num_clusters", 1)
    if not len(data):
        raise ValueError("k-means needs data: got no rows")
    data = data.float()
    if not data.isfinite().all():
        raise NotFiniteError
    generator = torch.Generator(data.device).manual_seed(seed)
    if len(data) < num_clusters:
        copies = data[torch.arange(len(data), num_clusters, device=data.device) % len(data)]
        noise = torch.randn(copies.shape, generator=generator, device=data.device, dtype=data.dtype)
        return torch.cat([data, copies + 1e-3 * noise])
    centres = seed_centres(data, num_clusters, generator)
    for _ in range(iterations):
        cells = nearest(data, centres)
        moved, empty = cell_means(data, cells, num_clusters)
        if len(empty):
            moved[empty] = far_rows(data, moved[cells], len(empty), generator)
        shift, spread = (moved - centres).norm(), (moved - moved.mean(0)).norm()
        centres = moved
        if not len(empty) and shift <= tolerance * spread:
            break
    return centres


def subsample(data: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows drawn without replacement, or all of them if there are no more."""
    if len(data) <= count:
        return data
    return data[torch.randperm(len(data), generator=generator, device=data.device)[:count]]


def seed_centres(data: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ on a sample: seeds that are likely to be far apart.

    Each new centre is a row drawn by its squared distance to the nearest one before it.
    """
    sample = subsample(data, max(SEEDING_ROWS * num_clusters, SEEDING_MINIMUM), generator)
    columns = sample.T.contiguous()
    draws = torch.rand(num_clusters, generator=generator, device=data.device, dtype=data.dtype)
    chosen = (draws[0] * len(sample)).long()
    rows = [chosen]
    closest = torch.full((len(sample),), torch.inf, device=data.device, dtype=data.dtype)
    offset = torch.empty_like(columns)
    squared = torch.empty_like(closest)
    mass = torch.empty_like(closest)
    # Into the same buffers: fresh ones of this size would cost more than the arithmetic.
    for draw in draws[1:]:
        torch.sub(columns, columns[:, chosen, None], out=offset)
        torch.sum(offset.square_(), 0, out=squared)
        torch.minimum(closest, squared, out=closest)
        torch.cumsum(closest, 0, out=mass)
        chosen = torch.searchsorted(mass, draw * mass[-1], right=True).clamp(max=len(sample) - 1)
        rows.append(chosen)
    return sample[torch.stack(rows)]


def cell_means(data: Tensor, cells: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """The mean of each cell.

    Args:
        data: (N, d) rows.
        cells: (N,) int64 in [0, num_clusters), each row's cell.
        num_clusters: K.

    Returns:
        (K, d) means, zero for empty cells, and the numbers of the empty cells.
    """
    sums = torch.zeros(num_clusters, data.shape[1], dtype=torch.float64, device=data.device)
    sums.index_add_(0, cells, data.double())
    counts = torch.bincount(cells, minlength=num_clusters)
    means = (sums / counts.clamp(min=1)[:, None]).float()
    return means, (counts == 0).nonzero()[:, 0]


def far_rows(data: Tensor, centres: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, d) distinct rows, drawn by their squared distance to their centre.

    They become homes for the centres of empty cells.

    `centres` is (N, d), one for each row. Moving a centre that no row uses can only lower the total
    distance.
    """
    squared = (data - centres).square().sum(1)
    # Exponential race: weighted, no replacement.
    clock = torch.empty_like(squared).exponential_(generator=generator)
    return data[(squared / clock).topk(count).indices]


@torch.no_grad()
def split_cells(
    data: Tensor, cells: Tensor, centres: Tensor, children: int, seed: int, iterations: int
) -> Tensor:
    """Cuts every cell into `children` by k-means inside it, all cells at once.

    Args:
        data: (N, d) float32.
        cells: (N,) the cell of each row.
        centres: (K, d) of the cells.
        children: M.
        seed: Of every draw.
        iterations: Of Lloyd.

    Returns:
        (K M, d) centres, those of cell i at i M to i M + M - 1. A cell with fewer rows than
        children keeps its own centre for the rest.
    """
    number = len(centres)
    generator = torch.Generator(data.device).manual_seed(seed)
    parts = centres[:, None].repeat(1, children, 1)
    closest = (data - centres[cells]).square().sum(1)
    # Seeds: rows drawn by their squared distance to the nearest seed so far.
    for child in range(children):
        key = closest / torch.empty_like(closest).exponential_(generator=generator)
        best = key.new_full((number,), -1.0).scatter_reduce(0, cells, key, "amax")
        rows = ((key == best[cells]) & (key > 0)).nonzero()[:, 0]
        parts[cells[rows], child] = data[rows]
        to_seed = (data - parts[cells, child]).square().sum(1)
        closest = to_seed if child == 0 else torch.minimum(closest, to_seed)
    codes = parts.flatten(0, 1)
    for _ in range(iterations):
        means, empty = cell_means(data, nearest_child(data, codes, cells, children), len(codes))
        means[empty] = codes[empty]
        codes = means
    return codes


def halved(codes: Tensor) -> Tensor:
    """Sorts the M rows of each of (N, M, d), so that either half lies on its side of a cut.

    The cut is across the widest axis, and each half is ordered so, too. The coder asks of an index
    which half it is in, and so its questions are about regions of the space.
    """
    number = codes.shape[1]
    if number == 1:
        return codes
    axis = codes.var(1, correction=0).argmax(1)
    keys = codes.gather(2, axis[:, None, None].expand(-1, number, 1))[..., 0]
    codes = codes.gather(1, torch.argsort(keys, dim=1, stable=True)[..., None].expand_as(codes))
    half = number // 2
    return torch.cat([halved(codes[:, :half]), halved(codes[:, half:])], 1)
