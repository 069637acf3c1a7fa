"""Recipes: TOML data that says what to train and how; every key is known, and a misspelt one is an error.

A recipe may name another as its `base` and give only what differs.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.bottlenecks import BOTTLENECKS
from codec.errors import CodecError
from codec.model import PRESETS, CodecConfig, build

MAX_BASES = 8
PLAIN_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "list": list, "dict": dict}
SHORTEST_CROP = {"speech": 1056, "image": 16}  # what the largest window of the losses needs: samples, pixels
FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class CodecSection:
    medium: str
    preset: str
    bottleneck: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class DataSection:
    crop: list[int]  # samples | height, width
    batch: int


@dataclass(frozen=True)
class OptimiserSection:
    learning_rate: float
    final_share: float
    betas: list[float]
    weight_decay: float
    warmup_steps: int
    clip: float
    ema: float


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training but the data folder, the budget and the seed."""

    codec: CodecSection
    data: DataSection
    optimiser: OptimiserSection
    stages: dict[str, float]
    losses: dict[str, float]

    def config(self) -> CodecConfig:
        nets = PRESETS[self.codec.medium][self.codec.preset]
        return CodecConfig(self.codec.medium, nets, self.codec.bottleneck, self.codec.options)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load(name: str, overrides: list[str] | None = None) -> Recipe:
    """Reads a shipped recipe by name, or a .toml file by path, and applies "section.key=value" overrides.

    Raises:
        CodecError: No such recipe, or it does not fit; the message names the key.
    """
    path = _path(name)
    data = _read(path)
    for override in overrides or []:
        _apply(data, override)
    return _build(path, data)


def _path(name: str) -> Path:
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise CodecError(f"{name}: no such recipe; give a .toml file or one of {shipped}")
    return path


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    """A recipe's tables, laid over those of the recipe that it names as its base; losses replace the base's."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CodecError(f"{path}: not TOML ({error})") from None
    if depth > MAX_BASES or not all(isinstance(v, dict) for k, v in data.items() if k != "base"):
        raise CodecError(f"{path}: a recipe is tables of keys, with at most {MAX_BASES} bases one after another")
    if "base" not in data:
        return data
    merged = _read(_path(data.pop("base")), depth + 1)
    for section, values in data.items():
        merged[section] = values if section == "losses" else merged.get(section, {}) | values
    return merged


def from_dict(data: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.to_dict`. Raises CodecError as `load` does."""
    return _build(Path("recipe"), data)


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    section, dot, name = key.partition(".")
    if not equals or not dot or not isinstance(data.get(section), dict):
        raise CodecError(f"--set {override}: want section.key=value with one of the sections {', '.join(data)}")
    try:
        data[section][name] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        data[section][name] = value  # a bare word is a string


def _build(path: Path, data: dict[str, Any]) -> Recipe:
    sections = {"codec": CodecSection, "data": DataSection, "optimiser": OptimiserSection}
    if problem := set(data) ^ {f.name for f in dataclasses.fields(Recipe)}:
        raise CodecError(f"{path}: unknown or missing section: {', '.join(sorted(problem))}")
    built: dict[str, Any] = {}
    for name, kind in sections.items():
        fields = {f.name: f for f in dataclasses.fields(kind)}
        if unknown := set(data[name]) - set(fields):
            raise CodecError(f"{path}: unknown key {name}.{sorted(unknown)[0]}; known are {', '.join(fields)}")
        for key, value in data[name].items():
            wanted = str(fields[key].type)
            if not isinstance(value, PLAIN_TYPES[wanted.split("[")[0]]):
                raise CodecError(f"{path}: {name}.{key} = {value!r}; want {wanted}")
        try:
            built[name] = kind(**data[name])
        except TypeError as error:
            raise CodecError(f"{path}: section {name}: {error}") from None
    recipe = Recipe(**built, stages=data["stages"], losses=data["losses"])
    known = {"medium": PRESETS, "preset": PRESETS.get(recipe.codec.medium, {}), "bottleneck": BOTTLENECKS}
    for key, choices in known.items():
        if getattr(recipe.codec, key) not in choices:
            raise CodecError(f"{path}: codec.{key} = {getattr(recipe.codec, key)!r}; choose from {', '.join(choices)}")
    shares = [*recipe.stages.values(), *recipe.losses.values()]
    if not all(isinstance(share, int | float) for share in shares):
        raise CodecError(f"{path}: stages and losses are numbers, got {recipe.stages} and {recipe.losses}")
    if set(recipe.stages) - {"A", "C"} or not 0.99 < sum(recipe.stages.values()) < 1.01 or not recipe.stages.get("A"):
        raise CodecError(f"{path}: stages are shares of A and C that add up to 1, got {recipe.stages}")
    shortest, axes = SHORTEST_CROP[recipe.codec.medium], 1 if recipe.codec.medium == "speech" else 2
    if len(recipe.data.crop) != axes or min(recipe.data.crop) < shortest:
        raise CodecError(f"{path}: data.crop = {recipe.data.crop}; want {axes} numbers of at least {shortest}")
    try:
        build(recipe.config())
    except (TypeError, ValueError) as error:
        raise CodecError(f"{path}: codec.options = {recipe.codec.options}: {error}") from None
    return recipe
