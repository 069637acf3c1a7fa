"""The two files of a model, which every command that makes one writes alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from codec.cards import Tensors
from codec.files import writing


def write_model(folder: Path, name: str, card: Mapping[str, Any], tensors: Tensors) -> Path:
    """Writes NAME.safetensors and NAME.json, in the place of what was there.

    Neither takes its name before both are complete: a card goes with its own weights alone.

    Args:
        folder: Receives them.
        name: The model's.
        card: What the card says, as `codec.cards` reads it.
        tensors: Weights, codebooks, tables and priors by their names in the file.

    Returns:
        The path of the card.

    Raises:
        OSError: They cannot be written.
    """
    target = folder / f"{name}.json"
    with (
        writing(str(target), force=True) as text,
        writing(str(folder / f"{name}.safetensors"), force=True) as weights,
    ):
        weights.write(save(tensors))
        text.write((json.dumps(card, indent=1) + "\n").encode())
    return target
