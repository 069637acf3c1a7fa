"""DistillMOS (Stahl and Gamper 2025, arXiv 2502.05356): what people would think of speech.

It is told from the speech alone.

A small network that was distilled from a large one for opinion scores: 1 is bad, 5 is excellent. It
hears no original, so that it judges otherwise than metrics with one (a clear voice that says
something else is good to it), and even an original has no perfect score: the tables give that of
the originals beside those of the systems. Its weights come in the wheel of the package distillmos,
which is in the extra [mos].
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from numpy.typing import NDArray

from codec.errors import ModelError, not_installed
from codec.medium import SAMPLE_RATE
from eval.metrics import Unscored

NAME = "DistillMOS"
SECOND = SAMPLE_RATE
# Samples that the network hears at once, and the most that the next window begins later.
WINDOW, HOP = (122_880, 16_000)


class DistillMOS:
    """The score of a decoded clip, 1 to 5; higher is better.

    Raises:
        ModelError: The package distillmos is not installed.
    """

    def __init__(self) -> None:
        try:
            from distillmos import ConvTransformerSQAModel
        except ModuleNotFoundError as missing:
            raise ModelError(f"{NAME}: {not_installed(missing.name, 'mos')}") from None
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints where its weights lie
            self._model = ConvTransformerSQAModel().eval().requires_grad_(False)

    def __call__(self, x: NDArray[np.floating], x_hat: NDArray[np.floating]) -> float:
        """A metric like the others.

        It looks at the original only for whether there is anything to hear.
        """
        if len(x) and not np.any(x):
            raise Unscored("silence")  # what is decoded of it is a little noise
        return self.score(x_hat)

    def score(self, x: NDArray[np.floating]) -> float:
        """The score of a clip, (T,) at 16 kHz.

        Of a long one it is the mean over windows, as the package does it.

        The level does not matter, as each window is scaled to its peak.

        Raises:
            Unscored: Silence, or less than a second.
        """
        if len(x) < SECOND:
            raise Unscored("below 1 s")
        if not np.any(x):
            raise Unscored("silence")
        signal = torch.tensor(np.asarray(x), dtype=torch.float32)[None]
        over = max(len(x) - WINDOW, 0)
        starts = [int(share * over) for share in np.linspace(0, 1, -(-over // HOP) + 1)]
        # One by one: the package makes a batch of all, gigabytes for a minute of speech.
        with torch.inference_mode():
            return float(
                np.mean([float(self._model(signal[:, start : start + WINDOW])) for start in starts])
            )
