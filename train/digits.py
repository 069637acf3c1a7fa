"""How an index becomes the digits that the coder's network asks for, one after another.

A size's codes are put in an order in which each question of the coder parts them into regions of
their space. Many codes are written as two digits, and the codes of nested codebooks as the digits
of the parent with their own behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from codec.bottleneck import Bottleneck
from codec.bottlenecks.parts import LevelGrid

# A codebook beyond it is coded in two digits: deep questions hardly depend on the neighbours.
MOST_NODES = 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """How the indices of one size become digits.

    Attributes:
        levels: The number of values of each digit, (D,) int64.
        order: The place of each code, (K,) int64; empty where it is the code's number.
        vectors: The codes, (K, d) float32, centred and scaled.
        given: The number of digits that are known before, those of the parent.
    """

    levels: np.ndarray
    order: np.ndarray
    vectors: np.ndarray
    given: int = 0

    def rows(self) -> np.ndarray:
        """Returns each code's digits as rows of one table that has all digits' values, (K, D)."""
        number = int(self.levels.prod())
        places = self.order if self.order.size else np.arange(number)
        starts = np.cumsum(self.levels) - self.levels
        digits = np.stack(np.unravel_index(places, tuple(self.levels.tolist())), 1)
        return np.asarray(digits + starts)

    def row_vectors(self) -> np.ndarray:
        """Returns for each row of that table the mean of the codes that have the digit, (R, d)."""
        rows = self.rows()
        sums = np.zeros((int(self.levels.sum()), self.vectors.shape[1]))
        counts = np.zeros(len(sums))
        np.add.at(sums, rows.ravel(), np.repeat(self.vectors, len(self.levels), 0))
        np.add.at(counts, rows.ravel(), 1)
        return np.asarray(sums / counts[:, None])


def device_of(bottleneck: Bottleneck) -> torch.device:
    """Returns where a bottleneck's tensors are; the CPU for one without any."""
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


def layout(bottleneck: Bottleneck, size: int) -> Layout:
    """Says how the indices of a size become digits."""
    number = bottleneck.num_codes(size)
    vectors = code_vectors(bottleneck, size)
    if isinstance(bottleneck, LevelGrid):
        levels = bottleneck.levels[bottleneck.codebook_sizes.index(size)].cpu().numpy()[::-1]
        levels = levels[levels > 1]
        return Layout(levels.astype(np.int64), np.empty(0, np.int64), vectors)
    split = number > MOST_NODES and number % MOST_NODES == 0
    levels = np.array([MOST_NODES, number // MOST_NODES] if split else [number])
    order = np.empty(0, np.int64) if bottleneck.nested else bisect(vectors)
    return Layout(levels, order, vectors)


def refined_layout(bottleneck: Bottleneck, size: int, below: int) -> Layout | None:
    """Says how indices become digits where their parents at the size below are known.

    The digits are those of the parent, then the code's own. Every parent must have as many
    children, M of them, which are told apart by questions of one half against the other.

    Returns:
        The layout; None if the sizes are not nested, or parents have unequal numbers of children.
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
    parent = layout(bottleneck, below)
    # A parent's digits are those of its number, not of its place.
    levels = np.array([number]) if parent.order.size else parent.levels
    own = [2] * (children.bit_length() - 1) if children & (children - 1) == 0 else [children]
    places = order * children + rank
    if (places == np.arange(len(places))).all():
        places = np.empty(0, np.int64)  # said shorter
    return Layout(np.concatenate([levels, own]), places, vectors, len(levels))


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
