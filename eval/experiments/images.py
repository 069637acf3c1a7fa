"""CIFAR-10 and CelebA in memory, as they were published or from this project's packs
(`eval.packs`).
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from codec.errors import MediaError
from codec.media import Pixels, load_image
from eval import packs
from eval.datasets import DATASETS, Item
from train import layouts

FACE_CROP = 178  # of a full-size CelebA picture of 178x218: the largest square, from its middle


@dataclass(frozen=True, slots=True)
class ImageSet:
    """(N, 3, H, W) uint8 pictures, and in words where they come from."""

    train: Tensor
    test: Tensor
    source: str

    def held_out(self, count: int) -> ImageSet:
        """Returns the set whose test part are the first `count` pictures of the training part, at
        most a quarter of it.

        The choice of settings must not see the test part.
        """
        count = min(count, len(self.train) // 4)
        source = f"{self.source}; tested on {count} of those to train, which are held out"
        return ImageSet(self.train[count:], self.train[:count], source)


def cifar10(folders: Iterable[Path]) -> ImageSet:
    """CIFAR-10, 32x32: as published (50000 + 10000), or the packs' (3000 exact and 6000 JPEG copies
    + 1000 exact).

    Raises:
        MediaError: Neither is there.
    """
    for folder in folders:
        train, test = (DATASETS["cifar10"].find(folder, part) for part in ("train", "test"))
        copies = folder / "cifar10-jpeg.npz"
        if not train or not test:
            continue
        pictures = _stack(map(_pixels, train)), _stack(map(_pixels, test))
        if layouts.cifar10(folder, "train"):
            return ImageSet(*pictures, f"CIFAR-10, {len(train)} + {len(test)} pictures")
        if copies.is_file():
            files = [packs.packed(copies, "train", *span) for span in packs.spans(copies, "train")]
            lossy = _stack(load_image(io.BytesIO(file)) for file in files)
            source = (
                f"part of CIFAR-10: {len(train)} exact pictures and {len(lossy)} JPEG copies to "
                "train, "
                f"{len(test)} exact ones of the training split to test"
            )
            return ImageSet(torch.cat([pictures[0], lossy]), pictures[1], source)
    raise MediaError("no CIFAR-10 in --data: want cifar-10-batches-py/ or the packs cifar10-*")


def celeba(folders: Iterable[Path], side: int) -> ImageSet:
    """CelebA's middle square at side x side: as published, or the packs' 3000 + 300 faces of
    89x109.

    Raises:
        MediaError: Neither is there.
    """
    for folder in folders:
        train, test = (DATASETS["celeba"].find(folder, part) for part in ("train", "test"))
        if not train or not test:
            continue
        faces, others = (
            _stack(_square(_pixels(item), side) for item in items) for items in (train, test)
        )
        source = f"CelebA at {side}x{side}, {len(train)} + {len(test)} faces"
        if not any(layouts.celeba(home, "train") for home in (folder / "celeba", folder)):
            source = (
                f"part of CelebA, {len(train)} + {len(test)} faces that are only 89x109: their "
                "middle square scaled "
                f"to {side}x{side}, smoother than true CelebA, so errors are comparable within "
                "this table only"
            )
        return ImageSet(faces, others, source)
    raise MediaError(
        "no CelebA in --data: want celeba/list_eval_partition.txt or the pack celeba.npz"
    )


def _pixels(item: Item) -> Pixels:
    content = item.read()
    return content if isinstance(content, np.ndarray) else load_image(io.BytesIO(content))


def _square(pixels: Pixels, side: int) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    width, height = image.size
    edge = min(width, height, FACE_CROP)
    left, top = (width - edge) // 2, (height - edge) // 2
    square = image.crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))


def _stack(pictures: Iterable[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(list(pictures))).movedim(-1, 1).contiguous()
