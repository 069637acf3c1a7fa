"""Recipes whose values train nothing of use are refused in a line when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from codec.errors import CodecError
from train import recipes


@pytest.mark.parametrize(
    "change",
    [
        "optimiser.betas=[0.9, 2.0]",
        "optimiser.betas=[0.9, 1.0]",
        "optimiser.betas=[-0.1, 0.9]",
        "optimiser.betas=['a', 'b']",
        "optimiser.betas=[true, false]",
        "optimiser.betas=[0.9]",
        "optimiser.betas=[nan, 0.9]",
        "optimiser.weight_decay=-1.0",
        "optimiser.weight_decay=nan",
        "optimiser.learning_rate=nan",
        "optimiser.learning_rate=inf",
        "optimiser.learning_rate=0",
        f"optimiser.learning_rate={10**400}",
        "optimiser.clip=inf",
        "optimiser.clip=0.0",
        "optimiser.warmup_steps=0",
        "optimiser.ema=-3.0",
        "optimiser.ema=1.5",
        "optimiser.final_share=inf",
        "optimiser.final_share=-0.1",
        "adversary.width=0",
        "adversary.width=1000000",
        "adversary.betas=['a', 'b']",
        "adversary.adversarial=-1.0",
        "adversary.features=nan",
        "adversary.learning_rate=-1e-4",
        "losses.l1=true",
        f"losses.l1={10**400}",
        "stages={A=true}",
        "stages={A=nan}",
        "codec.options={dim=0}",
        "codec.options={dim=-1}",
        "codec.options={dim='x'}",
        "codec.options={codebook_sizes=5}",
        "codec.options={codebook_sizes=[]}",
        "codec.options={codebook_sizes=['x']}",
        f"codec.options={{dim={10**30}}}",
        "codec.options={codebook_sizes=[nan]}",
    ],
)
@pytest.mark.parametrize("name", ["image-vp", "image-gmvq"])
def test_a_value_out_of_its_range_names_its_key(name: str, change: str) -> None:
    with pytest.raises(CodecError) as caught:
        recipes.load(name, [change])
    assert change.partition("=")[0].partition(".")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        "optimiser.betas=[0, 0.5]",
        "optimiser.weight_decay=0",
        "optimiser.final_share=1",
        "optimiser.ema=0",
        "adversary.features=0",
        "adversary.width=1",
    ],
)
def test_the_ends_of_ranges_are_in_them(change: str) -> None:
    recipes.load("image-vp", [change])


@pytest.mark.parametrize("base", ["5", "[5]", "[['image-fsp']]", "{a = 1}", "true"])
def test_a_base_is_a_name_or_names(tmp_path: Path, base: str) -> None:
    (tmp_path / "r.toml").write_text(f"base = {base}\n")
    with pytest.raises(CodecError, match="want the name of a recipe, or a list of names"):
        recipes.load(str(tmp_path / "r.toml"))


@pytest.mark.parametrize("part", ["codec", "stages"])
def test_a_recipe_out_of_a_card_is_tables(part: str) -> None:
    whole = recipes.load("image-fsp").to_dict()
    with pytest.raises(CodecError, match="tables of keys"):
        recipes.from_dict(whole | {part: 5})


def test_a_wrong_override_is_blamed_and_not_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"^--set data.batc=2: unknown key data.batc"):
        recipes.load("image-fsp", ["data.batc=2"])
    with pytest.raises(CodecError, match=r"^--set data.batch=2 --set data.crop=3: "):
        recipes.load("image-fsp", ["data.batch=2", "data.crop=3"])
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('base = "image-fsp"\n[data]\nbatc = 2\n')
    with pytest.raises(CodecError, match=r"wrong.toml: unknown key data.batc"):
        recipes.load(str(wrong), ["data.batch=2"])


def test_what_a_module_may_register_is_asked_for_by_import(tmp_path: Path) -> None:
    advice = "; or name the module that registers it with --import"
    for change in ("codec.bottleneck=own", "codec.kind=own", "losses.own=1.0"):
        with pytest.raises(CodecError) as caught:
            recipes.load("image-fsp", [change])
        assert str(caught.value).endswith(advice)
    part = tmp_path / "own.toml"
    part.write_text('base = "speech-fsp"\n[losses]\nloudness = 1.0\n')
    with pytest.raises(
        CodecError, match=r"mel, stft, wave, mean, variance; .*\[losses\] replaces the whole of"
    ):
        recipes.load(str(part))
