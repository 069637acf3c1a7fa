"""Neighbours' radii on a GPU in one Triton kernel, without an array of tokens x rows.

The m-th smallest of a token's distances is found by bisection: squared distances are positive, so
that their bits order as their values do, and counts of "how many rows are no farther than this"
give one bit after the other. Each count computes the distances again, in registers; the rows stay
in the cache. All 31 would end at the very float; 18 bound the squared distance to one part in 2^10,
whose middle gives the radius within .025 %, in three fifths of the time.

    bits of the answer:  0........   count(d <= 0 1 1 ... 1) < m ?  1........  then the next bit ...
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from codec.errors import reason_of

INFINITY_BITS = tl.constexpr(0x7F800000)
TOKENS = tl.constexpr(32)  # of a program
BITS = tl.constexpr(18)  # of 31 that are found
HALF = tl.constexpr(1 << (30 - BITS.value))  # of what the others may be
ROWS = tl.constexpr(64)  # at a time; 128 x 64 would not fit the registers

TOLERANCE = 3e-4  # of a radius: the middle of what the bits leave open, and rounding


@triton.jit  # type: ignore[untyped-decorator]
def _count(
    queries: tl.tensor,
    rows: tl.tensor,
    token: tl.tensor,
    num_rows: tl.tensor,
    stride: tl.tensor,
    limit: tl.tensor,
    dim: tl.constexpr,
) -> tl.tensor:
    """How many rows have a squared distance of at most `limit` (its bits) from each token."""
    total = tl.zeros((token.shape[0], ROWS), tl.int32)
    for start in range(0, num_rows, ROWS):
        row = start + tl.arange(0, ROWS)
        squared = tl.zeros((token.shape[0], ROWS), tl.float32)
        for i in tl.static_range(dim):
            x = tl.load(queries + i * stride + token)
            # NaN: never counted.
            y = tl.load(rows + i * num_rows + row, mask=row < num_rows, other=float("nan"))
            difference = x[:, None] - y[None, :]
            squared += difference * difference
        total += (squared <= limit.to(tl.float32, bitcast=True)[:, None]).to(tl.int32)
    return tl.sum(total, 1)


@triton.jit  # type: ignore[untyped-decorator]
def _radii(
    queries: tl.tensor,
    rows: tl.tensor,
    found: tl.tensor,
    rank: tl.tensor,
    num_rows: tl.tensor,
    stride: tl.tensor,
    dim: tl.constexpr,
) -> None:
    """A program: the distances of TOKENS tokens to their neighbour `rank`."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    bits = tl.zeros((TOKENS,), tl.int32)
    for place in range(BITS):
        step = 1 << (30 - place)
        limit = tl.minimum(bits + step - 1, INFINITY_BITS)
        count = _count(queries, rows, token, num_rows, stride, limit, dim)
        bits = tl.where(count < rank, bits + step, bits)
    # 0 and infinity stay what they are; a NaN, more than infinity, is where even infinity counts
    # too few.
    middle = tl.where((bits > 0) & (bits < INFINITY_BITS), bits + HALF, bits)
    tl.store(found + token, tl.sqrt(middle.to(tl.float32, bitcast=True)))


def radii(queries: Tensor, rows: Tensor, ks: tuple[int, ...]) -> Tensor:
    """D_m for each m in `ks`: see `codec.bottlenecks._knn.Neighbours`.

    Args:
        queries: (N, d) float32.
        rows: (Q, d) float32 on the same device.
        ks: Which neighbours, counted from 1, all of them at most Q; each takes a search of its own.

    Returns:
        (len(ks), N) float32.
    """
    num_tokens, dim = queries.shape
    stride = -(-num_tokens // TOKENS.value) * TOKENS.value
    columns = queries.new_zeros(dim, stride)
    columns[:, :num_tokens] = queries.T
    found, table = queries.new_empty(len(ks), stride), rows.T.contiguous()
    with torch.cuda.device_of(rows):  # Triton launches on the current device, whatever it is given
        for rank, part in zip(ks, found, strict=True) if stride else ():
            _radii[(stride // TOKENS.value,)](
                columns, table, part, rank, len(rows), stride, dim=dim
            )
    return found[:, :num_tokens]


@cache
def works(device: torch.device) -> bool:
    """Whether the kernel compiles here and agrees with all distances and topk.

    Says so where it does not.
    """
    from codec.bottlenecks._knn import radii_by_blocks

    generator = torch.Generator().manual_seed(0)
    rows, queries = (torch.randn(n, 5, generator=generator).to(device) for n in (300, 70))
    try:
        exact = radii_by_blocks(queries, rows, (1, 8))
        torch.testing.assert_close(radii(queries, rows, (1, 8)), exact, rtol=TOLERANCE, atol=0.0)
    except Exception as error:
        # No C compiler, an unknown GPU, a driver too old: training goes on without the kernel.
        warnings.warn(
            f"VP's search runs without its Triton kernel: {reason_of(error)}", stacklevel=2
        )
        return False
    return True
