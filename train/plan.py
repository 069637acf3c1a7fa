"""Plans of several trainings: what a fleet trains, as a TOML file says it.

[speech-vp]
recipe = "speech-vp-small"
init = "speech-fsp"         # a run before it, whose nets it begins with
set = ["data.batch=16"]
seed = 1
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from codec.errors import CodecError
from train import recipes
from train.options import MAX_SEED

FOLDER = Path(__file__).parent / "plans"


@dataclass(frozen=True, slots=True)
class Run:
    """One entry of a plan.

    It has a recipe, "section.key=value" changes, a seed, and the run whose nets it begins with.
    """

    name: str
    recipe: str
    set: list[str] = field(default_factory=list)
    seed: int = 0
    init: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether all values are of the kinds that are wanted, as a file's need not be."""
        return (
            isinstance(self.recipe, str)
            and isinstance(self.set, list)
            and all(isinstance(change, str) for change in self.set)
            and isinstance(self.seed, int)
            and not isinstance(self.seed, bool)
            and 0 <= self.seed <= MAX_SEED
            and isinstance(self.init, str | None)
        )

    @property
    def medium(self) -> str:
        return _medium(self.recipe, tuple(self.set))


@lru_cache  # a recipe takes long to read, and the fleet asks again and again
def _medium(recipe: str, changes: tuple[str, ...]) -> str:
    return recipes.load(recipe, list(changes)).codec.medium


def load_plan(name: str) -> list[Run]:
    """Reads a shipped plan by name, or a .toml file.

    Raises:
        CodecError: There is no such plan, or it does not fit.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise CodecError(f"{name}: no such plan; give a .toml file or one of {shipped}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        runs = [Run(name=key, **table) for key, table in tables.items()]
        if wrong := [run.name for run in runs if not run.is_plain]:
            raise ValueError(f"{wrong[0]} has values of another kind")
    except (ValueError, TypeError) as error:
        raise CodecError(
            f"{path}: not a plan ({error}); want a table for each run with recipe, set, seed, init"
        ) from None
    if not runs or any("/" in run.name or run.name in ("", ".", "..") for run in runs):
        raise CodecError(f"{path}: a plan needs runs, whose names are no paths")
    seen: dict[str, str] = {}
    for run in runs:
        seen[run.name] = run.medium  # a mistake shows before anything starts
        if run.init is not None and (run.init == run.name or seen.get(run.init) != run.medium):
            raise CodecError(
                f"{path}: {run.name} begins from {run.init}, "
                "which is no run of its medium before it"
            )
    return runs
