"""What Pillow does not say of a TIFF picture, and reads as other pixels than are there.

Format: TIFF 6.0 (Adobe, 1992).
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from codec.errors import MediaError

BITS, PHOTOMETRIC, PLANES, SAMPLES = 258, 262, 284, 339  # tags
WHITE_IS_ZERO, SEPARATE, SIGNED = 0, 2, 2  # values of the last three


def check(image: Image.Image) -> None:
    """Refuses what would come back as another picture.

    Raises:
        MediaError: It is a TIFF of such a kind.
    """
    bits = _values(image, BITS)
    if max(bits, default=1) > 8 and _values(image, PLANES) == (SEPARATE,):
        kind = "more than 8 bits with a plane for each channel"
    elif max(bits, default=1) <= 8 and SIGNED in _values(image, SAMPLES):
        kind = "signed values of 8 bits"
    else:
        return
    raise MediaError(f"a TIFF picture with {kind}, which is not read; save it as PNG")


def zero_is_white(image: Image.Image) -> bool:
    """Whether a deep picture is a negative; Pillow turns those of 8 bits round itself."""
    return _values(image, PHOTOMETRIC) == (WHITE_IS_ZERO,)


def white(image: Image.Image) -> int:
    """The largest value of a deep picture; Pillow leaves those of 12 bits as they are."""
    return (1 << 12) - 1 if _values(image, BITS) == (12,) else (1 << 16) - 1


def is_unsigned(image: Image.Image) -> bool:
    """Whether values of 32 bits, which Pillow has as signed ones, are not."""
    return SIGNED not in _values(image, SAMPLES)


def _values(image: Image.Image, tag: int) -> tuple[Any, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)
