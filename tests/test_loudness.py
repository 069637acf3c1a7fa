"""The loudness of an error: the order of PESQ, zero for equals, finite gradients.

A plain distance fails that.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from test_speech_losses import noisy, voice
from torch import Tensor

from codec.losses.loudness import LoudnessLoss
from codec.medium import SAMPLE_RATE


def test_equal_signals_and_equal_up_to_level_are_perfect() -> None:
    x, loss = voice(), LoudnessLoss(SAMPLE_RATE)
    assert float(loss(x, x)) < 0.01
    assert float(loss(x, 0.5 * x)) < 0.01
    assert float(loss(x, noisy(x, 0.3))) > 1


def test_more_noise_is_worse() -> None:
    x, loss = voice(), LoudnessLoss(SAMPLE_RATE)
    values = [float(loss(x, noisy(x, share))) for share in (0.01, 0.03, 0.1, 0.3, 1.0)]
    assert all(a < b for a, b in pairwise(values))


def band(x: Tensor, low: float, high: float, power: float) -> Tensor:
    """Noise of a band, of a given standard deviation, where x sounds and every other tenth of a
    second.
    """
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    frequencies = torch.fft.rfftfreq(x.shape[-1], 1 / SAMPLE_RATE)
    part = torch.fft.irfft(
        torch.fft.rfft(noise) * ((frequencies > low) & (frequencies < high)), x.shape[-1]
    )
    gate = torch.arange(x.shape[-1]) // (SAMPLE_RATE // 10) % 2
    heard = torch.nn.functional.avg_pool1d(x.abs(), 401, 1, 200) > 0.01
    return power * gate * heard * part / part.std()


def test_what_is_added_disturbs_more_than_what_is_missing() -> None:
    x, loss = voice(), LoudnessLoss(SAMPLE_RATE)
    rich = x + band(x, 4500, 6000, 0.01)
    assert float(loss(x, rich)) > 1.2 * float(loss(rich, x))


def test_masked_noise_is_quieter_than_the_same_noise_elsewhere() -> None:
    """Noise of the same power under the formants and far from them: a distance of waveforms sees no
    difference.
    """
    x, loss = voice(), LoudnessLoss(SAMPLE_RATE)
    under, beside = (x + band(x, low, high, 0.003) for low, high in ((400, 600), (5000, 7000)))
    assert float(loss(x, beside)) > 1.5 * float(loss(x, under))
    assert float((x - beside).abs().mean()) < 1.2 * float((x - under).abs().mean())


def test_the_order_of_pesq() -> None:
    """Rank correlation with the pesq package over noises, codebooks' worth of distortions and
    bandwidths.
    """
    pesq = pytest.importorskip("pesq", reason="pesq is not installed: pip install '.[eval]'").pesq
    stats = pytest.importorskip(
        "scipy.stats", reason="scipy is not installed: pip install '.[eval]'"
    )
    loss = LoudnessLoss(SAMPLE_RATE)
    ours, plain, theirs = [], [], []
    for seed in range(4):
        x = voice(seed)
        spectrum = torch.fft.rfft(x)
        bins = torch.arange(spectrum.shape[-1])
        narrow = torch.fft.irfft(spectrum * (bins < len(bins) // 4), x.shape[-1])
        for y in (
            *(noisy(x, share) for share in (0.01, 0.05, 0.2, 0.6)),
            narrow,
            x.clamp(-0.05, 0.05),
            0.3 * x,
        ):
            theirs.append(pesq(SAMPLE_RATE, x[0, 0].numpy(), y[0, 0].numpy(), "wb"))
            ours.append(float(loss(x, y)))
            plain.append(float((x - y).abs().mean()))
    assert stats.spearmanr(theirs, ours)[0] < -0.9
    assert stats.spearmanr(theirs, plain)[0] > -0.9  # an L1 of the waveform does not know
