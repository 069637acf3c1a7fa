"""What holds for every loss that listens: loudness and intelligibility."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codec.losses.loudness import LoudnessLoss
from codec.losses.speech import mel_banks
from codec.losses.stoi import STOILoss
from codec.medium import SAMPLE_RATE
from train import losses

LISTENING: dict[str, type[nn.Module]] = {"loudness": LoudnessLoss, "stoi": STOILoss}
EACH = pytest.mark.parametrize("name", LISTENING)


def voice(seed: int = 0, seconds: float = 2.0) -> Tensor:
    """(1, 1, T): harmonics of a wandering pitch under moving formants, in syllables: what PESQ
    takes for speech.
    """
    t = torch.arange(int(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    generator = torch.Generator().manual_seed(seed)
    pitch = 120 + 20 * torch.sin(2 * math.pi * 2.1 * t + seed)
    phase = 2 * math.pi * pitch.cumsum(0) / SAMPLE_RATE
    signal = torch.zeros_like(t)
    for n in range(1, 50):
        formants = sum(
            torch.exp(
                -(((n * pitch - f * (1 + 0.2 * torch.sin(2 * math.pi * r * t + seed))) / w) ** 2)
            )
            for f, w, r in ((500, 150, 1.3), (1500, 200, 1.9), (2500, 300, 2.3))
        )
        signal = signal + (formants + 0.02) * torch.sin(n * phase)
    syllables = (torch.sin(2 * math.pi * 3 * t) > -0.5).float()
    signal = signal * syllables + 0.01 * torch.randn(t.shape, generator=generator)
    return (0.2 * signal / signal.abs().max())[None, None]


def noisy(x: Tensor, share: float, seed: int = 1) -> Tensor:
    return x + share * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "shortest"), [("loudness", 600), ("stoi", 1056)])
def test_silence_and_short_clips_have_finite_gradients(name: str, shortest: int) -> None:
    loss = LISTENING[name](SAMPLE_RATE)
    for x in (torch.zeros(1, 1, 8000), voice()[..., :shortest], 1e-5 * voice()[..., :8000]):
        y = noisy(x, 0.1).add(1e-6).requires_grad_()
        value = loss(x, y)
        value.sum().backward()
        assert value.isfinite().all()
        assert y.grad is not None
        assert y.grad.isfinite().all()
    assert float(loss(torch.zeros(1, 1, 8000), 0.1 * torch.ones(1, 1, 8000))) == 0


@EACH
def test_each_sample_counts_alone(name: str) -> None:
    loss = LISTENING[name](SAMPLE_RATE)
    x = torch.cat([voice(0), voice(1)])
    y = torch.cat([noisy(voice(0), 0.1), noisy(voice(1), 1.0)])
    both = loss(x, y)
    assert torch.allclose(both, torch.cat([loss(x[:1], y[:1]), loss(x[1:], y[1:])]), rtol=1e-4)
    assert both[1] > both[0]


@EACH
def test_a_recipe_weighs_it_or_does_without(name: str) -> None:
    x = voice(0, 0.5)
    with_it = losses.build("speech", {"mel": 1, name: 1})(x, noisy(x, 0.1))
    without = losses.build("speech", {"mel": 1})(x, noisy(x, 0.1))
    assert set(with_it) - set(without) == {name}
    assert all(torch.equal(with_it[known], value) for known, value in without.items())


@pytest.mark.parametrize(("size", "bands"), [(128, 16), (512, 64), (2048, 128)])
def test_mel_banks_are_torchaudios(size: int, bands: int) -> None:
    expected = melscale_fbanks(size // 2 + 1, 0, 8000, bands, 16000)
    assert torch.allclose(mel_banks(size, bands), expected, rtol=0, atol=2e-5)
    other = melscale_fbanks(size // 2 + 1, 0, 8000, bands, 16000, mel_scale="slaney")
    assert not torch.allclose(mel_banks(size, bands), other, rtol=0, atol=2e-5)
