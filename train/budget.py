"""How long a run trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: one of two measures.

    Attributes:
        minutes: Wall clock, summed over the parts of a run that was interrupted and resumed.
        steps: Optimiser steps.

    Raises:
        ValueError: Both are given, or neither, or one that is not above 0.
    """

    minutes: float | None = None
    steps: int | None = None

    def progress(self, elapsed_s: float, step: int) -> float:
        """Returns the share of the budget that is spent, in [0, 1]."""
        share = (
            step / self.steps if self.steps is not None else elapsed_s / 60 / (self.minutes or 1e-9)
        )
        return min(share, 1.0)

    def __post_init__(self) -> None:
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ValueError(f"want minutes or steps, above 0; got {self.minutes} and {self.steps}")
