"""What a run trains on, as its card says it."""

from __future__ import annotations

import torch

from train import parallel

THEN = ", then "  # between the parts of a run that went on somewhere else
ONE, FORMERLY = "CPU, 1 thread", "CPU, 1 threads"  # how one thread is told, and once was


def joined(before: str, now: str) -> str:
    """Returns what a run was trained on so far, with what it goes on on, if that is another."""
    before = told(before)
    return before if before.split(THEN)[-1] == now else f"{before}{THEN}{now}"


def told(hardware: str) -> str:
    """Returns what `hardware` says today, of what it or its former wording said."""
    return hardware.replace(FORMERLY, ONE)


def named(hardware: str) -> str:
    """Returns the former wording, by which finished runs are known."""
    return told(hardware).replace(ONE, FORMERLY)


def hardware(device: str) -> str:
    """Returns what a run trains on, as its card says it: the device, times the processes."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        count = torch.get_num_threads()
        name = f"CPU, {count} thread{'' if count == 1 else 's'}"
    return name if parallel.world() == 1 else f"{parallel.world()} x {name}"
