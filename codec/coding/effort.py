"""Which code a position gets: the nearest or, with an effort, a near one that costs few bits."""

from __future__ import annotations

from math import log as natural_log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.arguments import whole
from codec.coding.models import Model
from codec.coding.near import CodeVectors
from codec.entropy import NO_TABLES, Prior
from codec.entropy.mixing import NEVER, choose, columns_of
from codec.errors import ModelError

MAX_EFFORT = 9
EFFORT_UNIT = 16
CHOICES = 16  # nearest codes that an effort looks at


def checked(effort: int) -> int:
    """Returns an effort.

    Raises:
        ValueError: It is no integer from 0 to `MAX_EFFORT`.
    """
    effort = whole(effort, "effort")
    if not 0 <= effort <= MAX_EFFORT:
        raise ValueError(f"effort is a whole number from 0 to {MAX_EFFORT}, not {effort}")
    return effort


def can_choose(model: Model, codebook_size: int) -> bool:
    """Whether there is a prior, and the nearest codes are what the bottleneck takes."""
    prior = model.tables.get(codebook_size, NO_TABLES).prior
    return prior is not None and model.codec.bottleneck.target(torch.zeros(1)) is not None


def no_choice(model: Model) -> ModelError:
    return ModelError(f"{model.card.name} cannot choose among codes; leave --effort out")


class Chooser:
    """Indices for windows of a signal.

    They are the nearest or, with an effort, those that are near and cost few bits.

    A code at squared distance d costs d + lambda * bits. At high rates the distortion of a
    D-dimensional quantiser falls as 2^(-2 bits / D), so that lambda = D's derivative = 2 ln 2 / D
    times the mean distortion trades bits for distortion at the rate at which a larger codebook
    would; an effort of `EFFORT_UNIT` means that.

    Args:
        effort: 0 for the nearest.

    Raises:
        ModelError: This model's codes have no order of nearness, or it has no prior.
        ValueError: The effort is no integer from 0 to `MAX_EFFORT`.
    """

    def __init__(self, model: Model, codebook_size: int, effort: int, width: int = 0) -> None:
        self._model, self._size, self._width = model, codebook_size, width
        self._effort = effort = checked(effort)
        self._prior = model.tables.get(codebook_size, NO_TABLES).prior
        if effort and not can_choose(model, codebook_size):
            raise no_choice(model)

    def __call__(self, z: Tensor) -> NDArray[np.int64]:
        """(B, D_in, *S) -> (B, G, n): the indices of the positions, in raster order."""
        if not self._effort or self._prior is None:
            return np.asarray(
                self._model.codec.bottleneck.encode(z, self._size).flatten(2).cpu().numpy()
            )
        return np.stack([self._choose(sample, self._prior)[None] for sample in z])

    def _choose(self, z: Tensor, prior: Prior) -> NDArray[np.int64]:
        """(D_in, *S) -> (n,)."""
        bottleneck = self._model.codec.bottleneck
        near = CodeVectors(bottleneck, self._size, z.device).near(z[None], CHOICES)
        options, squares = (part[0, 0].flatten(1).T.cpu().numpy() for part in near)
        if not bottleneck.nested:  # a tree need not end at the nearest code
            # Where two are equally near.
            options[:, 0] = bottleneck.encode(z[None], self._size)[0, 0].flatten().cpu().numpy()
        mean = squares[:, 0].mean(dtype=np.float64)
        unit = max(2 * natural_log(2) / bottleneck.dim * self._effort / EFFORT_UNIT * mean, 1e-12)
        penalties = np.minimum(np.rint(256 * squares / unit), NEVER).astype(np.int64)
        return choose(options, penalties, prior, columns_of(prior, self._width, len(options)))
