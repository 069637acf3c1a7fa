"""The structure of files made of named chunks with sizes.

These are AIFF, CAF, Wave64, and WAV of kinds that `wav` does not decode.

Also of AU and NIST SPHERE files, which are a header and one run of sound. Sizes are taken as in
`wav`: what stands for an unknown one means all there is, and any other is believed.

Format: Apple, AIFF-C and Core Audio Format; Sony, Wave64; Sun, AU; NIST, SPHERE.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from codec.media.survey import LEFT_OUT, Part, Survey
from codec.media.wav import FORMS, is_placeholder
from codec.media.window import Window

AU_HEADER_BYTES = 24  # at least
SPHERE_HEADER_BYTES = 1024  # likewise


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a family of files lays out its chunks.

    `head` bytes stand before the first, and each begins with `name` and `size` bytes of these.
    """

    head: int
    name: int
    size: int
    order: Literal["big", "little"] = "big"
    sound: tuple[bytes, ...] = (b"data",)
    align: int = 2
    counts_itself: bool = False  # a size that includes the name and the size


RIFF = _Layout(12, 4, 4, "little")
LAYOUTS = {
    **{
        magic: replace(RIFF, order="little" if order == "<" else "big")
        for magic, order in FORMS.items()
    },
    b"FORM": _Layout(12, 4, 4, sound=(b"SSND", b"BODY")),
    b"caff": _Layout(8, 4, 8, align=1),
    b"riff": _Layout(40, 16, 8, "little", align=8, counts_itself=True),
}


def survey(window: Window) -> Survey | None:
    """Files behind one another are parts; None for a file of another family."""
    found, at = Survey(), 0
    while at < window.size:
        magic = window.read(at, 4)
        end = _READERS[magic](window, at, found) if magic in _READERS else None
        if end is None or end <= at:
            break
        padding = window.read(end, 8)  # which not all writers count in
        at = end + len(padding) - len(padding.lstrip(b"\0"))
    if not found.parts:
        return None
    left, rest = window.size - at, True
    while left > 0 and rest:
        piece = window.read(window.size - left, 1 << 20)
        rest, left = not piece.strip(b"\0"), left - len(piece)
    if not rest:
        found.say(LEFT_OUT)
    return found


def _chunked(window: Window, start: int, found: Survey) -> int | None:
    """Adds the file that begins at `start`.

    Returns where it ends, or None if there is no sound in it.
    """
    layout = LAYOUTS[window.read(start, 4)]
    head = layout.name + layout.size
    at, sound, patches = start + layout.head, False, {}
    while at < window.size and _is_name(window, at):
        body = at + head
        size = int.from_bytes(window.read(at + layout.name, layout.size), layout.order)
        size -= head if layout.counts_itself else 0
        end = body + max(size, 0)
        if not sound and window.read(at, 4) in layout.sound:
            sound = True
            # Eight bytes of a sound chunk of AIFF come before its samples.
            empty = is_placeholder(size if window.read(at, 4) != b"SSND" else size - 8) or size < 0
            unknown = (is_placeholder(size) or empty) and not (
                end == window.size or _is_name(window, end)
            )
            if unknown or end > window.size:
                found.cut |= not unknown
                end = window.size
                told = max(end - body, 0) + (head if layout.counts_itself else 0)
                patches[at + layout.name] = min(told, 256**layout.size - 1).to_bytes(
                    layout.size, layout.order
                )
        at = end + -(end - start) % layout.align
    if not sound:
        return None
    at = min(at, window.size)
    found.parts.append(Part(((start, at - start),), patches))
    return at


def _is_name(window: Window, at: int) -> bool:
    """Whether a chunk may begin here, rather than another file, or anything else."""
    name = window.read(at, 4)
    return (
        len(name) == 4
        and name not in _READERS
        and name.isascii()
        and name.decode("ascii").isprintable()
    )


def _au(window: Window, start: int, found: Survey) -> int | None:
    order: Literal["big", "little"] = "big" if window.read(start, 4) == b".snd" else "little"
    offset, size = (int.from_bytes(window.read(start + at, 4), order) for at in (4, 8))
    if offset < AU_HEADER_BYTES:
        return None
    begin = start + offset
    end = begin + size
    unknown = is_placeholder(size) and not (end < window.size and window.read(end, 4) in _READERS)
    if not unknown and end <= window.size:
        found.parts.append(Part(((start, end - start),)))
        return end
    found.cut |= not unknown
    told = min(window.size - begin, 0x7FFFFFFF) if window.size > begin else 0
    found.parts.append(Part(((start, window.size - start),), {start + 8: told.to_bytes(4, order)}))
    return window.size


def _sphere(window: Window, start: int, found: Survey) -> int | None:
    text = window.read(start, SPHERE_HEADER_BYTES)
    fields = dict(re.findall(rb"^(\w+) -i (\d+)", text, re.MULTILINE))
    try:
        names = (b"sample_count", b"channel_count", b"sample_n_bytes")
        header_bytes = int(text.split()[1])
        end = start + header_bytes + prod(int(fields[name]) for name in names)
    except (KeyError, ValueError, IndexError):
        return None
    if header_bytes < SPHERE_HEADER_BYTES:
        return None
    found.cut |= end > window.size
    found.parts.append(Part(((start, min(end, window.size) - start),)))
    return min(end, window.size)


_READERS: dict[bytes, Callable[[Window, int, Survey], int | None]] = {
    **dict.fromkeys(LAYOUTS, _chunked),
    b".snd": _au,
    b"dns.": _au,
    b"NIST": _sphere,
}
