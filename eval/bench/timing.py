"""Seconds, bytes and ratios of two ways to do the same work.

They take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from codec.files import writing

Step = Callable[[], object]
Figures = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What a benchmark is asked to do.

    Attributes:
        tokens: The number of tokens, or rows.
        dims: The dimensions of the latents.
        sizes: The codebook sizes.
        turns: How often each way is timed.
        device: "cpu" or "cuda".
    """

    tokens: int
    dims: tuple[int, ...]
    sizes: tuple[int, ...]
    turns: int
    device: str


def compare(
    first: Step, second: Step, turns: int, device: str, warm: int = 3
) -> tuple[float, float, float]:
    """Times two steps in turns.

    Returns:
        The median seconds of both, and the median ratio first / second of neighbouring turns.
    """
    for _ in range(warm):
        first()
        second()
    a, b = [], []
    for _ in range(turns):
        a.append(seconds(first, device))
        b.append(seconds(second, device))
    return median(a), median(b), median(x / y for x, y in zip(a, b, strict=True))


def compare_part(
    ours: Step, theirs: Step, part: float, name: str, options: Options
) -> tuple[Figures, list[float]]:
    """Compares our step with another that is too large to be done whole.

    Args:
        ours: Our step, of all tokens.
        theirs: The other, of the first tokens alone.
        part: Number of all tokens over the number of theirs.
        name: What the figures call the other.
        options: What the benchmark was asked to do.

    Returns:
        Seconds, ratios of seconds and memory, and the number of tokens that the other was timed
        with; then the bytes that ours and theirs take. The other's seconds and bytes are those of
        its part, times `part`.
    """
    their_s, our_s, ratio = compare(theirs, ours, options.turns, options.device, warm=1)
    memory = [peak_bytes(ours, options.device), part * peak_bytes(theirs, options.device)]
    figures = {
        "ours_s": our_s,
        f"{name}_s": their_s * part,
        f"{name}_tokens": round(options.tokens / part),
        "ratio": ratio * part,
        "memory_ratio": memory[1] / max(memory[0], 1),
    }
    return figures, memory


def seconds(step: Step, device: str) -> float:
    """Returns how many seconds one call takes.

    With one thread on a CPU it is the processor's time, so that other programs do not count.
    """
    clock = (
        time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    )
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def timed(work: Callable[[], T], device: str) -> tuple[T, float]:
    """Returns what one call returns, and how many seconds it took."""
    found: list[T] = []
    taken_s = seconds(lambda: found.append(work()), device)
    return found[0], taken_s


def peak_bytes(step: Step, device: str) -> float:
    """Returns the bytes that one call takes at its worst; NaN where nobody counts them."""
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    if platform.system() != "Linux":
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not serve this call unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    resident = _resident("VmRSS")
    step()
    return _resident("VmHWM") - resident


def _resident(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024.0 * int(line.split()[1])
    return float("nan")


def machine(device: str) -> Figures:
    """Describes the machine that the figures were measured on."""
    name = _processor() if device == "cpu" else torch.cuda.get_device_name()
    threads = {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    return {
        "device": name,
        **threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Names the processor and its instruction set, as platform's "x86_64" says little."""
    names = [platform.processor() or platform.machine()]
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        ] or names
    return f"{names[0]}, {torch.backends.cpu.get_cpu_capability()}"


def save(path: Path, figures: Figures) -> None:
    """Writes figures as JSON, whole or not at all; what is not a number becomes null."""
    with writing(str(path), force=True) as file:
        file.write((json.dumps(_known(figures), indent=1, allow_nan=False) + "\n").encode())


def _known(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {key: _known(value) for key, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [_known(value) for value in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


def changes(old: Figures, new: Figures, path: str = "") -> Iterator[tuple[str, float, float]]:
    """Yields (name, old value, new value) of every ratio and share that both hold."""
    for key in old.keys() & new.keys():
        a, b, name = old[key], new[key], f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            yield from changes(a, b, f"{name}.")
        elif (
            isinstance(a, int | float)
            and isinstance(b, int | float)
            and key.split("_")[-1] in ("ratio", "share")
        ):
            yield name, a, b
