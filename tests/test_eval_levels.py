"""Speech at other input levels: what is coded, what it is held against, and every kind of bad
input.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec import api
from codec.media import load_audio
from eval.__main__ import main
from eval.datasets import find, load_signal
from eval.metrics import mel_distance
from eval.paths import file_path
from eval.signals import at_level


def level_of(signal: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))))


@pytest.mark.parametrize("level", [-80, -50, -12.5])
def test_a_clip_is_brought_to_the_level(level: float) -> None:
    x = tones(20_000)
    y = at_level(x, level)
    assert y.dtype == np.float32
    assert level_of(y) == pytest.approx(level, abs=1e-3)
    assert np.corrcoef(x[:, 0], y[:, 0])[0, 1] == pytest.approx(1)


def test_what_is_beyond_full_scale_is_cut_off_and_silence_stays() -> None:
    spike = np.array([[1.0], *[[0.0]] * 99], np.float32)
    assert at_level(spike, -6).max() == 1
    assert not np.any(at_level(np.zeros((100, 1), np.float32), -6))
    assert at_level(np.empty((0, 1), np.float32), -6).shape == (0, 1)


def test_a_decoded_clip_is_held_against_the_levelled_original(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mel distance sees the level: against the original as recorded it would be several times
    as large.
    """
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.wav").write_bytes(wav(tones(32_000)))
    (tmp_path / "set/b.png").write_bytes(picture(gradient(32, 32)))
    words = [
        "speech-vp",
        "--data",
        str(tmp_path / "set"),
        "-k",
        "1024",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--level-dbfs", "-50", "-20"]) == 0
    printed = capsys.readouterr()
    assert "skipped set at -50 dBFS/b.png: a picture, which has no level" in printed.err
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [r["set"] for r in results["records"]] == ["set at -20 dBFS", "set at -50 dBFS"]
    recorded = load_signal(find(str(tmp_path / "set")).items[0])[1]
    for record, level in zip(results["records"], (-20, -50), strict=True):
        assert f"speech-vp K=1024 on {record['set']}: 1 items" in printed.out
        data = file_path(tmp_path / "out", "speech-vp", "1024", record["set"], "a.wav").read_bytes()
        decoded = load_audio(io.BytesIO(api.decompress(data)))[0][:, 0]
        assert level_of(decoded) == pytest.approx(level, abs=4)
        right = mel_distance(at_level(recorded, level)[:, 0], decoded)
        assert record["mel"] == pytest.approx(right, abs=0.02)
    assert mel_distance(recorded[:, 0], decoded) > 3 * record["mel"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("want -90 to 0 dB", ["--level-dbfs", "3"]),
        ("want -90 to 0 dB", ["--level-dbfs", "nan"]),
        ("one --level-dbfs at most", ["--level-dbfs", "-20", "-30", "--card", "x"]),
    ],
)
def test_levels_that_are_none_are_refused(
    message: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tones(16_000)))
    assert main(["speech-fsp", "--data", str(tmp_path / "a.wav"), *words]) == 2
    assert message in capsys.readouterr().err
