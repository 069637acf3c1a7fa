"""In what precision the project computes: float32, whatever stands around it.

A program may have set a default dtype, TF32 or bfloat16 products, or autocast before it calls us.
What decides indices must not follow: half-precision distances around 1e-2 are noise, and the same
input must give the same bytes. So

    exact_float32   no autocast and no reduced products, for a block of code
    exactly         the same for a generator, while it works and not while its consumer does
    Float32         modules whose state stays float32 through .half(), .bfloat16() and .double()

and every tensor that is made from numbers names its dtype. Training may still run nets under
autocast: they enter no `exact_float32` of their own, bottlenecks and whatever codes do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from codec import forks
from codec.locks import forkable_lock

T = TypeVar("T")
END = object()


class _Switches:
    """PyTorch's switches for products of float32 on one kind of device.

    They are held at full precision while anyone needs it.

    The switches belong to the process, not to a thread: the first thread that enters turns them and
    the last one that leaves turns them back, so that no thread loses the precision that it is
    computing with. Meanwhile other work of the process may be slower than it asked for, but never
    less precise.
    """

    def __init__(self, *backends: Any) -> None:
        self._backends = backends
        self._lock = forkable_lock()
        self._users = 0
        self._kept: list[tuple[Any, str]] = []

    def hold(self) -> None:
        with self._lock:
            if not self._users:
                self._kept = [(backend, backend.fp32_precision) for backend in self._backends]
            for backend in self._backends:  # each time: someone may have turned one since
                if backend.fp32_precision != "ieee":
                    backend.fp32_precision = "ieee"
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for backend, precision in self._kept:
                if backend.fp32_precision != precision:
                    # Which may be what it was: one that follows a general switch.
                    backend.fp32_precision = "none"
                if backend.fp32_precision != precision:
                    backend.fp32_precision = precision


_MKLDNN: Any = torch.backends.mkldnn  # makes its attributes at run time, where mypy cannot see them
_CUDNN: Any = torch.backends.cudnn
SWITCHES = {
    "cpu": _Switches(_MKLDNN.matmul, _MKLDNN.conv),
    "cuda": _Switches(torch.backends.cuda.matmul, _CUDNN.conv),
}


_inside = threading.local()  # by device type: whether this thread is in `exact_float32` already


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32 or bfloat16 products inside.

    This holds in this thread, and in others that are inside as well.
    """
    kind = device.type
    if getattr(_inside, kind, False) and not torch.is_autocast_enabled(kind):
        yield
        return
    forks.expect()
    switches, outer = SWITCHES.get(kind), getattr(_inside, kind, False)
    if switches is not None:
        switches.hold()
    setattr(_inside, kind, True)
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        setattr(_inside, kind, outer)
        if switches is not None:
            switches.release()


def exactly(items: Iterable[T], device: torch.device) -> Iterator[T]:
    """Yields what `items` does, each computed in inference mode and in `exact_float32`.

    The consumer is in neither.
    """
    iterator = iter(items)
    while True:
        with torch.inference_mode(), exact_float32(device):
            item: Any = next(iterator, END)
        if item is END:
            return
        yield item


class Float32(nn.Module):
    """A module whose parameters and buffers, and those below it, stay float32.

    `.half()`, `.bfloat16()`, `.double()` and `.to(dtype)` change nothing, `.to(device, dtype)` only
    moves, and state that is loaded becomes float32. A codebook in half precision would decode other
    codes than those that were searched, and sums of averages and queues would stop moving; nets
    take their speed in training from autocast, which wants float32 weights.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def in_float32(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            return result if result.dtype == dtype else tensor.to(result.device, dtype)

        return super()._apply(in_float32, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **options: Any
    ) -> None:
        """As in `nn.Module`, and `load_state_dict(..., assign=True)` changes no type either."""
        for name, value in state_dict.items():  # of the modules below, too, which come after this
            if name.startswith(prefix) and isinstance(value, Tensor) and value.is_floating_point():
                state_dict[name] = value.float()
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)
