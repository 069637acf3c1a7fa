"""Whether a file of MPEG-4 or Matroska (WebM) ends where its outermost boxes do.

Format: ISO/IEC 14496-12; RFC 8794 (EBML) and RFC 9559.
"""

from __future__ import annotations

from collections.abc import Callable

from codec.media.window import Window

EBML = b"\x1a\x45\xdf\xa3"


def is_cut(window: Window) -> bool:
    """Whether a box is longer than the file; False for files of other kinds, and where a box says no length."""
    if window.read(0, 4) == EBML:
        return _last_end(window, _element) > window.size
    return window.read(4, 4) == b"ftyp" and _last_end(window, _box) > window.size


def _last_end(window: Window, measure: Callable[[Window, int], int]) -> int:
    """Where the outermost boxes end."""
    at = 0
    while at < window.size:
        length = measure(window, at)
        if length == 0:
            return window.size
        at += length
    return at


def _box(window: Window, at: int) -> int:
    size = int.from_bytes(window.read(at, 4), "big")
    return int.from_bytes(window.read(at + 8, 8), "big") if size == 1 else size


def _element(window: Window, at: int) -> int:
    """Length of an element: a name and a size, whose first bits say how long they are, and a body."""
    head = window.read(at, 12)
    if not head or not head[0]:
        return 0
    name = 9 - head[0].bit_length()
    if len(head) <= name or not head[name]:
        return 0
    length = 9 - head[name].bit_length()
    size = int.from_bytes(head[name : name + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else name + length + size
