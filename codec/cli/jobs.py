"""What a command has to do: one file, or those of a folder, mirrored.

All commands walk and refuse alike.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codec.cli.frame import UsageError
from codec.errors import MediaError
from codec.files import STDIO, files_below, is_hidden


def mirrored(
    source: str, out: str | None, wanted: Callable[[Path], bool], renamed: Callable[[Path], Path]
) -> list[tuple[str, Any]]:
    """Input and output names: one pair, or a folder mirrored, without its hidden files.

    A folder inside that cannot be read is in the place of its files, with the reason for an output.

    Args:
        source: A file, a folder or `STDIO`.
        out: The same; None where nothing is to be written, and so are all outputs then.
        wanted: Whether a file of a folder is to be done.
        renamed: The output's name, from the input's below the folder.

    Raises:
        UsageError: The two do not go together.
        MediaError: The folder has nothing that is wanted.
        OSError: It cannot be read.
    """
    folder = Path(source)
    if source == STDIO or not folder.is_dir():
        _refuse_same(source, out)
        return [(source, out)]
    if out is not None and (out == STDIO or Path(out).is_file()):
        raise UsageError("IN is a folder, so OUT must be a folder")
    failed: list[OSError] = []
    found = [path for path in files_below(folder, failed.append) if not is_hidden(path, folder)]
    names = [path.relative_to(folder) for path in found if wanted(path)]
    unread = [error for error in failed if not is_hidden(Path(error.filename), folder)]
    if not names and len(unread) == 1:
        raise unread[0]
    if not names and not unread:
        raise MediaError(f"{folder}: nothing to do in this folder")
    jobs: list[tuple[str, Any]] = [
        (str(folder / name), out and str(Path(out, renamed(name)))) for name in names
    ]
    for name, target in jobs:
        _refuse_same(name, target)
    return jobs + [(error.filename, error) for error in unread]


def _refuse_same(source: str, out: str | None) -> None:
    """Raises UsageError where a file would be written over itself."""
    if out is None or STDIO in (source, out):
        return
    try:
        same = Path(out).is_file() and Path(source).samefile(out)
    except OSError:  # a name that is too long, or a file that has gone: its job says so
        return
    if same:
        raise UsageError(f"IN and OUT are the same file, {source}")
