"""bottlenecks: a training step of each method, against vector-quantize-pytorch.

A step is forward, losses, backward and the codebook's own updates; the number of tokens, dimension
and codebook size are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from codec.bottlenecks import FSP, FSQ, VQ, SimVQ
from codec.bottlenecks.codebooks import ByAverage
from codec.cli.frame import UsageError
from codec.errors import CodecError, not_installed
from eval.bench.timing import Figures, Options, Step, compare

LEVELS = {1024: (8, 5, 5, 5)}  # FSP and FSQ tie the dimension to the levels
BATCH = 8


def ours(bottleneck: torch.nn.Module, rows: Tensor) -> Step:
    """Returns a step of our bottleneck on (B, T, L) rows, in our layout (B, L, T)."""
    bottleneck.train()
    z = rows.movedim(-1, 1).contiguous().requires_grad_()

    def step() -> None:
        z.grad = None
        bottleneck.zero_grad()
        out = bottleneck(z)
        loss = out.z_q.square().mean() + sum(out.losses.values())
        loss.backward()

    return step


def theirs(module: torch.nn.Module, rows: Tensor) -> Step:
    """Returns a step of a module of vector-quantize-pytorch, in its layout (B, T, L)."""
    module.train()
    z = rows.clone().requires_grad_()

    def step() -> None:
        z.grad = None
        module.zero_grad()
        out = module(z)
        loss = out[0].square().mean() + (out[2].sum() if len(out) > 2 else 0)
        loss.backward()

    return step


def pairs(dim: int, size: int, tokens: int, device: str) -> Iterator[tuple[str, int, Step, Step]]:
    """(name, dimension, our step, their step) of every method that both have.

    Raises:
        CodecError: The library is not installed.
    """
    try:
        import vector_quantize_pytorch as library
    except ModuleNotFoundError:
        raise CodecError(not_installed("vector_quantize_pytorch", "bench")) from None
    vq: Any = {"dim": dim, "codebook_size": size, "rotation_trick": False}
    gradient = vq | {"learnable_codebook": True, "ema_update": False}
    levels = list(LEVELS[size])
    # method -> our module, theirs, dimension; straight-through in both, without the library's
    # rotation of gradients
    methods: dict[str, tuple[Callable[[], Any], Callable[[], Any], int]] = {
        "vq": (lambda: VQ(dim, (size,)), lambda: library.VectorQuantize(**gradient), dim),
        "vq-ema": (
            lambda: VQ(dim, (size,), update=ByAverage),
            lambda: library.VectorQuantize(**vq, decay=0.99),
            dim,
        ),
        "simvq": (
            lambda: SimVQ(dim, (size,)),
            lambda: library.SimVQ(dim, size, rotation_trick=False),
            dim,
        ),
        "fsq": (lambda: FSQ({size: levels}), lambda: library.FSQ(levels), len(levels)),
        "fsp": (
            lambda: FSP({size: levels}),
            lambda: library.FSP(levels, quantize_rate=0.5),
            len(levels),
        ),
    }
    for name, (mine, other, width) in methods.items():
        torch.manual_seed(0)
        rows = torch.randn(BATCH, tokens // BATCH, width, device=device)
        bottleneck = mine().to(device)
        bottleneck.fit(rows.flatten(0, 1))
        yield name, width, ours(bottleneck, rows), theirs(other().to(device), rows)


def bottlenecks(options: Options) -> Figures:
    """Times a training step of each method that both have.

    Raises:
        UsageError: More than one size or dimension is asked for.
        CodecError: FSP and FSQ have no levels for this size, or the library is not installed.
    """
    if len(options.dims) > 1 or len(options.sizes) > 1:
        raise UsageError("bottlenecks: give one --dim and one --codebook-size")
    if options.tokens < BATCH:
        raise UsageError(f"--tokens {options.tokens}: bottlenecks wants at least {BATCH}")
    rows: Figures = {}
    print(f"{'method':8} {'L':>3} {'ours, ms':>9} {'theirs, ms':>11} {'ours / theirs':>14}")
    (dim,), (size,) = options.dims, options.sizes
    if size not in LEVELS:
        raise CodecError(f"no levels for K = {size}; choose {', '.join(map(str, LEVELS))}")
    for name, width, mine, other in pairs(dim, size, options.tokens, options.device):
        a, b, ratio = compare(mine, other, options.turns, options.device)
        rows[name] = {"dim": width, "ours_s": a, "theirs_s": b, "ratio": ratio}
        print(f"{name:8} {width:3} {1e3 * a:9.2f} {1e3 * b:11.2f} {ratio:14.2f}", flush=True)
    return rows | {"vector-quantize-pytorch": version("vector-quantize-pytorch")}
