"""What the newest commands and functions had of the faults that older ones were rid of: names,
walks, arguments.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import codec
from codec import CodecError, MediaError, layers
from codec.cli.info import info_main
from codec.cli.truncate import truncate_main
from codec.files import Pipe

FILE = sorted((Path(__file__).parent.parent / "assets/golden").glob("*.bin"))
LAYERED = next(path for path in FILE if path.read_bytes()[9:10] == b"\x02")


def test_truncate_names_a_file_in_a_notice_once_and_only_among_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.bin", "b.bin"):
        (tmp_path / "in" / name).write_bytes(LAYERED.read_bytes())
    one = tmp_path / "in/a.bin"
    notice = f"even its base, K = {min(codec.info(LAYERED)['layers'])}, is above --bitrate 1e-06"
    assert truncate_main([str(one), str(tmp_path / "one.bin"), "-b", "1e-6"]) == 0
    assert capsys.readouterr().err == f"WARNING: {notice}\n"
    assert truncate_main([str(tmp_path / "in"), str(tmp_path / "out"), "-b", "1e-6"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"WARNING: {tmp_path / 'in' / name}: {notice}" for name in ("a.bin", "b.bin")
    ]


@pytest.mark.parametrize("names", [("", "out.bin"), ("in.bin", "")])
def test_truncate_takes_no_empty_name(
    names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        truncate_main([*names, "-k", "256"])
    assert stop.value.code == 2
    assert "it is empty; is a variable not set?" in capsys.readouterr().err


def test_truncate_names_a_folder_that_it_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.bin", "bad/b.bin", ".hidden/c.bin"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(LAYERED.read_bytes())
    scandir = os.scandir

    # Root may read everything, so the system is played.
    def refuse(path: str | os.PathLike[str] = ".") -> object:
        if Path(path).name == "bad":
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    base = str(min(codec.info(LAYERED)["layers"]))
    assert truncate_main([str(tmp_path / "in"), str(tmp_path / "out"), "-k", base]) == 1
    assert f"error: {tmp_path / 'in/bad'}: Permission denied" in capsys.readouterr().err
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "out").rglob("*.bin")] == ["a.bin"]


FORMS: dict[str, Callable[[], object]] = {
    "str": lambda: str(LAYERED),
    "Path": lambda: LAYERED,
    "bytearray": lambda: bytearray(LAYERED.read_bytes()),
    "memoryview": lambda: memoryview(LAYERED.read_bytes()),
    "every second byte": lambda: memoryview(
        bytes(b for byte in LAYERED.read_bytes() for b in (byte, 0))
    )[::2],
    "open file": lambda: io.BytesIO(LAYERED.read_bytes()),
}


@pytest.mark.parametrize("form", FORMS)
def test_info_and_truncate_take_what_decompress_takes(form: str) -> None:
    data = LAYERED.read_bytes()
    base = min(codec.info(data)["layers"])
    assert codec.info(FORMS[form]()) == codec.info(data)  # type: ignore[arg-type]
    assert codec.truncate(FORMS[form](), base) == codec.truncate(data, base)  # type: ignore[arg-type]


@pytest.mark.parametrize("act", [codec.info, lambda data: codec.truncate(data, 256)])
def test_info_and_truncate_refuse_the_rest_in_words(act: Callable[[object], object]) -> None:
    for wrong in (None, 5, np.zeros(4, np.uint8)):
        with pytest.raises(TypeError, match="want a path, an open binary file or a file's bytes"):
            act(wrong)
    with pytest.raises(MediaError, match="the path is empty"):
        act("")
    with pytest.raises(MediaError, match="cannot read this file"):
        act("there is no such file")


@pytest.mark.parametrize("wrong", [1024.0, "1024", [1024], float("nan")])
def test_sizes_are_whole_numbers_everywhere(wrong: object) -> None:
    calls: list[Callable[..., object]] = [
        lambda: codec.truncate(LAYERED, wrong),  # type: ignore[arg-type]
        lambda: codec.truncate(LAYERED, max_bytes=wrong),  # type: ignore[arg-type]
        lambda: codec.decompress(LAYERED, codebook_size=wrong),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"is a whole number( from 0 on)?, not") as caught:
            call()
        assert not isinstance(caught.value, CodecError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full here")
def test_a_device_that_is_full_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    base = str(min(codec.info(LAYERED)["layers"]))
    assert truncate_main([str(LAYERED), "/dev/full", "-k", base]) == 1
    assert capsys.readouterr().err == "error: /dev/full: No space left on device\n"


def test_info_keeps_nothing_of_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads as far as it must and lets go, however much comes."""
    kept = []

    def survey(pipe: Pipe) -> object:
        found = layers.survey(pipe)  # type: ignore[arg-type]
        kept.append(len(pipe.spooled(io.BytesIO()).read()))
        return found

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LAYERED.read_bytes())))
    monkeypatch.setattr("codec.cli.info.survey", survey)
    assert info_main(["-"]) == 0
    assert "codebook size" in capsys.readouterr().out
    assert kept == [0]
