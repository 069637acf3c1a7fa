"""Learns a prior: the tables of `codec.entropy.prior`.

A prior is what a model knows of its indices before the first.

A small network is trained in floating point to predict every binary question of the coder from the
neighbours, and is rounded once. From then on only integers count, and the rounded tables are the
model's, whatever made them.

    items ──encoder, bottleneck──> indices ──neighbours, trends──> PriorNet ──round──> Prior
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from tqdm import tqdm

from codec.bottleneck import Bottleneck
from codec.bottlenecks.parts import LevelGrid
from codec.coding.pictures import ROWS_PER_CHUNK
from codec.coding.speech import FRAMES_PER_WINDOW
from codec.entropy.mixing import HIDDEN_SHIFT, LOGIT_SHIFT
from codec.entropy.prior import DIGIT_SHIFT, HIGHEST, Prior
from codec.medium import IMAGE, SPEECH, Medium
from codec.model import Codec
from train.data import Store

TOKENS = 4_000_000  # of the training set, drawn at random by whole items
STEPS, BATCH = 8000, 2048
PASSES = 12  # the most passes over the data
LEARNING_RATE = 4e-3
UNITS = 64
SPEEDS = (3, 6)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a prior is.

    Attributes:
        features: Of an embedding.
        wide: Units of the wide layer; 0 for none.
        neighbours: How many there are, the first of `OFFSETS`.
        refresh: Steps between two computations of the trends, which are inputs without a gradient.
    """

    features: int
    wide: int
    neighbours: int
    refresh: int


# By medium: those of the models, and those whose coder is measured in the papers' experiments.
LARGE = {
    SPEECH.name: Size(16, 256, neighbours=14, refresh=500),
    IMAGE.name: Size(8, 128, neighbours=12, refresh=500),
}
SMALL = {
    SPEECH.name: Size(8, 0, neighbours=8, refresh=250),
    IMAGE.name: Size(8, 0, neighbours=12, refresh=250),
}
# A codebook beyond it is coded in two digits: deep questions hardly depend on the neighbours.
MOST_NODES = 1024
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
        (2, 2),
        (2, -2),
        (1, 3),
        (1, -3),
        (3, 1),
        (3, -1),
        (0, -4),
        (4, 0),
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
# Scales of the integers: 256 is 1 in a hidden unit and in a logit (see `mixing`).
ONE = 256
EMBEDDING_SCALE = 32
BIAS_SCALE = ONE << HIDDEN_SHIFT
INPUT_SCALE = BIAS_SCALE // EMBEDDING_SCALE  # of the layer that sees the embeddings
UNIT_SCALE = BIAS_SCALE // ONE  # of the one that sees the wide layer's units
DIGIT_SCALE = BIAS_SCALE >> DIGIT_SHIFT
NODE_SCALE = 1 << LOGIT_SHIFT
CEILING = HIGHEST / ONE

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
                grids[size] += [
                    grid[None, i : i + FRAMES_PER_WINDOW]
                    for i in range(0, len(grid), FRAMES_PER_WINDOW)
                ]
            else:
                grids[size] += [
                    grid[i : i + ROWS_PER_CHUNK] for i in range(0, len(grid), ROWS_PER_CHUNK)
                ]
        count += grid.size
    return grids


def device_of(bottleneck: Bottleneck) -> torch.device:
    tensors = chain(bottleneck.parameters(), bottleneck.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def code_vectors(bottleneck: Bottleneck, size: int) -> np.ndarray:
    """Returns the codes of a size, (K, d) float32, centred and scaled."""
    device = device_of(bottleneck)
    every = torch.arange(bottleneck.num_codes(size), device=device)[None, None]
    with torch.inference_mode():
        vectors = bottleneck.decode(every, size)[0].T.cpu().numpy()
    centred = vectors - vectors.mean(0)
    return np.asarray(centred / max(float(centred.std()), 1e-9))


def layout(bottleneck: Bottleneck, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Says how an index becomes digits.

    Returns:
        The levels of the digits (D,), the order of the codes (K,), which is empty where it is that
        of their numbers, and the code vectors (K, d) float32.
    """
    number = bottleneck.num_codes(size)
    vectors = code_vectors(bottleneck, size)
    if isinstance(bottleneck, LevelGrid):
        levels = bottleneck.levels[bottleneck.codebook_sizes.index(size)].cpu().numpy()[::-1]
        levels = levels[levels > 1]
        return levels.astype(np.int64), np.empty(0, np.int64), vectors
    split = number > MOST_NODES and number % MOST_NODES == 0
    levels = np.array([MOST_NODES, number // MOST_NODES] if split else [number])
    return levels, np.empty(0, np.int64) if bottleneck.nested else bisect(vectors), vectors


def refined_layout(
    bottleneck: Bottleneck, size: int, below: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int] | None:
    """Says how an index becomes digits where its parent at the size below is known.

    Its digits are those of its parent, then its own. Every parent must have as many children, M of
    them, which are told apart by questions of one half against the other.

    Returns:
        What `layout` returns, and the number of the parent's digits; None if the sizes are not
        nested.
    """
    parents = bottleneck.parents(size, below)
    number = bottleneck.num_codes(below)
    if parents is None:
        return None
    vectors, order = code_vectors(bottleneck, size), parents.cpu().numpy()
    children = len(order) // number
    if (np.bincount(order, minlength=number) != children).any():
        return None
    # Among the children of one parent, in the order of their numbers.
    rank = np.empty(len(order), np.int64)
    rank[np.argsort(order, kind="stable")] = np.tile(np.arange(children), number)
    levels, order_below, _ = layout(bottleneck, below)
    if order_below.size:  # a parent's digits are those of its number, not of its place
        levels = np.array([number])
    own = [2] * (children.bit_length() - 1) if children & (children - 1) == 0 else [children]
    places = order * children + rank
    if (places == np.arange(len(places))).all():
        places = np.empty(0, np.int64)  # said shorter
    return np.concatenate([levels, own]), places, vectors, len(levels)


def bisect(vectors: np.ndarray) -> np.ndarray:
    """Orders (K, d) codes so that the coder's questions are about regions of their space.

    Returns:
        The place of each code, (K,).

    Each half of the places, as the coder halves them, is one side of a cut across the widest axis.
    """
    places = np.empty(len(vectors), np.int64)
    parts = [(np.arange(len(vectors)), 0)]
    while parts:
        codes, below = parts.pop()
        if len(codes) == 1:
            places[codes] = below
            continue
        axis = int(np.argmax(vectors[codes].var(0)))
        codes = codes[np.argsort(vectors[codes, axis], kind="stable")]
        half = len(codes) // 2
        parts += [(codes[:half], below), (codes[half:], below + half)]
    return places


class PriorNet(nn.Module):
    """The floating-point twin of the coder's network.

    What the coder learns as it goes is left out.

    Args:
        levels: The number of values of each digit, (D,).
        vectors: Where the embedding starts from, (R, d).
        num_inputs: The number of neighbours and trends, J + Q.
        size: Of the tables.
        given: The number of digits that are known before, B.
    """

    def __init__(
        self,
        levels: np.ndarray,
        vectors: Tensor,
        num_inputs: int,
        size: Size,
        given: int = 0,
    ) -> None:
        super().__init__()
        self.levels = levels.tolist()
        self.given = given
        num_rows = sum(self.levels)
        embedding = 0.1 * torch.randn(num_rows + 1, size.features)
        width = min(size.features, vectors.shape[1])
        embedding[:-1, :width] += vectors[:, :width]
        embedding[-1] = 0
        self.embedding = nn.Parameter(embedding)
        num_seen = num_inputs * size.features
        self.wide = nn.Linear(num_seen, size.wide) if size.wide else None
        # The last unit is always 1: the questions' bias.
        self.hidden = nn.Linear(size.wide or num_seen, UNITS - 1)
        self.digits = nn.Parameter(torch.zeros(num_rows - self.levels[-1], UNITS - 1))
        self.first_node = sum(self.levels[:given]) - given
        self.nodes = nn.Parameter(torch.zeros(num_rows - len(self.levels) - self.first_node, UNITS))
        for number, count in enumerate(self.levels):
            for name, table in zip(("questions", "answers", "asked"), walks(count), strict=True):
                self.register_buffer(f"{name}_{number}", table)

    def embed(self, rows: Tensor) -> Tensor:
        """Embeds (..., D) rows as (..., E)."""
        return F.embedding(rows, self.embedding).sum(-2)

    def forward(
        self,
        neighbours: Tensor,
        missing: Tensor,
        trends: Tensor,
        rows: Tensor,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Returns the bits of every token, (B,).

        Args:
            neighbours: (B, J, D) rows of the neighbours' digits.
            missing: (B, J) bool.
            trends: (B, Q * E).
            rows: (B, D) rows of the token itself.
            visible: (J, D) 1 for the digits that are known of a neighbour, else 0; None for all.
        """
        near = F.embedding(neighbours, self.embedding)
        if visible is not None:
            near = near * visible[..., None]
        near = torch.where(missing[..., None], self.embedding[-1], near.sum(-2))
        seen = torch.cat([near.flatten(1), trends], 1)
        if self.wide is not None:
            seen = F.hardtanh(self.wide(seen), 0.0, CEILING)
        total = self.hidden(seen)
        bits = torch.zeros(len(rows), device=rows.device)
        start = 0
        for number, count in enumerate(self.levels):
            if number < self.given:
                total = total + F.embedding(rows[:, number], self.digits)
                start += count
                continue
            units = F.pad(F.hardtanh(total, 0.0, CEILING), (0, 1), value=CEILING)
            digit = rows[:, number] - start
            questions = self.get_buffer(f"questions_{number}")[digit]
            nodes = self.nodes[start - number - self.first_node :][: count - 1]
            if count <= UNITS:
                logits = (units @ nodes.T).gather(1, questions)
            else:
                logits = (F.embedding(questions, nodes) * units[:, None]).sum(2)
            answers = self.get_buffer(f"answers_{number}")[digit]
            asked = self.get_buffer(f"asked_{number}")[digit]
            bits = bits + F.binary_cross_entropy_with_logits(
                logits, answers, asked, reduction="none"
            ).sum(1) / log(2)
            if number < len(self.levels) - 1:
                total = total + F.embedding(rows[:, number], self.digits)
            start += count
        return bits

    @torch.no_grad()
    def clamp(self) -> None:
        """Keeps every weight within what its integer can hold."""
        for tensor, scale, kind in self.scaled().values():
            most = np.iinfo(kind).max / scale
            tensor.clamp_(-most, most)

    def scaled(self) -> dict[str, tuple[Tensor, int, type]]:
        """Returns what becomes a table of integers: table -> the tensor, its scale, the type."""
        outer = INPUT_SCALE if self.wide is None else UNIT_SCALE
        tables: dict[str, tuple[Tensor, int, type]] = {
            "embedding": (self.embedding, EMBEDDING_SCALE, np.int8),
            "hidden": (self.hidden.weight, outer, np.int16),
            "digits": (self.digits, DIGIT_SCALE, np.int16),
            "nodes": (self.nodes, NODE_SCALE, np.int16),
        }
        if self.wide is not None:
            tables["wide"] = self.wide.weight, INPUT_SCALE, np.int16
        return tables


def walks(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lists the questions that lead to each of `count` values.

    Also their answers, and which of them there are.

    Returns:
        Three tensors (count, depth).
    """
    depth = (count - 1).bit_length()
    questions = torch.zeros(count, depth, dtype=torch.int64)
    answers, asked = torch.zeros(count, depth), torch.zeros(count, depth)
    for value in range(count):
        below, above, step = 0, count, 0
        while above - below > 1:
            middle = (below + above) >> 1
            questions[value, step] = middle - 1
            answers[value, step] = float(value >= middle)
            asked[value, step] = 1
            below, above, step = (
                (middle, above, step + 1) if value >= middle else (below, middle, step + 1)
            )
    return questions, answers, asked


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
    found = (
        (*layout(bottleneck, size), 0) if below is None else refined_layout(bottleneck, size, below)
    )
    if found is None:
        return None
    levels, order, vectors, given = found
    prior_size = prior_size or LARGE[medium.name]
    offsets = np.array(
        REFINED_OFFSETS[medium.name] if given else OFFSETS[medium.name][: prior_size.neighbours]
    )
    # A neighbour that comes later is known by its parent alone.
    visible = torch.ones(len(offsets), len(levels))
    later = (offsets[:, 0] < 0) | ((offsets[:, 0] == 0) & (offsets[:, 1] > 0))
    visible[torch.from_numpy(later), given:] = 0
    starts = np.cumsum(levels) - levels
    number = int(levels.prod())
    places = order if order.size else np.arange(number)
    rows_of = np.stack(np.unravel_index(places, tuple(levels.tolist())), 1) + starts  # (K, D)
    sums = np.zeros((int(levels.sum()), vectors.shape[1]))
    counts = np.zeros(int(levels.sum()))
    np.add.at(sums, rows_of.ravel(), np.repeat(vectors, len(levels), 0))
    np.add.at(counts, rows_of.ravel(), 1)
    device = device_of(bottleneck)
    with torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        vectors_of_rows = torch.from_numpy(sums / counts[:, None]).float()
        num_inputs = len(offsets) + len(SPEEDS)
        net = PriorNet(levels, vectors_of_rows, num_inputs, prior_size, given).to(device)
        visible = visible.to(device)
        lengths = [grid.size for grid in grids]
        near = torch.from_numpy(
            np.concatenate([_neighbours(grid, offsets, number) for grid in grids])
        ).to(device)
        indices = torch.from_numpy(np.concatenate([grid.ravel() for grid in grids])).to(device)
        table = torch.from_numpy(np.concatenate([rows_of, rows_of[:1]])).to(device)
        optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE)
        steps = max(1, min(steps, PASSES * len(indices) // BATCH))
        trends = torch.empty(0)
        for step in tqdm(
            range(steps),
            desc=f"prior of K = {size}" + (f" in {below}" if given else ""),
            disable=None,
        ):
            if step % prior_size.refresh == 0:
                trends = _trends(net, table[indices], lengths)
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * max(0.02, 1 - step / steps)
            chosen = torch.randint(len(indices), (BATCH,), device=device)
            some = near[chosen]
            bits = net(table[some], some == number, trends[chosen], table[indices[chosen]], visible)
            optimiser.zero_grad()
            bits.mean().backward()
            optimiser.step()
            net.clamp()
    return rounded(net, levels, order, offsets, stride if medium.axes > 1 else 0, given)


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


@torch.no_grad()
def rounded(
    net: PriorNet,
    levels: np.ndarray,
    order: np.ndarray,
    offsets: np.ndarray,
    stride: int,
    given: int = 0,
) -> Prior:
    """Rounds a trained network to the integers of a prior."""

    def ints(tensor: Tensor, scale: int, kind: type) -> np.ndarray:
        most = np.iinfo(kind).max
        return (tensor.double() * scale).round().clamp(-most, most).cpu().numpy().astype(kind)

    tables = {name: ints(*parts) for name, parts in net.scaled().items()}
    # The unit that is always 1.
    tables["hidden"] = np.pad(tables["hidden"].T, ((0, 0), (0, 1)))
    tables["digits"] = np.pad(tables["digits"], ((0, 0), (0, 1)))
    constant = torch.tensor([CEILING], device=net.hidden.bias.device)
    tables["bias"] = ints(torch.cat([net.hidden.bias, constant]), BIAS_SCALE, np.int32)
    if net.wide is not None:
        tables["wide"] = tables["wide"].T
        tables["wide_bias"] = ints(net.wide.bias, BIAS_SCALE, np.int32)
    return Prior(
        levels=levels.astype(np.int32),
        order=order.astype(np.uint16),
        offsets=offsets.astype(np.int8),
        speeds=np.array(SPEEDS, np.int8),
        stride=stride,
        given=given,
        **{name: np.ascontiguousarray(table) for name, table in tables.items()},
    )
