"""A package of one's own, tests/plugin/own_parts: what it registers is trained and used by name, in
every command.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, gradient, picture
from PIL import Image

import codec
from codec import coding, plugins
from codec.bottlenecks import BOTTLENECKS
from codec.cards import find
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.cli.frame import Parser
from codec.container import Reader
from codec.errors import CodecError, ModelError
from codec.losses import EXTRA_LOSSES
from codec.media import Picture
from codec.model import CodecConfig
from codec.nets import NETS
from codec.nets.image import ImageConfig
from train import losses, recipes
from train.__main__ import main as train
from train.export import main as export
from train.prepare import main as prepare

PACKAGE = ROOT / "tests/plugin"
RECIPE = """
base = "image-fsp"
[codec]
kind = "own-patches"
preset = "only"
bottleneck = "own-rounding"
options = {dim = 3, levels = 4}
[losses]
l1 = 1.0
mse = 1.0
ssim = 0.0
outside = 0.5
own-edges = 2.0
"""


def forget() -> None:
    """As in a process that never saw the package."""
    for registry in (BOTTLENECKS, NETS, EXTRA_LOSSES["image"]):
        for name in [name for name in registry if name.startswith("own-")]:
            del registry[name]
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_parts"]:
        del sys.modules[name]
    plugins._seen.clear()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(plugins.VARIABLE, "")
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a model whose bottleneck and nets are the package's, trained for a few steps by
    the commands.
    """
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(gradient(72 + number, 96)).save(folder / f"pictures/{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PACKAGE))
        patch.setenv(plugins.VARIABLE, "")
        threads, rng = torch.get_num_threads(), torch.get_rng_state()
        data, run = str(folder / "data"), str(folder / "run")
        assert prepare(["image", str(folder / "pictures"), "--out", data]) == 0
        steps = [
            "--steps",
            "6",
            "--threads",
            "1",
            "--set",
            "data.batch=2",
            "--set",
            "data.crop=[32, 32]",
        ]
        assert (
            train(
                [
                    str(folder / "own.toml"),
                    "--data",
                    data,
                    "--out",
                    run,
                    *steps,
                    "--import",
                    "own_parts",
                ]
            )
            == 0
        )
        assert (
            export(
                [
                    run,
                    "--data",
                    data,
                    "--out",
                    str(folder),
                    "--name",
                    "image-own",
                    "--import",
                    "own_parts",
                ]
            )
            == 0
        )
        torch.set_num_threads(threads)
        torch.set_rng_state(rng)
    forget()
    return folder / "image-own.json"


def test_a_loss_is_weighed_by_name(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = json.loads(trained.read_text(encoding="utf-8"))["training"]["recipe"]
    assert recipe["losses"]["own-edges"] == 2.0
    monkeypatch.syspath_prepend(str(PACKAGE))
    plugins.add(["own_parts"])
    x, ramp = torch.zeros(2, 3, 16, 16), torch.linspace(0, 1.5, 16).expand(2, 3, 16, 16)
    weighed = losses.build("image", recipe["losses"])(x, ramp)
    assert weighed["own-edges"] == pytest.approx(0.1)  # the slope along one of two axes
    assert set(losses.build("image", {"own-edges": 0.0})(x, ramp)) == {"l1", "mse", "ssim"}


def test_a_loss_that_nobody_registered_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('base = "image-fsp"', encoding="utf-8")
    with pytest.raises(CodecError, match="unknown loss own-edges; known are l1"):
        recipes.load(str(tmp_path / "own.toml"), ["losses.own-edges=1.0"])


def test_a_file_there_and_back_by_command(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --import, and with one line of an error without."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    Path("in.png").write_bytes(picture(gradient(40, 56)))
    assert compress_main(["in.png", "out.bin", "-m", str(trained)]) == 3
    assert "unknown" in capsys.readouterr().err
    assert (
        compress_main(["in.png", "out.bin", "-m", str(trained), "--import", "own_parts", "--test"])
        == 0
    )
    assert decompress_main(["out.bin", "out.png", "-m", str(trained), "--import", "own_parts"]) == 0
    assert np.asarray(Image.open("out.png")).shape == (40, 56, 3)


def test_strips_are_the_whole(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets without layers work on windows of rows that overlap by their context: the cut changes
    nothing.
    """
    monkeypatch.syspath_prepend(str(PACKAGE))
    plugins.add(["own_parts"])
    model, pixels = coding.load(find(str(trained))), gradient(200, 48)
    size = model.codec.bottleneck.default_size
    x = torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255
    with torch.inference_mode():
        indices = model.codec.encode(x, size)
        whole = model.codec.decode(indices, (200, 48), size)[0].movedim(0, -1)
    monkeypatch.setattr("codec.coding.pictures.rows_per_strip", lambda *_: 3)
    file = io.BytesIO()
    coding.compress_image(Picture(io.BytesIO(picture(pixels))), file, model, size)
    assert np.array_equal(
        coding.read_indices(file.getvalue(), model)[1][0, 0], indices.flatten().numpy()
    )
    strips = coding.decompress_image(Reader(io.BytesIO(file.getvalue())), model)
    assert np.array_equal(strips, whole.mul(255).round().clamp(0, 255).to(torch.uint8).numpy())


def installed(folder: Path) -> None:
    """The package as pip leaves it: a folder for its metadata, with an entry point."""
    info = folder / "own_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nown = own_parts\n")
    (folder / "own_parts").symlink_to(PACKAGE / "own_parts")


def test_an_installed_package_needs_no_option(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="own-patches"):
        codec.load(trained)
    installed(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    plugins._seen.clear()
    model = codec.load(trained)
    data = codec.compress(picture(gradient(24, 32)), model=model)
    assert Image.open(io.BytesIO(codec.decompress(data, model))).size == (32, 24)


def test_a_broken_installed_package_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    installed(tmp_path / "site")
    (tmp_path / "site/own_parts").unlink()
    (tmp_path / "site/own_parts.py").write_text("raise RuntimeError('half installed')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with caplog.at_level(logging.WARNING, "codec"):
        plugins.load()
        plugins.load()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the plugin own_parts is left out"
    ]
    assert "half installed" in caplog.text


def test_child_processes_import_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a real command in a process of its own takes a module that lies in the folder."""
    Path("mine.py").write_text(
        "from codec.bottlenecks import BOTTLENECKS, VQ\nBOTTLENECKS['own-vq'] = VQ\n"
    )
    plugins.add(["mine"])
    assert os.environ[plugins.VARIABLE] == "mine"
    script = (
        "from codec import plugins; plugins.load(); "
        "from codec.bottlenecks import BOTTLENECKS; BOTTLENECKS['own-vq']"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path.cwd()}"}
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, env=environment)
    monkeypatch.setenv(plugins.VARIABLE, "")
    Path("mine.py").write_text("print('imported')\n")
    command = [sys.executable, "-W", "error", "-m", "codec.info", "--import", "mine", "nothing.bin"]
    result = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (result.stdout, result.returncode) == ("imported\n", 1)
    del sys.modules["mine"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No module named"),
        ("1 / 0\n", r"ZeroDivisionError: division by zero in .*mine\.py, line 1"),
    ],
)
def test_a_module_that_cannot_be_imported_is_an_option_that_is_wrong(
    text: str | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("mine.py").write_text(text)
    with pytest.raises(CodecError, match=says):
        plugins.add(["mine"])
    with pytest.raises(SystemExit) as stop:
        Parser(prog="command").parse_args(["--import", "mine"])
    assert stop.value.code == 2
    assert "error: --import mine: " in capsys.readouterr().err


def test_nets_are_checked() -> None:
    """Names, sizes of another kind, and a wrong kind for the medium: one line each."""
    with pytest.raises(ValueError, match=r"unknown nets 'own-patches' for image.* --import"):
        CodecConfig("image", ImageConfig(), "fsp", {}, "own-patches")
    with pytest.raises(ValueError, match="for speech"):
        CodecConfig("speech", ImageConfig(), "fsp", {}, "convnext-image")
    with pytest.raises(TypeError, match="have sizes SpeechConfig, not ImageConfig"):
        CodecConfig("speech", ImageConfig(), "fsp")
    with pytest.raises(
        CodecError, match=r"codec\.kind = 'convnext-speech'; choose from convnext-image"
    ):
        recipes.load("image-fsp", ["codec.kind=convnext-speech"])
    config = CodecConfig("image", ImageConfig(), "fsp")
    assert "kind" not in config.to_dict()
    assert config.kind == "convnext-image"
