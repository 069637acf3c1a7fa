"""A bottleneck inside an autoencoder of one's own: any of them, in any net, on any data.

    python examples/own_autoencoder.py --method fsp
    python examples/own_autoencoder.py --method gmvq --steps 1000

The data are pictures of two discs, made on the fly. The net is a plain convolutional autoencoder
with 8 x 8 tokens. All that it knows of the bottleneck is `in_dim`, `dim`, and that `forward`
returns z_q and named losses.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor, nn

from codec.bottlenecks import FSP, GMVQ, VP, VQ, Bottleneck

SIZE = 256  # codes: with 8 x 8 tokens, 64 bytes a picture

# Each method with the weights of its losses. The weights belong to whoever trains, not to the
# bottleneck.
METHODS = {
    "fsp": (lambda: FSP(levels={SIZE: (4, 4, 4, 4)}), {"mean": 0.01, "variance": 0.007}),
    "vp": (
        lambda: VP(dim=4, codebook_sizes=(SIZE,), rows_per_code=8),
        {"mean": 0.01, "variance": 0.007},
    ),
    "gmvq": (
        lambda: GMVQ(dim=8, codebook_sizes=(SIZE,), weight_offset=100.0),
        {"latent": 0.03, "kl": 0.03 / 8},
    ),
    "vq": (lambda: VQ(dim=8, codebook_sizes=(SIZE,)), {"codebook": 0.1, "commitment": 0.025}),
}


class Autoencoder(nn.Module):
    """(B, 1, 32, 32) -> the same, through (B, 1, 8, 8) indices."""

    def __init__(self, bottleneck: Bottleneck, width: int = 32) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1), nn.GELU(), nn.Conv2d(width, width, 4, 2, 1), nn.GELU(),
            nn.Conv2d(width, bottleneck.in_dim, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(bottleneck.dim, width, 3, 1, 1), nn.GELU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1), nn.GELU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.bottleneck(self.encoder(x))
        return self.decoder(out.z_q), out.losses


def pictures(count: int, generator: torch.Generator) -> Tensor:
    """(count, 1, 32, 32) in [0, 1]: two discs of random place, size and brightness."""
    line = torch.linspace(-1, 1, 32)
    x = torch.zeros(count, 32, 32)
    for _ in range(2):
        place, radius, light = (torch.rand(count, n, generator=generator) for n in (2, 1, 1))
        dx, dy = (line - (2 * place[:, i, None] - 1) for i in (0, 1))
        distance = (dx[:, None] ** 2 + dy[:, :, None] ** 2).sqrt()
        disc = torch.sigmoid((0.2 + 0.4 * radius[..., None] - distance) * 20)
        x = torch.maximum(x, disc * (0.3 + 0.7 * light[..., None]))
    return x[:, None]


def train(method: str, steps: int, batch: int = 32) -> tuple[Autoencoder, float]:
    """The trained net, and the mean squared error through true indices."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    build, weights = METHODS[method]
    net = Autoencoder(build())
    bottleneck = net.bottleneck

    def latents(count: int) -> Tensor:
        """(N, in_dim) encoder outputs, what `fit` takes."""
        with torch.no_grad():
            return net.encoder(pictures(count, generator)).movedim(1, -1).flatten(0, -2)

    if bottleneck.coupled:
        bottleneck.fit(latents(100))  # a method with a codebook begins from k-means
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    for step in range(steps):
        bottleneck.anneal(step / steps)
        x = pictures(batch, generator)
        x_hat, losses = net.train()(x)
        loss = (x - x_hat).square().mean() + sum(
            weights[name] * value for name, value in losses.items()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if not bottleneck.coupled:
        bottleneck.fit(latents(100))  # a method that perturbs builds its codebook now
    with torch.no_grad():
        x = pictures(64, generator)
        # (64, 1, 8, 8) integers: all that a file needs.
        indices = bottleneck.encode(net.eval().encoder(x))
        x_hat = net.decoder(bottleneck.decode(indices))
        assert torch.equal(x_hat, net(x)[0]), "in eval mode, forward is decode(encode), bit for bit"
        return net, float((x - x_hat).square().mean())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="fsp")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args(arguments)
    _, error = train(options.method, options.steps)
    print(f"{options.method}, K = {SIZE}, {options.steps} steps: mean squared error {error:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
