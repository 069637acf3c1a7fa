"""What whole commands take of the machine: at the start, and as the work grows."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from codec.errors import CodecError
from eval.bench.material import fits, make_media

ROOT = Path(__file__).parents[2]
SPEECH_S = (1, 60, 600, 3600)
MEGAPIXELS = (0.1, 1, 12, 50)
STARTS = {
    "import torch": ("-c", "import torch"),
    "--help": ("-m", "codec.compress", "--help"),
    "codec.load": ("-c", "import codec; codec.load('speech-fsp')"),
    "compress 1 s": ("-m", "codec.compress", "-qf", "one.wav", "one.bin"),
    "decompress 1 s": ("-m", "codec.decompress", "-qf", "one.bin", "again.wav"),
    "compress 256^2": ("-m", "codec.compress", "-qf", "one.bmp", "one.bmp.bin"),
    "decompress 256^2": ("-m", "codec.decompress", "-qf", "one.bmp.bin", "again.png"),
}
# A process's peak begins with that of the one that started it, so a small one starts the measured
# command.
LAUNCHER = """
import os, sys, time
start, quiet = time.perf_counter(), [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
started = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(started, 0)
seconds = used.ru_utime + used.ru_stime, time.perf_counter() - start
print(os.waitstatus_to_exitcode(status), *seconds, used.ru_maxrss / 1024)
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a command took of the machine."""

    cpu_s: float
    clock_s: float
    peak_mib: float


def spend(arguments: Iterable[object], folder: Path, tree: Path, threads: int) -> Spent:
    """Runs Python with these arguments, on a checkout's packages.

    Raises:
        CodecError: The command failed.
    """
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *map(str, arguments)]
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(
        launcher, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    code, cpu_s, clock_s, peak_mib = map(float, done.stdout.split())
    if code:
        raise CodecError(
            f"{' '.join(command)}: failed with exit code {code:.0f}; its message is above"
        )
    return Spent(cpu_s, clock_s, peak_mib)


def startup(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Medians over the turns.

    With `--against` also of the ratio other / this of neighbouring turns.
    """
    made = make_media(options.data, folder, (1,), (256 * 256 / 1e6,))
    for path in made.values():
        path.rename(folder / f"one{path.suffix}")
    rows = {}
    for label, arguments in STARTS.items():
        trees = [tree for tree in (ROOT, options.against) if tree]
        turns = [
            [spend(arguments, folder, tree, options.threads) for tree in trees]
            for _ in range(options.turns)
        ]
        rows[label] = row = {
            name: median(getattr(turn[0], name) for turn in turns) for name in Spent.__slots__
        }
        ratio = ""
        if options.against:
            row["other_cpu"] = median(turn[1].cpu_s / turn[0].cpu_s for turn in turns)
            row["other_peak"] = median(turn[1].peak_mib / turn[0].peak_mib for turn in turns)
            ratio = (
                f"; the other takes {row['other_cpu']:.2f} x the CPU time and "
                f"{row['other_peak']:.2f} x the memory"
            )
        print(
            f"{label:16} {row['cpu_s']:6.2f} CPU s {row['clock_s']:6.2f} s {row['peak_mib']:6.0f} "
            f"MiB{ratio}",
            flush=True,
        )
    return rows


def scaling(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures the CPU seconds per unit and the peak memory of both commands.

    The seconds of the smallest file are nearly all the start's, so that a unit is what a larger one
    takes beyond it: more seconds over more units. With `--against` each file goes through both
    checkouts in turn, and there is also the ratio other / this.
    """
    made = make_media(options.data, folder, SPEECH_S, MEGAPIXELS)
    trees = [tree for tree in (ROOT, options.against) if tree]
    rows: dict[str, Any] = {}
    for name in options.models:
        first: tuple[float, list[dict[str, Spent]]] | None = None
        for label, path in made.items():
            if not fits(name, label):
                continue
            seconds = label.endswith(" s")
            units = float(label.split()[0]) / (60 if seconds else 1)
            load = os.getloadavg()[0]
            turn = [_there_and_back(path, name, folder, tree, options.threads) for tree in trees]
            first = first or (units, turn)
            row = {
                way: _growth(
                    [one[way] for one in turn], units, first[0], [o[way] for o in first[1]]
                )
                for way in turn[0]
            }
            rows[f"{name} {label}"] = {"load": load, **row}
            unit = "minute" if seconds else "megapixel"
            shown = ", ".join(f"{way} {_grown(row[way], unit)}" for way in turn[0])
            print(f"{name:12} {label:8} {shown}", flush=True)
    return rows


def _there_and_back(
    path: Path, model: str, folder: Path, tree: Path, threads: int
) -> dict[str, Spent]:
    """Runs both commands of a checkout on a file."""
    packed = folder / "packed.bin"
    restored = folder / f"restored.{'wav' if path.suffix == '.wav' else 'png'}"
    return {
        way: spend(("-m", f"codec.{way}", "-qf", *words), folder, tree, threads)
        for way, words in (
            ("compress", (path, packed, "-m", model)),
            ("decompress", (packed, restored)),
        )
    }


def _growth(
    turn: list[Spent], units: float, first_units: float, first: list[Spent]
) -> dict[str, Any]:
    """Returns the figures of a command on a file, of this checkout and beside another.

    Args:
        turn: What it took in each checkout, this one first.
        units: The file's minutes or megapixels.
        first_units: Those of the smallest file.
        first: What that took.
    """
    found: list[dict[str, Any]] = [
        dataclasses.asdict(spent)
        | {
            "cpu_s_per_unit": (spent.cpu_s - least.cpu_s) / (units - first_units)
            if units > first_units
            else None  # there is nothing below it
        }
        for spent, least in zip(turn, first, strict=True)
    ]
    if len(turn) > 1:
        found[0] |= {
            "other": found[1],
            "other_cpu": turn[1].cpu_s / turn[0].cpu_s,
            "other_peak": turn[1].peak_mib / turn[0].peak_mib,
        }
    return found[0]


def _grown(row: dict[str, Any], unit: str) -> str:
    """Returns the figures of `_growth` as text."""
    pace = row["cpu_s_per_unit"]
    text = f"{row['cpu_s']:.2f} CPU s" if pace is None else f"{pace:.3f} CPU s a {unit}"
    text += f" in {row['peak_mib']:.0f} MiB"
    if "other" in row:
        text += (
            f" (the other takes {row['other_cpu']:.2f} x the CPU time and "
            f"{row['other_peak']:.2f} x the memory)"
        )
    return text
