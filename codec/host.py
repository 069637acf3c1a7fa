"""What work on tensors may ask of the host.

A value that Python reads from a GPU makes both wait for each other.

A step of training that never does so runs ahead of the GPU, or is one CUDA graph. So inside
`unread` checks of values are left out, and searches take a form whose shapes do not depend on data:

    may_read    whether values may be read, to refuse bad ones, say
    on_host     whether a tensor lies where reading costs nothing: then the host does what it does
                best
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

HOSTS = ("cpu",)  # kinds of device whose memory is the host's
_inside = threading.local()


@contextmanager
def unread() -> Iterator[None]:
    """Inside, in this thread, no value is read.

    Nothing is checked, and what is not finite gives anything.
    """
    outer = getattr(_inside, "unread", False)
    _inside.unread = True
    try:
        yield
    finally:
        _inside.unread = outer


def may_read() -> bool:
    """Whether values may be read.

    Not in `unread`, nor while a graph is exported, which has no values.
    """
    return not getattr(_inside, "unread", False) and not torch.compiler.is_exporting()


def on_host(tensor: Tensor) -> bool:
    """Whether the host can work on a tensor without waiting for another device."""
    return tensor.device.type in HOSTS
