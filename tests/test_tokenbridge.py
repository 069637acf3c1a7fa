"""TokenBridge: its quantiser against scipy's truncated normal, and the Gaussian VAE around it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from codec.bottlenecks.tokenbridge import TokenBridge, cell_means

TABLE = {12: (4, 3), 40: (8, 5)}
Means = Callable[[int], Tensor]


def grid(points: Tensor) -> Tensor:
    """(N, d) means -> (1, 2d, N) with log variance 0."""
    return torch.cat([points, torch.zeros_like(points)], 1).T[None].float()


def are_means_of_cut_cells(candidate: Means, count: int) -> bool:
    """Against the integral of x over each cell of the standard normal, ends cut at +-3."""
    edges = stats.norm.ppf([i / count for i in range(count + 1)]).clip(-3, 3)
    expected = []
    for low, high in pairwise(edges):
        mass = stats.norm.cdf(high) - stats.norm.cdf(low)
        expected.append(integrate.quad(lambda x: x * stats.norm.pdf(x), low, high)[0] / mass)
    return torch.allclose(candidate(count), torch.tensor(expected, dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 64])
def test_values_are_means_of_cells(count: int) -> None:
    def uncut(count: int) -> Tensor:
        edges = torch.special.ndtri(torch.arange(count + 1, dtype=torch.float64) / count)
        return -count * torch.exp(-edges.square() / 2).diff() / (2 * torch.pi) ** 0.5

    def midpoints(count: int) -> Tensor:
        return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)

    assert are_means_of_cut_cells(cell_means, count)
    assert not are_means_of_cut_cells(uncut, count)
    assert not are_means_of_cut_cells(midpoints, count)
    assert (cell_means(count).diff() > 0).all()
    assert torch.equal(cell_means(count), -cell_means(count).flip(0))


def test_four_values_are_the_known_ones() -> None:
    assert cell_means(4).tolist() == pytest.approx([-1.2602, -0.3247, 0.3247, 1.2602], abs=5e-5)
    assert cell_means(1).tolist() == [0]


@pytest.mark.parametrize("size", [12, 40])
def test_quantisation_is_idempotent_and_covers_all_codes(size: int) -> None:
    method = TokenBridge(TABLE)
    indices = torch.arange(method.num_codes(size))
    codes = method.decode(indices[None, None], size)
    assert torch.equal(method.encode(grid(codes[0].T), size)[0, 0], indices)


def takes_the_nearest_value(choose: Callable[[Tensor], Tensor]) -> bool:
    """One dimension, 5 values."""
    points = 3 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    values = cell_means(5).float() * 5 / 3
    return torch.equal(choose(points), (points - values).abs().argmin(1))


def test_the_nearest_value_is_taken() -> None:
    def by_cell(points: Tensor) -> Tensor:
        return (torch.special.ndtr(points[:, 0] * 3 / 5) * 5).long()

    assert takes_the_nearest_value(
        lambda points: TokenBridge({5: (5,)}).encode(grid(points)).flatten()
    )
    # The cell of the percentile is not always the nearest value's.
    assert not takes_the_nearest_value(by_cell)


def test_halfway_between_two_values_is_the_lower_one() -> None:
    assert TokenBridge({4: (4,)}).encode(torch.zeros(1, 2, 3)).tolist() == [[[1, 1, 1]]]


def test_the_range_scales_the_values() -> None:
    code = torch.tensor([[[3]]])
    for reach in (5.0, 3.0):
        value = TokenBridge({4: (4,)}, latent_range=reach).decode(code).item()
        assert value == pytest.approx(1.2602 * reach / 3, abs=1e-4)
    with pytest.raises(ValueError, match="range"):
        TokenBridge(latent_range=0.0)


def is_the_kl(candidate: Callable[[Tensor, Tensor], Tensor]) -> bool:
    g = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(6, generator=g), torch.randn(6, generator=g)
    ours = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    truth = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    return torch.allclose(candidate(mean, log_variance), truth)


def test_kl() -> None:
    def of_the_method(mean: Tensor, log_variance: Tensor) -> Tensor:
        return TokenBridge(TABLE)(
            torch.stack([mean.view(2, 3), log_variance.view(2, 3)]).view(1, 4, 3)
        ).losses["kl"]

    assert is_the_kl(of_the_method)
    # A standard deviation.
    assert not is_the_kl(lambda mean, log_variance: of_the_method(mean, 2 * log_variance))


def test_training_samples_the_gaussian_and_eval_takes_its_mean() -> None:
    torch.manual_seed(0)
    method = TokenBridge(TABLE).train()
    z = torch.tensor([0.5, -1.0, -2.0, 1.0])[None, :, None].expand(2, 4, 50_000)
    out = method(z, torch.tensor([12, 40]))
    assert out.indices is None
    assert torch.allclose(out.z_q.mean((0, 2)), torch.tensor([0.5, -1.0]), atol=0.02)
    assert torch.allclose(out.z_q.std((0, 2)), torch.tensor([-1.0, 0.5]).exp(), rtol=0.02)
    louder = torch.cat([z[:, :2], z[:, 2:] + 3], 1)
    assert torch.equal(method.eval()(z, 40).z_q, method(louder, 40).z_q)
    with pytest.raises(ValueError, match="one offered size"):
        method.train()(z, torch.tensor([12, 41]))


def test_extreme_variances_stay_finite() -> None:
    z = torch.cat([torch.zeros(1, 2, 4), torch.full((1, 2, 4), 1e4)], 1)
    for sign in (1, -1):
        out = TokenBridge(TABLE).train()(sign * z)
        assert out.z_q.isfinite().all()
        assert out.losses["kl"].isfinite()
