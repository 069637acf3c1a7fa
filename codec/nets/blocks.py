"""The one building block of all nets, and how a decoder is told which codebook size it reads.

Activations inside the nets are channels-last, (B, H, W, C), and speech is a picture one row high: one block serves
both media, and the linear layers run on contiguous rows.
"""

from __future__ import annotations

from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONDITION_WIDTH = 64


class ConvNeXt(nn.Module):
    """Depthwise convolution, LayerNorm, a two-layer perceptron at each position, residual (Liu et al. 2022).

    Args:
        dim: Channels C.
        kernel: (height, width) of the depthwise convolution, odd; (1, 7) for speech, (7, 7) for pictures.
        scale: First value of the layer scale, 1 / depth of the stack.
        conditioned: Whether a FiLM condition (B, CONDITION_WIDTH) is given to `forward`; its last layer starts at
            zero, so that a new block ignores it (methods 9a).
    """

    def __init__(self, dim: int, kernel: tuple[int, int], scale: float, conditioned: bool = False) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel, padding=(kernel[0] // 2, kernel[1] // 2), groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, 3 * dim)
        self.contract = nn.Linear(3 * dim, dim)
        self.layer_scale = nn.Parameter(torch.full((dim,), scale))
        self.film = nn.Linear(CONDITION_WIDTH, 2 * dim) if conditioned else None
        for layer in (self.depthwise, self.expand, self.contract):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        h = self.norm(self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        if self.film is not None and condition is not None:
            gain, shift = self.film(condition)[:, None, None].chunk(2, -1)
            h = h * (1 + gain) + shift
        out: Tensor = x + self.layer_scale * self.contract(F.gelu(self.expand(h)))
        return out


class Stack(nn.Module):
    """`depth` ConvNeXt blocks that share a condition."""

    def __init__(self, dim: int, depth: int, kernel: tuple[int, int], conditioned: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvNeXt(dim, kernel, 1 / depth, conditioned) for _ in range(depth))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        for block in self.blocks:
            x = block(x, condition)
        return x


class SizeEmbedding(nn.Module):
    """log2 of the codebook size -> a FiLM condition: kappa = (log2 K - 11) / 3, about [-1, 1] for 256..16384."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, CONDITION_WIDTH)

    def forward(self, codebook_size: int | Tensor, batch: int) -> Tensor:
        """An int, or a (B,) tensor -> (B, CONDITION_WIDTH) float32."""
        device = self.layer.weight.device
        if isinstance(codebook_size, Tensor):
            log_size = codebook_size.to(device, torch.float32).log2()
        else:
            log_size = torch.full((batch,), log2(codebook_size), device=device)
        return F.gelu(self.layer(((log_size - 11) / 3)[:, None]))


def downsample(inputs: int, outputs: int) -> nn.Conv2d:
    """A 2 x 2 convolution of stride 2."""
    return nn.Conv2d(inputs, outputs, 2, stride=2)
