"""An item that a codec or a metric fails on: it is named and counted, and the run goes on."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav
from numpy.typing import NDArray

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec.errors import BitstreamError
from eval import baselines, metrics
from eval.__main__ import main
from eval.systems import Neighbour

Pixels = NDArray[np.generic]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Pictures of 40, 48 and 56 pixels in width; the first is the one that is failed on."""
    folder = tmp_path / "media"
    folder.mkdir()
    for width in (40, 48, 56):
        (folder / f"{width}.png").write_bytes(picture(gradient(16, width)))
    return folder


@pytest.mark.parametrize(
    ("fault", "reason"), [("tokens", "stub: encode gave float64"), ("file", "cut short")]
)
def test_a_neighbour_that_fails_on_an_item(
    fault: str,
    reason: str,
    media: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def encode(pixels: Pixels) -> Pixels:
        tokens = pixels.reshape(1, -1).astype(np.int64)
        return tokens * 0.5 if fault == "tokens" and pixels.shape[1] == 40 else tokens

    def decode(tokens: NDArray[np.int64], length: int) -> Pixels:
        pixels = tokens.reshape(length, -1, 3).astype(np.uint8)
        if fault == "file" and pixels.shape[1] == 40:
            raise BitstreamError("cut short")
        return pixels

    module = types.ModuleType("mine")
    module.stub = lambda: Neighbour("stub", "8 bit", "image", 256, encode, decode)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    out = tmp_path / "out"
    words = ["--neighbour", "mine:stub", "--data", str(media), "--quick", "--workers", "1"]
    assert main([*words, "--out", str(out)]) == 0
    assert "failed media/40.png by stub 8 bit: " in capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())
    assert [r["item"] for r in results["records"]] == ["48.png", "56.png"]
    (failed,) = results["failed"]
    assert reason in failed["reason"]
    assert results["summary"][0]["failed"] == 1


def test_a_metric_that_fails_on_an_item_is_a_reason(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metrics.METRICS["image"]["SSIM"]

    def failing(x: Pixels, x_hat: Pixels) -> float | None:
        if x.shape[1] == 40:
            raise IndexError("no such\nscale")
        return real(x, x_hat)

    monkeypatch.setitem(metrics.METRICS["image"], "SSIM", failing)
    webp = replace(baselines.BASELINES["webp"], curve=(50,))
    monkeypatch.setitem(baselines.BASELINES, "webp", webp)
    words = ["--baselines", "webp", "--data", str(media), "--quick", "--workers", "1", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    (entry,) = json.loads((tmp_path / "out/results.json").read_text())["summary"]
    assert entry["unscored"]["SSIM"] == {"IndexError: no such scale": 1}
    assert (entry["metrics"]["SSIM"]["scored"], entry["metrics"]["PSNR"]["scored"]) == (2, 3)
    assert "SSIM, 1 x IndexError: no such scale" in (tmp_path / "out/report.md").read_text()
    monkeypatch.setitem(metrics.METRICS["image"], "SSIM", lambda *_: bytearray(1 << 62))
    assert main([*words, str(tmp_path / "other")]) == 1  # no memory: no item would do better


def test_a_run_of_which_nothing_comes_says_why(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError("encoder error -2")

    webp = replace(baselines.BASELINES["webp"], encode=fail, curve=(50,))
    monkeypatch.setitem(baselines.BASELINES, "webp", webp)
    words = ["--quick", "--workers", "1", "--data"]
    assert main(["--baselines", "webp", *words, str(media)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: nothing to evaluate: 3 failed (40.png: webp: OSError: encoder error -2)"
    # A codec of speech that would follow a model of speech, which is not there.
    pytest.importorskip("av", reason="Opus is in the extra [eval]")
    (tmp_path / "a.wav").write_bytes(wav(tones(4000)))
    follow = ["image-fsp", "-k", "256", "--baselines", "opus", "--match-rate", "--no-curves"]
    assert main([*follow, *words, str(tmp_path / "a.wav")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1 skipped (a.wav: speech, which no system of this run codes)" in last


def test_what_is_cut_short_is_measured_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "media", tmp_path / "out"
    folder.mkdir()
    (folder / "cut.wav").write_bytes(wav(tones(16_000))[:-8000])
    (folder / "whole.wav").write_bytes(wav(tones(8_000)))
    stub = Neighbour("stub", "raw", "speech", 1 << 16, as_tokens, from_tokens)
    module = types.ModuleType("mine")
    module.stub = lambda: stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    words = ["--neighbour", "mine:stub", "--data", str(folder), "--workers", "1", "--quick"]
    assert main([*words, "--out", str(out)]) == 0
    notice = "the recording is cut short: coded as far as it goes"
    assert capsys.readouterr().err == f"media/cut.wav: {notice}\n"
    results = json.loads((out / "results.json").read_text())
    assert results["notices"] == [{"set": "media", "item": "cut.wav", "reason": notice}]
    text = (out / "report.md").read_text()
    assert f"Measured, with a notice (1):\n\n- media/cut.wav: {notice}\n" in text
    assert "Skipped" not in text
    assert "LPIPS" not in text  # there is no picture


def as_tokens(sound: NDArray[np.floating]) -> NDArray[np.int64]:
    return (sound.reshape(1, -1) * 32767).round().astype(np.int64) + 32768


def from_tokens(tokens: NDArray[np.int64], length: int) -> NDArray[np.floating]:
    return ((tokens.reshape(-1, 1) - 32768) / 32767).astype(np.float32)[:length]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "interrupted; no unfinished file is left"),
        (["--out", "out"], "interrupted; the same command goes on from what is in out"),
        (
            ["--out", "out", "--fresh"],
            "interrupted; the same command without --fresh goes on from what is in out",
        ),
    ],
)
def test_an_interrupted_run_says_how_it_goes_on(
    options: list[str],
    says: str,
    media: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eval.run.Worker.measure", interrupted)
    words = ["--baselines", "webp", "--data", str(media), "--quick", "--workers", "1"]
    assert main([*words, *options]) == 130
    assert capsys.readouterr().err == f"error: {says}\n"
