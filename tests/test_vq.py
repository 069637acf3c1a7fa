"""VQ and its parts: where gradients go, what each part does to the codes, and the faults of public
code they avoid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.bottleneck import BottleneckOutput, to_grid, to_tokens
from codec.bottlenecks import codebooks
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import batch_perplexity, perplexity
from codec.bottlenecks.codebooks import (
    Affine,
    Alternating,
    ByAverage,
    ByGradient,
    Codebook,
    Restart,
    inner_gradients,
    plain,
    unit,
)
from codec.bottlenecks.vq import VQ

SIZE, DIM = 12, 4
Rows = Callable[[Tensor], Tensor]


def small(**parts: object) -> VQ:
    torch.manual_seed(0)
    method = VQ(DIM, (SIZE,), **parts)  # type: ignore[arg-type]
    book(method).start(torch.randn(SIZE, DIM))
    return method.train()


def book(method: VQ, size: int = SIZE) -> Codebook:
    found = method.books[str(size)]
    assert isinstance(found, Codebook)
    return found


def latents(count: int = 200, seed: int = 1, channels: int = DIM) -> Tensor:
    """(1, channels, count)."""
    return torch.randn(1, channels, count, generator=torch.Generator().manual_seed(seed))


# -- the plain method


def test_the_table_starts_as_published() -> None:
    codes = VQ(8, (256,)).codebook()
    assert float(codes.detach().abs().max()) <= 1 / 256
    assert float(codes.detach().std()) == pytest.approx(1 / 256 / 3**0.5, rel=0.1)


def test_choice_is_the_direct_double_loop() -> None:
    for method, rows in ((small(), plain), (small(geometry=unit), unit)):
        points, codes = (
            rows(x).double() for x in (to_tokens(latents()), book(method).table.detach())
        )
        direct = torch.tensor(
            [
                min(range(SIZE), key=lambda c, z=z: float((z - codes[c]).square().sum()))
                for z in points
            ]
        )
        assert torch.equal(method.encode(latents()).flatten(), direct)
        cosine = (F.normalize(points) @ F.normalize(codes).T).argmax(1)
        assert torch.equal(cosine, direct) == (rows is unit)


def test_the_task_gradient_is_that_of_z_q_and_never_reaches_the_codes() -> None:
    method, z = small(), latents().requires_grad_()
    out = method(z)
    cotangent = torch.randn_like(z)
    table = book(method).table
    to_z, to_table = torch.autograd.grad((out.z_q * cotangent).sum(), [z, table], allow_unused=True)
    assert torch.equal(to_z, cotangent)
    assert to_table is None


Loss = Callable[[BottleneckOutput], Tensor]


def moves(loss: Loss) -> tuple[float, float]:
    """Gradient norms of a loss to z and to the codes."""
    method, z = small(), latents().requires_grad_()
    gradients = torch.autograd.grad(loss(method(z)), [z, book(method).table], allow_unused=True)
    first, second = (0.0 if g is None else float(g.norm()) for g in gradients)
    return first, second


def classical_weights(combine: Loss) -> bool:
    """In L = |sg z - mu|^2 + 0.25 |z - sg mu|^2 it is z that the 0.25 slows."""
    whole = moves(lambda out: out.losses["codebook"] + out.losses["commitment"])
    z, codes = moves(combine)
    return z == pytest.approx(0.25 * whole[0]) and codes == pytest.approx(whole[1])


def test_beta_weights_the_commitment() -> None:
    assert moves(lambda out: out.losses["codebook"])[0] == 0
    assert moves(lambda out: out.losses["commitment"])[1] == 0
    assert classical_weights(lambda out: out.losses["codebook"] + 0.25 * out.losses["commitment"])
    # taming-transformers, legacy=True, its default
    assert not classical_weights(
        lambda out: 0.25 * out.losses["codebook"] + out.losses["commitment"]
    )


def test_losses_are_means_over_elements() -> None:
    method = small()
    out = method(latents())
    assert out.indices is not None
    expected = (latents() - method.decode(out.indices)).square().mean()
    for value in out.losses.values():
        assert torch.allclose(value, expected)


def test_each_size_has_its_own_codebook_and_k_means_starts_them_once() -> None:
    torch.manual_seed(0)
    method = VQ(DIM, (8, 32))
    points = 5 * torch.randn(8, DIM).repeat(50, 1) + 0.01 * torch.randn(400, DIM)
    method.fit(points)
    for size in (8, 32):
        distance = (points - method.decode(method.encode(points.T[None], size), size)[0].T).norm(
            dim=1
        )
        assert float(distance.detach().max()) < 0.1
    state = {k: v.clone() for k, v in method.state_dict().items()}
    method.fit(torch.randn(400, DIM))
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items())
    for bad in (torch.randn(5, 3), torch.zeros(0, DIM), torch.full((4, DIM), torch.nan)):
        with pytest.raises(ValueError, match="fit needs"):
            method.fit(bad)


def test_perplexity() -> None:
    assert float(perplexity(torch.full((8,), 1 / 8))) == pytest.approx(8)
    assert float(batch_perplexity(torch.zeros(5, dtype=torch.int64), 8)) == pytest.approx(1)
    assert float(batch_perplexity(torch.arange(4).repeat(3, 1), 8)) == pytest.approx(4)


# -- l2


def decodes_unit_vectors(method: VQ) -> bool:
    return torch.allclose(method.decode(method.encode(latents())).norm(dim=1), torch.ones(1, 200))


def test_l2_searches_decodes_and_compares_on_the_sphere() -> None:
    method = small(geometry=unit)
    assert decodes_unit_vectors(method)
    assert not decodes_unit_vectors(small())  # DAC searches on the sphere and hands on the raw code
    z = latents().requires_grad_()
    out = method(z)
    on_sphere = to_grid(unit(to_tokens(z)), z)
    assert torch.allclose(out.losses["commitment"], F.mse_loss(on_sphere, out.z_q))
    assert torch.equal(method.encode(7 * latents()), method.encode(latents()))
    (gradient,) = torch.autograd.grad((out.z_q * torch.randn_like(z)).sum(), z)
    # None along z itself.
    assert torch.allclose((gradient * z).sum(1), torch.zeros(1, 200), atol=1e-5)
    assert torch.isfinite(unit(torch.zeros(1, 3))).all()


# -- EMA


def first_step_leaves_unused_codes(counts: float, sums: float) -> bool:
    method = small(update=ByAverage)
    update = book(method).update
    assert isinstance(update, ByAverage)
    update.counts.mul_(counts)
    update.sums.mul_(sums)
    before = book(method).table.clone()
    used = method(latents(1)).indices.unique()
    unused = torch.ones(SIZE, dtype=torch.bool)
    unused[used] = False
    return torch.allclose(book(method).table[unused], before[unused], rtol=1e-3, atol=1e-3)


def test_averages_start_at_one_count() -> None:
    assert first_step_leaves_unused_codes(1, 1)
    # Taming: counts of 0 under sums at the codes; they explode.
    assert not first_step_leaves_unused_codes(0, 1)


def test_averages_without_memory_are_batch_means_and_counts_approach_n() -> None:
    method = small(update=partial(ByAverage, decay=0.0))
    out = method(latents())
    for c in out.indices.unique():
        mean = to_tokens(latents())[out.indices.flatten() == c].mean(0)
        assert torch.allclose(book(method).table[c], mean, atol=1e-4)
    method = small(update=partial(ByAverage, decay=0.5))
    for _ in range(30):
        method(latents())
    update = book(method).update
    assert isinstance(update, ByAverage)
    assert float(update.counts.sum()) == pytest.approx(200, rel=1e-3)


def test_averages_take_no_gradient() -> None:
    method = small(update=ByAverage)
    assert not list(method.parameters())
    assert set(method(latents()).losses) == {"commitment"}


# -- affine


def test_affine_codes_follow_a_global_scale_and_shift_with_the_table_frozen() -> None:
    method = small(affine=Affine)
    book(method).table.requires_grad_(False)
    moved = (1.3 * book(method).table.detach() + torch.tensor([0.5, -0.5, 0.2, 0.0])).T[None]
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss = method(moved).losses["codebook"]
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.001


def one_token_moves_all_codes(**parts: object) -> bool:
    method = small(**parts)
    before = method.codebook().detach().clone()
    optimiser = torch.optim.SGD(method.parameters(), 0.1)
    method(latents(1)).losses["codebook"].backward()
    optimiser.step()
    return bool((method.codebook() != before).all())


def test_affine_moves_all_codes() -> None:
    assert one_token_moves_all_codes(affine=Affine)
    assert not one_token_moves_all_codes()


def test_affine_search_and_gather_use_the_same_codes() -> None:
    method = small(affine=Affine)
    affine = book(method).affine
    assert affine is not None
    with torch.no_grad():
        affine.gain.uniform_(-0.3, 0.3)
        affine.shift.normal_()
    mapped = (1 + 2 * affine.gain) * book(method).table + 2 * affine.shift
    assert torch.equal(method.codebook(), mapped)
    z, indices = latents(), method.encode(latents())
    best = torch.cdist(to_tokens(z), mapped).square().min(1).values.sum()

    def is_best(chosen: Tensor) -> bool:
        return torch.allclose((method.decode(chosen) - z).square().sum(), best, rtol=1e-4)

    assert is_best(indices)
    # Searched in the raw table.
    assert not is_best(to_grid(nearest(to_tokens(z), book(method).table)[:, None], z))
    assert torch.allclose(affine.inverse(affine(mapped)), mapped, atol=1e-5)


# -- OPT


def distance(method: VQ, z: Tensor, indices: Tensor) -> float:
    return float((method.decode(indices) - z).square().mean().detach())


@pytest.mark.parametrize("parts", [{}, {"affine": Affine}])
def test_the_inner_step_comes_first_and_brings_the_codes_closer(parts: dict[str, object]) -> None:
    method, z = small(update=Alternating, **parts), latents().requires_grad_()
    indices = method.encode(z)
    before = distance(method, z, indices)
    out = method(z)
    assert torch.equal(out.indices, indices)  # the codes that were chosen before the step...
    assert torch.equal(out.z_q, method.decode(indices))  # ...with the values after it
    assert distance(method, z, indices) < before
    target = torch.randn_like(z)
    (gradient,) = torch.autograd.grad((out.z_q - target).square().sum(), z)
    assert torch.allclose(gradient, 2 * (method.decode(indices) - target))
    assert all(not p.requires_grad for p in method.parameters())


def decodes_new_codes(update: Callable[[int, int], ByGradient]) -> bool:
    method = small(update=update)
    out = method(latents())
    return torch.equal(out.z_q, method.decode(out.indices))


def test_codes_first_then_network() -> None:
    class NetworkFirst(Alternating):
        codes_first = False

    assert decodes_new_codes(Alternating)
    assert not decodes_new_codes(NetworkFirst)


Gradients = Callable[[Codebook, Tensor, Tensor], list[tuple[Tensor, Tensor]]]


def are_the_gradients_of_autograd(candidate: Gradients, with_affine: bool) -> bool:
    torch.manual_seed(0)
    affine = Affine(DIM, 1.5) if with_affine else None
    codes = Codebook(0.5 * torch.randn(SIZE, DIM), plain, ByGradient(SIZE, DIM), affine)
    if affine is not None:
        affine.gain.data.normal_(0, 0.2)
        affine.shift.data.normal_(0, 0.2)
    points, indices = torch.randn(50, DIM), torch.randint(SIZE, (50,))
    truth = torch.autograd.grad((codes(indices) - points).square().mean(), list(codes.parameters()))
    with torch.no_grad():
        found = [gradient for gradient, _ in candidate(codes, points, indices)]
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, truth, strict=True))


@pytest.mark.parametrize("with_affine", [True, False])
def test_the_inner_gradient_is_right(with_affine: bool) -> None:
    assert are_the_gradients_of_autograd(inner_gradients, with_affine)
    assert not are_the_gradients_of_autograd(
        lambda *a: [(2 * g, c) for g, c in inner_gradients(*a)], with_affine
    )


def inner_loss_after(steps: int, rate: float, dim: int, scale: float = 3.0) -> float:
    """|mu - z|^2 over z's variance, where half of the tokens choose one of two codes."""
    torch.manual_seed(0)
    method = VQ(dim, (2,), update=partial(Alternating, rate=rate), affine=Affine).train()
    z = scale * torch.randn(1, dim, 100)
    method.fit(z[0].T)
    error = 0.0
    for _ in range(steps):
        if error < 10:
            error = float((method(z).z_q - z).square().mean() / z.var())
    return error


def test_the_inner_rate_suits_few_dimensions_and_large_latents() -> None:
    for dim in (2, 8, 32):
        assert inner_loss_after(20, 50 / 64, dim) < 1.5
    assert not inner_loss_after(20, 50 / 8, 8) < 1.5  # the published 50, whatever L


def test_the_inner_rate_suits_codes_near_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are before `fit`, or where the gain has taken them there."""

    def stays_stable(scale: float) -> bool:
        torch.manual_seed(0)
        method = VQ(4, (2,), update=Alternating, affine=Affine).train()
        z = scale * torch.randn(1, 4, 400)
        errors = [float((method(z).z_q - z).square().mean() / z.var()) for _ in range(40)]
        return errors[-1] < 2

    def unbounded(gain: bool) -> Gradients:
        def gradients(
            codes: Codebook, points: Tensor, indices: Tensor
        ) -> list[tuple[Tensor, Tensor]]:
            (first, slope), (second, bend), shift = inner_gradients(codes, points, indices)
            assert codes.affine is not None
            a = codes.affine.scale
            if gain:
                bend = 2 * a**2 * codes.table[indices].square().mean(0)
            else:
                slope = (1 + a * codes.affine.gain).square()
            return [(first, slope), (second, bend), shift]

        return gradients

    assert stays_stable(0.1)
    assert stays_stable(3)
    for gain in (True, False):
        monkeypatch.setattr(codebooks, "inner_gradients", unbounded(gain))
        assert not stays_stable(3)


def test_the_inner_step_is_sgd_with_momentum() -> None:
    method = small(update=Alternating)
    table = book(method).table.clone().requires_grad_()
    optimiser = torch.optim.SGD([table], 50 / 64 * DIM, momentum=0.9)
    for seed in range(5):
        z = latents(seed=seed)
        indices = method(z).indices.flatten()
        optimiser.zero_grad()
        (table[indices] - to_tokens(z)).square().mean().backward()
        optimiser.step()
    assert torch.allclose(book(method).table, table.detach(), atol=1e-5)


# -- restart


def one_code_forgotten(**parts: object) -> VQ:
    """A codebook whose last code is too far away to be used.

    The others are, by every batch of latents.
    """
    method = small(restart=Restart, **parts)
    with torch.no_grad():
        book(method).table.mul_(0.3)
        book(method).table[-1] = 100.0
    assert len(method.encode(latents()).unique()) == SIZE - 1
    return method


def test_a_dead_code_becomes_a_noisy_point_and_no_other_moves() -> None:
    method = one_code_forgotten()
    first = book(method).table.detach().clone()
    z = latents()
    for _ in range(19):
        assert float(method(z).stats["restarted"]) == 0
    assert torch.equal(book(method).table, first)
    assert float(method(z).stats["restarted"]) == 1
    last = book(method).table[-1].detach()
    distances = (to_tokens(z) - last).norm(dim=1)
    closest = distances.argmin()
    assert 0 < float(distances[closest]) < 2 * 0.01 * float(to_tokens(z)[closest].norm()) * DIM**0.5
    assert torch.equal(book(method).table[:-1], first[:-1])
    assert (method.encode(z) == SIZE - 1).any()


def survives_the_next_step(update: type[ByAverage]) -> bool:
    method = one_code_forgotten(update=update)
    update_ = book(method).update
    assert isinstance(update_, ByAverage)
    update_.sums[-1] = 100.0
    for _ in range(20):
        method(latents())
    placed = book(method).table[-1].clone()
    method(100 + latents(3))  # one that does not choose it
    return torch.allclose(book(method).table[-1], placed, atol=0.05)


def test_a_restarted_code_of_averages_keeps_its_place() -> None:
    class EnCodec(ByAverage):
        """Replaces the codebook only; the next step makes it again from the old average."""

        def restart(self, rows: Tensor, codes: Tensor) -> None: ...

    assert survives_the_next_step(ByAverage)
    assert not survives_the_next_step(EnCodec)


def test_a_restarted_code_has_no_velocity() -> None:
    method = one_code_forgotten(update=Alternating)
    update = book(method).update
    assert isinstance(update, Alternating)
    update.velocity[-1] = 1e-3
    for _ in range(20):
        method(latents())
    assert float(update.velocity[-1].abs().max()) == 0


def test_restart_on_the_sphere_behind_an_affine_map_and_with_few_points() -> None:
    method = small(geometry=unit, restart=Restart)
    with torch.no_grad():
        book(method).table.copy_(-torch.ones(SIZE, DIM) + 0.01 * torch.randn(SIZE, DIM))
        book(method).table[0] = 1.0
    z = 3 + 0.1 * latents(5)
    for _ in range(20):
        method(z)
    assert torch.allclose(book(method).table[1:].norm(dim=1), torch.ones(SIZE - 1), atol=1e-5)
    method = small(restart=partial(Restart, patience=1), affine=Affine)
    book(method).affine.shift.data.fill_(5.0)  # type: ignore[union-attr]
    replaced = method(latents(2)).stats["restarted"]
    assert float(replaced) >= SIZE - 2
    near = torch.cdist(method.codebook(), to_tokens(latents(2))).min(1).values
    assert int((near < 0.2).sum()) >= float(replaced)


def test_backward_passes_after_the_table_was_written() -> None:
    for parts in ({"geometry": unit}, {"affine": Affine}):
        method = small(restart=partial(Restart, patience=1), **parts)
        z = latents(5).requires_grad_()
        out = method(z)
        assert float(out.stats["restarted"]) > 0
        (out.z_q.sum() + sum(out.losses.values())).backward()
        assert all(p.grad is not None for p in method.parameters())


# -- state and arguments


def test_training_state_is_what_only_training_needs() -> None:
    method = small(update=ByAverage, restart=Restart)
    state = set(method.state_dict())
    needed = state - set(method.training_state)
    assert needed == {f"books.{SIZE}.table", "fitted"}
    assert {name.rpartition(".")[2] for name in method.training_state} == {"counts", "sums", "idle"}
    method = small(update=Alternating, affine=Affine)
    assert {name.rpartition(".")[2] for name in method.training_state} == {
        "velocity",
        "affine_velocity",
    }
    assert all(name in method.state_dict() for name in method.training_state)
    resumed = small(update=Alternating, affine=Affine)
    method(latents())
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(method(latents(seed=2)).z_q, resumed(latents(seed=2)).z_q)


def test_parts_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="affine"):
        VQ(4, (8,), update=ByAverage, affine=Affine)
    with pytest.raises(ValueError, match="plain"):
        VQ(4, (8,), update=Alternating, geometry=unit)
    with pytest.raises(ValueError, match="not finite"):
        small()(torch.full((1, DIM, 3), torch.nan))


# -- against vector-quantize-pytorch


def oracle(method: VQ, **options: object) -> object:
    library = pytest.importorskip("vector_quantize_pytorch")
    other = library.VectorQuantize(
        DIM, SIZE, rotation_trick=False, commitment_weight=1.0, **options
    )
    codes = method.codebook().detach()[None].clone()
    other._codebook.embed.data.copy_(codes)
    other._codebook.embed_avg.data.copy_(codes)
    return other.train()


def test_oracle_by_gradient() -> None:
    method = small()
    other = oracle(method, learnable_codebook=True, ema_update=False)
    z, x = latents().requires_grad_(), latents().mT.requires_grad_()
    out, (value, indices, loss) = method(z), other(x)  # type: ignore[operator]
    assert torch.equal(out.indices[:, 0], indices)
    assert torch.allclose(out.z_q.mT, value, atol=1e-6)
    (out.z_q.square().sum() + out.losses["codebook"] + out.losses["commitment"]).backward()
    (value.square().sum() + loss.sum()).backward()
    assert torch.allclose(z.grad.mT, x.grad, atol=1e-5)
    assert torch.allclose(book(method).table.grad, other._codebook.embed.grad[0], atol=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("geometry", [plain, unit])
def test_oracle_of_averages(geometry: Rows) -> None:
    method = small(geometry=geometry, update=ByAverage)
    book(method).start(geometry(book(method).table.clone()))
    other = oracle(method, decay=0.99, use_cosine_sim=geometry is unit)
    for seed in range(5):
        out, (value, indices, loss) = method(latents(seed=seed)), other(latents(seed=seed).mT)  # type: ignore[operator]
        assert torch.equal(out.indices[:, 0], indices)
        assert torch.allclose(out.z_q.mT, value, atol=1e-5)
        assert torch.allclose(out.losses["commitment"], loss.sum(), rtol=1e-5)
        assert torch.allclose(method.codebook(), other._codebook.embed[0], atol=1e-5)  # type: ignore[attr-defined]


def test_fit_gives_codes_whatever_the_affine_map_is() -> None:
    points = latents(500)

    def error(shift: float, through_the_map: bool = True) -> float:
        method = VQ(DIM, (SIZE,), affine=Affine).train()
        affine = book(method).affine
        assert affine is not None
        with torch.no_grad():
            affine.gain.fill_(2)
            affine.shift.fill_(shift)
        method.fit(to_tokens(points))
        if not through_the_map:  # negative control: codes written as they are
            with torch.no_grad():
                book(method).table.copy_(method.codebook())
        return float((method.eval()(points).z_q - points).square().mean().detach())

    assert error(5) == pytest.approx(error(0), rel=1e-3)
    assert error(5, through_the_map=False) > 10 * error(5)
