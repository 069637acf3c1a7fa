"""python -m eval.nested MODEL --train PATH --root DIR: what it would cost to nest the codebooks of a VP model.

VP has a codebook of its own for each K, so its files cannot have layers. Three ways to nest them, with the model's nets
as they are:

    split   k-means of the smallest K, as the model has it; every cell's latents are cut into 4 by k-means, and so on;
            a latent goes to its nearest child, level by level
    leaf    the same codebooks; a latent goes to the nearest code of the largest K, and to that code's parents
    merge   the model's largest codebook; 4 codes that lie together become one, at the mean of their latents, and so on

For each K: the mean squared error of the latents of a test set with the model's own ("flat") codebooks and with these,
and PSNR or PESQ of what is decoded, by a decoder that was not adapted to other codes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec import cards, coding
from codec.bottleneck import to_tokens
from codec.bottlenecks.parts import cell_means, nearest
from codec.cli.frame import Parser, filled_path, run
from codec.errors import MediaError, ModelError
from codec.files import writing
from codec.model import Codec
from codec.streams import process
from eval import datasets
from eval.bench.timing import machine
from eval.coder_bench import SETS, line
from eval.datasets import load_signal
from eval.metrics import pesq_wb, psnr
from train.data import Store
from train.priors import bisect

CHILDREN = 4
TOKENS = 600_000
ITERATIONS = 25
SEED = 0
WAYS = ("flat", "split", "leaf", "merge")

Codebooks = dict[int, Tensor]  # K -> (K, d); those that are nested have the children of code i at 4 i to 4 i + 3
Indices = dict[int, Tensor]  # K -> (N,)


@torch.inference_mode()
def training_latents(codec: Codec, store: Store, count: int = TOKENS) -> Tensor:
    """(N, d) latents of random items of a training set."""
    parts, found = [], 0
    order = np.random.default_rng(SEED).permutation(len(store.shapes))
    for number in tqdm(order.tolist(), desc="latents", disable=None):
        if found >= count:
            break
        parts.append(to_tokens(codec.latents(store.whole(number))))
        found += len(parts[-1])
    return torch.cat(parts)[:count]


@torch.no_grad()
def split(data: Tensor, parents: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts every cell into `CHILDREN` by k-means inside it, all cells at once.

    Args:
        data: (N, d).
        parents: (N,) the cell of each row.
        centres: (K, d) of the cells.

    Returns:
        (4 K, d) centres and (N,) the new cells. A cell with fewer rows than children keeps its centre for the rest.
    """
    number = len(centres)
    generator = torch.Generator().manual_seed(SEED)
    children = centres[:, None].repeat(1, CHILDREN, 1)
    closest = (data - centres[parents]).square().sum(1)
    for child in range(CHILDREN):  # seeds: rows drawn by their squared distance to the nearest seed so far
        key = closest / torch.empty_like(closest).exponential_(generator=generator)
        best = torch.full((number,), -1.0).scatter_reduce(0, parents, key, "amax")
        rows = (key == best[parents]).nonzero()[:, 0]
        children[parents[rows], child] = data[rows]
        to_seed = (data - children[parents, child]).square().sum(1)
        closest = to_seed if child == 0 else torch.minimum(closest, to_seed)
    for _ in range(ITERATIONS):
        cells = parents * CHILDREN + _nearest_child(data, children[parents])
        means, empty = cell_means(data, cells, number * CHILDREN)
        means[empty] = children.flatten(0, 1)[empty]
        children = means.view(number, CHILDREN, -1)
    return children.flatten(0, 1), parents * CHILDREN + _nearest_child(data, children[parents])


def _nearest_child(data: Tensor, children: Tensor) -> Tensor:
    """(N, d), (N, 4, d) -> (N,)."""
    return (data[:, None] - children).square().sum(2).argmin(1)


def split_codebooks(data: Tensor, flat: Codebooks) -> Codebooks:
    """From the coarsest down; of sizes that grow by `CHILDREN`."""
    size = min(flat)
    found, cells = {size: flat[size]}, nearest(data, flat[size])
    while (size := size * CHILDREN) in flat:
        found[size], cells = split(data, cells, found[size // CHILDREN])
    return found


def merged_codebooks(data: Tensor, flat: Codebooks) -> Codebooks:
    """From the finest up; its codes are put in the order of a tree of cuts first."""
    size = max(flat)
    order = torch.from_numpy(np.argsort(bisect(flat[size].numpy())))
    found, cells = {size: flat[size][order]}, nearest(data, flat[size][order])
    while (size := size // CHILDREN) in flat:
        cells = cells // CHILDREN
        means, empty = cell_means(data, cells, size)
        means[empty] = found[size * CHILDREN].view(size, CHILDREN, -1).mean(1)[empty]
        found[size] = means
    return dict(sorted(found.items()))


def descend(tokens: Tensor, codebooks: Codebooks) -> Indices:
    """The nearest code of the coarsest codebook, then always the nearest child."""
    sizes = sorted(codebooks)
    found = {sizes[0]: nearest(tokens, codebooks[sizes[0]])}
    for below, size in pairwise(sizes):
        children = codebooks[size].view(below, CHILDREN, -1)[found[below]]
        found[size] = found[below] * CHILDREN + _nearest_child(tokens, children)
    return found


def ascend(tokens: Tensor, codebooks: Codebooks) -> Indices:
    """The nearest code of the finest codebook, and its parents."""
    sizes = sorted(codebooks, reverse=True)
    found = {sizes[0]: nearest(tokens, codebooks[sizes[0]])}
    for size in sizes[1:]:
        found[size] = found[size * CHILDREN] // CHILDREN
    return found


def flat_indices(tokens: Tensor, codebooks: Codebooks) -> Indices:
    return {size: nearest(tokens, codebook) for size, codebook in codebooks.items()}


@torch.inference_mode()
def measure(codec: Codec, data: Tensor, items: list[datasets.Item], crop: int | None, first: int) -> dict[str, Any]:
    """{way: {K: {"mse", "quality"}}}; quality is of the first items alone: PSNR in dB, or PESQ."""
    bottleneck, image = codec.bottleneck, codec.config.medium == "image"
    flat = {size: bottleneck.get_buffer(f"codebook_{size}").clone() for size in bottleneck.codebook_sizes}
    parted, merged = split_codebooks(data, flat), merged_codebooks(data, flat)
    ways: dict[str, tuple[Codebooks, Callable[[Tensor, Codebooks], Indices]]] = {
        "flat": (flat, flat_indices),
        "split": (parted, descend),
        "leaf": (parted, ascend),
        "merge": (merged, ascend),
    }
    figures: dict[str, dict[int, dict[str, list[float]]]] = {
        way: {size: {"mse": [], "quality": []} for size in books} for way, (books, _) in ways.items()
    }
    for number, item in enumerate(tqdm(items, desc="test", disable=None)):
        signal = load_signal(item, crop)[1]
        x = torch.from_numpy(signal.copy()).movedim(-1, 0)[None].float() / (255 if image else 1)
        z = codec.latents(x)
        tokens = to_tokens(z)
        for way, (books, choose) in ways.items():
            for size, indices in choose(tokens, books).items():
                codes = books[size][indices]
                figures[way][size]["mse"].append(float((tokens - codes).square().mean()))
                if number >= first:
                    continue
                z_q = codes.T.reshape(1, -1, *z.shape[2:])
                x_hat = codec.decoder(z_q, size)[0][(slice(None), *map(slice, x.shape[2:]))]
                if image:
                    pixels = x_hat.mul(255).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).numpy()
                    figures[way][size]["quality"].append(psnr(signal, pixels))
                else:
                    figures[way][size]["quality"].append(pesq_wb(signal[:, 0], x_hat[0].numpy()))
    return {
        way: {size: {name: float(np.mean(values)) for name, values in row.items()} for size, row in rows.items()}
        for way, rows in figures.items()
    }


def main(arguments: list[str] | None = None) -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m eval.nested", epilog="See docs/coder.md", description=__doc__, formatter_class=style
    )
    parser.add_argument("model", metavar="MODEL", help="a VP model")
    parser.add_argument(
        "--train", type=filled_path, required=True, metavar="PATH", help="what python -m train.prepare wrote"
    )
    parser.add_argument("--tokens", type=int, default=TOKENS, help="latents of it that codebooks are made of")
    parser.add_argument("--data", metavar="PATH|NAME", help="test set; default: the medium's of " + " ".join(SETS))
    parser.add_argument("--root", type=filled_path, metavar="DIR", help="where named sets lie")
    parser.add_argument("--first", type=int, default=16, metavar="N", help="items that are decoded, too; default 16")
    parser.add_argument("--out", type=filled_path, metavar="FILE", help="the figures as JSON")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    card = cards.find(options.model)
    if card.config["bottleneck"] != "vp":
        raise ModelError(f"{card.name} has no codebooks of VP; name a VP model")
    codec = coding.load(card).codec
    default = next(name for name in SETS if name.startswith(card.medium))
    test_set = datasets.find(options.data or default, options.root)
    if not test_set.items or options.first < 1:
        raise MediaError("nothing to measure: want a test set with items and --first of at least 1")
    data = training_latents(codec, Store(options.train, card.medium, (codec.stride,) * codec.axes), options.tokens)
    figures = measure(codec, data, test_set.items, test_set.crop, options.first)
    quality = "PSNR, dB" if card.medium == "image" else "PESQ"
    print(line(["K", "flat: MSE", quality] + [f"{way}: {what}" for way in WAYS[1:] for what in ("MSE", quality)]))
    print(line(["---"] * (1 + 2 * len(WAYS))))
    for size, flat in figures["flat"].items():
        cells = [str(size), f"{flat['mse']:.4f}", f"{flat['quality']:.3f}"]
        for way in WAYS[1:]:
            row = figures[way][size]
            cells += [f"{row['mse'] / flat['mse'] - 1:+.1%}", f"{row['quality'] - flat['quality']:+.3f}"]
        print(line(cells), flush=True)
    if options.out:
        record = {"machine": machine("cpu"), "model": card.name, "test_set": test_set.name, "ways": figures}
        with writing(str(options.out), force=True) as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(process(main))
