"""Files and arrays: the only place that touches audio and picture files.

Audio is (T, C) float32 in [-1, 1]; a picture is (H, W, 3) uint8 RGB. The kind of a file is told from its content,
never from its name. What is lost on the way in (an alpha channel, 16-bit depth) is said through the "codec" logger.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from codec.errors import MediaError

log = logging.getLogger("codec")

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM")
MAX_PIXELS = 64 * 10**6
MAX_KERNEL = 40 * 10**6  # entries of a resampling filter bank
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
BLOCK = 1 << 16  # samples per channel read at a time
AUDIO_SUFFIXES = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "opus": "OGG", "mp3": "MP3", "aiff": "AIFF", "aif": "AIFF"}
IMAGE_SUFFIXES = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF"}

Samples = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def detect(head: bytes) -> str:
    """"image" or "speech" from the first bytes of a file; what is no known picture is left to the audio reader.

    Raises:
        MediaError: The file is empty.
    """
    if not head:
        raise MediaError("the file is empty; give a recording or a picture")
    signatures = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_avif = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1")
    is_ppm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    return "image" if head.startswith(signatures) or is_webp or is_avif or is_ppm else "speech"


def load_image(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Reads a picture as (H, W, 3) uint8 RGB, upright; alpha is laid on white, 16 bits become 8.

    Raises:
        MediaError: Not a picture of a known format, damaged, or above `max_pixels`.
    """
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise MediaError(
                    f"picture of {image.width}x{image.height} pixels is above the limit of {max_pixels}; "
                    "raise --max-pixels or scale it down"
                )
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except MediaError:
        raise
    except UnidentifiedImageError:
        raise MediaError(f"not a picture in a known format ({', '.join(IMAGE_FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise MediaError(f"{error}; scale the picture down") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow's readers raise on damaged files
        raise MediaError(f"damaged picture ({error}); save it again") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        log.warning("16-bit picture: coded with 8 bits a channel")
        values = np.asarray(image, np.float64)
        scale = 255 / 65535 if values.max(initial=0) > 255 else 1
        return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getextrema()[3] != (255, 255):
            log.warning("transparent picture: laid on white")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def save_image(file: BinaryIO, pixels: Pixels, suffix: str = "png") -> None:
    """Writes (H, W, 3) uint8 in the format of a file suffix. Raises MediaError for a suffix it cannot write."""
    name = IMAGE_SUFFIXES.get(suffix.lower())
    if name is None:
        raise MediaError(f"cannot write pictures as .{suffix}; use one of {', '.join(sorted(IMAGE_SUFFIXES))}")
    Image.fromarray(pixels).save(file, name, **({"quality": 95} if name in ("JPEG", "WEBP") else {}))


class AudioReader:
    """A recording read block by block.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.

    Raises:
        MediaError: Not audio, no samples, or a sample rate outside 1..768 kHz.
    """

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._file = soundfile.SoundFile(file)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            raise MediaError(f"not a recording or picture in a known format ({_reason(error)})") from None
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        if not MIN_RATE_HZ <= self.sample_rate <= MAX_RATE_HZ:
            raise MediaError(f"sample rate of {self.sample_rate} Hz; want {MIN_RATE_HZ}..{MAX_RATE_HZ}")

    def blocks(self) -> Iterator[Samples]:
        """(n, C) float32 blocks, n > 0, at most `BLOCK`.

        Raises:
            MediaError: NaN or infinite samples, or the file breaks off.
        """
        position = 0
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
            yield block
        if position == 0:
            raise MediaError("the recording has no samples")


class AudioWriter:
    """A recording written block by block, 16 bits a sample; format by file suffix.

    Raises:
        MediaError: A suffix, sample rate or channel count that cannot be written.
    """

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int, suffix: str = "wav") -> None:
        name = AUDIO_SUFFIXES.get(suffix.lower())
        if name is None:
            raise MediaError(f"cannot write audio as .{suffix}; use one of {', '.join(sorted(AUDIO_SUFFIXES))}")
        subtype = {"WAV": "PCM_16", "FLAC": "PCM_16", "AIFF": "PCM_16"}.get(name)
        if suffix.lower() == "opus":
            subtype = "OPUS"
        try:
            self._file = soundfile.SoundFile(file, "w", sample_rate, channels, subtype, format=name)
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            raise MediaError(f".{suffix} cannot hold {channels} channels at {sample_rate} Hz ({_reason(error)})") from None

    def write(self, block: Samples) -> None:
        """Appends (n, C) float32 samples, clipped to [-1, 1] and rounded to 16 bits."""
        self._file.write((np.clip(block, -1, 1) * 32767).round().astype(np.int16))

    def close(self) -> None:
        self._file.close()


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


def _reason(error: Exception) -> str:
    text = str(getattr(error, "error_string", error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
