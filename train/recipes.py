"""Recipes: TOML data that says what to train and how.

Every key is known, and a misspelt one is an error.

A recipe may name another as its `base`, or a list of them, later ones laid over earlier, and give
only what differs. Files that begin with an underscore are parts, for others to name.
"""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec import plugins
from codec.bottleneck import Bottleneck
from codec.bottlenecks import BOTTLENECKS
from codec.entropy import prior, range_coder
from codec.errors import CodecError, out_of_memory
from codec.medium import MEDIA
from codec.model import CodecConfig, build
from codec.nets.kinds import NETS, default
from train.augment import STRENGTHS
from train.discriminators import SHORTEST_JUDGED
from train.losses import LOSSES, LPIPS_SMALLEST, optional

MAX_BASES = 8
STAGES = ("A", "B", "C")
PLAIN_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "list": list,
    "dict": dict,
}
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
FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class CodecSection:
    medium: str
    preset: str
    bottleneck: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str | None = None  # of nets; the medium's default where none is named

    @property
    def nets(self) -> str:
        """A key of `codec.nets.NETS`."""
        return self.kind or default(self.medium)


@dataclass(frozen=True)
class DataSection:
    crop: list[int]  # samples | height, width
    batch: int  # of each process
    # Crops are of windows up to so much larger; speech is played at 1 / zoom to zoom of its speed.
    zoom: float = 1.0
    augment: str = "light"


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
class AdversarySection:
    """The discriminator of stage B, and of stage C after it.

    Its two losses have weights of their own.
    """

    adversarial: float = 1.0
    features: float = 2.0
    width: int = 16  # of its narrowest layers
    learning_rate: float = 2e-4
    betas: list[float] = dataclasses.field(default_factory=lambda: [0.8, 0.99])
    clip: float = 10.0
    warmup_steps: int = 500  # in which the weights rise from zero
    # Samples | height, width that are judged of each crop, at random; all by default.
    crop: list[int] | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training but the data folder, the budget and the seed."""

    codec: CodecSection
    data: DataSection
    optimiser: OptimiserSection
    stages: dict[str, float]
    losses: dict[str, float]
    adversary: AdversarySection = dataclasses.field(default_factory=AdversarySection)

    def share(self, stage: str) -> float:
        """Returns a stage's share of the budget; 0 for one that is left out."""
        return float(self.stages.get(stage, 0.0))

    def config(self) -> CodecConfig:
        part = self.codec
        return CodecConfig(
            part.medium,
            NETS[part.nets].presets[part.preset],
            part.bottleneck,
            part.options,
            part.nets,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON data, without what is None, as a recipe leaves that out."""
        tables = dataclasses.asdict(self)
        for section in ("codec", "adversary"):
            tables[section] = {
                key: value for key, value in tables[section].items() if value is not None
            }
        return tables

    @property
    def tunes(self) -> bool:
        """Whether there is stage C alone.

        The decoder of a finished model learns, its codes stay what they are.
        """
        return self.share("C") > 0 and not self.share("A") and not self.share("B")

    def stage_at(self, progress: float) -> str:
        """Returns the stage that an elapsed share of the budget falls into."""
        if progress < self.share("A"):
            return "A"
        if self.share("B") and progress < self.share("A") + self.share("B"):
            return "B"
        return "C" if self.share("C") else "B" if self.share("B") else "A"


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
    _check_codec(path, recipe.codec)
    _check_data(path, recipe)
    _check_numbers(path, recipe)
    try:
        bottleneck = build(recipe.config()).bottleneck
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0]  # torch adds a page of signatures
        raise CodecError(f"{path}: codec.options = {recipe.codec.options}: {reason}") from None
    _check_codes(path, bottleneck)
    _check_losses(path, recipe, bottleneck.loss_names)
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
