"""The streams of a process: a command behaves, whatever the shell closed.

So it does when nobody reads any more.

Descriptors 0, 1 and 2 that are closed at the start would be given to the next files that are
opened, and what is meant for stderr would be written into them. So /dev/null takes their places
first.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import TracebackType

from codec.errors import out_of_memory

closed: set[int] = set()  # the descriptors that were
_errors: list[str] = []  # of printing, not said yet


def process(command: str | Callable[[], int | None]) -> int:
    """Runs a command as all that its process is for; returns its exit code.

    A listing into a pipe that nobody reads any more ends quietly; who writes data has said what is
    lost before this.

    Args:
        command: The function, or "module:function", which is imported when the streams are safe.
    """
    hold()
    code: int | str | None
    try:
        if isinstance(command, str):
            module, _, name = command.partition(":")
            command = getattr(import_module(module), name)
        assert not isinstance(command, str)
        code = command()
    except SystemExit as stop:  # argparse, after --help or a wrong option
        code = stop.code
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt:  # Ctrl-C while the imports run
        code = 130
    except (ImportError, OSError, MemoryError, RuntimeError) as error:
        if out_of_memory(error):  # libraries that find no room to be loaded
            code = (
                "error: not enough memory to load the libraries; "
                "free some, or raise the limit of the process"
            )
        elif isinstance(error, OSError) and error.errno and error.filename is None:
            give_up_stdout(error)  # of a listing: what has a file names it
            code = 1
        else:
            raise
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    flush()
    if lost := unwritten():
        print(f"error: {lost}", file=sys.stderr)
        code = code or 1
    return code or 0


def quiet_imports(package: str) -> None:
    """Keeps Ctrl-C while a command of a package imports from printing a traceback.

    `process` begins when the imports of the module that calls it are done, and torch takes seconds.
    So the package says this first. In any other program that imports it nothing changes.

    Args:
        package: The name of the package that says it.
    """
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    if module.partition(".")[0] == package:
        sys.excepthook = _unless_interrupted


def _unless_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


def hold() -> None:
    """Opens /dev/null wherever a standard stream is closed.

    What stdout's encoding has no sign for is spelt out from then on.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:  # a lower one is closed, too, where only this is looked at
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    # As stderr does already: names of files, and signs such as †, need not be text of the locale.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Flushes what was printed; whether anybody reads it does not matter."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
    except OSError as error:
        give_up_stdout(error)


def give_up_stdout(error: OSError) -> None:
    """Prints nothing more, as where the disk under stdout is full, and keeps what `unwritten` says.

    What a command has to do is done all the same.
    """
    _errors.append(f"stdout: {error.strerror}")
    forget_stdout()


def unwritten() -> str | None:
    """Says once why something could not be printed; None where all was."""
    found = _errors[0] if _errors else None
    _errors.clear()
    return found


def forget_stdout() -> None:
    """Sends what is still to be flushed to nowhere, or Python complains of it at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
