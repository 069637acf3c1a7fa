"""A forked process computes on one thread, as a worker of torch's DataLoader does.

The threads of OpenMP stay behind in a fork, and a child that waits for them waits for ever.
"""

from __future__ import annotations

import os
from functools import cache, partial

import torch


@cache
def expect() -> None:
    """Prepares for forks of this process, which is about to start such threads."""
    if hasattr(os, "register_at_fork"):  # where there are forks
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
