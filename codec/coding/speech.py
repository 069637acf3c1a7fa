"""Recordings: windows at 16 kHz through the nets, and back at the original's rate.

blocks ─resample─windows─encoder─> indices ─Writer─> .bin
.bin ─Reader─> indices ─windows─decoder─resample─> blocks
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import torch

from codec.arguments import flag, whole
from codec.coding.bitstreams import Written, header_of, writer_of
from codec.coding.checks import AnyReader, check_length, expected
from codec.coding.effort import Chooser
from codec.coding.models import Model, check_header, need, tables_for
from codec.coding.search import Search
from codec.container.salvage import Salvage
from codec.media import AudioReader, Recording, Samples, at_rate
from codec.medium import SAMPLE_RATE, SPEECH
from codec.precision import exact_float32
from codec.windows import windows

log = logging.getLogger("codec")


FRAMES_PER_WINDOW = 2000  # 12 s of speech
CHANNELS_AT_ONCE = 4  # that the decoder's nets work on


def compress_speech(
    blocks: Iterable[Samples],
    sample_rate: int,
    channels: int,
    file: BinaryIO,
    model: Model,
    codebook_size: int,
    effort: int = 0,
    layers: bool = False,
    search: int = 0,
) -> Written:
    """Codes a recording, channel by channel, in constant memory but for what layers wait for.

    Args:
        blocks: (n, C) float32 samples in [-1, 1], each an array, or what makes one.
        sample_rate: Of the recording, Hz; coding runs at 16 kHz.
        channels: C.
        file: Receives the bitstream; need not seek.
        codebook_size: One of the model's.
        effort: 0 to `MAX_EFFORT`: how much nearness to give up for fewer bits.
        layers: Write a file that can be cut to every coarser codebook size that this one refines.
        search: Steps of analysis by synthesis, 0 to `MAX_STEPS`; see `codec.coding.search`.

    Raises:
        ModelError: A model for pictures, one that cannot choose among codes where an effort is
            asked for, or one without layers where they are wanted.
        MediaError: The format has no room for this rate, or for so many channels.
        ValueError: An effort, a search or a codebook size that there is not; a rate or a number of
            channels that is not whole; a block of another shape or no floats; or samples of which
            a latent is not finite.
        TypeError: The model or `layers` is something else.
    """
    need(model, SPEECH.name)
    sample_rate, channels = whole(sample_rate, "sample_rate"), whole(channels, "channels")
    codebook_size, layers = model.codec.bottleneck.check_size(codebook_size), flag(layers, "layers")
    nearer = Search(model, codebook_size, search, effort)
    chooser = Chooser(model, codebook_size, 0 if nearer.steps else effort)
    if sample_rate > SAMPLE_RATE:
        kept = SAMPLE_RATE / 1000
        log.warning(
            "recorded at %g kHz, coded at %g kHz: sounds above %g kHz are lost",
            sample_rate / 1000,
            kept,
            kept / 2,
        )
    header = header_of(model, codebook_size, channels=channels, sample_rate=sample_rate)
    writer = writer_of(file, header, model, layers)
    counted = _Counter(blocks, channels)
    stride = model.codec.stride
    signal = at_rate(counted, sample_rate, SAMPLE_RATE, channels)
    for window, left, core in windows(
        signal, FRAMES_PER_WINDOW * stride, model.codec.context * stride
    ):
        x = torch.from_numpy(np.ascontiguousarray(window.T))[:, None].to(model.device)
        first = left // stride
        with torch.inference_mode(), exact_float32(model.device):
            z, here = model.codec.latents(x), slice(first, first + -(-core // stride))
            if nearer.steps:
                writer.write(nearer(x, z)[:, :, here].cpu().numpy())
            else:
                writer.write(chooser(z[:, :, here]))
        file.flush()  # whoever listens at the other end of a pipe gets each chunk at once
    writer.finish(counted.total)
    return Written(writer.total_bytes, writer.payload_bytes, counted.total / sample_rate)


def decompress_speech(reader: AnyReader, model: Model) -> Iterator[Samples]:
    """Decodes a recording: (n, C) float32 blocks at the original rate, in constant memory.

    Where something is lost there is silence.

    Raises:
        BitstreamError: Damaged, of a length that does not fit its indices, or beyond the limits;
            before the first block where the file seeks.
    """
    need(model, SPEECH.name)
    check_header(reader.header, model)
    header, codec = reader.header, model.codec
    end = expected(reader, model)
    if isinstance(reader, Salvage) and end is None:
        reader.num_samples = reader.num_positions * codec.stride * header.sample_rate // SAMPLE_RATE
    written = 0
    signal = _speech_at_model_rate(reader, model)
    for block in at_rate(signal, SAMPLE_RATE, header.sample_rate, header.channels):
        if reader.finished:  # the last blocks: the signal was padded to whole frames
            block = block[: max(reader.num_samples - written, 0)]
        reader.budget.spend_samples(len(block))
        written += len(block)
        yield block
    if not isinstance(reader, Salvage):
        check_length(reader.num_samples, reader.num_positions, reader, model)


def _speech_at_model_rate(reader: AnyReader, model: Model) -> Iterator[Samples]:
    codec, size = model.codec, reader.header.codebook_size
    # Positions first.
    chunks = (chunk.transpose(2, 0, 1) for chunk in reader.chunks(tables_for(reader.header, model)))
    first = 0
    for window, left, core in windows(chunks, FRAMES_PER_WINDOW, codec.context):
        indices = torch.from_numpy(np.ascontiguousarray(window.transpose(1, 2, 0))).to(model.device)
        with torch.inference_mode():
            parts = torch.split(indices, CHANNELS_AT_ONCE)
            x = torch.cat(
                [codec.decode(part, (len(window) * codec.stride,), size)[:, 0] for part in parts]
            )
        block = np.ascontiguousarray(
            x[:, left * codec.stride : (left + core) * codec.stride].cpu().numpy().T
        )
        for start, stop in reader.gaps:
            block[max(start - first, 0) * codec.stride : max(stop - first, 0) * codec.stride] = 0
        first += core
        yield block


class _Counter:
    """Passes blocks of C channels on, and counts their samples.

    Raises ValueError at one that is not (n, C), or no floats.
    """

    def __init__(self, blocks: Iterable[Samples], channels: int) -> None:
        self._blocks, self._channels = blocks, channels
        self.total = 0

    def __iter__(self) -> Iterator[Samples]:
        for given in self._blocks:
            block = np.asarray(given)
            if block.ndim != 2 or block.shape[1] != self._channels or block.dtype.kind != "f":
                raise ValueError(
                    f"want blocks (n, {self._channels}) of floats in [-1, 1], "
                    f"not {block.shape} of {block.dtype}"
                )
            self.total += len(block)
            yield block


def open_speech(file: BinaryIO | AudioReader, mono: bool) -> tuple[Iterator[Samples], int, int]:
    """A recording's blocks, sample rate in Hz and channels.

    The channels are mixed into one if `mono`.
    """
    recording = Recording(file, mono)
    return recording.blocks(), recording.sample_rate, recording.channels
