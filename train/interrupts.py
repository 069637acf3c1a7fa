"""Ctrl-C, SIGTERM and SIGHUP while a run trains: they wait until the step is taken."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from codec.cli.frame import STOPPING
from train import parallel

WAITING = b"\nstopping with a checkpoint after this step; Ctrl-C again stops at once\n"


@dataclass(slots=True)
class Interruption:
    """Whether the run was asked to stop.

    Attributes:
        asked: It was, since the run began to listen.
    """

    asked: bool = False


@contextmanager
def between_steps() -> Iterator[Interruption]:
    """Notes these signals instead of raising KeyboardInterrupt in the middle of a step.

    A second Ctrl-C raises it at once, but not in one of several processes: torchrun passes on what
    they got from the terminal already. What is ignored stays so, as in `codec.cli.frame.stoppable`.

    Yields:
        What was noted. Who reads it ends the run and raises KeyboardInterrupt.
    """
    found = Interruption()

    def note(number: int, _: Any) -> None:
        if found.asked and number == signal.SIGINT and parallel.world() == 1:
            raise KeyboardInterrupt
        if number == signal.SIGINT and not found.asked and parallel.rank() == 0:
            with suppress(OSError):  # nobody reads it, or the terminal is gone
                os.write(2, WAITING)
        found.asked = True

    previous: dict[signal.Signals, Any] = {}
    with suppress(ValueError):  # only the main thread may set handlers
        for number in (signal.SIGINT, *STOPPING):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: it is not Python's to put back
                previous[number] = signal.signal(number, note)
    try:
        yield found
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
