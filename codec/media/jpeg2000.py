"""What Pillow reads of a JPEG 2000 picture as other pixels than are there.

Format: ISO/IEC 15444-1.
"""

from __future__ import annotations

from typing import BinaryIO

from PIL import Image

from codec.errors import MediaError
from codec.media.window import Window

# How the pixels begin, whatever boxes lie in front of them; and where the number of components and
# the first one's depth stand behind that.
MAGIC = b"\xff\x4f\xff\x51"
COUNT, DEPTH, EACH_BYTES = 40, 42, 3


def check(image: Image.Image, file: BinaryIO) -> None:
    """Refuses depths that Pillow rounds to 8 bits and lets overflow: white is black then.

    Raises:
        MediaError: It is a JPEG 2000 of such a kind.
    """
    if image.format != "JPEG2000" or image.mode == "I;16":
        return
    window = Window(file)
    start = max(window.find(MAGIC, 0), 0)
    count = int.from_bytes(window.read(start + COUNT, 2), "big")
    depths = window.read(start + DEPTH, count * EACH_BYTES)[::EACH_BYTES]
    if any(depth & 127 >= 8 for depth in depths):  # one less than the bits, and a sign
        raise MediaError(
            "a JPEG 2000 picture with colours of more than 8 bits, which is not read; "
            "save it as PNG"
        )
