"""The nearest code of each token: one exact answer, in any batch, in any chunk, on any machine.

    tokens ──float32 matmul──> distances within a known error ──> candidates (about one)
           ──or, in few dimensions on a CPU, a tree─────────────> candidates
    candidates ──float64 differences──> index

A matmul alone may round differently for one row than for eight, and then an encoder's indices would
depend on how many tokens came along. Here it only filters: every code that could still be the
nearest within the rounding bound of the matmul is compared again by differences in float64, element
by element, which no shape can change.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from codec.bottlenecks._threads import in_threads
from codec.host import may_read, on_host
from codec.precision import exact_float32

# Up to here a tree of many codes is faster: 30 times at d = 5, 5 times at 8, alike at 12.
TREE_DIMENSIONS = 10
TREE_PAIRS = 2**22  # tokens x codes that are worth a tree
# Codes of which only the least distance is kept at first; blocks that may hold the nearest are
# looked at again.
BLOCK = 16
TILE = 1024  # codes at a time on a CPU: 512 rows of their distances stay in its second-level cache
# Blocks that are looked at again at once; usually one for each row, all where the codes are equal.
CANDIDATES = 2**13


class NotFiniteError(ValueError):
    """A latent, a weight or a code is not finite, or its square is not.

    So they are after a training that diverged.
    """

    def __init__(self) -> None:
        super().__init__(
            "no nearest code: a latent or the codebook is not finite, or its square is too large "
            "for float32; see whether the training diverged"
        )


def chunk_rows(width: int, device: torch.device) -> int:
    """How many float32 rows of `width` to work on at once.

    They fill what a CPU's cache holds, or a small part of a GPU.
    """
    num_bytes = 2**21 if device.type == "cpu" else 2**28
    return max(1, num_bytes // (4 * width))


@torch.no_grad()
def nearest(
    tokens: Tensor, codebook: Tensor, weights: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """argmin over c of sum_i w_ni (x_ni - mu_ci)^2, ties to the lowest index.

    Args:
        tokens: (N, D) float32.
        codebook: (K, D) float32.
        weights: (N, D) positive; all ones if None, which is the Euclidean distance.
        chunk: Rows at a time by matmul; it bounds memory and cannot change the answer.

    Returns:
        (N,) int64 in [0, K).

    Raises:
        NotFiniteError: A token, weight or code is not finite, or so large that its float32 square,
            if taken, overflows. In `codec.host.unread` such a token has any code. There, on a GPU,
            codes as near as float32's rounding of a product can tell are alike.
    """
    tokens, codebook = tokens.float(), codebook.float()
    if torch.compiler.is_exporting():
        return _in_one_product(tokens, codebook, weights)
    if not may_read():
        if not on_host(tokens):
            return _unread(tokens, codebook, weights)
        tokens = torch.where(tokens.isfinite(), tokens, 0)
    if chunk is None and tokens.device.type == "cpu" and _suits_tree(len(tokens), codebook):
        return _by_tree(tokens, codebook, weights)
    num_codes, dim = codebook.shape
    num_tiles = -(-num_codes // TILE) if tokens.device.type == "cpu" else 1
    # Blocks in a tile; a code is (tile, member, block)
    width = -(-num_codes // (num_tiles * BLOCK))
    chunk = chunk or chunk_rows(BLOCK * width, tokens.device)
    # Copies of the last change no answer.
    padding = codebook[-1:].expand(num_tiles * BLOCK * width - num_codes, dim)
    # Far from the origin the products would cancel; distances do not change.
    centre = codebook.mean(0)
    codes = torch.cat([codebook, padding]) - centre
    squares = (
        codes.square()
        if weights is not None
        else codes.double().square().sum(1, keepdim=True).float()
    )
    table = torch.cat([squares, codes], 1)
    tiles = table.view(num_tiles, BLOCK * width, -1).mT.contiguous()
    members = (
        table.view(num_tiles, BLOCK, width, -1)
        .permute(0, 2, 3, 1)
        .reshape(num_tiles * width, -1, BLOCK)
    )
    reach = table.abs().amax(0)
    # A sum of up to 2D products, each within a few roundings of exact, errs by less than (D + 4)
    # eps times the sum of their moduli; two such errors separate the best from its rivals, in
    # whatever order each is summed.
    slack = 2 * (dim + 4) * torch.finfo(torch.float32).eps
    found = []
    with exact_float32(tokens.device):
        for start in range(0, len(tokens), chunk):
            part = tokens[start : start + chunk]
            scale = (
                part.new_ones(len(part), 1)
                if weights is None
                else weights[start : start + chunk].float()
            )
            features = torch.cat([scale, -2 * scale * (part - centre)], 1)
            # less sum_i w x^2, the same for all codes
            least = torch.cat(
                [(features @ tile).view(-1, BLOCK, width).amin(1) for tile in tiles], 1
            )
            limit = least.amin(1) + slack * (features.abs() @ reach)
            near = least <= limit[:, None]
            step = max(1, len(part) * CANDIDATES // max(int(near.sum()), CANDIDATES))
            for first in range(0, len(part), step):
                some = slice(first, first + step)
                rows, blocks = near[some].nonzero(as_tuple=True)
                distances = (features[some][rows, None] @ members[blocks])[:, 0]
                pairs, place = (distances <= limit[some][rows, None]).nonzero(as_tuple=True)
                tile, block = blocks[pairs] // width, blocks[pairs] % width
                rivals = ((tile * BLOCK + place) * width + block).clamp(max=num_codes - 1)
                found.append(
                    _settle(
                        part[some], codebook, scale[some].expand_as(part[some]), rows[pairs], rivals
                    )
                )
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=tokens.device)


@torch.no_grad()
def nearest_child(
    tokens: Tensor, codebook: Tensor, parents: Tensor, children: int, weights: Tensor | None = None
) -> Tensor:
    """As `nearest`, among the children of one code each.

    The children of parent p are the rows p M to p M + M - 1 of a codebook.

    Args:
        tokens: (N, D) finite float32.
        codebook: (K, D) float32, finite.
        parents: (N,) int64 in [0, K / M).
        children: M.
        weights: As for `nearest`.

    Returns:
        (N,) int64 in [0, K): differences in float64, summed in a fixed order, so one exact answer
        here, too.
    """
    best, least = parents * children, None
    for child in range(children):
        rivals = parents * children + child
        differences = tokens.double() - codebook[rivals].double()
        terms = (
            differences * differences
            if weights is None
            else differences * differences * weights.double()
        )
        squared = torch.zeros_like(terms[:, 0])
        for term in terms.unbind(1):
            squared = squared + term
        if least is None:
            least = squared
            continue
        best = torch.where(squared < least, rivals, best)
        least = torch.minimum(squared, least)
    return best


def _in_one_product(tokens: Tensor, codebook: Tensor, weights: Tensor | None) -> Tensor:
    """As `nearest`, but in float64 at once, for a graph that knows no data-dependent shapes."""
    points, codes = tokens.double(), codebook.double()
    scale = torch.ones_like(points) if weights is None else weights.double()
    distances = scale @ codes.square().T - 2 * (scale * points) @ codes.T
    return distances.argmin(1)


def _unread(tokens: Tensor, codebook: Tensor, weights: Tensor | None) -> Tensor:
    """As `nearest`, by float32 products alone: no shape depends on values, and nothing waits."""
    centre = codebook.mean(0)
    codes, found = codebook - centre, []
    squares = codes.square() if weights is not None else codes.square().sum(1, keepdim=True)
    table = torch.cat([squares, codes], 1).T
    rows = chunk_rows(len(codebook), tokens.device)
    with exact_float32(tokens.device):
        for start in range(0, max(len(tokens), 1), rows):
            part = tokens[start : start + rows] - centre
            scale = (
                part.new_ones(len(part), 1)
                if weights is None
                else weights[start : start + rows].float()
            )
            found.append((torch.cat([scale, -2 * scale * part], 1) @ table).argmin(1))
    return torch.cat(found)


def _suits_tree(num_tokens: int, codebook: Tensor) -> bool:
    """Whether the tree is the faster way."""
    num_codes, dim = codebook.shape
    return (
        dim <= TREE_DIMENSIONS
        and num_tokens * num_codes >= TREE_PAIRS
        and find_spec("numba") is not None
    )


def _by_tree(tokens: Tensor, codebook: Tensor, weights: Tensor | None) -> Tensor:
    from codec.bottlenecks._tree import Tree  # here, since numba takes half a second to load

    weights = tokens.new_ones(1, tokens.shape[1]) if weights is None else weights.float()
    if not all(part.isfinite().all() for part in (tokens, codebook, weights)):
        raise NotFiniteError
    tree = Tree(codebook.detach().contiguous().numpy())
    points, scales = tokens.contiguous().numpy(), weights.contiguous().numpy()
    index = np.empty(len(points), np.int64)

    def work(part: slice) -> None:
        tree.nearest(points[part], scales[part] if len(scales) > 1 else scales, index[part])

    in_threads(len(points), work)
    return torch.from_numpy(index)


def _settle(
    tokens: Tensor, codebook: Tensor, weights: Tensor, rows: Tensor, rivals: Tensor
) -> Tensor:
    """The nearest of each row's rivals by float64 differences.

    (P,) pairs of token row and code -> (N,) codes.
    """
    counts = rows.bincount(minlength=len(tokens))
    if (counts == 0).any():
        raise NotFiniteError
    index = rows.new_empty(len(tokens))
    index[rows] = rivals  # final where there is one rival
    close = counts[rows] > 1
    rows, rivals = rows[close], rivals[close]
    differences = tokens[rows].double() - codebook[rivals].double()
    terms = (differences * differences * weights[rows].double()).T.contiguous()
    squared = torch.zeros_like(terms[0])
    for term in terms if len(rows) else ():  # a fixed order of plain sums: a reduction could vary
        squared += term
    least = squared.new_full((len(tokens),), torch.inf).scatter_reduce(0, rows, squared, "amin")
    tied = squared == least[rows]
    index[rows] = len(codebook)
    index.scatter_reduce_(0, rows[tied], rivals[tied], "amin")
    if (index == len(codebook)).any():
        raise NotFiniteError
    return index
