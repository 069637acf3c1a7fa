"""Where nets meet bytes: media in, bitstream out, and back. The only such place.

Both directions stream, so that memory does not grow with length. Speech passes through overlapping windows, a core
with context on both sides that covers the nets' receptive field: the cut is invisible, and the windows lie at fixed
positions of the signal, however it arrives in blocks. A picture passes in strips of rows from layer to layer of a net,
each of which keeps the few rows that it needs of its neighbours: nothing is computed twice, and strips stay near the
cache.

Nets run in float32 here, whatever precision the caller computes in, so that the same input gives the same bytes.

    blocks ─windows─resample─> 16 kHz ─windows─encoder─> indices ─Writer─> .bin
    .bin ─Reader─> indices ─windows─decoder─> 16 kHz ─windows─resample─> blocks
    picture rows ─strips─layer─...─layer─> latent rows ─> indices ─Writer─> .bin          (and back the same way)
"""

from __future__ import annotations

import io
import logging
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import log as natural_log
from math import prod
from typing import BinaryIO, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.bitstream import LAYERED, End, Header, Indices, Reader, Writer, unpack_all
from codec.cards import LAYER, PRIOR, Card, Tensors
from codec.entropy import NO_TABLES, Prior, Tables
from codec.entropy.mixing import choose, columns_of
from codec.errors import BitstreamError, CodecError, MediaError, ModelError
from codec.layers import Layered, LayerWriter, ladder
from codec.limits import IN_MEMORY, Limits
from codec.media import MAX_RIFF_BYTES, AudioReader, Picture, Pixels, Samples, at_rate
from codec.model import Codec, CodecConfig, Medium, build
from codec.nets.speech import SAMPLE_RATE
from codec.precision import exact_float32, exactly
from codec.salvage import Salvage
from codec.windows import windows

log = logging.getLogger("codec")

FRAMES_PER_WINDOW = 2000  # 12 s of speech
ROWS_PER_CHUNK = 64  # latent rows of a picture, 512 pixels; fewer where they are long
FEWEST_ROWS = 8
GREY = 128
MAX_EFFORT = 9
EFFORT_UNIT = 16
CHOICES = 16  # nearest codes that an effort looks at
POSITIONS_PER_CHUNK = 1 << 15  # 2 megapixels
POSITIONS_PER_STRIP = {"cpu": 1 << 12, "cuda": 1 << 15}  # that nets work on at once: near a cache, or filling a GPU
FEWEST_STRIP_ROWS = 1  # of pictures so wide that memory is what counts
CHANNELS_AT_ONCE = 4  # that the decoder's nets work on
UNCOMPRESSED = ("wav", "aiff", "aif", "bmp", "tif", "tiff")


AnyReader: TypeAlias = Reader | Layered | Salvage


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model: nets, coder tables and card.

    Attributes:
        tables: Codebook size -> what its coders know.
        device: Where the nets run.
    """

    card: Card
    codec: Codec
    tables: dict[int, Tables]
    device: torch.device


def load(card: Card, device: str = "cpu") -> Model:
    """Loads a model, verified against its card, in eval mode.

    Raises:
        ModelError: Damaged, of an unknown kind, or tensors that do not fit its configuration.
        CodecError: There is no such device here.
    """
    target, tensors = _device(device), card.read()
    weights = {k: torch.from_numpy(v) for k, v in tensors.items() if not k.startswith(("tables.", PRIOR, LAYER))}
    try:
        tables = {size: _tables(tensors, size) for size in card.num_codes}
        codec = build(CodecConfig.from_dict(card.config))
        unused = {
            f"bottleneck.{k}": v for k, v in codec.bottleneck.named_buffers() if k in codec.bottleneck.training_state
        }
        codec.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()} | unused)
        codec = codec.to(target).eval().requires_grad_(False)
        bottleneck = codec.bottleneck
        if dict(card.num_codes) != {size: bottleneck.num_codes(size) for size in bottleneck.codebook_sizes}:
            raise ValueError("its card lists other codebook sizes")
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{card.path}: cannot build this model ({reason}); it may need another version of codec"
        ) from None
    return Model(card, codec, tables, target)


def _device(name: str) -> torch.device:
    """The device, tried. Raises CodecError where there is none such here."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has all three for it
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CodecError(f"device {name!r} cannot be used here ({reason}); use 'cpu'") from None
    return device


def _tables(tensors: Tensors, size: int) -> Tables:
    """The coder tables of one codebook size in a model file. Raises ValueError, TypeError or KeyError on bad ones."""
    frequencies = tensors.get(f"tables.{size}")
    found = []
    for kind in (PRIOR, LAYER):
        arrays = {k.split(".")[2]: v for k, v in tensors.items() if k.startswith(f"{kind}{size}.")}
        found.append(Prior.from_tensors(arrays) if arrays else None)
    prior, layer = found
    if (prior and prior.given) or (layer and not layer.given):
        raise ValueError("a prior of a size has no digits that are given, one of a layer some")
    return Tables(None if frequencies is None else frequencies.astype(np.int64), prior, layer)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the bitstream's bytes, those of them that are indices, and the size of what went in.

    `units` is seconds of speech or pixels of a picture, all that a rate is divided by.
    """

    total_bytes: int
    payload_bytes: int
    units: float


def compress_speech(
    blocks: Iterable[Samples],
    sample_rate: int,
    channels: int,
    file: BinaryIO,
    model: Model,
    codebook_size: int,
    effort: int = 0,
    layers: bool = False,
) -> Written:
    """Codes a recording, channel by channel, in constant memory but for what layers wait for.

    Args:
        blocks: (n, C) float32 samples in [-1, 1].
        sample_rate: Of the recording, Hz; coding runs at 16 kHz.
        channels: C.
        file: Receives the bitstream; need not seek.
        codebook_size: One of the model's.
        effort: 0 to `MAX_EFFORT`: how much nearness to give up for fewer bits.
        layers: Write a file that can be cut to every coarser codebook size that this one refines.

    Raises:
        ModelError: A model for pictures, one that cannot choose among codes where an effort is asked for, or one
            without layers where they are wanted.
        ValueError: An effort or a codebook size that there is not.
    """
    _need(model, "speech")
    chooser = _Chooser(model, codebook_size, effort)
    if sample_rate > SAMPLE_RATE:
        log.warning("recorded at %g kHz, coded at 16 kHz: sounds above 8 kHz are lost", sample_rate / 1000)
    header = _header(model, codebook_size, channels=channels, sample_rate=sample_rate)
    writer = _writer(file, header, model, layers)
    counted = _Counter(blocks)
    stride = model.codec.stride
    signal = at_rate(counted, sample_rate, SAMPLE_RATE, channels)
    for window, left, core in windows(signal, FRAMES_PER_WINDOW * stride, model.codec.context * stride):
        x = torch.from_numpy(np.ascontiguousarray(window.T))[:, None].to(model.device)
        first = left // stride
        with torch.inference_mode(), exact_float32(model.device):
            z = model.codec.latents(x)[:, :, first : first + -(-core // stride)]
            writer.write(chooser(z))
        file.flush()  # whoever listens at the other end of a pipe gets each chunk at once
    writer.finish(counted.total)
    return Written(writer.total_bytes, writer.payload_bytes, counted.total / sample_rate)


def decompress_speech(reader: AnyReader, model: Model) -> Iterator[Samples]:
    """Decodes a recording: (n, C) float32 blocks at the original rate, in constant memory; silence where it is lost.

    Raises:
        BitstreamError: Damaged, of a length that does not fit its indices, or beyond the limits; before the first block
            where the file seeks.
    """
    _need(model, "speech")
    _check_header(reader.header, model)
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
        _check_length(reader.num_samples, reader.num_positions, reader, model)


def expected(reader: AnyReader, model: Model) -> End | None:
    """What a recording's end chunk declares, where that can be known before anything is decoded.

    From here on, the reader takes as many positions as the limits allow at the token rate of this model.

    Raises:
        BitstreamError: The positions do not fit the samples, or either is beyond the limits.
    """
    reader.budget.token_rate_hz = cast(float, model.codec.token_rate_hz)
    reader.budget.spend_positions(0)  # those of a damaged file are all known by now
    end = reader.foresee()
    if end is not None:
        reader.budget.check_samples(end.num_samples, end.offset)
        _check_length(end.num_samples, end.num_positions, reader, model)
    return end


def check_room(reader: AnyReader, model: Model, suffix: str) -> None:
    """Refuses a media file of this suffix before anything is decoded, where its size is known and there is no room.

    Raises:
        BitstreamError: As `expected`.
        MediaError: The format, or `Limits.max_bytes`, has no room.
    """
    header, num_bytes = reader.header, 0
    if header.medium == "image":
        num_bytes = 3 * header.height * header.width
    elif (end := expected(reader, model)) is not None:
        num_bytes = 2 * end.num_samples * header.channels
        if num_bytes > MAX_RIFF_BYTES and suffix in ("wav", "aiff", "aif"):
            raise MediaError("the recording is above the 4 GiB of this format; write a .flac")
    if suffix in UNCOMPRESSED:
        reader.budget.check_bytes(num_bytes)


def _check_length(num_samples: int, num_positions: int, reader: AnyReader, model: Model) -> None:
    """Raises BitstreamError where a recording of so many samples has another number of positions."""
    at_model_rate = -(-num_samples * SAMPLE_RATE // reader.header.sample_rate)
    if num_positions != model.codec.grid((at_model_rate,))[0]:
        raise BitstreamError(f"{num_samples} samples do not fit {num_positions} positions; the file is damaged")


def _speech_at_model_rate(reader: AnyReader, model: Model) -> Iterator[Samples]:
    codec, size = model.codec, reader.header.codebook_size
    chunks = (chunk.transpose(2, 0, 1) for chunk in reader.chunks(tables_for(reader.header, model)))  # positions first
    first = 0
    for window, left, core in windows(chunks, FRAMES_PER_WINDOW, codec.context):
        indices = torch.from_numpy(np.ascontiguousarray(window.transpose(1, 2, 0))).to(model.device)
        with torch.inference_mode():
            parts = torch.split(indices, CHANNELS_AT_ONCE)
            x = torch.cat([codec.decode(part, (len(window) * codec.stride,), size)[:, 0] for part in parts])
        block = np.ascontiguousarray(x[:, left * codec.stride : (left + core) * codec.stride].cpu().numpy().T)
        for start, stop in reader.gaps:
            block[max(start - first, 0) * codec.stride : max(stop - first, 0) * codec.stride] = 0
        first += core
        yield block


@torch.inference_mode()
def compress_image(
    picture: Pixels | Picture, file: BinaryIO, model: Model, codebook_size: int, effort: int = 0, layers: bool = False
) -> Written:
    """Codes a picture, from a file or (H, W, 3) uint8, a strip of rows at a time; `effort`, `layers` as for speech.

    Raises:
        ModelError, ValueError: As for speech.
    """
    _need(model, "image")
    if isinstance(picture, Picture):
        height, width, strips = picture.height, picture.width, picture.strips()
    else:
        (height, width), strips = picture.shape[:2], iter([picture])
    chooser = _Chooser(model, codebook_size, effort, width)
    header = _header(model, codebook_size, channels=3, height=height, width=width)
    writer = _writer(file, header, model, layers)
    latents = model.codec.latents_of_rows(_pixel_strips(strips, width, model))
    with exact_float32(model.device):
        for z, _, _ in windows(latents, _rows_per_chunk(width, model.codec.stride), 0):
            writer.write(chooser(z.movedim(-1, 0)[None]))
    writer.finish()
    return Written(writer.total_bytes, writer.payload_bytes, float(height * width))


def _pixel_strips(strips: Iterable[Pixels], width: int, model: Model) -> Iterator[Tensor]:
    """(n, W, 3) in [0, 1], n and W multiples of the stride; the context serves the reflection at the lower edge."""
    codec = model.codec
    for window, left, core in windows(strips, _rows_per_strip(width, model) * codec.stride, codec.stride):
        x = torch.from_numpy(np.ascontiguousarray(window)).to(model.device).movedim(-1, 0)[None].float() / 255
        yield codec.pad(x)[0].movedim(0, -1)[left : left + -(-core // codec.stride) * codec.stride]


def decompress_image(reader: AnyReader, model: Model) -> Pixels:
    """Decodes a picture to (H, W, 3) uint8; grey where it is lost. Raises what `image_strips` does."""
    pixels, top = np.empty((0, 0, 3), np.uint8), 0
    for strip in image_strips(reader, model):
        if top == 0:  # from here on it is known that the file fits its header
            pixels = np.empty((reader.header.height, reader.header.width, 3), np.uint8)
        pixels[top : top + len(strip)] = strip
        top += len(strip)
    return pixels


@torch.inference_mode()
def image_strips(reader: AnyReader, model: Model) -> Iterator[Pixels]:
    """Decodes a picture to strips of rows, (n, W, 3) uint8; grey where it is lost.

    Raises:
        BitstreamError: Damaged, or of a size that does not fit its indices; before the first strip.
    """
    _need(model, "image")
    _check_header(reader.header, model)
    header, codec, size = reader.header, model.codec, reader.header.codebook_size
    rows, columns = codec.grid((header.height, header.width))
    runs, count = [], 0
    for chunk in reader.chunks(tables_for(reader.header, model)):
        count += chunk.shape[2]
        if count > rows * columns:
            break
        runs.append(chunk[0].T)
    if count != rows * columns:
        raise BitstreamError(
            f"{header.width} x {header.height} pixels do not fit {count} positions; the file is damaged"
        )
    grid = np.concatenate(runs).reshape(rows, columns, -1)
    lost = np.zeros(rows * columns, bool)
    for start, stop in reader.gaps:
        lost[start:stop] = True
    unseen = lost.reshape(rows, columns).repeat(codec.stride, 1)[:, : header.width]  # rows of it serve a stride each
    top = 0
    for strip in exactly(codec.pixels_of_rows(_index_strips(grid, header.width, model), size), model.device):
        rounded = strip[: header.height - top, : header.width].mul(255).round().clamp(0, 255).to(torch.uint8)
        pixels = rounded.cpu().numpy()
        pixels[unseen[np.arange(top, top + len(pixels)) // codec.stride]] = GREY
        top += len(pixels)
        yield pixels


def _index_strips(grid: Indices, width: int, model: Model) -> Iterator[Tensor]:
    """(n, w, G) of the whole (h, w, G)."""
    for window, _, _ in windows([grid], _rows_per_strip(width, model), 0):
        yield torch.from_numpy(np.ascontiguousarray(window)).to(model.device)


def num_positions(header: Header, model: Model) -> int | None:
    """How many positions a file should hold, where its header tells: a picture's."""
    return prod(model.codec.grid((header.height, header.width))) if header.medium == "image" else None


def _rows_per_chunk(width: int, stride: int) -> int:
    """Latent rows of a data chunk of a picture this many pixels wide."""
    return max(FEWEST_ROWS, min(ROWS_PER_CHUNK, POSITIONS_PER_CHUNK * stride // width))


def _rows_per_strip(width: int, model: Model) -> int:
    """Latent rows that the nets work on at once: it bounds memory, and changes no more than a float's last bit."""
    positions = POSITIONS_PER_STRIP.get(model.device.type, POSITIONS_PER_STRIP["cuda"])
    return max(FEWEST_STRIP_ROWS, positions * model.codec.stride // width)


class _Counter:
    """Passes blocks on and counts their samples."""

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = blocks
        self.total = 0

    def __iter__(self) -> Iterator[Samples]:
        for block in self._blocks:
            self.total += len(block)
            yield block


def to_mono(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The mean of all channels, (n, 1)."""
    for block in blocks:
        yield block.mean(1, keepdims=True, dtype=np.float32)


def open_speech(file: BinaryIO | AudioReader, mono: bool) -> tuple[Iterator[Samples], int, int]:
    """A recording's blocks, sample rate in Hz and channels; the channels mixed into one if `mono`."""
    reader = file if isinstance(file, AudioReader) else AudioReader(file)
    if mono:
        return to_mono(reader.blocks()), reader.sample_rate, 1
    return reader.blocks(), reader.sample_rate, reader.channels


class _Chooser:
    """Indices for windows of a signal: the nearest ones or, with an effort, those that are near and cost few bits.

    A code at squared distance d costs d + lambda * bits. At high rates the distortion of a D-dimensional quantiser
    falls as 2^(-2 bits / D), so that lambda = D's derivative = 2 ln 2 / D times the mean distortion trades bits for
    distortion at the rate at which a larger codebook would; an effort of `EFFORT_UNIT` means that.

    Args:
        effort: 0 for the nearest.

    Raises:
        ModelError: This model's codes have no order of nearness, or it has no prior.
        ValueError: The effort is no integer from 0 to `MAX_EFFORT`.
    """

    def __init__(self, model: Model, codebook_size: int, effort: int, width: int = 0) -> None:
        try:
            effort = operator.index(effort)
        except TypeError:
            raise ValueError(f"effort is an integer from 0 to {MAX_EFFORT}, not {effort!r}") from None
        if not 0 <= effort <= MAX_EFFORT:
            raise ValueError(f"effort is an integer from 0 to {MAX_EFFORT}, not {effort}")
        self._model, self._size, self._effort, self._width = model, codebook_size, effort, width
        self._prior = model.tables.get(codebook_size, NO_TABLES).prior
        if effort and (self._prior is None or model.codec.bottleneck.target(torch.zeros(1)) is None):
            raise ModelError(f"{model.card.name} cannot choose among codes; leave --effort out")

    def __call__(self, z: Tensor) -> NDArray[np.int64]:
        """(B, D_in, *S) -> (B, G, n): the indices of the positions, in raster order."""
        if not self._effort or self._prior is None:
            return np.asarray(self._model.codec.bottleneck.encode(z, self._size).flatten(2).cpu().numpy())
        return np.stack([self._choose(sample, self._prior)[None] for sample in z])

    def _choose(self, z: Tensor, prior: Prior) -> NDArray[np.int64]:
        """(D_in, *S) -> (n,)."""
        bottleneck = self._model.codec.bottleneck
        target = cast(Tensor, bottleneck.target(z[None]))
        every = torch.arange(bottleneck.num_codes(self._size), device=z.device)[None, None]
        codes = bottleneck.decode(every, self._size)[0].T  # (K, D)
        tokens = target[0].flatten(1).T  # (n, D)
        few = min(CHOICES, len(codes))
        parts = [torch.cdist(part, codes).topk(few, largest=False, sorted=True) for part in torch.split(tokens, 256)]
        options = torch.cat([part.indices for part in parts]).cpu().numpy()
        squares = torch.cat([part.values for part in parts]).double().square().cpu().numpy()
        if not bottleneck.nested:  # a tree need not end at the nearest code
            options[:, 0] = (
                bottleneck.encode(z[None], self._size)[0, 0].flatten().cpu().numpy()
            )  # where two are equally near
        unit = max(2 * natural_log(2) / codes.shape[1] * self._effort / EFFORT_UNIT * squares[:, 0].mean(), 1e-12)
        penalties = np.minimum(np.rint(256 * squares / unit), 1 << 40).astype(np.int64)
        return choose(options, penalties, prior, columns_of(prior, self._width, len(options)))


def _header(model: Model, codebook_size: int, **shape: int) -> Header:
    """The header of what a model codes. Raises MediaError for a shape that the format cannot hold."""
    bottleneck = model.codec.bottleneck
    num_codes = bottleneck.num_codes(codebook_size)
    medium: Medium = model.codec.config.medium
    try:
        return Header(medium, model.card.model_id, codebook_size, num_codes, bottleneck.num_codebooks, **shape)
    except ValueError as error:
        raise MediaError(f"the format has no room for this: {error}") from None


def _writer(file: BinaryIO, header: Header, model: Model, layers: bool) -> Writer | LayerWriter:
    """Writes a file of one codebook size or with layers. Raises ModelError where the model has none."""
    if not layers:
        return Writer(file, header, model.tables.get(header.codebook_size, NO_TABLES))
    if len(ladder(model.tables, header.codebook_size)) < 2:
        able = [size for size in model.tables if len(ladder(model.tables, size)) > 1]
        offers = f"they begin at K = {able[0]}" if able else "its codebooks do not refine each other"
        raise ModelError(f"{model.card.name} has no layers at K = {header.codebook_size}: {offers}")
    return LayerWriter(file, header, model.tables)


def layered(reader: Reader, model: Model, codebook_size: int | None = None) -> Reader | Layered:
    """What to decode a file from: the reader itself, or its layers up to a codebook size.

    A layer that is damaged, and those above it, are left out with a notice.

    Args:
        reader: At the beginning of its data chunks.
        model: The one that the file names.
        codebook_size: Stop at this layer; None for the last.

    Raises:
        BitstreamError: The base is damaged.
        MediaError: The file has no such layer.
    """
    _check_header(reader.header, model)
    size = reader.header.codebook_size
    if reader.version[1] < LAYERED:
        if codebook_size not in (None, size):
            raise MediaError(f"the file has no layers: it holds K = {size} and not {codebook_size}")
        return reader
    if reader.header.medium == "speech":
        expected(reader, model)
    try:
        found = Layered(reader, _all_tables(reader.header, model), codebook_size)
    except ValueError as error:
        raise MediaError(str(error)) from None
    _tell_damage(found)
    return found


def salvaged(salvage: Salvage, model: Model, codebook_size: int | None = None) -> Salvage:
    """As `layered`, of a file whose base is damaged: the layers of what is left of it.

    Raises:
        BitstreamError: The header is not the model's.
        MediaError: The file has no such layer.
    """
    _check_header(salvage.header, model)
    try:
        salvage.refine(_all_tables(salvage.header, model), codebook_size)
    except ValueError as error:
        raise MediaError(str(error)) from None
    _tell_damage(salvage)
    return salvage


def _all_tables(header: Header, model: Model) -> dict[int, Tables]:
    """`tables_for` every codebook size."""
    return {size: tables_for(replace(header, codebook_size=size), model) for size in model.tables}


def _tell_damage(found: Layered | Salvage) -> None:
    if found.damage is not None:
        log.warning("decoded at K = %d, for the layers above it are lost: %s", found.header.codebook_size, found.damage)


def _need(model: Model, medium: str) -> None:
    if model.card.medium != medium:
        raise ModelError(f"{model.card.name} codes {model.card.medium}, not {medium}; choose a {medium} model")


def read_indices(data: bytes, model: Model, limits: Limits = IN_MEMORY) -> tuple[Header, Indices, int]:
    """What `unpack` gives of a file that this model wrote, at its last layer: header, indices, samples."""
    head = Reader(io.BytesIO(data), limits)
    _need(model, head.header.medium)
    reader = layered(head, model)
    if isinstance(reader, Layered):
        reader.budget.check_bytes(8 * reader.num_positions * reader.header.num_streams)
        return reader.header, np.concatenate(list(reader.chunks()), axis=2), reader.num_samples
    if reader.header.medium == "speech":
        expected(reader, model)
    return unpack_all(reader, tables_for(reader.header, model))


def tables_for(header: Header, model: Model) -> Tables:
    """The coder tables that a file was written with: no prior, if it names the model that had none."""
    tables = model.tables.get(header.codebook_size, NO_TABLES)
    return tables if header.model_id == model.card.model_id else Tables(tables.frequencies)


def _check_header(header: Header, model: Model) -> None:
    """The header's identity was matched to the model's; its sizes must be the model's, too."""
    bottleneck, size = model.codec.bottleneck, header.codebook_size
    if size not in bottleneck.codebook_sizes or header.num_codes != bottleneck.num_codes(size):
        offered = list(bottleneck.codebook_sizes)
        raise BitstreamError(f"codebook size {size} is not among the model's {offered}; the file is damaged")
    if header.num_codebooks != bottleneck.num_codebooks:
        count = bottleneck.num_codebooks
        raise BitstreamError(f"{header.num_codebooks} codebooks, and the model has {count}; the file is damaged")
