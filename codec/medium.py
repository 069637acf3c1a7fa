"""The media that are coded, as objects.

All that tells speech from pictures stands here once, and nowhere is a name compared.

    MEDIA["speech"] ──> nets        axes, channels, values
                        container   letter, size_fields, channel_counts, timed
                        files       read, write, suffixes
                        reports     units, rate, pace

Training and evaluation hang what is theirs on a medium by registries of their own, keyed by its
name: losses and discriminators, metrics and classic codecs. Nothing heavy is imported here; readers
and writers are on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

SAMPLE_RATE = 16_000  # Hz, at which speech is coded, trained on and measured
# Of recordings that are read, and of those that a file may name.
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
MAX_CHANNELS = 64
MAX_SIDE = 1 << 17  # pixels


class Shape(Protocol):
    """The size of a signal, as a file's header tells it; `codec.container.Header` is one."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


class Writer(Protocol):
    """A media file that is written block by block."""

    def write(self, block: Any) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Medium:
    """What is coded: a kind of signal, its files and its units.

    Attributes:
        name: As models, recipes and reports name it.
        noun: One such signal, in a sentence.
        letter: Names it in a file's header.
        timed: Whether a signal runs in time: it has a sample rate and as many samples as come, each
            of its channels is a stream of its own, and it can be read from a pipe and written to
            one. Else its size is known at once.
        axes: Of a signal: 1 or 2.
        axes_text: Their names, for messages.
        channels: C, of the signals that nets take.
        values: The range of their values, for messages.
        channel_counts: The numbers of channels that an original may have.
        size_fields: Fields of a header, in their order behind the channels, and the least and
            greatest value of each.
        value_bytes: Of a value in a media file that is not compressed.
        suffixes: Suffix of a file that can be written -> its format.
        default_suffix: Of the format that loses nothing.
        rate_unit: What rates are given in.
        rate_bits: Bits for each second or pixel that are 1 in that unit.
        rate_digits: Decimals of a rate.
        pace_unit: What the speed of coding is given in.
        pace_units: Seconds or pixels in a second that are 1 in that unit.
        quality: The figure by which models of this medium are ranked, higher is better.
        reader: Opens a media file; `read` calls it.
        writer: Begins one; `write` calls it.
    """

    name: str
    noun: str
    letter: bytes
    timed: bool
    axes: int
    axes_text: str
    channels: int
    values: str
    channel_counts: Collection[int]
    size_fields: Mapping[str, tuple[int, int]]
    value_bytes: int
    suffixes: Mapping[str, str]
    default_suffix: str
    rate_unit: str
    rate_bits: int
    rate_digits: int
    pace_unit: str
    pace_units: float
    pace_digits: int
    quality: str
    reader: Callable[..., Any]
    writer: Callable[..., Writer]

    def units(self, shape: Shape, num_samples: int = 0) -> float:
        """What rates are divided by: seconds of a recording, or pixels of a picture.

        Samples are counted per channel.
        """
        return num_samples / shape.sample_rate if self.timed else float(shape.height * shape.width)

    def num_streams(self, channels: int) -> int:
        """Streams of indices of a signal with so many channels."""
        return channels if self.timed else 1

    def rate(self, num_bytes: float, units: float) -> float:
        """In `rate_unit`, of so many bytes for so many seconds or pixels."""
        return 8 * num_bytes / max(units, 1e-9) / self.rate_bits

    @property
    def rate_key(self) -> str:
        """What records call a rate as a number: "kbit_per_s" or "bits_per_pixel"."""
        return self.rate_unit.replace("/", "_per_").replace(" ", "_")

    def rate_text(self, num_bytes: float, units: float) -> str:
        """A rate with its unit."""
        return f"{self.rate(num_bytes, units):.{self.rate_digits}f} {self.rate_unit}"

    def pace_text(self, units: float, elapsed_s: float) -> str:
        """How fast so many seconds or pixels were coded."""
        pace = units / max(elapsed_s, 1e-9) / self.pace_units
        return f"{pace:.{self.pace_digits}f} {self.pace_unit}"

    def read(self, file: BinaryIO, *, mono: bool = False, max_pixels: int | None = None) -> Any:
        """Opens a media file: `codec.media.Recording` of speech, `codec.media.Picture` of an image.

        Args:
            file: A binary file open for reading.
            mono: Mixes the channels of a recording into one.
            max_pixels: Refuse larger pictures; None for the default.

        Raises:
            MediaError: It cannot be read.
        """
        return self.reader(file, mono, max_pixels)

    def write(self, file: BinaryIO, shape: Shape, suffix: str, piped: bool = False) -> Writer:
        """Begins a media file.

        Args:
            file: A binary file open for writing.
            shape: Of the signal.
            suffix: Chooses the format.
            piped: The file cannot seek, which a medium that runs in time may be written to.

        Raises:
            MediaError: That format cannot hold it.
        """
        return self.writer(file, shape, suffix, piped)


def _read_speech(file: BinaryIO, mono: bool, _: int | None) -> Any:
    from codec.media import Recording

    return Recording(file, mono)


def _write_speech(file: BinaryIO, shape: Shape, suffix: str, piped: bool) -> Writer:
    from codec.media import AudioWriter, WavStream

    if piped:
        return WavStream(file, shape.sample_rate, shape.channels)
    return AudioWriter(file, shape.sample_rate, shape.channels, suffix)


def _read_image(file: BinaryIO, _: bool, max_pixels: int | None) -> Any:
    from codec.media import MAX_PIXELS, Picture

    return Picture(file, MAX_PIXELS if max_pixels is None else max_pixels)


def _write_image(file: BinaryIO, shape: Shape, suffix: str, _: bool) -> Writer:
    from codec.media import ImageWriter

    return ImageWriter(file, shape.height, shape.width, suffix, shape.channels)


SPEECH = Medium(
    name="speech",
    noun="a recording",
    letter=b"S",
    timed=True,
    axes=1,
    axes_text="T",
    channels=1,
    values="[-1, 1]",
    channel_counts=range(1, MAX_CHANNELS + 1),
    size_fields={"sample_rate": (MIN_RATE_HZ, MAX_RATE_HZ)},
    value_bytes=2,
    suffixes={
        "wav": "WAV",
        "flac": "FLAC",
        "ogg": "OGG",
        "opus": "OGG",
        "mp3": "MP3",
        "aiff": "AIFF",
        "aif": "AIFF",
    },
    default_suffix="wav",
    rate_unit="kbit/s",
    rate_bits=1000,
    rate_digits=3,
    pace_unit="x real time",
    pace_units=1,
    pace_digits=1,
    quality="STOI",
    reader=_read_speech,
    writer=_write_speech,
)
IMAGE = Medium(
    name="image",
    noun="a picture",
    letter=b"I",
    timed=False,
    axes=2,
    axes_text="H, W",
    channels=3,
    values="[0, 1]",
    channel_counts=(1, 3),
    size_fields={"height": (1, MAX_SIDE), "width": (1, MAX_SIDE)},
    value_bytes=1,
    suffixes={
        "png": "PNG",
        "jpg": "JPEG",
        "jpeg": "JPEG",
        "webp": "WEBP",
        "bmp": "BMP",
        "tif": "TIFF",
        "tiff": "TIFF",
    },
    default_suffix="png",
    rate_unit="bits per pixel",
    rate_bits=1,
    rate_digits=4,
    pace_unit="megapixel/s",
    pace_units=1e6,
    pace_digits=2,
    quality="SSIM",
    reader=_read_image,
    writer=_write_image,
)
MEDIA = {medium.name: medium for medium in (SPEECH, IMAGE)}
BY_LETTER = {medium.letter: medium for medium in MEDIA.values()}
SIZE_FIELDS = tuple(
    dict.fromkeys(field for medium in MEDIA.values() for field in medium.size_fields)
)
assert len(BY_LETTER) == len(MEDIA)


def rate_units() -> str:
    """What rates are given in, for messages."""
    return ", or ".join(medium.rate_unit for medium in MEDIA.values())


def names(media: Iterable[Medium] = MEDIA.values()) -> str:
    """The names of media, for messages."""
    return ", ".join(medium.name for medium in media)
