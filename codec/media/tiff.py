"""What Pillow does not say of a TIFF picture, and reads as other pixels than are there.

Format: TIFF 6.0 (Adobe, 1992).
"""

from __future__ import annotations

from typing import Any, cast

from PIL import Image, ImageFile

from codec.errors import MediaError

SUBFILE, BITS, PHOTOMETRIC, PLANES, OTHERS, SAMPLES = 254, 258, 262, 284, 330, 339  # tags
REDUCED, WHITE_IS_ZERO, YCBCR, SEPARATE, SIGNED = 1, 0, 6, 2, 2  # values of them
# Of what libtiff unpacks, which is in the order of this machine, whatever the file's is.
NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"} | {
    "F;32F": "F;32NF",
    "I;32S": "I;32NS",
    "I;16S": "I;16NS",
}


def check(image: ImageFile.ImageFile) -> None:
    """Refuses what would come back as another picture.

    Raises:
        MediaError: It is a TIFF of such a kind.
    """
    bits, in_planes = _values(image, BITS), _values(image, PLANES) == (SEPARATE,)
    if _values(image, SUBFILE) == (REDUCED,) and _values(image, OTHERS):
        kind = "a preview in front of the picture itself, as cameras' raw files have"
    elif max(bits, default=1) > 8 and in_planes:
        kind = "more than 8 bits with a plane for each channel"
    elif in_planes and image.mode in ("LA", "PA", "LAB"):
        kind = f"a plane for each channel of {image.mode}"
    elif (
        _values(image, PHOTOMETRIC) == (YCBCR,)
        and image.mode == "RGB"
        and _decoders(image) == {"raw"}
    ):
        kind = "YCbCr colours that are not compressed"
    elif max(bits, default=1) <= 8 and SIGNED in _values(image, SAMPLES):
        kind = "signed values of 8 bits"
    else:
        return
    raise MediaError(f"a TIFF picture with {kind}, which is not read; save it as PNG")


def set_byte_order(image: ImageFile.ImageFile) -> None:
    """Mends how Pillow would unpack deep values of a big-endian file that libtiff reads."""
    if _decoders(image) == {"libtiff"}:
        image.tile = [
            tile._replace(args=(NATIVE.get(raw_mode, raw_mode), *others))
            for tile in image.tile
            for raw_mode, *others in [cast(tuple[Any, ...], tile.args)]
        ]


def zero_is_white(image: Image.Image) -> bool:
    """Whether a deep picture is a negative; Pillow turns those of 8 bits round itself."""
    return _values(image, PHOTOMETRIC) == (WHITE_IS_ZERO,)


def white(image: Image.Image) -> int:
    """The largest value of a deep picture; Pillow leaves those of 12 bits as they are."""
    bits = _values(image, BITS)
    if bits == (16,) and SIGNED in _values(image, SAMPLES):
        return (1 << 15) - 1
    return (1 << 12) - 1 if bits == (12,) else (1 << 16) - 1


def is_unsigned(image: Image.Image) -> bool:
    """Whether values of 32 bits, which Pillow has as signed ones, are not."""
    return SIGNED not in _values(image, SAMPLES)


def _decoders(image: ImageFile.ImageFile) -> set[str]:
    """What unpacks a TIFF's pixels: "raw" is Pillow."""
    return {tile.codec_name for tile in image.tile} if image.format == "TIFF" else set()


def _values(image: Image.Image, tag: int) -> tuple[Any, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)
