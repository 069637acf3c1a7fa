"""gmvq: a training step of GM-VQ against its plain form, with every tensor of tokens x codes alive."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.bottlenecks import GMVQ
from codec.bottlenecks.parts import factors, gumbel
from eval.bench.timing import Figures, Options, Step, compare_part

LARGEST = 2**28  # bytes of one tensor of the plain form, which keeps eight or so


def plain(z_hat: Tensor, weights: Tensor, codebook: Tensor, tau: Tensor) -> Tensor:
    """Returns the sum of a step's losses by eqs. 12 and 16-18, with autograd."""
    features, table = factors(z_hat, weights, codebook)
    log_pi = (features @ table).log_softmax(1)
    scores = log_pi + gumbel(log_pi)
    drawn = scores.argmax(1)
    soft = (scores / tau).softmax(1)
    codes = F.embedding(drawn, codebook)
    variance = (z_hat - codes).square().mean(1) + 1e-12
    noise = torch.randn_like(z_hat)
    straight = (soft - soft.detach()) @ codebook.detach()
    z_q = codes + straight + variance.sqrt()[:, None] * noise
    log_q = log_pi.logsumexp(0) - log(len(log_pi))
    kl = (log_q.exp() * log_q).sum()
    return z_q.square().mean() + (variance * noise.square().sum(1)).mean() / z_hat.shape[1] + kl


def steps(dim: int, size: int, tokens: int, device: str) -> tuple[Step, Step, float]:
    """Returns our step, the plain one, and the number of our tokens over that of the latter's."""
    torch.manual_seed(0)
    method = GMVQ(dim, (size,), weight_offset=0.69 * 64 / dim).to(device).train()
    z = torch.randn(1, 2 * dim, tokens, device=device).requires_grad_()
    part = max(1, min(tokens, LARGEST // (4 * size)))

    def ours() -> None:
        out = method(z)
        (out.z_q.square().mean() + sum(out.losses.values())).backward()

    def theirs() -> None:
        z_hat, raw = z[0, :, :part].T.chunk(2, dim=1)
        weights = F.softplus(raw + method.weight_offset).clamp(max=method.max_weight)
        plain(z_hat, weights, method.codebook(), method.tau).backward()

    return ours, theirs, tokens / part


def gmvq(options: Options) -> Figures:
    rows: Figures = {}
    print(f"{'L':>2} {'K':>6} {'ours, ms':>9} {'plain, ms':>10} {'faster':>7} {'MB':>6} {'plain, MB':>10}")
    for dim in options.dims:
        for size in options.sizes:
            ours, theirs, part = steps(dim, size, options.tokens, options.device)
            found, memory = compare_part(ours, theirs, part, "plain", options)
            rows[f"L={dim} K={size}"] = found
            print(f"{dim:2} {size:6} {1e3 * found['ours_s']:9.1f} {1e3 * found['plain_s']:10.0f}", end="")
            print(f" {found['ratio']:7.2f} {memory[0] / 1e6:6.0f} {memory[1] / 1e6:10.0f}", flush=True)
    return rows
