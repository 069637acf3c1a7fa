"""codec.compress, codec.decompress and codec.info as users run them: results, refusals, exit codes,
and no debris.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import export, gradient, no_temporary_folder, picture, tiny_codec, tones, wav
from PIL import Image

import codec
from codec import cards, coding, files, png
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.cli.info import info_main
from codec.cli.truncate import truncate_main
from codec.container import FIRST_CHUNK, Writer
from codec.media import AudioWriter, load_image, pictures

pytestmark = pytest.mark.usefixtures("models")
MAINS = {
    "compress": compress_main,
    "decompress": decompress_main,
    "info": info_main,
    "truncate": truncate_main,
}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, with the tiny models.

    Any error is one line, and never a traceback.
    """

    def call(name: str, *arguments: object) -> Result:
        capfd.readouterr()
        try:
            code = MAINS[name]([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        errors = [line for line in err.splitlines() if "error: " in line]
        assert bool(errors) == (code != 0)
        return Result(code, out, err)

    return call


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tones(4000)))
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "b.png"
    path.write_bytes(picture(gradient(21, 30)))
    return path


@pytest.fixture
def packed(run: Run, speech: Path, image: Path) -> dict[str, Path]:
    """The two media, compressed."""
    for path in (speech, image):
        assert run("compress", path, f"{path}.bin").code == 0
    return {"speech": Path(f"{speech}.bin"), "image": Path(f"{image}.bin")}


def listing(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, with its content."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


# --------------------------------------------------------------------------------------------------
# damaged inputs


def with_nan() -> bytes:
    samples = tones(1000)
    samples[7] = np.nan
    return wav(samples, subtype="FLOAT")


FLAC = wav(tones(8000), kind="FLAC")
PNG, JPEG = picture(gradient(40, 40)), picture(gradient(40, 40), "JPEG")
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.wav": (b"", "the file is empty"),
    "text.wav": (b"I am no recording, but a text\n" * 9, "not a recording or picture"),
    "text.png": (b"I am no picture, but a text\n" * 9, "not a recording or picture"),
    "signature.png": (PNG[:12], "not a picture|damaged picture"),
    "cut.png": (PNG[: len(PNG) // 2], "damaged picture"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "damaged picture"),
    "cut.wav": (wav(tones(500))[:30], "not a recording"),
    "cut.flac": (FLAC[: len(FLAC) // 2], "damaged recording"),
    "no samples.wav": (wav(tones(0)), "no samples"),
    "nan.wav": (with_nan(), "sample 7 is not a number"),
    "zip.wav": (b"PK\3\4" + bytes(range(256)) * 4, "not a recording or picture"),
    "65 channels.wav": (wav(tones(5, channels=65)), "channels"),
    "wide.png": (picture(np.zeros((1, 131073, 3), np.uint8)), "width"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_input_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    before = listing(tmp_path)
    result = run("compress", tmp_path / name, tmp_path / "new/folder/out.bin")
    assert result.code == 1
    assert f"error: {tmp_path / name}: " in result.err
    assert any(part in result.err for part in message.split("|"))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_a_damaged_bin_is_refused_wherever_it_is_damaged(
    run: Run, packed: dict[str, Path], tmp_path: Path, medium: str
) -> None:
    whole = packed[medium].read_bytes()
    broken = tmp_path / "broken.bin"
    cuts = [whole[:n] for n in (0, 3, 9, 20, len(whole) // 2, len(whole) - 1)] + [whole + b"x"]
    flips = []
    for place in [0, 8, *range(10, len(whole), max(len(whole) // 12, 1))]:  # 9 is the minor version
        flipped = bytearray(whole)
        flipped[place] ^= 4
        flips.append(bytes(flipped))
    for data in cuts + flips:
        broken.write_bytes(data)
        before = listing(tmp_path)
        result = run("decompress", broken, tmp_path / "out")
        assert result.code == 4, result.err
        assert result.err.count("\n") == 1
        assert listing(tmp_path) == before
        assert run("info", broken).code == 4


def repaired(data: bytes, offset: int, replacement: bytes) -> bytes:
    """Changes bytes of the header chunk and makes its CRC true again."""
    changed = bytearray(data)
    changed[offset : offset + len(replacement)] = replacement
    end = FIRST_CHUNK + 2 + changed[FIRST_CHUNK + 1]
    changed[end : end + 4] = zlib.crc32(changed[FIRST_CHUNK:end]).to_bytes(4, "big")
    return bytes(changed)


def test_a_bin_of_another_model_says_which_it_needs(
    run: Run, packed: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(repaired(packed["speech"].read_bytes(), FIRST_CHUNK + 3, bytes(range(16))))
    before = listing(tmp_path)
    result = run("decompress", other, tmp_path / "out.wav")
    assert result.code == 3
    assert bytes(range(16)).hex() in result.err
    assert "speech-fsp" in result.err
    assert listing(tmp_path) == before
    assert "not among the installed models" in run("info", other).out


def test_a_codebook_size_that_the_model_lacks_is_an_integrity_failure(
    run: Run, packed: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(repaired(packed["speech"].read_bytes(), FIRST_CHUNK + 19, b"\xff\x07"))
    assert run("decompress", other, tmp_path / "out.wav").code == 4


def test_a_later_major_version_asks_for_an_upgrade(run: Run, packed: dict[str, Path]) -> None:
    data = bytearray(packed["speech"].read_bytes())
    data[8] = 2
    packed["speech"].write_bytes(data)
    result = run("decompress", packed["speech"], "-t")
    assert result.code == 4
    assert "upgrade codec" in result.err


@pytest.mark.parametrize("command", ["compress", "decompress", "info"])
def test_a_missing_input_is_named(run: Run, tmp_path: Path, command: str) -> None:
    paths = [tmp_path / "nowhere.wav"] + [tmp_path / "out"] * (command != "info")
    result = run(command, *paths)
    assert (result.code, result.err) == (
        1,
        f"error: {tmp_path / 'nowhere.wav'}: No such file or directory\n",
    )
    assert not any(tmp_path.iterdir())


def test_the_wrong_way_round_is_said(
    run: Run, packed: dict[str, Path], speech: Path, tmp_path: Path
) -> None:
    assert "is a .bin already" in run("compress", packed["speech"], tmp_path / "x.bin").err
    assert "not a file made by codec" in run("decompress", speech, tmp_path / "x.wav").err


# --------------------------------------------------------------------------------------------------
# output files


def test_an_existing_target_is_kept_unless_forced(run: Run, speech: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"precious")
    result = run("compress", speech, target)
    assert result.code == 1
    assert "--force" in result.err
    assert target.read_bytes() == b"precious"
    assert run("compress", speech, target, "--force").code == 0
    assert run("decompress", target, "-t").code == 0


def test_force_keeps_the_old_file_if_the_new_one_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(with_nan())
    (tmp_path / "out.bin").write_bytes(b"precious")
    before = listing(tmp_path)
    assert run("compress", tmp_path / "bad.wav", tmp_path / "out.bin", "-f").code == 1
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("folder", "is a folder"),
        ("a.wav/out.bin", "is a file, not a folder"),
        ("a.wav/x/out.bin", "Not a directory"),
        ("a.wav", "IN and OUT are the same file"),
        ("./folder/../a.wav", "IN and OUT are the same file"),
    ],
)
def test_an_impossible_target_is_named(
    run: Run, speech: Path, tmp_path: Path, target: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    before = listing(tmp_path)
    result = run("compress", speech, f"{tmp_path}/{target}", "--force")
    assert result.code == (2 if "same" in message else 1)
    assert message in result.err
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EROFS, "Read-only")]
)
def test_an_unwritable_folder_is_named(
    run: Run, speech: Path, tmp_path: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, *arguments: Any, **options: Any) -> int:
        if ".codec-" in str(path):
            raise error
        return opened(path, *arguments, **options)

    opened: Callable[..., int] = os.open
    monkeypatch.setattr(files.os, "open", refuse)
    result = run("compress", speech, tmp_path / "new/out.bin")
    assert (result.code, result.err) == (
        1,
        f"error: {tmp_path / 'new/out.bin'}: {error.strerror}\n",
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("suffix", ["bin", "wav", "flac", "ogg", "opus", "mp3", "aiff", "png"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last blocks, too: libsndfile keeps them until it closes the file, and its callbacks
    swallow exceptions.
    """
    source = tmp_path / "in"
    source.write_bytes(
        picture(gradient(300, 300)) if suffix == "png" else wav(tones(48000, 48000), 48000)
    )
    arguments = ["compress", source, tmp_path / "new/out.bin"]
    limit = 100
    if suffix != "bin":
        assert run("compress", source, tmp_path / "in.bin").code == 0
        arguments, limit = ["decompress", tmp_path / "in.bin", tmp_path / f"new/out.{suffix}"], 1500
    before = listing(tmp_path)
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code = MAINS[str(arguments[0])]([*map(str, arguments[1:]), "-q"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, errors.getvalue()) == (1, f"error: {arguments[2]}: File too large\n")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("case", ["a pipe", "a large picture"])
def test_where_temporary_files_have_no_room_their_folder_is_named(
    case: str, tmp_path: Path
) -> None:
    source, temporary = tmp_path / "in", tmp_path / "temporary"
    source.write_bytes(picture(gradient(300, 300)))
    temporary.mkdir()
    given = "-" if case == "a pipe" else str(source)
    code = (
        "import resource, codec.media.pictures as p\n"
        "from codec.cli.compress import compress_main\n"
        f"p.MAX_IN_MEMORY = {1000 if case == 'a large picture' else pictures.MAX_IN_MEMORY}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"raise SystemExit(compress_main({[given, str(tmp_path / 'out.bin')]}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(temporary)},
        input=source.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.stderr.decode() == f"error: {temporary}: File too large\n"
    assert (done.returncode, done.stdout) == (1, b"")
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.parametrize(
    "arguments", [["compress", "-", "out.bin"], ["decompress", "in.bin", "-"]], ids=" ".join
)
def test_without_a_folder_for_temporary_files_the_line_says_what_to_set(
    arguments: list[str],
    run: Run,
    packed: dict[str, Path],
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container that is read only, where the output's place is not."""
    monkeypatch.chdir(tmp_path)
    packed["image"].rename("in.bin")
    monkeypatch.setattr(pictures, "MAX_IN_MEMORY", 100)
    with image.open("rb") as file, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", SimpleNamespace(buffer=file))
        patch.setattr("tempfile.gettempdir", no_temporary_folder)
        result = run(*arguments)
    assert (result.code, result.out) == (1, "")
    told = "no folder for temporary files can be written; set TMPDIR to one that can\n"
    assert result.err.endswith(told)
    assert result.err.count("\n") == 1
    assert not Path("out.bin").exists()


def test_a_small_picture_needs_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose disk is read only."""
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.gettempdir", no_temporary_folder)
        assert load_image(io.BytesIO(picture(gradient(30, 30)))).shape == (30, 30, 3)


@pytest.mark.parametrize("name", ["a\nb.wav", "a\x1b[31mb.wav", "a\u202eb.wav"])
def test_what_a_terminal_obeys_in_a_name_is_spelt_out(
    run: Run, speech: Path, tmp_path: Path, name: str
) -> None:
    """A report is one line, whatever a file is called; a space of another width is a space."""
    (tmp_path / name).write_bytes(speech.read_bytes())
    (tmp_path / "a\u202fb\n.wav").write_bytes(b"no sound")
    done = run("compress", tmp_path / name, tmp_path / "out.bin")
    assert done.code == 0
    assert done.out.count("\n") == 1
    assert done.out.startswith(f"{tmp_path}/{name.encode('unicode_escape').decode()}: ")
    refused = run("compress", tmp_path / "a\u202fb\n.wav", tmp_path / "no.bin")
    assert refused.err.startswith(f"error: {tmp_path}/a\u202fb\\n.wav: ")
    assert refused.err.count("\n") == 1


def test_a_current_folder_that_is_gone_is_a_line(speech: Path, tmp_path: Path, root: Path) -> None:
    gone, out = tmp_path / "gone", tmp_path / "out.bin"
    gone.mkdir()
    words = [sys.executable, "-m", "codec.compress", str(speech), str(out)]
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *words],
        cwd=gone,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the current folder is gone; go to another one\n"
    assert [path.name for path in tmp_path.iterdir()] == [speech.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_devices_are_written_to_and_never_replaced(
    run: Run, speech: Path, packed: dict[str, Path]
) -> None:
    result = run("compress", speech, "/dev/full", "--force")
    assert (result.code, "No space left" in result.err) == (1, True)
    assert run("compress", speech, "/dev/null").code == 0
    assert run("decompress", packed["speech"], "/dev/null").code == 0
    assert Path("/dev/full").is_char_device()
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_an_exception_midway_leaves_nothing(
    run: Run,
    speech: Path,
    packed: dict[str, Path],
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer if command == "compress" else AudioWriter, "write", interrupt)
    before = listing(tmp_path)
    source = speech if command == "compress" else packed["speech"]
    result = run(command, source, tmp_path / "new/out.wav", "-f")
    assert result.code == 130
    assert result.err == "error: interrupted; no unfinished file is left\n"
    assert listing(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that cannot be read")
def test_an_input_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    for command in ("compress", "decompress", "info"):
        output = [] if command == "info" else [tmp_path / "out"]
        done = run(command, "/proc/self/mem", *output)
        assert done.code == 1, command
        assert done.err == "error: /proc/self/mem: Input/output error\n", command
    assert not list(tmp_path.iterdir())


def test_a_name_that_ends_in_a_slash_is_a_folders(run: Run, speech: Path, tmp_path: Path) -> None:
    refused = run("compress", speech, f"{tmp_path}/new/")
    assert refused.code == 1
    assert f"{tmp_path}/new/ names a folder; name a file in it" in refused.err
    assert not (tmp_path / "new").exists()
    assert run("compress", speech, tmp_path / "a.bin").code == 0
    assert run("decompress", tmp_path / "a.bin", f"{tmp_path}/new/").code == 1
    assert not (tmp_path / "new").exists()


def test_a_suffix_in_capitals_is_a_suffix(run: Run, speech: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.wav").write_bytes(speech.read_bytes())
    (tmp_path / "in/b.BIN").write_bytes(b"coded before")
    assert run("compress", tmp_path / "in", tmp_path / "out").code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav.bin"]


def test_running_out_of_memory_is_one_line(
    run: Run, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    ):

        def fail(*_: object, failure: Exception = error, **__: object) -> None:
            raise failure

        monkeypatch.setattr("codec.coding.speech.compress_speech", fail)
        result = run("compress", speech, f"{speech}.bin")
        assert (result.code, "not enough memory" in result.err) == (1, True)


def test_memory_that_one_file_of_several_lacks_is_that_file_s_fault(
    run: Run, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        (folder / name).write_bytes(speech.read_bytes())
    honest, errors = coding.compress, [None, RuntimeError("can't allocate memory"), None]

    def compress(*arguments: Any, **options: Any) -> Any:
        if (error := errors.pop(0)) is not None:
            raise error
        return honest(*arguments, **options)

    monkeypatch.setattr(coding, "compress", compress)
    result = run("compress", folder, tmp_path / "out")
    assert result.code == 1
    assert result.err.splitlines() == [
        f"error: {folder / 'b.wav'}: not enough memory; scale the input down, or raise its limit",
        "error: 1 of 3 files failed",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.wav.bin", "c.wav.bin"]


def test_a_name_that_is_too_long_once_coded_keeps_no_other_file_back(
    run: Run, speech: Path, tmp_path: Path
) -> None:
    """The second time the folder is there, and the name is asked for before any file is done."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.wav").write_bytes(speech.read_bytes())
    long = folder / ("x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".wav")
    long.write_bytes(speech.read_bytes())
    for _ in range(2):
        result = run("compress", folder, out, "-f")
        assert result.code == 1
        assert result.err.splitlines()[1:] == ["error: 1 of 2 files failed"]
        assert [path.name for path in out.iterdir()] == ["a.wav.bin"]
        (out / "a.wav.bin").unlink()


def test_a_link_stays_a_link_and_its_target_is_written(
    run: Run, speech: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.bin").symlink_to(tmp_path / "real/out.bin")
    (tmp_path / "link.wav").symlink_to(speech)
    assert run("compress", tmp_path / "link.wav", tmp_path / "link.bin").code == 0
    assert (tmp_path / "link.bin").is_symlink()
    assert run("decompress", tmp_path / "real/out.bin", "-t").code == 0


NAMES = [
    "möhre ñ 音.wav",
    "two  words.wav",
    "-dash.wav",
    "a" * 246 + ".wav",
    "no suffix",
    "x.y.z",
    os.fsdecode(b"\xe9.wav"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_odd_names(
    run: Run, speech: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    speech.rename(name)
    assert run("compress", "--", name, f"{name}.bin").out.startswith(
        name.encode("utf-8", "backslashreplace").decode()
    )
    assert run("info", "--", f"{name}.bin").code == 0
    assert run("decompress", "-q", "--", f"{name}.bin", "-out.wav").code == 0
    assert soundfile.info(tmp_path / "-out.wav").frames == 4000
    assert (tmp_path / f"{name}.bin").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --------------------------------------------------------------------------------------------------
# standard streams


def test_streams_carry_data_and_the_report_goes_to_stderr(
    speech: Path,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    for path, kind in ((speech, b"RIFF"), (image, b"\x89PNG")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
        assert compress_main(["-", "-"]) == 0
        data, err = capfdbinary.readouterr()
        assert err.startswith(b"-: ")
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        assert decompress_main(["-", "-", "--json"]) == 0
        out, err = capfdbinary.readouterr()
        assert out.startswith(kind)
        assert json.loads(err)["output"] == "-"
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        assert info_main(["-"]) == 0
        assert b"codebook size" in capfdbinary.readouterr().out


def test_nothing_on_stdin_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, code in (("compress", 1), ("decompress", 4)):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
        result = run(command, "-", "-")
        assert result.code == code
        assert result.err.startswith("error: stdin: the file is empty")
        assert result.out == ""


def test_a_pipe_is_an_input(run: Run, speech: Path, tmp_path: Path) -> None:
    """What a shell makes of <(ffmpeg ...) cannot seek."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", speech, pipe]) as feeder:
        assert run("compress", pipe, tmp_path / "out.bin").code == 0
        assert feeder.wait() == 0
    assert run("decompress", tmp_path / "out.bin", "-t").code == 0


# --------------------------------------------------------------------------------------------------
# folders


def test_a_folder_is_mirrored_there_and_back(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep/er").mkdir(parents=True)
    (source / "a.wav").write_bytes(wav(tones(1000)))
    (source / "deep/er/b.avif").write_bytes(picture(gradient(9, 8), "AVIF"))
    (source / "deep/named so.wav").write_bytes(picture(gradient(5, 5)))
    (source / ".hidden").write_text("no picture")
    (source / "old.bin").write_text("left alone")
    assert run("compress", source, tmp_path / "bins").code == 0
    bins = {str(path.relative_to(tmp_path / "bins")) for path in (tmp_path / "bins").rglob("*.*")}
    assert bins == {"a.wav.bin", "deep/er/b.avif.bin", "deep/named so.wav.bin"}
    result = run("decompress", tmp_path / "bins", tmp_path / "out")
    assert result.code == 0
    assert result.out.count("\n") == 3
    assert (tmp_path / "out/a.wav").is_file()
    # What cannot be written under its own name.
    for name in ("deep/er/b.avif.png", "deep/named so.wav.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert run("decompress", tmp_path / "bins", "--test").out.count("verified") == 3


def test_notices_of_several_files_name_the_one(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.png").write_bytes(picture(gradient(9, 8)))
    clear = np.dstack([gradient(9, 8), np.full((9, 8), 90, np.uint8)])
    (source / "50 %s.png").write_bytes(picture(clear))
    several = run("compress", source, tmp_path / "bins")
    assert f"WARNING: {source / '50 %s.png'}: transparent picture: laid on white" in several.err
    assert several.err.count("WARNING") == 1
    alone = run("compress", source / "50 %s.png", tmp_path / "b.bin", "--json")
    assert alone.err == "WARNING: transparent picture: laid on white\n"
    record = json.loads(alone.out)
    assert record["bits_per_pixel"] == pytest.approx(8 * record["bytes_out"] / 72)
    assert record["rate"] == f"{record['bits_per_pixel']:.4f} bits per pixel"
    assert record["payload_bits_per_pixel"] < record["bits_per_pixel"]
    shown = json.loads(run("info", tmp_path / "b.bin", "--json").out)
    assert shown["bits_per_pixel"] == record["bits_per_pixel"]
    assert "bits_per_pixel" not in run("info", tmp_path / "b.bin").out


def test_a_folder_that_was_interrupted_goes_on(run: Run, speech: Path, tmp_path: Path) -> None:
    folder, packed, back = tmp_path / "in", tmp_path / "packed", tmp_path / "back"
    folder.mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(speech, folder / f"{name}.wav")
    assert run("compress", folder, packed).code == 0
    whole = {path.name: path.read_bytes() for path in packed.iterdir()}
    (packed / "b.wav.bin").unlink()
    (packed / "a.wav.bin").write_bytes(b"mine")
    assert run("compress", folder, packed).code == 1  # the others are there
    (packed / "b.wav.bin").unlink()
    result = run("compress", folder, packed, "--skip-existing")
    assert (result.code, result.out.count("\n"), result.err) == (0, 1, "")
    assert (packed / "b.wav.bin").read_bytes() == whole["b.wav.bin"]
    assert (packed / "a.wav.bin").read_bytes() == b"mine"
    assert run("compress", folder, packed, "-f").code == 0
    assert run("decompress", packed, back).code == 0
    (back / "c.wav").unlink()
    said = run("decompress", packed, back, "--skip-existing", "-v")
    assert (said.code, said.out.count("\n")) == (0, 1)
    assert f"{back / 'a.wav'} is there: skipped" in said.err
    assert (back / "c.wav").is_file()


def test_what_is_not_there_is_not_skipped(
    run: Run, packed: dict[str, Path], tmp_path: Path
) -> None:
    there, folder = tmp_path / "there", tmp_path / "folder"
    there.write_bytes(b"x")
    folder.mkdir()
    for command, words in (("compress", ()), ("decompress", ()), ("truncate", ("-k", "256"))):
        missing = run(command, tmp_path / "nosuch", there, *words, "--skip-existing")
        assert (missing.code, missing.err.count("No such file")) == (1, 1)
    refused = run("decompress", packed["speech"], folder, "--skip-existing")
    assert (refused.code, refused.err.count("is a folder")) == (1, 1)
    assert run("compress", there, there, "-f", "--skip-existing").code == 2


def test_a_broken_file_in_a_folder_is_named_and_the_others_are_done(
    run: Run, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a", "c"):
        (source / f"{name}.wav").write_bytes(wav(tones(500)))
    (source / "b.wav").write_text("nonsense")
    result = run("compress", source, tmp_path / "out")
    assert result.code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.wav.bin", "c.wav.bin"]
    assert [line.split(":")[1] for line in result.err.splitlines()] == [
        f" {source}/b.wav",
        " 1 of 3 files failed",
    ]
    (tmp_path / "out/b.wav.bin").write_text("nonsense")
    result = run("decompress", tmp_path / "out", tmp_path / "back")
    assert result.code == 4  # the gravest of all files' codes
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["a.wav", "c.wav"]
    result = run("info", *sorted((tmp_path / "out").iterdir()))
    assert (result.code, result.out.count("codebook size")) == (4, 2)


def test_two_files_that_would_become_one_are_refused(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.png").write_bytes(picture(gradient(9, 9)))
    assert run("compress", source, tmp_path / "bins").code == 0
    shutil.copy(tmp_path / "bins/a.png.bin", tmp_path / "bins/a.bin")
    result = run("decompress", tmp_path / "bins", tmp_path / "back", "--force")
    assert result.code == 1
    assert "was written for another file" in result.err
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["a.png"]


def test_folders_and_files_do_not_mix(run: Run, speech: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("compress", tmp_path / "empty", tmp_path / "out").code == 1
    assert run("compress", tmp_path, "-").code == 2
    assert run("compress", tmp_path, speech).code == 2
    assert run("decompress", tmp_path, tmp_path / "out").code == 1
    assert run("info", tmp_path).err == f"error: {tmp_path}: Is a directory\n"


# --------------------------------------------------------------------------------------------------
# options


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ([], 1024),
        (["-k", "256"], 256),
        (["-b", "1.3"], 256),
        (["-b", "2.0"], 4096),
        (["-b", "1e9"], 16384),
    ],
)
def test_the_codebook_size_is_chosen(
    run: Run, speech: Path, tmp_path: Path, arguments: list[str], size: int
) -> None:
    result = run("compress", speech, tmp_path / "out.bin", "--json", *arguments)
    assert json.loads(result.out)["codebook_size"] == size
    assert ("nearest is" in result.err) == ("-b" in arguments)
    assert json.loads(run("info", tmp_path / "out.bin", "--json").out)["codebook_size"] == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", "300"], "offers 256 (about 1.33 kbit/s a channel), 1024"),
        (["-k", "0"], "offers 256"),
        (["-k", "-1"], "offers 256"),
        (["-k", "x"], "invalid int value"),
        (["-b", "0"], "want one near 1.33, 1.67, 2.02, 2.32 kbit/s"),
        (["-b", "-3"], "want one near"),
        (["-b", "nan"], "want one near"),
        (["-b", "inf"], "want one near"),
        (["-b", "x"], "invalid float value"),
        (["-k", "256", "-b", "1"], "not both"),
        (["-q", "-v"], "not allowed with"),
        (["--nonsense"], "unrecognized arguments"),
        (["-d", "tpu"], "invalid choice"),
    ],
)
def test_wrong_options_are_usage_errors_that_list_the_valid(
    run: Run, speech: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    before = listing(tmp_path)
    result = run("compress", speech, tmp_path / "out.bin", *arguments)
    assert result.code == 2
    assert message in result.err
    assert "usage: " in result.err
    assert listing(tmp_path) == before


def test_verifying_writes_nothing(run: Run, packed: dict[str, Path], tmp_path: Path) -> None:
    before = listing(tmp_path)
    assert run("decompress", packed["speech"], "-t").out.count("verified") == 1
    assert run("decompress", packed["speech"], tmp_path / "out.wav", "-t").code == 2
    assert listing(tmp_path) == before


@pytest.mark.parametrize("arguments", [[], ["x.wav"], ["a", "b", "c"]])
def test_too_few_and_too_many_names_are_usage_errors(run: Run, arguments: list[str]) -> None:
    assert run("compress", *arguments).code == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonesuch", "here are image-fsp, speech-fsp"),
        ("./no.json", "No such file"),
        ("image-fsp", "not speech"),
    ],
)
def test_a_wrong_model_is_exit_code_3(
    run: Run, speech: Path, tmp_path: Path, name: str, message: str
) -> None:
    before = listing(tmp_path)
    result = run("compress", speech, tmp_path / "out.bin", "-m", name)
    assert result.code == 3
    assert message in result.err
    assert listing(tmp_path) == before


def test_a_model_from_elsewhere_is_given_by_path(run: Run, speech: Path, tmp_path: Path) -> None:
    path = export(tmp_path / "mine", "mine", tiny_codec("speech", seed=5))
    assert run("compress", speech, tmp_path / "out.bin", "-m", path, "--test").code == 0
    assert run("decompress", tmp_path / "out.bin", tmp_path / "out.wav").code == 3
    assert run("decompress", tmp_path / "out.bin", tmp_path / "out.wav", "-m", path).code == 0


def test_the_report(run: Run, speech: Path, image: Path, tmp_path: Path) -> None:
    result = run("compress", speech, tmp_path / "1.bin", "-t")
    size = (tmp_path / "1.bin").stat().st_size
    assert result.out.startswith(
        f"{speech}: speech-fsp, K = 1024: {speech.stat().st_size} -> {size} bytes, "
    )
    assert result.out.endswith("x real time, verified\n")
    assert result.err == ""
    record = json.loads(run("compress", image, tmp_path / "2.bin", "--json").out)
    assert (record["width"], record["height"], record["bytes_out"]) == (
        30,
        21,
        (tmp_path / "2.bin").stat().st_size,
    )
    assert record["rate"].endswith("bits per pixel")
    assert run("decompress", tmp_path / "1.bin", tmp_path / "1.wav", "-q") == Result(0, "", "")
    record = json.loads(run("decompress", tmp_path / "2.bin", "-t", "--json").out)
    assert (record["verified"], record["output"]) == (True, None)


def test_quiet_still_names_errors(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rgba.png").write_bytes(picture(Image.new("RGBA", (9, 9))))
    assert "laid on white" in run("compress", tmp_path / "rgba.png", tmp_path / "1.bin").err
    assert run("compress", tmp_path / "rgba.png", tmp_path / "2.bin", "-q") == Result(0, "", "")
    assert run("compress", tmp_path / "rgba.png", tmp_path / "2.bin", "-q").code == 1


def test_mono(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.wav").write_bytes(wav(tones(500, channels=2)))
    assert (
        json.loads(
            run("compress", tmp_path / "in.wav", tmp_path / "o.bin", "--mono", "--json").out
        )["channels"]
        == 1
    )
    assert run("decompress", tmp_path / "o.bin", tmp_path / "o.wav").code == 0
    assert soundfile.info(tmp_path / "o.wav").channels == 1


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [(44100, 2, "PCM_24"), (8000, 6, "PCM_U8"), (48000, 1, "FLOAT")],
)
def test_rate_channels_and_length_come_back(
    run: Run, tmp_path: Path, rate: int, channels: int, subtype: str
) -> None:
    (tmp_path / "in.wav").write_bytes(
        wav(tones(rate // 3 + 1, rate, channels), rate, subtype=subtype)
    )
    result = run("compress", tmp_path / "in.wav", tmp_path / "o.bin")
    assert ("above 8 kHz are lost" in result.err) == (rate > 16000)
    assert run("decompress", tmp_path / "o.bin", tmp_path / "o.flac").code == 0
    info = soundfile.info(tmp_path / "o.flac")
    assert (info.samplerate, info.channels, info.frames, info.format) == (
        rate,
        channels,
        rate // 3 + 1,
        "FLAC",
    )


def test_limits(run: Run, image: Path, packed: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(wav(tones(40000)))
    assert run("compress", tmp_path / "long.wav", tmp_path / "long.bin").code == 0
    before = listing(tmp_path)
    for command, source, option in (
        ("compress", image, "--max-pixels=629"),
        ("decompress", packed["image"], "--max-pixels=629"),
        ("decompress", tmp_path / "long.bin", "--max-seconds=1"),
    ):
        result = run(command, source, tmp_path / "out", option)
        assert result.code == (1 if command == "compress" else 4)
        assert option.split("=")[0] in result.err
    assert listing(tmp_path) == before
    assert run("compress", image, tmp_path / "out", "--max-pixels=630", "-t").code == 0


@pytest.mark.parametrize(
    ("medium", "suffix"),
    [("speech", "png"), ("image", "wav"), ("image", "avif"), ("speech", "m4a")],
)
def test_a_suffix_that_does_not_fit_lists_those_that_do(
    run: Run, packed: dict[str, Path], tmp_path: Path, medium: str, suffix: str
) -> None:
    before = listing(tmp_path)
    result = run("decompress", packed[medium], tmp_path / f"out.{suffix}")
    assert result.code == 1
    assert ("flac" if medium == "speech" else "jpeg") in result.err
    assert listing(tmp_path) == before


def test_the_pixels_of_a_png_are_never_all_in_memory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy's buffers, which tracemalloc sees, both ways.

    The same picture read whole is the negative control.
    """
    pixels = np.tile(gradient(600, 600), (4, 1, 1))
    monkeypatch.setattr(pictures, "MAX_IN_MEMORY", 1 << 18)
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 1 << 16)
    monkeypatch.setattr(png, "PIXELS_AT_ONCE", 1 << 13)
    monkeypatch.setattr(
        "codec.coding.pictures.POSITIONS_PER_STRIP", {"cpu": 1 << 9, "cuda": 1 << 9}
    )
    (tmp_path / "in.png").write_bytes(picture(pixels))
    packed, back = tmp_path / "o.bin", tmp_path / "o.png"
    assert run("compress", tmp_path / "in.png", packed).code == 0  # what is loaded once and kept

    def peak(work: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(lambda: run("compress", tmp_path / "in.png", packed, "-f")) < pixels.nbytes
    assert peak(lambda: run("decompress", packed, back)) < pixels.nbytes
    assert peak(lambda: load_image(io.BytesIO(back.read_bytes()))) > pixels.nbytes


@pytest.mark.parametrize("suffix", ["PNG", "jpg", "webp", "tiff", "bmp"])
def test_the_suffix_chooses_the_format(
    run: Run, packed: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    assert run("decompress", packed["image"], tmp_path / f"out.{suffix}").code == 0
    with Image.open(tmp_path / f"out.{suffix}") as image:
        assert image.size == (30, 21)
        assert image.format == {"jpg": "JPEG"}.get(suffix, suffix.upper())


@pytest.mark.parametrize("order", ["-f -k 256 {0} {1}", "{0} -f -k 256 {1}", "{0} {1} -f -k 256"])
def test_options_stand_anywhere(order: str, run: Run, speech: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "out.bin", order.split(" ")
    assert run("compress", *(word.format(speech, out) for word in words)).code == 0
    assert json.loads(run("info", out, "--json").out)["codebook_size"] == 256
    back = tmp_path / "back.wav"
    words = order.replace("-k 256", "-q").split(" ")
    assert run("decompress", *(word.format(out, back) for word in words)).code == 0
    assert back.is_file()
    wrong = run("compress", speech, "-f", out, "-q", "third")
    assert (wrong.code, wrong.err.count("unrecognized arguments: third")) == (2, 1)


def test_models_are_listed(run: Run) -> None:
    result = run("compress", "--list-models")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == ["image-fsp", "speech-fsp"]
    as_json = [
        json.loads(line) for line in run("compress", "--list-models", "--json").out.split("\n")[:-1]
    ]
    assert [about["model"] for about in as_json] == ["image-fsp", "speech-fsp"]
    assert [about["medium"] for about in as_json] == ["image", "speech"]
    for about, line in zip(as_json, result.out.splitlines(), strict=True):
        assert line.endswith(about["model_id"])
        assert f"K = {', '.join(map(str, about['codebook_sizes']))} " in line


def test_a_damaged_model_is_a_line_and_the_others_go_on(
    run: Run,
    models: Path,
    speech: Path,
    packed: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "models"))
    (folder / "broken.json").write_text("{}")
    monkeypatch.setattr(cards, "MODELS_FOLDER", folder)
    listed = run("compress", "--list-models")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == ["image-fsp", "speech-fsp"]
    assert f"{folder / 'broken.json'}: not a model card" in listed.err
    assert listed.err.count("\n") == 1
    # Other damage: what was said is not said again in a process.
    (folder / "broken.json").write_text("[]")
    packing = run("compress", speech, tmp_path / "o.bin")
    assert packing.code == 0
    assert packing.err.startswith("WARNING: ")
    assert packing.err.count("broken.json: not a model card") == 1
    assert run("info", packed["speech"]).code == 0
    refused = run("compress", speech, tmp_path / "p.bin", "-m", "broken")
    assert refused.code == 3
    assert "broken.json: not a model card" in refused.err


@pytest.mark.parametrize("command", sorted(MAINS))
def test_version_and_help(run: Run, command: str) -> None:
    assert run(command, "--version").out.startswith("codec 0.")
    text = run(command, "--help").out
    assert f"python -m codec.{command}" in text


def test_info_describes_without_a_model(
    run: Run, packed: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coding, "load", None)
    speech, image = (
        json.loads(line) for line in run("info", "--json", *packed.values()).out.splitlines()
    )
    assert (speech["duration_s"], speech["sample_rate"], speech["model"]) == (
        0.25,
        16000,
        "speech-fsp",
    )
    assert (image["width"], image["height"], image["tokens"]) == (30, 21, 12)
    assert image["bytes"] == packed["image"].stat().st_size
    monkeypatch.setattr(cards, "list_cards", list)
    assert json.loads(run("info", "--json", packed["image"]).out)["model"] is None


# --------------------------------------------------------------------------------------------------
# processes

LIGHT = """
import sys
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.cli.info import info_main
for main in (compress_main, decompress_main, info_main):
    for option in ("--help", "--version"):
        try:
            main([option])
        except SystemExit as stop:
            assert not stop.code
assert info_main(sys.argv[1:]) == 0
heavy = {"torch", "torchaudio", "torchvision", "gradio", "lpips", "numba"} & set(sys.modules)
assert not heavy, heavy
"""
DECODE = """
import sys
from codec.cli.decompress import decompress_main
code = decompress_main(sys.argv[1:])
heavy = {"torchvision", "gradio", "lpips", "matplotlib", "scipy"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


def python(root: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, check=False, **options)  # type: ignore[call-overload]


def test_help_version_and_info_import_nothing_heavy(root: Path, packed: dict[str, Path]) -> None:
    done = python(root, "-c", LIGHT, *packed.values())
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_list_of_commands_is_none_of_them(root: Path) -> None:
    """`codec compress` for `codec.compress` does nothing, and says so."""
    for words, advice in (
        (["compress", "in.wav", "out.bin"], "run python -m codec.compress"),
        (["squeeze"], "python -m codec lists the commands"),
    ):
        done = python(root, "-m", "codec", *words)
        error = f"error: python -m codec {words[0]}: no such command; {advice}\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, b"", error.encode())
    for words in ([], ["--help"], ["--version"]):
        done = python(root, "-m", "codec", *words)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"codec ")


def test_a_real_process_with_warnings_as_errors(root: Path, model_folder: Path) -> None:
    """Through pipes, at 44.1 kHz so that torchaudio resamples.

    And decompressing imports nothing of train or app.
    """
    model = model_folder / "speech-fsp.json"
    done = python(
        root, "-m", "codec.compress", "-", "-", "-m", model, input=wav(tones(9000, 44100), 44100)
    )
    assert done.returncode == 0, done.stderr
    assert b"lost" in done.stderr
    done = python(root, "-c", DECODE, "-", "-", "-m", model, "-q", input=done.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    assert soundfile.info(io.BytesIO(done.stdout)).frames == 9000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_process_leaves_nothing(
    root: Path, model_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """In the middle of twenty minutes of speech, when the first bytes are on disk."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (20 * 60 * 16000, 1)).astype(np.float32)
    (tmp_path / "in.wav").write_bytes(wav(noise, subtype="PCM_U8"))
    command = [
        sys.executable,
        "-m",
        "codec.compress",
        "in.wav",
        "new/out.bin",
        "-m",
        str(model_folder / "speech-fsp.json"),
    ]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        # A job in the background ignores it.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 300
        while not any(path.stat().st_size for path in tmp_path.glob("new/.codec-*")):
            assert process.poll() is None, "it ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, b"error: interrupted; no unfinished file is left\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_a_reader_that_goes_away_is_one_line(
    root: Path, model_folder: Path, tmp_path: Path
) -> None:
    """codec.decompress ... - | head -c 10"""
    (tmp_path / "in.png").write_bytes(picture(gradient(300, 400)))
    model = str(model_folder / "image-fsp.json")
    assert (
        compress_main([str(tmp_path / "in.png"), str(tmp_path / "in.bin"), "-m", model, "-q"]) == 0
    )
    command = [sys.executable, "-m", "codec.decompress", str(tmp_path / "in.bin"), "-", "-m", model]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (1, b"error: the reader of the output went away\n")


# --------------------------------------------------------------------------------------------------
# damage and streams


def test_partial_decodes_what_is_left(run: Run, packed: dict[str, Path], tmp_path: Path) -> None:
    for medium, suffix in (("speech", "wav"), ("image", "png")):
        data = bytearray(packed[medium].read_bytes())
        data[-25] ^= 0xFF  # in the data chunk
        damaged = tmp_path / f"{medium}.damaged.bin"
        damaged.write_bytes(data)
        out = tmp_path / f"{medium}.{suffix}"
        assert run("decompress", damaged, out).code == 4
        assert not out.exists()
        result = run("decompress", damaged, out, "--partial", "--json")
        assert result.code == 0
        assert "lost " in result.err
        record = json.loads(result.out)
        assert record["lost"]
        assert out.exists()
        whole = json.loads(
            run("decompress", packed[medium], tmp_path / f"w.{suffix}", "--partial", "--json").out
        )
        assert whole["lost"] == []
    assert run("decompress", tmp_path / "none.bin", "-", "--partial").code == 1


def streaming_wav(samples: np.ndarray, rate: int, width: int = 2) -> bytes:
    """As a recorder writes it into a pipe: sizes unknown."""
    values = wav(samples, rate, subtype={1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}[width])
    at = values.index(b"data")
    return values[:4] + b"\xff" * 4 + values[8 : at + 4] + b"\xff" * 4 + values[at + 8 :]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_recording_is_coded_as_it_comes_with_the_same_indices(
    tmp_path: Path,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    samples = tones(30000, channels=2)
    path = tmp_path / "in.wav"
    path.write_bytes(
        wav(samples, subtype={1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}[width])
    )
    assert compress_main([str(path), str(tmp_path / "file.bin")]) == 0
    capfdbinary.readouterr()
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(streaming_wav(samples, 16000, width)))
    )
    assert compress_main(["-", "-"]) == 0
    assert capfdbinary.readouterr().out == (tmp_path / "file.bin").read_bytes()
    assert decompress_main([str(tmp_path / "file.bin"), str(tmp_path / "out.wav")]) == 0
    capfdbinary.readouterr()
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO((tmp_path / "file.bin").read_bytes()))
    )
    assert decompress_main(["-", "-"]) == 0
    streamed, rate = soundfile.read(io.BytesIO(capfdbinary.readouterr().out), dtype="int16")
    filed, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert rate == 16000
    assert np.array_equal(streamed, filed)


def test_an_a_law_wav_through_a_pipe_goes_the_long_way(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = wav(tones(9000), subtype="ALAW")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert compress_main(["-", "-", "--test"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"\x8dCDC")


def test_chunks_arrive_while_the_recording_goes_on(root: Path, model_folder: Path) -> None:
    """A pipe that stays open: the first chunk comes out before the input ends."""
    script = (
        "import sys; from pathlib import Path; from codec import cards, coding\n"
        "from codec.cli.compress import compress_main\n"
        f"cards.MODELS_FOLDER = Path({str(model_folder)!r}); "
        "coding.speech.FRAMES_PER_WINDOW = 100\n"
        "sys.exit(compress_main(['-', '-', '-q']))"
    )
    data = streaming_wav(tones(96 * 1000), 16000)
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(data[:150_000])
        child.stdin.flush()
        early = os.read(child.stdout.fileno(), 65536)
        assert early.startswith(b"\x8dCDC")
        while len(early) < 200:  # the header alone is shorter
            early += os.read(child.stdout.fileno(), 65536)
        child.stdin.write(data[150_000:])
        child.stdin.close()
        child.stdout.read()
    assert child.returncode == 0


def test_effort_is_an_option(run: Run, speech: Path, tmp_path: Path) -> None:
    assert run("compress", speech, tmp_path / "a.bin", "--effort", "9", "-t").code == 0
    assert run("compress", speech, tmp_path / "b.bin", "-t").code == 0
    assert (tmp_path / "a.bin").stat().st_size <= (tmp_path / "b.bin").stat().st_size
    assert run("compress", speech, tmp_path / "c.bin", "--effort", "10").code == 2


def test_search_is_an_option(run: Run, speech: Path, tmp_path: Path) -> None:
    assert run("compress", speech, tmp_path / "a.bin", "--search", "2", "-t").code == 0
    assert run("compress", speech, tmp_path / "b.bin").code == 0
    assert (tmp_path / "a.bin").read_bytes() != (tmp_path / "b.bin").read_bytes()
    for steps in ("-1", "1001"):
        result = run("compress", speech, tmp_path / "c.bin", "--search", steps)
        assert result.code == 2
        assert f"--search: want a number from 0 to {coding.MAX_STEPS:g}" in result.err
    assert not (tmp_path / "c.bin").exists()


def test_test_verifies_whole_files_alone(run: Run, packed: dict[str, Path]) -> None:
    """Of what is left of a damaged file nothing is verified."""
    assert run("decompress", packed["speech"], "--test").code == 0
    result = run("decompress", packed["speech"], "--test", "--partial")
    assert result.code == 2
    assert "--test verifies a whole file" in result.err


def test_a_damaged_file_takes_no_name_from_a_sound_one(
    run: Run, packed: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    data = packed["speech"].read_bytes()
    (folder / "a.wav.bin").write_bytes(data)
    (folder / "a.bin").write_bytes(data[:-3])  # comes first, and would be a.wav, too
    result = run("decompress", folder, tmp_path / "out")
    assert result.code == 4
    assert "1 of 2 files failed" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_is_not_cut_in_place(linked: bool, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    golden = Path(__file__).parent.parent / "assets/golden/layers-speech.bin"
    (source / "a.bin").write_bytes(golden.read_bytes())
    out = source
    if linked:
        out = tmp_path / "out"
        out.symlink_to(source)
    base = str(min(codec.info(golden)["layers"]))
    assert truncate_main([str(source), str(out), "-k", base, "-f"]) == 2
    assert (source / "a.bin").read_bytes() == golden.read_bytes()


@pytest.mark.parametrize("option", ["--max-pixels", "--max-seconds"])
@pytest.mark.parametrize("value", ["0", "-5", "9" * 401, "1.5"])
def test_limits_are_numbers_above_nothing(
    run: Run, packed: dict[str, Path], option: str, value: str
) -> None:
    result = run("decompress", packed["speech"], "-", option, value)
    assert result.code == 2
    assert option in result.err


def test_a_file_needs_no_temporary_one(
    run: Run, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", nowhere)
    assert run("compress", image, tmp_path / "out.bin").code == 0
