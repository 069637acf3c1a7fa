"""The loss of intelligibility: the numbers of STOI, zero for equals, finite gradients.

A plain distance fails that.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_speech_losses import noisy, voice

from codec.errors import MediaError
from codec.losses.stoi import STOILoss
from codec.medium import SAMPLE_RATE
from eval.demo import sample
from train.sources import decode


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
