"""Compiled searches on as many threads as torch may use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

FEWEST = 256  # rows that are worth a thread


def in_threads(count: int, work: Callable[[slice], object]) -> None:
    """Calls `work` on the parts of range(count), one for each of torch's threads.

    `work` must let go of Python's lock.
    """
    threads = max(1, min(torch.get_num_threads(), count // FEWEST))
    if threads == 1:
        work(slice(0, count))
        return
    edges = [count * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [slice(*pair) for pair in pairwise(edges)]))
