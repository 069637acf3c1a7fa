"""SQ-VAE: its logits against direct sums, the soft decode, the variance that anneals itself, and
its eval.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from torch import Tensor

from codec.bottleneck import to_tokens
from codec.bottlenecks._soft import gumbel_softmax
from codec.bottlenecks.sqvae import SQVAE, logits

DIM = 3
Logits = Callable[[Tensor, Tensor, Tensor], Tensor]


def small(sizes: tuple[int, ...] = (8,)) -> SQVAE:
    torch.manual_seed(0)
    return SQVAE(DIM, sizes).train()


def direct_logits(z: Tensor, codebook: Tensor, variance: Tensor) -> Tensor:
    return -(z[:, None] - codebook).square().sum(2) / (2 * variance)


def logits_are_right(candidate: Logits, offset: float) -> bool:
    g = torch.Generator().manual_seed(0)
    z, codebook = torch.randn(40, 6, generator=g) + offset, torch.randn(30, 6, generator=g) + offset
    truth = direct_logits(z.double(), codebook.double(), torch.tensor(0.5)).log_softmax(1)
    found = candidate(z, codebook, torch.tensor(0.5)).log_softmax(1)
    return torch.allclose(found.double(), truth, rtol=1e-4, atol=1e-4)


def test_logits_are_the_direct_sum() -> None:
    assert logits_are_right(logits, 0)
    assert logits_are_right(logits, 100)
    assert not logits_are_right(lambda z, m, v: logits(z, m, 2 * v), 0)
    # Why they are centred.
    assert not logits_are_right(lambda z, m, v: (z @ m.T - 0.5 * m.square().sum(1)) / v, 100)


def test_the_variance_starts_at_21() -> None:
    assert float(small().variance().detach()) == pytest.approx(21)


def test_training_decodes_a_mixture_and_eval_a_code() -> None:
    method = small()
    z = torch.randn(2, DIM, 50)
    codes = method.codebook().detach()
    mixed = to_tokens(method(z).z_q.detach())
    assert method(z).indices is None
    distance = torch.cdist(mixed, codes).min(1).values
    assert float(distance.max()) > 0.01
    lower, upper = codes.min(0).values, codes.max(0).values
    assert ((mixed >= lower - 1e-5) & (mixed <= upper + 1e-5)).all()  # a convex combination
    out = method.eval()(z)
    assert torch.equal(to_tokens(out.z_q), codes[out.indices.flatten()])


def test_losses_are_the_published_terms_per_dimension_and_token() -> None:
    method = small()
    z = torch.randn(2, DIM, 50)
    out = method(z)
    var = method.variance()
    assert torch.allclose(
        out.losses["latent"], (z - out.z_q).square().sum() / (2 * var) / z.numel()
    )
    p = direct_logits(to_tokens(z), method.codebook(), var).softmax(1)
    assert torch.allclose(out.losses["kl"], log(8) + (p * p.log()).sum(1).mean(), atol=1e-6)
    assert float(out.losses["kl"].detach()) >= 0


@pytest.mark.parametrize("name", ["latent", "kl", "z_q"])
def test_gradients_reach_z_codes_and_variance(name: str) -> None:
    method, z = small(), torch.randn(2, DIM, 50, requires_grad=True)
    out = method(z)
    value = out.z_q.square().sum() if name == "z_q" else out.losses[name]
    for gradient in torch.autograd.grad(value, [z, *method.parameters()]):
        assert (gradient != 0).any()


def variance_after_training(with_reconstruction: bool) -> float:
    """The published loss on clusters; its reconstruction term is D/2 log of the squared error."""
    method = small()
    centres = 6 * torch.randn(8, DIM)
    z = centres.repeat(20, 1).T[None]
    method.codebook().data.copy_(centres)
    optimiser = torch.optim.Adam(method.parameters(), 0.1)
    for step in range(25):
        method.anneal(step / 25)
        out = method(z)
        pulls = DIM * out.losses["latent"] + out.losses["kl"]  # per token
        reconstruction = DIM / 2 * (out.z_q - z).square().sum().log()
        loss = pulls + reconstruction if with_reconstruction else pulls
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(method.variance().detach())


def test_the_variance_anneals_itself_by_reconstruction() -> None:
    assert variance_after_training(True) < 15
    assert variance_after_training(False) > 21


def test_temperature() -> None:
    method = small()
    for progress in (0.0, 0.5, 1.0):
        method.anneal(progress)
        assert float(method.tau) == pytest.approx(exp(-1.25 * progress))
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="progress"):
            method.anneal(bad)
    method.eval()
    z = torch.randn(2, DIM, 50)
    cold = method(z).z_q
    method.anneal(0.0)
    assert torch.equal(method(z).z_q, cold)


def mean_is_the_posterior(tau: float) -> bool:
    """At tau -> 0 the mixture is one draw, whose mean is the posterior."""
    torch.manual_seed(0)
    scores = torch.randn(1, 6)
    drawn = gumbel_softmax(scores.expand(50_000, 6), torch.tensor(tau))
    assert torch.allclose(drawn.sum(1), torch.ones(50_000), atol=1e-5)
    return torch.allclose(drawn.mean(0), scores.softmax(1)[0], atol=0.01)


def test_gumbel_softmax_samples_the_posterior() -> None:
    assert mean_is_the_posterior(0.01)
    assert not mean_is_the_posterior(3.0)


def test_fit_starts_the_codes_once() -> None:
    method = small((8, 16))
    points = 5 * torch.randn(8, DIM).repeat(50, 1) + 0.01 * torch.randn(400, DIM)
    method.fit(points)
    codes = method.codebook(8).detach().clone()
    assert float(torch.cdist(points, codes).min(1).values.max()) < 0.1
    method.fit(torch.randn(400, DIM))
    assert torch.equal(method.codebook(8), codes)
    with pytest.raises(ValueError, match="fit needs"):
        method.fit(torch.randn(4, 5))
    assert method.variance(8) is not method.variance(16)
