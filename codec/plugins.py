"""Parts from elsewhere, which every command then knows.

They are a module that registers a bottleneck, nets, a metric and so on.

    --import MODULE        imported by this command, and by the processes that it starts
    codec.plugins          entry points of installed packages: imported when a name is looked up in
                           a registry

Such a module puts what it has into `codec.bottlenecks.BOTTLENECKS`, `codec.nets.NETS` or another
registry when it is imported; docs/bottlenecks/own.md shows one. A model file never causes an
import: it names what it needs, and that is there or is not.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from codec.errors import CodecError

log = logging.getLogger("codec")

GROUP = "codec.plugins"
# Of the environment: modules that a command was told to import, for its child processes.
VARIABLE = "CODEC_IMPORT"
# Behind the names that a registry has, where another was asked for.
ADVICE = "; or name the module that registers it with --import"
_lock = threading.RLock()
_seen: set[str] = set()


def add(modules: Sequence[str]) -> None:
    """Imports modules, here and in processes that are started from now on.

    Args:
        modules: Their names; they may also lie in the current folder.

    Raises:
        CodecError: One cannot be imported; the line says why.
    """
    if not modules:
        return
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    for name in modules:
        _import(name)
    known = [name for name in os.environ.get(VARIABLE, "").split(",") if name]
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*known, *modules]))


def load() -> None:
    """Imports what is installed and what the parent process was told to import.

    Each is imported once in a process.

    An installed module that fails is named in a warning, so that it does not take every command
    with it.

    Raises:
        CodecError: A module that the user named cannot be imported.
    """
    with _lock:
        for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
            _import(name)
        if GROUP in _seen:
            return
        _seen.add(GROUP)
        for point in entry_points(group=GROUP):
            try:
                point.load()
            except Exception as error:
                log.warning("the plugin %s is left out: %s", point.value, _reason(error))


def _import(name: str) -> None:
    """Raises CodecError where it fails."""
    with _lock:
        if name in _seen:
            return
        _seen.add(name)
        try:
            import_module(name)
        except Exception as error:
            _seen.discard(name)
            raise CodecError(f"--import {name}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What a module raised while it was imported, and where."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename
    ]
    place = (
        f" in {frames[-1].filename}, line {frames[-1].lineno}"
        if frames and frames[-1].filename != __file__
        else ""
    )
    return f"{type(error).__name__}: {error}{place}"
