"""Odd media through the commands: a pipe gives what a file gives, a line says what is lost, a
folder is done whole.
"""

from __future__ import annotations

import io
import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import picture, tones, wav
from PIL import Image

from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main

pytestmark = pytest.mark.usefixtures("models")

CUT = "WARNING: the recording is cut short: coded as far as it goes"


def sized(data: bytes, name: bytes, size: int, order: str = "<") -> bytes:
    at = data.find(name) + 4
    return data[:at] + struct.pack(f"{order}I", size) + data[at + 4 :]


RECORDINGS = {
    "size 0": sized(wav(tones(4000)), b"data", 0),
    "size of sox": sized(wav(tones(4000)), b"data", 0x7FFFF000),
    "stale size of the file": sized(wav(tones(4000)), b"RIFF", 4036),
    "24 bits": wav(tones(4000), subtype="PCM_24"),
    "a-law of unknown size": sized(wav(tones(4000), subtype="ALAW"), b"data", 0xFFFFFFFF),
    "rf64": wav(tones(4000), kind="RF64"),
    "aiff of unknown size": sized(wav(tones(4000), kind="AIFF"), b"SSND", 0x7FFFF000, ">"),
    "flac": wav(tones(4000), kind="FLAC"),
    "ogg twice": wav(tones(2000), kind="OGG", subtype="VORBIS") * 2,
    "cut wav": wav(tones(8000))[: 44 + 8000],
    "cut aiff": wav(tones(8000), kind="AIFF")[:8000],
    "cut ogg": wav(tones(100_000), kind="OGG", subtype="VORBIS")[:9000],
    "cut opus": wav(tones(100_000), kind="OGG", subtype="OPUS")[:9000],
    "cut mp3": wav(tones(100_000), kind="MP3", subtype=None)[:9000],
    "cut flac": wav(tones(100_000), kind="FLAC")[:90000],
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_pipe_gives_what_a_file_gives(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in").write_bytes(RECORDINGS[name])
    reports, errors = [], []
    for source in (tmp_path / "in", "-"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(RECORDINGS[name])))
        assert compress_main([str(source), str(tmp_path / f"{len(reports)}.bin"), "--json"]) == 0
        out, err = capsys.readouterr()
        reports.append(json.loads(out))
        errors.append(err.splitlines())
    assert (tmp_path / "0.bin").read_bytes() == (tmp_path / "1.bin").read_bytes()
    assert errors[0] == errors[1] == ([CUT] if "cut" in name else [])
    if "cut" not in name:
        assert reports[1]["duration_s"] == 0.25
    assert reports[1]["bytes_in"] == len(RECORDINGS[name])


def test_a_picture_too_large_for_its_format_does_not_end_a_folders_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = Image.fromarray(np.tile(np.arange(0, 250, 10, dtype=np.uint8)[:, None], (1, 16384)))
    folder = tmp_path / "packed"
    folder.mkdir()
    for name, data in (
        ("a.webp", picture(wide)),
        ("b.png", picture(np.zeros((9, 9, 3), np.uint8))),
    ):
        (tmp_path / name).write_bytes(data)
        assert compress_main([str(tmp_path / name), str(folder / f"{name}.bin"), "-q"]) == 0
    capsys.readouterr()
    assert decompress_main([str(folder), str(tmp_path / "out"), "-q"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"error: {folder / 'a.webp.bin'}: .webp holds at most 16383 pixels a side, not 16384x25; "
        "write a .png",
        "error: 1 of 2 files failed",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png"]
    assert decompress_main([str(folder / "a.webp.bin"), str(tmp_path / "a.png"), "-q"]) == 0


def test_an_error_without_a_number_keeps_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("encoder error -2 when writing image file")

    (tmp_path / "a.png").write_bytes(picture(np.zeros((9, 9, 3), np.uint8)))
    assert compress_main([str(tmp_path / "a.png"), str(tmp_path / "a.bin"), "-q"]) == 0
    monkeypatch.setattr("codec.media.ImageWriter.close", fail)
    assert decompress_main([str(tmp_path / "a.bin"), str(tmp_path / "b.png"), "-q"]) == 1
    assert capsys.readouterr().err == "error: encoder error -2 when writing image file\n"


def test_max_pixels_has_its_effect_above_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr("codec.media.pictures.STRIP_PIXELS", 64)
    (tmp_path / "a.png").write_bytes(picture(np.zeros((40, 40, 3), np.uint8)))
    assert (
        compress_main([str(tmp_path / "a.png"), str(tmp_path / "a.bin"), "--max-pixels", "1600"])
        == 0
    )
    assert (
        compress_main([str(tmp_path / "a.png"), str(tmp_path / "b.bin"), "--max-pixels", "1599"])
        == 1
    )
    assert "raise --max-pixels" in capsys.readouterr().err
