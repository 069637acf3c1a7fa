"""Training steps as CUDA graphs: a thousand kernels are launched at once, not one by one.

Launching them from Python takes longer than a small net computes. A CUDA graph is recorded once, as
the step runs, and is then replayed on the same memory: that is why `train.learner` writes all that
differs from step to step into tensors that stay.

    first calls   the step as it is, on a stream of its own: buffers and kernels find their place
    then          the step is recorded, once for each stage and codebook size
    from then on  the recording is replayed

What cannot be recorded runs as it is: on a CPU, on several processes, and while a bottleneck still
decides something on the host (`Bottleneck.settled`).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Calls before the first step of a stage is recorded: cuDNN chooses, optimisers make their state, a
# queue is read once.
FIRST_WARM = 3
# And before those of other codebook sizes, which have only their own codebook's state to make.
WARM = 1

Step = Callable[[], dict[str, Tensor]]
Recorded = tuple[torch.cuda.CUDAGraph, list[str], Tensor]


class Graphs:
    """The steps of a run by their keys, recorded where that is possible.

    Args:
        device: Where all tensors lie.
        enabled: Whether to record at all; on a CPU nothing is.

    Attributes:
        enabled: False from the first recording that failed on: the run goes on without graphs.
    """

    def __init__(self, device: str, enabled: bool) -> None:
        self.enabled = enabled and torch.device(device).type == "cuda"
        self._calls: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, Recorded] = {}
        self._side: torch.cuda.Stream | None = None

    def forget(self) -> None:
        """Drops all recordings.

        A new stage has another optimiser and other gradients, which old recordings know nothing of.
        """
        if self.enabled:
            torch.cuda.synchronize()
        self._calls.clear()
        self._recorded.clear()

    def run(self, key: Hashable, step: Step, settled: bool = True) -> dict[str, Tensor]:
        """Takes one step, by replaying its recording if there is one.

        Args:
            key: All that the host decides in the step: its stage and its codebook size.
            step: Takes the step.
            settled: Whether it may be recorded by now.

        Returns:
            The step's named scalars, () float32 each where it was replayed.
        """
        if not self.enabled or not settled:
            return step()
        if key not in self._recorded:
            warm = WARM if self._recorded else FIRST_WARM
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= warm:
                return self._aside(step)
            try:
                self._recorded[key] = self._record(step)
            except Exception as error:
                # CUDA itself failed, or the step did what a recording does not bear. Nobody knows
                # what state that left, so the run goes on without recordings.
                self.enabled = False
                torch.cuda.synchronize()
                print(
                    f"no CUDA graph of the step {key}: {_reason(error)}; going on without",
                    file=sys.stderr,
                )
                return step()
        graph, names, values = self._recorded[key]
        graph.replay()
        # The next replay writes over them.
        return dict(zip(names, values.clone().unbind(), strict=True))

    def _aside(self, step: Step) -> dict[str, Tensor]:
        """Takes the step on a stream of its own, as CUDA wants it before a recording."""
        self._side = self._side or torch.cuda.Stream()
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            values = step()
        torch.cuda.current_stream().wait_stream(self._side)
        return values

    def _record(self, step: Step) -> Recorded:
        """Records the step, which does not run yet, and where its scalars will be."""
        # All graphs share the memory of the first: they run one after another, and what they return
        # is copied at once.
        pool = next((graph.pool() for graph, *_ in self._recorded.values()), None)
        graph = torch.cuda.CUDAGraph()
        with _nothing_freed(), torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):
            values = step()
            names, stacked = list(values), torch.stack([value.float() for value in values.values()])
        return graph, names, stacked


@contextmanager
def _nothing_freed() -> Iterator[None]:
    """Frees what is unused before a recording, and collects no garbage during it.

    Memory that is freed during a recording breaks it off.
    """
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _reason(error: BaseException) -> str:
    """Returns the first lines of an error and of the one before it.

    A recording that breaks off raises a second error at its end, which hides the cause.
    """
    chain = [part for part in (error.__context__, error) if part is not None]
    return "; ".join(str(part).strip().partition("\n")[0] or type(part).__name__ for part in chain)
