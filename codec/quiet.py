"""Warnings of other packages, kept quiet while they are at work.

And notices of this one, collected for who knows the name of the file.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from codec.locks import forkable_lock

_heard = threading.local()  # `lists`: of the calls of `heard` in a thread, the innermost last
_lock = forkable_lock()
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


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collects what this package has to say in this thread, rather than showing it.

    A notice on a file does not name it; a command of many files collects them, and does.

    Yields:
        The list that receives the texts of warnings and errors.
    """
    texts: list[str] = []
    lists = _heard.__dict__.setdefault("lists", [])
    lists.append(texts)
    try:
        yield texts
    finally:
        lists.pop()


def _collect(record: logging.LogRecord) -> bool:
    """Keeps a record back that somebody collects, as a filter of the package's logger."""
    lists = getattr(_heard, "lists", None)
    if not lists or record.levelno < logging.WARNING:
        return True
    lists[-1].append(record.getMessage())
    return False


logging.getLogger("codec").addFilter(_collect)
