"""What Pillow reads of a BMP picture as other pixels than are there."""

from __future__ import annotations

from typing import Any, cast

from PIL import ImageFile

from codec.errors import MediaError


def check(image: ImageFile.ImageFile) -> None:
    """Refuses RLE4, of which Pillow loses the last pixel of odd runs, and then its place.

    Raises:
        MediaError: It is a BMP of this kind.
    """
    tiles = [
        cast(tuple[Any, ...], tile.args) for tile in image.tile if tile.codec_name == "bmp_rle"
    ]
    if any(is_rle4 for _, is_rle4, *_ in tiles):
        raise MediaError("a BMP picture packed by RLE4, which is not read; save it as PNG")


def make_visible(image: ImageFile.ImageFile) -> None:
    """Takes a decoded BMP for opaque, in place, where its alpha is 0 all over.

    Programs that know no alpha leave it so in pixels of 32 bits; browsers do the same.
    """
    if image.format == "BMP" and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        image.putalpha(255)
