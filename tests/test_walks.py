"""Names that are empty, folders that cannot be read or written, and two runs that want one name."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import picture, tones, wav
from PIL import Image

from codec import files
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.cli.info import info_main
from codec.errors import MediaError
from codec.files import files_below, walk, writing
from eval.datasets import find
from train.sources import media

MAINS = {"compress": compress_main, "decompress": decompress_main, "info": info_main}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Recordings in folders of which one will not be read."""
    for name in ("a.wav", "good/b.wav", "bad/c.wav", ".hidden/d.wav"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(tones(500)))
    return tmp_path / "in"


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system is played: folders called "bad" are refused."""
    scandir = os.scandir

    def refuse(path: str | os.PathLike[str] = ".") -> object:
        if os.path.basename(path) == "bad":  # noqa: PTH119
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.usefixtures("models", "unreadable")
def test_a_folder_that_cannot_be_read_is_named_and_the_rest_is_done(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress_main([str(tree), str(tmp_path / "out"), "-q"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"error: {tree / 'bad'}: Permission denied",
        "error: 1 of 3 files failed",
    ]
    assert [path.name for path in files_below(tmp_path / "out")] == ["a.wav.bin", "b.wav.bin"]
    (tmp_path / "alone/bad").mkdir(parents=True)
    assert compress_main([str(tmp_path / "alone"), str(tmp_path / "none"), "-q"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'alone/bad'}: Permission denied\n"
    assert compress_main([str(tree / "bad"), str(tmp_path / "none"), "-q"]) == 1
    assert capsys.readouterr().err == f"error: {tree / 'bad'}: Permission denied\n"


@pytest.mark.usefixtures("unreadable")
def test_no_walk_passes_over_a_folder_that_cannot_be_read(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "train2017").symlink_to(tree)
    ways: dict[str, Callable[[], object]] = {
        "files.walk": lambda: list(walk([tree])),
        "eval.datasets": lambda: find(str(tree)),
        "train.sources": lambda: list(media("speech", [tree])),
        "train.sources, COCO": lambda: list(media("image", [tmp_path])),
    }
    for way in ways.values():
        with pytest.raises(OSError, match="Permission denied") as caught:
            way()
        assert str(caught.value.filename).endswith("/bad")


def test_a_walk_finds_files_and_links_to_them_and_nothing_else(tree: Path) -> None:
    (tree / "link.wav").symlink_to(tree / "a.wav")
    (tree / "lost.wav").symlink_to(tree / "nothing")
    (tree / "circle").symlink_to(tree)
    os.mkfifo(tree / "pipe.wav")
    names = [path.relative_to(tree).as_posix() for path in files_below(tree)]
    assert names == [".hidden/d.wav", "a.wav", "bad/c.wav", "good/b.wav", "link.wav"]


def test_a_file_that_cannot_be_looked_at_is_kept_for_its_reader_to_name(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files_below(tree)

    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert files_below(tree) == whole


def test_a_tar_is_walked_by_name_whatever_its_order(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("b", "c", "a"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(name.encode()))
    found = [(name[-2:], data) for name, data in walk([tmp_path / "a.tar"])]
    assert found == [(":a", b"a"), (":b", b"b"), (":c", b"c")]
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with pytest.raises(MediaError, match=r"a\.tar: damaged tar"):
        list(walk([tmp_path / "a.tar"]))


def test_there_is_one_walk(root: Path) -> None:
    """No other place of the project walks folders by itself."""
    for package in ("app", "codec", "eval", "train"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert ".rglob(" not in text, path
            assert ("os.walk(" in text) == (path == root / "codec/files.py"), path


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "", "out"),
        ("compress", "a.wav", ""),
        ("decompress", "", "out"),
        ("decompress", "a.bin", ""),
        ("decompress", "-t", ""),
        ("info", ""),
        ("info", "a.bin", ""),
    ],
    ids=str,
)
def test_an_empty_name_is_a_usage_error(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """$UNSET in quotes is not this folder."""
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(wav(tones(500)))
    with pytest.raises(SystemExit) as stop:
        MAINS[arguments[0]](list(arguments[1:]))
    assert stop.value.code == 2
    assert "it is empty; is a variable not set?" in capsys.readouterr().err
    assert os.listdir() == ["a.wav"]  # noqa: PTH208


def test_every_path_of_a_command_may_not_be_empty(root: Path) -> None:
    for package in ("app", "codec", "eval", "train"):
        for path in (root / package).rglob("*.py"):
            assert "type=Path" not in path.read_text(encoding="utf-8"), path


# --------------------------------------------------------------------------------------------------
# writing


def test_of_two_that_want_a_new_name_the_later_fails(tmp_path: Path) -> None:
    target = tmp_path / "new.bin"

    def both() -> None:
        with writing(str(target), force=False) as late:
            late.write(b"late")
            with writing(str(target), force=False) as early:
                early.write(b"early")

    with pytest.raises(MediaError, match=r"new\.bin exists; overwrite it with --force"):
        both()
    assert target.read_bytes() == b"early"
    with writing(str(target), force=True) as file:
        file.write(b"forced")
    assert target.read_bytes() == b"forced"
    assert [path.name for path in tmp_path.iterdir()] == ["new.bin"]


def test_a_disk_without_links_keeps_the_first_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    test_of_two_that_want_a_new_name_the_later_fails(tmp_path)
    assert (tmp_path / "new.bin").stat().st_nlink == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_disk_without_links_keeps_no_empty_file(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(error)), writing(str(tmp_path / "a"), force=False) as file:
        file.write(b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
def test_the_umask_counts_and_is_not_touched(mask: int, root: Path, tmp_path: Path) -> None:
    """A thread that makes files meanwhile would meet another umask."""
    code = (
        "import os, sys; from codec.files import writing; os.umask(int(sys.argv[2]))\n"
        "def refuse(mask): raise AssertionError\n"
        "os.umask = refuse\n"
        "for force in (False, True):\n"
        "    with writing(sys.argv[1], force) as file: file.write(b'x')\n"
        "    print(os.stat(sys.argv[1]).st_mode & 0o777)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a"), str(mask)],
        cwd=root,
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == [str(0o666 & ~mask).encode()] * 2


@pytest.mark.parametrize("where", ["a.bin", "new/folder/a.bin"])
def test_a_folder_that_cannot_be_written_is_named_by_the_target(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "mkdir" if "/" in where else "open"

    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files.os, name, refuse)
    target = str(tmp_path / where)
    with pytest.raises(PermissionError) as caught, writing(target, force=False):
        pass
    assert (caught.value.filename, caught.value.filename2) == (target, None)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_what_fails_leaves_no_folder_that_was_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyError), writing(str(tmp_path / "there/new/er/a"), force=False):
        raise KeyError
    assert list((tmp_path / "there").iterdir()) == []


def test_a_link_stays_a_link_to_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real/a")
    with writing(str(tmp_path / "link"), force=True) as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/a").read_bytes() == b"new"


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_on_the_disk_before_it_has_its_name(
    force: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    monkeypatch.setattr(
        os, "fsync", lambda f: seen.append(((tmp_path / "a").exists(), os.fstat(f).st_size))
    )
    with writing(str(tmp_path / "a"), force) as file:
        file.write(b"abc")
    assert seen == [(False, 3)]


def test_blame_is_for_errors_without_a_name() -> None:
    def blamed(error: OSError) -> object:
        with pytest.raises(type(error)), files.blaming("mine"):
            raise error
        return error.filename

    assert blamed(OSError(errno.ENOSPC, "No space left on device")) == "mine"
    assert blamed(OSError(errno.ENOENT, "No such file", "other")) == "other"
    assert blamed(OSError("no number")) is None
    assert blamed(BrokenPipeError(errno.EPIPE, "Broken pipe")) is None


def test_a_small_disk_keeps_a_tenth_and_a_large_one_64_mib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, room in ((1000, 900), (1 << 40, (1 << 40) - (64 << 20))):
        usage = SimpleNamespace(total=1 << 50, free=free)
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert files.room_for(str(tmp_path / "new/a")) == room


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, writing(str(tmp_path / "a"), force=False):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


def test_pictures_of_a_data_set_are_found_by_their_patterns(tmp_path: Path) -> None:
    (tmp_path / "pics/below").mkdir(parents=True)
    for name in ("pics/1.png", "pics/below/2.png", "pics/.3.png"):
        (tmp_path / name).write_bytes(picture(Image.new("RGB", (8, 8))))
    assert [item.name for item in find(str(tmp_path / "pics")).items] == ["1.png", "below/2.png"]
