"""A training that a signal stops, and what is said of a run that goes on as it did not begin."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_train import CROPS, data, media, trainer  # noqa: F401  fixtures

from codec.cards import read_card
from codec.errors import CodecError
from train import loop
from train.__main__ import main
from train.budget import Budget
from train.changes import differing
from train.checkpoint import read_checkpoint, write_checkpoint
from train.data import prepare
from train.export import main as export_main
from train.loop import Trainer
from train.priors import STEPS
from train.store import Store

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def medium() -> str:
    return "image"


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Signals are heard, though a shell in the background or nohup has them ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def words(data: Path, out: Path, *more: object) -> list[str]:  # noqa: F811
    found = ["image-fsp", "--data", data, "--out", out, "--set", CROPS["image"]]
    return [str(word) for word in [*found, "--set", "data.batch=2", "--device", "cpu", *more]]


def signalled(monkeypatch: pytest.MonkeyPatch, at: int, *signals: signal.Signals) -> None:
    """Sends signals to this process in the middle of a step."""
    step = Trainer.train_step

    def with_signals(self: Trainer) -> dict[str, Any]:
        if self.step == at:
            for one in signals:
                os.kill(os.getpid(), one)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", with_signals)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_run_with_a_checkpoint_after_the_step(
    number: signal.Signals,
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, before = tmp_path / "run", [signal.getsignal(one) for one in SIGNALS]
    with pytest.MonkeyPatch.context() as patch:
        signalled(patch, 2, number)
        assert main(words(data, run, "--steps", 6)) == 130
    error = capsys.readouterr().err
    assert error == f"error: interrupted; go on with --resume from the last checkpoint in {run}\n"
    assert read_checkpoint(run / "checkpoint.pt")["clock"][0] == 3
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint.pt"]
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert main(words(data, run, "--steps", 6, "--resume")) == 0
    assert main(words(data, tmp_path / "whole", "--steps", 6)) == 0
    ours, whole = (read_checkpoint(f / "checkpoint.pt") for f in (run, tmp_path / "whole"))
    assert all(
        torch.equal(value, ours["average"][name]) for name, value in whole["average"].items()
    )


def test_a_second_ctrl_c_stops_at_once_and_leaves_what_was(
    tmp_path: Path,
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    signalled(monkeypatch, 1, signal.SIGINT, signal.SIGINT)
    assert main(words(data, run, "--steps", 4)) == 130
    error = capfd.readouterr().err
    assert "stopping with a checkpoint after this step; Ctrl-C again stops at once" in error
    assert "before the first checkpoint; the same command begins again" in error
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("prepared", [True, False])
def test_a_run_without_a_checkpoint_begins_anew_whatever_its_data(
    prepared: bool,
    tmp_path: Path,
    data: Path,  # noqa: F811
    media: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, given = tmp_path / "run", data if prepared else media
    with pytest.MonkeyPatch.context() as patch:
        signalled(patch, 0, signal.SIGINT, signal.SIGINT)
        assert main(words(given, run, "--steps", 2)) == 130
    assert ("takes the decoded media" in capsys.readouterr().err) != prepared
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.__main__.prepare", None)  # nothing is decoded again
        assert main(words(given, run, "--steps", 2, "--resume")) == 0
    assert f"no checkpoint in {run} yet: the run begins anew" in capsys.readouterr().err
    # A folder of other things is no run that was stopped.
    (tmp_path / "runs/try").mkdir(parents=True)
    assert main(words(given, tmp_path / "runs", "--steps", 2, "--resume")) == 1
    assert "no checkpoint to resume; leave --resume out" in capsys.readouterr().err


def test_what_is_other_in_a_resumed_run_is_said_and_holds(
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert main(words(data, run, "--steps", 4, "--seed", 3)) == 0
    again = words(data, run, "--steps", 4, "--resume")
    for seed in ([], ["--seed", "3"]):
        assert main([*again, *seed]) == 0
        assert capsys.readouterr().err == ""
    changes = ["losses.ssim=0.5", "optimiser.betas=[0.5, 0.5]"]
    changed = [*again, "--seed", "4", *(w for c in changes for w in ("--set", c))]
    assert main(changed) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"other than in {run} so far, and in force now: optimiser.betas, losses.ssim",
        "the seed of the run is 3, and stays so",
    ]
    state = read_checkpoint(run / "checkpoint.pt")
    assert {tuple(group["betas"]) for group in state["optimiser"]["param_groups"]} == {(0.5, 0.5)}
    assert main([*again, "--init", str(run)]) == 1
    assert "leave --init out or choose another --out" in capsys.readouterr().err


def test_what_begins_with_the_nets_alone_says_so(
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = tmp_path / "first"
    assert main(words(data, first, "--steps", 1)) == 0
    options = {"same": [], "other": ["--set", "codec.bottleneck=vp", "--set", "codec.options={}"]}
    for name, more in options.items():
        losses = "losses={l1=1.0, mse=20.0, ssim=0.2, mean=0.1, variance=0.1}"
        given = words(data, tmp_path / name, "--steps", 1, "--init", first, *more)
        capsys.readouterr()
        assert main([*given, "--set", losses]) == 0
        told = f"{first}: its bottleneck is another, so its nets alone are taken\n"
        assert capsys.readouterr().err == (told if name == "other" else "")


def test_other_data_than_so_far_are_told(
    tmp_path: Path,
    data: Path,  # noqa: F811
    media: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, other, alike = (tmp_path / name for name in ("run", "other", "alike"))
    assert main(words(data, run, "--steps", 2)) == 0
    prepare("image", [media, *sorted(media.iterdir())[:1]], other)
    # Another picture of the same size in the middle.
    shutil.copy(f"{data}.json", f"{alike}.json")
    pixels = bytearray(Path(f"{data}.raw").read_bytes())
    pixels[len(pixels) // 2] ^= 255
    alike.with_suffix(".raw").write_bytes(pixels)
    capsys.readouterr()
    strange = f"other data than the run in {run} has had so far\n"
    for store, told in ((data, ""), (alike, strange), (data, strange), (other, strange)):
        given = ["--data", str(store), "--out", str(tmp_path / "models"), "--prior-steps", "2"]
        assert export_main([str(run), *given]) == 0
        assert capsys.readouterr().err == told
        assert main(words(store, run, "--steps", 2, "--resume")) == 0
        assert capsys.readouterr().err == told


def test_a_checkpoint_of_an_older_version_knows_its_data_by_their_sizes(
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert main(words(data, run, "--steps", 2)) == 0
    for sizes, told in ((Store(data, "image", (32, 32)).identity[:8], 0), ("01234567", 1)):
        state = read_checkpoint(run / "checkpoint.pt")
        write_checkpoint(run / "checkpoint.pt", state | {"data": sizes})
        capsys.readouterr()
        assert main(words(data, run, "--steps", 2, "--resume")) == 0
        assert capsys.readouterr().err.count("other data than") == told


def test_a_note_takes_the_place_of_nothing_that_the_card_says(
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, out = tmp_path / "run", tmp_path / "models"
    assert main(words(data, run, "--steps", 2)) == 0
    given = [str(run), "--data", str(data), "--out", str(out), "--prior-steps", "2"]
    assert export_main([*given, "--note", "why=a=b"]) == 0
    training = read_card(out / "run.json").data["training"]
    assert training.pop("why") == "a=b"
    for key in training:
        capsys.readouterr()
        assert export_main([*given, "--note", f"{key}=1"]) == 2
        assert f"--note {key}: the card says that by itself" in capsys.readouterr().err


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_data_have_a_name(name: str, tmp_path: Path, media: Path) -> None:  # noqa: F811
    with pytest.raises(CodecError, match="want a name for the files"):
        prepare("image", [media], tmp_path / name if name == ".." else Path(name))


def test_differing_keys_are_named_by_their_sections() -> None:
    before = {"data": {"batch": 2, "crop": [1]}, "losses": {"l1": 1.0}}
    now = {"data": {"batch": 3, "crop": [1]}, "losses": {"l1": 1.0, "mse": 1.0}}
    assert differing(before, now) == ["data.batch", "losses.mse"]
    assert differing(now, now) == []


def test_a_finished_run_that_is_made_longer_says_what_it_trains(
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert main(words(data, run, "--steps", 2)) == 0
    assert capsys.readouterr().err == ""
    assert main(words(data, run, "--steps", 2, "--resume")) == 0  # nothing is left to train
    assert capsys.readouterr().err == ""
    assert main(words(data, run, "--steps", 4, "--resume")) == 0
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"the run in {run} is in stage C already: encoder and codebook stay frozen" in line
    assert f"begin another run with --init {run}" in line
    # In the middle of its schedule a run has nothing to say.
    half = tmp_path / "half"
    assert main(words(data, half, "--steps", 9, "--stop-minutes", "1e-9")) == 0
    capsys.readouterr()
    assert main(words(data, half, "--steps", 9, "--resume")) == 0
    assert capsys.readouterr().err == ""


def test_a_run_says_what_comes_next(
    tmp_path: Path,
    data: Path,  # noqa: F811
    media: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the command works as it stands, with the data that the run was given."""
    own, other = tmp_path / "own", tmp_path / "other"
    assert main(words(media, own, "--steps", 1)) == 0
    next_command = f"next: python -m train.export {own} --out models"
    assert capsys.readouterr().out == f"{own}: 1 step; {next_command}\n"
    assert main(words(data, other, "--steps", 1)) == 0
    assert f"train.export {other} --data {data} --out models" in capsys.readouterr().out
    made: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "train.export.export", lambda _, name, __, ___, steps: made.append((name, steps))
    )
    out = ["--out", str(tmp_path / "models")]
    assert export_main([str(own), *out]) == 0
    assert export_main([str(own), "--data", str(media), *out]) == 0
    assert export_main([str(own), "--data", str(own / "data.json"), *out]) == 0
    assert export_main([str(other), "--data", str(data), *out, "--prior-steps", "9"]) == 0
    assert made == [("own", STEPS)] * 3 + [("other", 9)]
    capsys.readouterr()
    for words_, message in (
        ([str(other), *out], f"{other} has no data of its own; name them with --data"),
        ([str(other), "--data", str(media), *out], "no prepared data, and"),
        ([str(own), "--data", str(tmp_path), *out], "has data of other sources"),
        ([str(tmp_path / "nope"), *out], "nope: no run here"),
    ):
        assert export_main(words_) == 1
        assert message in capsys.readouterr().err
    for name in ("a b/c", "..", "a\\b", ""):
        with pytest.raises(SystemExit):
            export_main([str(own), *out, "--name", name])


@pytest.mark.parametrize(
    ("stop_minutes", "saves"),
    [(None, [(3, 90), (6, 186), (9, 282), (10, 318)]), (2.0, [(3, 90), (4, 126)])],
)
def test_minutes_are_those_of_the_clock(
    stop_minutes: float | None,
    saves: list[tuple[int, int]],
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of half a minute and checkpoints of six seconds, one in a minute, which count as well;
    the budget has five minutes.
    """
    run = trainer(medium, data, tmp_path / "run", 1, extra=("stages={A=1.0}",))
    run.budget, clock, found = Budget(minutes=5), [1000.0], []
    step = run.train_step

    def slow() -> dict[str, torch.Tensor]:
        clock[0] += 30
        return step()

    def save() -> None:
        clock[0] += 6
        found.append((run.step, run.elapsed_s))

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(run, "train_step", slow)
    monkeypatch.setattr(run, "save", save)
    monkeypatch.setattr(run, "enter", lambda _: None)
    assert run.run(checkpoint_minutes=1, stop_minutes=stop_minutes) == (stop_minutes is None)
    assert found == saves
