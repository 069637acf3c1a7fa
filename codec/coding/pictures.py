"""Pictures: strips of rows through the nets, and back.

rows of pixels ─strips─layer─...─layer─> rows of latents ─> indices ─Writer─> .bin   (and back)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from codec.arguments import flag
from codec.coding.bitstreams import Written, header_of, writer_of
from codec.coding.checks import AnyReader
from codec.coding.effort import Chooser
from codec.coding.models import Model, check_header, need, tables_for
from codec.coding.search import Search
from codec.coding.tiles import searched_rows
from codec.coding.watch import Watch
from codec.container import Indices
from codec.errors import BitstreamError
from codec.media import Picture, Pixels
from codec.medium import IMAGE
from codec.precision import exact_float32, exactly
from codec.windows import windows

ROWS_PER_CHUNK = 64  # latent rows of a picture, 512 pixels; fewer where they are long
FEWEST_ROWS = 8
GREY = 128
POSITIONS_PER_CHUNK = 1 << 15  # 2 megapixels
# That nets work on at once: near a cache, or filling a GPU.
POSITIONS_PER_STRIP = {"cpu": 1 << 12, "cuda": 1 << 15}
FEWEST_STRIP_ROWS = 1  # of pictures so wide that memory is what counts


@torch.inference_mode()
def compress_image(
    picture: Pixels | Picture,
    file: BinaryIO,
    model: Model,
    codebook_size: int,
    effort: int = 0,
    layers: bool = False,
    search: int = 0,
    watch: Watch | None = None,
) -> Written:
    """Codes a picture, from a file or (H, W, 3) uint8 sRGB, a strip of rows at a time.

    `effort`, `layers` and `search` as for speech; `watch` sees the latents pass.

    Raises:
        ModelError, TypeError: As for speech.
        MediaError: The format has no room for so many rows or columns.
        ValueError: As for speech; or pixels that are not (H, W, 3) uint8.
    """
    need(model, IMAGE.name)
    codebook_size, layers = model.codec.bottleneck.check_size(codebook_size), flag(layers, "layers")
    if isinstance(picture, Picture):
        height, width, strips = picture.height, picture.width, picture.strips()
        channels = picture.channels
    else:
        pixels = _checked(picture)
        (height, width, channels), strips = pixels.shape, iter([pixels])
    nearer = Search(model, codebook_size, search, effort)
    chooser = Chooser(model, codebook_size, 0 if nearer.steps else effort, width)
    header = header_of(model, codebook_size, channels=channels, height=height, width=width)
    writer = writer_of(file, header, model, layers)
    signal = _pixel_strips(strips, width, model)
    if nearer.steps:
        rows = searched_rows(nearer, model.codec, signal)
    else:
        rows = model.codec.latents_of_rows(signal)
    if watch is not None:
        rows = iter(watch(rows, 1 / model.codec.stride, " rows", height))
    with exact_float32(model.device):
        for part, _, _ in windows(rows, rows_per_chunk(width, model.codec.stride), 0):
            some = part.movedim(-1, 0)[None]
            writer.write(some.flatten(2).cpu().numpy() if nearer.steps else chooser(some))
    writer.finish()
    return Written(writer.total_bytes, writer.payload_bytes, float(height * width))


def _checked(picture: object) -> Pixels:
    """An array (H, W, 3) uint8, or what makes one. Raises ValueError for anything else."""
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != IMAGE.channels:
        raise ValueError(
            f"want a picture (H, W, {IMAGE.channels}) of uint8, "
            f"not {pixels.shape} of {pixels.dtype}; of numbers in [0, 1], "
            "(255 * x).round().astype('uint8')"
        )
    return pixels


def _pixel_strips(strips: Iterable[Pixels], width: int, model: Model) -> Iterator[Tensor]:
    """(n, W, 3) in [0, 1], n and W multiples of the stride.

    The context serves the reflection at the lower edge.
    """
    codec = model.codec
    for window, left, core in windows(
        strips, rows_per_strip(width, model) * codec.stride, codec.stride
    ):
        x = (
            torch.from_numpy(np.require(window, requirements=("C", "W")))
            .to(model.device)
            .movedim(-1, 0)[None]
            .float()
            / 255
        )
        yield codec.pad(x)[0].movedim(0, -1)[left : left + -(-core // codec.stride) * codec.stride]


def decompress_image(reader: AnyReader, model: Model) -> Pixels:
    """Decodes a picture to (H, W, 3) uint8; grey where it is lost.

    Raises what `image_strips` does.
    """
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

    Of a greyscale picture the three channels are equal: their mean.

    Raises:
        BitstreamError: Damaged, or of a size that does not fit its indices; before the first strip.
    """
    need(model, IMAGE.name)
    check_header(reader.header, model)
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
            f"{header.width} x {header.height} pixels do not fit {count} positions; "
            "the file is damaged"
        )
    grid = np.concatenate(runs).reshape(rows, columns, -1)
    lost = np.zeros(rows * columns, bool)
    for start, stop in reader.gaps:
        lost[start:stop] = True
    # Rows of it serve a stride each.
    unseen = lost.reshape(rows, columns).repeat(codec.stride, 1)[:, : header.width]
    top = 0
    for strip in exactly(
        codec.pixels_of_rows(_index_strips(grid, header.width, model), size), model.device
    ):
        strip = strip[: header.height - top, : header.width]
        if header.channels == 1:
            strip = strip.mean(-1, keepdim=True).expand_as(strip)
        pixels = strip.mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        pixels[unseen[np.arange(top, top + len(pixels)) // codec.stride]] = GREY
        top += len(pixels)
        yield pixels


def _index_strips(grid: Indices, width: int, model: Model) -> Iterator[Tensor]:
    """(n, w, G) of the whole (h, w, G)."""
    for window, _, _ in windows([grid], rows_per_strip(width, model), 0):
        yield torch.from_numpy(np.require(window, requirements=("C", "W"))).to(model.device)


def rows_per_chunk(width: int, stride: int) -> int:
    """Latent rows of a data chunk of a picture this many pixels wide."""
    return max(FEWEST_ROWS, min(ROWS_PER_CHUNK, POSITIONS_PER_CHUNK * stride // width))


def rows_per_strip(width: int, model: Model) -> int:
    """Latent rows that the nets work on at once.

    This bounds memory, and changes no more than a float's last bit.
    """
    positions = POSITIONS_PER_STRIP.get(model.device.type, POSITIONS_PER_STRIP["cuda"])
    return max(FEWEST_STRIP_ROWS, positions * model.codec.stride // width)
