"""Files and arrays: the only place that touches audio and picture files.

Audio is (T, C) float32 in [-1, 1]; a picture is (H, W, 3) uint8 RGB. The kind of a file is told from its content,
never from its name. What is lost on the way in (an alpha channel, 16-bit depth) is said through the "codec" logger.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import struct
import tempfile
import warnings
import wave
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from codec.errors import MediaError
from codec.limits import MAX_RATE_HZ, MIN_RATE_HZ
from codec.png import PngWriter

log = logging.getLogger("codec")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says of damaged files is in the errors, too

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM")
MAX_PIXELS = 1 << 26  # as many as a bitstream's reader takes
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
MAX_RIFF_BYTES = 2**32 - 2**16  # a WAV or AIFF says its size in 32 bits
MAX_KERNEL = 10**6  # phases times step of a resampling filter bank; 11025 Hz has the largest common one, 282240
BLOCK = 1 << 16  # samples per channel read at a time
STREAMED = 0x7FFF0000  # bytes; programs that write to a pipe declare a length from here on, knowing none
AUDIO_SUFFIXES = {
    "wav": "WAV",
    "flac": "FLAC",
    "ogg": "OGG",
    "opus": "OGG",
    "mp3": "MP3",
    "aiff": "AIFF",
    "aif": "AIFF",
}
IMAGE_SUFFIXES = {
    "png": "PNG",
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "webp": "WEBP",
    "bmp": "BMP",
    "tif": "TIFF",
    "tiff": "TIFF",
}
SAVING: dict[str, dict[str, int]] = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}}
STRIP_PIXELS = 1 << 20  # of a picture that are at hand at once
MAX_IN_MEMORY = 1 << 25  # bytes of a picture's pixels; those of larger ones wait in a temporary file

Samples = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def detect(head: bytes) -> str:
    """Tells "image" from "speech" by the first bytes of a file; what is no known picture is left to the audio reader.

    Raises:
        MediaError: The file is empty.
    """
    if not head:
        raise MediaError("the file is empty; give a recording or a picture")
    signatures = (
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"BM",
        b"GIF8",
        b"II*\0",
        b"MM\0*",
        b"\0\0\0\x0cjP  ",
        b"\xff\x4f\xff\x51",
    )
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_avif = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1")
    is_ppm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    return "image" if head.startswith(signatures) or is_webp or is_avif or is_ppm else "speech"


class Picture:
    """A picture read from a file, upright, as strips of rows; alpha is laid on white, 16 bits become 8.

    Pillow decodes a whole picture, into four bytes a pixel. They are given back before the first strip is asked for.

    Args:
        file: A binary file open for reading.
        max_pixels: Refuse larger ones.

    Attributes:
        height: Pixels.
        width: Pixels.

    Raises:
        MediaError: Not a picture of a known format, damaged, or above `max_pixels`.
        OSError: There is no room for a temporary file.
    """

    def __init__(self, file: BinaryIO, max_pixels: int = MAX_PIXELS) -> None:
        with _decoded(file, max_pixels) as image:
            self.width, self.height = image.size
            self._rows = max(1, STRIP_PIXELS // self.width)
            self._spool = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY)  # noqa: SIM115
            weakref.finalize(self, self._spool.close)
            for top in range(0, self.height, self._rows):
                strip = image.crop((0, top, self.width, min(top + self._rows, self.height)))
                self._spool.write(np.asarray(_to_rgb(strip)).tobytes())

    def strips(self) -> Iterator[Pixels]:
        """All rows from the top, (n, W, 3) uint8 RGB."""
        self._spool.seek(0)
        for top in range(0, self.height, self._rows):
            size = min(self._rows, self.height - top), self.width, 3
            yield np.frombuffer(bytearray(self._spool.read(math.prod(size))), np.uint8).reshape(size)


def load_image(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A whole picture as (H, W, 3) uint8 RGB; arguments and errors are those of `Picture`."""
    return np.concatenate(list(Picture(file, max_pixels).strips()))


@contextmanager
def _decoded(file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """A picture in memory, upright; all that goes wrong with it is a MediaError."""
    try:
        # The warnings are of odd metadata, which nothing here needs.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise MediaError(
                    f"picture of {image.width}x{image.height} pixels is above the limit of {max_pixels}; "
                    "raise --max-pixels or scale it down"
                )
            if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a photograph and its previews
                log.warning("several pictures in one file: only the first is coded")
            # Pillow cuts colour pictures of 16 bits to 8 as it reads: only the raw mode of their tiles tells.
            if image.mode in DEEP_MODES or any(";16" in str(tile.args) for tile in image.tile):
                log.warning("picture of more than 8 bits: coded with 8 bits a channel")
            ImageOps.exif_transpose(image, in_place=True)  # no copy of what is upright
            if image.mode not in DEEP_MODES and image.has_transparency_data and _least_alpha(image) < 255:
                log.warning("transparent picture: laid on white")
            yield _to_8_bits(image) if image.mode in DEEP_MODES else image
    except (MediaError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise MediaError(f"not a picture in a known format ({', '.join(IMAGE_FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise MediaError(f"{error}; scale the picture down") from None
    except Exception as error:  # Pillow's readers raise anything on damaged files
        if isinstance(error, OSError) and error.errno is not None:  # the system's: a full disk
            raise
        raise MediaError(f"damaged picture ({error}); save it again") from None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Of one deep channel; what white is depends on the whole picture."""
    values = np.nan_to_num(np.asarray(image, np.float64))
    white = 65535.0 if image.mode != "F" else next((w for w in (1.0, 255.0) if values.max() <= w), 65535.0)
    return Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))


def _least_alpha(image: Image.Image) -> float:
    """Of a picture with transparency, 0 to 255."""
    extremes = (image if image.mode == "RGBA" else image.convert("RGBA")).getextrema()
    return cast(tuple[tuple[int, int], ...], extremes)[3][0]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


class ImageWriter:
    """A picture written strip by strip, in the format of a file suffix. Only a PNG is never whole in memory.

    Raises:
        MediaError: A suffix that cannot be written.
    """

    def __init__(self, file: BinaryIO, height: int, width: int, suffix: str = "png") -> None:
        name = IMAGE_SUFFIXES.get(suffix.lower())
        if name is None:
            raise MediaError(f"cannot write pictures as .{suffix}; use one of {', '.join(sorted(IMAGE_SUFFIXES))}")
        self._file, self._name, self._top = file, name, 0
        self._png = PngWriter(file, height, width) if name == "PNG" else None
        self._whole = Image.new("RGB", (1, 1) if self._png else (width, height))

    def write(self, strip: Pixels) -> None:
        """Appends rows, (n, W, 3)."""
        if self._png:
            self._png.write(strip)
        else:
            self._whole.paste(Image.fromarray(strip), (0, self._top))
            self._top += len(strip)

    def close(self) -> None:
        """Completes the file."""
        if self._png:
            self._png.close()
        else:
            self._whole.save(self._file, self._name, **SAVING.get(self._name, {}))


def save_image(file: BinaryIO, pixels: Pixels, suffix: str = "png") -> None:
    """Writes (H, W, 3) uint8 in the format of a file suffix. Raises MediaError for a suffix it cannot write."""
    writer = ImageWriter(file, pixels.shape[0], pixels.shape[1], suffix)
    writer.write(pixels)
    writer.close()


class AudioReader:
    """A recording read block by block.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.

    Raises:
        MediaError: Not audio, no samples, or a sample rate outside 1..768 kHz.
    """

    def __init__(self, file: BinaryIO) -> None:
        descriptor = _descriptor(file)
        try:
            self._file = soundfile.SoundFile(descriptor)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise MediaError(f"not a recording or picture in a known format ({_reason(error)})") from None
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        if not MIN_RATE_HZ <= self.sample_rate <= MAX_RATE_HZ:
            raise MediaError(f"sample rate of {self.sample_rate} Hz; want {MIN_RATE_HZ}..{MAX_RATE_HZ}")
        declared = re.search(r"(?:data|SSND) : (\d+) \(should be", self._file.extra_info)
        if declared and int(declared[1]) < STREAMED:
            log.warning("the recording is cut short: coded as far as it goes")

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks in [-1, 1], n > 0, at most `BLOCK`.

        Raises:
            MediaError: NaN or infinite samples, or the file breaks off.
        """
        position, clipped = 0, False
        while True:
            try:
                block = self._file.read(BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise MediaError(f"damaged recording after {position} samples ({_reason(error)})") from None
            if not len(block):
                break
            if not np.isfinite(block).all():
                where = position + int(np.argwhere(~np.isfinite(block))[0][0])
                raise MediaError(f"sample {where} is not a number or infinite; repair the recording first")
            position += len(block)
            if np.abs(block).max() > 1:  # floats only; 16 bits could not hold them on the way out
                if not clipped:
                    log.warning("samples beyond full scale: clipped")
                block, clipped = block.clip(-1, 1), True
            yield block
        if position == 0:
            raise MediaError("the recording has no samples")


class WavPipe:
    """A PCM .wav read from a pipe as it comes, with the interface of `AudioReader`; its length need not be known.

    Raises:
        MediaError: As for `AudioReader`.
        wave.Error, EOFError: A .wav of another kind, which has to be read from a file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = wave.open(file)  # noqa: SIM115
        self.sample_rate, self.channels = self._file.getframerate(), self._file.getnchannels()
        self._width = self._file.getsampwidth()
        if not MIN_RATE_HZ <= self.sample_rate <= MAX_RATE_HZ:
            raise MediaError(f"sample rate of {self.sample_rate} Hz; want {MIN_RATE_HZ}..{MAX_RATE_HZ}")

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks in [-1, 1], n > 0. Raises MediaError if there is none."""
        position = 0
        while data := self._file.readframes(BLOCK):
            whole = len(data) - len(data) % (self._width * self.channels)
            octets = np.frombuffer(data[:whole], np.uint8).reshape(-1, self._width)
            wide = np.zeros((len(octets), 4), np.uint8)
            wide[:, 4 - self._width :] = octets
            wide[:, 3] ^= 0x80 if self._width == 1 else 0  # 8 bits are unsigned
            samples = wide.view("<i4")[:, 0].reshape(-1, self.channels)
            if len(samples):
                yield (samples / 2**31).astype(np.float32)
            position += len(samples)
        if position == 0:
            raise MediaError("the recording has no samples")


class WavStream:
    """A 16-bit .wav written to a pipe as it is made, with the interface of `AudioWriter`.

    The header comes first, so it cannot know the length: the sizes are the largest, as other tools write them.
    """

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int) -> None:
        self._file = file
        frame = 2 * channels
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, sample_rate, sample_rate * frame, frame, 16)
        unknown = b"\xff\xff\xff\xff"
        file.write(b"RIFF" + unknown + b"WAVE" + form + b"data" + unknown)

    def write(self, block: Samples) -> None:
        """Appends (n, C) float32 samples, rounded and clipped to 16 bits."""
        self._file.write(_to_int16(block).astype("<i2").tobytes())
        self._file.flush()

    def close(self) -> None:
        """Nothing is left to be written."""


def _to_int16(block: Samples) -> NDArray[np.int16]:
    """The inverse of reading, bit for bit."""
    return (block * 32768).round().clip(-32768, 32767).astype(np.int16)


class AudioWriter:
    """A recording written block by block, 16 bits a sample; format by file suffix.

    Raises:
        MediaError: A suffix, sample rate or channel count that cannot be written.
        OSError: The file cannot be written to; so do all methods.
    """

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int, suffix: str = "wav") -> None:
        name = AUDIO_SUFFIXES.get(suffix.lower())
        if name is None:
            raise MediaError(f"cannot write audio as .{suffix}; use one of {', '.join(sorted(AUDIO_SUFFIXES))}")
        subtype = {"WAV": "PCM_16", "FLAC": "PCM_16", "AIFF": "PCM_16"}.get(name)
        if suffix.lower() == "opus":
            subtype = "OPUS"
        self._room = MAX_RIFF_BYTES if name in ("WAV", "AIFF") else None
        self._target = _Target(file)
        with self._target.checked(f".{suffix} cannot hold {channels} channels at {sample_rate} Hz"):
            self._file = soundfile.SoundFile(self._target, "w", sample_rate, channels, subtype, format=name)

    def write(self, block: Samples) -> None:
        """Appends (n, C) float32 samples, rounded and clipped to 16 bits.

        Raises:
            MediaError: The recording outgrows the format.
        """
        values = _to_int16(block)
        if self._room is not None:
            self._room -= values.nbytes
            if self._room < 0:
                raise MediaError("the recording is above the 4 GiB of this format; write a .flac")
        with self._target.checked("cannot write the recording"):
            self._file.write(values)

    def close(self) -> None:
        """Completes the file."""
        with self._target.checked("cannot complete the recording"):
            self._file.close()


class _Target:
    """The file that libsndfile writes to. Its callbacks swallow every exception, a full disk or Ctrl-C: kept here."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    def write(self, data: bytes) -> int:
        return self._keep(self._file.write, data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._keep(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._keep(self._file.tell)

    def _keep(self, method: Callable[..., int], *arguments: Any) -> int:
        try:
            return method(*arguments)
        except BaseException as error:
            self._error = self._error or error
            return 0

    @contextmanager
    def checked(self, failure: str) -> Iterator[None]:
        """Raises what the file raised; or, in libsndfile's own errors, a MediaError of `failure` and the reason."""
        reason: Exception | None = None
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError, TypeError, ValueError) as error:  # soundfile asserts, too
            reason = error
        if self._error is not None:
            raise self._error
        if reason is not None:
            raise MediaError(f"{failure} ({_reason(reason)})")


def load_audio(file: BinaryIO, sample_rate: int | None = None) -> tuple[Samples, int]:
    """A whole recording as (T, C) float32 and its rate in Hz, resampled to `sample_rate` where that is given."""
    reader = AudioReader(file)
    samples = np.concatenate(list(reader.blocks()))
    if sample_rate is None or sample_rate == reader.sample_rate:
        return samples, reader.sample_rate
    return resample(samples, reader.sample_rate, sample_rate), sample_rate


def resample(samples: Samples, rate: int, target: int) -> Samples:
    """(T, C) at `rate` Hz -> (ceil(T * target / rate), C) at `target` Hz, by windowed-sinc interpolation."""
    import torch
    from torchaudio.functional import resample as sinc_resample

    if rate == target:
        return samples
    signal = torch.from_numpy(np.ascontiguousarray(samples.T))
    if rate * target // math.gcd(rate, target) ** 2 <= MAX_KERNEL:
        out = sinc_resample(signal, rate, target)
    else:
        # The filter bank has a row for each phase, and rates without a common factor (44101 Hz) would need gigabytes:
        # those go through the spectrum of whole seconds, a second of silence at the end.
        seconds = -(-len(samples) // rate) + 1
        spectrum = torch.fft.rfft(signal, seconds * rate)
        length = -(-len(samples) * target // rate)
        out = torch.fft.irfft(spectrum, seconds * target)[:, :length] * (target / rate)
    return np.ascontiguousarray(out.numpy().T)


def _descriptor(file: BinaryIO) -> int:
    """What libsndfile reads: a descriptor of its own, since its callbacks to a Python file swallow every exception."""
    try:
        descriptor = file.fileno()
    except OSError:  # in memory
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            return _descriptor(cast(BinaryIO, copy))
    file.flush()
    os.lseek(descriptor, file.tell(), os.SEEK_SET)
    return os.dup(descriptor)


def _reason(error: Exception) -> str:
    text = str(getattr(error, "error_string", error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
