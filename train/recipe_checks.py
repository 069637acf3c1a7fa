"""Whether a recipe can be trained: every value is looked at before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from codec import plugins
from codec.bottleneck import Bottleneck
from codec.bottlenecks import BOTTLENECKS
from codec.entropy import prior, range_coder
from codec.errors import CodecError
from codec.medium import MEDIA
from codec.nets.kinds import NETS
from train.augment import STRENGTHS
from train.discriminators import SHORTEST_JUDGED
from train.losses import LOSSES, LPIPS_SMALLEST, optional
from train.recipe import STAGES, CodecSection, Recipe

MAX_ZOOM = 4.0
MAX_WIDTH = 1024  # of a discriminator
LARGEST = 1e9  # a rate, weight or number of steps: far above what is of use, and a float32
Range = tuple[Callable[[Any], bool], str]
ABOVE_0: Range = (lambda value: 0 < value <= LARGEST, f"a number above 0, at most {LARGEST:g}")
FROM_0: Range = (lambda value: 0 <= value <= LARGEST, f"a number from 0 to {LARGEST:g}")
SHARE: Range = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
BETAS: Range = (
    lambda values: len(values) == 2 and all(_is_number(v) and 0 <= v < 1 for v in values),
    "two numbers from 0 to below 1",
)
# Of the keys of [optimiser] and [adversary]. A number that is none, NaN, is in no range.
RANGES: dict[str, Range] = {
    "learning_rate": ABOVE_0,
    "final_share": SHARE,
    "betas": BETAS,
    "weight_decay": FROM_0,
    "warmup_steps": ABOVE_0,
    "clip": ABOVE_0,
    "ema": SHARE,
    "adversarial": FROM_0,
    "features": FROM_0,
    "width": (lambda value: 1 <= value <= MAX_WIDTH, f"a whole number from 1 to {MAX_WIDTH}"),
}


def check_values(path: Path | str, recipe: Recipe) -> None:
    """Looks at all that a recipe says by itself.

    Args:
        path: Of the recipe, for the message.
        recipe: What is looked at.

    Raises:
        CodecError: A name is unknown, or a number out of its range.
    """
    _check_codec(path, recipe.codec)
    _check_data(path, recipe)
    _check_numbers(path, recipe)


def check_bottleneck(path: Path | str, recipe: Recipe, bottleneck: Bottleneck) -> None:
    """Looks at what a recipe and its bottleneck say together.

    Args:
        path: Of the recipe, for the message.
        recipe: What is looked at.
        bottleneck: The one that it names, with its options.

    Raises:
        CodecError: A model file cannot hold its codes, or a loss has no weight or is unknown.
    """
    _check_codes(path, bottleneck)
    _check_losses(path, recipe, bottleneck.loss_names)


def _check_codec(path: Path | str, section: CodecSection) -> None:
    plugins.load()

    def check(key: str, value: str, choices: Iterable[str], more: str = "") -> None:
        if value not in choices:
            known = f"choose from {', '.join(choices)}"
            raise CodecError(f"{path}: codec.{key} = {value!r}; {known}{more}")

    check("medium", section.medium, MEDIA)
    check(
        "kind",
        section.nets,
        [name for name, nets in NETS.items() if nets.medium == section.medium],
        plugins.ADVICE,
    )
    check("preset", section.preset, NETS[section.nets].presets)
    check("bottleneck", section.bottleneck, BOTTLENECKS, plugins.ADVICE)


def _check_codes(path: Path | str, bottleneck: Bottleneck) -> None:
    """Checks that the coder's tables hold the codes: an export makes them, after the training."""
    # A model with several codebooks has no priors, whose questions tell two codes or more apart.
    one = bottleneck.num_codebooks == 1
    least, most = (2, prior.MAX_CODES) if one else (1, range_coder.TOTAL)
    for size in bottleneck.codebook_sizes:
        count = bottleneck.num_codes(size)
        if not least <= count <= most:
            raise CodecError(
                f"{path}: codec.options: number of codes at K = {size}: {count}; "
                f"a model file holds {least} to {most}"
            )


def _check_data(path: Path | str, recipe: Recipe) -> None:
    medium, data = recipe.codec.medium, recipe.data
    shortest, axes = LOSSES[medium].shortest_crop, MEDIA[medium].axes
    if len(data.crop) != axes or not all(isinstance(c, int) and c >= shortest for c in data.crop):
        raise CodecError(
            f"{path}: data.crop = {data.crop}; want {axes} numbers of at least {shortest}"
        )
    if data.batch < 1 or not 1 <= data.zoom <= MAX_ZOOM:
        raise CodecError(
            f"{path}: data.batch = {data.batch}, data.zoom = {data.zoom}; "
            f"want at least 1, and 1 to {MAX_ZOOM}"
        )
    if data.augment not in STRENGTHS:
        raise CodecError(
            f"{path}: data.augment = {data.augment!r}; choose from {', '.join(STRENGTHS)}"
        )


def _check_losses(path: Path | str, recipe: Recipe, own: tuple[str, ...]) -> None:
    """Checks that each required distance and each of the bottleneck's losses has a weight.

    Nothing else has one but the optional distances.
    """
    weights, medium = recipe.losses, recipe.codec.medium
    required = (*LOSSES[medium].required, *own)
    known = (*required, *optional(medium))
    if unknown := [name for name in weights if name not in known]:
        raise CodecError(
            f"{path}: unknown loss {', '.join(unknown)}; known are {', '.join(known)}"
            f"{plugins.ADVICE}"
        )
    if missing := [name for name in required if name not in weights]:
        raise CodecError(
            f"{path}: no weight for the loss {', '.join(missing)}; give one, 0 to leave it out "
            "(a table [losses] replaces the whole of its base's)"
        )
    if weights.get("lpips") and min(recipe.data.crop) < LPIPS_SMALLEST:
        raise CodecError(
            f"{path}: data.crop = {recipe.data.crop}; losses.lpips needs at least {LPIPS_SMALLEST}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_numbers(path: Path | str, recipe: Recipe) -> None:
    shares, weights = recipe.stages, recipe.losses
    if not all(map(_is_number, [*shares.values(), *weights.values()])):
        raise CodecError(f"{path}: stages and losses are numbers, got {shares} and {weights}")
    if not all(0 <= value <= LARGEST for value in weights.values()):
        raise CodecError(f"{path}: weights of losses are numbers from 0 on, got {weights}")
    # Stage B goes on from A, stage C from a codec that has learnt.
    begun = recipe.share("A") > 0 or recipe.tunes
    whole = 0.99 < sum(shares.values()) < 1.01 and min(shares.values()) >= 0 and begun
    if set(shares) - set(STAGES) or not whole:
        raise CodecError(
            f"{path}: stages are shares of {', '.join(STAGES)} that add up to 1, got {shares}"
        )
    judged, shortest = recipe.adversary.crop, SHORTEST_JUDGED[recipe.codec.medium]
    if recipe.share("B") and min(recipe.data.crop) < shortest:
        raise CodecError(
            f"{path}: data.crop = {recipe.data.crop}; stage B judges crops of at least {shortest}"
        )
    if judged is not None and not (
        len(judged) == len(recipe.data.crop)
        and all(
            isinstance(a, int) and shortest <= a <= b
            for a, b in zip(judged, recipe.data.crop, strict=True)
        )
    ):
        raise CodecError(
            f"{path}: adversary.crop = {judged}; want {shortest} to data.crop = {recipe.data.crop}"
        )
    for name, section in (("optimiser", recipe.optimiser), ("adversary", recipe.adversary)):
        values = dataclasses.asdict(section)
        for key, (fits, wanted) in RANGES.items():
            if key in values and not fits(values[key]):
                raise CodecError(f"{path}: {name}.{key} = {values[key]!r}; want {wanted}")
