"""The loudness of an error: its formula in NumPy, the order of PESQ, zero for equals.

A plain distance fails that.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_speech_losses import noisy, voice
from torch import Tensor

from codec.losses.loudness import LoudnessLoss
from codec.medium import SAMPLE_RATE

Array = NDArray[np.float64]


def bark_of(hertz: Array) -> Array:
    """Traunmueller 1990."""
    return np.asarray(26.81 * hertz / (1960 + hertz) - 0.53)


def disturbance(
    original: Tensor,
    decoded: Tensor,
    masked: float = 0.25,
    steeper: float = 0.15,
    worst: int = 6,
    asymmetric: float = 0.0309,
) -> float:
    """P.862, section 10.2, in half-Bark bands, of two (1, 1, T) signals that are aligned."""
    hertz = np.arange(257) * SAMPLE_RATE / 512
    bark = bark_of(hertz)
    bands = [(bark >= low) & (bark < low + 0.5) for low in np.arange(0, bark[-1], 0.5)]
    centre = np.array([hertz[band].mean() / 1000 for band in bands])
    threshold = 10 ** (  # Terhardt 1979
        (3.64 * centre**-0.8 - 6.5 * np.exp(-0.6 * (centre - 3.3) ** 2) + centre**4 / 1000) / 10
    )
    power_of_bin = 0.23 * np.clip(6 / (np.maximum(bark, 0) + 2), 1, 2) ** steeper  # Zwicker's law
    exponent = np.array([power_of_bin[band].mean() for band in bands])

    def excitation(signal: Tensor) -> Array:
        """(frames, bands), speech at 85 dB between 350 and 3250 Hz."""
        samples = signal[0, 0].numpy().astype(float)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
        window /= np.linalg.norm(window)
        starts = range(0, len(samples) - 511, 256)
        frames = np.stack([window * samples[start : start + 512] for start in starts])
        power = np.abs(np.fft.rfft(frames)) ** 2 * 2 / 512
        speech = power[:, (hertz > 350) & (hertz < 3250)].sum(1).mean()
        in_bands = np.stack([power[:, band].sum(1) for band in bands], 1)
        return np.asarray(in_bands * 10**8.5 / speech)

    def audible(power: Array) -> Array:
        return np.asarray(np.where(power > threshold, power, 0).sum(1))

    def loudness(power: Array) -> Array:
        sone = (threshold / 0.5) ** exponent * ((0.5 + 0.5 * power / threshold) ** exponent - 1)
        return np.asarray(np.where(power > threshold, 0.187 * sone, 0))

    def over_time(frames: Array) -> float:
        size = min(20, len(frames))
        starts = range(0, len(frames) - size + 1, max(1, size // 2))
        norms = [np.mean(frames[at : at + size] ** worst) ** (1 / worst) for at in starts]
        return float(np.sqrt(np.mean(np.square(norms))))

    x, y = excitation(original), excitation(decoded)
    loud_enough = x > 100 * threshold
    means = [np.where(loud_enough, power, 0).mean(0) for power in (x, y)]
    x = x * np.clip((means[1] + 1e3) / (means[0] + 1e3), 0.01, 100)
    gain = (audible(x) + 5e3) / (audible(y) + 5e3)
    gain[1:] = 0.8 * gain[1:] + 0.2 * gain[:-1]
    y = y * np.clip(gain, 3e-4, 5)[:, None]
    error = np.abs(loudness(y) - loudness(x))
    error = np.maximum(error - masked * np.minimum(loudness(x), loudness(y)), 0)
    added = ((y + 50) / (x + 50)) ** 1.2
    added = np.where(added < 3, 0, np.minimum(added, 12))
    weight = ((audible(x) + 1e5) / 1e7) ** 0.04
    width = bark_of(np.array(SAMPLE_RATE / 2))
    symmetric = np.sqrt(width * ((0.5 * error) ** 2).sum(1)) / weight
    other = (0.5 * error * added).sum(1) / weight
    return 0.1 * over_time(np.minimum(symmetric, 45)) + asymmetric * over_time(
        np.minimum(other, 45)
    )


def distortions() -> dict[str, tuple[Tensor, Tensor]]:
    x = voice()
    faded = torch.linspace(1, 0.1, x.shape[-1])
    tone = 0.003 * torch.sin(2 * torch.arange(x.shape[-1]))
    short = x[..., 4000:6000]
    return {
        "little noise": (x, noisy(x, 0.03)),
        "much noise": (x, noisy(x, 0.3)),
        "clipped": (x, x.clamp(-0.05, 0.05)),
        "a tone added": (x, x + tone),
        "a tone lost": (x + tone, x),
        "faded": (x, x * faded),
        "lost from half on": (x, x * (faded > 0.55)),
        "of few frames": (short, noisy(short, 0.3)),
    }


DISTORTIONS = distortions()


def is_loss(expected: float, x: Tensor, y: Tensor) -> bool:
    """But for the floors under roots, whose gradient would not be finite at 0."""
    found = float(LoudnessLoss(SAMPLE_RATE)(x, y))
    return found == pytest.approx(expected, rel=2e-3, abs=5e-4)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_loss_is_its_formula(name: str) -> None:
    x, y = DISTORTIONS[name]
    assert is_loss(disturbance(x, y), x, y)


@pytest.mark.parametrize(
    "wrong", [{"masked": 0.2}, {"steeper": 0.0}, {"worst": 2}, {"asymmetric": 0.02}]
)
def test_another_formula_is_another_loss(wrong: dict[str, Any]) -> None:
    x, y = DISTORTIONS["much noise"]
    assert not is_loss(disturbance(x, y, **wrong), x, y)


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
