"""VP: the Metropolis-Hastings step against exact distributions, its scaling laws, the queue, the
codebooks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from codec.bottleneck import to_tokens
from codec.bottlenecks import vp as module
from codec.bottlenecks._kmeans import cell_means
from codec.bottlenecks._knn import Neighbours, radii_by_blocks
from codec.bottlenecks._search import nearest
from codec.bottlenecks.vp import VP, accept, sample_ball

Accept = Callable[..., Tensor]


def always(log_pi: Tensor, *_: object) -> Tensor:
    return torch.ones_like(log_pi, dtype=torch.bool)


def no_radius_ratio(
    log_pi: Tensor, log_pi_new: Tensor, radius: Tensor, _new: Tensor, back: Tensor, dim: int
) -> Tensor:
    return accept(log_pi, log_pi_new, radius, radius, back, dim)


def no_reverse_support(
    log_pi: Tensor, log_pi_new: Tensor, radius: Tensor, new: Tensor, back: Tensor, dim: int
) -> Tensor:
    return accept(log_pi, log_pi_new, radius, new, torch.ones_like(back), dim)


def filled(
    dim: int = 3, size: int = 256, rows: Callable[..., Tensor] = torch.randn, **options: int | float
) -> VP:
    """A VP in training whose queue holds draws of `rows`."""
    method = VP(dim, (size,), **options)  # type: ignore[arg-type]
    method.queue.copy_(rows(method.queue.shape))
    method.queue_count.fill_(len(method.queue))
    return method.train()


def small(sizes: tuple[int, ...] = (8, 32), dim: int = 3) -> VP:
    torch.manual_seed(0)
    method = VP(dim, sizes, reference_size=8, rows_per_code=4, neighbours=2, refresh_steps=4)
    method.fit(torch.randn(500, dim))
    return method


# -- (1) the proposal


def is_uniform_in_ball(steps: Tensor, radius: Tensor) -> bool:
    """|u| / R has the CDF r^d, and the mean direction is 0 within 4 standard deviations."""
    dim = steps.shape[1]
    share = (steps.norm(dim=1) / radius).double().numpy()
    directions = steps / steps.norm(dim=1, keepdim=True)
    centred = bool((directions.mean(0).abs() < 4 * (1 / dim / len(steps)) ** 0.5).all())
    return centred and float(stats.kstest(share, lambda r: r.clip(0, 1) ** dim).pvalue) > 1e-3


@pytest.mark.parametrize("dim", [1, 3, 5])
def test_steps_fill_the_ball(dim: int) -> None:
    torch.manual_seed(1)
    radius = torch.rand(50_000) + 0.1
    assert is_uniform_in_ball(sample_ball(radius, dim), radius)
    assert not is_uniform_in_ball(sample_ball(radius, dim).abs(), radius)
    if dim > 1:
        on_rays = (
            torch.nn.functional.normalize(torch.randn(50_000, dim), dim=1)
            * (radius * torch.rand(50_000))[:, None]
        )
        assert not is_uniform_in_ball(on_rays, radius)


# -- (2) detailed balance


def keeps_the_gaussian(rule: Accept) -> bool:
    """One step from exact N(0, I_3) samples with the exact density and R(z) = 0.4 + |z| / 2 leaves
    the law alone.
    """
    torch.manual_seed(2)
    dim, count = 3, 200_000
    z = torch.randn(count, dim)
    radius = 0.4 + 0.5 * z.norm(dim=1)
    step = sample_ball(radius, dim)
    new = z + step
    radius_new = 0.4 + 0.5 * new.norm(dim=1)
    log_pi, log_pi_new = -z.square().sum(1) / 2, -new.square().sum(1) / 2
    back = step.norm(dim=1) <= radius_new
    kept = rule(log_pi, log_pi_new, radius.log(), radius_new.log(), back, dim)
    energy = torch.where(kept[:, None], new, z).double().square().sum(1)
    close = abs(float(energy.mean()) - dim) < 4 * (2 * dim / count) ** 0.5
    return close and float(stats.kstest(energy.numpy(), stats.chi2(dim).cdf).pvalue) > 1e-3


def test_detailed_balance() -> None:
    assert keeps_the_gaussian(accept)


@pytest.mark.parametrize("wrong", [always, no_radius_ratio, no_reverse_support])
def test_detailed_balance_rejects_wrong_rules(wrong: Accept) -> None:
    assert not keeps_the_gaussian(wrong)


def test_nan_is_refused() -> None:
    nan, yes = torch.full((4,), torch.nan), torch.ones(4, dtype=torch.bool)
    assert not accept(nan, torch.zeros(4), torch.zeros(4), torch.zeros(4), yes, 3).any()


# -- (3) to (7): with neighbour distances


def energy_ratio() -> float:
    torch.manual_seed(3)
    z = torch.randn(8, 3, 1000)
    z_q = filled()(z).z_q
    return float(z_q.square().sum() / z.square().sum())


def test_energy_is_kept_with_neighbour_densities(monkeypatch: pytest.MonkeyPatch) -> None:
    assert energy_ratio() == pytest.approx(1, abs=0.02)
    monkeypatch.setattr(module, "accept", always)
    assert energy_ratio() > 1.05


def test_steps_stay_within_the_radius() -> None:
    torch.manual_seed(4)
    method = filled(size=64)
    z = torch.randn(4, 3, 50)
    sizes = torch.tensor([16, 64, 256, 1000])
    near = Neighbours(method.queue)
    reach = method._density(to_tokens(z), method._radius_scale(sizes, z), near)[2]
    moved = to_tokens(method(z, sizes).z_q - z).norm(dim=1)
    assert (moved <= reach + 1e-5).all()
    assert (moved > 0).float().mean() > 0.3
    assert not (moved <= reach / 4).all()


def test_gradient_is_the_identity() -> None:
    method = filled(size=16)
    z = torch.randn(2, 3, 4, 5, requires_grad=True)
    out = method(z)
    assert not torch.equal(out.z_q, z)
    upstream = torch.randn_like(z)
    (gradient,) = torch.autograd.grad(out.z_q, z, upstream)
    assert torch.equal(gradient, upstream)
    assert not method.queue.requires_grad
    assert list(method.parameters()) == []


def mean_radius(size: int, rows_per_code: int, rows: Callable[..., Tensor] = torch.rand) -> float:
    torch.manual_seed(5)
    method = filled(4, size, rows, rows_per_code=rows_per_code)
    z = rows((1, 4, 2000))
    if rows is torch.rand:
        z = 0.3 + 0.4 * z  # away from the border, where a ball is cut
    return float(method(z).stats["radius"])


def test_a_longer_queue_measures_the_same_radius() -> None:
    assert mean_radius(256, 64) == pytest.approx(mean_radius(256, 32), rel=0.03)
    assert mean_radius(512, 32) != pytest.approx(mean_radius(256, 32), rel=0.03)


def test_radius_follows_the_power_law() -> None:
    measured = mean_radius(1024, 16) / mean_radius(256, 16)
    assert measured == pytest.approx(4 ** (-1 / 4), rel=0.05)
    assert measured != pytest.approx(4 ** (-1 / 3), rel=0.05)


def test_one_queue_serves_every_size_by_that_law() -> None:
    torch.manual_seed(6)
    method = VP(4, (64, 256, 1024), reference_size=256, rows_per_code=8)
    method.queue.copy_(torch.rand_like(method.queue))
    method.queue_count.fill_(len(method.queue))
    z = torch.rand(2, 4, 100)
    near = Neighbours(method.queue)
    radius = {
        k: method._density(to_tokens(z), method._radius_scale(k, z), near)[2]
        for k in (64, 256, 1024)
    }
    assert torch.allclose(radius[64], radius[256] * 4 ** (1 / 4))
    assert torch.allclose(radius[1024], radius[256] * 4 ** (-1 / 4))
    mixed = method._density(to_tokens(z), method._radius_scale(torch.tensor([64, 1024]), z), near)[
        2
    ]
    assert torch.allclose(mixed, torch.cat([radius[64][:100], radius[1024][100:]]))


def test_identical_latents_are_harmless() -> None:
    method = filled(size=16)
    method.queue[:128] = 0
    z = torch.cat([torch.zeros(1, 3, 20), torch.randn(1, 3, 20)])
    out = method(z)
    assert out.z_q.isfinite().all()
    assert torch.equal(out.z_q[0], z[0])
    assert float(out.stats["accept_rate"]) >= 0.5


# -- (8), (9): codebooks and eval


def test_codebooks_are_kmeans_in_half_precision() -> None:
    torch.manual_seed(7)
    latents = torch.randn(2000, 2)
    method = VP(2, (16, 64))
    method.fit(latents)
    for size in (16, 64):
        codebook = method.codebook(size)
        assert torch.equal(codebook, codebook.half().float())
        means, empty = cell_means(latents, nearest(latents, codebook), size)
        assert len(empty) == 0
        assert float((means - codebook).norm() / codebook.norm()) < 0.05


def test_fit_takes_rows_enough_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(data: Tensor, size: int, *_: object) -> Tensor:
        seen.append(len(data))
        return data[:size]

    monkeypatch.setattr(module, "kmeans", counted)
    monkeypatch.setattr(module, "FIT_ROWS", 5000)
    VP(3, (8, 16, 32), reference_size=8).fit(torch.randn(6000, 3))
    assert seen == [200 * 8, 200 * 16, 5000]


def test_fit_is_idempotent_and_takes_few_latents() -> None:
    method = small()
    latents = torch.randn(20, 3)
    method.fit(latents)
    first = {k: v.clone() for k, v in method.state_dict().items()}
    method.fit(latents)
    assert all(torch.equal(v, first[k]) for k, v in method.state_dict().items())
    method.fit(latents[:1])
    assert len(method.codebook(32).unique(dim=0)) > 1
    for bad in (torch.randn(5, 4), torch.zeros(0, 3), torch.full((4, 3), torch.nan)):
        with pytest.raises(ValueError, match="fit needs"):
            method.fit(bad)


@pytest.mark.parametrize("grid", [(7,), (3, 5)])
def test_eval_path(grid: tuple[int, ...]) -> None:
    method = small().eval()
    z = torch.randn(8, 3, *grid, requires_grad=True)
    for size in (8, 32):
        out = method(z, size)
        assert out.indices is not None
        assert torch.equal(out.z_q, method.decode(method.encode(z, size), size))
        assert torch.equal(method.encode(method.decode(out.indices, size), size), out.indices)
        assert out.indices.shape == (8, 1, *grid)
        assert torch.equal(method.encode(z[3:4], size), out.indices[3:4])
        assert torch.autograd.grad(out.z_q.sum(), z)[0].eq(1).all()
        assert method(z.bfloat16(), size).z_q.dtype == torch.float32


def test_no_codebook_before_fit() -> None:
    method = VP(3, (8,), rows_per_code=4, neighbours=2).eval()
    z = torch.randn(1, 3, 4)
    for call in (
        method,
        method.encode,
        lambda _: method.decode(torch.zeros(1, 1, 4, dtype=torch.int64)),
    ):
        with pytest.raises(RuntimeError, match="fit"):
            call(z)


def test_wrong_arguments() -> None:
    method = small()
    z = torch.randn(2, 3, 4)
    for size in (9, torch.tensor([8]), torch.tensor([8, 0])):
        with pytest.raises(ValueError, match="size"):
            method.train()(z, size)
    with pytest.raises(ValueError, match="each sample"):
        method.eval()(z, torch.tensor([8, 8]))
    with pytest.raises(ValueError, match="indices"):
        method.decode(torch.full((1, 1, 4), 8), 8)
    with pytest.raises(ValueError, match="neighbours"):
        VP(3, (8,), rows_per_code=1, neighbours=9)


# -- (10): the queue


def test_nothing_moves_before_the_queue_is_full() -> None:
    torch.manual_seed(8)
    method = small().train()  # a queue of 32 rows, of which 8 are renewed per step
    z = torch.randn(1, 3, 20)
    out = method(z)
    assert torch.equal(out.z_q, z)
    assert out.indices is None
    assert "accept_rate" not in out.stats
    assert int(method.queue_count) == int(method.queue_position) == 20
    assert torch.equal(method.queue[:20].sort(0).values, z[0].T.sort(0).values)
    assert torch.equal(method(z).z_q, z)  # 20 of 32 were real
    assert (int(method.queue_count), int(method.queue_position)) == (32, 8)
    old = method.queue.clone()
    out = method(z)
    assert not torch.equal(out.z_q, z)
    assert int(method.queue_position) == 16
    assert torch.equal(method.queue[:8], old[:8])
    assert torch.equal(method.queue[16:], old[16:])
    assert not torch.equal(method.queue[8:16], old[8:16])
    assert all(any(torch.equal(row, token) for token in z[0].T) for row in method.queue)


def test_bad_latents_do_not_enter_the_queue() -> None:
    method = filled(size=16)
    out = method(torch.full((1, 3, 400), torch.nan))
    assert method.queue.isfinite().all()
    assert float(out.stats["accept_rate"]) == 0


def test_resuming_gives_the_same_next_step() -> None:
    torch.manual_seed(9)
    method = small().train()
    for _ in range(5):
        method(torch.randn(2, 3, 20))
    saved, random = {k: v.clone() for k, v in method.state_dict().items()}, torch.get_rng_state()
    z = torch.randn(2, 3, 20)
    expected = method(z).z_q

    def next_step(forget: str = "") -> Tensor:
        fresh = VP(
            3, (8, 32), reference_size=8, rows_per_code=4, neighbours=2, refresh_steps=4
        ).train()
        fresh.load_state_dict(
            {
                k: torch.zeros_like(v) if forget and k.startswith(forget) else v
                for k, v in saved.items()
            }
        )
        torch.set_rng_state(random)
        torch.randn(2, 3, 20)
        z_q = fresh(z).z_q
        assert forget or torch.equal(fresh.queue, method.queue)
        return z_q

    assert torch.equal(next_step(), expected)
    assert not torch.equal(next_step("queue"), expected)


def trained(monkeypatch: pytest.MonkeyPatch, by_tree: bool, rows_per_code: int = 8) -> Tensor:
    """All weights after 40 steps of a linear autoencoder of correlated data."""
    torch.manual_seed(10)
    mix = torch.randn(6, 6)
    nets = [torch.nn.Linear(6, 3), VP(3, (32,), rows_per_code=rows_per_code), torch.nn.Linear(3, 6)]
    optimiser = torch.optim.Adam([p for net in nets for p in net.parameters()], 1e-2)
    if not by_tree:
        monkeypatch.setattr(
            Neighbours, "radii", lambda self, x, ks: radii_by_blocks(x, self.rows, ks)
        )
    for step in range(40):
        torch.manual_seed(1000 + step)
        x = torch.randn(300, 6) @ mix
        z = nets[0](x)
        out = nets[1](z.T[None])
        loss = (nets[2](out.z_q[0].T) - x).square().mean() + sum(out.losses.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(out.stats["accept_rate"]) > 0
    monkeypatch.undo()
    return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])


def test_the_tree_trains_as_all_distances_do(monkeypatch: pytest.MonkeyPatch) -> None:
    by_blocks = trained(monkeypatch, False)
    assert torch.allclose(trained(monkeypatch, True), by_blocks, atol=1e-4)
    assert not torch.allclose(trained(monkeypatch, True, 12), by_blocks, atol=1e-4)


def test_the_default_queue_has_the_statistics_of_the_published_one() -> None:
    """K * 32 rows instead of K * 16 d: acceptance and mean radius within 2 %.

    Twice the K has others.
    """

    def statistics(rows_per_code: int | None, size: int = 256) -> tuple[float, float]:
        found = []
        for seed in range(4):
            torch.manual_seed(seed)
            method = filled(
                5, 256, **({} if rows_per_code is None else {"rows_per_code": rows_per_code})
            )
            found.append(method(torch.randn(1, 5, 8192), torch.tensor([size])).stats)
        return tuple(sum(float(s[name]) for s in found) / 4 for name in ("accept_rate", "radius"))  # type: ignore[return-value]

    published = statistics(16 * 5)
    assert statistics(None) == pytest.approx(published, rel=0.02)
    assert statistics(None, size=512) != pytest.approx(published, rel=0.02)


def test_modes_and_eval_leave_the_state_alone() -> None:
    method = small()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    random = torch.get_rng_state()
    z = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
    method.train().eval()(z)
    method.train()
    method.encode(z)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_state_keys() -> None:
    assert set(small().state_dict()) == {
        "queue", "queue_position", "queue_count", "fitted", "codebook_8", "codebook_32",
    }  # fmt: skip


def test_save_and_load_keep_indices(tmp_path: pytest.TempPathFactory) -> None:
    method = small().eval()
    torch.save(method.state_dict(), f"{tmp_path}/vp.pt")
    other = VP(3, (8, 32), reference_size=8, rows_per_code=4, neighbours=2).eval()
    other.load_state_dict(torch.load(f"{tmp_path}/vp.pt", weights_only=True))
    z = torch.randn(2, 3, 50)
    assert torch.equal(other.encode(z, 32), method.encode(z, 32))


def test_the_queue_counts_only_rows_that_were_written() -> None:
    """A token that is not finite is neither kept nor counted: zeros from before would be neighbours
    of everything.
    """
    method = VP(3, (8,), rows_per_code=4, neighbours=2).train()
    z = torch.randn(1, 3, 20)
    z[0, 1, :5], z[0, 2, 7] = torch.nan, torch.inf
    method(z)
    assert int(method.queue_count) == int(method.queue_position) == 14
    kept = method.queue[:14]
    assert kept.isfinite().all()
    assert set(kept[:, 0].tolist()) <= set(z[0, 0].tolist())
    assert not method.queue[14:].any()
    method(torch.full((1, 3, 20), torch.nan))
    assert int(method.queue_count) == 14


def test_moments() -> None:
    z = 3 + 2 * torch.randn(4, 3, 2000, generator=torch.Generator().manual_seed(0))
    losses = small().train()(z).losses
    assert float(losses["mean"]) == pytest.approx(9, rel=0.02)
    assert float(losses["variance"]) == pytest.approx(9, rel=0.05)
    two = torch.tensor([[[0.0, 2.0]]]).expand(1, 3, 2)
    assert float(small().train()(two).losses["variance"]) == pytest.approx(1)  # unbiased: 2, not 1
    lone = torch.randn(1, 3, 1, requires_grad=True)
    losses = small().train()(lone).losses
    assert all(v.isfinite() for v in losses.values())
    assert torch.autograd.grad(sum(losses.values()), lone)[0].isfinite().all()  # type: ignore[arg-type]


def test_autocast_changes_nothing() -> None:
    method = small()
    z = torch.randn(2, 3, 40)
    expected = method.eval()(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method(z).z_q, expected.z_q)
        assert method.train()(z).z_q.dtype == torch.float32


@pytest.mark.parametrize(("scale", "shift"), [(1e6, 0), (0.1, 1000), (1e-8, 0), (1e-25, 0)])
def test_codes_that_a_model_file_cannot_tell_apart_are_refused(scale: float, shift: float) -> None:
    """Stored in float16 they would be infinite, or one."""
    latents = shift + scale * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"float16 cannot tell codes .* apart"):
        VP(3, (64,)).fit(latents)


@pytest.mark.parametrize("nested", [False, True])
def test_a_fit_that_fails_leaves_the_codebooks_of_the_last(nested: bool) -> None:
    """Sizes of two fits would code one latent space in two."""
    method = VP(1, (2, 256), rows_per_code=4, neighbours=2, nested=nested)
    method.fit(torch.randn(2000, 1))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    far = 100 + 0.1 * torch.randn(2000, 1)  # two codes are told apart there, 256 are not
    VP(1, (2,), rows_per_code=4, neighbours=2).fit(far)
    with pytest.raises(ValueError, match="float16 cannot tell"):
        method.fit(far)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("size", [1, 4])
def test_codes_beyond_float16_are_refused_where_all_are_one(size: int) -> None:
    with pytest.raises(ValueError, match="float16 cannot tell"):
        VP(3, (size,)).fit(torch.full((100, 3), 1e6))


@pytest.mark.parametrize(("scale", "shift"), [(100, 0), (1, 10), (0.01, 0), (0, 1)])
def test_codes_far_from_standard_normal_are_kept_where_they_can_be(
    scale: float, shift: float
) -> None:
    latents = shift + scale * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    method = VP(3, (64,))
    method.fit(latents)
    assert len(method.codebook(64).unique(dim=0)) == (64 if scale else 1)
