"""HEIC pictures, as telephones take them, where pillow-heif is installed.

Format: ISO/IEC 23008-12 (HEIF).
"""

from __future__ import annotations

from typing import BinaryIO

from PIL import ImageFile

from codec.errors import MediaError
from codec.media.kinds import AVIF_BRANDS, HEIC_BRANDS


def is_heic(file: BinaryIO) -> bool:
    """Tells from the brands in a file's first box, wherever the file is."""
    file.seek(0)
    head = file.read(64)
    if head[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & HEIC_BRANDS) and not brands & AVIF_BRANDS


def opened(file: BinaryIO) -> ImageFile.ImageFile:
    """Opens a picture that `is_heic`, upright; its pixels are decoded when they are asked for.

    Raises:
        MediaError: pillow-heif is not installed.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise MediaError(
            "a HEIC picture, which is read where pillow-heif is installed "
            "(pip install pillow-heif); or save it as JPEG"
        ) from None
    file.seek(0)
    image: ImageFile.ImageFile = HeifImageFile(file)
    return image
