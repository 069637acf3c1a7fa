"""What is known of a file before anything is decoded, and whether it fits.

It has to fit its model, the limits and the output.
"""

from __future__ import annotations

from math import prod
from typing import TypeAlias, cast

from codec.coding.models import Model
from codec.container import End, Header, Reader
from codec.container.salvage import Salvage
from codec.errors import BitstreamError, MediaError
from codec.layers import Layered
from codec.media import MAX_RIFF_BYTES
from codec.medium import SAMPLE_RATE

UNCOMPRESSED = ("wav", "aiff", "aif", "bmp", "tif", "tiff")
AnyReader: TypeAlias = Reader | Layered | Salvage


def expected(reader: AnyReader, model: Model) -> End | None:
    """What a recording's end chunk declares, where that can be known before anything is decoded.

    From here on, the reader takes as many positions as the limits allow at the token rate of this
    model.

    Raises:
        BitstreamError: The positions do not fit the samples, or either is beyond the limits.
    """
    reader.budget.token_rate_hz = cast(float, model.codec.token_rate_hz)
    reader.budget.spend_positions(0)  # those of a damaged file are all known by now
    end = reader.foresee()
    if end is not None:
        reader.budget.check_samples(end.num_samples, end.offset)
        check_length(end.num_samples, end.num_positions, reader, model)
    return end


def check_room(reader: AnyReader, model: Model, suffix: str) -> None:
    """Refuses, before decoding, a media file of this suffix that there is no room for.

    Its size must be known.

    Raises:
        BitstreamError: As `expected`.
        MediaError: The format, or `Limits.max_bytes`, has no room.
    """
    header, num_bytes = reader.header, 0
    if not header.kind.timed:
        num_bytes = header.kind.value_bytes * header.kind.channels * header.height * header.width
    elif (end := expected(reader, model)) is not None:
        num_bytes = header.kind.value_bytes * end.num_samples * header.channels
        if num_bytes > MAX_RIFF_BYTES and suffix in ("wav", "aiff", "aif"):
            raise MediaError("the recording is above the 4 GiB of this format; write a .flac")
    if suffix in UNCOMPRESSED:
        reader.budget.check_bytes(num_bytes)


def check_length(num_samples: int, num_positions: int, reader: AnyReader, model: Model) -> None:
    """Raises BitstreamError where a recording of so many samples has other numbers of positions."""
    at_model_rate = -(-num_samples * SAMPLE_RATE // reader.header.sample_rate)
    if num_positions != model.codec.grid((at_model_rate,))[0]:
        raise BitstreamError(
            f"{num_samples} samples do not fit {num_positions} positions; the file is damaged"
        )


def num_positions(header: Header, model: Model) -> int | None:
    """How many positions a file should hold, where its header tells: a picture's."""
    return None if header.kind.timed else prod(model.codec.grid((header.height, header.width)))
