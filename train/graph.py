"""A step as one CUDA graph: its thousand kernels are launched at once instead of one after another.

    first calls   the step as it is, on a stream of its own: buffers and kernels find their place
    then          the step is recorded, once for each stage and codebook size, and from then on replayed

What cannot be recorded runs as it is: on a CPU, on several processes, and with bottlenecks that decide on the host
(VP while its queue fills, GM-VQ whose noise has a generator of its own, a search for the nearest code).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

WARM = 3  # calls before a step is recorded: cuDNN chooses, optimisers make their state
RECORDED = ("fsp",)  # bottlenecks whose training and search leave nothing to the host

Step = Callable[[], dict[str, Tensor]]


class Graphs:
    """Steps by key, recorded where that is possible.

    Args:
        device: Of all tensors.
        enabled: Whether to record at all; on a CPU nothing is.
    """

    def __init__(self, device: str, enabled: bool) -> None:
        self.enabled = enabled and torch.device(device).type == "cuda"
        self._calls: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[str], Tensor]] = {}

    def forget(self) -> None:
        """Another stage, whose optimiser and gradients are others: what was recorded is of no use."""
        if self.enabled:
            torch.cuda.synchronize()
        self._calls.clear()
        self._recorded.clear()

    def run(self, key: Hashable, step: Step) -> dict[str, Tensor]:
        """One step; `key` is all that the host decides in it. Returns its named scalars."""
        if not self.enabled:
            return step()
        if key not in self._recorded:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= WARM:
                return _aside(step)
            try:
                self._recorded[key] = _record(step)
            except RuntimeError as error:
                self.enabled = False  # a capture that failed may have left anything; the run goes on without
                torch.cuda.synchronize()
                reason = str(error).strip().splitlines()[0]
                print(f"no CUDA graph of the step {key}: {reason}; going on without", file=sys.stderr)
                return step()
        graph, names, values = self._recorded[key]
        graph.replay()
        return dict(zip(names, values.clone().unbind(), strict=True))  # the next replay writes over them


def _aside(step: Step) -> dict[str, Tensor]:
    """The step on a stream of its own, as a recording wants it before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        values = step()
    torch.cuda.current_stream().wait_stream(stream)
    return values


def _record(step: Step) -> tuple[torch.cuda.CUDAGraph, list[str], Tensor]:
    # Memory that is freed during a recording breaks it off.
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values = step()
        names, stacked = list(values), torch.stack([value.float() for value in values.values()])
    return graph, names, stacked
