"""Metrics against second implementations, what cannot be scored, and the benchmark through real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from eval.__main__ import main, summarise
from eval.metrics import pesq_wb, psnr, score, ssim, stoi

RNG = np.random.default_rng(0)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    x = RNG.integers(0, 255, (32, 40, 3), np.uint8)
    return x, np.clip(x + RNG.normal(0, 10, x.shape), 0, 255).astype(np.uint8)


def test_psnr_is_its_definition() -> None:
    x, y = pictures()
    error = ((x.astype(float) - y) ** 2).mean()
    assert psnr(x, y) == pytest.approx(10 * np.log10(255**2 / error))
    assert psnr(x, y) != pytest.approx(10 * np.log10(1 / error), abs=1)  # the range is 255
    assert psnr(x, x) is None


def test_ssim_sees_structure_and_refuses_what_is_too_small() -> None:
    x, y = pictures()
    assert ssim(x, x) == pytest.approx(1)
    assert 0 < ssim(x, y) < 1
    assert ssim(x[:10], y[:10]) is None


@pytest.mark.parametrize("seconds", [0, 1 / 16_000, 0.2])
def test_what_is_too_short_is_not_scored(seconds: float) -> None:
    x = RNG.normal(0, 0.1, int(seconds * 16_000))
    assert score("speech", x, x) == {"PESQ": None, "STOI": None}


def test_silence_is_not_scored() -> None:
    silence = np.zeros(32_000)
    assert pesq_wb(silence, silence) is None
    assert stoi(silence, silence) is None


def test_a_summary_counts_what_was_scored_and_measures_use() -> None:
    records = [
        {"units": 1.0, "bytes": 125, "payload_bytes": 100, "encode_s": 0.1, "decode_s": 0.1, "PESQ": 2.0, "STOI": None},
        {"units": 1.0, "bytes": 375, "payload_bytes": 300, "encode_s": 0.1, "decode_s": 0.1, "PESQ": None, "STOI": 0.5},
    ]
    summary = summarise("speech", records, np.array([[0, 1, 2, 3] * 100]), 8)
    assert summary["rate"] == pytest.approx(2.0)  # kbit/s, the mean over items
    assert (summary["PESQ"], summary["PESQ_scored"], summary["STOI"]) == (2.0, 1, 0.5)
    assert summary["H0"] == pytest.approx(2.0)
    assert summary["CVU"] == pytest.approx(0.5)
    assert summary["bits_per_token"] == pytest.approx(8.0)


def test_the_benchmark_runs_through_real_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for i in range(2):
        Image.fromarray(RNG.integers(0, 255, (24, 40, 3), np.uint8)).save(media / f"{i}.png")
    soundfile.write(media / "speech.wav", RNG.normal(0, 0.1, 8000), 16_000)
    out = tmp_path / "results.json"
    assert main(["image-fsp", "--data", str(media), "-k", "256,1024", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert [r["codebook_size"] for r in results] == [256, 1024]
    for result in results:
        assert result["summary"]["items"] == 2
        assert len(result["skipped"]) == 1
        assert all(r["bytes"] > r["payload_bytes"] > 0 for r in result["records"])
    assert "image-fsp K=256" in capsys.readouterr().out


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nothing", "--data", str(tmp_path)], ["image-fsp", "--data", str(tmp_path / "no")]):
        assert main(arguments) == 1
        assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "a.txt").write_text("hello")
    assert main(["image-fsp", "--data", str(tmp_path), "-k", "1024"]) == 1
    assert "nothing to evaluate" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["eval", "eval.demo", "eval.experiments"])
def test_without_the_extra_one_line_says_so(module: str, tmp_path: Path) -> None:
    """A bare install has no pesq; a module of that name that is not found stands for it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pesq'] = None\n")
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr == "error: pesq is not installed; pip install 'codec[eval]'\n"
