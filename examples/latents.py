"""What each bottleneck does to a latent, drawn in two dimensions with the classes themselves.

    python examples/latents.py --out assets/pictures

draws latent-vp.webp, latent-fsp.webp and latent-gmvq.webp, which stand in docs/bottlenecks/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from codec.bottlenecks import FSP, GMVQ, VP, Bottleneck

GREY, BLUE, GREEN, RED = "#b9bec5", "#2468a8", "#2a8a4a", "#c03a2b"


def moons(count: int) -> Tensor:
    """(count, 2): a cloud that is not round, so that one can see what follows it."""
    angle = torch.rand(count) * 2.6 - 0.3
    ring = torch.stack([angle.cos() * 1.6 - 0.3, angle.sin() * 1.6 - 0.9], 1)
    return ring + 0.28 * torch.randn(count, 2)


def grid(rows: Tensor) -> Tensor:
    """(N, D) rows -> (1, D, N), as bottlenecks take them."""
    return rows.T[None]


def cells(axes: Axes, method: Bottleneck, extent: float, extra: Tensor | None = None) -> None:
    """Colours the plane by the index that each point gets."""
    line = torch.linspace(-extent, extent, 300)
    points = torch.cartesian_prod(line, line)
    if extra is not None:
        points = torch.cat([points, extra.expand(len(points), -1)], 1)
    index = method.encode(grid(points))[0, 0].reshape(300, 300).T.numpy()
    shades = np.random.default_rng(3).uniform(0.72, 0.97, (int(index.max()) + 1, 3))
    axes.imshow(
        shades[index],
        origin="lower",
        extent=(-extent, extent, -extent, extent),
        interpolation="nearest",
    )


def panels(titles: list[str], extent: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    axes = list(figure.subplots(1, 3))
    for one, title in zip(axes, titles, strict=True):
        one.set_title(title, fontsize=10)
        one.set(
            xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[]
        )
    return figure, axes


def draw_vp() -> Figure:
    """Radii from a queue, accepted and refused steps, and the codebook that comes last."""
    figure, (first, second, third) = panels(
        [
            "training: a cell's radius, from recent latents",
            "training: steps kept (green), refused (red)",
            "afterwards: k-means, nearest code",
        ],
        2.4,
    )
    vp = VP(dim=2, codebook_sizes=(16,), rows_per_code=32)
    while vp.train()(grid(moons(256))).stats["queue_fill"] < 1:
        pass  # nothing is perturbed before the queue is full
    queue, some = vp.queue, moons(7)
    radius = vp.eta * torch.cdist(some, queue).kthvalue(vp.rows_per_code, dim=1).values
    first.scatter(*queue.T, s=4, c=GREY)
    first.scatter(*some.T, s=22, c=BLUE, zorder=3)
    for (x, y), r in zip(some.tolist(), radius.tolist(), strict=True):
        first.add_patch(Circle((x, y), r, fill=False, color=BLUE))
    z = moons(90)
    moved = vp(grid(z)).z_q[0].T
    step = moved - z
    kept = step.norm(dim=1) > 0
    second.scatter(*queue.T, s=4, c=GREY, alpha=0.5)
    second.quiver(
        *z[kept].T, *step[kept].T, color=GREEN, angles="xy", scale_units="xy", scale=1, width=0.006
    )
    second.scatter(*z[~kept].T, s=16, c=RED)
    vp.fit(moons(4000))
    cells(third, vp.eval(), 2.4)
    third.scatter(*moons(400).T, s=3, c="#00000040")
    third.scatter(*vp.codebook().T, s=30, c="black", marker="x")
    return figure


def draw_fsp() -> Figure:
    """The cells before squashing; in the squashed square, noise and rounding to midpoints."""
    levels = 5
    figure, (first, second, third) = panels(
        ["encoder's output and its cells", "training: noise one cell wide, or the midpoint",
         "encoding: always the midpoint"], 2.4,
    )  # fmt: skip
    fsp = FSP(levels={levels**2: (levels, levels)})
    a = torch.randn(1, 2, 400) * 0.8
    cells(first, fsp.eval(), 2.4)
    first.scatter(*a[0], s=4, c="#00000060")
    few = torch.randn(1, 2, 60) * 0.8
    straight = FSP(levels={levels**2: (levels, levels)}, quantise_probability=0.0)
    noisy = straight.train()(few).z_q.detach()[0]
    before = fsp.target(few)[0]
    after = fsp.eval()(few).z_q.detach()[0]
    edge = 3**0.5
    for axes, target, colour in ((second, noisy, GREEN), (third, after, BLUE)):
        axes.set(xlim=(-edge, edge), ylim=(-edge, edge))
        for border in np.linspace(-edge, edge, levels + 1):
            axes.axhline(border, color=GREY, linewidth=0.8)
            axes.axvline(border, color=GREY, linewidth=0.8)
        half = slice(0, 40) if axes is second else slice(0, 60)
        axes.quiver(
            *before[:, half], *(target - before)[:, half],
            color=colour, angles="xy", scale_units="xy", scale=1, width=0.006,
        )  # fmt: skip
        axes.scatter(*before[:, half], s=8, c="#00000080")
    second.quiver(
        *before[:, 40:], *(after - before)[:, 40:],
        color=BLUE, angles="xy", scale_units="xy", scale=1, width=0.006,
    )  # fmt: skip
    second.scatter(*before[:, 40:], s=8, c="#00000080")
    return figure


def draw_gmvq() -> Figure:
    """A point's soft choice of codes, what training draws from it, and encoding."""
    figure, (first, second, third) = panels(
        ["training: probability of each code", "training: drawn code and noise",
         "encoding: the most probable code"], 2.4,
    )  # fmt: skip
    gmvq = GMVQ(dim=2, codebook_sizes=(16,))
    # Weights differ by dimension, so the nearest code is not always chosen.
    raw = torch.tensor([9.0, 3.0])
    gmvq.fit(torch.cat([moons(2000), raw.expand(2000, -1)], 1))
    gmvq.anneal(1.0)
    codes, point = gmvq.codebook(16).detach(), torch.tensor([0.35, 0.45])
    weights = torch.nn.functional.softplus(raw)
    chance = torch.softmax(-(weights * (point - codes).square()).sum(1) / 2, 0)
    for code, p in zip(codes, chance.tolist(), strict=True):
        first.plot(*torch.stack([point, code]).T, color=BLUE, linewidth=12 * p, alpha=0.6)
    drawn = gmvq.train()(grid(torch.cat([point, raw])[None].expand(300, -1))).z_q.detach()[0]
    second.scatter(*drawn, s=6, c=GREEN, alpha=0.5)
    cells(third, gmvq.eval(), 2.4, extra=raw)
    for axes in (first, second, third):
        axes.scatter(*codes.T, s=30, c="black", marker="x")
        axes.scatter(*point, s=40, c=RED, zorder=3)
    return figure


DRAWINGS = {"vp": draw_vp, "fsp": draw_fsp, "gmvq": draw_gmvq}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        torch.manual_seed(0)
        with torch.no_grad():
            draw().savefig(options.out / f"latent-{name}.webp", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
