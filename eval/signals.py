"""What evaluation does with the signals of each medium.

A signal is one item in memory: (n, 1) float32 at 16 kHz in [-1, 1], or (H, W, 3) uint8.

    content of a file ─read─> signal ─compress─> .bin ─decompress─> signal of the same shape
    signal ─compared─> what metrics take          signal ─to_nets─> (1, C, *N) ─from_nets─> signal

A third medium is one more class here, and an entry in the tables of metrics, classic codecs and
galleries. torch is imported on first use: the page of the app comes before it.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.errors import MediaError
from codec.media import AudioWriter, Pixels, load_audio, load_image, save_image
from codec.medium import IMAGE, SAMPLE_RATE, SPEECH

if TYPE_CHECKING:
    from torch import Tensor

    from codec.coding import AnyReader, Model

Signal = NDArray[Any]
Content = bytes | Pixels  # of a file, or pixels that have no file of their own


class Signals(ABC):
    """What there is to do with the signals of one medium.

    Attributes:
        items: What several signals are called.
        suffix: Of the files that keep a signal as it is.
    """

    items: str
    suffix: str

    @abstractmethod
    def read(self, content: Content, crop: int | None, level_dbfs: float | None) -> Signal:
        """Reads a signal.

        Args:
            content: What an item holds.
            crop: See `cut`; it concerns pictures.
            level_dbfs: See `at_level`; it concerns recordings.

        Raises:
            MediaError: Not readable; or a picture, where a level is asked for.
        """

    @abstractmethod
    def write(self, file: BinaryIO, signal: Signal) -> None:
        """Writes a signal as it is, in the format of `suffix`."""

    @abstractmethod
    def units(self, signal: Signal) -> float:
        """Returns the seconds or pixels that rates are divided by."""

    @abstractmethod
    def compared(self, signal: Signal) -> Signal:
        """Returns the array that metrics take: (n,) samples, or the picture as it is."""

    @abstractmethod
    def compress(
        self,
        signal: Signal,
        file: BinaryIO,
        model: Model,
        codebook_size: int,
        effort: int = 0,
        search: int = 0,
    ) -> None:
        """Writes the bitstream of a signal by one of our models.

        `effort` and `search` are as in `codec.compress`.
        """

    @abstractmethod
    def decompress(self, reader: AnyReader, model: Model) -> Signal:
        """Returns the signal that a bitstream of one of our models holds."""

    @abstractmethod
    def to_nets(self, signal: Signal) -> Tensor:
        """Returns (1, C, *N) float32 in the range that nets take."""

    @abstractmethod
    def from_nets(self, x: Tensor) -> Signal:
        """Returns the signal of what nets gave, (1, C, *N)."""

    @abstractmethod
    def fitted(self, signal: Signal, length: int) -> Signal:
        """Returns what another network gave, with `length` samples; a picture stays as it is."""


class Recordings(Signals):
    items, suffix = "clips", "flac"

    def read(self, content: Content, _: int | None, level_dbfs: float | None) -> Signal:
        assert isinstance(content, bytes)
        mixed = load_audio(io.BytesIO(content), SAMPLE_RATE)[0].mean(1, keepdims=True)
        return mixed if level_dbfs is None else at_level(mixed, level_dbfs)

    def write(self, file: BinaryIO, signal: Signal) -> None:
        writer = AudioWriter(file, SAMPLE_RATE, 1, self.suffix)
        writer.write(signal)
        writer.close()

    def units(self, signal: Signal) -> float:
        return len(signal) / SAMPLE_RATE

    def compared(self, signal: Signal) -> Signal:
        return signal[:, 0]

    def compress(
        self,
        signal: Signal,
        file: BinaryIO,
        model: Model,
        codebook_size: int,
        effort: int = 0,
        search: int = 0,
    ) -> None:
        from codec import coding

        coding.compress_speech(
            [signal], SAMPLE_RATE, 1, file, model, codebook_size, effort, search=search
        )

    def decompress(self, reader: AnyReader, model: Model) -> Signal:
        from codec import coding

        samples = np.concatenate(list(coding.decompress_speech(reader, model)))
        return np.asarray(samples.clip(-1, 1))

    def to_nets(self, signal: Signal) -> Tensor:
        import torch

        return torch.tensor(signal).T[None]

    def from_nets(self, x: Tensor) -> Signal:
        return x[0].T.numpy()

    def fitted(self, signal: Signal, length: int) -> Signal:
        samples = np.clip(signal.reshape(-1, 1)[:length], -1, 1).astype(np.float32)
        return np.pad(samples, ((0, length - len(samples)), (0, 0)))


class Pictures(Signals):
    items, suffix = "pictures", "png"

    def read(self, content: Content, crop: int | None, level_dbfs: float | None) -> Signal:
        if level_dbfs is not None:
            raise MediaError("a picture, which has no level")
        return cut(load_image(io.BytesIO(content)) if isinstance(content, bytes) else content, crop)

    def write(self, file: BinaryIO, signal: Signal) -> None:
        save_image(file, signal)

    def units(self, signal: Signal) -> float:
        return int(signal.shape[0] * signal.shape[1])

    def compared(self, signal: Signal) -> Signal:
        return signal

    def compress(
        self,
        signal: Signal,
        file: BinaryIO,
        model: Model,
        codebook_size: int,
        effort: int = 0,
        search: int = 0,
    ) -> None:
        from codec import coding

        coding.compress_image(signal, file, model, codebook_size, effort, search=search)

    def decompress(self, reader: AnyReader, model: Model) -> Signal:
        from codec import coding

        return coding.decompress_image(reader, model)

    def to_nets(self, signal: Signal) -> Tensor:
        import torch

        return torch.tensor(signal).movedim(-1, 0)[None].float() / 255

    def from_nets(self, x: Tensor) -> Signal:
        import torch

        return x[0].mul(255).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).numpy()

    def fitted(self, signal: Signal, length: int) -> Signal:  # noqa: ARG002  it has no length
        return signal


SIGNALS: dict[str, Signals] = {SPEECH.name: Recordings(), IMAGE.name: Pictures()}


def at_level(signal: NDArray[np.float32], level_dbfs: float) -> NDArray[np.float32]:
    """A recording as it would be at another input level.

    It is scaled to a root mean square of so many dB below full scale.

    The mean is over the whole clip, pauses included. What then is beyond full scale is cut off, as
    a converter does; that is the original which a decoded clip is held against. Silence stays
    silence.

    Args:
        signal: (n, 1) in [-1, 1].
        level_dbfs: The root mean square wanted, in dB; 0 is a square wave of full scale.
    """
    level = float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) if len(signal) else 0.0
    return (
        (signal * (10 ** (level_dbfs / 20) / level)).clip(-1, 1).astype(np.float32)
        if level
        else signal
    )


def cut(pixels: Pixels, crop: int | None) -> Pixels:
    """Scales a picture so that its shorter side has `crop` pixels (Lanczos).

    Then it cuts the centre square.
    """
    height, width = pixels.shape[:2]
    if crop is None or (height, width) == (crop, crop):
        return pixels
    scale = crop / min(height, width)
    size = (max(round(width * scale), crop), max(round(height * scale), crop))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - crop) // 2, (size[1] - crop) // 2
    return np.array(image.crop((left, top, left + crop, top + crop)))
