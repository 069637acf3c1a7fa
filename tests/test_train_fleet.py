"""Several trainings side by side, their packs, going on from them; and looking at curves."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_train import data, media, medium  # noqa: F401  fixtures

from codec import cards, coding
from codec.errors import CodecError
from codec.model import build
from train import fleet, recipes, watch
from train.__main__ import main as train_main
from train.budget import Budget
from train.export import export
from train.loop import Trainer
from train.pack import pack
from train.plan import FOLDER, Run, load_plan
from train.store import Store

CHANGES = [
    "data.batch=2",
    "data.zoom=1.0",
    "adversary.width=1",
    "codec.preset=tiny",
    "data.crop=[32, 32]",
]
CHANGES += ["losses.lpips=0", "stages={A=0.5, B=0.25, C=0.25}"]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_shipped_plans_are_whole(name: str) -> None:
    runs = load_plan(name)
    assert len({run.name for run in runs}) == len(runs)
    if name == "six":
        kinds = {f"{m}-{b}" for m in ("speech", "image") for b in ("fsp", "vp", "gmvq")}
        assert {run.name for run in runs} == kinds
        assert all(run.recipe == f"{run.name}-small" for run in runs)


def test_a_dedicated_model_offers_its_size_alone() -> None:
    for run in load_plan("dedicated"):
        size = run.name.rpartition("-")[2]
        offered = build(recipes.load(run.recipe, run.set).config()).bottleneck.codebook_sizes
        assert offered == ((256, 1024, 4096, 16384) if size == "all" else (int(size),))


class Ended:
    """A process that has ended at once."""

    def __init__(self, code: int = 0) -> None:
        self.returncode = code

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None: ...


def started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str = "", *extra: str
) -> list[list[str]]:
    """The commands that the plan `six` starts, in groups that run side by side.

    Each run ends when it is looked at.
    """
    groups: list[list[str]] = []
    plan = fleet.Fleet._next

    def start(_: fleet.Fleet, command: list[str], run: Run) -> Ended:
        (tmp_path / "work" / run.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / run.name / "checkpoint.pt").touch()
        groups[-1].append(
            f"{run.name} from {Path(command[command.index('--init') + 1]).name}"
            if "--init" in command
            else run.name
        )
        return Ended(int(run.name == failing))

    def next_run(self: fleet.Fleet, waiting: list[Run], active: dict[str, Ended]) -> Run | None:
        if not active and waiting:
            groups.append([])
        return plan(self, waiting, active)

    monkeypatch.setattr(fleet.Fleet, "_start", start)
    monkeypatch.setattr(fleet.Fleet, "_next", next_run)
    monkeypatch.setattr(fleet.Fleet, "export", lambda *_: [])
    monkeypatch.setattr(fleet.losses, "build", lambda *_: None)
    arguments = ["six", "--data", "speech=s", "--data", "image=i", "--work", str(tmp_path / "work")]
    fleet.main(
        [*arguments, "--out", str(tmp_path / "out"), "--steps", "1", "--device", "cpu", *extra]
    )
    return groups


def test_six_trains_one_medium_at_a_time_and_fsp_before_what_begins_with_its_nets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(monkeypatch, tmp_path) == [
        ["speech-fsp"],
        ["speech-vp from speech-fsp", "speech-gmvq from speech-fsp"],
        ["image-fsp"],
        ["image-vp from image-fsp", "image-gmvq from image-fsp"],
    ]


def test_media_side_by_side_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(monkeypatch, tmp_path, "", "--together")[0] == ["speech-fsp", "image-fsp"]


def test_what_begins_from_a_run_that_failed_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work/speech-fsp").mkdir(parents=True)
    (tmp_path / "work/speech-fsp/console.txt").write_text("error: no room")
    assert started(monkeypatch, tmp_path, "speech-fsp")[:2] == [["speech-fsp"], ["image-fsp"]]
    error = capsys.readouterr().err
    assert "speech-fsp: failed: error: no room" in error
    assert "speech-vp: not begun: speech-fsp failed" in error


@pytest.mark.slow
@pytest.mark.parametrize("medium", ["image"], indirect=True)
def test_a_fleet_trains_stops_goes_on_and_packs_models(
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[one]\nrecipe = "image-fsp-small"\n\n[two]\nrecipe = "image-gmvq-small"\nseed = 3\n'
        'set = ["codec.options={dim=4, codebook_sizes=[16, 64]}"]\n'
    )
    arguments = [
        str(plan),
        "--data",
        f"image={data}",
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "out"),
    ]
    arguments += [
        "--steps",
        "8",
        "--threads",
        "1",
        "--jobs",
        "1",
        "--log-steps",
        "1",
        "--device",
        "cpu",
    ]
    for change in CHANGES:
        arguments += ["--set", change]
    assert fleet.main([*arguments, "--stop-minutes", "0.02", "--only", "one"]) == 0
    stopped = [
        json.loads(line)["step"]
        for line in (tmp_path / "work/one/log.jsonl").read_text().splitlines()
    ]
    assert 0 < stopped[-1] <= 8
    assert fleet.main(arguments) == 0
    for name in ("one", "two"):
        steps = [
            json.loads(line)["step"]
            for line in (tmp_path / f"work/{name}/log.jsonl").read_text().splitlines()
        ]
        assert steps == list(range(1, 9))
        with tarfile.open(tmp_path / f"out/{name}.tar") as archive:
            archive.extractall(tmp_path / "models", filter="data")
        model = coding.load(cards.read_card(tmp_path / f"models/{name}.json"))
        assert model.card.data["training"]["steps"] == 8
        assert "CPU, 1 threads" in model.card.data["training"]["hardware"]
        assert (tmp_path / f"models/{name}.adversary.safetensors").is_file()
    assert "one: step 8" in capsys.readouterr().out

    # A new training begins with that model and, in stage B, with its discriminator.
    recipe = recipes.load("image-fsp-small", CHANGES)
    run = Trainer(
        recipe, Store(data, "image", (32, 32)), Budget(steps=4), tmp_path / "next", 7, "cpu"
    )
    fresh = {name: value.clone() for name, value in run.codec.state_dict().items()}
    run.stages.begin_from(tmp_path / "models/one.json")
    tensors = cards.read_card(tmp_path / "models/one.json").read()
    for name, value in run.codec.encoder.state_dict().items():
        assert torch.equal(value, torch.tensor(tensors[f"encoder.{name}"]).float())
        assert torch.equal(value, run.average.encoder.state_dict()[name])
    assert not all(
        torch.equal(value, run.codec.state_dict()[name]) for name, value in fresh.items()
    )
    assert (
        run.stages.beginning.name
        == f"one {cards.read_card(tmp_path / 'models/one.json').model_id.hex()}, 0.0 minutes"
    )
    run.save()
    again = Trainer(recipe, run.store, Budget(steps=4), tmp_path / "next", 7, "cpu")
    again.resume()
    assert again.stages.beginning.name == run.stages.beginning.name
    run.enter("B")
    weight = "judge.layers.0.bias"
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "models/one.adversary.safetensors")
    assert torch.equal(run.adversary.nets.state_dict()[weight], kept[weight].float())
    # A model without a discriminator keeps none of an older one of its name.
    stale = tmp_path / "own" / "m.adversary.safetensors"
    stale.parent.mkdir()
    stale.write_bytes(b"of another")
    export(again, "m", stale.parent, {})
    assert not stale.exists()

    # With another bottleneck, and latents of another width, it begins with the nets but for what
    # faces the latents.
    small = "codec.options={dim=8, codebook_sizes=[256]}"
    recipe = recipes.load("image-vp-small", [*CHANGES, small])
    run = Trainer(
        recipe, Store(data, "image", (32, 32)), Budget(steps=4), tmp_path / "other", 7, "cpu"
    )
    fresh = {name: value.clone() for name, value in run.codec.state_dict().items()}
    run.stages.begin_from(tmp_path / "models/one.json")
    assert run.stages.beginning.name.endswith(", nets alone")
    ours = run.codec.state_dict()
    facing = {"encoder.head.weight", "encoder.head.bias", "decoder.stem.weight"}
    assert all(torch.equal(ours[name], fresh[name]) for name in facing)
    for name in set(ours) - facing:
        if name.startswith(("encoder.", "decoder.")):
            assert torch.equal(ours[name], torch.tensor(tensors[name]).float()), name
    recipe = recipes.load("image-fsp-small", [*CHANGES, "codec.preset=small"])
    run = Trainer(
        recipe, Store(data, "image", (32, 32)), Budget(steps=4), tmp_path / "larger", 7, "cpu"
    )
    with pytest.raises(
        CodecError,
        match="has the preset tiny, the recipe the preset small; take the recipe image-fsp",
    ):
        run.stages.begin_from(tmp_path / "models/one.json")


def test_the_report_says_the_time_of_steps_and_the_use_of_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def query(command: list[str], **_: object) -> SimpleNamespace:
        assert command[0] == "nvidia-smi"
        return SimpleNamespace(stdout="97 %, 812 MiB\n3 %, 9 MiB\n")

    monkeypatch.setattr(fleet.subprocess, "run", query)
    (tmp_path / "speech-vp").mkdir()
    record = {"step": 50, "minutes": 0.1, "stage": "A", "loss": 2.5, "steps_per_s": 71.0}
    (tmp_path / "speech-vp/log.jsonl").write_text(json.dumps(record))
    runs = [Run("speech-vp", "speech-vp-small"), Run("image-vp", "image-vp-small")]
    fleet.Fleet(runs, {}, tmp_path, SimpleNamespace(threads=1, jobs=None)).report()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("GPU 97 %, 812 MiB; 3 %, 9 MiB")
    assert lines[1:] == [
        "speech-vp: step 50 minutes 0.1 stage A loss 2.5 steps_per_s 71.0 ms_per_step 14.1",
        "image-vp: nothing logged yet",
    ]


@pytest.mark.parametrize("medium", ["image"], indirect=True)
def test_a_run_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path,
    data: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[good]\nrecipe = "image-fsp"\n\n'
        '[bad]\nrecipe = "image-fsp"\nset = ["data.crop=[4096, 4096]"]\n'
    )
    arguments = [
        str(plan),
        "--data",
        f"image={data}",
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "out"),
    ]
    arguments += ["--steps", "1", "--threads", "1", "--device", "cpu", "--set", "data.batch=1"]
    plan.write_text(
        plan.read_text().replace('"image-fsp"\n\n', '"image-fsp"\nset = ["data.crop=[32, 32]"]\n\n')
    )
    assert fleet.main(arguments) == 1
    output = capsys.readouterr()
    assert "bad: failed: error:" in output.err
    assert "no item holds a crop" in output.err
    assert (tmp_path / "out/good.tar").is_file()
    assert not (tmp_path / "out/bad.tar").exists()


@pytest.mark.parametrize(
    ("plan", "arguments", "message"),
    [
        (
            "nothing",
            [],
            "no such plan; give a .toml file or one of dedicated, queues, six, stages, stages-tiny",
        ),
        ("six", ["--only", "speech-fsp,imagefsp"], "--only imagefsp: not in the plan"),
        ("six", ["--only", "speech-fsp"], "the plan trains on speech; add --data speech=PATH"),
        (
            "six",
            ["--only", "speech-vp"],
            "--only speech-vp: it begins from speech-fsp; add that, or give --init DIR",
        ),
        (
            "six",
            ["--data", "speech=y", "--init", "nowhere"],
            "--init nowhere: no NAME.json of a run there; the runs are speech-fsp, speech-vp, ",
        ),
        ("late.toml", [], "b begins from a, which is no run of its medium before it"),
        ("six", ["--data", "speech"], "want speech=PATH or image=PATH"),
        ("six", ["--data", "image="], "--data image=: want speech=PATH or image=PATH"),
        ("six", ["--data", "sound=y"], "--data sound=y: want speech=PATH or image=PATH"),
        ("six", ["--data", "image=y"], "--data image=y: image has x already; give one"),
        ("wrong.toml", [], "want a table for each run with recipe, set, seed, init"),
        ("misspelt.toml", [], "unknown key data.bach"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    plan: str,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "wrong.toml").write_text('[a]\nrecipes = "image-fsp"\n')
    late = '[b]\nrecipe = "image-vp"\ninit = "a"\n[a]\nrecipe = "image-fsp"\n'
    (tmp_path / "late.toml").write_text(late)
    (tmp_path / "misspelt.toml").write_text('[a]\nrecipe = "image-fsp"\nset = ["data.bach=4"]\n')
    plan = str(tmp_path / plan) if plan.endswith(".toml") else plan
    command = [
        plan,
        "--data",
        "image=x",
        "--work",
        str(tmp_path / "w"),
        "--out",
        str(tmp_path / "o"),
        "--steps",
        "1",
    ]
    assert fleet.main([*command, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("medium", ["image"], indirect=True)
def test_a_run_alone_begins_from_one_that_is_trained(
    tmp_path: Path,
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan, begun = tmp_path / "plan.toml", []
    plan.write_text('[a]\nrecipe = "image-fsp"\n[b]\nrecipe = "image-vp"\ninit = "a"\n')
    given = [str(plan), "--data", f"image={data}", "--work", str(tmp_path), "--only", "b"]
    given += ["--out", str(tmp_path / "out"), "--steps", "4", "--device", "cpu"]
    monkeypatch.setattr(fleet.Fleet, "train", lambda self: begun.append(self.runs) or [])
    monkeypatch.setattr(fleet.Fleet, "export", lambda *_: [])
    words = ["image-fsp", "--data", str(data), "--out", str(tmp_path / "a"), "--device", "cpu"]
    words += ["--set", "data.crop=[32, 32]", "--set", "data.batch=2", "--steps", "4"]
    assert train_main([*words, "--stop-minutes", "1e-9"]) == 0
    assert fleet.main(given) == 1
    assert "begins from a, which has stopped in stage A; add that" in capsys.readouterr().err
    assert not begun
    assert train_main([*words, "--resume"]) == 0
    assert fleet.main(given) == 0
    assert [[run.name for run in runs] for runs in begun] == [["b"]]


def test_a_pack_keeps_to_its_limit(tmp_path: Path) -> None:
    models, run = tmp_path / "models", tmp_path / "run"
    models.mkdir()
    run.mkdir()
    (run / "log.jsonl").write_text("".join(f'{{"step": {i}}}\n' for i in range(10_000)))
    for suffix, size in (
        (".json", 100),
        (".safetensors", 600_000),
        (".adversary.safetensors", 600_000),
    ):
        (models / f"m{suffix}").write_bytes(bytes(size))
    assert pack(models, "m", run, tmp_path / "out", 2)[-1] == "m.adversary.safetensors"
    assert (tmp_path / "out/m.tar").stat().st_size <= 2 * 2**20
    assert pack(models, "m", run, tmp_path / "out", 1) == [
        "m.json",
        "m.safetensors",
        "m.log.jsonl",
    ]
    assert (tmp_path / "out/m.tar").stat().st_size <= 2**20
    with pytest.raises(CodecError, match="raise it"):
        pack(models, "m", run, tmp_path / "out", 0.5)


@pytest.mark.parametrize("blocks", range(58, 64))
def test_a_pack_is_as_large_as_its_limit_at_most(tmp_path: Path, blocks: int) -> None:
    """Whatever of its last record is filled: an archive ends in whole records of twenty blocks."""
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"m{suffix}").write_bytes(bytes(512 * 20))
    (tmp_path / "m.adversary.safetensors").write_bytes(bytes(512 * (blocks - 46)))
    whole = -(-blocks // 20) * 20
    for limit in (60, 61, 79, 80):
        kept = pack(tmp_path, "m", tmp_path, tmp_path / "out", limit / 2048)
        assert ("m.adversary.safetensors" in kept) == (whole <= limit), limit
        assert (tmp_path / "out/m.tar").stat().st_size <= limit * 512


@pytest.mark.parametrize("count", [0, 1, 299, 300, 301, 599, 650, 10_000])
def test_a_packed_log_is_spread_evenly_to_its_last_line(tmp_path: Path, count: int) -> None:
    (tmp_path / "log.jsonl").write_text("".join(f'{{"step": {i}}}\n' for i in range(count)))
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"m{suffix}").write_bytes(b"x")
    pack(tmp_path, "m", tmp_path, tmp_path / "out", 2)
    with tarfile.open(tmp_path / "out/m.tar") as archive:
        file = archive.extractfile("m.log.jsonl")
        assert file is not None
        steps = [json.loads(line)["step"] for line in file.read().splitlines()]
    assert len(steps) == min(count, 300)
    if count:
        assert (steps[0], steps[-1]) == (0, count - 1)
        gaps = np.diff(steps)
        assert not gaps.size or gaps.max() - gaps.min() <= 1


# --- curves


@pytest.fixture
def run(tmp_path: Path) -> Path:
    lines = [
        {"step": i, "minutes": i / 10, "stage": "A", "loss": 1 / (i + 1), "nan": float("nan")}
        for i in range(200)
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/log.jsonl").write_text(
        "".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 200, "min'
    )
    return tmp_path / "a"


def test_curves_fall_as_the_log_does(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch.main([str(run)]) == 0
    text = capsys.readouterr().out
    assert "stage A, step 199, minutes 19.9" in text
    assert "loss: 0.005" in text
    rows = watch.draw(watch.curves(run, ["loss"])["loss"], width=20, height=4)
    heights = [sum(watch.BARS.index(row[12 + column]) for row in rows[:4]) for column in range(20)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 32
    assert heights[-1] == 1
    flat = ([0.0, 1.0], [2.0, 2.0])
    assert len(watch.draw(flat)) == watch.HEIGHT + 2


def test_a_loss_that_is_no_number_any_more_is_shown_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last finite one would be that of a run that is well."""
    log = tmp_path / "log.jsonl"
    lines = [{"step": i, "minutes": i / 10, "loss": 0.5 if i < 3 else float("nan")} for i in (1, 2)]
    for more, told in (([], "loss: 0.5\n"), ([9], "loss: nan, after 0.5 at 0.2 minutes\n")):
        lines += [{"step": i, "minutes": i / 10, "loss": float("nan")} for i in more]
        log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        assert watch.main([str(tmp_path), "--keys", "loss, step"]) == 0
        assert told in capsys.readouterr().out


def test_curves_fit_a_terminal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (40, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        screen = io.StringIO()
        monkeypatch.setattr(screen, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdout", screen)
        assert watch.main([str(run)]) == 0
        rows = [line for line in screen.getvalue().split("\n") if "│" in line]
        widest = max(map(len, rows))
        assert widest == min(columns, watch.MARGIN + watch.WIDTH)


def test_a_plot_file_is_written(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert (
        watch.main([str(run), str(run), "--keys", "loss,step", "--plot", str(tmp_path / "x.png")])
        == 0
    )
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no log here"),
        (["a", "--keys", "lass"], "no numbers logged as lass; there is loss, nan, step"),
        (["a", "--keys", "nan"], "no numbers logged as nan, it was never finite; lower"),
        (["begun"], "no line in the log yet"),
        (["a", "--plot", "x.docx"], "cannot write this kind of picture"),
    ],
)
def test_watching_what_is_not_there_is_one_line(
    run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (run.parent / "begun").mkdir()
    (run.parent / "begun/log.jsonl").touch()
    paths = [
        str(run.parent / part) if part in ("nowhere", "a", "begun", "x.docx") else part
        for part in arguments
    ]
    assert watch.main(paths) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- runs that fail


CHAIN = """[a]
recipe = "image-fsp"

[b]
recipe = "image-vp"
init = "a"

[c]
recipe = "image-gmvq"
init = "b"
"""


def fake_fleet(tmp_path: Path, plan: str, **changed: object) -> fleet.Fleet:
    """A fleet that waits for processes which are none, see `Ended`."""
    (tmp_path / "plan.toml").write_text(plan)
    names = ("threads", "jobs", "init", "lpips_backbone", "compile", "stop_minutes", "together")
    options = dict.fromkeys(names) | {"minutes": None, "steps": 1, "set": [], "pack_mib": 1.0}
    options |= {"log_steps": 1, "checkpoint_minutes": 2.0, "report_seconds": 99.0, "device": "cpu"}
    runs = load_plan(str(tmp_path / "plan.toml"))
    settings = SimpleNamespace(**options | changed)
    return fleet.Fleet(runs, {"image": tmp_path / "i"}, tmp_path / "work", settings)


@pytest.mark.parametrize("code", [1, 3, -9])
def test_nothing_that_comes_of_a_run_that_failed_is_begun(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def start(_: fleet.Fleet, __: list[str], run: Run) -> Ended:
        begun.append(run.name)
        (tmp_path / "work" / run.name).mkdir(parents=True)
        (tmp_path / "work" / run.name / "console.txt").write_text("error: no room")
        return Ended(code)

    monkeypatch.setattr(fleet.Fleet, "_start", start)
    assert fake_fleet(tmp_path, CHAIN).train() == ["a", "b", "c"]
    assert begun == ["a"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a: failed: error: no room"
    assert lines[1:] == ["b: not begun: a failed", "c: not begun: b failed"]


def test_no_run_begins_from_one_that_left_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would train from random weights, and be taken for another."""
    monkeypatch.setattr(fleet.Fleet, "_start", lambda *_: Ended())
    one = fake_fleet(tmp_path, CHAIN)
    assert one.train() == ["b", "c"]
    assert "b: not begun: " in capsys.readouterr().err
    assert "--init" not in one._training(one.runs[0])
    (tmp_path / "work/a").mkdir(parents=True)
    (tmp_path / "work/a/checkpoint.pt").touch()
    command = one._training(one.runs[1])
    assert command[command.index("--init") + 1] == str(tmp_path / "work/a")


def test_a_run_that_has_no_model_to_begin_with_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where --init has models of others: random weights are not what was asked for."""
    one = fake_fleet(tmp_path, CHAIN, init=tmp_path)
    assert "--init" not in one._training(one.runs[0])
    assert capsys.readouterr().err == f"a: there is no a.json in {tmp_path}: random weights\n"
    (tmp_path / "a.json").touch()
    command = one._training(one.runs[0])
    assert command[command.index("--init") + 1] == str(tmp_path / "a.json")
    assert capsys.readouterr().err == ""


def test_a_run_is_trained_as_plan_and_command_line_say(tmp_path: Path) -> None:
    plan = '[a]\nrecipe = "image-fsp-small"\nseed = 7\nset = ["data.batch=2", "data.zoom=1.0"]\n'
    options = {"set": ["data.batch=4"], "compile": True, "lpips_backbone": tmp_path / "b.pth"}
    one = fake_fleet(tmp_path, plan, threads=3, stop_minutes=10.0, **options)
    one.begun -= 4 * 60
    command = one._training(one.runs[0])

    def given(option: str) -> list[str]:
        return [word for name, word in pairwise(command) if name == option]

    assert given("--seed") == ["7"]
    assert given("--threads") == ["3"]
    assert given("--set") == ["data.batch=2", "data.zoom=1.0", "data.batch=4"]  # the last holds
    assert given("--lpips-backbone") == [str(tmp_path / "b.pth")]
    assert "--compile" in command
    assert float(given("--stop-minutes")[0]) == pytest.approx(6, abs=0.1)  # what is left of ten
    one = fake_fleet(tmp_path, plan.replace("-small", ""), **options)
    assert "--lpips-backbone" not in one._training(one.runs[0])  # its recipe does not weigh LPIPS


def test_no_more_runs_than_jobs_are_begun_and_none_when_the_time_is_up(tmp_path: Path) -> None:
    plan = '[a]\nrecipe = "image-fsp"\n[b]\nrecipe = "image-fsp"\n'
    for jobs, begun in ((None, "b"), (2, "b"), (1, None)):
        one = fake_fleet(tmp_path, plan, jobs=jobs, stop_minutes=2.0)
        found = one._next(one.runs[1:], ["a"])
        assert (found and found.name) == begun, jobs
    one.begun -= 100
    assert one._next(one.runs, []) is one.runs[0]
    one.begun -= 30
    assert one._next(one.runs, []) is None


class Stubborn(Ended):
    """A process that ends when it is killed, not before."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def poll(self) -> int | None:
        return None if "kill" not in self.asked else -9

    def terminate(self) -> None:
        self.asked.append("terminate")

    def kill(self) -> None:
        self.asked.append("kill")

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            raise subprocess.TimeoutExpired("train", timeout or 0)
        return -9


def test_a_process_that_does_not_end_is_killed() -> None:
    process = Stubborn()
    fleet._end([process])
    assert process.asked == ["terminate", "kill"]


class Waited(Ended):
    """A process that runs until it is waited for, or asked to end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def poll(self) -> int | None:
        return 0 if self.ended else None

    def wait(self, _: float | None = None) -> int:
        self.ended = True
        return 0


def test_a_pack_that_is_too_large_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = "".join(f'[{name}]\nrecipe = "image-fsp"\n' for name in ("large", "small", "none"))
    (tmp_path / "work/models").mkdir(parents=True)
    for name, size in (("large", 2**21), ("small", 9)):
        (tmp_path / "work" / name).mkdir()
        (tmp_path / "work" / name / "checkpoint.pt").touch()
        (tmp_path / f"work/models/{name}.json").write_bytes(bytes(9))
        (tmp_path / f"work/models/{name}.safetensors").write_bytes(bytes(size))
    monkeypatch.setattr(fleet.Fleet, "_start", lambda *_: Waited())
    assert fake_fleet(tmp_path, plan).export(tmp_path / "out") == ["none", "large"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.tar"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "none: no checkpoint, so there is nothing to export"
    assert lines[1].startswith("large: not packed: ")
    assert len(lines) == 2


def test_an_interrupted_export_leaves_no_process_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor an interrupted training; each is asked to end, and waited for."""
    started: list[Waited] = []

    def start(*_: object) -> Waited:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(Waited())
        return started[-1]

    monkeypatch.setattr(fleet.Fleet, "_start", start)
    plan = "".join(f'[{name}]\nrecipe = "image-fsp"\n' for name in ("a", "b", "c"))
    for name in ("a", "b", "c"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "checkpoint.pt").touch()
    one = fake_fleet(tmp_path, plan)
    for act in (one.train, lambda: one.export(tmp_path / "out")):
        started.clear()
        with pytest.raises(KeyboardInterrupt):
            act()
        assert [process.ended for process in started] == [True, True]


@pytest.mark.parametrize(
    "line",
    [
        "recipe = 5",
        'set = "data.batch=4"',
        "set = [4]",
        'seed = "x"',
        "seed = true",
        "seed = -1",
        "init = 3",
    ],
)
def test_a_plan_with_values_of_another_kind_is_refused(tmp_path: Path, line: str) -> None:
    recipe = "" if line.startswith("recipe") else 'recipe = "image-fsp"\n'
    (tmp_path / "plan.toml").write_text(f"[a]\n{recipe}{line}\n")
    with pytest.raises(CodecError, match="a has values of another kind"):
        load_plan(str(tmp_path / "plan.toml"))
