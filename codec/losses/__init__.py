"""Differentiable distances between signals and their reconstructions, one value per sample.

Training minimises them, and so does the encoder's search (`codec.coding.search`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from codec.losses.image import IMAGE_EXTRA, ImageLoss
from codec.losses.speech import SPEECH_EXTRA, SpeechLoss
from codec.medium import IMAGE, SPEECH

# Medium -> name -> what makes a loss that a recipe may weigh besides those of every training: a
# module that maps a signal and its reconstruction, each (B, C, *S), to (B,) distances. A package of
# your own adds its losses here (docs/train.md).
EXTRA_LOSSES: dict[str, dict[str, Callable[[], nn.Module]]] = {
    SPEECH.name: SPEECH_EXTRA,
    IMAGE.name: IMAGE_EXTRA,
}

__all__ = ["EXTRA_LOSSES", "ImageLoss", "SpeechLoss"]
