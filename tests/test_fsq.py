"""FSQ and NoiseFSQ: their grids, gradients and edges, against formulas and against the library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import atanh, prod, tan

import pytest
import torch
from scipy import stats
from torch import Tensor

from codec.bottlenecks._grid import LevelGrid
from codec.bottlenecks.fsp import FSP, LEVELS
from codec.bottlenecks.fsq import FSQ, NoiseFSQ, bound

TABLE = {60: (5, 4, 3), 512: (8, 8, 8)}
BOTH = pytest.mark.parametrize("kind", [FSQ, NoiseFSQ])
Kind = Callable[[Mapping[int, tuple[int, ...]]], LevelGrid]


def latents(dim: int = 3, count: int = 5000, scale: float = 1.5) -> Tensor:
    return scale * torch.randn(2, dim, count, generator=torch.Generator().manual_seed(1))


def uniform_latents(dim: int, count: int = 100_000) -> Tensor:
    """z whose (tanh z + 1) / 2 is uniform."""
    t = torch.rand(1, dim, count, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.atanh(2 * t - 1).float()


# -- grids


@BOTH
def test_codes_and_indices_are_a_bijection(kind: Kind) -> None:
    method = kind(TABLE)
    for size, levels in TABLE.items():
        codes = method.decode(torch.arange(prod(levels))[None, None], size)[0].T
        assert len(codes.unique(dim=0)) == prod(levels) == method.num_codes(size)
        assert codes.abs().max() == 1
        for i, count in enumerate(levels):
            assert len(codes[:, i].unique()) == count


def digits(index: int, levels: tuple[int, ...]) -> Iterator[int]:
    for count in levels:
        yield index % count
        index //= count


def decodes_as(kind: Kind, value: Callable[[int, int], float]) -> bool:
    levels = (5, 4, 3)
    codes = kind(TABLE).decode(torch.arange(60)[None, None], 60)[0].T
    expected = [
        [value(*pair) for pair in zip(digits(i, levels), levels, strict=True)] for i in range(60)
    ]
    return torch.allclose(codes, torch.tensor(expected))


def test_codes_are_those_of_the_paper() -> None:
    def published(digit: int, levels: int) -> float:
        return (digit - levels // 2) / (levels // 2)

    def symmetric(digit: int, levels: int) -> float:
        return 2 * digit / (levels - 1) - 1

    assert decodes_as(FSQ, published)
    assert decodes_as(NoiseFSQ, symmetric)
    assert not decodes_as(FSQ, symmetric)  # even levels of FSQ are not symmetric: -1 ... 0.75 of 8


@BOTH
@pytest.mark.parametrize("size", [60, 512])
def test_every_level_is_reached_and_no_other(kind: Kind, size: int) -> None:
    method, levels = kind(TABLE).eval(), TABLE[size]
    ends = torch.tensor(list(product((-20.0, 20.0), repeat=3))).T[None]
    for z in (3 * latents(), ends):
        out = method(z, size)
        assert out.indices is not None
        assert 0 <= int(out.indices.min()) <= int(out.indices.max()) < prod(levels)
        assert out.z_q.abs().max() <= 1
    assert len(method.encode(uniform_latents(3), size).unique()) == prod(levels)


def test_two_levels_are_reached_by_ordinary_latents() -> None:
    method = FSQ(LEVELS).eval()
    for kind in (method, NoiseFSQ().eval()):
        assert len(kind.encode(2 * latents(5, 40_000), 256).unique()) == 256


@BOTH
def test_quantisation_is_monotone_and_its_own_fixed_point(kind: Kind) -> None:
    method = kind({7: (7,), 8: (8,)}).eval()
    for size in (7, 8):
        z = torch.linspace(-4, 4, 2001)[None, None]
        steps = method(z, size).z_q.diff()
        assert (steps >= 0).all()
        assert int((steps > 0).sum()) == size - 1


# -- FSQ


def test_odd_levels_keep_zero_and_even_ones_shift_it() -> None:
    zero = torch.zeros(1, 1, 1)
    assert FSQ({7: (7,)}).eval()(zero).z_q.item() == 0
    assert float(bound(zero, torch.tensor(8)).abs()) < 1e-3
    for levels in range(4, 40, 2):
        half = (levels - 1) * (1 - 1e-3) / 2
        # Of a published shift of tan where atanh is meant.
        assert abs(tan(0.5 / half) - atanh(0.5 / half)) < 0.02


def slope_is_right(slope: Callable[[Tensor, float, int], Tensor], levels: int) -> bool:
    z = latents(1, 50).requires_grad_()
    (gradient,) = torch.autograd.grad(FSQ({levels: (levels,)})(z).z_q.sum(), z)
    half = (levels - 1) * (1 - 1e-3) / 2
    shift = tan(0.5 / half) if levels % 2 == 0 else 0.0
    return torch.allclose(gradient, slope(z.detach() + shift, half, levels), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("levels", [5, 8])
def test_the_gradient_is_that_of_the_bound(levels: int) -> None:
    def slope(z: Tensor, half: float, levels: int) -> Tensor:
        return half / (levels // 2) / torch.cosh(z).square()

    assert slope_is_right(slope, levels)
    # Straight through the tanh as well.
    assert not slope_is_right(lambda z, *_: torch.ones_like(z), levels)


def test_training_and_eval_of_fsq_are_the_same() -> None:
    method, z = FSQ(TABLE), latents()
    train, held = method.train()(z, 60), method.eval()(z, 60)
    assert torch.equal(train.z_q, held.z_q)
    assert train.indices is not None
    assert torch.equal(train.indices, held.indices)


@BOTH
def test_each_sample_may_have_its_own_size(kind: Kind) -> None:
    method = kind(TABLE).train()
    if isinstance(method, NoiseFSQ):
        method.quantise_probability = 1.0
    z = latents()
    mixed = method(z, torch.tensor([60, 512]))
    assert mixed.indices is None
    for i, size in enumerate((60, 512)):
        assert torch.equal(mixed.z_q[i : i + 1], method.eval()(z[i : i + 1], size).z_q)
        method.train()
    for bad in (torch.tensor([60, 61]), torch.tensor([60])):
        with pytest.raises(ValueError, match="one offered size"):
            method(z, bad)


# -- NoiseFSQ


def noise_is_one_step_wide(width: Callable[[int], float]) -> bool:
    method, z = NoiseFSQ({5: (5, 5, 5)}, quantise_probability=0.0).train(), latents()
    error = (method(z).z_q - torch.tanh(z)).flatten() / 2  # of t in [0, 1]
    return (
        float(
            stats.kstest(error.double().numpy(), stats.uniform(-width(5) / 2, width(5)).cdf).pvalue
        )
        > 1e-3
    )


def test_noise() -> None:
    assert noise_is_one_step_wide(lambda levels: 1 / (levels - 1))
    assert not noise_is_one_step_wide(lambda levels: 1 / levels)  # L3AC's code


def test_half_of_the_tokens_are_quantised_whole() -> None:
    method = NoiseFSQ({512: (8, 8, 8)}).train()
    z_q = method(latents()).z_q
    on_grid = ((z_q + 1) * 3.5 % 1 < 1e-4) | ((z_q + 1) * 3.5 % 1 > 1 - 1e-4)
    assert float(on_grid.all(1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float((on_grid.any(1) & ~on_grid.all(1)).float().mean()) < 0.01


@pytest.mark.parametrize("quantise", [0.0, 1.0])
def test_the_gradient_of_both_branches_is_that_of_tanh(quantise: float) -> None:
    z = latents(count=50).requires_grad_()
    out = NoiseFSQ(TABLE, quantise).train()(z, 60)
    (gradient,) = torch.autograd.grad(out.z_q.sum(), z)
    assert torch.allclose(gradient, 1 - torch.tanh(z).square(), atol=1e-6)


def edge_share(method: LevelGrid, levels: int) -> float:
    indices = method.eval().encode(uniform_latents(1))
    return float(((indices == 0) | (indices == levels - 1)).float().mean()) / 2


@pytest.mark.parametrize("levels", [3, 5, 8])
def test_edge_levels_have_half_cells_and_cost_error(levels: int) -> None:
    """Where latents are uniform; the reason for FSP, whose cells are equal."""
    noise, fsp = NoiseFSQ({levels: (levels,)}), FSP({levels: (levels,)})
    assert edge_share(noise, levels) == pytest.approx(1 / (2 * (levels - 1)), rel=0.03)
    z = uniform_latents(1)
    assert float((fsp.eval().encode(z) == 0).float().mean()) == pytest.approx(1 / levels, rel=0.03)
    error = float(((noise.eval()(z).z_q - torch.tanh(z)) / 2).square().mean())
    assert error * 12 * (levels - 1) ** 2 == pytest.approx(1, rel=0.02)


# -- arguments, oracle


@BOTH
def test_levels_name_each_size_once_and_codes_that_an_index_can_hold(kind: Kind) -> None:
    with pytest.raises(ValueError, match="levels are lists of one common length"):
        kind({8: (2, 4), "8": (4, 2)})  # type: ignore[dict-item]
    assert kind({8: (2,) * 62}).num_codes(8) == 1 << 62
    with pytest.raises(ValueError, match="levels have at most 9223372036854775807 codes"):
        kind({8: (2,) * 63})


@BOTH
def test_wrong_levels(kind: Kind) -> None:
    for bad in ({4: (4,), 8: (4, 2)}, {1: (1,)}, {4: ()}):
        with pytest.raises(ValueError, match="levels are lists of one common length"):
            kind(bad)
    assert kind({"8": (4, 2), "64": (8, 8)}).codebook_sizes == (8, 64)  # type: ignore[dict-item]  as JSON has them


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (7, 5, 5, 5), (8, 8, 8, 6)])
def test_oracle_of_fsq(levels: tuple[int, ...]) -> None:
    """Where the library's eps, of the other sign, and its atanh cannot matter: away from the
    borders of cells.
    """
    library = pytest.importorskip("vector_quantize_pytorch")
    method, other, z = FSQ({1: levels}).eval(), library.FSQ(levels).eval(), latents(4)
    value, indices = other(z.mT)
    bounded = bound(z, torch.tensor(levels)[None, :, None])
    away = ((bounded - bounded.floor() - 0.5).abs() > 0.03).all(1)
    assert float(away.float().mean()) > 0.6
    assert torch.equal(method.encode(z)[:, 0][away], indices.long()[away])
    assert torch.allclose(method(z).z_q.mT[away], value[away])


def test_oracle_of_the_symmetric_form() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    levels = (8, 5, 4, 2)
    method = NoiseFSQ({1: levels}).eval()
    other = library.FSQ(levels, preserve_symmetry=True).eval()
    z = latents(4)
    value, indices = other(z.mT)
    # But for rounding on a border.
    assert float((method.encode(z)[:, 0] == indices).float().mean()) > 0.9999
    assert float((method(z).z_q.mT - value).abs().gt(1e-5).float().mean()) < 1e-4
