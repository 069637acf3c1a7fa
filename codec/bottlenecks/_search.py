"""The nearest code of each token: one exact answer, in any batch, in any chunk, on any machine.

    tokens ──float32 matmul──> distances within a known error ──> candidates (about one) ──float64 differences──> index

A matmul alone may round differently for one row than for eight, and then an encoder's indices would depend on how many
tokens came along. Here it only filters: every code that could still be the nearest within the rounding bound of the
matmul is compared again by differences in float64, element by element, which no shape can change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NOT_FINITE = "no nearest code: a latent or the codebook is not finite"
BLOCK = 32  # codes whose least distance is taken first: three passes over all distances become one


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32 inside: half-precision products of distances around 1e-2 are noise."""
    mkldnn: Any = torch.backends.mkldnn  # makes its attributes at run time, where mypy cannot see them
    backends = (torch.backends.cuda.matmul, mkldnn.matmul)
    precisions = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, precisions, strict=True):
            backend.fp32_precision = precision


def chunk_rows(width: int, device: torch.device) -> int:
    """How many float32 rows of `width` to work on at once: what a CPU's cache holds, or a small part of a GPU."""
    num_bytes = 2**21 if device.type == "cpu" else 2**28
    return max(1, num_bytes // (4 * width))


@torch.no_grad()
def nearest(tokens: Tensor, codebook: Tensor, weights: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """argmin over c of sum_i w_ni (x_ni - mu_ci)^2, ties to the lowest index.

    Args:
        tokens: (N, D) float32.
        codebook: (K, D) float32.
        weights: (N, D) positive; all ones if None, which is the Euclidean distance.
        chunk: Rows at a time; it bounds memory and cannot change the answer.

    Returns:
        (N,) int64 in [0, K).

    Raises:
        ValueError: A token, weight or code is not finite, or so large that squares overflow.
    """
    chunk = chunk or chunk_rows(len(codebook), tokens.device)
    tokens, codebook = tokens.float(), codebook.float()
    num_codes, dim = codebook.shape
    num_blocks = -(-num_codes // BLOCK)
    padding = codebook[-1:].expand(num_blocks * BLOCK - num_codes, dim)  # copies of the last code change no answer
    centre = codebook.mean(0)  # far from the origin the products would cancel; distances do not change
    codes = torch.cat([codebook, padding]) - centre
    squares = codes.square() if weights is not None else codes.double().square().sum(1, keepdim=True).float()
    table = torch.cat([squares, codes], 1).T.contiguous()
    reach = table.abs().amax(1)
    # A sum of up to 2D products, each within a few roundings of exact, errs by less than (D + 4) eps times the sum of
    # their moduli; two such errors separate the best from its rivals.
    slack = 2 * (dim + 4) * torch.finfo(torch.float32).eps
    found = []
    with exact_float32(tokens.device):
        for start in range(0, len(tokens), chunk):
            part = tokens[start : start + chunk]
            scale = part.new_ones(len(part), 1) if weights is None else weights[start : start + chunk].float()
            features = torch.cat([scale, -2 * scale * (part - centre)], 1)
            # less sum_i w x^2, the same for all codes; code m * num_blocks + b is member m of block b
            distances = (features @ table).view(len(part), BLOCK, num_blocks)
            least = distances.amin(1)
            limit = least.amin(1) + slack * (features.abs() @ reach)
            rows, blocks = (least <= limit[:, None]).nonzero(as_tuple=True)
            pairs, members = (distances[rows, :, blocks] <= limit[rows, None]).nonzero(as_tuple=True)
            rivals = (members * num_blocks + blocks[pairs]).clamp(max=num_codes - 1)
            found.append(_settle(part, codebook, scale.expand_as(part), rows[pairs], rivals))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=tokens.device)


def _settle(tokens: Tensor, codebook: Tensor, weights: Tensor, rows: Tensor, rivals: Tensor) -> Tensor:
    """The nearest of each row's rivals by float64 differences; (P,) pairs of token row and code -> (N,) codes."""
    counts = rows.bincount(minlength=len(tokens))
    if (counts == 0).any():
        raise ValueError(NOT_FINITE)
    index = rows.new_empty(len(tokens))
    index[rows] = rivals  # final where there is one rival
    close = counts[rows] > 1
    rows, rivals = rows[close], rivals[close]
    squared = torch.zeros(len(rows), dtype=torch.float64, device=tokens.device)
    for i in range(tokens.shape[1] if len(rows) else 0):  # a fixed order of plain sums: a reduction could vary
        difference = tokens[rows, i].double() - codebook[rivals, i].double()
        squared += difference * difference * weights[rows, i].double()
    least = squared.new_full((len(tokens),), torch.inf).scatter_reduce(0, rows, squared, "amin")
    tied = squared == least[rows]
    index[rows] = len(codebook)
    index.scatter_reduce_(0, rows[tied], rivals[tied], "amin")
    if (index == len(codebook)).any():
        raise ValueError(NOT_FINITE)
    return index


@torch.no_grad()
def nearest_from(tokens: Tensor, codebook: Tensor, guess: Tensor, neighbours: int = 64) -> Tensor:
    """Euclidean `nearest` for tokens whose code is nearly known, as between two Lloyd iterations: 100 times cheaper.

    With a the guessed code, every code closer to x than a lies within 2|x - a| of a, by the triangle inequality; so if
    that ball holds no more than a's listed neighbours they are all there is to search. Other tokens are searched in
    full. In 5 dimensions a listed 64 serves nearly all tokens; above about 8 dimensions nearly none.

    Args:
        tokens: (N, D) float32.
        codebook: (K, D) float32.
        guess: (N,) int64, a code for each token.
        neighbours: Codes listed for each code, itself included.

    Returns:
        (N,) int64, up to ties and float32 rounding as `nearest`.
    """
    if neighbours >= len(codebook):
        return nearest(tokens, codebook)
    listed, gaps = _neighbourhoods(codebook, neighbours)
    columns = codebook.T.contiguous()
    index = torch.empty_like(guess)
    unsure = []
    step = chunk_rows(neighbours, tokens.device)
    for start in range(0, len(tokens), step):
        part, hint = tokens[start : start + step], guess[start : start + step]
        options = listed[hint]
        squared = torch.zeros(options.shape, device=tokens.device)
        for i in range(tokens.shape[1]):
            squared += (part[:, i, None] - columns[i][options]).square_()
        column = squared.argmin(1)
        index[start : start + step] = options.gather(1, column[:, None])[:, 0]
        # options[:, 0] is the guess itself; the margin covers rounding
        unsure.append(2 * squared[:, 0].sqrt() >= gaps[hint] * (1 - 1e-5))
    rest = torch.cat(unsure).nonzero()[:, 0]
    index[rest] = nearest(tokens[rest], codebook)
    return index


def _neighbourhoods(codebook: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Each code's `count` nearest codes, itself first, (K, count), and the distance to the first one left out, (K,)."""
    listed, gaps = [], []
    columns = codebook.T.contiguous()
    for start in range(0, len(codebook), step := chunk_rows(len(codebook), codebook.device)):
        part = codebook[start : start + step]
        squared = torch.zeros(len(part), len(codebook), device=codebook.device)
        for i in range(len(columns)):
            squared += (part[:, i, None] - columns[i]).square_()
        own = torch.arange(start, start + len(part), device=codebook.device)
        squared.scatter_(1, own[:, None], -1.0)  # a duplicate must not come before the code itself
        near = squared.topk(count + 1, 1, largest=False, sorted=True)
        listed.append(near.indices[:, :count])
        gaps.append(near.values[:, count].sqrt())
    return torch.cat(listed), torch.cat(gaps)
