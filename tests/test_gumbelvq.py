"""GumbelVQ: its KL, soft and hard choices, the exact argmax, and an eval without noise."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import pytest
import torch
from scipy import stats
from torch import Tensor

from codec.bottleneck import to_tokens
from codec.bottlenecks.gumbelvq import GumbelVQ, uniform_kl

DIM, SIZE = 4, 10


def small(hard: bool = False, in_dim: int | None = None) -> GumbelVQ:
    torch.manual_seed(0)
    return GumbelVQ(DIM, (SIZE,), in_dim, hard).train()


def latents(channels: int = DIM, count: int = 300) -> Tensor:
    return 3 * torch.randn(2, channels, count, generator=torch.Generator().manual_seed(1))


def projection(method: GumbelVQ) -> torch.nn.Linear:
    layer = method.projections[str(SIZE)]
    assert isinstance(layer, torch.nn.Linear)
    return layer


def is_kl_to_uniform(kl: Callable[[Tensor], Tensor]) -> bool:
    """0 iff the logits are constant, log K for certainty, the published form elsewhere, finite
    where q underflows.
    """
    generator = torch.Generator().manual_seed(0)
    constant = abs(float(kl(torch.full((5, SIZE), 3.0).log_softmax(1)))) < 1e-6
    sure = abs(float(kl((1000 * torch.eye(SIZE)).log_softmax(1))) - log(SIZE)) < 1e-5
    scores = torch.randn(5, SIZE, generator=generator)
    q = scores.softmax(1)
    published = (q * (q * SIZE + 1e-10).log()).sum(1).mean()
    return (
        constant and sure and bool(torch.isclose(kl(scores.log_softmax(1)), published, rtol=1e-4))
    )


def test_kl() -> None:
    assert is_kl_to_uniform(uniform_kl)
    # No mean over tokens.
    assert not is_kl_to_uniform(lambda log_q: log(SIZE) + (log_q.exp() * log_q).sum())
    mean = torch.logsumexp
    assert not is_kl_to_uniform(
        # Of the mean posterior, as GM-VQ's.
        lambda log_q: uniform_kl((mean(log_q, 0) - log(len(log_q)))[None])
    )


def test_eval_takes_the_most_likely_code_and_no_noise() -> None:
    method, z = small(in_dim=7).eval(), latents(7)
    scores = (
        to_tokens(z).double() @ projection(method).weight.double().T
        + projection(method).bias.double()
    )
    assert torch.equal(method.encode(z), scores.argmax(1).reshape(2, 300)[:, None])
    state = torch.get_rng_state()
    first = method(z)
    method.anneal(1.0)
    assert torch.equal(method(z).z_q, first.z_q)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_bias_decides_too() -> None:
    method = small()
    with torch.no_grad():
        projection(method).bias[3] = 100.0
    assert (method.encode(latents()) == 3).all()
    assert not (small().encode(latents()) == 3).all()


def test_hard_values_are_codes_and_soft_ones_mixtures() -> None:
    z = latents()
    out = small(hard=True)(z)
    assert out.indices is not None
    assert torch.allclose(out.z_q, small().decode(out.indices), atol=1e-5)
    soft = small()(z)
    assert soft.indices is None
    assert (
        float(
            torch.cdist(to_tokens(soft.z_q.detach()), small().codebook().detach())
            .min(1)
            .values.max()
        )
        > 0.1
    )


def test_hard_draws_follow_the_posterior() -> None:
    method = small(hard=True)
    z = torch.randn(1, DIM, 1).expand(1, DIM, 50_000)
    counts = torch.bincount(method(z).indices.flatten(), minlength=SIZE)
    q = projection(method)(to_tokens(z[..., :1])).double().softmax(1)[0].detach()
    assert float(stats.chisquare(counts.numpy(), (q * 50_000).numpy()).pvalue) > 1e-3
    assert not float(stats.chisquare(counts.numpy(), (q.flip(0) * 50_000).numpy()).pvalue) > 1e-3


def codebook_rows_with_gradient(hard: bool) -> int:
    method = small(hard)
    method(latents(count=1)[:1]).z_q.sum().backward()
    gradient = method.codebook().grad
    assert gradient is not None
    return int((gradient.abs().sum(1) > 0).sum())


def test_hard_has_the_gradient_of_soft_for_the_logits() -> None:
    gradients = []
    for hard in (True, False):
        method, z = small(hard), latents().requires_grad_()
        torch.manual_seed(5)
        (gradient,) = torch.autograd.grad(method(z).z_q.sum(), z)
        gradients.append(gradient)
    assert torch.allclose(*gradients, atol=1e-5)
    assert codebook_rows_with_gradient(hard=True) == 1
    assert codebook_rows_with_gradient(hard=False) == SIZE


def test_temperature_along_a_cosine() -> None:
    method = small()
    for progress, tau in ((0.0, 1.0), (0.5, 17 / 32), (1.0, 1 / 16)):
        method.anneal(progress)
        assert float(method.tau) == pytest.approx(tau)
    with pytest.raises(ValueError, match="progress"):
        method.anneal(2.0)


def test_there_is_nothing_to_fit() -> None:
    method = small()
    before = method.codebook().detach().clone()
    method.fit(torch.randn(100, DIM))
    assert torch.equal(method.codebook(), before)
