"""The structure of a FLAC file: where it ends, and whether it does so with a whole frame.

Format: RFC 9639.
"""

from __future__ import annotations

from codec.media.survey import Part, Survey
from codec.media.window import Window

MAGIC = b"fLaC"
# The header of the block that comes first: its kind and its 34 bytes.
FIRST_BLOCK = b"\0\0\0\x22", b"\x80\0\0\x22"
LONGEST_TAIL = 1 << 19  # bytes that may hold the last frame
ID3V1_BYTES = 128


def survey(window: Window) -> Survey:
    """Files behind one another are parts."""
    starts, at = [], window.find(MAGIC, 0)
    while at >= 0:
        if window.read(at + 4, 4) in FIRST_BLOCK:
            starts.append(at)
        at = window.find(MAGIC, at + 4)
    if not starts:
        return Survey()
    starts[0] = 0  # a tag before it is the decoder's
    found = Survey()
    for start, end in zip(starts, [*starts[1:], window.size], strict=True):
        last = end_of_frames(window, start, end)
        found.parts.append(Part(((start, (last or end) - start),), whole_end=last is not None))
    return found


def end_of_frames(window: Window, start: int, end: int) -> int | None:
    """Where the last frame of a part ends, a tag and padding aside.

    None if that frame is not whole.

    The CRC-16 of a whole frame, its own included, is 0, and stays 0 over zeros that follow. So it
    does not tell whether those are padding or the end of the CRC: see `_own_zeros`.
    """
    if window.read(max(end - ID3V1_BYTES, 0), 3) == b"TAG":
        end -= ID3V1_BYTES
    first = max(start, end - LONGEST_TAIL)
    tail = window.read(first, end - first).rstrip(b"\0")
    zeros = _own_zeros(end - first - len(tail), window.read(window.find(MAGIC, start), 26))
    # Backwards, so that each byte is taken once, however many of them begin like a frame.
    state, covered = 0, tail + bytes(zeros)
    for at in range(len(covered) - 1, -1, -1):
        state = state >> 8 ^ CRC16_BACK[state & 255] ^ covered[at] << 8
        if state == 0 and _is_header(covered[at : at + 16]):
            return first + len(covered)
    return None


def _own_zeros(count: int, head: bytes) -> int:
    """How many of the zeros at the end of a part count as the last frame's.

    One or two are the frame's own. Of more, some are padding: two are kept where the file tells its
    length, since the decoder then stops before what is too much, and none where it would take them
    for the head of another frame.
    """
    tells_length = any(head[22:26]) or bool(head[21:22] and head[21] & 15)  # 36 bits of STREAMINFO
    return count if count <= 2 else 2 if tells_length else 0


def _is_header(head: bytes) -> bool:
    """Whether a frame's header begins here, and ends with the CRC-8 of what is before it."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFC != 0xF8:
        return False
    lead = head[4]
    coded = 1 if lead < 0x80 else f"{lead:08b}".find("0")
    size = (
        4 + coded + {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    )
    return 0 < coded <= 7 and size < len(head) and _crc8(head[: size + 1]) == 0


def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> bits - 1 else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return tuple(table)


CRC8, CRC16 = _table(0x07, 8), _table(0x8005, 16)
# By the low byte of a state of CRC-16: the state that a zero byte would turn into that byte alone.
CRC16_BACK = {value & 255: byte << 8 | value >> 8 for byte, value in enumerate(CRC16)}


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = CRC8[value ^ byte]
    return value
