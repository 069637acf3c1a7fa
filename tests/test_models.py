"""The shipped weights on real media: each model codes, at its rate, at no less than a floor of quality.

The floors are far below what the README reports for the whole sets; they catch a wrong file, not a bad day.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codec import cards, coding

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from eval.__main__ import evaluate

SETS = {"speech": "speech-test.tar", "image": "image-test-coco.tar"}
FLOOR = {"speech": ("STOI", 0.70), "image": ("PSNR", 20.0)}
MAX_RATE = {"speech": 1800, "image": 0.18}  # bits per second, bits per pixel, whole file at K = 1024
NAMES = [card.name for card in cards.list_cards()]


def test_models_are_shipped() -> None:
    assert {"speech-fsp", "image-fsp"} <= set(NAMES)
    folder = cards.MODELS_FOLDER
    assert {p.stem for p in folder.glob("*.safetensors")} == set(NAMES)
    assert sum(p.stat().st_size for p in folder.iterdir()) < 36 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_codes_real_media(name: str, real: Callable[[str, int], bytes]) -> None:
    model = coding.load(cards.find(name))
    items = [real(SETS[model.card.medium], number) for number in (0, 4, 8, 12)]
    metric, floor = FLOOR[model.card.medium]
    quality, rates = [], []
    for size in (256, 16384):
        records = [evaluate(content, model, size)[0] for content in items]
        quality.append(sum(r[metric] for r in records) / len(records))
        rates.append(sum(8 * r["bytes"] for r in records) / sum(r["units"] for r in records))
    assert floor < quality[0] < quality[1]  # more codes, more quality
    assert rates[0] < rates[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_at_1024_is_below_its_limit(name: str, real: Callable[[str, int], bytes]) -> None:
    model = coding.load(cards.find(name))
    items = [real(SETS[model.card.medium], number) for number in range(4)]
    records = [evaluate(content, model, 1024)[0] for content in items]
    rate = sum(8 * r["bytes"] / r["units"] for r in records) / len(records)
    assert rate <= MAX_RATE[model.card.medium]
