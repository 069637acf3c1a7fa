"""Media files there and back, whatever the medium: `CODINGS` says how each is coded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from numpy.typing import NDArray

from codec.coding import pictures, speech
from codec.coding.bitstreams import Written
from codec.coding.checks import UNCOMPRESSED, AnyReader, check_room
from codec.coding.models import Model, need
from codec.coding.watch import Watch
from codec.media import Picture, Recording
from codec.medium import IMAGE, SPEECH


@dataclass(frozen=True, slots=True)
class Coding:
    """How a medium is coded.

    Attributes:
        compress: (signal, file, model, codebook_size, effort, layers, search, watch) ->
            `Written`; see `compress`.
        decompress: (reader, model) -> blocks of a recording, or strips of a picture.
    """

    compress: Callable[[Any, BinaryIO, Model, int, int, bool, int, Watch | None], Written]
    decompress: Callable[[AnyReader, Model], Iterator[NDArray[Any]]]


def compress(
    medium: str,
    signal: Recording | Picture,
    file: BinaryIO,
    model: Model,
    codebook_size: int,
    effort: int = 0,
    layers: bool = False,
    search: int = 0,
    watch: Watch | None = None,
) -> Written:
    """Codes what `Medium.read` opened.

    Args:
        medium: Its name.
        signal: The recording or picture.
        file: Receives the bitstream; need not seek.
        model: One of this medium.
        codebook_size: One of the model's.
        effort: 0 to `MAX_EFFORT`: how much nearness to give up for fewer bits.
        layers: Write a file that can be cut to every coarser codebook size that this one refines.
        search: Steps of analysis by synthesis, 0 to `MAX_STEPS`: slower, and nearer for the same K.
        watch: Sees the blocks of a recording pass, or the latents of a picture.

    Raises:
        ModelError: A model of another medium, and as for `compress_speech`.
        ValueError: An effort, a search or a codebook size that there is not.
    """
    need(model, medium)
    return CODINGS[medium].compress(
        signal, file, model, codebook_size, effort, layers, search, watch
    )


def decompress(
    reader: AnyReader,
    model: Model,
    out: BinaryIO | None = None,
    suffix: str = "",
    piped: bool = False,
    watch: Watch | None = None,
) -> float:
    """Decodes to a media file, or only verifies.

    Args:
        reader: Of the bitstream.
        model: The one that it names.
        out: Receives the media file; None to write nothing.
        suffix: Of its format.
        piped: It cannot seek, and takes what comes at once.
        watch: Of a recording, sees its blocks pass.

    Returns:
        Seconds of the recording, or pixels of the picture.

    Raises:
        BitstreamError: Damaged, or beyond the limits.
        MediaError: The format cannot hold it, or there is no room.
    """
    header = reader.header
    if out is not None and not piped:
        check_room(reader, model, suffix)
    blocks = CODINGS[header.medium].decompress(reader, model)
    if watch is not None and header.kind.timed:
        blocks = iter(watch(blocks, header.sample_rate))
    writer = None
    for block in blocks:
        if out is None:
            continue
        # What comes is known now to fit the header.
        writer = writer or header.kind.write(out, header, suffix, piped)
        if not piped:  # what is compressed takes less than its values do
            ahead = header.kind.value_bytes * block.size if suffix in UNCOMPRESSED else 0
            reader.budget.check_bytes(out.tell() + ahead)
        writer.write(block)
    if out is not None:
        (writer or header.kind.write(out, header, suffix, piped)).close()
        if not piped:
            reader.budget.check_bytes(out.tell())
    return header.kind.units(header, reader.num_samples)


def _compress_recording(
    signal: Recording,
    file: BinaryIO,
    model: Model,
    codebook_size: int,
    effort: int,
    layers: bool,
    search: int,
    watch: Watch | None,
) -> Written:
    rate, blocks = signal.sample_rate, signal.blocks()
    watched = blocks if watch is None else watch(blocks, rate)
    return speech.compress_speech(
        watched, rate, signal.channels, file, model, codebook_size, effort, layers, search
    )


def _compress_picture(
    signal: Picture,
    file: BinaryIO,
    model: Model,
    codebook_size: int,
    effort: int,
    layers: bool,
    search: int,
    watch: Watch | None,
) -> Written:
    return pictures.compress_image(
        signal, file, model, codebook_size, effort, layers, search, watch
    )


CODINGS = {
    SPEECH.name: Coding(_compress_recording, speech.decompress_speech),
    IMAGE.name: Coding(_compress_picture, pictures.image_strips),
}
