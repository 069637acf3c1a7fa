"""Checks of the public functions' arguments.

What is of another kind is refused in a line, before anything is read.
"""

from __future__ import annotations

import operator
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def whole(value: object, name: str) -> int:
    """An argument as an integer of Python's.

    Raises ValueError for a float, a text, a truth value and whatever else.
    """
    try:
        if not isinstance(value, bool | np.bool_):  # True would count as 1
            return operator.index(value)  # type: ignore[arg-type]  # that is what is tried
    except TypeError:
        pass
    raise ValueError(f"{name} is a whole number, not {value!r}")


def flag(value: object, name: str) -> bool:
    """An argument as a truth value.

    Raises TypeError for anything else: "no" would count as True.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError(f"{name} is True or False, not {value!r}")


def instance(value: object, kind: type[T], name: str) -> T:
    """An argument of a class. Raises TypeError for anything else."""
    if isinstance(value, kind):
        return value
    raise TypeError(f"{name} is a {kind.__name__}, not {value!r}")
