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
PALETTE = b"pclr"  # a box, which begins with the number of colours


def check(image: Image.Image, file: BinaryIO) -> None:
    """Refuses depths that Pillow rounds to 8 bits and lets overflow: white is black then.

    Also palettes whose colours it counts in another way than the pixels do.

    Raises:
        MediaError: It is a JPEG 2000 of such a kind.
    """
    if image.format != "JPEG2000" or image.mode == "I;16":
        return
    depths = _depths(file)
    if any(depth > 8 for depth in depths):
        kind = "colours of more than 8 bits"
    elif image.mode in ("P", "PA") and (depths[:1] != [8] or _has_equal_colours(image, file)):
        kind = "a palette of fewer than 8 bits, or of equal colours"
    else:
        return
    raise MediaError(f"a JPEG 2000 picture with {kind}, which is not read; save it as PNG")


def stretch(image: Image.Image, file: BinaryIO) -> None:
    """Makes white 255 where there are fewer than 8 bits, which Pillow only shifts up.

    Args:
        image: Decoded; changed in place.
        file: What it comes from.
    """
    if image.format != "JPEG2000" or image.mode in ("I;16", "P", "PA"):
        return
    depths = _depths(file)
    if min(depths, default=8) < 8 and len(depths) == len(image.getbands()):
        most = [256 - (256 >> depth) for depth in depths]
        table = [min(255, round(value * 255 / white)) for white in most for value in range(256)]
        image.im = image.point(table).im


def _depths(file: BinaryIO) -> list[int]:
    """Bits of each component."""
    window = Window(file)
    start = max(window.find(MAGIC, 0), 0)
    count = int.from_bytes(window.read(start + COUNT, 2), "big")
    depths = window.read(start + DEPTH, count * EACH_BYTES)[::EACH_BYTES]
    return [(depth & 127) + 1 for depth in depths]  # one less than the bits, and a sign


def _has_equal_colours(image: Image.Image, file: BinaryIO) -> bool:
    """Whether a palette has a colour twice, which Pillow leaves out: all behind it move up."""
    window = Window(file)
    count = window.read(window.find(PALETTE, 0) + len(PALETTE), 2)
    return image.palette is None or len(image.palette.colors) != int.from_bytes(count, "big")
