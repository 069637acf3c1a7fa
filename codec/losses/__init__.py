"""Differentiable distances between signals and their reconstructions, one value per sample.

Training minimises them, and so does the encoder's search (`codec.coding.search`).
"""

from codec.losses.image import ImageLoss
from codec.losses.speech import SpeechLoss

__all__ = ["ImageLoss", "SpeechLoss"]
