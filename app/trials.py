"""Blind tests, without a page: what is behind which letter stays here until the answers are in.

Rating follows MUSHRA (ITU-R BS.1534) in that an open reference stands beside shuffled versions with
a hidden copy of it among them; it has no low anchor. Telling apart is ABX: X is A or B, by a coin,
and chance gives half.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from app.store import TemporaryFiles
from app.versions import UNIT, Version
from codec.errors import MediaError

TRIALS = 10
ORIGINAL = "Original"


@dataclass(slots=True)
class Rating:
    """A rating test: `names[i]` is what letter i hides.

    Attributes:
        order: Indices into original and versions, in the order of the letters.
    """

    order: list[int]
    names: list[str]
    facts: list[dict[str, Any]]


@dataclass(slots=True)
class Abx:
    """An ABX test of one version against the original."""

    name: str
    facts: dict[str, Any]
    x_is_a: bool = False
    answers: list[bool] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return len(self.answers) >= TRIALS


def start_rating(versions: Sequence[Version]) -> Rating:
    """Shuffles the versions and a hidden original."""
    order = list(range(len(versions) + 1))
    secrets.SystemRandom().shuffle(order)
    names = [ORIGINAL, *(version.label for version in versions)]
    facts = [{}, *(_facts(version) for version in versions)]
    return Rating(order, [names[i] for i in order], [facts[i] for i in order])


def letters(count: int) -> list[str]:
    """A, B, C ..."""
    return list(ascii_uppercase[:count])


def finish_rating(test: Rating, ratings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The result, the best rated first.

    Args:
        ratings: Letter -> 0 to 100, from the page.

    Raises:
        MediaError: A version is not rated, or a rating is not 0 to 100.
    """
    rows = []
    for letter, name, facts in zip(letters(len(test.names)), test.names, test.facts, strict=True):
        try:
            value = float(ratings[letter])
        except (KeyError, TypeError, ValueError):
            raise MediaError(f"version {letter} has no rating yet; move its slider") from None
        if not 0 <= value <= 100:
            raise MediaError(f"version {letter} is rated {value:g}; 0 to 100 are possible")
        rows.append({"letter": letter, "version": name, "rating": value} | facts)
    return sorted(rows, key=lambda row: -row["rating"])


def start_abx(version: Version) -> Abx:
    return Abx(version.label, _facts(version))


def toss(test: Abx) -> None:
    """Decides what X is in the next trial."""
    test.x_is_a = secrets.randbelow(2) == 0


def answer(test: Abx, says_a: bool) -> None:
    """Takes an answer. Raises MediaError where the test is over."""
    if test.done:
        raise MediaError("this test is over; start another one")
    test.answers.append(says_a == test.x_is_a)


def finish_abx(test: Abx) -> dict[str, Any]:
    """Right answers, and how often guessing does as well.

    Raises MediaError where there is no answer.
    """
    from scipy.stats import binomtest

    if not test.answers:
        raise MediaError("there is no answer yet")
    right, total = sum(test.answers), len(test.answers)
    chance = float(binomtest(right, total, 0.5, alternative="greater").pvalue)
    return {
        "version": test.name,
        "right": right,
        "trials": total,
        "by_chance": round(chance, 4),
    } | test.facts


def disguise(files: TemporaryFiles, paths: Sequence[Path]) -> list[Path]:
    """Copies files under names that tell nothing."""
    folder = files.folder()
    copies = [folder / f"{secrets.token_hex(8)}{path.suffix}" for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        shutil.copy(path, copy)
    return copies


def _facts(version: Version) -> dict[str, Any]:
    return {
        "bytes": version.num_bytes,
        UNIT[version.medium].replace(" ", "_"): round(version.rate, 4),
    }
