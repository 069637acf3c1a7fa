"""Every script and notebook in examples/ runs, small."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, tones

import codec
from codec.bottleneck import BottleneckOutput
from codec.bottlenecks import BOTTLENECKS

EXAMPLES = ROOT / "examples"
TESTED = {
    "own_autoencoder",
    "own_bottleneck",
    "language_model",
    "streaming",
    "neighbour",
    "latents",
    "limits",
    "pictures",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a few recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    Path("recordings").mkdir()
    for number in range(3):
        soundfile.write(f"recordings/{number}.wav", tones(16_000 + 800 * number), 16_000)
    return tmp_path


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")} == TESTED


@pytest.mark.parametrize("method", ["fsp", "vp", "gmvq", "vq"])
def test_own_autoencoder(method: str) -> None:
    """It learns: after a few steps it is better than the mean picture, through true indices."""
    example = load("own_autoencoder")
    x = example.pictures(64, torch.Generator().manual_seed(1))
    _, error = example.train(method, steps=60)
    assert error < float((x - x.mean(0)).square().mean())


@pytest.fixture
def own_bottleneck() -> Iterator[ModuleType]:
    """The example, whose method is registered until the test ends."""
    yield load("own_bottleneck")
    del BOTTLENECKS["signs"]


def test_own_bottleneck(own_bottleneck: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    """Registered, checked, trained, exported, and in a line of the evaluation beside a shipped
    model.
    """
    small = ["--set", "data.batch=2", "--set", "data.crop=[2400]"]
    assert (
        own_bottleneck.main(
            ["--data", "recordings", "--work", "own", "--steps", "3", "--threads", "1", *small]
        )
        == 0
    )
    out = capfd.readouterr().out
    assert "speech-signs K=1024" in out
    assert "speech-fsp K=1024" in out


def test_the_check_of_own_bottlenecks_finds_a_broken_law(own_bottleneck: ModuleType) -> None:
    class Broken(own_bottleneck.Signs):  # type: ignore[name-defined, misc]
        def forward(self, z: torch.Tensor, codebook_size: int | None = None) -> BottleneckOutput:  # noqa: ARG002
            return BottleneckOutput(2 * z, None)

    own_bottleneck.check(own_bottleneck.Signs())
    with pytest.raises(AssertionError, match="decode"):
        own_bottleneck.check(Broken())


def test_language_model() -> None:
    example = load("language_model")
    assert (
        example.main(["recordings", "--out", "sample.wav", "--steps", "3", "--seconds", "0.1"]) == 0
    )
    assert soundfile.info("sample.wav").duration == pytest.approx(0.1 + 32 * 96 / 16_000, abs=0.01)


def test_the_language_model_learns_and_looks_only_back() -> None:
    """A pattern is learnt; and a later token changes no earlier prediction."""
    example = load("language_model")
    tokens = torch.arange(8).repeat(50)
    net = example.train(tokens, num_codes=8, minutes=0, steps=40, batch=4)
    drawn = example.sample(net, tokens[:8], 8, temperature=0.1)
    assert (drawn[8:] == torch.arange(8)).sum() >= 6
    with torch.inference_mode():
        a, b = tokens[None, :16].clone(), tokens[None, :16].clone()
        b[0, -1] = 0
        assert torch.allclose(net(a)[:, :15], net(b)[:, :15], atol=1e-5)
        assert not torch.allclose(net(a)[:, 15], net(b)[:, 15], atol=1e-5)


def test_a_folder_without_recordings_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert load("language_model").main(["empty"]) == 1
    assert capsys.readouterr().err == "error: empty: no recordings here\n"


def test_streaming_gives_the_bytes_of_whole_files() -> None:
    example = load("streaming")
    soundfile.write("input.wav", tones(250_000, channels=2), 16_000)
    assert example.main(["input.wav", "out.bin", "restored.wav"]) == 0
    data = codec.compress(Path("input.wav").read_bytes())
    assert Path("out.bin").read_bytes() == data
    whole, _ = soundfile.read("restored.wav")
    assert whole.shape == (250_000, 2)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("language_model", ["recordings", "-k", "300"]),
        ("limits", ["--model", "nope"]),
        ("streaming", ["recordings/0.wav", "out.bin", "out.wav", "-k", "300"]),
    ],
)
def test_what_cannot_be_coded_is_one_line(
    name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(name).main(arguments) > 0
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not Path("out.bin").exists()


def test_a_sample_that_cannot_be_written_is_refused_before_the_training() -> None:
    for out in ("recordings", "sample.txt"):
        with pytest.raises(SystemExit) as stopped:
            load("language_model").main(["recordings", "--out", out])
        assert stopped.value.code == 2


def test_neighbour(capfd: pytest.CaptureFixture[str]) -> None:
    from eval.__main__ import main

    assert main([
        "speech-fsp", "-k", "256", "--data", "recordings", "--first", "1", "--quick",
        "--workers", "1", "--neighbour", "examples.neighbour:mu_law",
    ]) == 0  # fmt: skip
    line = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("mu-law"))
    assert "64" in line.split("kbit/s")[0]
    assert float(line.split("STOI ")[1].split()[0]) > 0.95


def test_latents() -> None:
    """Three pictures that are not blank."""
    from PIL import Image

    assert load("latents").main(["--out", "pictures"]) == 0
    for name in ("vp", "fsp", "gmvq"):
        assert np.asarray(Image.open(f"pictures/latent-{name}.webp").convert("L")).std() > 5


def test_limits() -> None:
    """Three panels, of which the second and third are not the first."""
    from PIL import Image

    assert load("limits").main(["--out", "pictures"]) == 0
    sheet = np.asarray(Image.open("pictures/limits.webp").convert("RGB"), float)
    original, small, large = (sheet[26 : 26 + 320, 10 + 330 * i : 330 + 330 * i] for i in range(3))
    assert 1 < np.abs(large - original).mean() < np.abs(small - original).mean()


def test_the_notebook_runs_and_holds_no_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((EXAMPLES / "pictures.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    names: dict[str, object] = {}
    for cell in code:
        exec(compile("".join(cell["source"]), "pictures.ipynb", "exec"), names)
    assert len(plt.get_fignums()) == 2
    plt.close("all")
