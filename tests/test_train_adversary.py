"""Stage B of speech: its recipes say how much of a sample the judges see, and it is not all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codec.medium import SAMPLE_RATE, SPEECH
from train import recipes
from train.plan import FOLDER, load_plan

RECIPES = {name: recipes.load(name) for name in recipes.shipped() if name.startswith("speech")} | {
    f"{path.stem}, {run.name}": recipes.load(run.recipe, run.set)
    for path in FOLDER.glob("stages*.toml")
    for run in load_plan(path.stem)
}
JUDGED = {
    name: recipe
    for name, recipe in RECIPES.items()
    if recipe.codec.medium == SPEECH.name and recipe.share("B")
}


@pytest.mark.parametrize("name", JUDGED)
def test_judges_of_speech_see_half_a_second_of_each_sample(name: str) -> None:
    recipe = JUDGED[name]
    assert recipe.adversary.crop == [SAMPLE_RATE // 2]
    assert recipe.data.crop[0] >= SAMPLE_RATE


@pytest.mark.parametrize("method", ["fsp", "vp", "gmvq"])
def test_a_recipe_with_judges_is_the_small_one_but_for_them(method: str) -> None:
    small = recipes.load(f"speech-{method}-small")
    judged = recipes.load(f"speech-{method}-adversary")
    assert f"speech-{method}-adversary" in JUDGED
    crop = judged.adversary.crop
    assert replace(judged, stages=small.stages) == replace(
        small, adversary=replace(small.adversary, crop=crop)
    )
    assert judged.share("A") + judged.share("B") + judged.share("C") == pytest.approx(1)
