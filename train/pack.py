"""A finished run in one archive, which may be no larger than what carries it allows."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from codec.errors import CodecError
from codec.files import writing
from train.beginning import ADVERSARY_SUFFIX
from train.log import LOG_NAME, read

PACKED_LOG_LINES = 300  # of each log in a pack, spread evenly; the last is kept


def pack(models: Path, name: str, folder: Path, out: Path, limit_mib: float) -> list[str]:
    """Writes OUT/NAME.tar of a run: model, card, log, discriminator.

    The discriminator is left out where the archive would be above the limit.

    Raises:
        CodecError: The model alone is larger than the limit.
    """
    records = read(folder / LOG_NAME)
    count = min(len(records), PACKED_LOG_LINES)
    kept = [records[i] for i in np.linspace(0, len(records) - 1, count).round().astype(int)]
    parts = [
        (suffix, (models / f"{name}{suffix}").read_bytes()) for suffix in (".json", ".safetensors")
    ]
    parts.append((".log.jsonl", "".join(f"{json.dumps(record)}\n" for record in kept).encode()))
    limit = limit_mib * 2**20
    contents = [content for _, content in parts]
    if (total := _tar_size(contents)) > limit:
        raise CodecError(
            f"{name}: {total / 2**20:.1f} MiB are more than --pack-mib {limit_mib:g}; raise it"
        )
    adversary = models / f"{name}{ADVERSARY_SUFFIX}"
    if adversary.is_file():
        contents.append(adversary.read_bytes())
        if _tar_size(contents) <= limit:
            parts.append((ADVERSARY_SUFFIX, contents[-1]))
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for suffix, content in parts:
            info = tarfile.TarInfo(name + suffix)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with writing(str(out / f"{name}.tar"), force=True) as file:
        file.write(memory.getbuffer())
    return [name + suffix for suffix, _ in parts]


def _tar_size(contents: Iterable[bytes]) -> int:
    """Returns the bytes of an archive of these files: blocks, two that end it, whole records."""
    blocks = 2 + sum(1 + -(-len(content) // tarfile.BLOCKSIZE) for content in contents)
    return tarfile.RECORDSIZE * -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE)
