"""Where long work may be ended by whoever asked for it.

with checked(still_wanted):      # raises when the work is not wanted any more
    codec.compress(data, search=20)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[], None]
_check: ContextVar[Check | None] = ContextVar("check", default=None)


@contextmanager
def checked(check: Check) -> Iterator[None]:
    """Has `check` called now and then during the work within, in the same thread.

    What it raises ends that work.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def checkpoint() -> None:
    """Called by work that takes long, where it may end: before a step or a window."""
    check = _check.get()
    if check is not None:
        check()
