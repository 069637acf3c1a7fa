"""Recipes: TOML data that says what to train and how.

Every key is known, and a misspelt one is an error.

A recipe may name another as its `base`, or a list of them, later ones laid over earlier, and give
only what differs. Files that begin with an underscore are parts, for others to name.
"""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from codec.errors import CodecError, out_of_memory
from codec.model import build
from train.recipe import AdversarySection, CodecSection, DataSection, OptimiserSection, Recipe
from train.recipe_checks import check_bottleneck, check_values

MAX_BASES = 8
PLAIN_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "list": list,
    "dict": dict,
}
FOLDER = Path(__file__).parent / "recipes"


def load(name: str, overrides: list[str] | None = None) -> Recipe:
    """Reads a shipped recipe by name, or a .toml file by path.

    Then it applies "section.key=value" overrides.

    Raises:
        CodecError: No such recipe, or it does not fit; the message names the key.
    """
    path = _path(name)
    data = _read(path)
    if not overrides:
        return _build(path, data)
    at_fault = str(path)
    with suppress(CodecError):
        _build(path, copy.deepcopy(data))
        at_fault = f"--set {' --set '.join(overrides)}"  # the recipe alone is right
    for override in overrides:
        _apply(data, override)
    return _build(at_fault, data)


def _path(name: str) -> Path:
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise CodecError(
            f"{name}: no such recipe; give a .toml file or one of {', '.join(shipped())}"
        )
    return path


def shipped() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.toml"))


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    """Reads a recipe's tables, laid over those of its bases.

    Its losses and stages replace theirs.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CodecError(f"{path}: not TOML ({error})") from None
    if depth > MAX_BASES or not all(isinstance(v, dict) for k, v in data.items() if k != "base"):
        raise CodecError(
            f"{path}: a recipe is tables of keys, with at most {MAX_BASES} bases one after another"
        )
    if "base" not in data:
        return data
    bases = data.pop("base")
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise CodecError(f"{path}: base = {bases!r}; want the name of a recipe, or a list of names")
    merged: dict[str, Any] = {}
    for tables in [
        *(_read(_path(base), depth + 1) for base in bases),
        data,
    ]:
        for section, values in tables.items():
            merged[section] = (
                values if section in ("losses", "stages") else merged.get(section, {}) | values
            )
    return merged


def from_dict(data: dict[str, Any]) -> Recipe:
    """Builds a recipe of what `Recipe.to_dict` returned.

    Raises:
        CodecError: It does not fit, see `load`.
    """
    return _build(Path("recipe"), data)


def _apply(data: dict[str, Any], override: str) -> None:
    """Sets a key, "data.batch=4" or "codec.options.dim=8", or a section, "stages={A=1.0}"."""
    path, equals, text = override.partition("=")
    keys = path.split(".")
    sections = [field.name for field in dataclasses.fields(Recipe)]
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    if not equals or keys[0] not in sections or (len(keys) == 1 and not isinstance(value, dict)):
        raise CodecError(
            f"--set {override}: want section.key=value with one of the sections "
            f"{', '.join(sections)}"
        )
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise CodecError(f"--set {override}: {key} is one value and holds no keys")
    data[keys[-1]] = value


def _build(path: Path | str, data: dict[str, Any]) -> Recipe:
    kinds = {
        "codec": CodecSection,
        "data": DataSection,
        "optimiser": OptimiserSection,
        "adversary": AdversarySection,
    }
    data = {"adversary": {}} | data
    if not all(isinstance(values, dict) for values in data.values()):
        raise CodecError(f"{path}: a recipe is tables of keys")
    if problem := set(data) ^ {f.name for f in dataclasses.fields(Recipe)}:
        raise CodecError(f"{path}: unknown or missing section: {', '.join(sorted(problem))}")
    built: dict[str, Any] = {
        name: _section(path, name, kind, data[name]) for name, kind in kinds.items()
    }
    recipe = Recipe(**built, stages=data["stages"], losses=data["losses"])
    check_values(path, recipe)
    try:
        bottleneck = build(recipe.config()).bottleneck
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0]  # torch adds a page of signatures
        raise CodecError(f"{path}: codec.options = {recipe.codec.options}: {reason}") from None
    check_bottleneck(path, recipe, bottleneck)
    return recipe


def _section(path: Path | str, name: str, kind: type, values: dict[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := set(values) - set(fields):
        raise CodecError(
            f"{path}: unknown key {name}.{sorted(unknown)[0]}; known are {', '.join(fields)}"
        )
    for key, value in values.items():
        wanted = str(fields[key].type)
        if not isinstance(value, PLAIN_TYPES[wanted.split("[")[0].split(" ")[0]]) or isinstance(
            value, bool
        ):
            raise CodecError(f"{path}: {name}.{key} = {value!r}; want {wanted}")
    try:
        return kind(**values)
    except TypeError as error:
        raise CodecError(f"{path}: section {name}: {error}") from None
