"""The loss of intelligibility: its formula in NumPy, the numbers of STOI, zero for equals.

A plain distance fails that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_speech_losses import noisy, voice
from torch import Tensor

from codec.errors import MediaError
from codec.losses.stoi import STOILoss
from codec.medium import SAMPLE_RATE
from eval.demo import sample
from train.sources import decode

Array = NDArray[np.float64]


def lost_intelligibility(
    original: Tensor, decoded: Tensor, clip_db: float = 15, silent_db: float = 40, frames: int = 30
) -> float:
    """1 - STOI (Taal et al. 2011) of two (1, 1, T) signals at their own rate.

    Every second segment counts, by the share of its frames that are not silent.
    """
    half = round(0.0128 * SAMPLE_RATE)
    hertz = np.arange(257) * SAMPLE_RATE / 512
    centres = [150 * 2 ** (band / 3) for band in range(15)]

    def cut(signal: Tensor) -> Array:
        samples = signal[0, 0].numpy().astype(float)
        window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * half) / half)
        starts = range(0, len(samples) - 2 * half + 1, half)
        return np.stack([window * samples[start : start + 2 * half] for start in starts])

    def magnitudes(signal: Tensor) -> Array:
        power = np.abs(np.fft.rfft(cut(signal), 512)) ** 2
        edges = [(centre / 2 ** (1 / 6), centre * 2 ** (1 / 6)) for centre in centres]
        inside = [(hertz >= low) & (hertz < high) for low, high in edges]
        return np.asarray(np.sqrt(np.stack([power[:, band].sum(1) for band in inside], 1)))

    energy = (cut(original) ** 2).sum(1)
    sounding = energy > energy.max() * 10 ** (-silent_db / 10)
    x, y = magnitudes(original), magnitudes(decoded)
    losses, weights = [], []
    for start in range(0, len(x) - frames + 1, 2):
        ours, theirs = (one[start : start + frames] for one in (x, y))
        theirs = theirs * np.linalg.norm(ours, axis=0) / np.linalg.norm(theirs, axis=0)
        theirs = np.minimum(theirs, ours * (1 + 10 ** (clip_db / 20)))
        likeness = [np.corrcoef(*pair)[0, 1] for pair in zip(ours.T, theirs.T, strict=True)]
        losses.append(1 - np.mean(likeness))
        weights.append(sounding[start : start + frames].mean())
    return float(np.average(losses, weights=weights))


def distortions() -> dict[str, tuple[Tensor, Tensor]]:
    x = voice()
    burst = x.clone()
    burst[..., 8000:8400] += 1
    pause = x.clone()
    pause[..., 10_000:20_000] *= 1e-3
    return {
        "noise": (x, noisy(x, 0.3)),
        "more noise": (x, noisy(x, 3.0)),
        "a burst": (x, burst),
        "noise in a pause": (pause, noisy(pause, 0.1)),
    }


DISTORTIONS = distortions()


def is_loss(expected: float, x: Tensor, y: Tensor) -> bool:
    return float(STOILoss(SAMPLE_RATE)(x, y)) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_loss_is_its_formula(name: str) -> None:
    x, y = DISTORTIONS[name]
    assert is_loss(lost_intelligibility(x, y), x, y)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("a burst", {"clip_db": 10}),
        ("noise in a pause", {"silent_db": 80}),
        ("noise", {"frames": 24}),
    ],
)
def test_another_formula_is_another_loss(name: str, wrong: dict[str, Any]) -> None:
    x, y = DISTORTIONS[name]
    assert not is_loss(lost_intelligibility(x, y, **wrong), x, y)


def test_nothing_is_lost_where_nothing_is_said() -> None:
    x = 1e-6 * torch.randn(1, 1, SAMPLE_RATE)
    assert float(STOILoss(SAMPLE_RATE)(x, torch.randn(1, 1, SAMPLE_RATE))) == 0


def test_equal_signals_at_any_level_are_perfect() -> None:
    x, loss = voice(), STOILoss(SAMPLE_RATE)
    assert float(loss(x, x)) < 1e-3
    assert float(loss(x, 0.3 * x)) < 1e-2
    assert float(loss(x, noisy(x, 1.0))) > 0.1


def test_the_numbers_of_pystoi() -> None:
    """On a recording, from barely audible noise to noise louder than the voice.

    Likeness of waveforms has others.
    """
    stoi = pytest.importorskip(
        "pystoi", reason="pystoi is not installed: pip install '.[eval]'"
    ).stoi
    try:
        content = sample("speech").read_bytes()
    except MediaError:
        pytest.skip("gradio's recording is not installed: pip install '.[app]'")
    samples = torch.from_numpy(decode("speech", content, None)[: 8 * SAMPLE_RATE] / 32768)
    voice = samples.float()[None, None]
    loss = STOILoss(SAMPLE_RATE)
    ours, others, theirs = [], [], []
    for part in voice.split(4 * SAMPLE_RATE, -1):
        for share in (0.03, 0.1, 0.3, 1.0, 3.0):
            y = noisy(part, share)
            theirs.append(stoi(part[0, 0].numpy(), y[0, 0].numpy(), SAMPLE_RATE))
            ours.append(1 - float(loss(part, y)))
            others.append(float(torch.cosine_similarity(part, y, -1)))
    assert np.corrcoef(theirs, ours)[0, 1] > 0.99
    assert np.abs(np.subtract(theirs, ours)).max() < 0.06
    assert np.abs(np.subtract(theirs, others)).max() > 0.15


def test_a_lost_rhythm_costs_more_than_a_changed_waveform() -> None:
    """Phases turned by a quarter keep the envelopes and change every sample.

    An envelope shuffled in time does not.
    """
    x, loss = voice(), STOILoss(SAMPLE_RATE)
    turned = torch.fft.irfft(torch.fft.rfft(x) * 1j, x.shape[-1])
    shuffled = x.reshape(1, 1, -1, 1600).flip(2).reshape(x.shape)
    assert float(loss(x, turned)) < 0.02
    assert float(loss(x, shuffled)) > 0.3
    assert float((x - turned).abs().mean()) > 0.7 * float((x - shuffled).abs().mean())


def test_silent_parts_of_a_clip_count_less() -> None:
    """Noise where nothing is said leaves speech as intelligible as it was."""
    x, loss = voice(seconds=2), STOILoss(SAMPLE_RATE)
    silence = torch.zeros(1, 1, 2 * SAMPLE_RATE)
    clip = torch.cat([x, silence], -1)
    elsewhere = torch.cat([x, noisy(silence + 0, 0.0) + 0.001 * torch.randn(silence.shape)], -1)
    within = torch.cat([x + 0.1 * torch.randn(x.shape), silence], -1)
    assert float(loss(clip, elsewhere)) < 0.2 * float(loss(clip, within))
