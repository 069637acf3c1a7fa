"""What a recording's file holds, from its structure.

It has parts, may be cut short, and may hold something else.

Decoders keep silent about this. They stop at the first link of a chain, at the end of a file that
was cut, and skip what is damaged.

    file ─survey─> parts, each a file by itself ─decoder─> blocks
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from codec.files import temporary

DAMAGED = "the recording is damaged: what is lost within it is left out"
SEVERAL = "several recordings in one file: only the first is coded"
LEFT_OUT = "what lies behind the recording is no sound that its header tells of: left out"


@dataclass(frozen=True, slots=True)
class Part:
    """One recording within a file.

    Attributes:
        segments: Where its bytes lie, (offset, length) each.
        patches: Offset in the file -> bytes to be read in the place of those there: sizes that do
            not hold.
        whole_end: Its last frame is there as a whole, or is not; None where a file of its kind does
            not tell.
    """

    segments: tuple[tuple[int, int], ...]
    patches: Mapping[int, bytes] = field(default_factory=dict)
    whole_end: bool | None = None


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        parts: In their order; empty if the structure is unknown or not to be made out.
        cut: The last part ends too early; or one before it.
        notices: What is to be said about the rest.
    """

    parts: list[Part] = field(default_factory=list)
    cut: bool = False
    notices: list[str] = field(default_factory=list)

    def say(self, notice: str) -> None:
        """Adds a notice, once."""
        if notice not in self.notices:
            self.notices.append(notice)


@contextmanager
def on_disk(file: BinaryIO, part: Part, size: int) -> Iterator[BinaryIO]:
    """A part of a file of `size` bytes as a file of its own, which has a descriptor."""
    try:
        file.fileno()
    except OSError:  # in memory
        pass
    else:
        if part.segments == ((0, size),) and not part.patches:
            yield file
            return
    with temporary() as copy:
        _copy(file, part, copy)
        yield copy


def _copy(file: BinaryIO, part: Part, copy: BinaryIO) -> None:
    starts = {}
    for offset, length in part.segments:
        starts[offset] = copy.tell()
        file.seek(offset)
        left = length
        while left > 0 and (piece := file.read(min(left, 1 << 20))):
            copy.write(piece)
            left -= len(piece)
    for offset, patch in part.patches.items():
        for start, length in part.segments:
            if start <= offset < start + length:
                copy.seek(starts[start] + offset - start)
                copy.write(patch)
