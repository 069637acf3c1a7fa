"""What the app does with each medium: opens inputs, scores versions, lays out tokens. No Gradio.

A third medium is one more class here, and an entry in the tables of `app.views` and
`app.input_panel`, which say how the page takes and shows it.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.store import Settings
from app.words import duration
from codec.container import Header
from codec.container.limits import SAMPLES_PER_SECOND
from codec.errors import MediaError
from codec.media import IMAGE_FORMATS, AudioReader, Samples, load_image, resample
from codec.medium import IMAGE, MAX_CHANNELS, SAMPLE_RATE, SPEECH

SCORED_SECONDS = 10  # PESQ takes a quarter of a second for these
SCORED_PIXELS = 1 << 20  # SSIMULACRA2 takes two seconds and a gigabyte for these

SEARCH = 10  # steps, where a search is asked for
Signal = NDArray[Any]
Metric = Callable[[Any, Any], float | None]
Scores = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a signal, as files state it; see `codec.medium.Shape`."""

    sample_rate: int = 0
    channels: int = 3
    height: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that was read.

    Attributes:
        blocks: The signal as it came: (n, C) of a recording, one (H, W, 3) of a picture.
        size: Its size.
        signal: What versions are compared with: (n, 1) float32 at 16 kHz, or (H, W, 3) uint8.
        description: It, in one line without its bytes.
        notices: Remarks for the user.
    """

    blocks: Sequence[Signal]
    size: Size
    signal: Signal
    description: str
    notices: Sequence[str] = ()


class Kind(ABC):
    """What the app does with one medium.

    Attributes:
        mistaken: What is said where such a file is given, and another medium is wanted.
        searched_units: Seconds, or pixels, that are searched for at most, in `SEARCH` steps; more
            would take minutes.
    """

    mistaken: str
    searched_units: float

    @abstractmethod
    def open(self, data: bytes, settings: Settings) -> Opened:
        """Reads a file.

        Raises:
            MediaError: It cannot be read, or is beyond the limits of the settings.
        """

    @abstractmethod
    def decoded(self, blocks: Sequence[Signal], sample_rate: int) -> Signal:
        """Returns what metrics compare of a decoded signal: (T,) at 16 kHz, or (H, W, 3)."""

    @abstractmethod
    def score(
        self, reference: Signal, samples: Signal, perceptual: Callable[[], Mapping[str, Metric]]
    ) -> Scores:
        """Returns the page's metrics; None where there is no figure.

        Args:
            reference: The original, in the form that `decoded` has.
            samples: The version, in the same form.
            perceptual: Gives LPIPS by its name, where a backbone is there.
        """

    @abstractmethod
    def grid(self, header: Header, codec: Any, positions: int) -> tuple[int, int]:
        """Returns the rows and columns in which the page shows the positions of a file."""

    @abstractmethod
    def spot(self, grid: tuple[int, int], x: float, y: float, side: float) -> NDArray[np.bool_]:
        """Returns which positions of a grid are in a spot around (x, y) in [0, 1].

        It is a square of side * side positions of a picture, and `side` positions in a row of
        speech; less where the grid ends. static/map.js draws the same ones.
        """


class Recording(Kind):
    mistaken = f"this is no picture in a known format ({', '.join(IMAGE_FORMATS)})"
    searched_units = 60.0

    def open(self, data: bytes, settings: Settings) -> Opened:
        reader = AudioReader(io.BytesIO(data))
        rate, channels = reader.sample_rate, reader.channels
        if channels > MAX_CHANNELS:  # a block of theirs alone may not fit into memory
            raise MediaError(f"{channels} channels; the format has {MAX_CHANNELS}: mix them first")
        blocks, total = [], 0
        for block in reader.blocks():
            total += len(block)
            if total > settings.max_seconds * rate:
                raise MediaError(
                    f"the recording is longer than {settings.max_seconds:g} s, the most that is "
                    "taken here: cut it, or use python -m codec.compress, which has no limit"
                )
            if total * channels > settings.max_seconds * SAMPLES_PER_SECOND:
                raise MediaError(
                    f"{channels} channels at {rate / 1000:g} kHz are too much for this page: "
                    "mix it to stereo"
                )
            blocks.append(block)
        samples = np.concatenate(blocks)
        notices = []
        if rate > SAMPLE_RATE:
            notices.append(f"recorded at {rate / 1000:g} kHz: the codec keeps sounds up to 8 kHz")
        if not samples.any():
            notices.append("the recording is silent: there is nothing to hear or to score")
        known = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
        description = f"{duration(total / rate)}, {rate / 1000:g} kHz {known}"
        signal = at_speech_rate(samples, rate)[:, None]
        return Opened([samples], Size(rate, channels), signal, description, notices)

    def decoded(self, blocks: Sequence[Signal], sample_rate: int) -> Signal:
        return at_speech_rate(np.concatenate(blocks).clip(-1, 1), sample_rate)

    def score(
        self, reference: Signal, samples: Signal, _: Callable[[], Mapping[str, Metric]]
    ) -> Scores:
        from eval.metrics import score

        count = min(SCORED_SECONDS * SAMPLE_RATE, len(reference), len(samples))
        return score(SPEECH.name, reference[:count], samples[:count])

    def grid(self, _: Header, codec: Any, positions: int) -> tuple[int, int]:
        columns = round(codec.token_rate_hz or 1)
        return -(-positions // columns), columns

    def spot(self, grid: tuple[int, int], x: float, y: float, side: float) -> NDArray[np.bool_]:
        rows, columns = grid
        row, column = np.ogrid[:rows, :columns]
        centre = int(y * rows) * columns + x * columns
        return _near(row * columns + column, centre, side)


def _refuse_large(width: int, height: int, settings: Settings) -> None:
    """Raises MediaError where a picture is too large for the page; it may lie on its side."""
    if width * height > settings.max_pixels:
        raise MediaError(
            f"the picture has {width} × {height} = {width * height:,} pixels; at most "
            f"{settings.max_pixels:,} are taken here: scale it down"
        )
    if max(width, height) > settings.max_width:
        raise MediaError(
            f"the picture has {width} × {height} pixels; at most {settings.max_width:,} a "
            "side are taken here: cut it"
        )


class Picture(Kind):
    mistaken = "this is a picture; switch to Picture, or choose a recording"
    searched_units = float(1 << 19)

    def open(self, data: bytes, settings: Settings) -> Opened:
        try:
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                width, height = image.size
        except Exception:  # load_image knows what to say
            width = height = 0
        _refuse_large(width, height, settings)
        pixels = load_image(io.BytesIO(data), settings.max_pixels)
        height, width = pixels.shape[:2]
        _refuse_large(width, height, settings)
        size = Size(height=height, width=width)
        return Opened([pixels], size, pixels, f"{width} × {height} pixels")

    def decoded(self, blocks: Sequence[Signal], _: int) -> Signal:
        return np.concatenate(blocks)

    def score(
        self, reference: Signal, samples: Signal, perceptual: Callable[[], Mapping[str, Metric]]
    ) -> Scores:
        from eval.metrics import score, ssimulacra2

        small = samples.shape[0] * samples.shape[1] <= SCORED_PIXELS
        scores = score(IMAGE.name, reference, samples)
        scores["SSIMULACRA2"] = ssimulacra2(reference, samples) if small else None
        return scores | {name: metric(reference, samples) for name, metric in perceptual().items()}

    def grid(self, header: Header, codec: Any, _: int) -> tuple[int, int]:
        rows, columns = codec.grid((header.height, header.width))
        return rows, columns

    def spot(self, grid: tuple[int, int], x: float, y: float, side: float) -> NDArray[np.bool_]:
        rows, columns = grid
        row, column = np.ogrid[:rows, :columns]
        return _near(row, y * rows, side) & _near(column, x * columns, side)


def _near(positions: NDArray[np.int64], centre: float, count: float) -> NDArray[np.bool_]:
    """Returns which positions, unit squares from 0 on, are the `count` around a centre."""
    first = np.ceil(centre - (count + 1) / 2)
    return np.asarray((positions >= first) & (positions < first + count))


KINDS: dict[str, Kind] = {SPEECH.name: Recording(), IMAGE.name: Picture()}


def at_speech_rate(samples: Samples, rate: int) -> Samples:
    """Turns (T, C) at any rate into what is scored: the channels' mean at 16 kHz, (T,)."""
    return resample(samples.mean(1, keepdims=True), rate, SAMPLE_RATE)[:, 0]
