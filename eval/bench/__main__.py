"""python -m eval.bench NAME: how long things take, as ratios.

A ratio is of two ways to do the same work, in one run.

    bottlenecks   a training step of each method, against vector-quantize-pytorch
    vp            a training step of VP, against the published queue with all distances and topk
    gmvq          a training step of GM-VQ, against its plain form
    nearest       the nearest of K codes, against torch.cdist, faiss and scikit-learn
    kmeans        codebooks, against faiss and scikit-learn
    share         the bottleneck's part of a training step

python -m eval.bench.path does the same for whole files: compress and decompress, start-up, growth
with the work.

The two take turns, so that a busy machine slows both; the ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch

from codec.cli.frame import Parser, filled_path, new_file, positive, run
from codec.cli.options import device_of
from codec.errors import CodecError
from codec.streams import process
from eval.bench import timing
from eval.bench.density import vp
from eval.bench.libraries import bottlenecks
from eval.bench.mixture import gmvq
from eval.bench.search import kmeans, nearest
from eval.bench.share import share
from eval.bench.timing import Figures, Options

SIZES = (256, 1024, 4096, 16384)
# name -> what to run, and the tokens, dimensions, sizes and turns that it has unless told otherwise
BENCHMARKS: dict[
    str, tuple[Callable[[Options], Figures], int, tuple[int, ...], tuple[int, ...], int]
] = {
    "bottlenecks": (bottlenecks, 8192, (8,), (1024,), 50),
    "vp": (vp, 4096, (5, 8), SIZES, 2),
    "gmvq": (gmvq, 16384, (8,), (1024, 16384), 3),
    "nearest": (nearest, 4096, (5, 8, 64), (16384,), 5),
    "kmeans": (kmeans, 2**20, (5,), (16384,), 1),
    "share": (share, 1024, (), (1024,), 3),
}


def main(arguments: list[str] | None = None) -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m eval.bench",
        description=__doc__,
        epilog="See docs/speed.md",
        formatter_class=style,
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument(
        "--tokens", type=positive(int), help="or rows, for kmeans; about so many, for share"
    )
    parser.add_argument(
        "--dim",
        type=positive(int),
        nargs="+",
        metavar="L",
        help="dimensions, but for FSQ, FSP and share",
    )
    parser.add_argument("-k", "--codebook-size", type=positive(int), nargs="+", metavar="K")
    parser.add_argument("--turns", type=positive(int), help="how often each way is timed")
    parser.add_argument("--threads", type=positive(int), help="CPU threads")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--out", type=new_file, metavar="FILE", help="figures as JSON, with the machine"
    )
    parser.add_argument(
        "--against",
        type=filled_path,
        metavar="FILE",
        help="an earlier --out: shows what changed by 10 %%",
    )
    return run(parser, arguments, _command)


def _command(given: argparse.Namespace) -> None:
    if given.threads:
        torch.set_num_threads(given.threads)
    benchmark, tokens, dims, sizes, turns = BENCHMARKS[given.name]
    options = Options(
        given.tokens or tokens,
        tuple(given.dim or dims),
        tuple(given.codebook_size or sizes),
        given.turns or turns,
        device_of(given.device),
    )
    try:
        old = json.loads(given.against.read_text()) if given.against else {}
    except ValueError as error:
        raise CodecError(f"{given.against}: no figures of an earlier --out ({error})") from None
    figures = {"machine": timing.machine(options.device), given.name: benchmark(options)}
    if given.out:
        timing.save(given.out, figures)
    if old and old.get("machine") != figures["machine"]:
        print(f"another machine: {old.get('machine')}")
    for name, then, now in sorted(timing.changes(old, figures)):
        if abs(now - then) > 0.1 * abs(then):
            print(f"{name}: {then:.4g} -> {now:.4g}")


if __name__ == "__main__":
    sys.exit(process(main))
