"""Several processes, as torchrun starts them: `torchrun --nproc-per-node 8 -m train RECIPE ...`.

Each process takes its own rows of every batch, so that the batch is the recipe's times the number
of processes; DistributedDataParallel averages the gradients, and bottlenecks learn from all rows
(codec.bottlenecks.parts).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from codec.bottlenecks.parts import parallel

# How long one process waits for another, which may decode all media first: NCCL's ten minutes are
# too few. Nobody waits so long for a process that failed: torchrun ends the others.
PATIENCE = timedelta(days=1)


def rank() -> int:
    return dist.get_rank() if parallel() else 0


def world() -> int:
    return dist.get_world_size() if parallel() else 1


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Joins the processes of torchrun, if it started this one, and leaves them at the end.

    Args:
        device: "cpu" or "cuda".

    Yields:
        The device of this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # Its functions keep the group of the moment of their import as defaults, for good. Without this
    # line DistributedDataParallel imports it when there is a group.
    import_module("torch.distributed.nn")
    dist.init_process_group("nccl" if device != "cpu" else "gloo", timeout=PATIENCE)
    try:
        yield device
    finally:
        # What still held the group, a replica that waits for the collector say, would keep its
        # threads beyond the interpreter's end, where one that wants Python's lock aborts the
        # process.
        gc.collect()
        dist.destroy_process_group()


def replicate(module: nn.Module, unused: bool = False) -> nn.Module:
    """Returns the module with its gradients averaged over processes.

    Buffers are left alone: what learns without gradients is kept alike where it learns.

    Args:
        module: What learns.
        unused: Whether a step may leave some parameters out.
    """
    if not parallel() or not any(p.requires_grad for p in module.parameters()):
        return module
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=unused)


def mean(value: Tensor) -> Tensor:
    """Returns the mean over processes of a tensor without gradient."""
    if parallel():
        value = value.clone()
        dist.all_reduce(value)
        value /= world()
    return value


def first(value: Any) -> Any:
    """Returns the value that process 0 has; any plain data will do."""
    if not parallel():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def first_numbers(values: Tensor) -> Tensor:
    """Returns the tensor on the host that process 0 has.

    Without a pickle, so that every step may ask.
    """
    if parallel():
        device = f"cuda:{torch.cuda.current_device()}" if dist.get_backend() == "nccl" else "cpu"
        values = values.to(device)
        dist.broadcast(values, 0)
        values = values.cpu()
    return values


def agree(elapsed_s: float, save: bool, stop: bool) -> tuple[float, bool, bool]:
    """Returns what process 0 has of these, on every process: they must save and stop as one."""
    if world() > 1:
        clock = torch.tensor([elapsed_s, save, stop], dtype=torch.float64)
        elapsed_s, save, stop = first_numbers(clock).tolist()
    return elapsed_s, bool(save), bool(stop)


def all_of(value: Any) -> list[Any]:
    """Returns every process's value, by rank."""
    if not parallel():
        return [value]
    box: list[Any] = [None] * world()
    dist.all_gather_object(box, value)
    return box


@torch.no_grad()
def copy_first(module: nn.Module) -> None:
    """Makes parameters and buffers those of process 0."""
    if parallel():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)
