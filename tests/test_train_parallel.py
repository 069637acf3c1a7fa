"""Two gloo processes train as one with the batch of both: replicas equal to the last bit, gradients
within rounding.

The processes are started once; each runs all cases and leaves what it has in files, which the tests
compare with a run of their own. Bottlenecks' noise is replaced by constants there, since each
process draws its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from test_train import SMALL_GMVQ, SMALL_VP

from codec.bottlenecks import _sync
from train import parallel, recipes
from train.budget import Budget
from train.checkpoint import read_checkpoint
from train.data import prepare
from train.loop import Trainer
from train.parallel import copy_first, mean, processes
from train.store import Store

STEPS = 3
TOLERANCE = 1e-5  # relative; about 5e-7 was seen, and 4e-3 without synchronisation
STAGE_B = ("stages={A=0.5, B=0.5}", "adversary.width=1", "adversary.warmup_steps=1")
COUPLED = "losses={l1=1.0, mse=20.0, ssim=0.2, commitment=0.25, codebook=1.0}"
AVERAGED = "losses={l1=1.0, mse=20.0, ssim=0.2, commitment=0.25}"
SIZES = "codec.options={dim=4, codebook_sizes=[16, 32]}"
# name -> bottleneck, changes of its recipe, stage to begin with
CASES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "fsp": ("fsp", (), "A"),
    "fsp in stage B": ("fsp", STAGE_B, "B"),
    "vp": ("vp", (SMALL_VP,), "A"),
    "vp in stage C": ("vp", (SMALL_VP,), "C"),
    "gmvq": ("gmvq", (SMALL_GMVQ,), "A"),
    "vq-ema": ("vq-ema", (SIZES, AVERAGED), "A"),
    "vq-replace": ("vq-replace", (SIZES, COUPLED), "A"),
    "vq-affine-opt": ("vq-affine-opt", (SIZES, AVERAGED), "A"),
    "vq-l2": ("vq-l2", (SIZES, COUPLED), "A"),
    "sqvae": ("sqvae", (SIZES, "losses={l1=1.0, mse=20.0, ssim=0.2, latent=0.5, kl=0.06}"), "A"),
    "gumbelvq": ("gumbelvq", (SIZES, "losses={l1=1.0, mse=20.0, ssim=0.2, kl=5e-4}"), "A"),
    "simvq": ("simvq", (SIZES, COUPLED), "A"),
    "tokenbridge": ("tokenbridge", ("losses={l1=1.0, mse=20.0, ssim=0.2, kl=1e-4}",), "A"),
    "residual": (
        "residual",
        ("codec.options={method='vq-ema', dim=4, codebook_sizes=[16, 32]}", AVERAGED),
        "A",
    ),
    "grouped": (
        "grouped",
        ("codec.options={method='vq-ema', dim=4, codebook_sizes=[16, 32]}", AVERAGED),
        "A",
    ),
}
# Learn without gradients.
UNSYNCHRONISED = ("vp", "vq-ema", "vq-replace", "vq-affine-opt", "residual")


@contextmanager
def constant_noise() -> Iterator[None]:
    """No random number but those with a generator of their own, which are the same in any number of
    processes.
    """
    real = {name: getattr(torch, name) for name in ("rand", "randn")}

    def constant(name: str, value: float) -> Any:
        def draw(*shape: Any, generator: Any = None, **kw: Any) -> torch.Tensor:
            if generator is not None:
                return real[name](*shape, generator=generator, **kw)
            return torch.full(shape if isinstance(shape[0], int) else shape[0], value, **kw)

        return draw

    with (
        mock.patch("torch.rand", constant("rand", 0.3)),
        mock.patch("torch.randn", constant("randn", 0.7)),
        mock.patch("torch.rand_like", lambda x: torch.full_like(x, 0.3)),
        mock.patch("torch.randn_like", lambda x: torch.full_like(x, 0.7)),
        mock.patch("torch.randperm", lambda n, **kw: torch.arange(n, **kw)),
        mock.patch("torch.Tensor.exponential_", lambda x, *_, **__: x.fill_(1.0)),
        # Has its own generator.
        mock.patch("codec.bottlenecks._mixture.gumbel", lambda x, _: torch.full_like(x, 0.2)),
        # half-precision gradients round by 1 %.
        mock.patch("torch.autocast", return_value=nullcontext()),
    ):
        yield


def started(case: str, batch: int, data: Path, out: Path) -> Trainer:
    bottleneck, changes, stage = CASES[case]
    settings = [
        "data.crop=[32, 32]",
        f"data.batch={batch}",
        "optimiser.warmup_steps=1",
        f"codec.bottleneck={bottleneck}",
    ]
    recipe = recipes.load(
        "image-vp",
        ["codec.options={}", *settings, *(() if bottleneck != "gmvq" else GMVQ), *changes],
    )
    run = Trainer(
        recipe, Store(data, "image", (32, 32)), Budget(steps=100), out, seed=1, device="cpu"
    )
    with constant_noise():
        if run.codec.bottleneck.coupled:
            run.stages.fit()
        if stage == "B":
            run.enter("B")
        elif stage == "C":
            run.enter("C")
    return run


GMVQ = ("losses={l1=1.0, mse=20.0, ssim=0.2, latent=0.5, kl=0.06}",)


def trace(run: Trainer, steps: int) -> dict[str, torch.Tensor]:
    """Everything after one step, its gradients included, and the weights after all steps."""
    found: dict[str, torch.Tensor] = {}
    with constant_noise():
        for step in range(steps):
            record = run.train_step()
            if step == STEPS - 1:
                found |= {
                    f"later.{n}": p.grad.clone()
                    for n, p in run.codec.named_parameters()
                    if p.grad is not None
                }
            if step == 0:
                found |= {
                    f"gradient.{n}": p.grad.clone()
                    for n, p in run.codec.named_parameters()
                    if p.grad is not None
                }
                found |= {
                    f"bottleneck.{n}": v.clone()
                    for n, v in run.codec.bottleneck.state_dict().items()
                }
                found |= {"size_losses": run.learner.size_losses.clone()}
                found |= {
                    f"log.{n}": v.float()
                    for n, v in record.items()
                    if n in ("perplexity", "loss", "accept_rate")
                }
                if run.adversary is not None:
                    nets = run.adversary.nets
                    found |= {
                        f"critic.{n}": p.grad.clone()
                        for n, p in nets.named_parameters()
                        if p.grad is not None
                    }
    modules = {"codec": run.codec, "average": run.average}
    if run.adversary is not None:
        modules["adversary"] = run.adversary.nets
    return found | {
        f"last.{m}.{n}": v.clone()
        for m, module in modules.items()
        for n, v in module.state_dict().items()
    }


def worker(data: Path, out: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    with processes("cpu"):
        rank = dist.get_rank()
        for case in CASES:
            steps = 22 if case == "vq-replace" else STEPS
            torch.save(trace(started(case, 2, data, out / "run"), steps), out / f"{case}-{rank}.pt")
        for case in UNSYNCHRONISED:
            run = started(case, 2, data, out / "run")
            with mock.patch.object(_sync, "parallel", return_value=False):
                torch.save(
                    trace(run, 22 if case == "vq-replace" else STEPS),
                    out / f"alone-{case}-{rank}.pt",
                )
        losses = {}
        # Learn by gradient alone, but of a loss that is not a mean over samples.
        for case in ("fsp", "gmvq"):
            run = started(case, 2, data, out / "run")
            with mock.patch.object(_sync, "parallel", return_value=False):
                losses[case] = trace(run, 1)
        torch.save(losses, out / f"losses-{rank}.pt")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).resize((96, 80)).save(
            folder / f"{i}.png"
        )
    prepare("image", [folder], folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes of torchrun left."""
    out = tmp_path_factory.mktemp("both")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        __file__,
    ]
    tests, root = Path(__file__).parent, Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": f"{root}:{tests}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(data), str(out)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def load(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return found


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], prefix: str) -> float:
    """Relative distance of everything whose name begins so, as one vector."""
    names = [name for name in a if name.startswith(prefix)]
    assert names
    assert set(names) == {name for name in b if name.startswith(prefix)}
    x, y = (torch.cat([found[name].double().flatten() for name in names]) for found in (a, b))
    return float((x - y).norm() / x.norm().clamp(min=1e-12))


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_stay_equal_and_match_one_process_with_both_batches(
    case: str, data: Path, both: Path
) -> None:
    first, second = (load(both / f"{case}-{rank}.pt") for rank in (0, 1))
    for name, value in first.items():
        if not name.startswith("log."):
            assert torch.equal(value, second[name]), name
    one = trace(started(case, 4, data, both / "one"), STEPS)
    assert difference(first, one, "gradient.") < TOLERANCE
    # Of the last step: VP's queue is full by then.
    assert difference(first, one, "later.") < TOLERANCE
    assert difference(first, one, "size_losses") < TOLERANCE
    if any(name.startswith("bottleneck.") for name in one):
        assert difference(first, one, "bottleneck.") < TOLERANCE
    if "log.perplexity" in one:
        assert float(first["log.perplexity"]) == pytest.approx(
            float(one["log.perplexity"]), rel=TOLERANCE
        )
    if "stage B" in case:
        assert difference(first, one, "critic.") < TOLERANCE


@pytest.mark.parametrize("case", UNSYNCHRONISED)
def test_without_synchronisation_the_replicas_drift_apart(case: str, both: Path) -> None:
    """Negative control."""
    first, second = (load(both / f"alone-{case}-{rank}.pt") for rank in (0, 1))
    assert difference(first, second, "last.codec.bottleneck.") > 10 * TOLERANCE


@pytest.mark.parametrize("case", ["fsp", "gmvq"])
def test_without_synchronisation_the_loss_is_another(case: str, data: Path, both: Path) -> None:
    """Negative control: moments and KL of half a batch are not those of the whole."""
    one = trace(started(case, 4, data, both / "one"), 1)
    alone = torch.load(both / "losses-0.pt", weights_only=True)[case]
    assert difference(alone, one, "gradient.") > 100 * TOLERANCE


LEAVING = """
import os
import sys
from pathlib import Path

import torch

from train.parallel import processes, replicate

kept = []
with processes("cpu"):
    replica = replicate(torch.nn.Linear(2, 2))
    replica(torch.ones(1, 2)).sum().backward()
    if sys.argv[1] == "kept":
        kept.append(replica)
    del replica
names = [p.read_text() for p in Path("/proc/self/task").glob("*/comm")]
Path(sys.argv[2], os.environ["RANK"]).write_text(str(sum("gloo" in name for name in names)))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads have no names here")
@pytest.mark.parametrize("kept", [False, True])
def test_no_thread_of_the_group_outlives_it(kept: bool, tmp_path: Path) -> None:
    """One that does may abort the process at its end; a replica that is kept has some."""
    (tmp_path / "leave.py").write_text(LEAVING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*command, str(tmp_path / "leave.py"), "kept" if kept else "freed", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0 or kept, done.stderr[-3000:]
    left = [int((tmp_path / rank).read_text()) for rank in "01"]
    assert all(number > 0 for number in left) if kept else left == [0, 0]


@pytest.mark.slow
def test_the_command_runs_under_torchrun_and_resumes(data: Path, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [
        sys.executable,
        "-W",
        "error::UserWarning",
        "-m",
        "torch.distributed.run",
        "--standalone",
    ]
    command += [
        "--nproc-per-node=2",
        "-m",
        "train",
        "image-vp",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
    ]
    command += [
        "--set",
        "data.crop=[32, 32]",
        "--set",
        "data.batch=2",
        "--set",
        SMALL_VP,
        "--device",
        "cpu",
    ]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        options = {
            "capture_output": True,
            "text": True,
            "env": environment,
            "timeout": 300,
            "cwd": tmp_path,
        }
        return subprocess.run([*command, "--log-steps", "1", *arguments], **options)

    done = run("--steps", "6", "--stop-minutes", "1e-9")
    assert done.returncode == 0, done.stderr[-3000:]
    done = run("--steps", "6", "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_ends_all_processes_with_a_checkpoint(
    number: signal.Signals, data: Path, tmp_path: Path
) -> None:
    """Ctrl-C comes twice: from the terminal, and from torchrun, which passes it on."""
    root, run = Path(__file__).parent.parent, tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "train", "image-fsp", "--data", data, "--out", run, "--device", "cpu"]
    command += ["--set", "data.crop=[32, 32]", "--set", "data.batch=2", "--log-steps", "1"]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "console").open("wb") as console:
        started = subprocess.Popen(
            [*map(str, command), "--steps", "1000000"],
            stdout=console,
            stderr=console,
            env=environment,
            cwd=tmp_path,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not (run / "log.jsonl").is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        if number == signal.SIGINT:
            os.killpg(started.pid, number)
        else:
            started.send_signal(number)
        assert started.wait(120) != 0
    said = (tmp_path / "console").read_text()
    assert f"go on with --resume from the last checkpoint in {run}" in said
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert read_checkpoint(run / "checkpoint.pt")["clock"][0] == lines[-1]["step"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_processes_wait_for_the_one_that_decodes_media(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL gives up after ten minutes otherwise, and decoding takes hours."""
    given: list[object] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    group = torch.distributed
    monkeypatch.setattr(group, "init_process_group", lambda _, timeout=None: given.append(timeout))
    monkeypatch.setattr(group, "destroy_process_group", lambda: None)
    with processes(device):
        pass
    assert given == [timedelta(days=1)]


@pytest.mark.parametrize(
    ("device", "backend", "own"), [("cpu", "gloo", "cpu"), ("cuda", "nccl", "cuda:1")]
)
def test_a_process_has_its_own_device_and_leaves_the_others_whatever_happens(
    device: str, backend: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **_: calls.append(name))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))

    def fail() -> None:
        with processes(device) as found:
            assert found == own
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert calls == ([own] if device == "cuda" else []) + [backend, "left"]


def test_a_mean_over_processes_leaves_what_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.parallel.parallel", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda value: value.mul_(3))
    value = torch.tensor([2.0, 4.0])
    assert mean(value).tolist() == [1.5, 3.0]
    assert value.tolist() == [2.0, 4.0]


def test_all_that_a_module_holds_is_copied_its_buffers_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("train.parallel.parallel", lambda: True)
    monkeypatch.setattr(dist, "broadcast", lambda tensor, source: tensor.fill_(source + 7))
    module = torch.nn.BatchNorm1d(3)
    copy_first(module)
    assert all((value == 7).all() for value in module.state_dict().values())
    assert len(module.state_dict()) == 5


def test_the_clock_that_all_processes_share_is_no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent after every step; objects would be pickled, in two messages with their length."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle a step")

    def broadcast(values: torch.Tensor, source: int) -> None:
        assert source == 0
        values.copy_(torch.tensor([1234567.875, 1.0, 0.0]))

    monkeypatch.setattr("train.parallel.parallel", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(dist, "broadcast", broadcast)
    for name in ("broadcast_object_list", "all_gather_object"):
        monkeypatch.setattr(dist, name, refuse)
    assert parallel.agree(1.0, save=False, stop=True) == (1234567.875, True, False)


if __name__ == "__main__":
    worker(Path(sys.argv[1]), Path(sys.argv[2]))
