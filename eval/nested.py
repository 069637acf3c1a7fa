"""python -m eval.nested MODEL --train PATH --root DIR: what nested codebooks would cost.

The model is a VP or GM-VQ model.

Both have a codebook of its own for each K, so their files cannot have layers. Three ways to nest
them, with the model's nets as they are:

    split   the model's codebook of the smallest K; every cell's latents are cut into 4 by k-means,
            and so on; a latent goes to its nearest child, level by level. `python -m train.nested`
            makes a VP model so
    leaf    the same codebooks; a latent goes to the nearest code of the largest K, and to that
            code's parents
    merge   the model's largest codebook; 4 codes that lie together become one, at the mean of their
            latents, and so on

For each K: the mean squared error of the latents of a test set with the model's own ("flat")
codebooks and with these, and PSNR or PESQ of what is decoded, by a decoder that was not adapted to
other codes. "Nearest" is with the weights that GM-VQ's encoder gives each latent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import compress, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec import cards, coding
from codec.bottlenecks.parts import cell_means, nearest, nearest_child, split_cells
from codec.cli.frame import Parser, new_file, positive, print_text, run
from codec.errors import ModelError, not_installed
from codec.model import Codec
from codec.streams import process
from train.digits import bisect
from train.options import add_data
from train.store import Store

try:
    from eval import datasets, markdown
    from eval.bench.timing import machine, save
    from eval.coder_table import SETS
    from eval.datasets import signal_of
    from eval.latents import TOKENS, Tokens, tokens_of, training_latents
    from eval.metrics import METRICS
    from eval.options import add_root
    from eval.signals import SIGNALS
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval')}")

CHILDREN = 4
ITERATIONS = 25
SEED = 0
WAYS = ("flat", "split", "leaf", "merge")
METHODS = ("vp", "gmvq")

# K -> (K, d); those that are nested have the children of code i at 4 i to 4 i + 3.
Codebooks = dict[int, Tensor]
Indices = dict[int, Tensor]  # K -> (N,)


def split_codebooks(data: Tokens, flat: Codebooks) -> Codebooks:
    """Nests codebooks from the coarsest down; their sizes grow by the factor `CHILDREN`."""
    points, weights = data
    size = min(flat)
    found, cells = {size: flat[size]}, nearest(points, flat[size], weights)
    while (size := size * CHILDREN) in flat:
        found[size] = split_cells(
            points, cells, found[size // CHILDREN], CHILDREN, SEED, ITERATIONS
        )
        cells = nearest_child(points, found[size], cells, CHILDREN, weights)
    return found


def merged_codebooks(data: Tokens, flat: Codebooks) -> Codebooks:
    """Nests codebooks from the finest up, after its codes are put in the order of a tree."""
    points, weights = data
    size = max(flat)
    order = torch.from_numpy(np.argsort(bisect(flat[size].numpy())))
    found, cells = {size: flat[size][order]}, nearest(points, flat[size][order], weights)
    while (size := size // CHILDREN) in flat:
        cells = cells // CHILDREN
        means, empty = cell_means(points, cells, size)
        means[empty] = found[size * CHILDREN].view(size, CHILDREN, -1).mean(1)[empty]
        found[size] = means
    return dict(sorted(found.items()))


def descend(tokens: Tokens, codebooks: Codebooks) -> Indices:
    """Chooses the nearest code of the coarsest codebook, then always its nearest child."""
    points, weights = tokens
    sizes = sorted(codebooks)
    found = {sizes[0]: nearest(points, codebooks[sizes[0]], weights)}
    for below, size in pairwise(sizes):
        found[size] = nearest_child(points, codebooks[size], found[below], CHILDREN, weights)
    return found


def ascend(tokens: Tokens, codebooks: Codebooks) -> Indices:
    """Chooses the nearest code of the finest codebook, and its parents."""
    sizes = sorted(codebooks, reverse=True)
    found = {sizes[0]: nearest(tokens[0], codebooks[sizes[0]], tokens[1])}
    for size in sizes[1:]:
        found[size] = found[size * CHILDREN] // CHILDREN
    return found


def flat_indices(tokens: Tokens, codebooks: Codebooks) -> Indices:
    return {size: nearest(tokens[0], codebook, tokens[1]) for size, codebook in codebooks.items()}


@torch.inference_mode()
def measure(
    codec: Codec, data: Tokens, items: list[datasets.Item], crop: int | None, first: int
) -> dict[str, Any]:
    """Measures each way of choosing codes.

    Returns:
        For each way and codebook size "mse" and "quality", PSNR in dB or PESQ, which is of the
        first items alone, and of those that it can score in every way.
    """
    bottleneck: Any = codec.bottleneck  # VP or GM-VQ, which give their codebooks
    medium = codec.medium.name
    signals, score = SIGNALS[medium], METRICS[medium][quality_of(medium)]
    flat = {size: bottleneck.codebook(size).detach().clone() for size in bottleneck.codebook_sizes}
    parted, merged = split_codebooks(data, flat), merged_codebooks(data, flat)
    ways: dict[str, tuple[Codebooks, Callable[[Tokens, Codebooks], Indices]]] = {
        "flat": (flat, flat_indices),
        "split": (parted, descend),
        "leaf": (parted, ascend),
        "merge": (merged, ascend),
    }
    figures: dict[str, dict[int, dict[str, list[float | None]]]] = {
        way: {size: {"mse": [], "quality": []} for size in books}
        for way, (books, _) in ways.items()
    }
    for number, item in enumerate(tqdm(items, desc="test", disable=None)):
        signal = signal_of(item, medium, crop)
        x = signals.to_nets(signal)
        z = codec.latents(x)
        tokens = tokens_of(bottleneck, z)
        for way, (books, choose) in ways.items():
            for size, indices in choose(tokens, books).items():
                codes = books[size][indices]
                figures[way][size]["mse"].append(float((tokens[0] - codes).square().mean()))
                if number >= first:
                    continue
                z_q = codes.T.reshape(1, -1, *z.shape[2:])
                x_hat = codec.decoder(z_q, size)[(..., *map(slice, x.shape[2:]))]
                pair = [signals.compared(one) for one in (signal, signals.from_nets(x_hat))]
                figures[way][size]["quality"].append(score(*pair))
    for size in flat:
        rows = [figures[way][size] for way in ways]
        scored = [None not in values for values in zip(*(r["quality"] for r in rows), strict=True)]
        for row in rows:
            row["quality"] = list(compress(row["quality"], scored))
    return {
        way: {
            size: {name: _mean(values) for name, values in row.items()}
            for size, row in sizes.items()
        }
        for way, sizes in figures.items()
    }


def quality_of(medium: str) -> str:
    """Returns the metric that stands for the quality of a medium: PESQ, or PSNR in dB."""
    return next(iter(METRICS[medium]))


def _mean(values: Sequence[float | None]) -> float:
    """Returns the mean of known values; NaN where there is none."""
    return float(np.mean(values)) if values else float("nan")  # type: ignore[arg-type]


def main(arguments: list[str] | None = None) -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m eval.nested",
        epilog="See docs/bottlenecks/vp.md",
        description=__doc__,
        formatter_class=style,
    )
    parser.add_argument("model", metavar="MODEL", help="a VP or GM-VQ model")
    add_data(parser, "--train")
    parser.add_argument(
        "--tokens",
        type=positive(int),
        default=TOKENS,
        help="latents of it that codebooks are made of",
    )
    parser.add_argument(
        "--data", metavar="PATH|NAME", help="test set; default: the medium's of " + " ".join(SETS)
    )
    add_root(parser)
    parser.add_argument(
        "--first",
        type=positive(int),
        default=16,
        metavar="N",
        help="items that are decoded, too; default 16",
    )
    parser.add_argument("--out", type=new_file, metavar="FILE", help="the figures as JSON")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    card = cards.find(options.model)
    if card.config["bottleneck"] not in METHODS:
        raise ModelError(f"{card.name} has no codebooks of VP or GM-VQ; name such a model")
    codec = coding.load(card).codec
    if codec.bottleneck.nested:
        raise ModelError(f"{card.name} has nested codebooks already; name the model that it was")
    steps = {fine / coarse for coarse, fine in pairwise(codec.bottleneck.codebook_sizes)}
    if steps != {CHILDREN}:
        raise ModelError(
            f"the codebooks of {card.name} do not grow by {CHILDREN}; name another model"
        )
    default = next(name for name in SETS if name.startswith(card.medium))
    test_set = datasets.find(options.data or default, options.root)
    data = training_latents(
        codec, Store(options.train, card.medium, (codec.stride,) * codec.axes), options.tokens
    )
    figures = measure(codec, data, test_set.items, test_set.crop, options.first)
    quality = quality_of(card.medium)
    head = ["K", "flat: MSE", quality] + [
        f"{way}: {what}" for way in WAYS[1:] for what in ("MSE", quality)
    ]
    print_text(markdown.table(head, []))
    for size, flat in figures["flat"].items():
        cells = [str(size), f"{flat['mse']:.4f}", f"{flat['quality']:.3f}"]
        for way in WAYS[1:]:
            row = figures[way][size]
            cells += [
                f"{row['mse'] / flat['mse'] - 1:+.1%}",
                f"{row['quality'] - flat['quality']:+.3f}",
            ]
        print_text(markdown.row(cells))
    if options.out:
        named = {"model": card.name, "test_set": test_set.name}
        save(options.out, {"machine": machine("cpu"), **named, "ways": figures})


if __name__ == "__main__":
    sys.exit(process(main))
