"""Closed standard streams, and pipes that nobody reads: in every command, and in what it writes."""

from __future__ import annotations

import ast
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, tones, wav

from codec import streams
from codec.cli.frame import print_line

COMMANDS = sorted(
    path.relative_to(ROOT)
    for package in ("app", "codec", "eval", "train")
    for path in (ROOT / package).rglob("*.py")
    if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8")
    and path.name != "codec2_decoder.py"  # a process behind pipes, which nobody calls
)


@pytest.fixture
def command(root: Path, model_folder: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs `python -m MODULE ARGUMENTS` with the tiny models, and with some descriptors closed."""
    code = (
        "import pathlib, runpy, sys; from codec import cards; "
        "cards.MODELS_FOLDER = pathlib.Path(sys.argv.pop(1)); "
        "runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=sys.argv.pop(0) and True)"
    )

    def call(
        module: str, *arguments: object, closed: Sequence[int] = (), given: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", code, str(model_folder), module, *map(str, arguments)],
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            input=None if 0 in closed else given,
            stdin=subprocess.DEVNULL if 0 in closed else None,
            capture_output=True,
            preexec_fn=lambda: [os.close(descriptor) for descriptor in closed] and None,
            timeout=300,
        )

    return call


def damaged_mp3() -> bytes:
    """A recording whose decoder has something to say on descriptor 2."""
    data = bytearray(wav(tones(16_000 * 4), kind="MP3", subtype=None))
    for at in range(2000, len(data) - 2000, 700):
        data[at : at + 40] = np.random.default_rng(at).bytes(40)
    return bytes(data)


@pytest.mark.parametrize("path", COMMANDS, ids=str)
def test_every_command_holds_its_streams(path: Path) -> None:
    """What stands under `if __name__ == "__main__"` goes through `codec.streams.process`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    guard = next(node for node in tree.body[::-1] if isinstance(node, ast.If))
    calls = {ast.unparse(node.func) for node in ast.walk(guard) if isinstance(node, ast.Call)}
    if "main" in calls:  # of the thin commands, whose main is such a call
        calls |= {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "process" in calls


def test_the_list_of_commands_is_whole() -> None:
    assert len(COMMANDS) >= 24
    assert {str(path) for path in COMMANDS} > {
        "app/__main__.py",
        "codec/onnx.py",
        "eval/bulk.py",
        "train/prepare.py",
    }


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_what_stdout_has_no_sign_for_is_spelt_out(encoding: str) -> None:
    """A dagger, and a name that is no text."""
    code = (
        "import sys; from codec.streams import process; "
        "sys.exit(process(lambda: print('\\u2020 \\udcff')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout == "\u2020 \udcff\n".encode(encoding, "backslashreplace")
    assert done.returncode == 0


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2), (1, 2)])
def test_what_a_decoder_says_stays_out_of_the_output(
    closed: tuple[int, ...],
    command: Callable[..., subprocess.CompletedProcess[bytes]],
    tmp_path: Path,
) -> None:
    source = tmp_path / "a.mp3"
    source.write_bytes(damaged_mp3())
    done = command("codec.compress", source, tmp_path / "open.bin", "-q")
    assert done.returncode == 0
    if not done.stderr:
        pytest.skip("this decoder says nothing of damage")
    given = [source, b""] if 0 in closed else ["-", source.read_bytes()]
    done = command(
        "codec.compress", given[0], tmp_path / "closed.bin", "-q", closed=closed, given=given[1]
    )
    assert done.returncode == 0
    assert (tmp_path / "closed.bin").read_bytes() == (tmp_path / "open.bin").read_bytes()


@pytest.mark.slow
def test_a_stream_that_is_wanted_and_closed_is_an_error(
    command: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tones(2000)))
    done = command("codec.compress", "-", tmp_path / "a.bin", closed=(0,))
    assert (done.returncode, done.stderr) == (1, b"error: stdin: closed; name a file\n")
    done = command("codec.compress", tmp_path / "a.wav", "-", closed=(1,))
    assert (done.returncode, done.stderr.endswith(b"a.wav: stdout is closed; name a file\n")) == (
        1,
        True,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]
    done = command("codec.compress", tmp_path / "a.wav", tmp_path / "a.bin", closed=(0, 1, 2))
    assert (done.returncode, (tmp_path / "a.bin").exists()) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("codec.compress", "--list-models"),
        ("codec.decompress", "--help"),
        ("codec",),
        ("codec.bottlenecks",),
    ],
    ids=" ".join,
)
def test_a_listing_into_a_pipe_that_nobody_reads_ends_quietly(
    arguments: tuple[str, ...], root: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_reports_into_a_pipe_that_nobody_reads_do_not_end_a_run(
    command: Callable[..., subprocess.CompletedProcess[bytes]],
    root: Path,
    model_folder: Path,
    tmp_path: Path,
) -> None:
    """More than a buffer of them, so that the pipe is found broken in the middle."""
    name = "a" * 200
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / f"in/{name}{number:02d}.wav").write_bytes(wav(tones(200)))
    reading, writing = os.pipe()
    os.close(reading)
    model = str(model_folder / "speech-fsp.json")
    arguments = [
        sys.executable,
        "-m",
        "codec.compress",
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        "-m",
        model,
    ]
    done = subprocess.run([*arguments, "--json"], cwd=root, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "out").iterdir())) == 30
    done = command("codec.info", *(tmp_path / "out").iterdir())
    assert (done.returncode, done.stdout.count(b"speech-fsp")) == (0, 30)


FULL = Path("/dev/full")
NO_ROOM = b"error: stdout: No space left on device\n"


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="no device that is full here")
def test_reports_onto_a_full_disk_are_the_only_thing_lost(
    root: Path, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / f"in/{name}.wav").write_bytes(wav(tones(200)))
    words = ["codec.compress", tmp_path / "in", tmp_path / "out"]
    words += ["-m", model_folder / "speech-fsp.json"]
    for unbuffered in ("", "1"):
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        with FULL.open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", *map(str, words), "--force"],
                cwd=root,
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
            )
        assert (done.returncode, done.stderr) == (1, NO_ROOM)
        assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.skipif(not FULL.exists(), reason="no device that is full here")
@pytest.mark.parametrize(
    "words",
    [
        ("codec",),
        ("codec.compress", "--list-models"),
        ("codec.compress", "--help"),
        ("codec.info", "--version"),
        ("eval.report",),
    ],
)
def test_a_listing_onto_a_full_disk_is_an_error(words: tuple[str, ...], root: Path) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=root,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},  # as a long listing is, too
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (done.returncode, done.stderr) == (1, NO_ROOM)


def test_exit_codes_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    def stop(code: object) -> Callable[[], int]:
        def command() -> int:
            raise SystemExit(code)

        return command

    assert streams.process(lambda: None) == 0
    assert streams.process(lambda: 4) == 4
    assert streams.process(stop(2)) == 2
    assert streams.process(stop(None)) == 0
    assert streams.process(stop("error: no such thing")) == 1
    assert capsys.readouterr().err == "error: no such thing\n"


def test_lines_for_nobody_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        encoding = "utf-8"

        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Broken())
    print_line("a report", sys.stdout)
    assert streams.process(lambda: 0) == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("stream", [True, False])
def test_stdout_on_a_full_disk_is_an_error(unbuffered: str, stream: bool, tmp_path: Path) -> None:
    """Containers often set PYTHONUNBUFFERED, whose files take a part of the bytes in silence."""
    code = (
        "import resource; from codec.files import writing\n"
        f"with writing('-', False, {stream}) as out:\n"
        "    out.write(bytes(5000))\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000))\n"
        "    out.write(bytes(60000))\n"
    )
    if not stream:  # its spool has room
        code = (
            "import resource; from codec.files import writing\n"
            "import shutil; copy = shutil.copyfileobj\n"
            "def late(*a):\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000)); copy(*a)\n"
            "shutil.copyfileobj = late\n"
            "with writing('-', False) as out: out.write(bytes(60000))\n"
        )
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert b"OSError: [Errno 27]" in done.stderr


@pytest.mark.parametrize("module", ["codec.onnx", "train", "train.export", "eval"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "ZeroDivisionError"])
def test_ctrl_c_while_a_command_imports_is_no_traceback(
    module: str, error: str, root: Path, tmp_path: Path
) -> None:
    """As torch is imported; what else goes wrong there is shown."""
    (tmp_path / "torch.py").write_text(f"raise {error}\n")
    path = os.pathsep.join([str(tmp_path), str(root)])
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if error == "KeyboardInterrupt":
        assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    else:
        assert done.stderr.endswith("ZeroDivisionError\n")


def test_a_program_that_imports_the_package_keeps_its_hook() -> None:
    code = "import sys; before = sys.excepthook; import codec, train, eval; "
    code += "assert sys.excepthook is before"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
