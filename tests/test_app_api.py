"""What programs send to the app that people cannot: nulls, wrong types, long lists.

Also what is left in the end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import ROOT, gradient, picture, tones, wav

from app.comparison import MAX_VERSIONS, sweep
from app.originals import Original
from app.service import Service
from app.store import Settings, TemporaryFiles
from codec.errors import MediaError

pytest.importorskip("gradio", reason="the demo is not installed: pip install '.[app]'")


@pytest.fixture
def service(model_folder: Path, tmp_path: Path) -> Service:
    return Service(
        Settings(models=model_folder, max_seconds=4, max_pixels=100_000), tmp_path / "app"
    )


@pytest.fixture
def source(service: Service, tmp_path: Path) -> Original:
    (tmp_path / "a.png").write_bytes(picture(gradient(24, 32)))
    return service.open(tmp_path / "a.png")


# --------------------------------------------------------------------------------------------------
# endpoints

RIGHT = {
    "compress, null": ("compress", (None, None, None, None)),
    "compress": ("compress", ("", 1024.0, False, 0)),
    "layers": ("compress", ("", 1024, True, 0)),
    "search": ("compress", ("", 1024, False, 2)),
    "decompress, null": ("decompress", (None,)),
    "decompress": ("decompress", (256,)),
    "decompress, 0": ("decompress", (0,)),
    "info": ("info", ()),
    "truncate": ("truncate", (256.0,)),
    "compare, null": ("compare", (None, None, None)),
    "sweep, null": ("sweep", (None,)),
    "edit, null": ("edit", ("random", None, None, None)),
}
WRONG = {
    "half a size": ("compress", ("", 10.5, False, 0), "whole number"),
    "a size in words": (
        "compress",
        ("", "many", False, 0),
        "codebook_size is 'many'",
    ),
    "infinity": ("compress", ("", float("inf"), False, 0), "want a number"),
    "more digits than a float has": ("compress", ("", 10**400, False, 0), "want a number"),
    "true": ("compress", ("", True, False, 0), "want a number"),
    "layers in words": ("compress", ("", 1024, "yes", 0), "layers is 'yes'; want true or false"),
    "a search in words": ("compress", ("", 1024, False, "long"), "search is 'long'; want a number"),
    "a search without end": ("compress", ("", 1024, False, 101), "want 0 to 100 steps"),
    "a search below zero": ("compress", ("", 1024, False, -1), "want 0 to 100 steps"),
    "a layer that there is not": ("decompress", (4096,), "choose from 256, 1024"),
    "a layer in words": ("decompress", ("base",), "want a number"),
    "a cut to nothing": ("truncate", (None,), "codebook_size is 'None'"),
    "a cut to another size": ("truncate", (512,), "choose from 256, 1024"),
    "a size of null": ("compare", ([], [None], []), "codebook_sizes is 'None'"),
    "a size of many digits": ("compare", ([], [-(10**400)], []), "want a number"),
    "models again and again": ("compare", (["image-fsp"] * 300, [256], []), "each model once"),
    "sizes again and again": ("compare", ([], [256] * 300, []), "each codebook size once"),
    "a model of the other medium": (
        "compare",
        (["image-fsp", "speech-fsp"], [256], []),
        "speech-fsp codes speech; choose a model for image",
    ),
    "an unknown model, last": ("compare", (["image-fsp", "x"], [256], []), "o model x; here are"),
    "sizes in words": ("compare", ([], "256", []), "want a list"),
    "models in a word": ("compare", ("image-fsp", [], []), "models is 'image-fsp'; want a list"),
    "models as numbers": ("compare", ([3], [], []), "models holds '3'; want names"),
    "classics in a word": ("sweep", ("jpeg",), "classics is 'jpeg'; want a list"),
    "an object": ("sweep", ({"jpeg": 1},), "want a list"),
    "an unknown classic": (
        "sweep",
        (["jpeg", "flac"],),
        "o classic codec 'flac' for image here; there are ",
    ),
    "all of them": ("sweep", (["all"],), "o classic codec 'all'"),
    "of the other medium": (
        "compare",
        ([], [256], ["opus"]),
        "o classic codec 'opus' for image here",
    ),
    "a number": ("sweep", ([7],), "classics holds '7'; want names"),
    "the same again": ("sweep", (["jpeg"] * 300,), "ame each classic codec once"),
    "the same in compare": ("compare", ([], [256], ["jpeg"] * 3), "ame each classic codec once"),
    "a share in words": ("edit", ("random", "half", 0, 0), "share is 'half'"),
    "a share of many digits": ("edit", ("random", 10**400, 0, 0), "want a number"),
    "a seed of many digits": ("edit", ("random", 0.5, 0, 10**400), "want a number"),
    "a share above all": ("edit", ("random", 10, 0, 0), "share is 10; want 0 to 1"),
    "a seed below zero": ("edit", ("random", 0.5, 0, -1), "seed is -1; want 0 or more"),
}
# Asked last, of a server that has no model of pictures.
WITHOUT = {
    "compress without a model": ("compress", (None,) * 4),
    "compare without a model": ("compare", (None,) * 3),
    "sweep without a model": ("sweep", (None,)),
    "sweep of classics without a model": ("sweep", (["jpeg"],)),
}


# Gradio leaves event loops open, which the suite takes for an error: it runs in a process of its
# own.
CALLS = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import gradio as gr
from app import api
from app.service import Service
from app.store import Settings

models, folder, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
service = Service(Settings(models=models, max_pixels=100_000), folder / "app")
with gr.Blocks() as demo:
    api.build(service)
functions = {function.api_name: function.fn for function in demo.fns.values()}
for name, layers in (("a.bin", False), ("layers.bin", True)):
    made = functions["compress"](str(folder / "a.png"), "", 1024 if layers else 256, layers, 0)[0]
    (folder / name).write_bytes(Path(made).read_bytes())
inputs = {"edit": "a.bin"} | dict.fromkeys(("decompress", "info", "truncate"), "layers.bin")
coded, code = [], service.code
service.code = lambda *given, **more: (coded.append(1), code(*given, **more))[1]
answers = {}
for case, (name, arguments) in cases.items():
    coded.clear()
    if "without a model" in case:
        service.models.cards.pop("image-fsp", None)
    try:
        answer = functions[name](str(folder / inputs.get(name, "a.png")), *arguments)
    except gr.Error as error:
        answer = {"error": error.message, "coded": len(coded)}
    answers[case] = answer
print("answers", json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the endpoints return for each case, or the error that the caller sees."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "a.png").write_bytes(picture(gradient(24, 32)))
    cases = json.dumps({case: entry[:2] for case, entry in (RIGHT | WRONG | WITHOUT).items()})
    done = subprocess.run(
        [sys.executable, "-c", CALLS, str(model_folder), str(folder), cases],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("answers {") + 8 :])
    return found


def test_layers_by_name(answers: dict[str, Any]) -> None:
    info, packed = answers["info"], answers["layers"]
    assert list(info["layers"]) == ["256", "1024"]
    assert packed[2]["bytes"] == info["layers"]["1024"] == int(info["bytes"])
    assert packed[2]["bytes"] > answers["compress"][2]["bytes"]
    assert "layers" not in answers["decompress"][1]
    assert (
        answers["decompress"][1]["codebook size"]
        == answers["truncate"][1]["codebook size"]
        == "256"
    )
    assert int(answers["truncate"][1]["bytes"]) == info["layers"]["256"]
    assert answers["decompress, null"][1] == answers["decompress, 0"][1] == info


def test_null_takes_the_default(answers: dict[str, Any]) -> None:
    figures = answers["compress, null"][2]
    assert (figures["codebook_size"], figures["model"]) == (1024, "image-fsp")
    assert answers["compress"][2]["bytes"] == figures["bytes"]
    assert (figures["search"], answers["search"][2]["search"]) == (0, 2)
    assert [row["codebook_size"] for row in answers["compare, null"][0]] == [256, 1024, 4096, 16384]
    assert len(answers["sweep, null"][0]) == 4
    assert answers["edit, null"][0].endswith(".bin")


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_is_refused_in_plain_words(case: str, answers: dict[str, Any]) -> None:
    """And before anything is coded."""
    assert WRONG[case][2].lower() in answers[case]["error"].lower()
    assert answers[case]["coded"] == 0


@pytest.mark.parametrize("case", WITHOUT)
def test_a_medium_without_a_model_is_said(case: str, answers: dict[str, Any]) -> None:
    assert answers[case]["error"] == "No model for image here; here are speech-fsp."


def test_a_sweep_has_the_bound_of_a_comparison(
    service: Service, source: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [baseline.name for baseline in service.classics.of("image")]
    monkeypatch.setattr("app.comparison.MAX_VERSIONS", 4 * len(known) - 1)
    with pytest.raises(
        MediaError, match=f"that makes {4 * len(known)} versions of classic codecs; choose at most"
    ):
        sweep(service, source, known)
    assert MAX_VERSIONS == 16
    monkeypatch.setattr("app.comparison.MAX_VERSIONS", 4)
    assert len(sweep(service, source, known[:1])) > 4


def test_more_channels_than_the_format_has_are_refused_before_they_are_read(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "many.wav", np.zeros((10, 65), np.float32), 16_000)
    monkeypatch.setattr("codec.media.AudioReader.blocks", lambda _: pytest.fail("a block was read"))
    with pytest.raises(MediaError, match="65 channels; the format has 64"):
        service.open(tmp_path / "many.wav")


# --------------------------------------------------------------------------------------------------
# what is left


def test_files_go_in_time_even_when_nobody_calls(tmp_path: Path) -> None:
    shelf = TemporaryFiles(tmp_path, keep_s=1)
    new = shelf.folder()
    os.utime(new, (later := time.time() + 3600, later))
    old = shelf.folder()
    (old / "voice.wav").write_bytes(wav(tones(500)))
    os.utime(old, (0, 0))
    end = shelf.keep_tidy()
    try:
        limit = time.monotonic() + 30
        while old.exists() and time.monotonic() < limit:
            time.sleep(0.05)
        assert not old.exists()
        assert new.exists()
    finally:
        end()


def test_a_disk_that_fails_does_not_end_the_tidying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, calls = TemporaryFiles(tmp_path, keep_s=0.1), []

    def tidy() -> None:
        calls.append(time.monotonic())
        raise OSError("a disk error")

    monkeypatch.setattr(shelf, "tidy", tidy)
    end = shelf.keep_tidy()
    try:
        limit = time.monotonic() + 30
        while len(calls) < 3 and time.monotonic() < limit:
            time.sleep(0.01)
        assert len(calls) >= 3
    finally:
        end()


@pytest.mark.slow
def test_nothing_is_left_when_the_app_is_told_to_stop(
    root: Path, model_folder: Path, tmp_path: Path
) -> None:
    """By SIGTERM, as services are stopped."""
    environment = os.environ | {
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = [sys.executable, "-m", "app", "--port", port, "--models", str(model_folder)]
    with subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert b"codec demo on" in process.stdout.readline()
        assert list(tmp_path.glob("codec-app-*"))
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode in (0, 130)  # it was waiting already, or about to
    assert not list(tmp_path.glob("codec-app-*"))
