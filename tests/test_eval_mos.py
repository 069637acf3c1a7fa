"""DistillMOS: the package's own figure, without an original, and where there is none."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tones, wav

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec.errors import not_installed
from codec.media import load_audio
from codec.medium import SAMPLE_RATE
from eval.__main__ import main
from eval.metrics import measure

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def rng_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test draws does not depend on the tests before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


@pytest.fixture(scope="module")
def judge():  # type: ignore[no-untyped-def]
    pytest.importorskip("distillmos", reason="the judge without an original is in the extra [mos]")
    from eval.mos import DistillMOS

    return DistillMOS()


@pytest.mark.parametrize("seconds", [1.0, 5.3, 9.2])
def test_it_is_the_package_s_figure(seconds: float, judge) -> None:  # type: ignore[no-untyped-def]
    """Padded, whole and in three windows.

    The package, which takes them at once, is the second implementation.
    """
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):
        second = ConvTransformerSQAModel().eval()
    x = tones(int(seconds * SAMPLE_RATE))[:, 0] + RNG.normal(
        0, 0.01, int(seconds * SAMPLE_RATE)
    ).astype(np.float32)
    with torch.inference_mode():
        assert judge.score(x) == pytest.approx(float(second(torch.tensor(x)[None])), abs=1e-5)
    assert judge(np.ones(3), x) == judge.score(x)  # the original is not looked at
    assert judge.score(x / 100) == pytest.approx(judge.score(x), abs=1e-3)  # nor the level


def test_what_has_no_figure(judge) -> None:  # type: ignore[no-untyped-def]
    noise = RNG.normal(size=16_000)
    for x, reason in ((0 * noise, "silence"), (noise[1:], "below 1 s"), (noise[:0], "below 1 s")):
        assert measure(judge, x, x) == (None, reason)
    assert measure(judge, 0 * noise, noise) == (None, "silence")
    assert measure(judge, noise, 0 * noise) == (None, "silence")


def test_people_s_speech_is_good_and_noise_makes_it_worse(judge, real) -> None:  # type: ignore[no-untyped-def]
    for number in (0, 2):
        x = load_audio(io.BytesIO(real("speech-test.tar", number)), SAMPLE_RATE)[0][:80_000, 0]
        clean, noisy = judge.score(x), judge.score(x + RNG.normal(0, 0.02, x.shape))
        assert 3 < clean < 5
        assert noisy < clean - 0.5


def test_a_run_has_it_for_systems_and_for_originals(judge, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]  # noqa: ARG001
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.wav").write_bytes(wav(tones(24_000)))
    (tmp_path / "clips/b.wav").write_bytes(wav(0 * tones(24_000)))
    words = [
        "speech-fsp",
        "--data",
        str(tmp_path / "clips"),
        "-k",
        "256",
        "--workers",
        "1",
        "--quick",
        "--mos",
    ]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "weights loaded" not in printed
    (original,) = json.loads((tmp_path / "out/results.json").read_text())["originals"]
    assert (original["metric"], original["scored"], original["of"]) == ("DistillMOS", 1, 2)
    assert f"originals of clips: DistillMOS {original['mean']:.4g} (1/2)" in printed
    report = (tmp_path / "out/report.md").read_text()
    assert f"DistillMOS of the originals: {original['mean']:.2f} 1/2." in report
    assert "- DistillMOS, 1 x silence: speech-fsp 256" in report


def test_without_its_package_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distillmos", None)
    (tmp_path / "a.wav").write_bytes(wav(tones(16_000)))
    assert main(["speech-fsp", "--data", str(tmp_path / "a.wav"), "--mos", "--workers", "1"]) == 3
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert error == [f"error: DistillMOS: {not_installed('distillmos', 'mos')}"]
