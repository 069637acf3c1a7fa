"""Learns a prior: the tables of `codec.entropy.prior`.

A prior is what a model knows of its indices before the first.

A small network is trained in floating point to predict every binary question of the coder from the
neighbours, and is rounded once. From then on only integers count, and the rounded tables are the
model's, whatever made them.

    items ──encoder, bottleneck──> indices ──neighbours, trends──> PriorNet ──round──> Prior
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from tqdm import tqdm

from codec.bottleneck import Bottleneck
from codec.coding.pictures import rows_per_chunk
from codec.coding.speech import FRAMES_PER_WINDOW
from codec.entropy.prior import Prior
from codec.medium import IMAGE, SPEECH, Medium
from codec.model import Codec
from train.digits import device_of, layout, refined_layout
from train.prior_net import SPEEDS, PriorNet, Size, rounded
from train.store import Store

TOKENS = 4_000_000  # of the training set, drawn at random by whole items
STEPS, BATCH = 8000, 2048
PASSES = 12  # the most passes over the data
LEARNING_RATE = 4e-3

# By medium: those of the models, and those whose coder is measured in the papers' experiments.
LARGE = {
    SPEECH.name: Size(16, 256, neighbours=14, refresh=500),
    IMAGE.name: Size(8, 128, neighbours=12, refresh=500),
}
SMALL = {
    SPEECH.name: Size(8, 0, neighbours=8, refresh=250),
    IMAGE.name: Size(8, 0, neighbours=12, refresh=250),
}
OFFSETS = {
    SPEECH.name: [(0, -j) for j in range(1, 15)],
    IMAGE.name: [
        (0, -1),
        (1, 0),
        (1, -1),
        (1, 1),
        (0, -2),
        (2, 0),
        (1, 2),
        (1, -2),
        (2, 1),
        (2, -1),
        (0, -3),
        (3, 0),
    ],
}
# In a refinement every position is known in the layers below, and the own one most of all.
REFINED_OFFSETS = {
    SPEECH.name: [(0, -4), (0, -3), (0, -2), (0, -1), (0, 1), (0, 2), (0, 3)],
    IMAGE.name: [
        (0, -1),
        (1, 0),
        (1, -1),
        (1, 1),
        (0, -2),
        (2, 0),
        (0, 1),
        (-1, 0),
        (-1, 1),
        (-1, -1),
        (0, 2),
        (-2, 0),
    ],
}

Grid = np.ndarray  # (rows, columns) int64


@torch.inference_mode()
def index_grids(codec: Codec, store: Store, tokens: int = TOKENS) -> dict[int, list[Grid]]:
    """Codes random items of the training set whole, at every size.

    They are cut into chunks as the coder does.
    """
    codec = codec.eval()
    order = np.random.default_rng(0).permutation(len(store.shapes))
    sizes = codec.bottleneck.codebook_sizes
    grids: dict[int, list[Grid]] = {size: [] for size in sizes}
    count = 0
    device = next(codec.parameters()).device
    for number in tqdm(order.tolist(), desc="indices", disable=None):
        if count >= tokens:
            break
        x = store.whole(number).to(device)
        z = codec.latents(x)
        for size in sizes:
            grid = codec.bottleneck.encode(z, size)[0, 0].cpu().numpy()
            if grid.ndim == 1:
                starts = range(0, len(grid), FRAMES_PER_WINDOW)
                grids[size] += [grid[None, i : i + FRAMES_PER_WINDOW] for i in starts]
            else:
                rows = rows_per_chunk(x.shape[-1], codec.stride)
                grids[size] += [grid[i : i + rows] for i in range(0, len(grid), rows)]
        count += grid.size
    return grids


def fit_prior(
    grids: list[Grid],
    bottleneck: Bottleneck,
    size: int,
    medium: Medium,
    stride: int,
    steps: int = STEPS,
    below: int | None = None,
    prior_size: Size | None = None,
) -> Prior | None:
    """Trains and rounds the prior of one codebook size, or of its refinement of a coarser one.

    Args:
        grids: Chunks of indices, (rows, columns) each; speech has one row.
        bottleneck: The bottleneck that made the indices.
        size: The codebook size.
        medium: What was coded.
        stride: Samples, or pixels of a side, for each index.
        steps: The most steps; there are fewer where the data are few.
        below: The coarser size, whose indices are known before.
        prior_size: Of the tables; None for that of `LARGE`.

    Returns:
        The tables; None if the two sizes are not nested.
    """
    found = layout(bottleneck, size) if below is None else refined_layout(bottleneck, size, below)
    if found is None:
        return None
    prior_size = prior_size or LARGE[medium.name]
    offsets = np.array(
        REFINED_OFFSETS[medium.name]
        if found.given
        else OFFSETS[medium.name][: prior_size.neighbours]
    )
    # A neighbour that comes later is known by its parent alone.
    visible = torch.ones(len(offsets), len(found.levels))
    later = (offsets[:, 0] < 0) | ((offsets[:, 0] == 0) & (offsets[:, 1] > 0))
    visible[torch.from_numpy(later), found.given :] = 0
    none = int(found.levels.prod())
    device = device_of(bottleneck)
    with torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        net = PriorNet(found, len(offsets) + len(SPEEDS), prior_size).to(device)
        visible = visible.to(device)
        lengths = [grid.size for grid in grids]
        near = torch.from_numpy(
            np.concatenate([_neighbours(grid, offsets, none) for grid in grids])
        ).to(device)
        indices = torch.from_numpy(np.concatenate([grid.ravel() for grid in grids])).to(device)
        rows = found.rows()
        table = torch.from_numpy(np.concatenate([rows, rows[:1]])).to(device)
        optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE)
        steps = max(1, min(steps, PASSES * len(indices) // BATCH))
        trends = torch.empty(0)
        for step in tqdm(
            range(steps),
            desc=f"prior of K = {size}" + (f" in {below}" if found.given else ""),
            disable=None,
        ):
            if step % prior_size.refresh == 0:
                trends = _trends(net, table[indices], lengths)
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * max(0.02, 1 - step / steps)
            chosen = torch.randint(len(indices), (BATCH,), device=device)
            some = near[chosen]
            bits = net(table[some], some == none, trends[chosen], table[indices[chosen]], visible)
            optimiser.zero_grad()
            bits.mean().backward()
            optimiser.step()
            net.clamp()
    return rounded(net, found, offsets, stride if medium.axes > 1 else 0)


def _neighbours(grid: Grid, offsets: np.ndarray, none: int) -> np.ndarray:
    """Returns the (n, J) indices of the neighbours, `none` beyond the edges."""
    rows, columns = grid.shape
    margin = int(np.abs(offsets).max())
    padded = np.full((rows + 2 * margin, columns + 2 * margin), none, np.int64)
    padded[margin : margin + rows, margin : margin + columns] = grid
    parts = [
        padded[margin - up : margin - up + rows, margin + right : margin + right + columns].ravel()
        for up, right in offsets.tolist()
    ]
    return np.stack(parts, 1)


@torch.no_grad()
def _trends(net: PriorNet, rows: Tensor, lengths: list[int]) -> Tensor:
    """Returns (N, Q * E), what every position knows of the indices before it, on average.

    They are those of its chunk.
    """
    known = pack_sequence(net.embed(rows).split(lengths), enforce_sorted=False)
    gains = torch.tensor([[2.0**-speed] for speed in SPEEDS], device=rows.device)
    trends = known.data.new_empty(len(rows), len(SPEEDS), known.data.shape[1])
    trend = torch.zeros_like(trends[: len(lengths)])
    start = 0
    for count in known.batch_sizes.tolist():  # of the chunks, those that are so long
        here = slice(start, start + count)
        trends[here] = trend[:count]
        trend[:count] += gains * (known.data[here, None] - trend[:count])
        start += count
    return torch.cat(unpack_sequence(known._replace(data=trends.flatten(1))))
