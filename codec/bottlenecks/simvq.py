"""SimVQ (Zhu et al. 2025): the codebook is a learnt linear map of frozen random vectors.

A code that no point chose still moves, because the map that the chosen ones train is shared by all.

    frozen C (K, L) ──W, b──> codebook    z ──nearest code──> index ──> code    gradient: identity
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.bottleneck import (
    Bottleneck,
    BottleneckOutput,
    Size,
    straight_through,
    to_grid,
    to_tokens,
)
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import batch_perplexity
from codec.precision import exact_float32


class SimVQ(Bottleneck):
    """Vector quantisation through a shared linear map (Zhu et al. 2025).

    Losses, means over elements: "commitment", |z - sg mu_j|^2, published weight 0.25, and
    "codebook", |sg z - mu_j|^2, weight 1 (the audio configuration multiplies both by 1000).

    What is decoded is the mapped codebook; the published `get_codebook_entry` returns rows of the
    frozen one. Each size has its own frozen vectors and map. There is nothing to fit: the vectors
    are frozen.

    Args:
        dim: L.
        codebook_sizes: The sizes K.

    Raises:
        ValueError: The sizes are not ascending.
    """

    loss_names = ("commitment", "codebook")

    def __init__(self, dim: int = 64, codebook_sizes: tuple[int, ...] = (1024,)) -> None:
        super().__init__(dim, codebook_sizes)
        self.maps = nn.ModuleDict(
            {str(k): nn.Linear(dim, dim, dtype=torch.float32) for k in self.codebook_sizes}
        )
        for size in self.codebook_sizes:
            # C ~ N(0, 1/L).
            self.register_buffer(
                f"frozen_{size}", torch.randn(size, dim, dtype=torch.float32) * dim**-0.5
            )

    @property
    def settled(self) -> bool:
        return True

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Quantises; the stat "perplexity" is of the batch's indices.

        Raises ValueError where z is not finite.
        """
        size = self.check_size(codebook_size)
        points, codebook = to_tokens(z), self.codebook(size)
        chosen = nearest(points.detach(), codebook)
        codes = F.embedding(chosen, codebook)
        losses = {
            "commitment": F.mse_loss(points, codes.detach()),
            "codebook": F.mse_loss(codes, points.detach()),
        }
        stats = {"perplexity": batch_perplexity(chosen, size)}
        z_q = to_grid(straight_through(codes, points), z)
        return BottleneckOutput(z_q, to_grid(chosen[:, None], z), losses, stats)

    def _encode(self, z: Tensor, size: int) -> Tensor:
        """argmin over c of |z - mu_c|."""
        return to_grid(nearest(to_tokens(z), self.codebook(size))[:, None], z)

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        """Rows of the mapped codebook."""
        return F.embedding(indices[:, 0], self.codebook(size)).movedim(-1, 1).contiguous()

    def codebook(self, codebook_size: int | None = None) -> Tensor:
        """(K, L) C W^T + b, as it is searched and decoded."""
        size = self.check_size(codebook_size)
        with exact_float32(self.get_buffer(f"frozen_{size}").device):
            codes: Tensor = self.maps[str(size)](self.get_buffer(f"frozen_{size}"))
        return codes
