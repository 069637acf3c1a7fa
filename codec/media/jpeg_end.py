"""An end for a JPEG that was cut short.

Its decoder takes what there is only if an end marker follows.

Format: ITU-T T.81.
"""

from __future__ import annotations

import re

END = b"\xff\xd9"
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a segment
# In a scan: no stuffed byte, no restart, no filler.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def ended(data: bytes) -> bytes | None:
    """The file up to its last whole segment or scan, and an end marker.

    None if it has one, or no scan at all.
    """
    at, scanned = 2, False
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        marker = data[at : at + 2]
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] == END_OF_IMAGE:
            is_cut = len(marker) < 2
            break
        if marker[1] in ALONE:
            at += 2
            continue
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if stop > len(data) or len(data) < at + 4:
            is_cut = True
            break
        at = stop
        if marker[1] == START_OF_SCAN:
            scanned = True
            found = MARKER.search(data, at)
            at = found.start() if found else len(data) - data.endswith(b"\xff")
    return data[:at] + END if is_cut and scanned else None
