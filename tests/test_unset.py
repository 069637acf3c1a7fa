"""Loading a model leaves the program that loads it as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import codec
from codec.bottlenecks import BOTTLENECKS
from codec.coding import Model
from codec.unset import unset
from tests.conftest import tones, wav

# What is made, and what draws for it.
DRAWN: list[Callable[[], object]] = [
    lambda: nn.Linear(4, 4),
    lambda: nn.Conv1d(4, 4, 3),
    lambda: nn.Embedding(4, 4),
    lambda: nn.MultiheadAttention(4, 2),
    lambda: nn.init.trunc_normal_(torch.empty(4, 4), std=0.02),
    lambda: nn.init.orthogonal_(torch.empty(4, 4)),
    lambda: torch.randn(4),
    *BOTTLENECKS.values(),
]


@pytest.mark.parametrize("make", DRAWN)
def test_nothing_is_drawn(make: Callable[[], object]) -> None:
    state = torch.get_rng_state()
    with unset():
        make()
    assert torch.equal(torch.get_rng_state(), state)


def test_outside_it_numbers_are_drawn() -> None:
    state = torch.get_rng_state()
    with unset():
        pass
    assert float(nn.Linear(4, 4).weight.detach().abs().sum()) > 0
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["speech-vp", "image-gmvq"])
def test_a_model_is_loaded_without_a_draw_and_on_its_own_device(name: str) -> None:
    state = torch.get_rng_state()
    plain = codec.load(name).codec.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    with torch.device("meta"):
        model = codec.load(name)
    assert model.device.type == "cpu"
    for key, value in model.codec.state_dict().items():
        assert torch.equal(value, plain[key]), key
    assert all(not buffer.is_meta for buffer in model.codec.buffers())


@pytest.mark.parametrize("search", [0, 1])
def test_coding_does_not_follow_the_default_device(search: int, speech_model: Model) -> None:
    recording = wav(tones(16_000))
    plain = codec.compress(recording, 256, speech_model, search=search)
    with torch.device("meta"):
        assert codec.compress(recording, 256, speech_model, search=search) == plain
