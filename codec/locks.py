"""What several threads share, safe where one of them forks.

A child has the thread that forked alone. A lock that another one held would stay taken in it, and
who waits for it waits for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


def forkable_lock() -> threading.Lock:
    """Returns a lock of a module, which nobody holds at the moment of a fork."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):  # where there are forks
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock


class computed_once(Generic[T]):  # noqa: N801  used as functools.cached_property is
    """`functools.cached_property`, which has a lock for all instances before Python 3.12.

    Threads that come at the same time each compute the value, so it must always be the same.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> computed_once[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> computed_once[T] | T:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._function(instance)
        return value
