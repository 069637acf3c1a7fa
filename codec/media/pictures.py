"""Pictures read from files: (H, W, 3) uint8 in sRGB, upright, in strips of rows.

file ─Pillow, or a mended copy─> pixels of any mode ─to 8 bits, to sRGB, onto white─> strips
"""

from __future__ import annotations

import io
import logging
import math
import re
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from codec.errors import MediaError
from codec.files import blaming, temporary_folder
from codec.locks import forkable_lock
from codec.media import bmp, gif, heic, jpeg2000, jpeg_end, png_chunks, tiff
from codec.media.colour import Conversion, box_of, conversion
from codec.media.kinds import IMAGE_FORMATS, Pixels
from codec.png import SIGNATURE
from codec.quiet import no_warnings

log = logging.getLogger("codec")
# What it says of damaged files is in the errors, too.
logging.getLogger("PIL").addHandler(logging.NullHandler())

MAX_PIXELS = 1 << 26  # as many as a bitstream's reader takes
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", *DEEP_MODES)
DEEP = re.compile(";16[BLN]")  # such a raw mode; "BGR;16" is of 16 bits a pixel
STRIP_PIXELS = 1 << 20  # of a picture that are at hand at once
# Bytes of a picture's pixels; those of larger ones wait in a temporary file.
MAX_IN_MEMORY = 1 << 25
ON_WHITE = "transparent picture: laid on white"
_limit = forkable_lock()


class Picture:
    """A picture read from a file, upright, as strips of rows.

    Alpha is laid on white, 16 bits become 8.

    Pillow decodes a whole picture, into four bytes a pixel. They are given back before the first
    strip is asked for.

    Args:
        file: A binary file open for reading.
        max_pixels: Refuse larger ones.

    Attributes:
        height: Pixels.
        width: Pixels.
        channels: 1 of a greyscale file, else 3. Strips have three, which are equal then.

    Raises:
        MediaError: Not a picture of a known format, damaged, or above `max_pixels`.
        OSError: There is no room for a temporary file.
    """

    def __init__(self, file: BinaryIO, max_pixels: int = MAX_PIXELS) -> None:
        with _decoded(file, max_pixels) as (image, to_rgb):
            self.width, self.height = image.size
            self.channels = 1 if image.mode in GREY_MODES else 3
            self._rows = max(1, STRIP_PIXELS // self.width)
            self._spool = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY)  # noqa: SIM115
            weakref.finalize(self, self._spool.close)
            for strip in _strips(image, self._rows):
                pixels = np.asarray(to_rgb(strip)).tobytes()
                with blaming(temporary_folder):
                    self._spool.write(pixels)

    def describe(self, _: float) -> dict[str, Any]:
        """What a report says of its size."""
        return {"width": self.width, "height": self.height}

    def strips(self) -> Iterator[Pixels]:
        """All rows from the top, (n, W, 3) uint8 RGB."""
        for top in range(0, self.height, self._rows):
            size = min(self._rows, self.height - top), self.width, 3
            self._spool.seek(top * self.width * 3)  # another iterator may have moved it
            yield np.frombuffer(bytearray(self._spool.read(math.prod(size))), np.uint8).reshape(
                size
            )


def load_image(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A whole picture as (H, W, 3) uint8 RGB; arguments and errors are those of `Picture`."""
    return np.concatenate(list(Picture(file, max_pixels).strips()))


def _strips(image: Image.Image, rows: int) -> Iterator[Image.Image]:
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


@contextmanager
def _decoded(file: BinaryIO, max_pixels: int) -> Iterator[tuple[Image.Image, Conversion]]:
    """A picture in memory, upright, and what makes RGB of its strips.

    All that goes wrong with it is a MediaError.
    """
    try:
        # The warnings are of odd metadata, which nothing here needs.
        with no_warnings(), _opened(file, max_pixels) as image:
            to_srgb = conversion(image, file)
            try:
                ImageOps.exif_transpose(image, in_place=True)  # no copy of what is upright
            except MemoryError:
                raise
            except Exception:  # whatever stands in the metadata
                log.warning("metadata that cannot be read: left out")
            if image.mode in DEEP_MODES:
                to_8_bits = _to_8_bits(image)
                yield image, lambda strip: _to_rgb(to_8_bits(strip), to_srgb)
            else:
                if image.has_transparency_data and _least_alpha(image) < 255:
                    log.warning(ON_WHITE)
                yield image, lambda strip: _to_rgb(strip, to_srgb)
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError:
        known = ", ".join(IMAGE_FORMATS)
        raise MediaError(
            f"not a picture in a known format ({known}), or a damaged one; save it as PNG"
        ) from None
    except Image.DecompressionBombError as error:
        raise MediaError(f"{error}; raise --max-pixels or scale the picture down") from None
    except Exception as error:  # Pillow's readers raise anything on damaged files
        if isinstance(error, OSError) and error.errno is not None:  # the system's: a full disk
            raise
        raise MediaError(f"damaged picture ({error}); save it again") from None


@contextmanager
def _opened(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """A picture as Pillow decodes it, where need be from a copy that is mended.

    Also what is to be said of it.
    """
    notices: list[str] = []
    try:
        image = _loaded(file, max_pixels, notices)
    except (MediaError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        mended = _mended(file, notices)
        if mended is None:
            raise
        try:
            image = _loaded(mended, max_pixels, notices)
        except UnidentifiedImageError:
            raise error from None
    with image:
        for notice in notices:
            log.warning(notice)
        yield image


def _loaded(file: BinaryIO, max_pixels: int, notices: list[str]) -> Image.Image:
    file.seek(0)
    with _no_smaller_limit(max_pixels):
        image = heic.opened(file) if heic.is_heic(file) else Image.open(file, formats=IMAGE_FORMATS)
    if image.width * image.height > max_pixels:
        raise MediaError(
            f"picture of {image.width}x{image.height} pixels is above the limit of {max_pixels}; "
            "raise --max-pixels or scale it down"
        )
    tiff.check(image)
    tiff.set_byte_order(image)
    jpeg2000.check(image, file)
    bmp.check(image)
    found = []
    if image.format != "MPO" and _is_one_of_several(image):  # MPO: a photograph and its previews
        found.append("several pictures in one file: only the first is coded")
    raw_modes = [str(tile.args) for tile in image.tile]
    if image.mode not in DEEP_MODES and (
        any(DEEP.search(mode) for mode in raw_modes) or _is_cut_to_8_bits(image, file)
    ):
        found.append("picture of more than 8 bits: coded with 8 bits a channel")
    box = gif.frame(image)
    image.load()
    bmp.make_visible(image)
    jpeg2000.stretch(image, file)
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _in_8_bits(image.info["transparency"], "".join(raw_modes))
    notices += found
    return gif.laid_out(image, box)


def _is_cut_to_8_bits(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Whether Pillow cuts a colour picture as it reads; raw modes tell it of other formats."""
    if image.format == "AVIF":
        return any(bits > 8 for bits in box_of(file, b"pixi")[5:])
    if image.format == "HEIF":
        return bool(image.info.get("bit_depth", 8) > 8)
    highest = image.tile[0].args if image.format == "PPM" else None
    return isinstance(highest, tuple) and isinstance(highest[-1], int) and highest[-1] > 255


def _in_8_bits(key: Any, raw_mode: str) -> Any:
    """A PNG's transparent value as its pixels are once Pillow has read them.

    It scales grey of 2 and 4 bits up and cuts colours of 16 bits, but leaves this value as it is.
    """
    if raw_mode in ("L;2", "L;4"):
        most = (1 << int(raw_mode[-1])) - 1
        return (key & most) * (255 // most)
    return tuple(value >> 8 for value in key) if raw_mode.startswith("RGB;16") else key


def _is_one_of_several(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # there is another one, and it is damaged
        return True


@contextmanager
def _no_smaller_limit(max_pixels: int) -> Iterator[None]:
    """Raises Pillow's limit on pixels, which is one for the whole process, for a moment."""
    with _limit:
        own = Image.MAX_IMAGE_PIXELS
        if own is not None and max_pixels > 2 * own:
            Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = own


def _mended(file: BinaryIO, notices: list[str]) -> BinaryIO | None:
    """A copy that can be decoded, as far as it goes; None if nothing is known to help."""
    file.seek(0)
    head = file.read(len(SIGNATURE))
    if head == SIGNATURE:
        copy, animated = png_chunks.without_metadata(file)
        notices += ["metadata that cannot be read: left out"]
        notices += ["several pictures in one file: only the first is coded"] if animated else []
        return copy
    if head[:2] == b"\xff\xd8":
        data = jpeg_end.ended(head + file.read())
        if data is not None:
            notices += ["the picture is cut short: coded as far as it goes"]
            return io.BytesIO(data)
    return None


def _to_8_bits(image: Image.Image) -> Conversion:
    """Makes "L" of strips of one deep channel; what white is depends on the whole picture.

    "LA" where one value is transparent.
    """
    low, high, odd = np.inf, -np.inf, 0
    key, hidden = image.info.get("transparency"), False
    unsigned = image.mode == "I" and tiff.is_unsigned(image)

    def values_of(strip: Image.Image) -> NDArray[Any]:
        values = np.asarray(strip)
        return values.view(np.uint32) if unsigned else values

    for strip in _strips(image, max(1, STRIP_PIXELS // image.width)):
        values = values_of(strip)
        hidden |= key is not None and bool((values == key).any())
        finite = values[np.isfinite(values)]
        odd += int(np.isnan(values).sum())
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    black, white = 0.0, float(tiff.white(image))
    if low < 0 or high > white:
        black, white = min(low, 0.0), max(high, 1.0)
    elif image.mode == "F":
        white = next((w for w in (1.0, 255.0) if high <= w), white)
    if tiff.zero_is_white(image):
        black, white = white, black
    log.warning(
        "picture of more than 8 bits: coded with 8 bits a channel, "
        "from %g as black to %g as white%s",
        black,
        white,
        f"; {odd} values are no numbers, and black" if odd else "",
    )
    if hidden:
        log.warning(ON_WHITE)

    def convert(strip: Image.Image) -> Image.Image:
        values = values_of(strip).astype(np.float64)
        shown = values != key
        if image.mode == "F":
            values = np.nan_to_num(values, nan=black, posinf=white, neginf=black)
        scaled = (values - black) * (255 / (white - black))
        grey = Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
        if hidden:
            grey.putalpha(Image.fromarray(np.where(shown, 255, 0).astype(np.uint8)))
        return grey

    return convert


def _least_alpha(image: Image.Image) -> float:
    """Of a picture with transparency, 0 to 255."""
    extremes = (image if image.mode == "RGBA" else image.convert("RGBA")).getextrema()
    return cast(tuple[tuple[int, int], ...], extremes)[3][0]


def _to_rgb(image: Image.Image, to_srgb: Conversion | None) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if to_srgb is not None:
            colours = to_srgb(
                image.convert("L") if image.mode in ("LA", "La") else rgba.convert("RGB")
            )
            colours.putalpha(rgba.getchannel("A"))
            rgba = colours
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if to_srgb is not None:
        return to_srgb(image)
    return image if image.mode == "RGB" else image.convert("RGB")
