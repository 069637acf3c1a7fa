"""The checkpoint of a run: one file, which is whole at any moment."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from codec.errors import CodecError
from codec.files import writing

CHECKPOINT_NAME = "checkpoint.pt"


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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns what `write_checkpoint` wrote, on the CPU.

    Raises:
        CodecError: The file is not a whole checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CodecError(f"{path}: cannot read this checkpoint ({reason}); train again") from None
    return state
