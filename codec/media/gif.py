"""What Pillow reads of a GIF picture as other pixels than are there.

Format: CompuServe, Graphics Interchange Format, version 89a.
"""

from __future__ import annotations

from PIL import Image, ImageFile

Box = tuple[int, int, int, int]


def frame(image: ImageFile.ImageFile) -> Box:
    """Where the pixels of a picture, still to be decoded, lie; only in a GIF not everywhere."""
    whole = (0, 0, *image.size)
    return (image.tile[0].extents or whole) if image.format == "GIF" and image.tile else whole


def laid_out(image: ImageFile.ImageFile, box: Box) -> Image.Image:
    """A decoded picture that is transparent outside of a box, as browsers show it.

    Pillow gives these pixels the first colour of the palette, whatever that is.
    """
    if box == (0, 0, *image.size) or image.has_transparency_data:
        return image
    whole = Image.new("LA" if image.mode == "L" else "RGBA", image.size)
    whole.paste(image.crop(box).convert(whole.mode), box)
    whole.format, whole.info = image.format, image.info
    return whole
