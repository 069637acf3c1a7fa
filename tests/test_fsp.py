"""FSP's mathematics (docs/methods/fsp.md), each with a wrong variant that must fail its check."""

from __future__ import annotations

from math import pi, prod, sqrt

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from codec.bottlenecks.fsp import ACTIVATIONS, FSP, LEVELS, UNIFORM_STD

N = 200_000


def uniform(count: int = N, dim: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(seed))


def pre_activation(u: Tensor) -> Tensor:
    """Latents whose tanh activation is u; the tails are cut where float32 has no more digits."""
    return torch.atanh((2 * u - 1).clamp(-0.999999, 0.999999))


def is_uniform(sample: Tensor) -> bool:
    return bool(stats.kstest(sample.numpy().ravel(), "uniform").pvalue > 1e-3)


@pytest.mark.parametrize("size", sorted(LEVELS))
def test_indices_and_levels_are_a_bijection(size: int) -> None:
    fsp = FSP().eval()
    indices = torch.arange(fsp.num_codes(size))[None, None]
    z_q = fsp.decode(indices, size)
    levels = torch.tensor(LEVELS[size])[:, None]
    cells = (z_q[0] * UNIFORM_STD + 0.5) * levels - 0.5
    assert torch.allclose(cells, cells.round(), atol=1e-5)  # exactly the values (l + 1/2) / L
    assert len(torch.unique(cells.round().T, dim=0)) == prod(LEVELS[size]) == fsp.num_codes(size)
    back = fsp.encode(torch.atanh(2 * (cells.round() + 0.5) / levels - 1)[None], size)
    assert torch.equal(back, indices)


def test_the_mixed_radix_is_the_papers() -> None:
    """idx = sum l_i b_i with b_1 = 1: the first dimension is the fastest."""
    fsp = FSP({12: (3, 4)}).eval()
    z = pre_activation(torch.tensor([[[(2 + 0.5) / 3], [(1 + 0.5) / 4]]]))
    assert int(fsp.encode(z)) == 2 + 3 * 1
    assert int(fsp.encode(z)) != 2 * 4 + 1  # the other order


@pytest.mark.parametrize("levels", [2, 5, 8])
def test_quantisation_error_is_at_most_half_a_cell(levels: int) -> None:
    fsp = FSP({levels: (levels,)}).eval()
    u = torch.cat([uniform(10_000), torch.tensor([[0.0], [1.0]])])
    error = (fsp(u_to_grid(u)).z_q * UNIFORM_STD + 0.5 - u_activation(fsp, u)).abs()
    assert float(error.max()) <= 1 / (2 * levels) + 1e-6


def u_to_grid(u: Tensor) -> Tensor:
    return pre_activation(u).T[None]


def u_activation(fsp: FSP, u: Tensor) -> Tensor:
    return fsp.activation.forward(u_to_grid(u))


def test_saturated_latents_stay_in_range() -> None:
    """tanh is exactly 1 above 9 in float32: floor(L) would be one level too many."""
    fsp = FSP().eval()
    z = torch.full((1, 5, 1), 50.0)
    assert float(torch.tanh(z).min()) == 1.0
    for size in fsp.codebook_sizes:
        assert int(fsp.encode(z, size)) == fsp.num_codes(size) - 1
        assert int(fsp.encode(-z, size)) == 0


def moved(fsp: FSP, u: Tensor) -> Tensor:
    """One training step's output on u ~ (N, 1), back in [0, 1]."""
    return (fsp.train()(u_to_grid(u)).z_q * UNIFORM_STD + 0.5)[0, 0].double()


def test_perturbation_keeps_a_uniform_uniform_and_clamping_does_not() -> None:
    torch.manual_seed(7)  # not the seed of u, or noise and u are the same numbers
    fsp = FSP({4: (4,)}, quantise_probability=0.0)
    u = uniform()
    out = moved(fsp, u)
    # eta = 1: half a cell to either side.
    assert float((out - u[:, 0]).abs().max()) <= 1 / (2 * 4) + 1e-5
    assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert is_uniform(out)
    noise = (torch.rand_like(u) - 0.5) / 4
    assert not is_uniform((u + noise).clamp(0, 1))  # negative control: atoms at the ends
    assert not is_uniform(u + noise)


def test_half_of_the_tokens_are_quantised() -> None:
    torch.manual_seed(7)  # not the seed of u, or noise and u are the same numbers
    u = uniform()
    out = moved(FSP({4: (4,)}), u)
    on_grid = ((out * 4 - 0.5) - (out * 4 - 0.5).round()).abs() < 1e-4
    assert float(on_grid.float().mean()) == pytest.approx(0.5, abs=0.01)
    on_grid = ((moved(FSP({4: (4,)}, quantise_probability=0.0), u) * 4 - 0.5) % 1).abs() < 1e-4
    # Negative control: the published code's default never quantises.
    assert float(on_grid.float().mean()) < 0.01


def test_a_token_is_quantised_whole() -> None:
    torch.manual_seed(7)
    fsp = FSP({64: (4, 4, 4)}, eta=0).train()
    z = pre_activation(uniform(5000, 3)).T[None]
    kept = ((fsp(z).z_q - fsp.target(z)).abs() < 1e-6).float().mean(1)
    assert set(kept.flatten().tolist()) == {0.0, 1.0}


def test_a_vector_is_accepted_whole_and_an_element_by_itself() -> None:
    """The first dimension is near 1, so that noise often leaves [0, 1] there alone."""
    torch.manual_seed(7)
    z = pre_activation(torch.tensor([0.95, 0.5]).expand(2000, 2)).T[None]
    mixed = {}
    for accept in ("element", "vector"):
        fsp = FSP({16: (4, 4)}, quantise_probability=0, accept=accept).train()
        out = fsp(z)
        assert float((out.z_q * UNIFORM_STD).abs().max()) <= 0.5 + 1e-6
        moved = (out.z_q - fsp.target(z)).abs() > 1e-6
        mixed[accept] = float((moved[:, 0] != moved[:, 1]).float().mean())
        share = 0.5 + 0.05 * 4  # of the proposals that stay inside
        expected = share if accept == "vector" else (share + 1) / 2
        assert float(out.stats["accept_rate"]) == pytest.approx(expected, abs=0.03)
    assert mixed["element"] > 0.2
    assert mixed["vector"] < 0.01


@pytest.mark.parametrize("levels", [3, 5, 8])
def test_midpoints_of_equal_cells_reach_the_uniform_optimum_and_fsq_does_not(levels: int) -> None:
    u = uniform()
    fsp = FSP({levels: (levels,)}).eval()
    quantised = (fsp(u_to_grid(u)).z_q * UNIFORM_STD + 0.5)[0, 0]
    error = float((quantised - u[:, 0]).square().mean())
    assert error == pytest.approx(1 / (12 * levels**2), rel=0.01)
    counts = fsp.encode(u_to_grid(u)).flatten().bincount(minlength=levels)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    # FSQ's symmetric form: half cells at both ends.
    rounded = ((levels - 1) * u).round() / (levels - 1)
    assert float((rounded - u).square().mean()) / error == pytest.approx(
        (levels / (levels - 1)) ** 2, rel=0.02
    )
    assert (
        stats.chisquare(((levels - 1) * u).round().long().flatten().bincount().numpy()).pvalue
        < 1e-3
    )


@pytest.mark.parametrize("quantise", [0.0, 1.0])
def test_the_gradient_is_the_identity_in_u_scaled_to_unit_variance(quantise: float) -> None:
    fsp = FSP({4: (4,)}, quantise_probability=quantise).train()
    a = torch.randn(1, 1, 100).requires_grad_(True)
    (gradient,) = torch.autograd.grad(fsp(a).z_q.sum(), a)
    (slope,) = torch.autograd.grad(((torch.tanh(a) + 1) / 2).sum(), a)
    assert torch.allclose(gradient, slope / UNIFORM_STD, rtol=1e-5)
    assert pytest.approx(0.288675, abs=1e-6) == UNIFORM_STD


def test_quantisation_is_monotone() -> None:
    a = torch.linspace(-5, 5, 1001)[None, None]
    for name in ACTIVATIONS:
        assert (FSP({7: (7,)}, activation=name).eval()(a).z_q.diff() >= 0).all(), name


def test_the_target_variance_makes_the_activation_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    logistic = torch.logit(torch.rand(N, generator=generator).clamp(1e-6, 1 - 1e-6))
    unit = {
        "tanh": logistic / 2,
        "sigmoid": logistic,
        "normal": torch.randn(N, generator=generator),
        "laplace": torch.from_numpy(stats.laplace.rvs(size=N, random_state=0)).float(),
    }
    for name, sample in unit.items():
        target = ACTIVATIONS[name].variance
        assert target is not None
        assert float(sample.var()) == pytest.approx(target, rel=0.02), name
        assert is_uniform(ACTIVATIONS[name].forward(sample)), name
        # Negative control: 10 % too wide.
        assert not is_uniform(ACTIVATIONS[name].forward(1.1 * sample)), name


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_their_distributions_and_have_a_gradient_at_zero(name: str) -> None:
    distribution = {
        "tanh": stats.logistic(scale=0.5),
        "sigmoid": stats.logistic,
        "normal": stats.norm,
        "laplace": stats.laplace,
        "cauchy": stats.cauchy,
    }[name]
    a = torch.linspace(-5, 5, 101)
    activation = ACTIVATIONS[name]
    assert np.allclose(activation.forward(a), distribution.cdf(a.numpy()), atol=1e-6)
    zero = torch.zeros(1, requires_grad=True)
    assert activation.forward(zero).item() == 0.5
    assert torch.autograd.grad(activation.forward(zero), zero)[0].item() > 0.1


def test_moments_loss_is_zero_at_the_target_and_pulls_back() -> None:
    fsp = FSP().train()
    a = torch.randn(64, 5, 500, generator=torch.Generator().manual_seed(0)) * sqrt(pi**2 / 12)
    losses = fsp(a).losses
    assert losses["mean"] < 1e-4
    assert losses["variance"] < 1e-3
    assert fsp(a + 1).losses["mean"] == pytest.approx(1, rel=0.02)
    assert fsp(2 * a).losses["variance"] > 1


def test_a_cauchy_variable_has_no_moments_to_hold() -> None:
    a = torch.from_numpy(stats.cauchy.rvs(size=(1, 5, N), random_state=0)).float()
    fsp = FSP(activation="cauchy").train()
    assert fsp(a + 1).losses == {"mean": 0, "variance": 0}
    assert is_uniform(ACTIVATIONS["cauchy"].forward(a[0, 0]))
    # Negative controls: another width, and another activation's moments.
    assert not is_uniform(ACTIVATIONS["cauchy"].forward(1.1 * a[0, 0]))
    assert FSP().train()(a).losses["variance"] > 1


def test_a_size_per_sample_is_that_size_for_that_sample() -> None:
    fsp = FSP(quantise_probability=1.0).train()
    a = torch.randn(4, 5, 300)
    sizes = torch.tensor([256, 16384, 1024, 4096])
    together = fsp(a, sizes).z_q
    for row, size in enumerate(sizes.tolist()):
        assert torch.equal(together[row], fsp(a[row : row + 1], size).z_q[0])
    with pytest.raises(ValueError):
        fsp(a, torch.tensor([256, 16384, 1024, 4097]))


@pytest.mark.parametrize("levels", [{}, {4: (4,), 8: (4, 2)}, {4: (0, 4)}])
def test_bad_levels_are_refused(levels: dict[int, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="levels are lists of one common length"):
        FSP(levels)


def test_no_levels_are_the_paper_s() -> None:
    assert FSP(None).codebook_sizes == tuple(LEVELS)


@pytest.mark.parametrize("levels", [(8, 8, 8, 6, 5), (4, 4, 4, 4, 4), (7, 5, 5, 5, 5)])
def test_against_vector_quantize_pytorch(levels: tuple[int, ...]) -> None:
    """The FSP of vector-quantize-pytorch 1.32, by the paper's author, on 10^6 vectors."""
    module = pytest.importorskip(
        "vector_quantize_pytorch", reason="the oracle is in the extra [dev]"
    )
    oracle = module.FSP(list(levels)).eval()
    ours = FSP({prod(levels): levels}).eval()
    z = torch.randn(1, len(levels), 10**6, generator=torch.Generator().manual_seed(0))
    theirs = oracle(z.movedim(1, -1))
    assert torch.equal(ours.encode(z)[0, 0], theirs[1].reshape(-1).long())
    assert torch.allclose(ours(z).z_q.movedim(1, -1), theirs[0], atol=1e-6)


def test_levels_come_from_json_with_keys_that_are_text() -> None:
    fsp = FSP({"256": (4, 4, 4, 4), "1024": (4, 8, 8, 4), "64": (2, 2, 4, 4)})  # type: ignore[dict-item]
    assert fsp.codebook_sizes == (64, 256, 1024)
