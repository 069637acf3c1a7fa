"""Augmented crops stay real: mirrored but never upside down, and what is added is quieter.

What is drawn for them is the same however many processes draw it.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from train import augment
from train.draws import Draws


def crops(medium: str, count: int = 64) -> Tensor:
    shape = (1, 4096) if medium == "speech" else (3, 8, 10)
    generator = torch.Generator().manual_seed(0)
    if medium == "speech":
        return 0.1 * torch.randn(count, *shape, generator=generator)
    return torch.rand(count, *shape, generator=generator)


def level_db(x: Tensor) -> Tensor:
    return 20 * x.square().mean((1, 2)).sqrt().log10()


@pytest.mark.parametrize(("kind", "limits"), [("uniform", 2), ("normal", 2), ("integers", 1000)])
def test_two_processes_draw_what_one_would(kind: str, limits: int) -> None:
    def drawn(draws: Draws, rows: int) -> Tensor:
        found = getattr(draws, kind)(rows, limits)
        assert isinstance(found, Tensor)
        return found

    parts = [drawn(Draws(3, rank=rank, world=2), 4) for rank in range(2)]
    assert torch.equal(torch.cat(parts), drawn(Draws(3), 8))


def test_every_integer_below_the_limit_is_drawn() -> None:
    draws = Draws(0)
    assert draws.integers(200, 4).unique().tolist() == [0, 1, 2, 3]
    assert {draws.integer(4) for _ in range(200)} == {0, 1, 2, 3}


@pytest.mark.parametrize("strength", augment.STRENGTHS)
def test_speech_reaches_its_range_and_keeps_it(strength: str) -> None:
    peaked = 10 * crops("speech", 400).pow(5)
    assert float(augment.augment("speech", peaked, Draws(0), strength).abs().max()) == 1


def test_silence_stays_silent_at_any_level() -> None:
    assert not augment.augment("speech", torch.zeros(4, 1, 4096), Draws(0)).any()


def test_pictures_reach_their_range_and_keep_it() -> None:
    y = augment.augment("image", crops("image").round(), Draws(0), "full")
    assert (float(y.min()), float(y.max())) == (0, 1)


def test_light_pictures_are_themselves_or_their_mirror_images() -> None:
    x = crops("image")
    y = augment.augment("image", x, Draws(0))
    same, mirrored = ((y == wanted).flatten(1).all(1) for wanted in (x, x.flip(3)))
    assert (same ^ mirrored).all()
    assert 16 < int(mirrored.sum()) < 48  # half of 64


def test_light_speech_is_itself_at_another_level_and_of_either_polarity() -> None:
    x = crops("speech")
    y = augment.augment("speech", x, Draws(0))
    gain = (x * y).sum((1, 2)) / x.square().sum((1, 2))
    assert torch.allclose(y, (gain[:, None, None] * x).clamp(-1, 1), atol=1e-4)
    assert 16 < int((gain < 0).sum()) < 48


def test_a_second_speaker_and_noise_are_below_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    x = crops("speech", 400) * torch.logspace(-1, 0.5, 400)[:, None, None]
    monkeypatch.setattr(augment, "MIXED", 1.0)
    monkeypatch.setattr(augment, "NOISY", 1.0)
    for change, lowest, highest in ((augment._mix, -15, 0), (augment._noise, -40, -10)):
        below = level_db(change(x, Draws(0)) - x) - level_db(x)
        assert lowest - 0.5 < float(below.min()) < lowest + 1
        assert highest - 1 < float(below.max()) < highest + 0.5


def test_second_speakers_and_noise_come_as_often_as_they_say() -> None:
    x = crops("speech", 2000)[:, :, :256]
    for change, share in ((augment._mix, 0.05), (augment._noise, 0.1)):
        changed = (change(x, Draws(0)) != x).flatten(1).any(1).float().mean()
        assert float(changed) == pytest.approx(share, abs=0.02)


def test_the_equaliser_stays_within_its_gain_and_turns_all_phases_alike() -> None:
    x = crops("speech")
    y = augment._filter(x, Draws(0))
    ratio = (torch.fft.rfft(y.double()) / torch.fft.rfft(x.double()))[:, 0, 1:-1]
    gain = 20 * ratio.abs().log10()
    assert float(gain.abs().max()) < 6.01
    assert float(gain.max()) > 4.5
    assert float(gain.min()) < -4.5
    assert float((gain[:, 1:] - gain[:, :-1]).abs().max()) < 0.1  # smooth
    angles = ratio[:, 0].angle()  # all around
    assert float(angles.min()) < -2.5
    assert float(angles.max()) > 2.5
    turned = ratio / ratio[:, :1]
    assert torch.allclose(turned.angle(), torch.zeros(turned.shape).double(), atol=1e-2)


def test_full_pictures_change_by_a_tenth_in_each_respect() -> None:
    x = 0.25 + crops("image") / 2
    grey = x.mean(1, keepdim=True).expand_as(x)  # of no colour: saturation does nothing
    y = augment.augment("image", grey, Draws(0), "full")
    assert torch.allclose(y.mean(1, keepdim=True).expand_as(y), y, atol=1e-6)
    brightness = y.mean((1, 2, 3)) / grey.mean((1, 2, 3))
    contrast = y.std((1, 2, 3)) / grey.std((1, 2, 3)) / brightness
    for found in (brightness, contrast):
        assert 0.9 - 1e-4 < float(found.min()) < 0.92
        assert 1.08 < float(found.max()) < 1.1 + 1e-4
