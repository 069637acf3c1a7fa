"""Options of the training commands that cannot work are refused in a line, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from train import __main__ as train
from train import add_priors, data, export, fleet, nested, prepare, speed, watch
from train.priors import STEPS, TOKENS

Main = Callable[[list[str]], int]
TRAIN = ["image-fsp", "--data", "d", "--out", "o"]
FLEET = ["six", "--data", "image=i", "--work", "w", "--out", "o", "--device", "cpu"]
SPEED = ["image-fsp", "--data", "d", "--device", "cpu"]


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (train.main, [*TRAIN, "--steps", "1", "--threads", "-1"], "from 1 to 4096"),
        (train.main, [*TRAIN, "--steps", "1", "--threads", "99999999999"], "from 1 to 4096"),
        (train.main, [*TRAIN, "--steps", "1", "--seed", str(2**65)], "argument --seed"),
        (train.main, [*TRAIN, "--steps", "1", "--seed", "-1"], "argument --seed"),
        (train.main, [*TRAIN, "--steps", "1", "--checkpoint-minutes", "nan"], "of at least 0"),
        (train.main, [*TRAIN, "--minutes", "nan"], "must be above 0"),
        (train.main, [*TRAIN, "--minutes", "inf"], "must be above 0"),
        (train.main, [*TRAIN, "--steps", "1.5"], "invalid int value: '1.5'"),
        (fleet.main, [*FLEET, "--minutes", "0"], "--minutes: must be above 0"),
        (fleet.main, [*FLEET, "--steps", "1", "--only", ""], "--only: it is empty"),
        (fleet.main, [*FLEET, "--steps", "-3"], "--steps: must be above 0"),
        (fleet.main, [*FLEET, "--steps", "1", "--jobs", "-1"], "--jobs: must be above 0"),
        (fleet.main, [*FLEET, "--steps", "1", "--threads", "0"], "from 1 to 4096"),
        (fleet.main, [*FLEET, "--steps", "1", "--pack-mib", "inf"], "must be above 0"),
        (fleet.main, [*FLEET, "--steps", "1", "--report-seconds", "nan"], "must be above 0"),
        (speed.main, [*SPEED, "--steps", "0"], "--steps: must be above 0"),
        (speed.main, [*SPEED, "--warm", "-1"], "of at least 0"),
        (speed.main, [*SPEED, "--threads", "-1"], "from 1 to 4096"),
        (speed.main, [*SPEED, "--stages", "ab"], "want some of A, B, C, each once"),
        (speed.main, [*SPEED, "--stages", "AA"], "want some of A, B, C, each once"),
        (speed.main, [*SPEED, "--stages", ""], "want some of A, B, C, each once"),
        (watch.main, ["run", "--follow", "-1"], "--follow: must be above 0"),
        (add_priors.main, ["m", "--data", "d", "--steps", "0"], "--steps: must be above 0"),
        (add_priors.main, ["m", "--data", "d", "--device", "tpu"], "invalid choice: 'tpu'"),
        (nested.main, ["m", "--data", "d", "--out", "o", "--tokens", "0"], "must be above 0"),
    ],
)
def test_numbers_out_of_range(
    main: Main, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (train.main, [*TRAIN, "--steps", "1"]),
        (export.main, ["run", "--data", "d", "--out", "o"]),
        (speed.main, ["image-fsp", "--data", "d"]),
        (fleet.main, [*FLEET[:-2], "--steps", "1"]),
        (add_priors.main, ["m", "--data", "d"]),
        (nested.main, ["m", "--data", "d", "--out", "o"]),
    ],
)
def test_a_gpu_that_is_not_there(
    main: Main,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--device", "cuda"])
    assert caught.value.code == 2
    assert "--device: no CUDA device here" in capsys.readouterr().err.splitlines()[-1]


def test_stages_are_timed_in_their_order_and_told_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No trainer goes back a stage, so that BA would give the figures of B twice."""

    class Fake:
        device, tokens_per_step, stage = "cpu", 1, "A"

        def __init__(self, *_: object) -> None:
            self.graphs = torch.nn.Module()
            self.graphs.enabled = False

        def enter(self, stage: str) -> None:
            self.stage = max(self.stage, stage)

    monkeypatch.setattr(speed, "Trainer", Fake)
    monkeypatch.setattr(speed, "Store", lambda *_: torch.zeros(1))
    monkeypatch.setattr(speed, "measure", lambda *_: 1.0)
    assert speed.main([*SPEED, "--stages", "BA"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[1] for line in lines] == [" stage A", " stage B"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"5\n6\n", b'{"a": "b"}\n', b""])
def test_any_file_can_be_watched_for_any_key(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    record = {"step": 1, "minutes": 0.1, "stage": "A", "loss": 1.0}
    (tmp_path / "run/log.jsonl").write_text(json.dumps(record))
    (tmp_path / "other").write_bytes(content)
    for path, key in (("run", "stage"), ("other", "loss")):
        assert watch.main([str(tmp_path / path), "--keys", key]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert watch.main([str(tmp_path / "run"), "--keys", "minutes"]) == 0


@pytest.mark.parametrize(
    ("main", "shown"),
    [
        (train.main, ["(default: 2)", "(default: 50)", "(default: 0, or that of the run)"]),
        (add_priors.main, [f"(default: {TOKENS})", f"(default: {STEPS})", "here)"]),
        (nested.main, [f"(default: {TOKENS})", f"(default: {STEPS})", "here)"]),
        (prepare.main, ["(default: as is)", "the cores here)"]),
    ],
)
def test_help_shows_defaults(
    main: Main, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(default in text for default in shown)


@pytest.mark.parametrize("main", [add_priors.main, nested.main])
def test_data_of_another_medium_are_not_the_model_s(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    data.prepare("image", [tmp_path], tmp_path / "data")
    words = ["speech-vp", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main([*words, "--device", "cpu"]) == 1
    assert "this data is image, the model speech-vp is for speech" in capsys.readouterr().err
