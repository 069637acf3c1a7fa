"""CIFAR-10 and CelebA in memory, from torchvision's folders where they are, else from this project's packs."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from codec.errors import MediaError
from codec.media import load_image

TILE = 32  # pixels; a mosaic has 32 columns of tiles, too
FACE_CROP = 178  # of a full-size CelebA picture of 178x218: the largest square, from its middle


@dataclass(frozen=True, slots=True)
class ImageSet:
    """(N, 3, H, W) uint8 pictures, and in words where they come from."""

    train: Tensor
    test: Tensor
    source: str


def cifar10(folders: Iterable[Path]) -> ImageSet:
    """CIFAR-10, 32x32: torchvision's (50000 + 10000), or the packs' (3000 exact and 6000 JPEG copies + 1000 exact).

    Raises:
        MediaError: Neither is there.
    """
    for folder in folders:
        if (folder / "cifar-10-batches-py").is_dir():
            from torchvision.datasets import CIFAR10  # the only use: not every install has it

            train, test = (_stack(list(CIFAR10(str(folder), train=part).data)) for part in (True, False))
            return ImageSet(train, test, f"CIFAR-10, {len(train)} + {len(test)} pictures")
        exact, tests = _one(folder, "cifar10-lossless-train*.webp"), _one(folder, "cifar10-lossless-test*.webp")
        copies = folder / "cifar10-jpeg.npz"
        if exact and tests and copies.is_file():
            lossless, lossy, test = _mosaic(exact), _jpegs(copies, "train_jpeg", "train_off"), _mosaic(tests)
            source = (
                f"part of CIFAR-10: {len(lossless)} exact pictures and {len(lossy)} JPEG copies to train, "
                f"{len(test)} exact ones of the training split to test"
            )
            return ImageSet(_stack(lossless + lossy), _stack(test), source)
    raise MediaError("no CIFAR-10 in --data: want cifar-10-batches-py/ or the packs cifar10-*")


def celeba(folders: Iterable[Path], side: int) -> ImageSet:
    """CelebA's middle square at side x side: torchvision's folder, or the packs' 3000 + 300 faces of 89x109.

    Raises:
        MediaError: Neither is there.
    """
    for folder in folders:
        partition = folder / "celeba" / "list_eval_partition.txt"
        if partition.is_file():
            names = [line.split() for line in partition.read_text().splitlines()]
            paths = {part: [partition.parent / "img_align_celeba" / n for n, p in names if p == part] for part in "02"}
            train, test = (_stack(_square(_read(p), side) for p in paths[part]) for part in "02")
            return ImageSet(train, test, f"CelebA at {side}x{side}, {len(train)} + {len(test)} faces")
        pack = folder / "celeba.npz"
        if pack.is_file():
            train, test = (
                _stack(_square(Image.fromarray(face), side) for face in _jpegs(pack, f"{part}_jpeg", f"{part}_off"))
                for part in ("train", "test")
            )
            source = (
                f"part of CelebA, {len(train)} + {len(test)} faces that are only 89x109: their middle square scaled "
                f"to {side}x{side}, smoother than true CelebA, so errors are comparable within this table only"
            )
            return ImageSet(train, test, source)
    raise MediaError("no CelebA in --data: want celeba/list_eval_partition.txt or the pack celeba.npz")


def _one(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)


def _mosaic(path: Path) -> list[NDArray[np.uint8]]:
    """The first n tiles of a mosaic, row by row; n stands at the end of its name."""
    count = int("".join(c for c in path.stem.rpartition("-")[2] if c.isdigit()))
    with path.open("rb") as file:
        pixels = load_image(file)
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    tiles = pixels.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    return list(tiles[:count])


def _jpegs(path: Path, content: str, offsets: str) -> list[NDArray[np.uint8]]:
    """Pictures whose JPEG bytes lie end to end in one array."""
    with np.load(path) as pack:
        data, edges = pack[content].tobytes(), pack[offsets].tolist()
    parts = [data[a:b] for a, b in pairwise(edges)]
    return [load_image(io.BytesIO(part)) for part in parts]


def _read(path: Path) -> Image.Image:
    with path.open("rb") as file:
        return Image.fromarray(load_image(file))


def _square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    width, height = image.size
    edge = min(width, height, FACE_CROP)
    left, top = (width - edge) // 2, (height - edge) // 2
    square = image.crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))


def _stack(pictures: Iterable[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(list(pictures))).movedim(-1, 1).contiguous()
