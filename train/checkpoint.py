"""The checkpoint of a run: one file, which is whole at any moment."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.errors import CodecError, out_of_memory
from codec.files import writing

CHECKPOINT_NAME = "checkpoint.pt"
# What every version has written. What came later may be missing, and is asked for where it is used.
PARTS: dict[str, type] = {
    "recipe": str,
    "codec": dict,
    "average": dict,
    "optimiser": dict,
    "size_losses": Tensor,
    "clock": list,
}
CLOCK_VALUES = 4  # step, seconds, stage, seed


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint; it takes the place of the one before when it is complete.

    Raises:
        OSError: It cannot be written.
    """
    # `torch.save` into a file tells a full disk as a RuntimeError without a name.
    memory = io.BytesIO()
    torch.save(dict(state), memory)
    with writing(str(path), force=True) as file:
        file.write(memory.getbuffer())


def check_run(folder: Path) -> None:
    """Raises CodecError where a folder holds no checkpoint."""
    if not (folder / CHECKPOINT_NAME).exists():
        raise CodecError(
            f"{folder}: no run here (there is no {CHECKPOINT_NAME}); "
            "name a folder that python -m train wrote"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns what `write_checkpoint` wrote, on the CPU.

    Raises:
        CodecError: There is none, or the file is not a whole checkpoint of a training.
    """
    check_run(path.parent)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # Bytes of another kind may do anything in torch's unpickler: it raises whatever follows.
    except Exception as error:
        if out_of_memory(error):
            raise
        raise CodecError(
            f"{path}: cannot read this checkpoint ({_reason(error)}); train again"
        ) from None
    if not _is_run(state):
        raise CodecError(f"{path}: not a checkpoint of a training; name a run's folder")
    whole: dict[str, Any] = state
    return whole


def _reason(error: Exception) -> str:
    """Returns why torch cannot read a file, in a few words.

    Most of what torch says is advice to read it without `weights_only`, which would run whatever
    code a file brings.
    """
    text = (error.strerror if isinstance(error, OSError) else str(error)) or ""
    if not isinstance(error, OSError | RuntimeError | EOFError) or "weights_only" in text:
        text = ""
    return text.strip().partition("\n")[0] or type(error).__name__


def _is_run(state: object) -> bool:
    if not isinstance(state, dict):
        return False
    if not all(isinstance(state.get(name), kind) for name, kind in PARTS.items()):
        return False
    try:
        recipe = json.loads(state["recipe"])
    except ValueError:
        return False
    return isinstance(recipe, dict) and len(state["clock"]) == CLOCK_VALUES
