"""Training end to end on a few random items of real size: resume, stages, recipes, data, export."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from codec import cards, coding
from codec.errors import CodecError
from train import losses, recipes
from train.__main__ import main
from train.__main__ import main as train_main
from train.alone import alone
from train.budget import Budget
from train.data import prepare
from train.draws import Draws
from train.export import export, load_run
from train.loop import Trainer
from train.prepare import main as prepare_main
from train.store import Store

SMALL = ["data.batch=4", "optimiser.warmup_steps=2"]
BROKEN = {"speech": "broken.wav", "image": "broken.png"}
CROPS = {"speech": "data.crop=[1920]", "image": "data.crop=[32, 32]"}


@pytest.fixture(params=["speech", "image"])
def medium(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def media(tmp_path: Path, medium: str) -> Path:
    """A folder of four readable files, tones or plain colours that nets learn at once, and a broken
    one.
    """
    folder = tmp_path / "media"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        if medium == "speech":
            tone = 0.1 * np.sin(np.arange(6000 + i) * rng.uniform(0.05, 0.2))
            soundfile.write(folder / f"{i}.wav", tone + rng.normal(0, 0.001, len(tone)), 16_000)
        else:
            Image.new("RGB", (48, 40), tuple(rng.integers(0, 255, 3))).save(folder / f"{i}.png")
    (folder / BROKEN[medium]).write_text("hello")
    (folder / "notes.txt").write_text("neither broken nor media")
    return folder


@pytest.fixture
def data(tmp_path: Path, medium: str, media: Path) -> Path:
    prepare(medium, [media], tmp_path / "data")
    return tmp_path / "data"


def trainer(
    medium: str,
    data: Path,
    out: Path,
    steps: int,
    bottleneck: str = "fsp",
    extra: tuple[str, ...] = (),
) -> Trainer:
    recipe = recipes.load(f"{medium}-{bottleneck}", [*SMALL, CROPS[medium], *extra])
    store = Store(data, medium, tuple(recipe.data.crop))
    return Trainer(recipe, store, Budget(steps=steps), out, seed=3, device="cpu")


def test_prepare_names_and_counts_what_it_skips(
    tmp_path: Path, medium: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "d"
    assert prepare_main([medium, str(media), "--out", str(data)]) == 0
    record = json.loads(data.with_suffix(".json").read_text())
    assert len(record["shapes"]) == 4
    assert len(record["skipped"]) == 1
    assert BROKEN[medium] in record["skipped"][0]
    assert BROKEN[medium] in capsys.readouterr().err


def test_prepare_refuses_a_folder_with_nothing_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert prepare_main(["speech", str(tmp_path / "empty"), "--out", str(tmp_path / "x")]) == 1
    assert "nothing readable as speech" in capsys.readouterr().err
    assert prepare_main(["speech", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]


def test_a_store_gives_back_what_was_prepared(data: Path, media: Path, medium: str) -> None:
    store = Store(data, medium, (1920,) if medium == "speech" else (32, 32))
    first = store.flat[: int(np.prod(store.shapes[0][:2]))].numpy().reshape(store.shapes[0])
    if medium == "speech":
        original, _ = soundfile.read(media / "0.wav", dtype="int16")
        assert np.abs(first.astype(int) - original).max() <= 1
    else:
        assert np.array_equal(first, np.asarray(Image.open(media / "0.png")))
    batch = store.batch(5, Draws(0))
    assert batch.shape == ((5, 1, 1920) if medium == "speech" else (5, 3, 32, 32))
    assert float(batch.abs().max()) <= 1
    with pytest.raises(CodecError, match="nothing: no such file or folder, nor data"):
        Store(data.parent / "nothing", medium, (1,))
    with pytest.raises(CodecError, match=r"run python -m train\.prepare first"):
        Store(media, medium, (1,))


SMALL_VP = (
    "codec.options={dim=5, codebook_sizes=[16, 64], rows_per_code=4, neighbours=2, "
    "reference_size=16}"
)
SMALL_GMVQ = "codec.options={dim=4, codebook_sizes=[16, 64]}"
RESUMED = {
    "fsp": ("fsp", ()),
    "vp": ("vp", (SMALL_VP,)),
    "gmvq": ("gmvq", (SMALL_GMVQ,)),
    "fsp, stage B": (
        "fsp",
        ("stages={A=0.001, B=0.999}", "adversary.width=2", "adversary.warmup_steps=2"),
    ),
    "vp, all augmentations": ("vp", (SMALL_VP, "data.augment=full", "data.zoom=1.1")),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_takes_the_same_steps(
    tmp_path: Path, medium: str, data: Path, case: str
) -> None:
    """Bit for bit, across a save and a load into fresh objects: VP's queue, random streams,
    discriminator and all.
    """
    bottleneck, extra = RESUMED[case]
    whole = trainer(medium, data, tmp_path / "whole", 100, bottleneck, extra)
    for _ in range(6):
        whole.enter(whole.recipe.stage_at(whole.progress))
        whole.train_step()
    first = trainer(medium, data, tmp_path / "parts", 100, bottleneck, extra)
    for _ in range(3):
        first.enter(first.recipe.stage_at(first.progress))
        first.train_step()
    first.save()
    torch.manual_seed(12345)  # whatever happens between
    second = trainer(medium, data, tmp_path / "parts", 100, bottleneck, extra)
    second.resume()
    for _ in range(3):
        record = second.train_step()
    assert second.step == whole.step == 6
    for name, value in whole.codec.state_dict().items():
        assert torch.equal(value, second.codec.state_dict()[name]), name
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name]), name
    assert record["skipped"] == 0
    assert (whole.adversary is None) == ("stage B" not in case)
    if whole.adversary is not None and second.adversary is not None:
        assert whole.adversary.steps == second.adversary.steps == 5
        for name, value in whole.adversary.nets.state_dict().items():
            assert torch.equal(value, second.adversary.nets.state_dict()[name]), name
    # Negative control: without the random streams, the next step is another one.
    third = trainer(medium, data, tmp_path / "parts", 100, bottleneck, extra)
    third.resume()
    third.draws = Draws(12345)
    for _ in range(3):
        third.train_step()
    assert not all(
        torch.equal(v, third.codec.state_dict()[n]) for n, v in whole.codec.state_dict().items()
    )


@pytest.mark.parametrize("bottleneck", ["fsp", "vp"])
def test_stage_c_adapts_the_decoder_alone_and_the_export_codes(
    tmp_path: Path, medium: str, data: Path, bottleneck: str
) -> None:
    run = trainer(medium, data, tmp_path / "run", 10, bottleneck)
    run.run()
    assert run.stage == "C"
    encoder = {k: v.clone() for k, v in run.codec.encoder.state_dict().items()}
    decoder = {k: v.clone() for k, v in run.codec.decoder.state_dict().items()}
    run.train_step()
    assert all(torch.equal(v, run.codec.encoder.state_dict()[k]) for k, v in encoder.items())
    assert not all(torch.equal(v, run.codec.decoder.state_dict()[k]) for k, v in decoder.items())

    path = export(
        load_run(tmp_path / "run", data),
        f"{medium}-{bottleneck}",
        tmp_path / "models",
        {"note": "a test"},
    )
    model = coding.load(cards.read_card(path))
    x = run.store.batch(1, Draws(0))
    for size in model.codec.bottleneck.codebook_sizes:
        indices = model.codec.encode(x, size)
        assert int(indices.max()) < model.card.num_codes[size]
        assert torch.isfinite(model.codec.decode(indices, tuple(x.shape[2:]), size)).all()
        assert model.tables[size].fit(1, model.card.num_codes[size])
        assert model.tables[size].prior is not None
    assert model.card.data["training"]["note"] == "a test"


def test_training_lowers_the_loss(tmp_path: Path, medium: str, data: Path) -> None:
    run = trainer(medium, data, tmp_path / "run", 40)
    first = np.mean([float(run.train_step()["loss"]) for _ in range(5)])
    for _ in range(25):
        run.train_step()
    assert np.mean([float(run.train_step()["loss"]) for _ in range(5)]) < 0.9 * first


def test_each_size_has_the_same_say(tmp_path: Path, medium: str, data: Path) -> None:
    run = trainer(medium, data, tmp_path / "run", 10)
    drawn = torch.tensor([0, 1, 2, 3])
    distortion = torch.tensor([4.0, 2.0, 1.0, 1.0])
    for _ in range(400):
        weighted = distortion * run.learner.size_weights(torch.eye(4)[drawn], distortion)
    assert weighted.tolist() == pytest.approx([2.0] * 4, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no such recipe"),
        (["image-fsp", "--set", "data.bach=4"], "unknown key data.bach"),
        (["image-fsp", "--set", "bach=4"], "want section.key=value"),
        (["image-fsp", "--set", "codec.preset=huge"], "choose from tiny, small"),
        (["image-fsp", "--set", "stages.A=0.5"], "add up to 1"),
        (["image-fsp", "--set", "codec.options={foo=1}"], "unexpected keyword"),
        (["image-fsp", "--set", "optimiser.learning_rate=fast"], "want float"),
        (["image-fsp", "--set", "data.crop=[128]"], "want 2 numbers"),
        (["speech-fsp", "--set", "data.crop=[800]"], "at least 1056"),
        (["image-fsp", "--set", "losses.l1=much"], "are numbers"),
        (["image-fsp"], "no such file or folder, nor data that python -m train.prepare wrote"),
        (["image-fsp", "--resume"], "no checkpoint to resume; leave --resume out"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        main([*arguments, "--data", str(tmp_path / "none"), "--out", str(out), "--steps", "1"]) == 1
    )
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_data_of_the_other_medium_is_refused(
    tmp_path: Path, medium: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"speech": "image", "image": "speech"}[medium]
    arguments = [
        f"{other}-fsp",
        "--set",
        CROPS[other],
        "--data",
        str(data),
        "--out",
        str(tmp_path / "o"),
        "--steps",
        "1",
    ]
    assert main(arguments) == 1
    assert f"this data is {medium}, the recipe is for {other}" in capsys.readouterr().err


def test_every_shipped_recipe_is_whole() -> None:
    names = recipes.shipped()
    kinds = {f"{m}-{b}" for m in ("speech", "image") for b in ("fsp", "vp", "gmvq")}
    tuned = {f"{kind}-tuned" for kind in kinds}
    nested = {"speech-vp-nested", "image-vp-nested"}
    small = {f"{kind}-small" for kind in kinds}
    adversary = {f"{kind}-adversary" for kind in kinds if kind.startswith("speech")}
    assert kinds | small | tuned | nested | adversary == set(names)
    for name in names:
        recipe = recipes.load(name)
        assert recipe.config().medium == name.split("-")[0]
        assert recipes.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_one_bad_batch_does_not_spoil_the_run(tmp_path: Path, medium: str, data: Path) -> None:
    run = trainer(medium, data, tmp_path / "run", 10)
    run.train_step()
    weight = next(run.codec.decoder.parameters())
    saved = weight.detach().clone()
    weight.data.fill_(float("nan"))
    assert run.train_step()["skipped"] == 1
    weight.data.copy_(saved)
    assert [run.train_step()["skipped"] for _ in range(4)] == [0] * 4
    assert torch.isfinite(run.learner.size_losses).all()


@pytest.mark.parametrize("rate", ["1e-3", "1e9"])
def test_a_run_whose_steps_are_skipped_says_so(
    tmp_path: Path,
    medium: str,
    data: Path,
    rate: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = [*SMALL, CROPS[medium], f"optimiser.learning_rate={rate}", "optimiser.clip=1e9"]
    changes.append("optimiser.warmup_steps=1")
    options = [word for change in changes for word in ("--set", change)]
    command = [f"{medium}-gmvq", "--data", str(data), "--out", str(tmp_path / "run")]
    assert train_main([*command, "--steps", "4", "--set", SMALL_GMVQ, *options]) == 0
    told = "of 4 steps changed nothing, since a gradient was not finite" in capsys.readouterr().err
    assert told == (rate == "1e9")


@pytest.mark.parametrize("name", ["speech-fsp", "image-vp", "image-gmvq", "speech-gmvq-small"])
def test_losses_that_a_recipe_misspells_or_lacks_are_refused_when_it_is_read(name: str) -> None:
    with pytest.raises(
        CodecError, match=r"unknown loss mell; known are .*mel|unknown loss mell; known are l1"
    ):
        recipes.load(name, ["losses.mell=1.0"])
    whole = recipes.load(name).to_dict()
    optional = losses.optional(whole["codec"]["medium"])
    for loss in [name for name in whole["losses"] if name not in optional]:
        fewer = whole | {
            "losses": {key: value for key, value in whole["losses"].items() if key != loss}
        }
        with pytest.raises(CodecError, match=f"no weight for the loss {loss}"):
            recipes.from_dict(fewer)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(CodecError, match="from 0 on"):
            recipes.from_dict(whole | {"losses": whole["losses"] | {loss: wrong}})


def test_a_refused_command_leaves_the_data_of_a_run(
    tmp_path: Path, medium: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(media, tmp_path / "other")
    run = tmp_path / "run"
    words = [f"{medium}-fsp", "--out", str(run), "--set", CROPS[medium], "--set", "data.batch=2"]
    words += ["--steps", "2", "--data"]
    assert main([*words, str(media), "--resume"]) == 1
    assert "no checkpoint to resume" in capsys.readouterr().err
    assert not run.exists()
    assert main([*words, str(media)]) == 0
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert main([*words, str(tmp_path / "other")]) == 1
    assert "holds a run" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "other"), "--resume"]) == 1
    assert "data of other sources" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    # Interrupted before the first checkpoint: what is decoded already is taken.
    (run / "checkpoint.pt").unlink()
    decoded = (run / "data.raw").stat().st_mtime_ns
    assert main([*words, str(media), "--resume"]) == 0
    assert (run / "checkpoint.pt").is_file()
    assert (run / "data.raw").stat().st_mtime_ns == decoded
    # The sources have moved.
    media.rename(tmp_path / "moved")
    assert main([*words, str(run / "data"), "--resume"]) == 0


def test_a_run_is_not_overwritten_and_resumes_to_its_end(
    tmp_path: Path, medium: str, data: Path, capsys
) -> None:
    arguments = [
        f"{medium}-fsp",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--set",
        CROPS[medium],
    ]
    arguments += ["--set", "data.batch=2", "--steps"]
    assert main([*arguments, "3"]) == 0
    assert main([*arguments, "3"]) == 1
    assert "holds a run; continue it with --resume" in capsys.readouterr().err
    (tmp_path / "run/log.jsonl").write_text('{"step": 2}\n{"step": 9}\n')
    assert main([*arguments, "5", "--resume"]) == 0
    assert (tmp_path / "run/log.jsonl").read_text() == '{"step": 2}\n'  # step 9 was never saved
    with pytest.raises(SystemExit):
        main([*arguments, "-1"])
    (tmp_path / "run/checkpoint.pt").write_bytes(b"PK hello")
    assert main([*arguments, "5", "--resume"]) == 1
    assert "cannot read this checkpoint" in capsys.readouterr().err


def test_two_runs_do_not_write_into_one_folder(
    tmp_path: Path, medium: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = [f"{medium}-fsp", "--data", str(data), "--out", str(out), "--steps", "1"]
    words += ["--set", CROPS[medium], "--set", "data.batch=2"]
    with alone(out):
        assert main(words) == 1
    assert "another run is writing there" in capsys.readouterr().err
    assert not list(out.iterdir())
    assert main(words) == 0


def test_media_are_prepared_on_the_way_and_what_is_broken_is_said(
    tmp_path: Path, medium: str, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m train` on a folder with one broken file, and on an empty one."""
    arguments = [
        f"{medium}-fsp",
        "--out",
        str(tmp_path / "run"),
        "--set",
        CROPS[medium],
        "--set",
        "data.batch=2",
    ]
    arguments += ["--device", "cpu", "--data"]
    assert main([*arguments, str(media), "--steps", "2"]) == 0
    assert f"skipped {media / BROKEN[medium]}" in capsys.readouterr().err
    before = (tmp_path / "run/data.raw").stat().st_mtime_ns
    assert main([*arguments, str(media), "--steps", "3", "--resume"]) == 0
    assert (tmp_path / "run/data.raw").stat().st_mtime_ns == before
    assert "is in stage C already: encoder and codebook stay frozen" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    arguments[2] = str(tmp_path / "other")
    assert main([*arguments, str(tmp_path / "empty"), "--steps", "2"]) == 1
    error = capsys.readouterr().err
    assert (
        error == f"error: nothing readable as {medium} in {tmp_path / 'empty'}; 0 files skipped\n"
    )
    assert not (tmp_path / "other").exists()


def test_tensorboard_gets_curves_media_and_use_of_codes(
    tmp_path: Path, medium: str, data: Path
) -> None:
    pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trainer(medium, data, tmp_path / "run", 2)
    run.run(log_steps=1, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"loss", "tokens_per_s"} <= set(tags["scalars"])
    assert {"indices", "latents"} <= set(tags["histograms"])
    assert {"0/original", "0/decoded"} <= set(tags["audio" if medium == "speech" else "images"])


def test_a_recipe_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.toml"
    path.write_text(f'base = "{path}"')
    with pytest.raises(CodecError, match="at most 8 bases"):
        recipes.load(str(path))


def test_data_that_is_not_its_records_is_refused(data: Path, medium: str) -> None:
    raw = data.with_name("data.raw")
    raw.write_bytes(raw.read_bytes()[:-2])
    with pytest.raises(CodecError, match=r"run python -m train\.prepare again"):
        Store(data, medium, (1920,) if medium == "speech" else (32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("medium", ["image"], indirect=True)
@pytest.mark.filterwarnings("ignore")  # of dynamo's own
def test_compiled_nets_take_the_same_steps(
    tmp_path: Path, medium: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacks are traced whole; torch.compile's code generation takes minutes on a CPU."""
    traced: list[torch.nn.Module] = []

    def trace(module: torch.nn.Module, **settings: object) -> None:
        traced.append(module)
        compiled = torch.compile(module._call_impl, backend="eager", fullgraph=True, **settings)
        monkeypatch.setattr(module, "_compiled_call_impl", compiled, raising=False)

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    stages = ("stages={A=0.5, B=0.5}", "adversary.width=1", "adversary.warmup_steps=1")
    eager = trainer(medium, data, tmp_path / "eager", 2, "fsp", stages)
    compiled = Trainer(
        eager.recipe, eager.store, Budget(steps=2), tmp_path / "compiled", 3, "cpu", compiled=True
    )
    runs = [eager, compiled]
    assert len(traced) == 5  # stacks
    for run in runs:
        torch.manual_seed(0)
        for _ in range(2):
            run.enter(run.recipe.stage_at(run.progress))
            record = run.train_step()
        assert record["skipped"] == 0
    assert len(traced) == 5  # judges are not: their compilation takes longer than it saves
    weights = [torch.cat([p.detach().flatten() for p in run.codec.parameters()]) for run in runs]
    assert float((weights[0] - weights[1]).norm() / weights[0].norm()) < 1e-4
    names = [set(run.codec.state_dict()) for run in runs]
    assert names[0] == names[1]
