"""What a run knows of its past: the model it began from, and the machines it was trained on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from conftest import export as write_card
from safetensors.torch import save_file
from test_train import data, media, trainer  # noqa: F401  fixtures

from codec.errors import CodecError
from codec.model import build
from train import export as exporting
from train import recipes
from train.beginning import ADVERSARY_SUFFIX, begin
from train.checkpoint import read_checkpoint, write_checkpoint
from train.discriminators import DISCRIMINATORS
from train.export import load_run
from train.hardware import hardware, joined
from train.model_files import write_model

STAGES = "stages={A=0.5, B=0.25, C=0.25}"


@pytest.fixture
def medium() -> str:
    return "image"


@pytest.fixture
def model(tmp_path: Path, data: Path, medium: str) -> Path:  # noqa: F811
    """The card of a finished model of the recipe image-fsp."""
    return write_card(tmp_path / "models", "mine", trainer(medium, data, tmp_path / "x", 1).codec)


@pytest.mark.parametrize(
    ("before", "now", "both"),
    [
        ("NVIDIA H100", "NVIDIA H100", "NVIDIA H100"),
        ("NVIDIA H100", "8 x NVIDIA H100", "NVIDIA H100, then 8 x NVIDIA H100"),
        ("8 x NVIDIA H100", "NVIDIA H100", "8 x NVIDIA H100, then NVIDIA H100"),
        ("A, then CPU, 2 threads", "CPU, 2 threads", "A, then CPU, 2 threads"),
        ("A, then B", "A", "A, then B, then A"),
    ],
)
def test_the_card_has_each_part_of_the_hardware_once(before: str, now: str, both: str) -> None:
    assert joined(before, now) == both


def test_an_export_is_no_training_and_joins_no_hardware(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
) -> None:
    run = trainer(medium, data, tmp_path / "run", 1)
    run.hardware = "NVIDIA H100"
    run.save()
    assert load_run(tmp_path / "run", data).hardware == "NVIDIA H100"
    both = f"NVIDIA H100, then {hardware('cpu')}"
    for _ in range(2):  # there is nothing left to train the second time
        run = trainer(medium, data, tmp_path / "run", 1)
        run.resume()
        run.run()
        assert run.hardware == both
    assert load_run(tmp_path / "run", data).hardware == both


def test_a_run_goes_on_from_another_folder(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The discriminator beside the model is found in stage B, wherever the run goes on."""
    kept = DISCRIMINATORS[medium](1).state_dict()
    save_file(kept, model.with_name(f"mine{ADVERSARY_SUFFIX}"))
    extra = ("adversary.width=1", STAGES)
    run = trainer(medium, data, tmp_path / "run", 8, extra=extra)
    monkeypatch.chdir(model.parent)
    state = torch.get_rng_state()
    run.stages.begin_from(Path("mine.json"))
    assert torch.equal(torch.get_rng_state(), state)
    run.save()
    monkeypatch.chdir(tmp_path)
    run = trainer(medium, data, tmp_path / "run", 8, extra=extra)
    run.resume()
    run.enter("B")
    assert run.adversary is not None
    nets = run.adversary.nets.state_dict()
    assert all(torch.equal(nets[name], value) for name, value in kept.items())


@pytest.mark.parametrize("content", [None, b"", b"hello"])
def test_a_discriminator_that_does_not_fit_is_refused_before_the_run(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    model: Path,
    content: bytes | None,
) -> None:
    path = model.with_name(f"mine{ADVERSARY_SUFFIX}")
    if content is None:
        save_file(DISCRIMINATORS[medium](2).state_dict(), path)
    else:
        path.write_bytes(content)
    run = trainer(medium, data, tmp_path / "run", 8, extra=("adversary.width=1", STAGES))
    with pytest.raises(CodecError, match="not the discriminator of this recipe"):
        run.stages.begin_from(model)
    run = trainer(medium, data, tmp_path / "run", 8)  # which needs none
    run.stages.begin_from(model)


def test_a_discriminator_that_has_gone_is_not_replaced_by_a_new_one(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    model: Path,
) -> None:
    path = model.with_name(f"mine{ADVERSARY_SUFFIX}")
    save_file(DISCRIMINATORS[medium](1).state_dict(), path)
    extra = ("adversary.width=1", STAGES)
    run = trainer(medium, data, tmp_path / "run", 8, extra=extra)
    run.stages.begin_from(model)
    run.save()
    path.unlink()
    with pytest.raises(CodecError, match=r"was here when the run began; put it back and --resume"):
        run.enter("B")
    run = trainer(medium, data, tmp_path / "run", 8, extra=extra)
    run.resume()  # which an export does, too
    with pytest.raises(CodecError, match=r"or give the run's folder to --init"):
        run.run()
    assert run.step == 0
    other = trainer(medium, data, tmp_path / "other", 8, extra=extra)
    other.stages.begin_from(tmp_path / "run")
    other.enter("B")


def test_a_run_does_not_go_on_with_another_discriminator(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
) -> None:
    run = trainer(medium, data, tmp_path / "run", 8, extra=("adversary.width=1", STAGES))
    run.enter("B")
    run.save()
    other = trainer(medium, data, tmp_path / "run", 8, extra=("adversary.width=2", STAGES))
    with pytest.raises(CodecError, match="does not fit the recipe, its adversary perhaps"):
        other.resume()


@pytest.mark.parametrize("told", [True, False])
def test_a_resumed_run_knows_whether_its_beginning_was_complete(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    model: Path,
    told: bool,
) -> None:
    """In a checkpoint of an older version, the name alone tells it."""
    for bottleneck, complete in (("fsp", True), ("vp", False), ("fsp", None)):
        run = trainer(medium, data, tmp_path / "run", 8, bottleneck)
        if complete is not None:
            run.stages.begin_from(model)
        assert run.stages.beginning.complete is bool(complete)
        run.save()
        path = tmp_path / "run/checkpoint.pt"
        state = read_checkpoint(path)
        if not told:
            state.pop("complete", None)
            write_checkpoint(path, state)
        again = trainer(medium, data, tmp_path / "run", 8, bottleneck)
        again.resume()
        assert again.stages.beginning == run.stages.beginning


def test_a_run_that_fails_closes_its_log(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorBoard's last events are in memory until then."""
    run = trainer(medium, data, tmp_path / "run", 8)
    closed = []
    monkeypatch.setattr("train.loop.Report.close", lambda _: closed.append(True))

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert closed == [True]


def test_a_card_never_lies_beside_the_weights_of_another(tmp_path: Path, medium: str) -> None:
    tensors = {"x": torch.zeros(3).numpy()}
    assert write_model(tmp_path, "m.1", {"name": medium}, tensors) == tmp_path / "m.1.json"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"m.1.json", "m.1.safetensors"}
    with pytest.raises(TypeError):
        write_model(tmp_path, "m.1", {"name": object()}, {"x": torch.ones(3).numpy()})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("judged", [True, False])
def test_a_model_keeps_its_discriminator_where_the_next_cannot_be_written(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    judged: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trainer(medium, data, tmp_path / "run", 9, extra=("adversary.width=1",))
    if judged:
        run.enter("B")
    (tmp_path / "models").mkdir()
    kept = tmp_path / "models/m.adversary.safetensors"
    kept.write_bytes(b"of the model that is there")

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(exporting, "write_model", full)
    monkeypatch.setattr(exporting, "prior_tensors", lambda *_, **__: {})
    with pytest.raises(OSError, match="no space"):
        exporting.export(run, "m", tmp_path / "models", {})
    assert [path.name for path in (tmp_path / "models").iterdir()] == [kept.name]
    assert kept.read_bytes() == b"of the model that is there"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "codec.preset=small",
            "this model has the preset tiny, the recipe the preset small; "
            "take the recipe image-fsp, or --set codec.preset=tiny",
        ),
        ("", "this model is for image, the recipe for speech"),
    ],
)
def test_a_model_that_does_not_fit_names_what_would(
    tmp_path: Path,
    data: Path,  # noqa: F811
    medium: str,
    change: str,
    message: str,
) -> None:
    run = trainer(medium, data, tmp_path / "run", 1)
    run.save()
    recipe = recipes.load("image-fsp", [change]) if change else recipes.load("speech-fsp")
    with pytest.raises(CodecError) as caught:
        begin(tmp_path / "run", [build(recipe.config())])
    assert str(caught.value) == f"{tmp_path / 'run'}: {message}"
