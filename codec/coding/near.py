"""The codes near a latent: what searches and efforts choose from."""

from __future__ import annotations

import torch
from torch import Tensor

from codec.bottleneck import Bottleneck, to_tokens

TOKENS_AT_ONCE = 256  # whose distances to all codes are held; fewer where there are many codes
DISTANCES_AT_ONCE = 1 << 22


class CodeVectors:
    """The codes of a bottleneck as vectors, of which those of its G codebooks add up to z_q.

    Args:
        bottleneck: Any whose codebooks' parts of z_q add up, or stand side by side.
        size: The codebook size.
        device: Where the bottleneck is, whatever torch's default device.
    """

    @torch.no_grad()
    def __init__(self, bottleneck: Bottleneck, size: int, device: torch.device) -> None:
        self._bottleneck, self._size = bottleneck, size
        count, books = bottleneck.num_codes(size), bottleneck.num_codebooks
        every = torch.arange(count, device=device)
        tables = []
        for book in range(books):
            indices = torch.zeros(1, books, count, dtype=torch.int64, device=device)
            indices[0, book] = every
            tables.append(bottleneck.decode(indices, size)[0].T)
        self._vectors = torch.stack(tables)  # (G, K, D)
        self._vectors[1:] -= self._vectors[0, 0]  # index 0 everywhere counts once

    def __getitem__(self, codes: Tensor) -> Tensor:
        """(B, G, ...) numbers of codes -> (B, G, ..., D)."""
        rows = [table[part] for table, part in zip(self._vectors, codes.unbind(1), strict=True)]
        return torch.stack(rows, 1)

    @torch.no_grad()
    def near(self, z: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The M codes of each codebook that are nearest to what the others leave of a latent.

        Args:
            z: (B, D_in, *S).
            count: M; fewer where there are fewer codes.

        Returns:
            (B, G, M, *S) codes and their squared distances, the nearest first.
        """
        bottleneck, few = self._bottleneck, min(count, self._vectors.shape[1])
        chosen = bottleneck.encode(z, self._size)
        wanted, z_q = bottleneck.unquantised(z, self._size), bottleneck.decode(chosen, self._size)
        tokens = max(1, min(TOKENS_AT_ONCE, DISTANCES_AT_ONCE // self._vectors.shape[1]))
        codes, squares = [], []
        for table, own in zip(self._vectors, chosen.unbind(1), strict=True):
            others = z_q - table[own].movedim(-1, 1)
            for part in to_tokens(wanted - others).split(tokens):
                found = torch.cdist(part, table).topk(few, largest=False)
                codes.append(found.indices)
                squares.append(found.values.square())
        shape = (len(self._vectors), len(z), *z.shape[2:], few)  # G, B, *S, M
        near, distances = (
            torch.cat(parts).view(shape).transpose(0, 1).movedim(-1, 2)
            for parts in (codes, squares)
        )
        return near, distances
