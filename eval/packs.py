"""This project's packs of small pictures.

A pack is a mosaic in one lossless file, or JPEG files end to end in one array.

cifar10-lossless-PARTn.webp   n pictures of 32 x 32 pixels, row by row, 32 in a row
NAME.npz                      for each part: PART_jpeg, the bytes of all files; PART_off, where each
                              begins and the last ends; PART_id, their numbers, if they have any
"""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codec.media import Pixels, load_image

TILE, COLUMNS = 32, 32  # of a mosaic: pixels of a picture's side, and pictures in a row


def mosaic_of(folder: Path, part: str) -> tuple[Path, int] | None:
    """The mosaic of a part of CIFAR-10 in a folder, and the number of its pictures.

    Its name ends in that number.
    """
    for path in sorted(folder.glob(f"cifar10-lossless-{part}*.webp")):
        return path, int(path.stem.removeprefix(f"cifar10-lossless-{part}"))
    return None


def tile(path: Path, number: int) -> Pixels:
    """One picture of a mosaic, (32, 32, 3)."""
    top, left = TILE * (number // COLUMNS), TILE * (number % COLUMNS)
    return np.ascontiguousarray(_mosaic(path)[top : top + TILE, left : left + TILE])


@lru_cache(2)
def _mosaic(path: Path) -> Pixels:
    return load_image(io.BytesIO(path.read_bytes()))


def spans(path: Path, part: str) -> list[tuple[int, int]]:
    """Where each JPEG file of a part begins and ends in a pack, for `packed`.

    Empty where the pack has no such part.
    """
    with np.load(path, allow_pickle=False) as pack:
        return list(pairwise(pack[f"{part}_off"].tolist())) if f"{part}_off" in pack else []


def numbers(path: Path, part: str) -> list[int]:
    """The numbers of a part's pictures in the data set that they were taken from.

    They are 0, 1 ... where the pack has none.
    """
    with np.load(path, allow_pickle=False) as pack:
        known = pack[f"{part}_id"] if f"{part}_id" in pack else range(len(spans(path, part)))
    return [int(number) for number in known]


def packed(path: Path, part: str, start: int, end: int) -> bytes:
    """One JPEG file of a pack."""
    return _bytes(path, part)[start:end].tobytes()


@lru_cache(2)
def _bytes(path: Path, part: str) -> NDArray[np.uint8]:
    with np.load(path, allow_pickle=False) as pack:
        content: NDArray[np.uint8] = pack[f"{part}_jpeg"]
    return content
