"""Files: read, written so that nothing half-written is left, and walked in folders."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias, cast

from codec import streams
from codec.errors import CodecError, MediaError, reason_of

# A file, for the API.
Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
STDIO = "-"  # the name of stdin and stdout
SPARE_BYTES = 64 << 20  # of a disk that no output takes
MOST_KEPT_BYTES = 4 << 20  # of a stream, in memory, until it is known how to read it


def files_below(folder: Path, failed: Callable[[OSError], None] | None = None) -> list[Path]:
    """Every file below a folder, sorted by its path.

    Links to files are followed, those to folders are not.

    Args:
        failed: Is told of each folder that cannot be read, and the walk goes on; by default it ends
            there.

    Raises:
        OSError: A folder cannot be read, which the error names.
    """

    def stop(error: OSError) -> None:
        raise error

    found = []
    for root, _, names in os.walk(folder, onerror=failed or stop):
        found += [path for path in (Path(root, name) for name in names) if _may_be_read(path)]
    return sorted(found)


def _may_be_read(path: Path) -> bool:
    """Whether this is a file, or something that reading will say a word about.

    A pipe or a lost link is neither.
    """
    try:
        return path.is_file()
    except OSError:
        return True


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a path has a name below a folder that begins with a dot."""
    return any(name.startswith(".") for name in path.relative_to(folder).parts)


def walk(sources: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Every file below folders and inside tars, sorted by name within each, as (name, content).

    Raises:
        MediaError: A source does not exist, or a tar is damaged.
        OSError: A folder or file cannot be read.
    """
    for source in sources:
        if source.is_dir():
            for path in files_below(source):
                yield str(path), path.read_bytes()
        elif source.suffix == ".tar" and source.is_file():
            yield from _walk_tar(source)
        elif source.is_file():
            yield str(source), source.read_bytes()
        else:
            raise MediaError(
                f"{source}: no such file or folder; give a folder, a .tar or a media file"
            )


def _walk_tar(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(source) as archive:
            for member in sorted((m for m in archive if m.isfile()), key=lambda m: m.name):
                file = archive.extractfile(member)
                if file is not None:
                    yield f"{source}:{member.name}", file.read()
    except tarfile.TarError as error:
        raise MediaError(f"{source}: damaged tar ({reason_of(error)}); copy it again") from None


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """A binary file that can seek, at its beginning or where an open one stands.

    Raises:
        MediaError: It cannot be read.
        TypeError: `source` is no path, no bytes and no binary file.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(bytes(source))  # a view with gaps is not a buffer, but has bytes
    elif isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise MediaError("the path is empty; is a variable not set?")
        try:
            file = io.BufferedReader(Named(source))
        except (OSError, ValueError) as error:  # a ValueError is a name with a zero byte in it
            reason = getattr(error, "strerror", None) or error
            raise MediaError(f"{os.fspath(source)!r}: cannot read this file ({reason})") from None
        with file:
            yield file if file.seekable() else io.BytesIO(file.read())
    elif callable(getattr(source, "read", None)):
        # Text that is no text cannot be read at all.
        data = "" if isinstance(source, io.TextIOBase) else source.read()
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(
                f"the file gives {type(data).__name__}, not bytes; open it in binary mode, 'rb'"
            )
        yield io.BytesIO(data)
    else:
        raise TypeError(
            f"want a path, an open binary file or a file's bytes, not {type(source).__name__}; "
            "write samples to a .wav (soundfile) or pixels to a .png (Pillow) first, "
            "or give a tensor to codec.load(...).codec.encode"
        )


class Named(io.FileIO):
    """An open file whose errors name it, since another file may be written meanwhile."""

    def readinto(self, buffer: Any, /) -> int | None:
        with blaming(str(self.name)):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with blaming(str(self.name)):
            return super().readall()


class Pipe(io.RawIOBase):
    """A stream that cannot seek, read as it comes.

    Its beginning can be looked at, or all of it copied to a file.

    Attributes:
        total: Bytes read so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead = b""  # seen, but not taken
        # For `spooled`, until `forget`; what is much goes to a disk.
        self._taken: IO[bytes] | None = tempfile.SpooledTemporaryFile(MOST_KEPT_BYTES)  # noqa: SIM115
        self.total = 0

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        while len(self._ahead) < size and (piece := self._file.read(size - len(self._ahead))):
            self._ahead += piece
        return self._ahead

    def read(self, size: int = -1) -> bytes:
        data, self._ahead = (
            (self._ahead, b"") if size < 0 else (self._ahead[:size], self._ahead[size:])
        )
        while (size < 0 or len(data) < size) and (
            piece := self._file.read(-1 if size < 0 else size - len(data))
        ):
            data += piece
        self.total += len(data)
        if self._taken is not None:
            with blaming(temporary_folder):
                self._taken.write(data)
        return data

    def forget(self) -> None:
        """Gives up `spooled`, and with it the room for it."""
        if self._taken is not None:
            self._taken.close()
        self._taken = None

    def close(self) -> None:
        self.forget()
        super().close()

    def spooled(self, spool: BinaryIO) -> BinaryIO:
        """Copies all there is and was to a file that can seek."""
        if self._taken is not None:
            self._taken.seek(0)
            shutil.copyfileobj(self._taken, spool)
        self.forget()
        shutil.copyfileobj(self, spool)
        spool.seek(0)
        return spool


def temporary_folder() -> str:
    """The folder for temporary files.

    Raises CodecError, which says what to set, where the machine has none that can be written.
    """
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        raise CodecError(
            "no folder for temporary files can be written; set TMPDIR to one that can"
        ) from None


@contextmanager
def temporary() -> Iterator[BinaryIO]:
    """A file without a name, for what has to be sought in and has no other place.

    Where it cannot be written, on a full disk say, the error names the folder for such files.
    """
    with (
        tempfile.TemporaryFile(buffering=0, dir=temporary_folder()) as file,
        io.BufferedRandom(_Temporary(file.fileno(), "r+b", closefd=False)) as buffered,
    ):
        yield buffered


class _Temporary(io.FileIO):
    def write(self, data: Any) -> int:
        with blaming(temporary_folder):
            return super().write(data)


@contextmanager
def piping(name: str) -> Iterator[BinaryIO | Pipe]:
    """Opens a file for reading; a pipe, and stdin whatever it is, as it comes.

    Raises MediaError if stdin is closed.
    """
    if name == STDIO and 0 in streams.closed:
        raise MediaError("closed; name a file")
    with nullcontext(sys.stdin.buffer) if name == STDIO else io.BufferedReader(Named(name)) as file:
        yield (
            Pipe(cast(BinaryIO, file))
            if name == STDIO or not file.seekable()
            else cast(BinaryIO, file)
        )


def room_for(name: str) -> int | None:
    """Bytes that an output may have before its disk is full, but for a reserve.

    None where nobody can say.
    """
    target = Path(name)
    if name == STDIO or target.is_char_device() or target.is_fifo():
        folder = Path(temporary_folder())  # it waits there until it is whole
    else:
        folder = next(path for path in Path(os.path.realpath(target)).parents if path.exists())
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free - min(SPARE_BYTES, usage.free // 10) if usage.total else None


@contextmanager
def writing(name: str, force: bool, stream: bool = False) -> Iterator[BinaryIO]:
    """A file that appears under its name whole, or not at all.

    Args:
        name: Where to; what goes to stdout or a pipe does so at the end.
        force: Replace what is there.
        stream: What goes to stdout or a pipe goes there at once, and cannot be sought in.

    Raises:
        MediaError: The name is a folder, lies below a file, or is there already and not to be
            replaced (`force`); or stdout is closed.
        OSError: It cannot be written; whatever is at fault, the error names the file that was
            wanted, or the folder for temporary files where it waits there until it is whole.
    """
    target = Path(name)
    if name == STDIO and 1 in streams.closed:
        raise MediaError("stdout is closed; name a file")
    if name == STDIO or target.is_char_device() or target.is_fifo():
        with blaming("stdout" if name == STDIO else name):
            if stream:
                with _stdout() if name == STDIO else target.open("wb") as pipe:
                    yield pipe
                    pipe.flush()
                return
            with temporary() as spool:
                yield spool
                spool.seek(0)
                with _stdout() if name == STDIO else target.open("wb") as pipe:
                    shutil.copyfileobj(spool, pipe)
                    pipe.flush()
        return
    if target.is_dir() or name.endswith(("/", os.sep)):
        verb = "is" if target.is_dir() else "names"
        raise MediaError(f"{name} {verb} a folder; name a file in it")
    if target.exists() and not force:
        raise MediaError(f"{target} exists; overwrite it with --force")
    target = Path(os.path.realpath(target))  # a link stays a link
    if target.parent.is_file():
        raise MediaError(f"{target.parent} is a file, not a folder")
    new_folders = [folder for folder in target.parents if not folder.exists()]
    partial = target.with_name(f".codec-{secrets.token_hex(8)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
        )
    except OSError as error:
        _remove(None, new_folders)
        raise OSError(error.errno, error.strerror, name) from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        if force:
            if target.exists():
                shutil.copymode(target, partial)
            partial.replace(target)
        else:
            _move_to_new(partial, target)
    except BaseException as error:
        _remove(partial, new_folders)
        if (
            isinstance(error, OSError)
            and error.errno is not None
            and error.filename in (None, str(partial))
        ):
            error.filename, error.filename2 = name, None  # rather than the temporary file's
        raise


def _stdout() -> AbstractContextManager[BinaryIO]:
    """The bytes of stdout, buffered even where Python was told not to (PYTHONUNBUFFERED).

    An unbuffered file may take a part of what it is given, on a full disk say, and raises nothing.
    """
    stdout = sys.stdout.buffer
    if isinstance(stdout, io.RawIOBase):
        return open(stdout.fileno(), "wb", closefd=False)
    return nullcontext(stdout)


@contextmanager
def blaming(name: str | Callable[[], str]) -> Iterator[None]:
    """Puts a file's name into an error of the system that has none.

    A reader who went away is no fault of the output.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = name() if callable(name) else name
        raise


def _move_to_new(partial: Path, target: Path) -> None:
    """Gives a file the name that it was written for.

    Raises MediaError where another took that name meanwhile.
    """
    try:
        try:
            os.link(partial, target)
        except FileExistsError:
            raise
        except OSError:
            # A file system without links: the name is taken first, then the file put under it.
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            try:
                partial.replace(target)
            except BaseException:
                target.unlink(missing_ok=True)  # which is empty
                raise
        else:
            partial.unlink()
    except FileExistsError:
        raise MediaError(f"{target} exists; overwrite it with --force") from None


def _remove(partial: Path | None, folders: list[Path]) -> None:
    """Leaves nothing of what could not be written: no file, and no folder that was made for it."""
    if partial is not None:
        partial.unlink(missing_ok=True)
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
