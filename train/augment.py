"""Changes to training crops that keep them real speech or real pictures.

They work on whole batches, on their device.

    light   speech: level -42..-12 dBFS and polarity. pictures: mirror images
    full    speech: also random equaliser, phase rotation, a second speaker at times, noise at times
            pictures: also brightness, contrast and saturation within 10 %

What comes out is both input and target, so that a codec learns to keep noise rather than to remove
it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.medium import IMAGE, SPEECH
from train.draws import Draws

STRENGTHS = ("light", "full")
# Root mean square of a crop, dBFS: recordings are not levelled before they are compressed.
LEVELS_DB = -42.0, -12.0
EQ_DB, EQ_KNOTS = 6.0, 8
MIXED, NOISY = 0.05, 0.1  # shares of the samples
JITTER = 0.1


def augment(medium: str, x: Tensor, draws: Draws, strength: str = "light") -> Tensor:
    """Augments (B, 1, T) in [-1, 1] or (B, 3, H, W) in [0, 1]; shape and range stay."""
    return AUGMENTATIONS[medium](x, draws, strength)


def _speech(x: Tensor, draws: Draws, strength: str) -> Tensor:
    if strength == "full":
        x = _noise(_mix(_filter(x, draws), draws), draws)
    level = _level(x)
    lowest, highest = LEVELS_DB
    target = 10 ** ((lowest + draws.uniform(len(x), 1, 1) * (highest - lowest)) / 20)
    sign = torch.where(draws.uniform(len(x), 1, 1) < 0.5, -1.0, 1.0)
    return (x * sign * target / level).clamp(-1, 1)


def _level(x: Tensor) -> Tensor:
    return x.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-3)  # silence is not blown up


def _filter(x: Tensor, draws: Draws) -> Tensor:
    """Applies a smooth gain within +-6 dB over frequency, and one phase shift for all of them."""
    spectrum = torch.fft.rfft(x)
    knots = (draws.uniform(len(x), 1, EQ_KNOTS) * 2 - 1) * EQ_DB
    gain = 10 ** (F.interpolate(knots, spectrum.shape[-1], mode="linear", align_corners=True) / 20)
    phase = draws.uniform(len(x), 1, 1) * 2 * math.pi
    filtered: Tensor = torch.fft.irfft(
        spectrum * torch.polar(gain, phase.expand_as(gain)), x.shape[-1]
    )
    return filtered


def _mix(x: Tensor, draws: Draws) -> Tensor:
    """Adds another sample of the batch, 0 to 15 dB below, to 5 % of the samples.

    It is the sample before, of this process.
    """
    other = x.roll(1, 0)
    share = 10 ** (-15 / 20 * draws.uniform(len(x), 1, 1)) * _level(x) / _level(other)
    return torch.where(draws.uniform(len(x), 1, 1) < MIXED, x + share * other, x)


def _noise(x: Tensor, draws: Draws) -> Tensor:
    """Adds white noise, 10 to 40 dB below, to 10 % of the samples."""
    share = 10 ** (-(10 + 30 * draws.uniform(len(x), 1, 1)) / 20) * _level(x)
    noise = draws.normal(len(x), *x.shape[1:])
    return torch.where(draws.uniform(len(x), 1, 1) < NOISY, x + share * noise, x)


def _picture(x: Tensor, draws: Draws, strength: str) -> Tensor:
    x = torch.where(draws.uniform(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
    if strength == "light":
        return x
    brightness, contrast, saturation = (
        1 + JITTER * (draws.uniform(len(x), 3, 1, 1, 1) * 2 - 1)
    ).unbind(1)  # fmt: skip
    x = x * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + contrast * (x - mean)
    grey = x.mean(1, keepdim=True)
    return (grey + saturation * (x - grey)).clamp(0, 1)


AUGMENTATIONS = {SPEECH.name: _speech, IMAGE.name: _picture}
