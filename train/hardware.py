"""What a run trains on, as its card says it."""

from __future__ import annotations

import torch

from train import parallel

THEN = ", then "  # between the parts of a run that went on somewhere else


def joined(before: str, now: str) -> str:
    """Returns what a run was trained on so far, with what it goes on on, if that is another."""
    return before if before.split(THEN)[-1] == now else f"{before}{THEN}{now}"


def hardware(device: str) -> str:
    """Returns what a run trains on, as its card says it: the device, times the processes."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    return name if parallel.world() == 1 else f"{parallel.world()} x {name}"
