"""Prints a table of all bottlenecks: python -m codec.bottlenecks

Every number comes from the method itself, built for K = 1024 in its own default dimension: D;
values that are learnt by gradient, and values of other state (codebooks of averages or k-means,
counters, queues); whether one trained model serves all K or each K has a codebook; and the time of
a forward pass while training and of an encode, in microseconds per token on one thread of this
machine.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch

from codec import plugins
from codec.bottleneck import Bottleneck
from codec.bottlenecks import BOTTLENECKS
from codec.bottlenecks.fsp import LEVELS
from codec.cli.frame import Parser, print_line, run
from codec.streams import process

SIZE = 1024
TOKENS = 1024
REPEATS = 3
HEAD = ("name", "D", "learnt", "state", "K", "train us", "encode us", "method", "paper")
TEXTS = (0, 7, 8)  # columns that begin at the left


def at_one_size(factory: Callable[..., Bottleneck]) -> Bottleneck:
    """The method for K = 1024, all else its default."""
    options = inspect.signature(factory).parameters
    if "codebook_sizes" in options:
        return factory(codebook_sizes=(SIZE,))
    return factory(levels={SIZE: LEVELS[SIZE]}) if "levels" in options else factory()


def describe(factory: Callable[..., Any]) -> list[tuple[str, str]]:
    """Reads title and paper from docstrings that begin with "Title (Paper): more".

    A partial gives those of the method, then those of its parts.

    A class that names no paper has its module's.
    """
    if isinstance(factory, partial):
        parts = [factory.func, *(part for part in factory.keywords.values() if callable(part))]
        return [pair for part in parts for pair in describe(part)]
    first = (inspect.getdoc(factory) or "").partition("\n")[0]
    source = first if "(" in first else (inspect.getdoc(inspect.getmodule(factory)) or "")
    return [(first.partition("(")[0].strip(" ."), source.partition("(")[2].partition(")")[0])]


def best_us(run: Callable[[], object]) -> float:
    """Microseconds per token, the least of a few runs."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return min(times) / TOKENS * 1e6


@torch.no_grad()
def row(name: str) -> tuple[str, ...]:
    """One method's cells, as HEAD names them."""
    torch.manual_seed(0)
    method = at_one_size(BOTTLENECKS[name])
    z = torch.randn(1, method.in_dim, TOKENS)
    if not method.coupled:
        method.fit(torch.randn(4 * SIZE, method.in_dim))
    while method.train()(z).stats.get("queue_fill", 1.0) < 1:
        pass  # VP perturbs only when its queue is full
    learnt = sum(p.numel() for p in method.parameters())
    state = sum(b.numel() for key, b in method.named_buffers() if key in method.state_dict())
    train_us, encode_us = best_us(lambda: method(z)), best_us(lambda: method.eval().encode(z))
    serves = "each" if method.coupled else "all"
    cells = (method.dim, f"{learnt:,}", f"{state:,}", serves, f"{train_us:.2f}", f"{encode_us:.2f}")
    titles, papers = zip(*describe(BOTTLENECKS[name]), strict=True)
    return (name, *map(str, cells), " + ".join(titles), "; ".join(dict.fromkeys(papers)))


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m codec.bottlenecks",
        description=__doc__,
        epilog="See docs/bottlenecks/index.md",
    )
    return run(parser, arguments, _show)


def _show(_: argparse.Namespace) -> None:
    plugins.load()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [HEAD, *map(row, BOTTLENECKS)]
    finally:
        torch.set_num_threads(threads)
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(HEAD))]
    for cells in rows:
        aligned = (
            f"{cell:{'<' if i in TEXTS else '>'}{widths[i]}}" for i, cell in enumerate(cells)
        )
        print_line("  ".join(aligned).rstrip(), sys.stdout)


if __name__ == "__main__":
    sys.exit(process(main))
