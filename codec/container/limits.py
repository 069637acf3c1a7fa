"""How much a file may decode to.

A few hundred bytes can stand for hours of sound, so decoding has a budget.

    Limits ──a file's header──> Budget <── positions   the reader, chunk by chunk
                                       <── samples     the resampler, block by block
                                       <── bytes       whoever writes the output

Each refuses before the memory or the disk is taken that it would need.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from codec.arguments import whole
from codec.errors import BitstreamError, MediaError

if TYPE_CHECKING:
    from codec.container.header import Header

# More than any speech model has: a bound for as long as the model is not known.
POSITIONS_PER_SECOND = 1000
SAMPLES_PER_SECOND = 2 * 192_000  # of all channels together: more is refused as being longer is
RAISE_SECONDS = "raise --max-seconds if you trust the file"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a caller is willing to decode.

    The first two are the command-line options of the same names.

    Args:
        max_pixels: height * width of a picture, and its number of positions.
        max_seconds: Duration of a recording. Also bounds its positions, at the token rate of its
            model, and its samples: all channels together have at most `SAMPLES_PER_SECOND` for each
            second that is allowed.
        max_bytes: Of the output; None for any number.
        max_width: Of a picture. The nets hold a few of its rows at once, so that memory grows with
            their length: a picture of this default takes 2.5 GiB, however few rows it has.
    """

    max_pixels: int = 1 << 26
    max_seconds: int = 24 * 3600
    max_bytes: int | None = None
    max_width: int = 1 << 17

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_seconds", "max_width"):
            whole(getattr(self, name), name, 0)
        if self.max_bytes is not None:
            whole(self.max_bytes, "max_bytes", 0)


DEFAULT_LIMITS = Limits()
# For what is handed out whole: three hours of stereo at 48 kHz.
IN_MEMORY = Limits(max_bytes=1 << 30)


class Budget:
    """What one file may still take of the limits, while it is decoded.

    Args:
        limits: Those of the caller.
        header: The file's.

    Attributes:
        token_rate_hz: Positions a second of speech, those of the model once that is known.
    """

    def __init__(self, limits: Limits, header: Header) -> None:
        self.token_rate_hz: float = POSITIONS_PER_SECOND
        self._limits = limits
        self._header = header
        self._positions = self._samples = 0

    def spend_positions(self, count: int, offset: int | None = None) -> None:
        """Positions of every stream; `offset` is where in the file they are declared.

        Raises:
            BitstreamError: All together are more than the limits allow.
        """
        self._positions += count
        if self._positions > self.most_positions:
            most = self.most_positions
            message = f"more than {most} positions: raise --max-pixels if you trust the file"
            if self._header.kind.timed:
                message = f"more positions than {self._limits.max_seconds} s hold: {RAISE_SECONDS}"
            raise BitstreamError(message, offset)

    @property
    def most_positions(self) -> int:
        """Of every stream."""
        if self._header.kind.timed:
            return ceil(self._limits.max_seconds * self.token_rate_hz)
        return self._limits.max_pixels

    def spend_samples(self, count: int) -> None:
        """Samples per channel, at the rate of the original. Raises what `check_samples` does."""
        self._samples += count
        self.check_samples(self._samples)

    def check_samples(self, count: int, offset: int | None = None) -> None:
        """Refuses so many samples per channel; `offset` is where in the file they are declared.

        Raises:
            BitstreamError: They last too long, or all channels together are too many.
        """
        limits, rate, channels = self._limits, self._header.sample_rate, self._header.channels
        if count > limits.max_seconds * rate:
            message = (
                f"the recording lasts {count // rate} s, over the limit of {limits.max_seconds} s"
            )
            raise BitstreamError(f"{message}: {RAISE_SECONDS}", offset)
        most = limits.max_seconds * SAMPLES_PER_SECOND
        if count * channels > most:
            message = f"{channels} channels of {count} samples are over the limit of {most} samples"
            raise BitstreamError(f"{message}: {RAISE_SECONDS}", offset)

    def check_bytes(self, count: int) -> None:
        """Refuses an output of so many bytes. Raises MediaError where there is no room for them."""
        most = self._limits.max_bytes
        if most is not None and count > most:
            raise MediaError(
                f"the output has {count} bytes or more, and there is room for {most}: make room"
            )
