"""Where a run keeps its files, below the folder that `--out` names.

OUT/files/SYSTEM/SETTING/SET/ITEM                    what each system made of each item
OUT/samples/SET/ITEM/SYSTEM SETTING.png|flac         what some of these decode to
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

MAX_NAME = 150  # bytes of a file's name; longer ones end in a hash


def file_path(folder: Path, system: str, setting: str, set_name: str, item: str) -> Path:
    """Returns the path at which a run keeps the file that a system made of an item."""
    return folder.joinpath("files", *map(flat_name, (system, setting, set_name, item)))


def sample_path(folder: Path, set_name: str, item: str, label: str, suffix: str) -> Path:
    """Returns the path at which a run keeps what came out of a system for an item."""
    return folder.joinpath("samples", *map(flat_name, (set_name, item))) / (
        f"{flat_name(label)}.{suffix}"
    )


def flat_name(name: str) -> str:
    """Returns a name that can be one part of a path, and another one for every name."""
    flat = quote(name, safe=" @,+=()") or "%"
    if flat.startswith("."):
        flat = f"%2E{flat[1:]}"
    if len(flat) > MAX_NAME:
        flat = f"{flat[:MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return flat
