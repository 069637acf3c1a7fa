"""The small convolutional autoencoder of SQ-VAE (Takida et al. 2022), with any bottleneck between
its halves.

    x (B, 3, H, W) ─stride 2 twice (CIFAR-10) or three times (CelebA)─ResBlocks─>
    h (B, 64, H/f, W/f) ─head─> z
    z ──bottleneck──> z_q (B, 64, H/f, W/f) ─ResBlocks─mirror image─sigmoid─> x_hat

0.31 M parameters with f = 4, the size of the field's CIFAR-10 experiments; GM-VQ's own nets are not
public. The convolutions compute in bfloat16 while the net trains and in float32 afterwards, the
bottleneck always in float32.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from codec.bottleneck import Bottleneck, BottleneckOutput

WIDTH = 64


class ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
        )

    def forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.body(h)
        return h + change


class SQVAENet(nn.Module):
    """Encoder, bottleneck, decoder.

    Args:
        bottleneck: A bottleneck of dim 64. Where it wants more channels than 64, a 1x1 convolution
            adds the rest: GM-VQ's weights, with bias 0, so that they begin around softplus(0).
        stages: The number of stages of stride 2: 2 for 32x32 pictures, 3 for 128x128.
        blocks: The number of residual blocks of each half.

    Raises:
        ValueError: The bottleneck is of another dim.
    """

    def __init__(self, bottleneck: Bottleneck, stages: int = 2, blocks: int = 2) -> None:
        super().__init__()
        if bottleneck.dim != WIDTH or bottleneck.in_dim < WIDTH:
            raise ValueError(
                f"this net is {WIDTH} wide, the bottleneck {bottleneck.in_dim} -> {bottleneck.dim}"
            )
        widths = [3, WIDTH // 2, *[WIDTH] * (stages - 1)]
        down = [_unit(nn.Conv2d(a, b, 4, 2, 1), b) for a, b in pairwise(widths)]
        up = [_unit(nn.ConvTranspose2d(b, a, 4, 2, 1), a) for a, b in pairwise(widths[1:])]
        self.encoder = nn.Sequential(
            *down,
            _unit(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), WIDTH),
            *(ResBlock(WIDTH) for _ in range(blocks)),
        )
        extra = bottleneck.in_dim - WIDTH
        self.head = nn.Conv2d(WIDTH, extra, 1) if extra else None
        if self.head is not None and self.head.bias is not None:
            nn.init.zeros_(self.head.bias)
        self.bottleneck = bottleneck
        self.decoder = nn.Sequential(
            *(ResBlock(WIDTH) for _ in range(blocks)),
            _unit(nn.ConvTranspose2d(WIDTH, WIDTH, 3, padding=1), WIDTH),
            *reversed(up),
            nn.ConvTranspose2d(widths[1], 3, 4, 2, 1),
        )

    def latents(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> z (B, in_dim, H/f, W/f)."""
        with self._precision(x):
            h = self.encoder(x)
            z = h if self.head is None else torch.cat([h, self.head(h)], 1)
        return z.float()

    def reconstruct(self, z_q: Tensor) -> Tensor:
        """z_q (B, 64, H/f, W/f) -> x_hat (B, 3, H, W) in (0, 1)."""
        with self._precision(z_q):
            logits: Tensor = self.decoder(z_q)
        return logits.float().sigmoid()

    def forward(self, x: Tensor) -> tuple[Tensor, BottleneckOutput]:
        """Reconstructs (B, 3, H, W) in [0, 1], and returns what the bottleneck gave, too."""
        out = self.bottleneck(self.latents(x))
        return self.reconstruct(out.z_q), out

    def _precision(self, x: Tensor) -> torch.autocast:
        return torch.autocast(
            x.device.type, torch.bfloat16, enabled=self.training, cache_enabled=False
        )


def _unit(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
