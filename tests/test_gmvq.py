"""GM-VQ: its equations against direct sums, where its gradients go, its random draws, and its
deterministic eval.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log

import pytest
import torch
from scipy import stats
from torch import Tensor

from codec import host
from codec.bottleneck import to_tokens
from codec.bottlenecks import _mixture
from codec.bottlenecks._mixture import SEEDS, PosteriorDraw, code_moments, draw, factors
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import gumbel
from codec.bottlenecks.gmvq import GMVQ, LatentTerm, code_variance, kl_to_uniform, mean_distance
from codec.host import on_host

Logits = Callable[[Tensor, Tensor, Tensor], Tensor]


def problem(
    count: int = 40, dim: int = 6, codes: int = 30, offset: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Points, weights, codebook."""
    g = torch.Generator().manual_seed(0)
    draw = [torch.randn(n, dim, generator=g) + offset for n in (count, codes)]
    return draw[0], torch.rand(count, dim, generator=g) * 3 + 0.1, draw[1]


def logits(z: Tensor, w: Tensor, codebook: Tensor) -> Tensor:
    features, table = factors(z, w, codebook)
    return features @ table


def direct_logits(z: Tensor, w: Tensor, codebook: Tensor) -> Tensor:
    """Eq. 16 as written."""
    return -0.5 * (w[:, None] * (z[:, None] - codebook).square()).sum(2)


def small(sizes: tuple[int, ...] = (8, 32), dim: int = 3, term: LatentTerm = "sampled") -> GMVQ:
    torch.manual_seed(0)
    return GMVQ(dim, sizes, latent_term=term)


def raw_weight(weight: float) -> float:
    """The r whose softplus is `weight`."""
    return float(torch.tensor(weight).double().expm1().log())


def encoder_output(z_hat: Tensor, weight: float = 1.0) -> Tensor:
    """(N, L) points as (1, 2L, N) encoder output with equal weights."""
    return torch.cat([z_hat, torch.full_like(z_hat, raw_weight(weight))], 1).T[None]


# -- (1), (2): logits


def logits_are_right(candidate: Logits, offset: float = 0.0) -> bool:
    """Posteriors equal those of the direct sum, to 1e-4 in float32 and 1e-10 in float64."""
    single = problem(offset=offset)
    double = [t.double() for t in single]
    truth = direct_logits(*double).log_softmax(1)
    close32 = torch.allclose(
        candidate(*single).log_softmax(1).double(), truth, rtol=1e-4, atol=1e-4
    )
    return close32 and torch.allclose(
        candidate(*double).log_softmax(1), truth, rtol=1e-10, atol=1e-10
    )


def expanded(z: Tensor, w: Tensor, codebook: Tensor) -> Tensor:
    return (w * z) @ codebook.T - 0.5 * w @ codebook.square().T


def test_logits_are_the_direct_sum() -> None:
    assert logits_are_right(logits)
    assert logits_are_right(logits, offset=100.0)
    assert logits_are_right(expanded)
    assert not logits_are_right(expanded, offset=100.0)  # why they are centred
    assert not logits_are_right(lambda z, w, m: 2 * logits(z, w, m))
    # An unweighted mu^2.
    assert not logits_are_right(lambda z, w, m: (w * z) @ m.T - 0.5 * m.square().sum(1))


def test_posteriors_sum_to_one_and_shifts_change_nothing() -> None:
    z, w, codebook = (t.double() for t in problem())
    posterior = logits(z, w, codebook).softmax(1)
    assert torch.allclose(posterior.sum(1), torch.ones(len(z)).double())
    assert torch.allclose(
        (logits(z, w, codebook) - 0.5 * (w * z * z).sum(1, keepdim=True)).softmax(1), posterior
    )
    assert torch.allclose(logits(z + 7, w, codebook + 7).softmax(1), posterior)
    assert not torch.allclose(logits(z, w, codebook + 7).softmax(1), posterior)


# -- (3): where gradients go

Draw = Callable[[Tensor, Tensor, Tensor, Tensor, bool], PosteriorDraw]


def plain_draw(
    z: Tensor, w: Tensor, codebook: Tensor, tau: Tensor, distances: bool, wrong: str = ""
) -> PosteriorDraw:
    """`draw` as it is written in the paper, with tensors of tokens x codes, and errors to choose
    from.
    """
    generator = None
    if on_host(z):
        generator = torch.Generator().manual_seed(
            int(torch.randint(SEEDS, ())) + (wrong == "noise")
        )
    elif wrong == "noise":
        torch.manual_seed(7)
    noise = gumbel(z.new_empty(len(z), len(codebook)), generator)
    log_pi = direct_logits(z, w, codebook).log_softmax(1)
    scores = log_pi + noise
    drawn = scores.argmax(1)
    soft = (scores / (1 if wrong == "tau" else tau)).softmax(1)
    one = torch.nn.functional.one_hot(drawn, len(codebook)).float()
    if wrong == "all of y reaches the codebook":
        choice = soft @ codebook + ((one - soft) @ codebook).detach()
    elif wrong == "nothing reaches the codebook":
        choice = (one + soft - soft.detach()) @ codebook.detach()
    elif wrong == "nothing reaches the logits":
        choice = one @ codebook
    else:
        choice = one @ codebook + (soft - soft.detach()) @ codebook.detach()
    pi = log_pi.exp()
    moments = pi @ code_moments(codebook) if distances else None
    return PosteriorDraw(drawn, choice, pi.mean(0), moments, torch.special.entr(pi).sum(1).detach())


def training_terms(method: Draw, tau: float, distances: bool) -> list[Tensor]:
    """Everything that `draw` gives, and the gradients of a sum of it all to its three inputs."""
    inputs = [t.requires_grad_() for t in problem(count=37)]
    torch.manual_seed(6)
    draws = method(*inputs, torch.tensor(tau), distances)
    total = (draws.choice * torch.randn(37, 6)).sum() + 30 * kl_to_uniform(draws.mean)
    terms = [draws.drawn, draws.choice.detach(), draws.mean.detach(), draws.entropy]
    if distances:
        assert draws.moments is not None
        total = total + mean_distance(inputs[0], draws.moments, inputs[2]).sum()
        terms.append(draws.moments.detach())
    return terms + list(torch.autograd.grad(total, inputs))


def alike(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """To 1e-5 of the largest element of each."""
    return all(
        float((a - b).abs().max()) <= 1e-5 * float(b.abs().max())
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("rows", [1, 5, 37, 100])
@pytest.mark.parametrize("distances", [False, True])
@pytest.mark.parametrize("tau", [2.0, 0.3])
@pytest.mark.parametrize("hosts", [("cpu",), ()], ids=["drawn again", "kept, as on a GPU"])
def test_chunks_have_the_gradients_of_the_plain_form(
    monkeypatch: pytest.MonkeyPatch, rows: int, distances: bool, tau: float, hosts: tuple[str, ...]
) -> None:
    monkeypatch.setattr(host, "HOSTS", hosts)
    monkeypatch.setattr(_mixture, "chunk_rows", lambda *_: rows)
    ours = training_terms(draw, tau, distances)
    assert alike(ours, training_terms(plain_draw, tau, distances))
    for wrong in (
        "noise",
        "tau",
        "all of y reaches the codebook",
        "nothing reaches the codebook",
        "nothing reaches the logits",
    ):
        assert not alike(ours, training_terms(partial(plain_draw, wrong=wrong), tau, distances)), (
            wrong
        )


def test_draws_have_the_value_of_their_code() -> None:
    z, w, codebook = problem()
    draws = draw(z, w, codebook, torch.tensor(0.1))
    assert torch.equal(draws.choice, codebook[draws.drawn])
    assert draws.moments is None


@pytest.mark.parametrize("term", ["sampled", "posterior", "literal"])
def test_gradients_reach_all_inputs(term: LatentTerm) -> None:
    method = small(term=term).train()
    z = torch.randn(4, 6, 10, requires_grad=True)
    out = method(z)
    total = out.z_q.square().mean() + out.losses["latent"] + out.losses["kl"]
    total.backward()
    assert z.grad is not None
    assert method.codebook().grad is not None
    assert (z.grad != 0).all()
    assert (method.codebook().grad != 0).all()
    assert method.codebooks["32"].grad is None


def test_gradient_at_a_point_on_its_code() -> None:
    method = small().train()
    z = encoder_output(method.codebook(8).detach()[:4], 900.0).requires_grad_()
    out = method(z, 8)
    (gradient,) = torch.autograd.grad(out.z_q.sum() + out.losses["latent"], z)
    assert gradient.isfinite().all()


# -- (4): the KL term


def is_kl_to_uniform(kl: Callable[[Tensor], Tensor]) -> bool:
    """0 iff the mean posterior is uniform, log K for a point mass, never negative."""
    tiny = 1e-12
    uniform = torch.full((16, 16), 1 / 16).log()
    # Sure of one code each, all codes used alike.
    spread = (torch.eye(16) + tiny).log().log_softmax(1)
    collapsed = spread[:1].expand(16, 16)
    generator = torch.Generator().manual_seed(0)
    others = [torch.randn(9, 16, generator=generator).log_softmax(1) for _ in range(50)]
    zero = all(abs(float(kl(case))) < 1e-5 for case in (uniform, spread))
    full = abs(float(kl(collapsed)) - log(16)) < 1e-5
    return (
        zero
        and full
        and all(float(kl(case)) > 1e-3 for case in others)
        and float(kl(uniform)) >= -1e-6
    )


def test_kl_to_uniform() -> None:
    assert is_kl_to_uniform(lambda log_pi: kl_to_uniform(log_pi.exp().mean(0)))
    # Mean of the KLs.
    assert not is_kl_to_uniform(lambda log_pi: log(16) + (log_pi.exp() * log_pi).sum(1).mean())


def finite_when_a_code_underflows(kl: Callable[[Tensor], Tensor]) -> bool:
    raw = torch.zeros(8, 5)
    raw[:, 0] = -200.0
    raw.requires_grad_()
    (gradient,) = torch.autograd.grad(kl(raw.log_softmax(1)), raw)
    return bool(gradient.isfinite().all())


def test_kl_survives_underflow() -> None:
    def naive(log_pi: Tensor) -> Tensor:
        mean = log_pi.exp().mean(0)
        return log(5) + torch.xlogy(mean, mean).sum()

    assert finite_when_a_code_underflows(lambda log_pi: kl_to_uniform(log_pi.exp().mean(0)))
    assert not finite_when_a_code_underflows(naive)


def test_a_code_that_nothing_can_draw() -> None:
    z, w, codebook = problem()
    codebook[3] = 100.0
    inputs = [t.requires_grad_() for t in (z, w, codebook)]
    draws = draw(*inputs, torch.tensor(0.1), True)
    assert draws.mean[3].eq(0)
    assert draws.entropy.isfinite().all()
    assert draws.moments is not None
    total = draws.choice.sum() + kl_to_uniform(draws.mean) + draws.moments.sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(total, inputs))


# -- (5), (9): noise and the three readings


def noise_energy_is_right(variance: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """E|z - mu_j|^2 = |z^ - mu_j|^2 / two_sigma2 within 1 %."""
    torch.manual_seed(0)
    z_hat, code = torch.randn(4), torch.randn(4)
    sigma = variance(z_hat[None], code[None], 2.0).sqrt()
    noise = sigma[:, None] * torch.randn(100_000, 4)
    expected = float((z_hat - code).square().sum() / 2)
    return abs(float(noise.square().sum(1).mean()) - expected) < 0.01 * expected


def test_noise_energy() -> None:
    assert noise_energy_is_right(code_variance)
    assert not noise_energy_is_right(lambda z, m, s: (z - m).square().sum(1) / s)  # without 1 / L
    assert not noise_energy_is_right(lambda z, m, _: (z - m).square().mean(1))  # without two_sigma2


def latent_of(term: LatentTerm, copies: int, two_sigma2: float = 0.5) -> float:
    torch.manual_seed(0)
    method = GMVQ(3, (8,), two_sigma2=two_sigma2, latent_term=term).train()
    z = torch.randn(1, 6, 1).expand(1, 6, copies)
    return float(method(z).losses["latent"].detach())


def test_posterior_reading_is_the_mean_of_the_sampled_one() -> None:
    posterior = latent_of("posterior", 1)
    assert latent_of("sampled", 200_000) == pytest.approx(posterior, rel=0.01)
    assert latent_of("literal", 200_000) != pytest.approx(posterior, rel=0.1)


def test_noise_in_the_output_has_the_sampled_energy() -> None:
    torch.manual_seed(0)
    method = GMVQ(3, (8,), two_sigma2=0.5).train()
    out = method(torch.randn(1, 6, 1).expand(1, 6, 1000))
    assert out.indices is not None
    distance = to_tokens(out.z_q - method.decode(out.indices)).square().sum(1).mean()
    assert float(out.losses["latent"].detach()) == pytest.approx(
        float(distance.detach()) / 3, rel=1e-3
    )


def test_the_sampled_energy_pulls_a_latent_to_its_code() -> None:
    method = small().train()
    z = torch.randn(2, 6, 50, requires_grad=True)
    out = method(z, 8)
    assert out.indices is not None
    (gradient,) = torch.autograd.grad(out.losses["latent"], z)
    away = z.detach()[:, :3] - method.decode(out.indices, 8).detach()
    assert torch.cosine_similarity(gradient[:, :3], away).min() > 0.999


def test_mean_distance_is_the_direct_sum() -> None:
    z, w, codebook = problem(offset=50.0)
    p = logits(z, w, codebook).softmax(1)
    direct = (p * (z[:, None] - codebook).square().sum(2)).sum(1)
    assert torch.allclose(mean_distance(z, p @ code_moments(codebook), codebook), direct, rtol=1e-4)
    first, all_alike = (q @ code_moments(codebook) for q in (p[:1], p[:1].expand_as(p)))
    assert torch.allclose(mean_distance(z, first, codebook), mean_distance(z, all_alike, codebook))


# -- (6), (7): which code


def test_large_weights_draw_the_nearest_code() -> None:
    torch.manual_seed(0)
    method = small().train()
    method.anneal(1.0)
    z = torch.randn(1, 6, 500)
    z[:, 3:] = z[:, 3:].abs() * 300
    sharp = method(z, 8).indices
    assert sharp is not None
    assert (sharp == method.encode(z, 8)).float().mean() > 0.98
    z[:, 3:] = -3.0
    loose = method(z, 8).indices
    assert loose is not None
    assert (loose == method.encode(z, 8)).float().mean() < 0.9


def test_equal_weights_choose_the_euclidean_nearest() -> None:
    method = small().eval()
    z_hat = torch.randn(300, 3)
    euclidean = nearest(z_hat, method.codebook(32))
    assert torch.equal(method.encode(encoder_output(z_hat), 32).flatten(), euclidean)
    varied = encoder_output(z_hat)
    varied[:, 3:] = 3 * torch.randn(1, 3, 300)
    assert not torch.equal(method.encode(varied, 32).flatten(), euclidean)
    weights = torch.nn.functional.softplus(varied[0, 3:].T)
    best = direct_logits(z_hat.double(), weights.double(), method.codebook(32).double()).argmax(1)
    assert torch.equal(method.encode(varied, 32).flatten(), best)


def test_eval_ignores_temperature_and_random_state() -> None:
    method = small().eval()
    z = torch.randn(2, 6, 30)
    before, state = method(z), torch.get_rng_state()
    assert torch.equal(method(z).z_q, before.z_q)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    method.anneal(0.7)
    after = method(z)
    assert torch.equal(after.z_q, before.z_q)
    assert after.indices is not None
    assert before.indices is not None
    assert torch.equal(after.indices, before.indices)
    method.train()
    assert not torch.equal(method(z).z_q, method(z).z_q)


# -- (8): the draws


def draws_match(method: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """Frequencies of 1e5 draws for one point against its pi by chi-squared, p > 1e-3."""
    torch.manual_seed(0)
    z, w, codebook = problem(count=1, codes=12)
    drawn = method(z.expand(100_000, -1), 0.3 * w.expand(100_000, -1), codebook)
    expected = (
        direct_logits(z.double(), 0.3 * w.double(), codebook.double())[0].softmax(0) * 100_000
    )
    return (
        float(stats.chisquare(torch.bincount(drawn, minlength=12).numpy(), expected.numpy()).pvalue)
        > 1e-3
    )


def test_gumbel_draws_follow_the_posterior() -> None:
    for tau in (2.0, 0.1):
        assert draws_match(lambda z, w, m, t=tau: draw(z, w, m, torch.tensor(t)).drawn)

    def with_noise(noise: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda z, w, m: (lambda x: (x + noise(x)).argmax(1))(direct_logits(z, w, m))

    assert draws_match(with_noise(gumbel))
    assert not draws_match(with_noise(torch.randn_like))
    assert not draws_match(with_noise(lambda x: -gumbel(x)))  # the wrong sign


def test_gumbel_noise_is_finite_where_the_draw_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in 2^24 is."""
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    assert gumbel(torch.empty(2, 3)).isfinite().all()


# -- schedule, state, arguments


def test_temperature_schedule_and_its_place_in_the_state() -> None:
    method = small()
    for progress, tau in ((0.0, 2.0), (0.5, (2 * 0.1) ** 0.5), (1.0, 0.1)):
        method.anneal(progress)
        assert float(method.tau) == pytest.approx(tau)
    method.anneal(0.3)
    other = small()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.tau, method.tau)
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="progress"):
            method.anneal(bad)
    assert set(method.state_dict()) == {"codebooks.8", "codebooks.32", "fitted", "tau"}


def test_fit_starts_every_codebook_once() -> None:
    method = small()
    centres = 5 * torch.randn(8, 3)
    points = centres.repeat(50, 1) + 0.01 * torch.randn(400, 3)
    latents = torch.cat([points, torch.randn(400, 3)], 1)
    method.fit(latents)
    for size in (8, 32):
        codebook = method.codebook(size).detach()
        assert float((points - codebook[nearest(points, codebook)]).norm(dim=1).max()) < 0.1
    state = {k: v.clone() for k, v in method.state_dict().items()}
    method.fit(latents)
    method.fit(torch.randn(400, 6))  # a trained codebook is not for k-means to replace
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items())
    assert isinstance(method.codebook(8), torch.nn.Parameter)
    again = small()
    again.fit(latents)
    assert torch.equal(again.codebook(8), method.codebook(8))


def test_fit_with_few_latents() -> None:
    method = small()
    method.fit(torch.randn(5, 6))
    assert len(method.codebook(32).unique(dim=0)) == 32
    for bad in (torch.randn(5, 3), torch.zeros(0, 6), torch.full((4, 6), torch.nan)):
        with pytest.raises(ValueError, match="fit needs"):
            small().fit(bad)


@pytest.mark.parametrize("grid", [(7,), (3, 5)])
def test_eval_path(grid: tuple[int, ...]) -> None:
    method = small().eval()
    z = torch.randn(8, 6, *grid, requires_grad=True)
    for size in (8, 32):
        out = method(z, size)
        assert out.indices is not None
        assert torch.equal(out.z_q, method.decode(method.encode(z, size), size))
        assert out.indices.shape == (8, 1, *grid)
        assert 0 <= int(out.indices.min()) <= int(out.indices.max()) < size
        assert torch.equal(method.encode(z[3:4], size), out.indices[3:4])
        assert torch.autograd.grad(out.z_q.sum(), z)[0][:, :3].eq(1).all()
        assert method(z.bfloat16(), size).z_q.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(method(z, size).z_q, out.z_q)


def test_modes_leave_the_state_alone() -> None:
    method = small()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    z = torch.randn(2, 6, 9)
    method.train()(z)
    method.eval()(z)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_training_output() -> None:
    method = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        out = method(torch.randn(2, 6, 4, 5).bfloat16(), 32)
    assert out.z_q.shape == (2, 3, 4, 5)
    assert out.z_q.dtype == torch.float32
    assert out.indices is not None
    assert out.indices.shape == (2, 1, 4, 5)
    assert set(out.losses) == {"latent", "kl"}
    assert set(out.stats) == {"entropy", "perplexity", "latent_std", "weight", "sigma"}
    assert all(v.isfinite() and not v.requires_grad for v in out.stats.values())
    assert float(out.stats["perplexity"]) == pytest.approx(
        32 * float(torch.exp(-out.losses["kl"].detach())), rel=1e-5
    )


def test_weights_are_limited() -> None:
    method = GMVQ(2, (4,), max_weight=10.0).train()
    out = method(torch.cat([torch.randn(1, 2, 5), torch.full((1, 2, 5), 1e6)], 1))
    assert float(out.stats["weight"]) == 10
    assert out.z_q.isfinite().all()


def test_wrong_arguments() -> None:
    method = small()
    z = torch.randn(2, 6, 4)
    for size in (9, torch.tensor([8, 8])):
        for mode in (True, False):
            with pytest.raises(ValueError, match="size"):
                method.train(mode)(z, size)
    with pytest.raises(ValueError, match="indices"):
        method.decode(torch.full((1, 1, 4), 8), 8)
    with pytest.raises(ValueError, match="latent term"):
        GMVQ(2, (4,), latent_term="other")  # type: ignore[arg-type]


def test_the_offset_moves_the_first_weight_alone() -> None:
    z = torch.zeros(1, 8, 5)
    assert float(GMVQ(4, (16,)).points(z)[1].mean()) == pytest.approx(log(2))
    moved = GMVQ(4, (16,), weight_offset=5.5).points(z)
    assert float(moved[1].mean()) == pytest.approx(5.5, abs=0.01)
    assert torch.equal(moved[0], GMVQ(4, (16,)).points(z)[0])
