"""The posterior of GM-VQ over all codes, and draws from it, without ever holding tokens x codes.

    features (N, 2L) ──@ table (2L, K)──> logits ──> pi
        pi         ──> q, moments                mean over tokens, means over codes
        logits + g ──> j, y = softmax(. / tau)   the drawn code and its gradient's way

Tokens go through in chunks that fit a cache. The backward pass computes each chunk again, with the
same noise: on a CPU drawn again from its seed, on a GPU kept, since a seed would be read on the
host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.bottlenecks._search import chunk_rows
from codec.bottlenecks._soft import gumbel
from codec.host import on_host

SEEDS = 2**62
Noise = Callable[[Tensor], Tensor]  # of one chunk after the other, in the shape of its logits


class PosteriorDraw(NamedTuple):
    """What training takes from the posterior pi, eq. 17."""

    drawn: Tensor  # (N,) int64, j ~ pi by Gumbel-max
    choice: Tensor  # (N, L), the straight-through code c_q^T M; its value is mu_j exactly
    mean: Tensor  # (K,), q_B, the mean of pi over the tokens
    moments: Tensor | None  # (N, L + 1), the mean under pi of the `code_moments`
    entropy: Tensor  # (N,), H(pi) in nats; no gradient


def draw(
    z_hat: Tensor, weights: Tensor, codebook: Tensor, tau: Tensor, distances: bool = False
) -> PosteriorDraw:
    """Draws a code for each token and sums up what else is asked of the posterior.

    c_q = onehot(j) + y - sg(y) with y = softmax((log pi + g) / tau) and Gumbel noise g: its
    gradient reaches the codebook through row j only, and the logits through all of y.

    Args:
        z_hat: (N, L).
        weights: (N, L) positive.
        codebook: (K, L).
        tau: () the temperature.
        distances: Whether `moments` are asked for.
    """
    seed = int(torch.randint(SEEDS, ())) if on_host(z_hat) else None
    features, table = factors(z_hat, weights, codebook)
    values = code_moments(codebook) if distances else None
    # A copy, since `anneal` may set tau anew before backward.
    arguments = (features, table, values, tau.clone(), seed)
    drawn, through, mean, moments, entropy = _Draw.apply(*arguments)  # type: ignore[no-untyped-call]
    return PosteriorDraw(drawn, F.embedding(drawn, codebook) + through, mean, moments, entropy)


def factors(z_hat: Tensor, weights: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2L) and (2L, K), whose product is eq. 16 less its part that is the same for all codes.

    -1/2 sum_i w_i (z_i - mu_i)^2 = (w z) mu - w mu^2 / 2 - w z^2 / 2. Both are centred on the
    codebook's mean first, or the products would cancel far from the origin; that changes no
    difference, and so no gradient.

    Args:
        z_hat: (N, L) latents.
        weights: (N, L) w, one for each dimension of each latent.
        codebook: (K, L) mu.
    """
    centre = codebook.detach().mean(0)
    codes = codebook - centre
    features = torch.cat([weights * (z_hat - centre), weights], 1)
    return features, torch.cat([codes, -0.5 * codes.square()], 1).T


def code_moments(codebook: Tensor) -> Tensor:
    """(K, L + 1): each code from the codebook's mean, and its squared length."""
    codes = codebook - codebook.detach().mean(0)
    return torch.cat([codes, codes.square().sum(1, keepdim=True)], 1)


class _Draw(torch.autograd.Function):
    """Forward and backward of `draw`, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        table: Tensor,
        values: Tensor | None,
        tau: Tensor,
        seed: int | None,
    ) -> tuple[Tensor | None, ...]:
        table = table.contiguous()
        (count, width), num_codes = features.shape, table.shape[1]
        drawn = torch.empty(count, dtype=torch.int64, device=features.device)
        mean = features.new_zeros(num_codes)
        moments = None if values is None else features.new_empty(count, values.shape[1])
        entropy = features.new_empty(count)
        kept: list[Tensor] = []
        noise = _keeping(kept) if seed is None else _seeded(seed, features.device)
        step = chunk_rows(num_codes, features.device)
        for start in range(0, count, step):
            part = slice(start, start + step)
            logits = features[part] @ table
            # exp(log pi) is slow where it is denormal.
            pi, log_pi = logits.softmax(1), logits.log_softmax(1)
            mean += pi.sum(0)
            if values is not None and moments is not None:
                moments[part] = pi @ values
            entropy[part] = -torch.linalg.vecdot(pi, log_pi)
            drawn[part] = log_pi.add_(noise(log_pi)).argmax(1)
        mean /= count
        ctx.save_for_backward(features, table, values, tau, *kept)
        ctx.seed, ctx.step = seed, step
        ctx.mark_non_differentiable(drawn, entropy)
        return drawn, features.new_zeros(count, width // 2), mean, moments, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _, to_choice, to_mean, to_moments, _ = gradients
        features, table, values, tau, *kept = ctx.saved_tensors
        codes = table[: table.shape[0] // 2].T
        to_features, to_table = torch.empty_like(features), torch.zeros_like(table)
        to_values = None if values is None else torch.zeros_like(values)
        to_choice = to_choice / tau
        to_mean = to_mean[:, None] / len(features)
        one = to_mean.new_ones(len(features), 1)
        noise = _kept(kept) if ctx.seed is None else _seeded(ctx.seed, features.device)
        for start in range(0, len(features), ctx.step):
            part = slice(start, start + ctx.step)
            logits = features[part] @ table
            pi = logits.softmax(1)
            to_logits = _to_logits(pi, one[part], to_mean)
            if values is not None and to_values is not None:
                to_logits += _to_logits(pi, to_moments[part], values)
                to_values += pi.T @ to_moments[part]
            soft = logits.add_(noise(logits)).div_(tau).softmax(1)
            to_logits += _to_logits(soft, to_choice[part], codes)
            to_features[part] = to_logits @ table.T
            to_table += features[part].T @ to_logits
        return to_features, to_table, to_values, None, None


def _seeded(seed: int, device: torch.device) -> Noise:
    """`gumbel` from a generator of its own, whose draws can be drawn again."""
    generator = torch.Generator(device).manual_seed(seed)
    return lambda like: gumbel(like, generator)


def _keeping(kept: list[Tensor]) -> Noise:
    """`gumbel`, each draw added to a list."""

    def noise(like: Tensor) -> Tensor:
        kept.append(gumbel(like))
        return kept[-1]

    return noise


def _kept(kept: list[Tensor]) -> Noise:
    """The draws of a list, in order."""
    draws = iter(kept)
    return lambda _: next(draws)


def _to_logits(pi: Tensor, upstream: Tensor, values: Tensor) -> Tensor:
    """The gradient to x of pi @ values, pi = softmax(x).

    (n, K), upstream (n, r), (K, r) -> (n, K).
    """
    level = ((pi @ values) * upstream).sum(1, keepdim=True)  # sum_k pi_k (upstream . values_k)
    return torch.addmm(-level, upstream, values.T).mul_(pi)
