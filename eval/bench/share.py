"""share: what part of a training step the bottleneck takes, for the nets of each recipe.

The step is encoder, bottleneck and decoder, forward and backward, with a squared error: without the
perceptual losses, the adversary and the optimiser of a real one, in which the bottleneck's share is
smaller still.
"""

from __future__ import annotations

import torch

from codec.bottleneck import BottleneckOutput
from codec.bottlenecks import VP
from codec.cli.frame import UsageError
from codec.medium import MEDIA
from codec.model import build
from eval.bench.timing import Figures, Options, Step, compare
from train import recipes


def steps(recipe: str, size: int | None, batch: int, device: str) -> tuple[Step, Step, int]:
    """Returns the bottleneck's step alone, the whole step, and the number of tokens."""
    torch.manual_seed(0)
    plan = recipes.load(recipe, [])
    codec = build(plan.config()).to(device).train()
    try:
        codec.bottleneck.check_size(size)
    except ValueError as error:
        raise UsageError(f"{recipe}: --codebook-size {size}: {error}") from None
    x = torch.rand(batch, codec.channels, *plan.data.crop, device=device)
    with torch.no_grad():
        latents = codec.encoder(x)
    z = torch.randn_like(latents).requires_grad_()
    if isinstance(codec.bottleneck, VP):
        codec.bottleneck.queue.normal_()
        codec.bottleneck.queue_count.fill_(len(codec.bottleneck.queue))

    def total(out: BottleneckOutput) -> torch.Tensor:
        return out.z_q.square().mean() + sum(out.losses.values())

    def alone() -> None:
        total(codec.bottleneck(z, size)).backward()

    def whole() -> None:
        out = codec(x, size)
        ((out.x_hat - x).square().mean() + sum(out.bottleneck.losses.values())).backward()

    return alone, whole, latents[:, 0].numel()


def share(options: Options) -> Figures:
    """Times the bottleneck of each recipe, and the whole step.

    Raises:
        UsageError: A recipe does not offer a codebook size.
    """
    rows: Figures = {}
    print(
        f"{'recipe':20} {'K':>6} {'tokens':>7} {'bottleneck, ms':>15} {'step, ms':>9} {'share':>7}"
    )
    for medium in MEDIA:
        for method in ("vp", "gmvq", "fsp"):
            name = f"{medium}-{method}-small"
            for size in options.sizes:
                batch = max(1, options.tokens // 256)
                alone, whole, tokens = steps(name, size, batch, options.device)
                a, b, part = compare(alone, whole, options.turns, options.device, warm=1)
                rows[f"{name} K={size}"] = {
                    "bottleneck_s": a,
                    "step_s": b,
                    "tokens": tokens,
                    "share": part,
                }
                print(
                    f"{name:20} {size:6} {tokens:7} {1e3 * a:15.1f} {1e3 * b:9.0f} {part:7.1%}",
                    flush=True,
                )
    return rows
