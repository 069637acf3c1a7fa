"""What each stage of a training may change, the averaged weights, and codebook sizes drawn per
sample or per batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import SMALL_GMVQ, SMALL_VP, data, media, medium, trainer  # noqa: F401  fixtures

from codec import cards, coding
from codec.errors import CodecError
from train.draws import Draws
from train.export import export, load_run
from train.loop import Trainer
from train.store import Store

STAGE_B = ("adversary.width=2", "adversary.warmup_steps=2")
OPTIONS = {"fsp": (), "vp": (SMALL_VP,), "gmvq": (SMALL_GMVQ,)}


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before: dict[str, torch.Tensor], module: torch.nn.Module) -> bool:
    return all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("bottleneck", ["fsp", "vp", "gmvq"])
def test_stages_follow_one_another_and_c_adapts_the_decoder_alone(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    bottleneck: str,
) -> None:
    extra = (*OPTIONS[bottleneck], "stages={A=0.5, B=0.25, C=0.25}", *STAGE_B)
    run = trainer(medium, data, tmp_path / "run", 8, bottleneck, extra)
    stages = []
    while run.progress < 0.75:
        run.enter(run.recipe.stage_at(run.progress))
        stages.append(run.stage)
        before = copied(run.codec)
        run.train_step()
        assert not same(before, run.codec)
    assert stages == ["A"] * 4 + ["B"] * 2
    run.enter(run.recipe.stage_at(run.progress))
    assert run.stage == "C"
    frozen = [run.codec.encoder, run.codec.bottleneck, run.average.encoder, run.average.bottleneck]
    kept = [copied(m) for m in frozen]
    decoder = copied(run.codec.decoder)
    average = copied(run.average.decoder)
    judge = copied(run.adversary.nets)
    for _ in range(2):
        run.train_step()
    assert all(same(before, module) for before, module in zip(kept, frozen, strict=True))
    # The frozen encoder is the averaged one.
    assert same(copied(run.codec.encoder), run.average.encoder)
    assert not same(decoder, run.codec.decoder)
    assert not same(average, run.average.decoder)
    assert not same(judge, run.adversary.nets)  # after a stage B the discriminator goes on
    assert run.progress == 1


def test_c_lowers_the_loss_on_true_indices(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    """The point of stage C, on one batch: a decoder of perturbed latents learns real codes."""
    run = trainer(medium, data, tmp_path / "run", 60, "vp", (SMALL_VP,))
    for _ in range(20):
        run.train_step()
    run.enter("C")
    x = run.batch()

    def error() -> float:
        with torch.no_grad():
            x_hat = run.average.decode(run.average.encode(x, 16), tuple(x.shape[2:]), 16)
            return float(
                sum(
                    run.recipe.losses[name] * value.mean()
                    for name, value in run.loss(x, x_hat).items()
                )
            )

    before = error()
    for _ in range(40):
        run.train_step()
    assert error() < before


def test_without_stages_b_and_c_there_is_neither(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    run = trainer(medium, data, tmp_path / "run", 3, "vp", (SMALL_VP, "stages={A=1.0}"))
    run.run()
    assert run.adversary is None
    assert run.stage == "C"  # the codebook is built at the end, with no step after it
    assert run.codec.bottleneck.fitted
    assert same(copied(run.codec.decoder), run.average.decoder)


def test_the_average_is_the_moving_average(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    run = trainer(medium, data, tmp_path / "run", 100, extra=("optimiser.ema=0.5",))
    name, value = next(iter(run.codec.named_parameters()))
    expected = value.detach().clone()
    for step in range(4):
        run.train_step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value.detach()
    assert torch.allclose(run.average.state_dict()[name], expected, atol=1e-7)
    # Negative control: not the last weights.
    assert not torch.allclose(value.detach(), expected, atol=1e-7)


def test_stage_c_goes_on_from_the_average(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    """It is what the codebook is built for, and what is exported; the last step's are noisier."""
    run = trainer(medium, data, tmp_path / "run", 20)
    for _ in range(3):
        run.train_step()
    parts = ("encoder", "decoder")
    before = {part: copied(getattr(run.average, part)) for part in parts}
    assert not any(same(before[part], getattr(run.codec, part)) for part in parts)
    run.enter("C")
    for codec in (run.codec, run.average):
        assert all(same(before[part], getattr(codec, part)) for part in parts)


def seen_sizes(run: Trainer, monkeypatch: pytest.MonkeyPatch, steps: int) -> list[object]:
    seen: list[object] = []
    forward = type(run.codec).forward

    def spy(self, x, size=None):
        seen.append(size.tolist() if isinstance(size, torch.Tensor) else size)
        return forward(self, x, size)

    monkeypatch.setattr(type(run.codec), "forward", spy)
    for _ in range(steps):
        run.train_step()
    return seen


def test_perturbing_methods_draw_a_size_for_each_sample(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trainer(medium, data, tmp_path / "run", 100)
    seen = [s if isinstance(s, list) else [s] * 4 for s in seen_sizes(run, monkeypatch, 16)]
    counts = np.unique([size for batch in seen for size in batch], return_counts=True)
    assert counts[0].tolist() == [256, 1024, 4096, 16384]
    assert min(counts[1]) >= 6  # of 16 expected
    assert any(len(set(batch)) > 1 for batch in seen)


def test_coupled_methods_and_stage_c_draw_one_size_for_the_batch(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trainer(medium, data, tmp_path / "run", 100, "gmvq", (SMALL_GMVQ,))
    before = {k: v.detach().clone() for k, v in run.codec.bottleneck.codebooks.items()}
    assert set(seen_sizes(run, monkeypatch, 8)) == {16, 64}
    assert all(not torch.equal(before[k], run.codec.bottleneck.codebooks[k]) for k in before)
    run.enter("C")
    assert set(seen_sizes(run, monkeypatch, 8)) == {16, 64}


@pytest.mark.parametrize("name", ["fsp", "vp", "gmvq"])
def test_the_small_recipes_go_end_to_end(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    name: str,
) -> None:
    """Stages A, B, C, a stop and a resume, and the exported model codes.

    Batches are as large as a test can afford.
    """
    from train import recipes
    from train.budget import Budget

    crop = {"speech": "data.crop=[1920]", "image": "data.crop=[32, 32]"}[medium]
    changes = [
        crop,
        "data.batch=2",
        "data.zoom=1.1",
        "adversary.width=1",
        *OPTIONS[name],
        "codec.preset=tiny",
    ]
    changes += [
        "stages={A=0.5, B=0.25, C=0.25}",
        *(["losses.lpips=0"] if medium == "image" else []),
    ]
    recipe = recipes.load(f"{medium}-{name}-small", changes)
    store = Store(data, medium, tuple(recipe.data.crop), recipe.data.zoom)
    run = Trainer(recipe, store, Budget(steps=6), tmp_path / "run", 0, "cpu")
    assert not run.run(stop_minutes=1e-9)  # after one step
    assert run.step == 1
    while not run.run(stop_minutes=1e-9):
        run = Trainer(recipe, store, Budget(steps=6), tmp_path / "run", 0, "cpu")
        run.resume()
    assert run.step == 6
    assert run.stage == "C"
    path = export(load_run(tmp_path / "run", data), f"{medium}-{name}", tmp_path / "models", {})
    model = coding.load(cards.read_card(path))
    x = store.batch(1, Draws(0))
    for size in model.codec.bottleneck.codebook_sizes:
        assert torch.isfinite(
            model.codec.decode(model.codec.encode(x, size), tuple(x.shape[2:]), size)
        ).all()


def test_a_run_begins_with_the_nets_of_another_run(tmp_path: Path, data: Path, medium: str) -> None:  # noqa: F811
    """From its folder, before it is a model: what a fleet does.

    The bottleneck's own state stays behind.
    """
    first = trainer(medium, data, tmp_path / "first", 10)
    for _ in range(2):
        first.train_step()
    first.save()
    run = trainer(medium, data, tmp_path / "run", 10, "vp", (SMALL_VP,))
    fresh = copied(run.codec.encoder)
    run.stages.begin_from(tmp_path / "first")
    assert not same(fresh, run.codec.encoder)
    for part in ("encoder", "decoder"):
        for codec in (run.codec, run.average):
            assert same(copied(getattr(first.average, part)), getattr(codec, part))
    assert run.stages.beginning.name == "first, 0.0 minutes, nets alone"
    run.train_step()
    with pytest.raises(CodecError, match=r"no run here \(there is no checkpoint\.pt\)"):
        run.stages.begin_from(tmp_path)


@pytest.mark.parametrize("bottleneck", ["fsp", "vp", "gmvq"])
def test_tuning_moves_the_decoder_of_a_finished_model_and_nothing_else(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    bottleneck: str,
) -> None:
    """Stage C alone: the same indices for everything, another reconstruction."""
    first = trainer(medium, data, tmp_path / "run", 4, bottleneck, OPTIONS[bottleneck])
    first.run()
    export(first, "model", tmp_path, {})
    tuned = trainer(
        medium, data, tmp_path / "tuned", 3, bottleneck, (*OPTIONS[bottleneck], "stages={C=1.0}")
    )
    tuned.stages.begin_from(tmp_path / "model.json")
    tuned.run()
    assert tuned.stage == "C"
    card = cards.read_card(export(tuned, "finished", tmp_path, {}))
    before = dict(cards.read_card(tmp_path / "model.json").data["training"])
    before.pop("last_log")
    assert card.data["training"]["begun_from"] == before
    assert "begun_from" not in before
    export(trainer(medium, data, tmp_path / "else", 2, bottleneck), "model", tmp_path, {})
    with pytest.raises(CodecError, match="another model than the run began with"):
        export(tuned, "finished", tmp_path, {})
    export(first, "model", tmp_path, {})
    before = coding.load(cards.read_card(tmp_path / "model.json")).codec
    for part in ("encoder", "bottleneck"):
        shared = copied(getattr(before, part))
        theirs = getattr(tuned.average, part).state_dict()
        assert all(
            torch.equal(value, theirs[name]) for name, value in shared.items() if name in theirs
        )
    assert not same(copied(before.decoder), tuned.average.decoder)


def test_there_is_nothing_to_tune_without_a_model(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    run = trainer(medium, data, tmp_path / "run", 3, "vp", (SMALL_VP, "stages={C=1.0}"))
    with pytest.raises(CodecError, match="--init"):
        run.run()


def test_a_run_without_a_codebook_is_not_tuned(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    """One that was stopped in stage A: its decoder would learn from codes that are all zero."""
    first = trainer(medium, data, tmp_path / "first", 10, "vp", (SMALL_VP,))
    for _ in range(2):
        first.train_step()
    first.save()
    tuned = trainer(medium, data, tmp_path / "tuned", 3, "vp", (SMALL_VP, "stages={C=1.0}"))
    tuned.stages.begin_from(tmp_path / "first")
    with pytest.raises(CodecError, match=r"^first, 0\.0 minutes: no codebook to tune to"):
        tuned.run()
    assert tuned.step == 0


def test_a_run_that_trains_its_encoder_does_not_go_on_as_one_that_tunes(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    """Begun from a card, it would keep that one's tables and priors, which are of other codes."""
    model = trainer(medium, data, tmp_path / "model", 1)
    model.run()
    card = export(model, "model", tmp_path, {}, prior_steps=1)
    first = trainer(medium, data, tmp_path / "first", 5)
    first.stages.begin_from(card)
    first.train_step()
    first.save()
    tuning = ("stages={C=1.0}",)
    changed = trainer(medium, data, tmp_path / "first", 10, extra=tuning)
    with pytest.raises(CodecError, match=r"does not go on as one that tunes .* --init .*first"):
        changed.resume()
    assert changed.step == 0
    # One that tunes does.
    tuned = trainer(medium, data, tmp_path / "tuned", 1, extra=tuning)
    tuned.stages.begin_from(card)
    tuned.run()
    assert trainer(medium, data, tmp_path / "tuned", 3, extra=tuning).resume() == []


@pytest.mark.parametrize(
    ("source", "stages"), [("model.json", "{A=0.5, C=0.5}"), ("run", "{C=1.0}")]
)
def test_a_model_keeps_the_losses_of_the_training_that_it_began_with(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    source: str,
    stages: str,
) -> None:
    """Whether of a card or of a run, trained on or tuned, and through an interruption."""
    first = trainer(medium, data, tmp_path / "run", 2)
    first.run()
    card = cards.read_card(export(first, "model", tmp_path, {}, prior_steps=1))
    loss = max(card.losses, key=lambda name: card.losses[name])
    options = (f"stages={stages}", f"losses.{loss}=0")
    run = trainer(medium, data, tmp_path / "next", 2, extra=options)
    run.stages.begin_from(tmp_path / source)
    run.run()
    for made in (run, load_run(tmp_path / "next", data)):
        told = cards.read_card(export(made, "next", tmp_path, {}, prior_steps=1))
        assert told.data["training"]["recipe"]["losses"][loss] == 0
        assert told.losses[loss] == card.losses[loss]
        before = dict(card.data["training"])
        before.pop("items" if source == "run" else "last_log")
        shared = told.data["training"]["begun_from"]
        assert shared == {key: before[key] for key in shared}
        assert {"recipe", "steps", "minutes", "seed", "hardware"} <= shared.keys()
    # Nets alone, of another bottleneck: they are a beginning and no more.
    alone = trainer(medium, data, tmp_path / "alone", 1, "gmvq")
    alone.stages.begin_from(tmp_path / source)
    alone.run()
    told = cards.read_card(export(alone, "alone", tmp_path, {}, prior_steps=1))
    assert "begun_from" not in told.data["training"]


def test_a_run_does_not_go_on_with_another_codec(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    """Not even with one whose tensors have the same shapes."""
    trainer(medium, data, tmp_path / "run", 3, "vp", (SMALL_VP,)).save()
    other = trainer(medium, data, tmp_path / "run", 3, "vp", (SMALL_VP, "codec.options.eta=1.5"))
    with pytest.raises(CodecError, match="the checkpoint is of another codec"):
        other.resume()


def test_a_codebook_that_learns_starts_from_latents(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    run = trainer(medium, data, tmp_path / "run", 1, "gmvq", (SMALL_GMVQ, "stages={A=1.0}"))
    assert not run.codec.bottleneck.fitted
    run.run()
    assert run.codec.bottleneck.fitted
