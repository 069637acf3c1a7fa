"""The shipped weights on real media: each model codes, at its rate, at no less than a floor of
quality.

The floors are far below what the README reports for the whole sets; they catch a wrong file, not a
bad day.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from conftest import tones, wav

import codec
from codec import cards, coding
from codec.errors import ModelError

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec.media import load_audio, load_image
from eval.metrics import score
from eval.systems import ModelSystem

SETS = {"speech": "speech-test.tar", "image": "image-test-coco.tar"}
FLOOR = {"speech": ("STOI", 0.80), "image": ("PSNR", 20.0)}
# Bits per second, bits per pixel, whole file at K = 1024.
MAX_RATE = {"speech": 1800, "image": 0.18}
NAMES = [card.name for card in cards.list_cards()]


def measured(content: bytes, model: coding.Model, size: int) -> tuple[float, float]:
    """(quality by the floor's metric, bits per second or pixel) of one file, there and back."""
    medium, system = model.card.medium, ModelSystem(model, size)
    if medium == "image":
        signal = load_image(io.BytesIO(content))
        units = float(signal.shape[0] * signal.shape[1])
    else:
        signal = load_audio(io.BytesIO(content), 16000)[0].mean(1, keepdims=True)
        units = len(signal) / 16000
    data = system.compress(signal)
    restored = system.decompress(data, len(signal))
    if medium == "speech":
        signal, restored = signal[:, 0], restored[:, 0]
    quality = score(medium, signal, restored)[FLOOR[medium][0]]
    assert quality is not None
    return quality, 8 * len(data) / units


def test_models_are_shipped() -> None:
    assert {"speech-fsp", "image-fsp"} <= set(NAMES)
    folder = cards.MODELS_FOLDER
    assert {p.stem for p in folder.glob("*.safetensors")} == set(NAMES)
    assert sum(p.stat().st_size for p in folder.iterdir()) < 40 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_codes_real_media(name: str, real: Callable[[str, int], bytes]) -> None:
    model = coding.load(cards.find(name))
    items = [real(SETS[model.card.medium], number) for number in (0, 4, 8, 12)]
    low, high = (
        np.mean([measured(item, model, size) for item in items], axis=0) for size in (256, 16384)
    )
    assert FLOOR[model.card.medium][1] < low[0] < high[0]  # more codes, more quality
    assert low[1] < high[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_at_1024_is_below_its_limit(name: str, real: Callable[[str, int], bytes]) -> None:
    model = coding.load(cards.find(name))
    items = [real(SETS[model.card.medium], number) for number in range(4)]
    assert (
        np.mean([measured(item, model, 1024)[1] for item in items]) <= MAX_RATE[model.card.medium]
    )


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_the_best_model_with_layers(medium: str) -> None:
    card = cards.find(medium=medium, layered=True)
    assert card.layered
    assert card.medium == medium
    assert not cards.find(f"{medium}-vp", layered=True).layered  # a name is a name


def test_layers_need_no_model_to_be_named() -> None:
    data = codec.compress(wav(tones(1600)), 16384, layers=True)
    assert list(codec.info(data)["layers"]) == [256, 1024, 4096, 16384]
    with pytest.raises(ModelError, match="speech-fsp here can have layers"):
        codec.compress(wav(tones(1600)), 16384, "speech-vp", layers=True)
