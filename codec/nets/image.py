"""Image encoder and decoder: pixel-(un)shuffle and ConvNeXt blocks, downsampling 8.

x (B, 3, H, W) ─unshuffle 4─> (H/4, W/4) ─blocks─stride 2─blocks─> z (B, D, H/8, W/8)
z_q ─blocks, told K─shuffle 2─blocks─shuffle 2─blocks─shuffle 2─> x_hat (B, 3, H, W)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nets.blocks import Layer, SizeEmbedding, Stack, convolution, downsample, run
from codec.precision import Float32

DOWNSAMPLING = 8
KERNEL = (7, 7)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """Widths and depths: encoder at H/4 and H/8; decoder at H/8, H/4 and H/2."""

    encoder_dims: tuple[int, int] = (48, 96)
    encoder_depths: tuple[int, int] = (2, 3)
    decoder_dims: tuple[int, int, int] = (96, 48, 24)
    decoder_depths: tuple[int, int, int] = (4, 3, 1)

    @property
    def stride(self) -> int:
        """Pixels per latent position, along each side."""
        return DOWNSAMPLING

    @property
    def context(self) -> None:
        """None: these nets give `layers`."""


class ImageEncoder(Float32):
    """(B, 3, H, W) in [0, 1], H and W multiples of 8 -> (B, out_dim, H/8, W/8)."""

    def __init__(self, config: ImageConfig, out_dim: int) -> None:
        super().__init__()
        narrow, wide = config.encoder_dims
        self.stem = nn.Conv2d(48, narrow, 3, padding=1)
        self.fine = Stack(narrow, config.encoder_depths[0], KERNEL)
        self.down = downsample(narrow, wide)
        self.coarse = Stack(wide, config.encoder_depths[1], KERNEL)
        self.norm = nn.LayerNorm(wide)
        self.head = nn.Linear(wide, out_dim)

    def layers(self) -> list[Layer]:
        """(B, H, W, 3) in [0, 1] -> (B, H/8, W/8, out_dim)."""
        stem, down = convolution(self.stem), convolution(self.down)
        return [
            Layer(_patches),
            stem,
            *self.fine.layers(),
            down,
            *self.coarse.layers(),
            Layer(self._latents),
        ]

    def _latents(self, h: Tensor, _: slice) -> Tensor:
        h = self.norm(h)
        # The latent is what gets quantised: float32.
        with torch.autocast(h.device.type, enabled=False):
            return F.linear(h.float(), self.head.weight, self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return run(self.layers(), x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _patches(x: Tensor, _: slice) -> Tensor:
    """(B, H, W, 3) in [0, 1] -> (B, H/4, W/4, 48) in [-1, 1]."""
    return F.pixel_unshuffle(x.permute(0, 3, 1, 2) * 2 - 1, 4).permute(0, 2, 3, 1).contiguous()


class ImageDecoder(Float32):
    """(B, in_dim, H/8, W/8) and the codebook size -> (B, 3, H, W), about [0, 1], not clipped."""

    def __init__(self, config: ImageConfig, in_dim: int) -> None:
        super().__init__()
        self.size = SizeEmbedding()
        dims = config.decoder_dims
        self.stem = nn.Conv2d(in_dim, dims[0], 3, padding=1)
        self.stacks = nn.ModuleList(
            Stack(dim, depth, KERNEL, conditioned=True)
            for dim, depth in zip(dims, config.decoder_depths, strict=True)
        )
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in pairwise(dims))
        self.head = nn.Conv2d(dims[-1], 12, 3, padding=1)

    def layers(self, codebook_size: int | Tensor, batch: int) -> list[Layer]:
        """(B, H/8, W/8, in_dim) -> (B, H, W, 3)."""
        condition = self.size(codebook_size, batch)
        layers = [convolution(self.stem)]
        for stack, up in zip(self.stacks, [*self.ups, None], strict=True):
            layers += cast(Stack, stack).layers(condition)
            if up is not None:
                layers.append(Layer(partial(_widen, up)))
        return [*layers, Layer(self._pixels, 1)]

    def _pixels(self, h: Tensor, rows: slice) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):
            h = F.conv2d(
                h.float().permute(0, 3, 1, 2), self.head.weight, self.head.bias, padding=1
            )[:, :, rows]
        return ((F.pixel_shuffle(h, 2) + 1) / 2).permute(0, 2, 3, 1)

    def forward(self, z_q: Tensor, codebook_size: int | Tensor) -> Tensor:
        layers = self.layers(codebook_size, z_q.shape[0])
        return run(layers, z_q.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)


def _widen(up: nn.Conv2d, h: Tensor, _: slice) -> Tensor:
    """(B, H, W, C) -> (B, 2H, 2W, C')."""
    return F.pixel_shuffle(up(h.permute(0, 3, 1, 2)), 2).permute(0, 2, 3, 1).contiguous()
