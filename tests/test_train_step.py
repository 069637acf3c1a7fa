"""A step is a function of its static inputs: nothing in it is decided on the host, so that a CUDA
graph can hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import SMALL_GMVQ, SMALL_VP, data, media, medium, trainer  # noqa: F401  fixtures
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from codec import host
from codec.bottlenecks import BOTTLENECKS
from codec.errors import CodecError
from train import graph, learner, recipes
from train.adversary import Adversary
from train.graph import Graphs
from train.loop import Trainer
from train.recipe import AdversarySection
from train.store import SPEED_STEPS

# What reads a value on the host, makes a tensor whose shape depends on values, or brings numbers of
# Python to a device.
READS = {
    *(
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "is_nonzero",
    ),
    *(
        "equal",
        "bincount",
        "lift_fresh",
        "randperm",
        "multinomial",
        "repeat_interleave.Tensor",
        "_to_cpu",
    ),
}
STAGES = ("stages={A=0.4, B=0.3, C=0.3}", "adversary.width=1", "adversary.warmup_steps=2")
# A queue of 16 * 4 rows: full after two or three steps, and so well before stage B.
OPTIONS = {"fsp": (), "vp": (SMALL_VP,), "gmvq": (SMALL_GMVQ,)}
OPTIONS["vp, two ranks"] = (SMALL_VP.replace("neighbours=2", "neighbours=4"),)
METHODS = pytest.mark.parametrize("method", list(OPTIONS))
only_pictures = pytest.mark.parametrize("medium", ["image"], indirect=True)


class NoHost(TorchDispatchMode):
    """Refuses every operation that a GPU would have to be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = {func.overloadpacket.__name__, str(func).removeprefix("aten.")}
        assert not names & READS, f"{func} reads on the host"
        if "index_put_" in names or "index" in names:
            masks = [
                place
                for place in args[1]
                if place is not None and place.dtype in (torch.bool, torch.uint8)
            ]
            assert not masks, f"{func} reads a mask on the host"
        devices = {value.device for value in args if isinstance(value, Tensor) and value.dim()}
        assert len(devices) < 2, f"{func} copies between devices"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written for a GPU runs, on the CPU."""
    monkeypatch.setattr(host, "HOSTS", ())


def guarded(run: Trainer) -> dict[str, Tensor]:
    """One step of which all but the host's part is watched, once a graph could hold it."""
    loss, size = run.loss, run.learner.prepare(run.progress, run.step, run.draws, run.batch())
    with NoHost() if run.learner.settled else nullcontext():
        values = run.learner.step(loss, size)
    run.step += 1
    return values


@METHODS
@pytest.mark.usefixtures("no_host")
def test_a_step_leaves_nothing_to_the_host(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    method: str,
) -> None:
    run = trainer(
        medium, data, tmp_path / "run", 14, method.split(",")[0], (*STAGES, *OPTIONS[method])
    )
    watched: list[str] = []
    while run.progress < 1:
        run.enter(run.recipe.stage_at(run.progress))
        values = guarded(run)
        assert float(values["skipped"]) == 0
        assert run.learner.settled or values["queue_fill"] < 1
        watched += [run.stage] * run.learner.settled
    assert watched.count("A") >= (2 if method.startswith("vp") else 6)
    assert (watched.count("B"), watched.count("C")) == (4, 4)


@only_pictures
@pytest.mark.usefixtures("no_host")
@pytest.mark.parametrize("method", ["vp", "gmvq", "fsp"])
def test_a_step_that_asks_the_host_is_seen(
    tmp_path: Path,
    data: Path,  # noqa: F811
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: the same step where values may be read."""
    run = trainer("image", data, tmp_path / "run", 10, method, OPTIONS[method])
    while not run.learner.settled:
        run.train_step()
    monkeypatch.setattr(learner, "unread", nullcontext)
    if method == "gmvq":
        run.enter("C")  # it checks nothing before it searches
    with pytest.raises(AssertionError, match="reads"):
        guarded(run)


@pytest.mark.usefixtures("no_host")
@pytest.mark.parametrize("name", sorted(BOTTLENECKS))
def test_a_bottleneck_that_says_it_is_settled_asks_nothing(name: str) -> None:
    """In training, with gradients, and in eval."""
    torch.manual_seed(0)
    # A queue that is soon full.
    options = {"codebook_sizes": (16,), "rows_per_code": 8} if name == "vp" else {}
    method = BOTTLENECKS[name](**options).train()
    method.fit(torch.randn(400, method.in_dim))
    z = torch.randn(2, method.in_dim, 300, requires_grad=True)
    sizes = method.default_size if method.coupled else torch.full((2,), method.default_size)
    out = method(z, sizes)
    settled = set()
    for mode in (True, False):
        if method.train(mode).settled:
            settled.add(mode)
            with host.unread(), NoHost():
                out = method(z, sizes if mode else method.default_size)
                (out.z_q.sum() + sum(out.losses.values())).backward()
    assert settled == ({False} if name.endswith("replace") else {True, False})


@pytest.mark.usefixtures("no_host")
def test_a_batch_leaves_nothing_to_the_host(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its sizes are drawn there; its places, filters and augmentation are not."""
    run = trainer(medium, data, tmp_path / "run", 10, "fsp", ("data.augment=full",))
    monkeypatch.setattr(run.store, "_draw_step", lambda _: SPEED_STEPS)
    with NoHost():
        run.batch()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.__setitem__(x > 0, torch.zeros(())),
        lambda _: torch.tensor([1.0, 2.0]),
        lambda x: x.repeat_interleave(torch.ones_like(x).long()),
        lambda x: x + torch.zeros(len(x), device="meta"),
    ],
)
def test_all_that_waits_is_seen(read: Callable[[Tensor], object]) -> None:
    x = torch.arange(4.0)
    with NoHost():
        _ = x.cumsum(0)[torch.zeros_like(x).long()].repeat_interleave(2) * 2  # waits for nothing
    with pytest.raises(AssertionError, match=r"host|devices"), NoHost():
        read(x)


def test_a_bad_batch_of_stage_c_is_passed_over(tmp_path: Path, medium: str, data: Path) -> None:  # noqa: F811
    """A latent that is not finite has no nearest code; the step is skipped, and no run ends."""
    run = trainer(medium, data, tmp_path / "run", 10, "vp", (SMALL_VP, "stages={A=0.5, C=0.5}"))
    run.train_step()
    run.enter("C")
    next(run.average.decoder.parameters()).data.add_(1)  # it would move, if a step were taken
    before = {name: value.clone() for name, value in run.codec.state_dict().items()}
    averages = {name: value.clone() for name, value in run.average.state_dict().items()}
    size = run.learner.prepare(0.5, 5, run.draws, torch.full_like(run.batch(), torch.nan))
    assert run.learner.step(run.loss, size)["skipped"] == 1
    assert all(torch.equal(value, before[name]) for name, value in run.codec.state_dict().items())
    for name, value in run.average.state_dict().items():
        assert torch.equal(value, averages[name]), name


class Replay:
    """Stands in for a CUDA graph: replays the step that was recorded, whatever the caller would do
    now.
    """

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
@pytest.mark.parametrize("method", ["fsp", "vp", "gmvq"])
def test_what_was_recorded_takes_the_same_steps_through_all_stages(
    tmp_path: Path,
    data: Path,  # noqa: F811
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step by step, bit for bit; a step that held on to anything but its inputs would go another
    way.
    """
    stages: list[str] = []
    monkeypatch.setattr(graph, "FIRST_WARM", 1)
    monkeypatch.setattr(Graphs, "_aside", lambda _, step: step())
    monkeypatch.setattr(
        Graphs, "_record", lambda _, step: stages.append(runs[1].stage) or record(step)
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    extra = (*STAGES, *OPTIONS[method])
    runs = [
        trainer("image", data, tmp_path / name, 30, method, extra) for name in ("eager", "recorded")
    ]
    runs[1].graphs.enabled = True
    logs: list[list[dict[str, Tensor]]] = [[], []]
    for run, log in zip(runs, logs, strict=True):
        torch.manual_seed(0)
        while run.progress < 1:
            run.enter(run.recipe.stage_at(run.progress))
            log.append(run.train_step())
    assert "".join(sorted(stages)) == "".join(stages)  # forgotten at the stages' borders
    assert stages.count("A") == stages.count("B") == (2 if method == "gmvq" else 1)
    # Once for each size: FSP has four.
    assert 1 <= stages.count("C") <= len(runs[0].learner.sizes)
    assert stages.count("C") == len(runs[0].learner.sizes) or method == "fsp"
    assert {key[0] for key in runs[1].graphs._recorded} == {"C"}
    for eager, recorded in zip(*logs, strict=True):
        assert {k: float(v) for k, v in eager.items()} == {k: float(v) for k, v in recorded.items()}
    for name, value in runs[0].average.state_dict().items():
        assert torch.equal(value, runs[1].average.state_dict()[name]), name


def test_a_capture_that_fails_is_said_in_a_line_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: graph.Step) -> None:
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            # As CUDA does at the end.
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(Graphs, "_aside", lambda _, step: step())
    monkeypatch.setattr(Graphs, "_record", lambda _, step: broken(step))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    graphs, taken = Graphs("cpu", True), []
    assert not graphs.enabled  # on a CPU
    graphs.enabled = True
    for i in range(graph.FIRST_WARM + 3):
        graphs.run("A", lambda i=i: taken.append(i) or {"loss": torch.tensor(float(i))})
    assert taken == list(range(graph.FIRST_WARM + 3))
    error = capsys.readouterr().err
    assert error == (
        "no CUDA graph of the step A: operation not permitted when stream is capturing; "
        "operation failed due to a previous error during capture; going on without\n"
    )


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
    assert torch.equal(
        a[2], x[2][(slice(None), *(slice(m, m + n) for m, n in zip(last, crop, strict=True)))]
    )
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
