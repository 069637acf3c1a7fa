"""The structure of an MP3 file: frames one behind the other, between tags.

Format: ISO/IEC 11172-3 and 13818-3; the Xing, Info and VBRI frames that say how many frames there
are; ID3, APE tags.
"""

from __future__ import annotations

from codec.media.survey import DAMAGED, LEFT_OUT, Part, Survey
from codec.media.window import Window

# kbit/s by index, for MPEG-1 and MPEG-2, layers I to III
BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
HEADER_BYTES = 4


def is_mpeg(head: bytes) -> bool:
    """Whether a file begins with a frame, or with a tag as these files carry."""
    return head.startswith(b"ID3") or frame_bytes(head) > 0


def survey(window: Window) -> Survey:
    """Finds the parts of an MPEG stream.

    One begins with each frame that counts those behind it, and where the rate or the channels
    change.
    """
    starts, at, expected, count = [0], 0, 0, 0
    kind: tuple[int, ...] | None = None
    found = Survey()
    while at < window.size:
        head = window.read(at, HEADER_BYTES)
        length = frame_bytes(head)
        if not length:
            skipped = tag_bytes(window, at)
            if not skipped:
                skipped = _resync(window, at, found)
            at += skipped
            continue
        counted = _counted(window.read(at, min(length, 200)), head)
        if kind is not None and (counted is not None or kind != _kind(head)):
            found.cut |= count < expected and DAMAGED not in found.notices
            starts.append(at)
        if counted is not None or kind != _kind(head):
            expected, count, kind = counted or 0, 0 if counted is None else -1, _kind(head)
        if at + length > window.size:
            found.cut = True
            break
        count += 1
        at += length
    found.cut |= count < expected and DAMAGED not in found.notices
    ends = [*starts[1:], window.size]
    found.parts = [Part(((start, end - start),)) for start, end in zip(starts, ends, strict=True)]
    return found if kind is not None else Survey()


def frame_bytes(head: bytes) -> int:
    """Length of a frame by its header.

    0 for what is none, and for the free bit rate, which says no length.
    """
    if len(head) < HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return 0
    bits_per_second = BITRATES[version == 3, layer][bitrate] * 1000
    if layer == 1:
        return (12 * bits_per_second // RATES[version][rate] + padding) * 4
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples // 8 * bits_per_second // RATES[version][rate] + padding


def _kind(head: bytes) -> tuple[int, ...]:
    """Version, layer, rate, and whether it is mono: what stays the same within a recording."""
    return head[1] & 0x1E, head[2] & 0x0C, head[3] >> 6 == 3


def _counted(frame: bytes, head: bytes) -> int | None:
    """How many frames follow one that holds no sound but this number.

    None if it is none of these.
    """
    version_1, mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    at = HEADER_BYTES + (17 if mono else 32) if version_1 else HEADER_BYTES + (9 if mono else 17)
    if frame[at : at + 4] in (b"Xing", b"Info"):
        flags, number = frame[at + 4 : at + 8], frame[at + 8 : at + 12]
        told = len(number) == 4 and flags[3] & 1
    elif frame[36:40] == b"VBRI":
        number = frame[50:54]
        told = len(number) == 4
    else:
        return None
    return int.from_bytes(number, "big") if told else 0


def tag_bytes(window: Window, at: int) -> int:
    """Length of an ID3 or APE tag; 0 if there is none."""
    head = window.read(at, 32)
    if head.startswith(b"ID3") and len(head) >= 10:
        size = sum(
            (byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
        )
        return 10 + size + (10 if head[5] & 16 else 0)
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX") and len(head) == 32:
        return (32 if int.from_bytes(head[20:24], "little") & 1 << 31 else 0) + int.from_bytes(
            head[12:16], "little"
        )
    return 0


def _resync(window: Window, at: int, found: Survey) -> int:
    """Bytes up to the next two frames in a row; says that what lies between is lost."""
    start = at
    while (at := window.find(b"\xff", at)) >= 0:
        length = frame_bytes(window.read(at, HEADER_BYTES))
        if length and (
            at + length >= window.size or frame_bytes(window.read(at + length, HEADER_BYTES))
        ):
            break
        at += 1
    rest = window.read(start, min((window.size if at < 0 else at) - start, 1 << 16))
    if at < 0 and len(rest) < HEADER_BYTES and rest.startswith(b"\xff"):
        found.cut = True
    elif rest.strip(b"\0"):
        found.say(LEFT_OUT if at < 0 else DAMAGED)
    return (window.size if at < 0 else at) - start
