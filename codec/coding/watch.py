"""Somebody who sees a signal pass while it is coded: a bar of progress, say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray
from torch import Tensor

Block = TypeVar("Block", NDArray[Any], Tensor)


class Watch(Protocol):
    """Passes blocks on as they are."""

    def __call__(
        self, blocks: Iterable[Block], rate: float, unit: str = " s", total: float | None = None
    ) -> Iterable[Block]:
        """Called once for a signal.

        Args:
            blocks: Samples (n, C), or rows of latents (n, w, D_in).
            rate: Of a block's first axis, how many make one unit.
            unit: What is counted: seconds, or rows of pixels.
            total: How many units there will be; None where nobody knows.
        """
