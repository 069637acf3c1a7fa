"""What the recipe's numbers do in a step: rates, decays, weights and limits, worked out by hand."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from codec.bottlenecks import BOTTLENECKS
from codec.errors import CodecError
from codec.losses import EXTRA_LOSSES
from train import losses, recipes
from train.draws import Draws
from train.learner import Learner
from train.optimiser import guarded_step, make_optimiser, restore

CROP = (3, 32, 32)


def learner(*changes: str, name: str = "image-fsp") -> Learner:
    torch.manual_seed(0)
    return Learner(recipes.load(name, ["data.batch=4", "data.crop=[32, 32]", *changes]), "cpu")


def prepared(one: Learner, progress: float = 0.0, step: int = 0) -> int | None:
    x = torch.rand(4, *CROP, generator=torch.Generator().manual_seed(1))
    return one.prepare(progress, step, Draws(0, "cpu"), x)


def stepped(one: Learner) -> dict[str, float]:
    size = prepared(one)
    values = one.step(losses.build("image", one.recipe.losses), size)
    return {name: float(value) for name, value in values.items()}


def test_the_learning_rate_rises_and_falls_along_a_cosine() -> None:
    one = learner(
        "optimiser.learning_rate=0.01", "optimiser.final_share=0.2", "optimiser.warmup_steps=10"
    )
    for progress, step, share in (
        (0.0, 0, 0.1),
        (0.0, 4, 0.5),
        (0.0, 9, 1.0),
        (0.5, 99, 0.6),
        (1.0, 99, 0.2),
    ):
        prepared(one, progress, step)
        assert float(one.inputs.rate) == pytest.approx(0.01 * share), (progress, step)


def test_weights_decay_and_biases_do_not() -> None:
    one = learner("optimiser.weight_decay=0.5")
    assert {
        (p.dim() > 1, group["weight_decay"])
        for group in one.optimiser.param_groups
        for p in group["params"]
    } == {(True, 0.5), (False, 0.0)}


def test_a_gradient_is_cut_to_the_recipes_norm() -> None:
    one = learner("optimiser.clip=0.01")
    assert stepped(one)["grad_norm"] > 0.02  # before
    grads = [p.grad for p in one.codec.parameters() if p.grad is not None]
    after = sqrt(sum(float(grad.square().sum()) for grad in grads))
    assert after == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan])
def test_a_step_whose_gradients_are_not_finite_is_none(wrong: float) -> None:
    module = nn.Linear(3, 1)
    optimiser = make_optimiser([{"params": module.parameters()}], torch.tensor(0.1), [0.9, 0.99])
    before = [p.detach().clone() for p in module.parameters()]
    module.weight.grad, module.bias.grad = torch.ones(1, 3), torch.ones(1)
    module.weight.grad[0, 1] = wrong
    guarded_step(optimiser, module, 1.0)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    module.weight.grad, module.bias.grad = torch.ones(1, 3), torch.ones(1)
    guarded_step(optimiser, module, 1.0)
    assert all(p.isfinite().all() for p in module.parameters())
    assert not torch.equal(module.weight, before[0])


def test_a_state_that_is_restored_leaves_rate_and_settings_as_they_are() -> None:
    """A recipe may change them in a run."""

    def made(rate: Tensor, betas: list[float], decay: float) -> torch.optim.AdamW:
        module = nn.Linear(3, 1)
        groups = [{"params": list(module.parameters()), "weight_decay": decay}]
        return make_optimiser(groups, rate, betas)

    rate = torch.tensor(0.5)
    state = made(torch.tensor(0.1), [0.5, 0.6], 0.25).state_dict()
    one = made(rate, [0.8, 0.9], 0.125)
    restore(one, state, rate)
    (group,) = one.param_groups
    assert group["lr"] is rate
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.9), 0.125)


def test_the_loss_is_its_terms_times_the_recipes_weights() -> None:
    """At one codebook size all samples weigh 1."""
    weights = {"l1": 2.0, "mse": 3.0, "ssim": 0.5, "mean": 7.0, "variance": 0.25}
    one = learner(
        "codec.options={levels={256=[4, 4, 4, 2, 2]}}",
        f"losses={{{', '.join(f'{name}={value}' for name, value in weights.items())}}}",
    )
    values = stepped(one)
    assert min(values[name] for name in weights) > 0
    terms = {name: weight * values[name] for name, weight in weights.items()}
    assert values["loss"] == pytest.approx(sum(terms.values()), rel=1e-4)
    # Negative control: no term is too small to be missed.
    assert all(term > 1e-3 * values["loss"] for term in terms.values())


def test_each_size_has_the_same_say_in_a_step() -> None:
    """In the first step it is the mean over sizes of their means, however often each was drawn."""
    one = learner("losses={l1=1.0, mse=0.0, ssim=0.0, mean=0.0, variance=0.0}")
    values = stepped(one)
    drawn = one.inputs.member.sum(0)
    assert len(set(drawn[drawn > 0].tolist())) > 1  # else the plain mean would be the same
    assert values["loss"] == pytest.approx(float(one.size_losses[drawn > 0].mean()), rel=1e-4)
    assert values["loss"] != pytest.approx(values["l1"], rel=1e-4)


def test_temperatures_end_where_the_frozen_stage_begins() -> None:
    one = learner("stages={A=0.3, B=0.2, C=0.5}", name="image-gmvq")
    temperature = type(one.codec.bottleneck).temperature  # type: ignore[attr-defined]
    for progress, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0)):
        prepared(one, progress)
        assert float(one.codec.bottleneck.tau) == pytest.approx(temperature(share))  # type: ignore[arg-type]


def test_the_frozen_stage_starts_anew_with_what_sizes_lose_and_takes_no_pull() -> None:
    one = learner()
    first = stepped(one)
    assert float(one.size_losses.sum()) > 0
    assert {"mean", "variance"} <= set(first)
    one.freeze()
    assert float(one.size_losses.abs().sum()) == 0
    assert not one.codec.bottleneck.training
    learning = {id(p) for group in one.optimiser.param_groups for p in group["params"]}
    assert learning == {id(p) for p in one.codec.decoder.parameters()}
    values = stepped(one)
    assert not {"mean", "variance"} & set(values)


def test_the_judges_say_counts_in_the_loss() -> None:
    changes = ("stages={A=0.5, B=0.5}", "adversary.width=1", "adversary.warmup_steps=1")
    one = learner(
        "codec.options={levels={256=[4, 4, 4, 2, 2]}}",
        *changes,
        "adversary.adversarial=3.0",
        "adversary.features=5.0",
    )
    one.begin_judging(0)
    values = stepped(one)
    weights = one.recipe.losses | {"adversarial": 3.0, "features": 5.0}
    expected = sum(weight * values[name] for name, weight in weights.items())
    assert values["loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (4, 3)])
def test_a_loss_that_is_not_one_value_for_each_item_is_refused(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Flat(nn.Module):
        """The mean over the whole batch, or over too little of it."""

        def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
            return (x - x_hat).abs().mean().expand(shape)

    monkeypatch.setitem(EXTRA_LOSSES["image"], "flat", Flat)
    one = learner("losses={l1=1.0, mse=1.0, ssim=1.0, mean=1.0, variance=1.0, flat=1.0}")
    with pytest.raises(CodecError) as refusal:
        stepped(one)
    assert str(refusal.value) == (
        f"losses.flat: the loss returned shape {shape}; return (4,), a distance for each item of "
        "the batch"
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("mean", "variance", "gap", "absent"), "losses absent, gap are in loss_names and not ret"),
        (("mean",), "losses variance are returned by its training forward and not in loss_names"),
    ],
)
def test_a_bottleneck_whose_losses_are_not_those_it_names_is_refused(
    named: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is never returned would never act, with nobody told."""
    monkeypatch.setattr(BOTTLENECKS["fsp"], "loss_names", named)
    weights = ", ".join(f"{name}=1.0" for name in ("l1", "mse", "ssim", *named))
    one = learner(f"losses={{{weights}}}")
    with pytest.raises(CodecError, match=f"^bottleneck fsp: {said}"):
        stepped(one)
    one.freeze()  # the frozen stage has none of them
    stepped(one)


@pytest.mark.parametrize("coupled", [False, True])
def test_every_size_is_drawn_as_often(coupled: bool) -> None:
    one, draws = learner(name="image-gmvq" if coupled else "image-fsp"), Draws(0, "cpu")
    assert one.one_size == coupled
    total = torch.zeros(len(one.sizes))
    for _ in range(400 if coupled else 100):
        one.prepare(0.0, 0, draws, torch.zeros(4, *CROP))
        total += one.inputs.member.sum(0)
    share: Tensor = total / total.sum() * len(one.sizes)
    assert float((share - 1).abs().max()) < 0.35
