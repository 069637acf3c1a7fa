"""The structure of an Ogg file: links one behind the other, each of streams whose pages alternate.

Format: RFC 3533. A link begins with the first page of each of its streams, and each stream's last
page says so. Vorbis I, 4.3.9, and RFC 7845, 5.1.1: the order of channels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from codec.media.survey import DAMAGED, LEFT_OUT, Part, Survey
from codec.media.window import Window

MAGIC = b"OggS"
FIRST, LAST = 2, 4  # flags of a page
HEADER_BYTES = 27
CHECKSUM = slice(22, 26)
# Bytes that may be checked in vain, for each byte of the file. A damaged page whose table of
# lengths is lost is looked at in as much as 64 KiB: even a file of such pages of 1 KiB alone takes
# no more than this. Of a forged one every four bytes may claim those 64 KiB.
IN_VAIN = 64
# How the first page of a stream of sound begins.
SOUND = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
# Of as many channels of Vorbis or Opus, the place of each that stands so in a WAV: Vorbis has the
# centre between left and right, and the deep one last. libsndfile leaves them where they are.
WAV_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
SURROUND = 1  # an Opus mapping that has this order; others have none
SKELETON = b"fishead\0"  # a table of contents, which nobody misses
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(slots=True)
class _Stream:
    kind: bytes
    ended: bool = False
    next_page: int = 0
    segments: list[tuple[int, int]] = field(default_factory=list)

    def extend(self, start: int, length: int) -> None:
        if self.segments and sum(self.segments[-1]) == start:
            start, before = self.segments.pop()
            length += before
        self.segments.append((start, length))

    @property
    def is_sound(self) -> bool:
        return self.kind.startswith(SOUND)


def survey(window: Window) -> Survey:
    """Every link of an Ogg file is a part.

    Of several streams in a link, the first that is sound.
    """
    links: list[dict[bytes, _Stream]] = []
    at, lost, starting, damaged = 0, 0, False, False
    in_vain = 0
    while 0 <= at < window.size:
        page, whole = _page(window, at)
        if not whole:
            in_vain += len(page)
            # Those that claim the same bytes are too many: the next one lies behind these.
            behind = at + (len(page) if in_vain > IN_VAIN * window.size else 1)
            lost, at = at, window.find(MAGIC, behind)
            damaged |= at >= 0
            continue
        if page[5] & FIRST:
            if not starting:
                links.append({})
            links[-1][page[14:18]] = _Stream(page[HEADER_BYTES + page[26] :][:8])
        starting = bool(page[5] & FIRST)
        stream = links[-1].get(page[14:18]) if links else None
        if stream is not None:
            number = int.from_bytes(page[18:22], "little")
            damaged |= number != stream.next_page != 0
            stream.next_page, stream.ended = number + 1, bool(page[5] & LAST)
            stream.extend(at, len(page))
        at += len(page)
    rest = window.read(lost, 1 << 20) if at < 0 else b""
    found = _found(links, damaged, rest.startswith(MAGIC))
    if rest.strip(b"\0") and not found.cut:
        found.say(LEFT_OUT)
    return found


def wav_order(head: bytes) -> tuple[int, ...] | None:
    """Where the channels of a stream lie, in the order of a WAV; None if they lie so.

    Args:
        head: The stream's first page, or 64 bytes of it.
    """
    packet = head[HEADER_BYTES + head[26] :] if len(head) >= 64 and head.startswith(MAGIC) else b""
    if packet.startswith(b"\x01vorbis"):
        return WAV_ORDER.get(packet[11])
    if packet.startswith(b"OpusHead") and packet[18:19] == bytes([SURROUND]):
        return WAV_ORDER.get(packet[9])
    return None


def _page(window: Window, at: int) -> tuple[bytes, bool]:
    """What was looked at as a page, and whether it is a whole one."""
    head = window.read(at, HEADER_BYTES + 255)
    if not head.startswith(MAGIC) or len(head) < HEADER_BYTES:
        return b"?", False
    start = HEADER_BYTES + head[26]
    size = start + sum(head[HEADER_BYTES:start])
    page = window.read(at, size)
    return page, len(page) == size and checksum(page) == page[CHECKSUM]


def checksum(page: bytes) -> bytes:
    """The CRC-32 of a page with nothing in the checksum's place.

    It has zlib's polynomial, from each byte's other end.
    """
    body = (page[:22] + bytes(4) + page[26:]).translate(REVERSED)
    value = zlib.crc32(body, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return value.to_bytes(4, "big").translate(REVERSED)


def _found(links: list[dict[bytes, _Stream]], damaged: bool, breaks_off: bool) -> Survey:
    found = Survey(cut=breaks_off)
    others = False
    for streams in links:
        sound = [stream for stream in streams.values() if stream.is_sound]
        others |= (
            any(not stream.is_sound and stream.kind != SKELETON for stream in streams.values())
            or len(sound) > 1
        )
        if sound:
            found.parts.append(Part(tuple(sound[0].segments)))
            found.cut |= not sound[0].ended
    if others:
        found.say("several streams in one file: only its first recording is coded")
    if damaged:
        found.say(DAMAGED)
    return found
