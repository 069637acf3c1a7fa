"""The outermost structure of files that only PyAV reads.

It tells whether they are cut short, and where another begins behind one.

Format: ISO/IEC 14496-12 (MPEG-4); RFC 8794 and 9559 (Matroska, WebM); Microsoft RIFF (AVI), ASF;
ISO/IEC 13818-1 (MPEG transport streams); Adobe, FLV; WavPack 4; True Audio; RFC 4867 (AMR).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from codec.media.mp4 import check_counts, is_mp4
from codec.media.survey import Part, Survey
from codec.media.wav import is_placeholder
from codec.media.window import Window

EBML = b"\x1a\x45\xdf\xa3"
SEGMENT, VOID, DOCTYPE = b"\x18\x53\x80\x67", b"\xec", b"\x42\x82"
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
PACKET, PACKET_BYTES = b"\x47", 188  # of an MPEG transport stream
WAVPACK_HEAD = 32  # bytes
INITIAL = 0x800  # a flag of a WavPack block: the first of those that hold the same samples


@dataclass(frozen=True, slots=True)
class _Kind:
    """How files of one kind begin and end.

    Attributes:
        magic: Bytes near their beginning.
        begins: Tells from the first 64 bytes whether a file begins there.
        end: Where the file that begins at an offset ends, as far as its structure tells; behind the
            end of what is there if it is cut short.
        offset: Of `magic`.
    """

    magic: bytes
    begins: Callable[[bytes], bool]
    end: Callable[[Window, int], int]
    offset: int = 0


def survey(window: Window) -> Survey:
    """Says nothing of files of other kinds, and where a box does not tell its length.

    Raises:
        MediaError: The file asks for more memory than its size can be worth.
    """
    head = window.read(0, 64)
    if is_mp4(window):
        check_counts(window)
    for kind in _KINDS:
        if kind.begins(head):
            return _files(window, kind)
    if head.startswith(b"RIFF"):
        return Survey(cut=_end_of_chunk(window, 0) > window.size)
    if head.startswith(PACKET) and window.read(PACKET_BYTES, 1) == PACKET:
        return Survey(cut=window.size % PACKET_BYTES != 0)
    return Survey()


def _files(window: Window, kind: _Kind) -> Survey:
    """A part for each file of a row."""
    starts = [0]
    while (end := kind.end(window, starts[-1])) < window.size:
        at = window.find(kind.magic, max(end, starts[-1] + 1) + kind.offset)
        while at >= 0 and not kind.begins(window.read(at - kind.offset, 64)):
            at = window.find(kind.magic, at + 1)
        if at < 0:
            break
        starts.append(at - kind.offset)
    ends = [*starts[1:], window.size]
    parts = [Part(((start, stop - start),)) for start, stop in zip(starts, ends, strict=True)]
    return Survey(parts, cut=end > window.size)


def _end_of_boxes(window: Window, start: int) -> int:
    """Of MPEG-4: boxes with their sizes and names, up to the next file."""
    at = start
    while at < window.size:
        head = window.read(at, 16)
        if len(head) < 8 or not head[4:8].isascii() or not head[4:8].decode("ascii").isprintable():
            break
        if at > start and head[4:8] == b"ftyp":
            break
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if size == 0:  # up to the end
            return window.size
        if size < 8:
            break
        at += size
    return at


def _end_of_elements(window: Window, start: int) -> int:
    """Of Matroska: elements have a name and a size, whose first bits say how long they are."""
    at = start
    while at < window.size:
        head = window.read(at, 12)
        if not head.startswith((EBML, SEGMENT, VOID)) or (at > start and head.startswith(EBML)):
            break
        name = 9 - head[0].bit_length()
        if len(head) <= name or not head[name]:
            break
        length = 9 - head[name].bit_length()
        size = int.from_bytes(head[name : name + length], "big") & ((1 << 7 * length) - 1)
        if size == (1 << 7 * length) - 1:  # not known
            return at + name + length
        at += name + length + size
    return at


def _end_of_chunk(window: Window, start: int) -> int:
    """Of AVI. A long one goes on in chunks of another name."""
    size = int.from_bytes(window.read(start + 4, 4), "little")
    return start + 8 + (0 if is_placeholder(size) else size)


def _end_of_blocks(window: Window, start: int) -> int:
    """Of WavPack: blocks with their sizes, up to one that counts from 0 again."""
    at = start
    while (head := window.read(at, WAVPACK_HEAD)).startswith(b"wvpk"):
        if at > start and _begins_wavpack(head):
            break
        at += 8 + max(int.from_bytes(head[4:8], "little"), WAVPACK_HEAD - 8)
    return at


def _begins_wavpack(head: bytes) -> bool:
    number, samples, flags = (int.from_bytes(head[at : at + 4], "little") for at in (16, 20, 24))
    whole = len(head) >= WAVPACK_HEAD and head.startswith(b"wvpk")
    return whole and number == 0 and samples > 0 and bool(flags & INITIAL)


def _begins_tta(head: bytes) -> bool:
    return head.startswith(b"TTA") and zlib.crc32(head[:18]).to_bytes(4, "little") == head[18:22]


def _begins_mp4(head: bytes) -> bool:
    size, brand = int.from_bytes(head[:4], "big"), head[8:12]
    return head[4:8] == b"ftyp" and 16 <= size < 1024 and size % 4 == 0 and brand.isascii()


def _begins_avi(head: bytes) -> bool:
    return head.startswith(b"RIFF") and head[8:12] == b"AVI "


def _unknown(_: Window, start: int) -> int:
    """Of a kind that does not tell."""
    return start + 4


_KINDS = (
    _Kind(b"ftyp", _begins_mp4, _end_of_boxes, 4),
    _Kind(EBML, lambda head: head.startswith(EBML) and DOCTYPE in head, _end_of_elements),
    _Kind(b"RIFF", _begins_avi, _end_of_chunk),
    _Kind(b"FLV\1", lambda head: head[:4] + head[5:9] == b"FLV\1\0\0\0\x09", _unknown),
    _Kind(ASF, lambda head: head.startswith(ASF), _unknown),
    _Kind(b"TTA1", _begins_tta, _unknown),
    _Kind(b"wvpk", _begins_wavpack, _end_of_blocks),
    _Kind(b"#!AMR", lambda head: head.startswith((b"#!AMR\n", b"#!AMR-WB\n")), _unknown),
)
