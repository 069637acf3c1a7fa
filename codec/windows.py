"""A stream cut into windows: a core with context on both sides.

So what needs neighbours finds them.

blocks  ┆ 0 1 2 3 4 ┆ 5 6 ┆ 7 8 9 ...      core 4, context 1
windows [0 1 2 3 (4)]  [(3) 4 5 6 7 (8)]  [(7) 8 9 ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.checkpoint import checkpoint

Rows = TypeVar("Rows", NDArray[Any], Tensor)


def windows(blocks: Iterable[Rows], core: int, context: int) -> Iterator[tuple[Rows, int, int]]:
    """Cuts a stream, along its first axis, into windows.

    Their cores lie at fixed positions, each with context on both sides.

    Yields:
        (window, left, n): the core is window[left : left + n]; n is `core` but for the last, and
        the context on either side is as long as the stream allows, up to `context`.
    """
    held: list[Rows] = []
    length = left = 0
    for block in blocks:
        held.append(block)
        length += len(block)
        if length < left + core + context:
            continue
        buffer = _join(held)
        while len(buffer) >= left + core + context:
            checkpoint()
            yield buffer[: left + core + context], left, core
            drop = max(left + core - context, 0)
            buffer, left = buffer[drop:], left + core - drop
        held, length = [buffer], len(buffer)
    if not held:
        return
    buffer = _join(held)
    while len(buffer) > left:
        checkpoint()
        yield buffer[: left + core + context], left, min(core, len(buffer) - left)
        drop = max(left + core - context, 0)
        buffer, left = buffer[drop:], left + core - drop


def _join(blocks: list[Rows]) -> Rows:
    """One array of several, which is no copy where there is one only."""
    blocks = [block for block in blocks if len(block)] or blocks[:1]
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat(blocks) if isinstance(blocks[0], Tensor) else np.concatenate(blocks)
