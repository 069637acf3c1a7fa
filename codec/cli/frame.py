"""How a command behaves in a terminal.

It has one line for an error, exit codes, clean interruption, and notices on stderr.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from codec import plugins
from codec.errors import CodecError, not_installed, out_of_memory
from codec.files import STDIO
from codec.streams import flush, forget_stdout, give_up_stdout, unwritten

# Or a training would need the audio and picture libraries, which a GPU machine may lack.
if TYPE_CHECKING:
    from codec.coding.watch import Block

log = logging.getLogger("codec")
Number = TypeVar("Number", int, float)


class UsageError(Exception):
    """Arguments that contradict each other: exit code 2."""


class Parser(argparse.ArgumentParser):
    """The parser of every command, which takes `--import MODULE`.

    It imports the module before the command looks anything up. Of a description it shows no
    diagrams, which are indented paragraphs: argparse would fill their lines.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        paragraphs = (self.description or "").split("\n\n")
        self.description = "\n\n".join(text for text in paragraphs if not text.startswith(" "))
        self.add_argument(
            "--import",
            dest="plugins",
            action="append",
            default=[],
            metavar="MODULE",
            help="import this first: it may register bottlenecks, nets and more",
        )

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse does, but help or a version that stdout cannot take is an error."""
        if file is sys.stdout:
            print(message, end="", file=file)
        else:
            super()._print_message(message, file)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, and the modules are imported.

        What is wrong with one is told as a wrong option is.
        """
        options, rest = super().parse_known_args(args, namespace)
        try:
            plugins.add(options.plugins)
        except CodecError as error:
            self.error(str(error))
        del options.plugins
        return options, rest


def filled(text: str) -> str:
    """The name of a file, as an argparse type.

    An empty one is a variable that is not set, and never this folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty; is a variable not set?")
    return text


def filled_path(text: str) -> Path:
    """A path, as an argparse type."""
    return Path(filled(text))


def new_file(text: str) -> Path:
    """The path of a file that a command writes when its work is done, as an argparse type.

    What cannot become a file is refused before the work, not after it.
    """
    path = filled_path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file in it")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise argparse.ArgumentTypeError(f"{parent} is a file, not a folder")
    if not os.access(path if path.exists() else parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} may not be written; name another file")
    return path


def within(kind: type[Number], low: float, high: float = math.inf) -> Callable[[str], Number]:
    """Returns an argparse type for finite numbers from `low` to `high`."""

    def number(text: str) -> Number:
        value = kind(text)
        if not low <= value <= high or value == math.inf:
            limits = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
            raise argparse.ArgumentTypeError(f"want a number {limits}")
        return value

    number.__name__ = kind.__name__  # argparse names it where the text is no number
    return number


def positive(kind: type[Number]) -> Callable[[str], Number]:
    """Returns an argparse type for finite numbers above 0."""

    def number(text: str) -> Number:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    number.__name__ = kind.__name__
    return number


OWN = ("codec", "train", "eval", "app")
# Windows has no SIGHUP.
STOPPING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
INTERRUPTED = "interrupted; no unfinished file is left"


def run(
    parser: argparse.ArgumentParser,
    arguments: list[str] | None,
    command: Callable[[argparse.Namespace], int | None],
    interrupted: str = INTERRUPTED,
) -> int:
    """Parses, runs, and turns every deliberate error into one line and its exit code.

    Args:
        parser: Of the command.
        arguments: What it was called with; None for those of the process.
        command: Does the work; may return an exit code.
        interrupted: What is said after Ctrl-C, SIGTERM or SIGHUP, with the options' names in
            braces: "... in {out}". A command that knows better raises KeyboardInterrupt with the
            text.
    """
    options = parser.parse_args(arguments)
    try:
        Path.cwd()
    except OSError:  # MKL ends a process there
        return fail("the current folder is gone; go to another one", 1)
    quiet, verbose = getattr(options, "quiet", False), getattr(options, "verbose", False)
    # Two threads that spin while they wait were a sixth faster on an idle machine, and half as fast
    # beside a busy loop. OpenMP reads this when torch is first imported, later than here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with (
            stoppable(),
            notices(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING),
        ):
            code = command(options)
        flush()
        if lost := unwritten():
            return fail(lost, code or 1)
    except UsageError as error:
        parser.print_usage(sys.stderr)
        return fail(error, 2)
    except CodecError as error:
        return fail(error, error.exit_code)
    except BrokenPipeError:
        forget_stdout()
        return fail("the reader of the output went away", 1)
    except OSError as error:
        return fail(error, 1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OWN:
            raise
        return fail(not_installed(error.name, "all"), 1)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not out_of_memory(error):
            raise
        return fail(error, 1)
    except KeyboardInterrupt as stop:
        return fail(str(stop) or interrupted.format(**vars(options)), 130)
    return code or 0


@contextmanager
def stoppable() -> Iterator[None]:
    """Lets SIGTERM, and a terminal that is closed, clean up like Ctrl-C.

    They are a KeyboardInterrupt in the main thread. What is ignored stays so: nohup, say.
    """
    previous: dict[signal.Signals, Any] = {}
    with suppress(ValueError):  # only the main thread may set handlers
        for number in STOPPING:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: it is not Python's to put back
                previous[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def notices(level: int = logging.WARNING) -> Iterator[None]:
    """Shows what the package has to say, from a level on, as lines on stderr."""
    handler, previous = logging.StreamHandler(), log.level
    handler.setFormatter(_Line("%(levelname)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(previous)


class _Line(logging.Formatter):
    """One line for each notice, whatever the name in it; of several files it says which."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        record.message = getattr(record, "about", "") + record.message
        return one_line(super().formatMessage(record))


def one_line(text: str) -> str:
    """Returns a text with what is no visible character, nor a space, as Python spells it.

    A file's name may have line breaks, and signs that a terminal obeys.
    """
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text
    )


def fail(error: object, code: int) -> int:
    """Prints one line."""
    if isinstance(error, Exception) and not isinstance(error, CodecError) and out_of_memory(error):
        error = _memory(error)
    if isinstance(error, OSError) and error.strerror:
        error = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    with suppress(OSError):  # nobody reads it, or the terminal is gone
        print(f"error: {one_line(str(error).strip())}", file=sys.stderr)
    return code


def _memory(error: Exception) -> str:
    """What is said where memory ran out."""
    loading = isinstance(error, ImportError)
    advice = " to load what is needed" if loading else "; scale the input down"
    return f"not enough memory{advice}, or raise its limit"


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def each(jobs: Sequence[tuple[str, Any]], work: Callable[[str, Any], None]) -> None:
    """Does every job, (input, output).

    Of several, those that fail are named, and the others are still done.

    An output that is an error says why its input cannot be done.

    Raises:
        CodecError, OSError: The only job failed; or, once all is done, some of several did.
        MemoryError, RuntimeError, ImportError: The only job took more memory than there is, in the
            words of one library or another.
    """
    failed, code = 0, 0
    for source, target in jobs:
        try:
            with _naming(source, several=len(jobs) > 1):
                if isinstance(target, OSError):
                    raise target
                work(source, target)
        except (CodecError, OSError) as error:
            if len(jobs) == 1 or isinstance(error, BrokenPipeError):
                raise
            failed, code = failed + 1, max(code, fail(error, getattr(error, "exit_code", 1)))
        except (MemoryError, RuntimeError, ImportError) as error:
            if len(jobs) == 1 or not out_of_memory(error):
                raise
            failed, code = failed + 1, max(code, fail(f"{source}: {_memory(error)}", 1))
    if failed:
        summary = CodecError(f"{failed} of {len(jobs)} files failed")
        summary.exit_code = code  # the gravest: a damaged file is not hidden by a missing one
        raise summary


@contextmanager
def _naming(name: str, several: bool) -> Iterator[None]:
    """Puts the input's name before its errors; of one of several, before its notices, too."""
    label = "stdin" if name == STDIO else name

    def about(record: logging.LogRecord) -> bool:
        record.about = f"{label}: "
        return True

    if several:
        log.addFilter(about)
    try:
        yield
    except CodecError as error:
        error.args = (f"{label}: {error}",)
        raise
    finally:
        log.removeFilter(about)


def progress(
    blocks: Iterable[Block],
    rate: float,
    unit: str = " s",
    total: float | None = None,
    quiet: bool = False,
) -> Iterator[Block]:
    """Passes blocks on and counts their units on stderr, where that is a terminal.

    It is a `codec.coding.watch.Watch`.
    """
    if quiet or not sys.stderr.isatty():
        yield from blocks
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, unit_scale=True, leave=False, delay=1) as bar:
        for block in blocks:
            yield block
            bar.update(len(block) / rate)


def print_line(line: str, stream: TextIO) -> None:
    """Prints a line with a file's name, which need not be text that the stream can take.

    Nobody needs to read it.
    """
    encoding = stream.encoding or "utf-8"
    try:
        text = one_line(line).encode(encoding, "backslashreplace").decode(encoding)
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        if stream is sys.stdout:
            forget_stdout()
    except OSError as error:
        if stream is sys.stdout:
            give_up_stdout(error)


def print_text(text: str) -> None:
    """Prints several lines on stdout, each by `print_line`."""
    for line in text.splitlines():
        print_line(line, sys.stdout)
