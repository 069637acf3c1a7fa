"""A forked process computes on one thread, as a worker of torch's DataLoader does.

The threads of OpenMP stay behind in a fork, and a child that waits for them waits for ever.
"""

from __future__ import annotations

import os

import torch

_computed = False


def expect() -> None:
    """Says that this process computes, and so may have such threads."""
    global _computed
    _computed = True


def _in_child() -> None:
    if _computed:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_in_child)
