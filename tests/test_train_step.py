"""A step is a function of its static inputs: nothing in it is decided on the host, so that a CUDA graph can hold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import SMALL_VP, data, media, medium, trainer  # noqa: F401  fixtures
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from codec.errors import CodecError
from train import graph, recipes
from train.adversary import Adversary
from train.graph import Graphs
from train.loop import Trainer
from train.recipes import AdversarySection

# What reads a value on the host, or makes a tensor whose shape depends on values: both wait for a GPU.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero", "equal", "bincount")
STAGES = ("stages={A=0.4, B=0.3, C=0.3}", "adversary.width=1", "adversary.warmup_steps=2")
only_pictures = pytest.mark.parametrize("medium", ["image"], indirect=True)


class NoHost(TorchDispatchMode):
    """Refuses every operation that a GPU would have to be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in READS, f"{func} reads on the host"
        return func(*args, **(kwargs or {}))


def guarded(run: Trainer) -> dict[str, Tensor]:
    """One step of which all but the host's part is watched."""
    loss, size = run.loss, run.learner.prepare(run.progress, run.step, run.draws, run.batch())
    with NoHost():
        values = run.learner.step(loss, size)
    run.step += 1
    return values


def test_a_step_leaves_nothing_to_the_host(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    run = trainer(medium, data, tmp_path / "run", 10, "fsp", STAGES)
    stages = ""
    while run.progress < 1:
        run.enter(run.recipe.stage_at(run.progress))
        assert float(guarded(run)["skipped"]) == 0
        stages += run.stage
    assert stages == "AAAABBBCCC"


@only_pictures
def test_a_step_that_asks_the_host_is_seen_and_not_recorded(tmp_path: Path, data: Path) -> None:  # noqa: F811
    """Negative control: VP asks whether its queue is full."""
    run = trainer("image", data, tmp_path / "run", 10, "vp", (SMALL_VP,))
    with pytest.raises(AssertionError, match="reads on the host"):
        guarded(run)
    assert "vp" not in graph.RECORDED


class Replay:
    """Stands in for a CUDA graph: replays the step that was recorded, whatever the caller would do now."""

    def __init__(self, step: graph.Step) -> None:
        values = step()  # taken as a step, as the recording of a real graph is not
        self.step, self.names = step, list(values)
        self.values = torch.stack([value.float() for value in values.values()])
        self.fresh = True

    def replay(self) -> None:
        if not self.fresh:
            self.values.copy_(torch.stack([value.float() for value in self.step().values()]))
        self.fresh = False


def record(step: graph.Step) -> tuple[Replay, list[str], Tensor]:
    replay = Replay(step)
    return replay, replay.names, replay.values


@only_pictures
def test_what_was_recorded_takes_the_same_steps_through_all_stages(
    tmp_path: Path,
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step by step, bit for bit; a step that held on to anything but its inputs would go another way."""
    stages: list[str] = []
    monkeypatch.setattr(graph, "WARM", 1)
    monkeypatch.setattr(graph, "_aside", lambda step: step())
    monkeypatch.setattr(graph, "_record", lambda step: stages.append(runs[1].stage) or record(step))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    runs = [trainer("image", data, tmp_path / name, 24, "fsp", STAGES) for name in ("eager", "recorded")]
    runs[1].graphs.enabled = True
    logs: list[list[dict[str, Tensor]]] = [[], []]
    for run, log in zip(runs, logs, strict=True):
        torch.manual_seed(0)
        while run.progress < 1:
            run.enter(run.recipe.stage_at(run.progress))
            log.append(run.train_step())
    assert stages[:2] == ["A", "B"]  # once in each, forgotten at their borders
    assert set(stages[2:]) == {"C"}  # there once for each size
    assert {key[0] for key in runs[1].graphs._recorded} == {"C"}
    for eager, recorded in zip(*logs, strict=True):
        assert {k: float(v) for k, v in eager.items()} == {k: float(v) for k, v in recorded.items()}
    for name, value in runs[0].average.state_dict().items():
        assert torch.equal(value, runs[1].average.state_dict()[name]), name


def test_a_capture_that_fails_is_said_in_a_line_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: graph.Step) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graph, "_aside", lambda step: step())
    monkeypatch.setattr(graph, "_record", broken)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    graphs, taken = Graphs("cpu", True), []
    assert not graphs.enabled  # on a CPU
    graphs.enabled = True
    for i in range(graph.WARM + 3):
        graphs.run("A", lambda i=i: taken.append(i) or {"loss": torch.tensor(float(i))})
    assert taken == list(range(graph.WARM + 3))
    error = capsys.readouterr().err
    assert error == "no CUDA graph of the step A: operation not permitted when stream is capturing; going on without\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_twenty_steps_as_a_graph_have_the_losses_of_twenty_eager_ones(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    """Within bf16's noise, which grows from step to step."""
    losses = []
    for enabled in (False, True):
        recipe = trainer(medium, data, tmp_path / "cpu", 1, "fsp", STAGES).recipe
        store = trainer(medium, data, tmp_path / "cpu", 1, "fsp", STAGES).store.to("cuda")
        run = Trainer(recipe, store, loop_budget(20), tmp_path / str(enabled), 3, "cuda")
        run.graphs.enabled = enabled
        torch.manual_seed(0)
        values = []
        while run.progress < 1:
            run.enter(run.recipe.stage_at(run.progress))
            values.append(float(run.train_step()["loss"]))
        assert run.graphs.enabled == enabled  # no capture failed
        losses.append(values)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def loop_budget(steps: int) -> Any:
    from train.loop import Budget

    return Budget(steps=steps)


# --- what the judges see


def test_judges_see_the_same_part_of_both_somewhere_in_each_sample(medium: str) -> None:  # noqa: F811
    shape, crop = ((3, 1, 4000), [1200]) if medium == "speech" else ((3, 3, 64, 48), [32, 40])
    adversary = Adversary(medium, AdversarySection(width=1, crop=crop), "cpu")
    x = torch.arange(float(torch.tensor(shape).prod())).view(shape)
    x_hat = x.clone().requires_grad_()
    places = torch.tensor([0.0, 0.5, 1 - 1e-7])
    a, b = adversary.cut(x, x_hat, places)
    assert a.shape == (*shape[:2], *crop)
    assert torch.equal(a, b)
    last = [full - part for full, part in zip(shape[2:], crop, strict=True)]
    assert torch.equal(a[0], x[0][(slice(None), *(slice(0, n) for n in crop))])
    assert torch.equal(a[2], x[2][(slice(None), *(slice(m, m + n) for m, n in zip(last, crop, strict=True)))])
    (gradient,) = torch.autograd.grad(b.sum(), x_hat)
    assert float(gradient.sum()) == a.numel()
    whole = Adversary(medium, AdversarySection(width=1), "cpu").cut(x, x_hat, places)
    assert whole[0] is x
    assert whole[1] is x_hat


def test_stage_b_trains_on_parts_and_recipes_say_how_long_they_are(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    crop = "[1100]" if medium == "speech" else "[32, 32]"
    changes = ("stages={A=0.001, B=0.999}", "adversary.width=1", f"adversary.crop={crop}")
    run = trainer(medium, data, tmp_path / "run", 100, "fsp", changes)
    run.train_step()
    run.enter("B")
    shapes = []
    learn = run.adversary.learn
    run.adversary.learn = lambda x, x_hat: shapes.append(tuple(x.shape)) or learn(x, x_hat)
    assert run.train_step()["skipped"] == 0
    assert shapes == [(4, 1, 1100) if medium == "speech" else (4, 3, 32, 32)]
    assert recipes.from_dict(run.recipe.to_dict()) == run.recipe
    for wrong in ("[16]", "[100000]", "[32, 32, 32]"):
        with pytest.raises(CodecError, match=r"adversary\.crop"):
            recipes.load(f"{medium}-fsp", [f"adversary.crop={wrong}"])
