"""python -m eval.bench: how long things take, always as ratios of two ways to do the same work, in one run.

    bottlenecks   a training step (forward, losses, backward, the codebook's own updates) of each method, against
                  vector-quantize-pytorch: the same number of tokens, dimension and codebook size

The two take turns, so that a busy machine slows both; the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from codec.bottlenecks import FSP, FSQ, VQ, SimVQ
from codec.bottlenecks.vq import ByAverage
from codec.errors import CodecError

Step = Callable[[], object]
LEVELS = {1024: (8, 5, 5, 5)}  # FSP and FSQ tie the dimension to the levels
BATCH = 8


def ours(bottleneck: torch.nn.Module, rows: Tensor) -> Step:
    """A step on (B, T, L) rows, in our layout (B, L, T)."""
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
    """The same of vector-quantize-pytorch, in its layout (B, T, L)."""
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
        raise CodecError("vector_quantize_pytorch is not installed; pip install 'codec[dev]'") from None
    vq: Any = {"dim": dim, "codebook_size": size, "rotation_trick": False}
    gradient = vq | {"learnable_codebook": True, "ema_update": False}
    levels = list(LEVELS[size])
    # method -> our module, theirs, dimension; straight-through in both, without the library's rotation of gradients
    methods: dict[str, tuple[Callable[[], Any], Callable[[], Any], int]] = {
        "vq": (lambda: VQ(dim, (size,)), lambda: library.VectorQuantize(**gradient), dim),
        "vq-ema": (
            lambda: VQ(dim, (size,), update=ByAverage),
            lambda: library.VectorQuantize(**vq, decay=0.99),
            dim,
        ),
        "simvq": (lambda: SimVQ(dim, (size,)), lambda: library.SimVQ(dim, size, rotation_trick=False), dim),
        "fsq": (lambda: FSQ({size: levels}), lambda: library.FSQ(levels), len(levels)),
        "fsp": (lambda: FSP({size: levels}), lambda: library.FSP(levels, quantize_rate=0.5), len(levels)),
    }
    for name, (mine, other, width) in methods.items():
        torch.manual_seed(0)
        rows = torch.randn(BATCH, tokens // BATCH, width, device=device)
        bottleneck = mine().to(device)
        bottleneck.fit(rows.flatten(0, 1))
        yield name, width, ours(bottleneck, rows), theirs(other().to(device), rows)


def compare(first: Step, second: Step, turns: int, device: str) -> tuple[float, float, float]:
    """Median seconds of both, and the median ratio first / second of neighbouring turns."""
    for _ in range(3):
        first()
        second()
    a, b = [], []
    for _ in range(turns):
        a.append(seconds(first, device))
        b.append(seconds(second, device))
    return median(a), median(b), median(x / y for x, y in zip(a, b, strict=True))


def seconds(step: Step, device: str) -> float:
    """How long one call takes."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def bottlenecks(options: argparse.Namespace) -> dict[str, Any]:
    """The table of training steps."""
    rows = {}
    print(f"{'method':8} {'L':>3} {'ours, ms':>9} {'theirs, ms':>11} {'ours / theirs':>14}")
    for name, dim, mine, other in pairs(options.dim, options.codebook_size, options.tokens, options.device):
        a, b, ratio = compare(mine, other, options.turns, options.device)
        rows[name] = {"dim": dim, "ours_s": a, "theirs_s": b, "ratio": ratio}
        print(f"{name:8} {dim:3} {1e3 * a:9.2f} {1e3 * b:11.2f} {ratio:14.2f}", flush=True)
    return rows | {"vector-quantize-pytorch": version("vector-quantize-pytorch")}


BENCHMARKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"bottlenecks": bottlenecks}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.bench", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--tokens", type=int, default=8192, help="default: %(default)s")
    parser.add_argument("--dim", type=int, default=8, help="L, but for FSQ and FSP; default: %(default)s")
    parser.add_argument("-k", "--codebook-size", type=int, default=1024, choices=LEVELS, help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, metavar="FILE", help="figures as JSON, with the machine")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        figures = {"machine": machine(options.device), options.name: BENCHMARKS[options.name](options)}
        if options.out:
            options.out.write_text(json.dumps(figures, indent=1) + "\n")
    except (CodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
