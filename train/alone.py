"""One run at a time in a folder: two would write over each other's files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codec.errors import CodecError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int, folder: Path) -> None:
    """Keeps an open file, or a folder that is open itself, for this process until it is closed.

    Args:
        descriptor: The file's.
        folder: What the run was told to write into.

    Raises:
        CodecError: Another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CodecError(
            f"{folder}: another run is writing there; wait for it, or give another --out"
        ) from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps a folder for a run of this process; it is made where it is not there.

    A run that is refused before it has written anything leaves no new folder.

    Raises:
        CodecError: Another process has it.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder):
            yield
    except Exception:
        with suppress(OSError):  # one of them is not empty
            for path in new:
                path.rmdir()
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if fcntl is None:  # a folder cannot be opened there
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)
