"""Grouped and Residual: that they are their parts, what the sum of stages does to gradients, and
what they refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from codec.bottleneck import BottleneckOutput
from codec.bottlenecks import BOTTLENECKS, FSQ, GMVQ, VP, VQ, Grouped, GumbelVQ, Residual, SimVQ
from codec.bottlenecks.__main__ import main
from codec.bottlenecks.codebooks import ByAverage

DIM, SIZE, STAGES = 4, 16, 3


def latents(channels: int = DIM, count: int = 400) -> Tensor:
    return torch.randn(2, channels, count, generator=torch.Generator().manual_seed(1))


def rows(z: Tensor) -> Tensor:
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def vq(size: int) -> VQ:
    return VQ(DIM, (size,))


def residual(build: Callable[[int], VQ | VP | SimVQ] = vq, stages: int = STAGES) -> Residual:
    torch.manual_seed(0)
    method = Residual(build, (8, SIZE), stages)
    method.fit(rows(latents()))
    return method


# -- Grouped


def test_groups_are_independent() -> None:
    torch.manual_seed(0)
    groups = [VQ(3, (8, SIZE)), GMVQ(2, (8, SIZE))]
    method = Grouped(groups).eval()
    method.fit(torch.randn(500, 7))
    assert (method.dim, method.in_dim, method.num_codebooks) == (5, 7, 2)
    z = latents(7)
    first, second = z[:, :3], z[:, 3:]  # GM-VQ's two points, then its two weights
    assert torch.equal(
        method.encode(z, 8), torch.cat([groups[0].encode(first, 8), groups[1].encode(second, 8)], 1)
    )
    out, alone = method(z, 8), [groups[0](first, 8), groups[1](second, 8)]
    assert torch.equal(out.z_q, torch.cat([o.z_q for o in alone], 1))
    other = torch.cat([first, second + 1], 1)
    assert torch.equal(method.encode(other, 8)[:, 0], method.encode(z, 8)[:, 0])


def test_points_of_all_groups_come_before_what_else_they_want() -> None:
    method = Grouped([GMVQ(2, (8,)), GMVQ(3, (8,))]).eval()
    z = latents(10)
    weights_changed = torch.cat([z[:, :5], z[:, 5:] + 1], 1)
    assert torch.equal(method.decode(method.encode(z)), method(z).z_q)
    assert torch.equal(
        torch.autograd.grad(method(z.requires_grad_()).z_q.sum(), z)[0][:, 5:],
        torch.zeros(2, 5, 400),
    )
    assert not torch.equal(method.encode(weights_changed), method.encode(z.detach()))


def test_losses_of_groups_are_means_so_that_weights_do_not_depend_on_their_number() -> None:
    torch.manual_seed(0)
    one, z = VQ(2, (SIZE,)).train(), latents(2)
    alone = one(z).losses
    both = Grouped([one, one]).train()(torch.cat([z, z], 1))
    for name, value in alone.items():
        assert torch.allclose(both.losses[name], value)
    assert set(both.stats) == {"perplexity.0", "perplexity.1"}


def test_groups_without_codebooks_take_a_size_for_each_sample() -> None:
    table = {4: (2, 2), 16: (4, 4)}
    method = Grouped([FSQ(table), FSQ(table)]).train()
    assert not method.coupled
    out = method(latents(4), torch.tensor([4, 16]))
    assert out.indices is None
    assert torch.equal(out.z_q[:1], method.eval()(latents(4)[:1], 4).z_q)
    assert Grouped([FSQ(table), VQ(2, (4, 16))]).coupled


def test_training_state_is_named_through_the_wrapper() -> None:
    grouped = Grouped([VQ(2, (8,), update=ByAverage), VP(2, (8,), reference_size=8)])
    for method in (grouped, residual(lambda k: VQ(DIM, (k,), update=ByAverage))):
        assert method.training_state
        assert set(method.training_state) <= {name for name, _ in method.named_buffers()}
        assert all("counts" in n or "sums" in n or "queue" in n for n in method.training_state)


# -- Residual


def test_decode_is_the_sum_of_stages_and_each_stage_lowers_the_error() -> None:
    method, z = residual().eval(), latents()
    for size in (8, SIZE):
        chain = method._chain(size)
        indices = method.encode(z, size)
        total, errors = torch.zeros_like(z), [float(z.square().mean())]
        for i, stage in enumerate(chain):
            assert torch.equal(indices[:, i : i + 1], stage.encode(z - total))
            total = total + stage.decode(indices[:, i : i + 1])
            errors.append(float((z - total).square().mean().detach()))
        assert torch.equal(method.decode(indices, size), total)
        assert all(after < 0.8 * before for before, after in pairwise(errors))


@torch.no_grad()
def test_the_first_stages_decode_alone() -> None:
    method = residual()
    z = latents()
    indices = method.encode(z, SIZE)
    assert method.row_counts == (1, 2, 3)
    chain = method._chain(SIZE)
    total, errors = torch.zeros_like(z), []
    for count, stage in enumerate(chain, 1):
        total = total + stage.decode(indices[:, count - 1 : count])
        some = method.decode(indices[:, :count], SIZE)
        assert torch.equal(some, total)
        errors.append(float((z - some).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert not torch.equal(method.decode(indices[:, 1:], SIZE), some)  # not the first
    for wrong in (indices[:, :0], torch.cat([indices, indices[:, :1]], 1)):
        with pytest.raises(ValueError, match="1 or 2 or 3"):
            method.decode(wrong, SIZE)
    grouped = Grouped([vq(SIZE), vq(SIZE)])
    with pytest.raises(ValueError, match=r"want indices \(B, 2, "):
        grouped.decode(indices[:, :1], SIZE)


@torch.no_grad()
def later_stages_help(fit: Callable[[Residual, Tensor], None]) -> bool:
    torch.manual_seed(0)
    method = Residual(vq, (SIZE,), 2)
    z = latents() + 3  # residuals are elsewhere than points
    fit(method, rows(z))
    first, both = method._chain(SIZE)[0], method(z).z_q
    return float((z - both).square().mean()) < 0.8 * float(
        (z - first.decode(first.encode(z))).square().mean()
    )


def test_stages_are_fitted_to_what_is_left() -> None:
    def all_to_the_same(method: Residual, points: Tensor) -> None:
        for stage in method._chain(SIZE):
            stage.fit(points)

    assert later_stages_help(Residual.fit)
    assert not later_stages_help(all_to_the_same)


Run = Callable[[Residual, Tensor], BottleneckOutput]


def has_the_identity_gradient(run: Callable[[Residual, Tensor], Tensor]) -> bool:
    method, z = residual().train(), latents().requires_grad_()
    (gradient,) = torch.autograd.grad(run(method, z).sum(), z)
    return torch.allclose(gradient, torch.ones_like(z))


def sum_of_stages(method: Residual, z: Tensor) -> Tensor:
    """As EnCodec first summed them (its issue 25)."""
    total = torch.zeros_like(z)
    for stage in method._chain(None):
        total = total + stage(z - total.detach()).z_q
    return total


def test_the_gradient_to_z_does_not_grow_with_the_stages() -> None:
    assert has_the_identity_gradient(lambda method, z: method(z).z_q)
    assert not has_the_identity_gradient(sum_of_stages)


def test_every_codebook_gets_the_gradient_of_its_own_loss() -> None:
    method, z = residual().train(), latents()
    method(z).losses["codebook"].backward()
    total = torch.zeros_like(z)
    for stage in method._chain(None):
        assert isinstance(stage, VQ)
        (table,) = stage.parameters()
        alone = torch.autograd.grad(stage(z - total).losses["codebook"], table)[0]
        assert table.grad is not None
        assert torch.allclose(table.grad, alone)
        assert (alone != 0).any()
        total = total + stage.decode(stage.encode(z - total)).detach()


def test_pulls_on_z_are_the_mean_of_the_stages() -> None:
    method, z = residual().train(), latents().requires_grad_()
    (gradient,) = torch.autograd.grad(method(z).losses["commitment"], z)
    expected = torch.zeros_like(z)
    total = torch.zeros_like(z)
    for stage in method._chain(None):
        total = total + stage.decode(stage.encode(z - total)).detach()
        expected += 2 * (z.detach() - total) / z.numel() / STAGES
    assert torch.allclose(gradient, expected, atol=1e-7)


def test_vp_in_stages_ends_with_the_last_stage_s_smaller_step() -> None:
    def build(size: int) -> VP:
        return VP(DIM, (size,), rows_per_code=8, neighbours=4)

    method, z = residual(build).train(), latents()
    for _ in range(3):
        out = method(z, SIZE)
    assert out.indices is None
    first, last = out.stats["radius.0"], out.stats[f"radius.{STAGES - 1}"]
    assert 0 < float(last) < 0.7 * float(first)
    assert float((out.z_q - z).norm(dim=1).mean()) < float(first)
    (gradient,) = torch.autograd.grad(method(z.requires_grad_(), SIZE).z_q.sum(), z)
    assert torch.allclose(gradient, torch.ones_like(z))


def test_temperatures_reach_all_parts() -> None:
    grouped = Grouped([GumbelVQ(2, (8,)), GumbelVQ(2, (8,))])
    staged = Residual(lambda k: GumbelVQ(2, (k,)), (8,), 2)
    for method in (grouped, staged):
        method.anneal(1.0)
        taus = [b for name, b in method.named_buffers() if name.endswith("tau")]
        assert len(taus) == 2
        assert all(float(tau) == 1 / 16 for tau in taus)


# -- what is refused


def test_wrong_parts() -> None:
    with pytest.raises(ValueError, match="same codebook sizes"):
        Grouped([VQ(2, (8,)), VQ(2, (16,))])
    with pytest.raises(ValueError, match="same codebook sizes"):
        Grouped([])
    with pytest.raises(ValueError, match="at least as many"):
        Grouped([GumbelVQ(4, (8,), in_dim=2)])
    with pytest.raises(ValueError, match="one size"):
        Residual(lambda k: GMVQ(2, (k,)), (8,), 2)
    with pytest.raises(ValueError, match="one size"):
        Residual(lambda _: VQ(2, (8, 16)), (8,), 2)
    with pytest.raises(ValueError, match="num_stages is a whole number from 1 on"):
        Residual(vq, (8,), 0)
    with pytest.raises(ValueError, match="fit needs"):
        Grouped([VQ(2, (8,))]).fit(torch.zeros(5, 3))


def test_registered_wrappers_pass_their_options_on() -> None:
    method = BOTTLENECKS["residual"](method="simvq", num_stages=2, dim=3, codebook_sizes=[8, 16])
    assert (method.dim, method.codebook_sizes, method.num_codebooks) == (3, (8, 16), 2)
    method = BOTTLENECKS["grouped"](method="residual", num_groups=2, num_stages=3, dim=3)
    assert (method.dim, method.codebook_sizes, method.num_codebooks) == (6, (1024,), 6)


# -- the table


def test_the_table_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["name", "D", "learnt"]
    assert [line.split()[0] for line in lines] == list(BOTTLENECKS)
    for column in ("method", "paper"):
        assert all(line[head.index(column) :].strip() for line in lines)
    cells = {line.split()[0]: line.split()[1:] for line in lines}
    assert cells["vq"][:4] == ["64", "65,536", "1", "each"]  # the flag `fitted` is state
    assert cells["simvq"][:4] == ["64", "4,160", "65,536", "each"]
    assert cells["fsp"][:4] == ["5", "0", "0", "all"]
