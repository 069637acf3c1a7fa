"""Pictures written to files, strip by strip. Only a PNG is never whole in memory."""

from __future__ import annotations

from typing import BinaryIO

from PIL import Image

from codec.errors import MediaError
from codec.media.kinds import Pixels
from codec.medium import IMAGE
from codec.png import PngWriter

SAVING: dict[str, dict[str, int]] = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}}
# In pixels.
LONGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65500, "WEBP": 16383, "BMP": 2**31 - 1, "TIFF": 2**31 - 1}
MAX_FILE_BYTES = 2**32 - 2**16  # of formats that count them in 32 bits


class ImageWriter:
    """A picture written strip by strip, in the format of a file suffix.

    Args:
        file: A binary file open for writing.
        height: Pixels.
        width: Pixels.
        suffix: Of the format, a key of `IMAGE.suffixes`.
        channels: 1 writes a greyscale picture, the first channel, where the format has them.

    Raises:
        MediaError: A suffix that cannot be written, or a size that its format cannot hold.
    """

    def __init__(
        self, file: BinaryIO, height: int, width: int, suffix: str = "png", channels: int = 3
    ) -> None:
        name = IMAGE.suffixes.get(suffix.lower())
        if name is None:
            raise MediaError(
                f"cannot write pictures as .{suffix}; use one of "
                f"{', '.join(sorted(IMAGE.suffixes))}"
            )
        if max(height, width) > LONGEST_SIDE[name]:
            most = LONGEST_SIDE[name]
            raise MediaError(
                f".{suffix} holds at most {most} pixels a side, not {width}x{height}; write a .png"
            )
        large = height * (channels * width + 3) > MAX_FILE_BYTES
        if name == "BMP" and large:
            raise MediaError(
                f".{suffix} holds at most 4 GiB, not {width}x{height} pixels; write a .png"
            )
        self._options = SAVING.get(name, {}) | (
            {"big_tiff": True} if name == "TIFF" and large else {}
        )
        self._file, self._name, self._suffix, self._top = file, name, suffix, 0
        self._png = PngWriter(file, height, width, channels) if name == "PNG" else None
        self._grey = channels == 1
        self._whole = Image.new(
            "L" if self._grey else "RGB", (1, 1) if self._png else (width, height)
        )

    def write(self, strip: Pixels) -> None:
        """Appends rows, (n, W, 3)."""
        if self._png:
            self._png.write(strip)
        else:
            rows = strip[..., 0] if self._grey else strip
            self._whole.paste(Image.fromarray(rows), (0, self._top))
            self._top += len(strip)

    def close(self) -> None:
        """Completes the file.

        Raises:
            MediaError: Pillow cannot write this picture.
            OSError: The file cannot be written to.
        """
        if self._png:
            self._png.close()
            return
        try:
            self._whole.save(_File(self._file), self._name, **self._options)  # type: ignore[arg-type]
        except MemoryError:
            raise
        except Exception as error:  # Pillow's writers raise ValueError, OSError, struct.error ...
            if isinstance(error, OSError) and error.errno is not None:  # the system's: a full disk
                raise
            raise MediaError(
                f"cannot write this picture as .{self._suffix} ({error}); write a .png"
            ) from None


class _File:
    """A file without its descriptor.

    Through a descriptor Pillow writes by itself, and does not say why it cannot.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write
        self.seek = file.seek
        self.tell = file.tell
        self.flush = file.flush
        self.read = file.read


def save_image(file: BinaryIO, pixels: Pixels, suffix: str = "png") -> None:
    """Writes (H, W, 3) uint8 in the format of a file suffix.

    Raises MediaError for what it cannot write.
    """
    writer = ImageWriter(file, pixels.shape[0], pixels.shape[1], suffix)
    writer.write(pixels)
    writer.close()
