"""Image encoder and decoder: pixel-(un)shuffle and ConvNeXt blocks, downsampling 8.

x (B, 3, H, W) ─unshuffle 4─> (H/4, W/4) ─blocks─stride 2─blocks─> z (B, D, H/8, W/8)
z_q ─blocks, told K─shuffle 2─blocks─shuffle 2─blocks─shuffle 2─> x_hat (B, 3, H, W)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nets.blocks import SizeEmbedding, Stack, downsample

DOWNSAMPLING = 8
KERNEL = (7, 7)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """Widths and depths: encoder at H/4 and H/8; decoder at H/8, H/4 and H/2."""

    encoder_dims: tuple[int, int] = (48, 96)
    encoder_depths: tuple[int, int] = (2, 3)
    decoder_dims: tuple[int, int, int] = (96, 48, 24)
    decoder_depths: tuple[int, int, int] = (4, 3, 1)


class ImageEncoder(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(F.pixel_unshuffle(x * 2 - 1, 4).contiguous(memory_format=torch.channels_last))
        h = self.fine(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        h = self.norm(self.coarse(self.down(h).permute(0, 2, 3, 1)))
        with torch.autocast(x.device.type, enabled=False):  # the latent is what gets quantised: float32
            return F.linear(h.float(), self.head.weight, self.head.bias).permute(0, 3, 1, 2)


class ImageDecoder(nn.Module):
    """(B, in_dim, H/8, W/8) and the codebook size -> (B, 3, H, W), about [0, 1], not clipped."""

    def __init__(self, config: ImageConfig, in_dim: int) -> None:
        super().__init__()
        self.size = SizeEmbedding()
        dims = config.decoder_dims
        self.stem = nn.Conv2d(in_dim, dims[0], 3, padding=1)
        self.stacks = nn.ModuleList(
            Stack(dim, depth, KERNEL, conditioned=True) for dim, depth in zip(dims, config.decoder_depths, strict=True)
        )
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in pairwise(dims))
        self.head = nn.Conv2d(dims[-1], 12, 3, padding=1)

    def forward(self, z_q: Tensor, codebook_size: int | Tensor) -> Tensor:
        condition = self.size(codebook_size, z_q.shape[0])
        h = self.stem(z_q.contiguous(memory_format=torch.channels_last))
        for stack, up in zip(self.stacks, [*self.ups, None], strict=True):
            h = stack(h.permute(0, 2, 3, 1), condition).permute(0, 3, 1, 2)
            if up is not None:
                h = F.pixel_shuffle(up(h), 2).contiguous(memory_format=torch.channels_last)
        with torch.autocast(z_q.device.type, enabled=False):
            h = F.conv2d(h.float(), self.head.weight, self.head.bias, padding=1)
        return (F.pixel_shuffle(h, 2) + 1) / 2
