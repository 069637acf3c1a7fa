"""Cards and recipes say the same: what a shipped model was trained with is what
`python -m train NAME-small` does.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from codec import cards
from train import recipes

SHIPPED = [
    f"{medium}-{method}" for medium in ("speech", "image") for method in ("fsp", "vp", "gmvq")
]


def keys(data: Any, path: str = "") -> dict[str, Any]:
    """Nested tables as one, "losses.l1" -> 1.0."""
    if not isinstance(data, dict):
        return {path: data}
    return {
        name: value
        for key, part in data.items()
        for name, value in keys(part, f"{path}.{key}").items()
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_holds_its_recipe_key_by_key(name: str) -> None:
    card = cards.find(name).data
    first, last = recipes.load(f"{name}-small"), recipes.load(f"{name}-small")
    training = card["training"]
    if "begun_from" in training:  # the decoder was tuned afterwards, by a recipe of its own
        last = recipes.load(
            f"{name}-nested" if card["config"]["options"].get("nested") else f"{name}-tuned"
        )
        assert keys(training["recipe"]) == keys(json.loads(json.dumps(last.to_dict())))
        training = training["begun_from"]
    assert keys(training["recipe"]) == keys(json.loads(json.dumps(first.to_dict())))
    assert keys(card["config"]) == keys(json.loads(json.dumps(last.config().to_dict())))


def test_a_tuned_model_keeps_the_losses_that_it_was_trained_on(tmp_path: Path) -> None:
    """Or its figures would lose their mark. A weight of the last recipe comes first."""
    path = cards.find("image-vp").path
    content = json.loads(path.read_text(encoding="utf-8"))
    before = {"recipe": {"losses": {"lpips": 0.4, "l1": 1.0}}}
    content["training"] = {"recipe": {"losses": {"l1": 2.0, "lpips": 0.0}}, "begun_from": before}
    shutil.copy(path.with_suffix(".safetensors"), tmp_path)
    (tmp_path / path.name).write_text(json.dumps(content))
    assert cards.read_card(tmp_path / path.name).losses == {"l1": 2.0, "lpips": 0.4}
    del content["training"]["begun_from"]
    (tmp_path / path.name).write_text(json.dumps(content))
    assert cards.read_card(tmp_path / path.name).losses == {"l1": 2.0, "lpips": 0.0}


def test_levels_are_nested_and_hold_k_codes() -> None:
    """floor(4 u) = floor(8 u) // 2 in every dimension, so one index tells those at all smaller
    sizes.
    """
    levels = recipes.load("speech-fsp").codec.options["levels"]
    assert levels == recipes.load("image-fsp").codec.options["levels"]
    rows = [row for _, row in sorted((int(size), row) for size, row in levels.items())]
    assert [math.prod(row) for row in rows] == sorted(map(int, levels)) == [256, 1024, 4096, 16384]
    for fine, coarse in zip(rows[1:], rows, strict=False):
        assert all(a % b == 0 for a, b in zip(fine, coarse, strict=True))
