"""One batch on several processes: sums over all of it.

What a bottleneck learns from must be the whole batch, or its replicas drift apart.

Outside torch.distributed, and on one process, every function here returns what it was given. In
training all processes must call them in the same order, with rows of equal number.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def parallel() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def gather_rows(rows: Tensor) -> Tensor:
    """`rows`, (N, ...) of each of W processes -> (W N, ...), in order of rank; no gradient."""
    if not parallel():
        return rows
    parts = [
        torch.empty_like(rows, memory_format=torch.contiguous_format)
        for _ in range(dist.get_world_size())
    ]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def from_first(value: Tensor) -> Tensor:
    """The `value` of process 0 on all: random draws that they must share."""
    if parallel():
        value = value.contiguous()
        dist.broadcast(value, 0)
    return value


@torch.no_grad()
def sum_of_all(value: Tensor) -> Tensor:
    """The sum of `value` over processes; no gradient."""
    return _mean(value) * dist.get_world_size() if parallel() else value


def var_mean_of_all(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased variance and mean over all processes' rows, (N, D) -> (D,), (D,).

    Both are differentiable; the variance of one row is 0.
    """
    if not parallel():
        variance, mean = torch.var_mean(rows, 0, correction=min(1, len(rows) - 1))
        return variance, mean
    mean = mean_of_all(rows.mean(0))
    count = len(rows) * dist.get_world_size()
    return mean_of_all((rows - mean).square().mean(0)) * (count / (count - 1)), mean


def mean_of_all(value: Tensor) -> Tensor:
    """The mean of `value` over processes, differentiable.

    DistributedDataParallel's mean of the gradients is then the gradient of that mean.
    """
    if not parallel():
        return value
    result: Tensor = _Mean.apply(value)  # type: ignore[no-untyped-call]
    return result


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        return _mean(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return _mean(gradients[0])


def _mean(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()
