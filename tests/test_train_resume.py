"""A training that is killed at any moment, with kill -9, goes on as if nothing had happened."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import SMALL_GMVQ, SMALL_VP, data, media, medium, trainer  # noqa: F401  fixtures
from torch import Tensor

from train.checkpoint import read_checkpoint
from train.loop import Trainer

ROOT = Path(__file__).parent.parent
STEPS = 24


def command(medium: str, data: Path, out: Path) -> list[str]:  # noqa: F811
    """VP through stages A, B and C, with a checkpoint after every step."""
    crop = {"speech": "data.crop=[1920]", "image": "data.crop=[32, 32]"}[medium]
    changes = [
        crop,
        "data.batch=2",
        SMALL_VP,
        "stages={A=0.25, B=0.25, C=0.5}",
        "adversary.width=1",
    ]
    changes += ["adversary.warmup_steps=2", "optimiser.warmup_steps=2", "data.augment=full"]
    arguments = [
        "-m",
        "train",
        f"{medium}-vp",
        "--data",
        str(data),
        "--out",
        str(out),
        "--steps",
        str(STEPS),
    ]
    arguments += [
        "--checkpoint-minutes",
        "0",
        "--log-steps",
        "1",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--seed",
        "5",
    ]
    return [sys.executable, *arguments, *(part for change in changes for part in ("--set", change))]


@pytest.mark.slow
@pytest.mark.parametrize("medium", ["image"], indirect=True)
def test_killed_at_random_moments_a_run_ends_with_the_same_weights(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    """Queue, discriminator, averages, streams and all: the last checkpoint is that of a run left
    alone, bit for bit.
    """
    subprocess.run(command(medium, data, tmp_path / "whole"), cwd=ROOT, check=True, timeout=300)
    run_and_kill(command(medium, data, tmp_path / "killed"), tmp_path / "killed", random.Random(1))
    whole, killed = (
        read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "killed")
    )
    assert differing(whole, killed) == []
    assert whole["clock"][0] == killed["clock"][0] == STEPS
    assert whole["clock"][2] == killed["clock"][2] == "C"
    assert whole["adversary"]["steps"] > 0
    assert int(whole["codec"]["bottleneck.queue_count"]) == 64
    assert steps(tmp_path / "killed") == STEPS  # in the log: no step twice, none missing


def differing(ours: Any, theirs: Any, name: str = "") -> list[str]:
    """Names of the values in which two checkpoints differ, but for the time that the runs took."""
    if isinstance(ours, Tensor):
        return [] if torch.equal(ours, theirs) else [name]
    if isinstance(ours, dict) and ours.keys() == theirs.keys():
        return [part for key in ours for part in differing(ours[key], theirs[key], f"{name}.{key}")]
    if isinstance(ours, list | tuple) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [
            part
            for i, (a, b) in pairs
            if name + str(i) != ".clock1"
            for part in differing(a, b, f"{name}{i}")
        ]
    return [] if ours == theirs else [name]


@pytest.mark.parametrize("bottleneck", ["vp", "gmvq"])
def test_resumed_after_any_step_a_run_takes_the_next_step_alike(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    bottleneck: str,
) -> None:
    """All that a checkpoint holds is compared, after each step of stages A, B and C and across
    their borders.
    """
    options = {"vp": SMALL_VP, "gmvq": SMALL_GMVQ}[bottleneck]
    extra = (
        options,
        "stages={A=0.4, B=0.3, C=0.3}",
        "adversary.width=1",
        "data.augment=full",
        "data.batch=2",
    )
    # Each step is clipped, or what counts for that would not be seen.
    extra += ("optimiser.clip=0.01",)

    def step(run: Trainer) -> bytes:
        run.enter(run.recipe.stage_at(run.progress))
        run.train_step()
        run.save()
        return (run.folder / "checkpoint.pt").read_bytes()

    whole = trainer(medium, data, tmp_path / "whole", 10, bottleneck, extra)
    whole.save()
    checkpoints = [
        (tmp_path / "whole/checkpoint.pt").read_bytes(),
        *(step(whole) for _ in range(10)),
    ]
    stages = ""
    for before, after in pairwise(checkpoints):
        torch.manual_seed(12345)  # whatever happens between
        resumed = trainer(medium, data, tmp_path / "resumed", 10, bottleneck, extra)
        (tmp_path / "resumed/checkpoint.pt").write_bytes(before)
        resumed.resume()
        theirs = torch.load(io.BytesIO(step(resumed)), weights_only=True)
        assert differing(torch.load(io.BytesIO(after), weights_only=True), theirs) == []
        stages += resumed.stage
    assert stages == "AAAABBBCCC"


def test_stage_c_is_clipped_by_the_gradients_of_what_learns(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    """Not by what the last step before it left in the encoder, which a resumed run would not have,
    and may be NaN.
    """
    run = trainer(medium, data, tmp_path / "run", 10, "vp", (SMALL_VP,))
    run.train_step()
    for parameter in run.codec.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    run.enter("C")
    assert run.train_step()["skipped"] == 0


def test_a_run_killed_before_its_first_checkpoint_begins_its_log_anew(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    run = trainer(medium, data, tmp_path / "run", 2)
    (tmp_path / "run/log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    run.run(log_steps=1)
    assert steps(tmp_path / "run") == 2
    assert "loss" in (tmp_path / "run/log.jsonl").read_text().splitlines()[0]


def run_and_kill(arguments: list[str], folder: Path, chance: random.Random) -> None:
    """Runs to the end, killed three times on the way: once in each stage, but on a very slow
    machine.
    """
    kills = 0
    for _ in range(30):
        resume = ["--resume"] if (folder / "checkpoint.pt").exists() else []
        before = steps(folder)
        process = subprocess.Popen([*arguments, *resume], cwd=ROOT, stderr=subprocess.PIPE)
        while kills < 3 and process.poll() is None and steps(folder) <= before + 3:
            time.sleep(0.05)
        if kills < 3 and process.poll() is None:
            # Between steps, or in the middle of one, or of a checkpoint.
            time.sleep(chance.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        _, error = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, error.decode()[-2000:]
    assert kills == 3


def steps(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


def test_a_checkpoint_is_replaced_whole(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    monkeypatch,
) -> None:
    """A write that fails in the middle leaves the checkpoint before it, and no part of its own."""
    run = trainer(medium, data, tmp_path / "run", 10)
    run.save()
    content = (tmp_path / "run/checkpoint.pt").read_bytes()
    run.train_step()
    monkeypatch.setattr(
        os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        run.save()
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == content
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.pt"]
