"""k-means: Lloyd's invariants, seeds, and the data that a codec can really meet."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from codec.bottlenecks import _kmeans
from codec.bottlenecks._kmeans import cell_means, far_rows, kmeans, seed_centres, subsample
from codec.bottlenecks._search import NotFiniteError, nearest


def clusters(count: int = 20, per: int = 100, dim: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    middles = 10 * torch.randn(count, 1, dim, generator=generator)
    return (middles + 0.01 * torch.randn(count, per, dim, generator=generator)).flatten(0, 1)


def inertia(data: Tensor, centres: Tensor) -> float:
    return float((data - centres[nearest(data, centres)]).double().square().sum())


def is_fixed_point(data: Tensor, centres: Tensor) -> bool:
    """No empty cell, and every centre the mean of its cell."""
    means, empty = cell_means(data, nearest(data, centres), len(centres))
    return len(empty) == 0 and torch.allclose(means, centres, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 5, 12])
def test_converges_to_a_fixed_point(dim: int) -> None:
    data = torch.randn(3000, dim, generator=torch.Generator().manual_seed(dim))
    centres = kmeans(data, 100, seed=0, iterations=300, tolerance=0.0)
    assert is_fixed_point(data, centres)
    assert not is_fixed_point(data, data[:100])
    assert not is_fixed_point(data, torch.cat([centres[:99], torch.full((1, dim), 99.0)]))


def test_inertia_never_increases() -> None:
    data = torch.randn(4000, 4, generator=torch.Generator().manual_seed(1))
    centres = seed_centres(data, 200, torch.Generator().manual_seed(1))
    history = [inertia(data, centres)]
    for _ in range(15):
        centres, empty = cell_means(data, nearest(data, centres), 200)
        assert len(empty) == 0
        history.append(inertia(data, centres))
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(history))
    assert history[-1] < 0.9 * history[0]


def finds_all_clusters(data: Tensor, seeds: Tensor) -> bool:
    return len(set((nearest(data, seeds)[::100]).tolist())) == 20


def test_plus_plus_seeds_spread_out() -> None:
    data = clusters()
    seeded = [
        finds_all_clusters(data, seed_centres(data, 20, torch.Generator().manual_seed(s)))
        for s in range(10)
    ]
    uniform = [
        finds_all_clusters(data, subsample(data, 20, torch.Generator().manual_seed(s)))
        for s in range(10)
    ]
    assert sum(seeded) >= 8
    assert sum(uniform) <= 2


def test_empty_cells_find_new_homes() -> None:
    data = clusters()
    far = far_rows(
        data,
        torch.zeros_like(data).where(torch.arange(2000)[:, None] < 5, data),
        5,
        torch.Generator(),
    )
    # The only distant ones.
    assert {tuple(row) for row in far.tolist()} == {tuple(row) for row in data[:5].tolist()}


def test_centres_that_no_row_uses_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seeds = clusters(), clusters()[::100].clone()
    seeds[3:7] = 1e3
    monkeypatch.setattr(_kmeans, "seed_centres", lambda *_: seeds)
    assert len(nearest(data, seeds).unique()) == 16
    assert len(nearest(data, kmeans(data, 20, seed=0)).unique()) == 20


def test_where_the_origin_lies_does_not_matter() -> None:
    """What ends the iterations is a share of the centres' spread, not of their length."""
    data = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    near, far = inertia(data, kmeans(data, 30, 0)), inertia(data + 500, kmeans(data + 500, 30, 0))
    assert far == pytest.approx(near, rel=0.01)
    assert inertia(data, kmeans(data, 30, 0, iterations=1)) > 1.03 * near  # negative control


def test_seeds_of_many_clusters_are_as_many_rows() -> None:
    """Their sample has rows for all of them."""
    data = torch.randn(9000, 1, generator=torch.Generator().manual_seed(0))
    assert len(seed_centres(data, 4200, torch.Generator().manual_seed(0)).unique()) == 4200


def test_means_of_many_rows_are_exact() -> None:
    """Sums in float32 would be off by a hundredth."""
    means, _ = cell_means(torch.full((10**6, 1), 0.1), torch.zeros(10**6, dtype=torch.int64), 1)
    assert float(means) == pytest.approx(0.1, rel=1e-6)


def test_deterministic_and_apart_from_the_global_state() -> None:
    data = torch.randn(2000, 3)
    before = torch.get_rng_state()
    first = kmeans(data, 50, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(kmeans(data, 50, seed=3), first)
    assert not torch.equal(kmeans(data, 50, seed=4), first)


def test_beats_random_codes_by_the_known_margin() -> None:
    """Uniform on an interval: K equal cells, error 1 / (12 K^2)."""
    data = torch.rand(20000, 1, generator=torch.Generator().manual_seed(0))
    error = inertia(data, kmeans(data, 8, seed=0, iterations=500, tolerance=0.0)) / len(data)
    assert error == pytest.approx(1 / (12 * 64), rel=0.03)


def test_fewer_rows_than_clusters() -> None:
    data = torch.randn(10, 4)
    centres = kmeans(data, 64, seed=0)
    assert torch.equal(centres[:10], data)
    assert len(centres.unique(dim=0)) == 64
    assert float((centres - data[torch.arange(64) % 10]).abs().max()) < 1e-2
    assert kmeans(data[:1], 3, seed=0).isfinite().all()


@pytest.mark.parametrize("num_clusters", [1, 10, 100])
def test_digital_silence(num_clusters: int) -> None:
    data = torch.cat([torch.zeros(990, 5), torch.randn(10, 5)])
    centres = kmeans(data, num_clusters, seed=0)
    assert centres.shape == (num_clusters, 5)
    assert centres.isfinite().all()


def test_no_data() -> None:
    with pytest.raises(ValueError, match="no rows"):
        kmeans(torch.zeros(0, 3), 4, seed=0)


def test_subsample() -> None:
    data = torch.arange(100.0)[:, None]
    assert subsample(data, 100, torch.Generator()) is data
    some = subsample(data, 30, torch.Generator().manual_seed(0))
    assert len(some.unique()) == 30


@pytest.mark.parametrize("rows", [4, 100])
def test_rows_that_are_not_finite_are_refused_however_few(rows: int) -> None:
    data = torch.randn(rows, 3)
    data[1, 1] = torch.nan
    with pytest.raises(NotFiniteError):
        kmeans(data, 10, seed=0)


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_so_many_clusters_there_are_not(count: float) -> None:
    with pytest.raises(ValueError, match="num_clusters is a whole number from 1 on"):
        kmeans(torch.randn(10, 3), count, seed=0)  # type: ignore[arg-type]
