"""Warnings of other packages, kept quiet while they are at work."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_users = 0
_filters = ExitStack()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Ignores warnings, in any number of threads at once.

    Python's filters belong to the whole process. Threads that each changed them and put them back
    would leave them changed for good: so the first that comes changes them, and the last that goes
    puts them back.
    """
    global _users
    with _lock:
        if not _users:
            _filters.enter_context(warnings.catch_warnings(action="ignore"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _filters.close()
