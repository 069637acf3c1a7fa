"""vp: a training step of VP against the published way to find neighbours, written plainly here.

The reference keeps a queue of K * 16 d rows and takes all distances and topk, for z and again for z'. Where its table
of distances would not fit, it does a part of the tokens, and its time and memory are those of the part times the rest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from codec.bottlenecks import VP
from codec.bottlenecks.vp import accept, sample_ball
from eval.bench.timing import Figures, Options, Step, compare_part

LARGEST = 2**25  # bytes of the reference's table
STATISTICS = 16384  # tokens, of each of several draws
DRAWS = 3


def filled(dim: int, size: int, device: str, **options: Any) -> VP:
    """Returns a VP in training whose queue holds normal latents."""
    method = VP(dim, (size,), **options).to(device).train()
    method.queue.normal_()
    method.queue_count.fill_(len(method.queue))
    return method


def published(z: Tensor, queue: Tensor, ratio: int, eta: float) -> Tensor:
    """Perturbs (N, d) tokens by eqs. 5-9 of the paper, with full tables of distances."""
    dim = z.shape[1]

    def density(points: Tensor) -> tuple[Tensor, Tensor]:
        distances = torch.cdist(points, queue, compute_mode="donot_use_mm_for_euclid_dist")
        near = distances.topk(ratio, 1, largest=False, sorted=True).values
        return -dim * near[:, 7].log(), eta * near[:, -1]

    log_pi, radius = density(z)
    step = sample_ball(radius, dim)
    log_pi_new, radius_new = density(z + step)
    back = step.norm(dim=1) <= radius_new
    kept = accept(log_pi, log_pi_new, radius.log(), radius_new.log(), back, dim)
    return z + torch.where(kept[:, None], step, 0.0)


def steps(dim: int, size: int, tokens: int, device: str) -> tuple[Step, Step, float]:
    """Returns our step, the published one, and the number of our tokens over that of the latter's."""
    torch.manual_seed(0)
    method = filled(dim, size, device)
    z = torch.randn(1, dim, tokens, device=device).requires_grad_()
    queue = torch.randn(16 * dim * size, dim, device=device)
    part = max(1, min(tokens, LARGEST // (4 * len(queue))))

    def ours() -> None:
        out = method(z)
        (out.z_q.square().mean() + sum(out.losses.values())).backward()

    def theirs() -> None:
        rows = z[0, :, :part].T
        z_q = rows + (published(rows.detach(), queue, 16 * dim, method.eta) - rows.detach())
        variance, mean = torch.var_mean(rows, 0)
        (z_q.square().mean() + mean.square().mean() + (variance - 1).square().mean()).backward()

    return ours, theirs, tokens / part


def statistics(dim: int, size: int, device: str, **options: int) -> tuple[float, float]:
    """Returns the acceptance rate and the mean radius, over several queues."""
    rates, radii = [], []
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        found = filled(dim, size, device, **options)(torch.randn(1, dim, STATISTICS, device=device)).stats
        rates.append(float(found["accept_rate"]))
        radii.append(float(found["radius"]))
    return sum(rates) / DRAWS, sum(radii) / DRAWS


def vp(options: Options) -> Figures:
    rows: Figures = {}
    print(f"{'d':>2} {'K':>6} {'ours, ms':>9} {'published, ms':>14} {'faster':>7} {'MB':>6} {'published':>10}", end="")
    print(f" {'accepted':>9} {'published':>10} {'radius':>7} {'published':>10}")
    for dim in options.dims:
        for size in options.sizes:
            ours, theirs, part = steps(dim, size, options.tokens, options.device)
            found, memory = compare_part(ours, theirs, part, "published", options)
            default, long = (statistics(dim, size, options.device, **o) for o in ({}, {"rows_per_code": 16 * dim}))
            rows[f"d={dim} K={size}"] = found | {
                "accept_rate": default[0],
                "accept_rate_ratio": default[0] / long[0],
                "radius_ratio": default[1] / long[1],
            }
            print(f"{dim:2} {size:6} {1e3 * found['ours_s']:9.1f} {1e3 * found['published_s']:14.0f}", end="")
            print(f" {found['ratio']:7.0f} {memory[0] / 1e6:6.0f} {memory[1] / 1e6:10.0f}", end="")
            print(f" {default[0]:9.4f} {long[0]:10.4f} {default[1]:7.4f} {long[1]:10.4f}", flush=True)
    return rows
