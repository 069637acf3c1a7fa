"""The journal of a run: a line of JSON for each finished item.

A first line says what the run measures.

A run that is killed leaves at most one torn line, which the next run drops; the items of whole
lines are never measured again. Tokens stand in a line as text (`pack_tokens`).
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from codec.errors import MediaError
from codec.files import blaming
from train.alone import lock

Record = dict[str, Any]
JOURNAL = "journal.jsonl"


@dataclass
class Journal:
    """The finished items of a run.

    Attributes:
        header: What the run measures, see `eval.plan.header_of`.
        lines: A line for each item, by the names of its set and of itself.
        file: Open for appending; None where the journal is only read.
    """

    header: Record
    lines: dict[tuple[str, str], Record] = field(default_factory=dict)
    file: TextIO | None = None

    def append(self, line: Record) -> None:
        """Adds the line of an item, and returns when it is on the disk."""
        assert self.file is not None
        text = json.dumps(line)
        self.file.write(text + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.lines[line["set"], line["item"]] = json.loads(text)


@contextmanager
def open_journal(folder: Path, header: Record, fresh: bool = False) -> Iterator[Journal]:
    """Opens the journal of a run for this process alone.

    It holds what an earlier run of the same plan left, without a torn last line.

    Args:
        folder: The output folder, which need not be there.
        header: What the run measures.
        fresh: Whether to begin anew, whatever is there.

    Raises:
        CodecError: Another run is writing there, or the folder holds a run of another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JOURNAL
    # What could not be written is tried again when the file is closed.
    with blaming(str(path)), path.open("a+", encoding="utf-8") as file:
        lock(file.fileno(), folder)
        if fresh:
            file.truncate(0)
        journal = _read(path, header)
        whole = sum(
            len(part)
            for part in path.read_bytes().splitlines(keepends=True)
            if part.endswith(b"\n")
        )
        file.truncate(whole)
        journal.file = file
        if not whole:
            file.write(json.dumps(header) + "\n")
            file.flush()
        yield journal


def _read(path: Path, header: Record | None) -> Journal:
    try:
        lines = [
            line
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
            if line.endswith("\n")
        ]
        parsed = [dict(json.loads(line)) for line in lines]
        found: Record = parsed[0] if parsed else header or {}
        journal = Journal(found, {(line["set"], line["item"]): line for line in parsed[1:]})
    except (ValueError, KeyError, TypeError) as error:
        raise MediaError(f"{path}: damaged journal ({error}); start again with --fresh") from None
    if header is not None and found != header:
        changed = (
            sorted(k for k in {*found, *header} if found.get(k) != header.get(k)) if found else []
        )
        raise MediaError(
            f"{path.parent} holds a run of another plan ({', '.join(changed)} differ); "
            "give another --out, or start again with --fresh"
        )
    return journal


def read_journal(folder: Path) -> Journal:
    """Reads the journal of a run.

    Raises:
        MediaError: There is none.
    """
    path = folder / JOURNAL
    if not path.is_file():
        raise MediaError(f"{folder}: no run here (there is no journal.jsonl)")
    return _read(path, None)


def pack_tokens(indices: NDArray[np.int64]) -> str:
    """Turns (G, n) tokens into text: their shape, then compressed 32-bit numbers in base 64."""
    shape = ",".join(map(str, indices.shape))
    return f"{shape} {base64.b64encode(zlib.compress(indices.astype('<u4').tobytes(), 9)).decode()}"


def unpack_tokens(text: str) -> NDArray[np.int64]:
    """Turns the text of `pack_tokens` into (G, n) tokens."""
    shape, packed = text.split()
    values = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<u4")
    return values.reshape([int(n) for n in shape.split(",")]).astype(np.int64)
