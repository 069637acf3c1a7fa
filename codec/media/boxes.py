"""The outermost structure of files that only PyAV reads.

It tells whether they are cut short, and whether one lies behind another.

Format: ISO/IEC 14496-12 (MPEG-4); RFC 8794 and 9559 (Matroska, WebM); Microsoft RIFF (AVI); ISO/IEC
13818-1.
"""

from __future__ import annotations

from codec.media.survey import Survey
from codec.media.window import Window

EBML = b"\x1a\x45\xdf\xa3"
SEGMENT, VOID = b"\x18\x53\x80\x67", b"\xec"
PACKET, PACKET_BYTES = b"\x47", 188  # of an MPEG transport stream


def survey(window: Window) -> Survey:
    """Says nothing of files of other kinds, and where a box does not tell its length."""
    head = window.read(0, 12)
    if head[4:8] == b"ftyp":
        return _boxes(window)
    if head.startswith(EBML):
        return Survey(cut=_end_of_elements(window) > window.size)
    if head.startswith(b"RIFF"):
        return Survey(cut=8 + int.from_bytes(head[4:8], "little") > window.size)
    if head.startswith(PACKET) and window.read(PACKET_BYTES, 1) == PACKET:
        return Survey(cut=window.size % PACKET_BYTES != 0)
    return Survey()


def _boxes(window: Window) -> Survey:
    found, at = Survey(), 0
    while at < window.size:
        head = window.read(at, 16)
        if len(head) < 8 or not head[4:8].isascii() or not head[4:8].decode("ascii").isprintable():
            break
        if at and head[4:8] == b"ftyp":
            found.say("several recordings in one file: only the first is coded")
            break
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if size < 8:  # 0: up to the end
            break
        at += size
    found.cut = at > window.size
    return found


def _end_of_elements(window: Window) -> int:
    """Each has a name and a size, whose first bits say how long they are, and a body."""
    at = 0
    while at < window.size:
        head = window.read(at, 12)
        if not head.startswith((EBML, SEGMENT, VOID)):
            break
        name = 9 - head[0].bit_length()
        if len(head) <= name or not head[name]:
            break
        length = 9 - head[name].bit_length()
        size = int.from_bytes(head[name : name + length], "big") & ((1 << 7 * length) - 1)
        if size == (1 << 7 * length) - 1:  # not known
            break
        at += name + length + size
    return at
