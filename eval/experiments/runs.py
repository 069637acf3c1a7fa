"""Resumable runs: each writes one JSON when it is finished, and is never repeated while that file
is there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

from codec.bottlenecks.parts import NotFiniteError
from codec.errors import CodecError
from codec.files import writing
from train.budget import Budget
from train.checkpoint import CHECKPOINT_NAME

Record = dict[str, Any]
T = TypeVar("T", str, int)


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; None where the experiment has its own default.

    Attributes:
        out: Folder for runs, tables and pictures.
        redraw: Folder of finished runs, of which tables and pictures are made without training; or
            None.
        data: Folders that hold the packs, or data in torchvision's layout.
        seeds: The number of seeds, which are counted from 0.
        epochs, minutes, steps: The budget of each run; at most one of them is given.
        small: Reduced size, for a CPU.
        methods, datasets: Only these.
        sizes: Only these codebook sizes K.
        learning_rate: Replaces the paper's.
        lpips_backbone: A file with LPIPS's backbone; None measures pictures without LPIPS, and
            trains only with losses that do without.
        device: "cpu" or "cuda".
    """

    out: Path
    redraw: Path | None = None
    data: tuple[Path, ...] = ()
    seeds: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    steps: int | None = None
    small: bool = False
    methods: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    sizes: tuple[int, ...] | None = None
    learning_rate: float | None = None
    lpips_backbone: Path | None = None
    device: str = "cpu"

    def budget(self, steps_per_epoch: int, epochs: float) -> Budget:
        """Returns the budget of one run: what was asked for, or else `epochs` epochs."""
        if self.minutes is not None or self.steps is not None:
            return Budget(self.minutes, self.steps)
        return Budget(steps=max(1, round((self.epochs or epochs) * steps_per_epoch)))

    def choose(self, kind: str, known: Iterable[T]) -> list[T]:
        """Returns those of the known values that the command line asks for; all, if it names none.

        Args:
            kind: "methods", "datasets" or "sizes".
            known: All values of this kind.

        Raises:
            CodecError: One that is asked for is not known.
        """
        known = list(known)
        asked = getattr(self, kind) or known
        if unknown := [name for name in asked if name not in known]:
            raise CodecError(
                f"no {kind} {', '.join(map(str, unknown))} to run; choose from "
                f"{', '.join(map(str, known))}"
            )
        return [name for name in known if name in asked]


def finished(folder: Path, keys: Iterable[str], known: Iterable[str]) -> list[Record]:
    """Returns the finished runs of a folder, in the order of their files' names.

    Args:
        folder: The folder of the runs' files.
        keys: The settings that must be the same in all of them.
        known: The names of the rows that are wanted.

    Returns:
        What `run_once` wrote of each: "label", "settings", "minutes" and "result".

    Raises:
        CodecError: There is none, or one cannot be read, or two differ in one of the settings.
    """
    wanted = set(known)
    found = map(_read, sorted(folder.glob("*.json")))
    records = [record for record in found if record["settings"].get("name") in wanted]
    if not records:
        raise CodecError(f"{folder}: no finished runs to redraw")
    check_alike(folder, records, keys)
    return records


def _read(path: Path) -> Record:
    """Reads what `run_once` wrote.

    Raises:
        CodecError: It is something else, or damaged.
    """
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record["settings"], dict) and isinstance(record["result"], dict):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CodecError(f"{path}: not a finished run of this program; remove it")


def check_alike(folder: Path, records: Iterable[Record], keys: Iterable[str]) -> None:
    """Checks that runs, which stand in one table, have the same of some settings.

    Args:
        folder: The folder of the runs, for the message.
        records: What `finished` returned, or a part of it.
        keys: The settings.

    Raises:
        CodecError: Two differ in one.
    """
    for key in keys:
        if len({json.dumps(r["settings"][key], sort_keys=True) for r in records}) > 1:
            raise CodecError(f"{folder}: runs of more than one {key}; keep those of one")


def check_seeds(folder: Path, records: Iterable[Record]) -> None:
    """Checks that runs of one name, which stand in one row, differ in their seed alone.

    They may have run on different machines.

    Args:
        folder: The folder of the runs, for the message.
        records: What `finished` returned.

    Raises:
        CodecError: Two have one seed, or differ in another setting.
    """
    rows: dict[str, dict[int, Record]] = {}
    for record in records:
        settings = {k: v for k, v in record["settings"].items() if k not in ("seed", "hardware")}
        name, seed = record["label"].rpartition("-seed")[0], int(record["settings"]["seed"])
        row = rows.setdefault(name, {})
        if seed in row:
            raise CodecError(f"{folder}: two runs of {name} with seed {seed}; keep one")
        first = next(iter(row.values()), settings)
        if settings != first:
            keys = sorted({*settings, *first})
            unlike = ", ".join(k for k in keys if settings.get(k) != first.get(k))
            raise CodecError(f"{folder}: runs of {name} differ in {unlike}; keep those of one")
        row[seed] = settings


def run_once(folder: Path, label: str, settings: Record, work: Callable[[Path], Record]) -> Record:
    """The result of `work(scratch)`, or of the finished run with the same settings.

    The file's name holds a hash of the settings, so that runs at several budgets live side by side;
    it appears only when the run is complete, and its checkpoint goes then. A run that diverges is
    complete, too: its result says "failed" and why, and the table goes on without it.

    Args:
        folder: The folder of all runs' files.
        label: What the file's name begins with, for people.
        settings: Everything that decides the run's result, as plain JSON data.
        work: Does the run and returns plain JSON data. Its argument is the path of a folder of its
            own, which is not there yet.

    Raises:
        CodecError: The file of the finished run is damaged.
    """
    path = folder / f"{label}-{_digest(settings)}.json"
    if path.is_file():
        print(f"{label}: finished before, {path.name}", flush=True)
        return dict(_read(path)["result"])
    print(f"{label}: running", flush=True)
    start, scratch = time.monotonic(), path.with_suffix("")
    try:
        result = work(scratch)
    except NotFiniteError as error:
        print(f"{label}: failed, {error}", flush=True)
        result = {"failed": 1, "reason": str(error)}
    record = {
        "label": label,
        "settings": settings,
        "minutes": (time.monotonic() - start) / 60,
        "result": result,
    }
    write(path, json.dumps(record, indent=1) + "\n")
    (scratch / CHECKPOINT_NAME).unlink(missing_ok=True)  # gigabytes, over a whole table
    return result


def _digest(settings: Record) -> str:
    """Returns the hash by which runs with these settings are known."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all, in a folder that need not be there."""
    with writing(str(path), force=True) as file:
        file.write(text.encode())


def mean_std(values: Iterable[float | None]) -> tuple[float, float | None] | None:
    """Returns mean and sample standard deviation (n - 1) of the values that are known.

    One value has no deviation; of none there is nothing.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return fmean(known), stdev(known) if len(known) > 1 else None


def seeds(records: list[Record]) -> str:
    """Returns how many runs a row's figures are of: "3", or "2 of 3" where one failed."""
    good = sum("failed" not in record for record in records)
    return f"{good}" if good == len(records) else f"{good} of {len(records)}"


def aggregate(records: list[Record]) -> dict[str, tuple[float, float | None]]:
    """Returns `mean_std` over runs, of every number that some run has."""
    names = dict.fromkeys(k for r in records for k, v in r.items() if isinstance(v, int | float))
    summary = {name: mean_std(r.get(name) for r in records) for name in names}
    return {name: value for name, value in summary.items() if value is not None}
