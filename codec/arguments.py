"""Checks of the public functions' arguments.

What is of another kind is refused in a line, before anything is read.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def whole(value: object, name: str, least: int | None = None) -> int:
    """An argument as an integer of Python's.

    Raises ValueError for a float, a text, a truth value and whatever else, and for what is below
    `least`.
    """
    try:
        if not isinstance(value, bool | np.bool_):  # True would count as 1
            number = operator.index(value)  # type: ignore[arg-type]  # that is what is tried
            if least is None or number >= least:
                return number
    except TypeError:
        pass
    range_ = "" if least is None else f" from {least} on"
    raise ValueError(f"{name} is a whole number{range_}, not {value!r}")


def real(value: object, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """An argument as a finite number in [low, high].

    Raises ValueError for what is outside, not finite, or no number.
    """
    try:
        if not isinstance(value, str | bool | np.bool_):  # "1" and True would count as 1
            number = float(value)  # type: ignore[arg-type]  # that is what is tried
            if math.isfinite(number) and low <= number <= high:
                return number
    except (TypeError, ValueError, OverflowError):
        pass
    if high < math.inf:
        range_ = f"a number from {low:g} to {high:g}"
    else:
        range_ = "a finite number" if low == -math.inf else f"a finite number from {low:g} on"
    raise ValueError(f"{name} is {range_}, not {value!r}")


def positive(value: object, name: str) -> float:
    """An argument as a finite number above 0. Raises ValueError for anything else."""
    try:
        if number := real(value, name, 0):
            return number
    except ValueError:
        pass
    raise ValueError(f"{name} is a finite number above 0, not {value!r}")


def choice(value: T, name: str, known: Collection[T]) -> T:
    """An argument that is one of a few texts. Raises ValueError for anything else."""
    if isinstance(value, str) and value in known:
        return value
    raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(map(str, known))}")


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
