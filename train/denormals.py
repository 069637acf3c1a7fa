"""Numbers below 1e-38 count as zero while nets train.

A CPU is many times slower with such denormal numbers, and a posterior over codes is full of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DENORMAL = 1e-39


@contextmanager
def flushed() -> Iterator[None]:
    """Inside, this thread takes denormal numbers for zero, and so do the threads that it starts.

    Enter it before the first computation, since torch starts its threads then.
    """
    before = bool(torch.tensor(DENORMAL) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
