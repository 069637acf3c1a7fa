"""A picture's search, tile by tile, so that its memory does not grow with the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from codec.coding.search import Search
from codec.model import Codec
from codec.windows import windows

# Rows and columns of latents in a tile, and how many around it the search sees, too.
TILE, CONTEXT = 32, 4


def searched_rows(search: Search, codec: Codec, strips: Iterable[Tensor]) -> Iterator[Tensor]:
    """The indices of a picture that a search finds, (n, w, G).

    Args:
        strips: Pixels (n, W, 3), n and W multiples of the stride.
    """
    pixels, stride, top = _Kept(strips), codec.stride, 0
    for z, left, core in windows(codec.latents_of_rows(pixels), TILE, CONTEXT):
        x = pixels.rows((top - left) * stride, len(z) * stride)
        tiles = []
        for column in range(0, z.shape[1], TILE):
            first, last = max(column - CONTEXT, 0), column + TILE + CONTEXT
            near = search(
                x[:, first * stride : last * stride].movedim(-1, 0)[None],
                z[:, first:last].movedim(-1, 0)[None],
            )
            tiles.append(near[0].movedim(0, -1)[left : left + core, column - first :][:, :TILE])
        yield torch.cat(tiles, 1)
        top += core


class _Kept:
    """Passes strips on and keeps them until their latents are there."""

    def __init__(self, strips: Iterable[Tensor]) -> None:
        self._strips = strips
        self._held: list[Tensor] = []
        self._first = 0  # row of the first that is held

    def __iter__(self) -> Iterator[Tensor]:
        for strip in self._strips:
            self._held.append(strip)
            yield strip

    def rows(self, first: int, count: int) -> Tensor:
        """Rows from `first` on; those before are given up."""
        while self._first + len(self._held[0]) <= first:
            self._first += len(self._held.pop(0))
        return torch.cat(self._held)[first - self._first :][:count]
