"""The tokens of a file, as language models want them, and files of tokens.

    data ──read_tokens──> (A, G, *S) integers ──write_tokens──> data

A is the number of encoded channels, 1 for a picture; G the codebooks of a position, 1 for the
models that ship; S one axis of positions (speech), or rows and columns (pictures).
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec import coding
from codec.api import AnyModel, load, model_of
from codec.arguments import instance, whole
from codec.container import Reader
from codec.container.limits import IN_MEMORY, Limits
from codec.files import Source, opened
from codec.medium import MEDIA, SAMPLE_RATE


def read_tokens(
    data: Source,
    model: AnyModel | None = None,
    *,
    codebook_size: int | None = None,
    limits: Limits = IN_MEMORY,
) -> NDArray[np.int64]:
    """Reads the tokens of a bitstream, without decoding them.

    Args:
        data: What `codec.compress` returned, or a file of it: its path or an open binary file.
        model: As for `codec.decompress`; by default the shipped one that the bitstream names.
        codebook_size: Of a file with layers: where to stop; by default at the last that is whole.
        limits: Refuse anything larger.

    Returns:
        (A, G, n) of a recording, (1, G, rows, columns) of a picture.

    Raises:
        BitstreamError: Damaged, or beyond the limits.
        MediaError: A file that cannot be read, or no layer of that codebook size.
        ModelError: The model that it names is not here, or is not `model`.
        TypeError: The data, the model or the limits are something else.
    """
    instance(limits, Limits, "limits")
    with opened(data) as file:
        loaded = model_of(Reader(file, limits), model)
        file.seek(0)
        header, indices, _ = coding.read_indices(file.read(), loaded, limits, codebook_size)
    if header.kind.timed:
        return indices
    return indices.reshape(*indices.shape[:2], *loaded.codec.grid((header.height, header.width)))


def write_tokens(
    tokens: ArrayLike,
    model: AnyModel,
    codebook_size: int | None = None,
    *,
    num_samples: int | None = None,
    sample_rate: int = SAMPLE_RATE,
    size: tuple[int, int] | None = None,
) -> bytes:
    """Writes tokens as a bitstream, which `codec.decompress` decodes.

    Args:
        tokens: Integers in [0, num_codes), as `read_tokens` returns them.
        model: A loaded model, the name of a shipped one or the path of a card.
        codebook_size: K; by default 1024.
        num_samples: Of a recording, at its own rate; by default all that the tokens hold.
        sample_rate: Of the recording that is decoded, in Hz.
        size: Height and width of a picture in pixels; by default all that the tokens hold.

    Raises:
        ModelError: There is no such model, or it is damaged.
        MediaError: The format has no room for this shape or rate.
        ValueError: The tokens are of another shape, not in range or not as many as the samples or
            pixels need; or the model does not offer the codebook size; or what is given is of the
            other medium.
        TypeError: The tokens are no integers.
    """
    loaded = load(model)
    codec, medium = loaded.codec, MEDIA[loaded.card.medium]
    k = codec.bottleneck.check_size(codebook_size)
    array = np.asarray(tokens)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"tokens are integers, not {array.dtype}")
    axes = 1 if medium.timed else 2
    streams = "A" if medium.timed else "1"
    want = f"({streams}, {codec.bottleneck.num_codebooks}, {'n' if axes == 1 else 'rows, columns'})"
    if (
        array.ndim != 2 + axes
        or array.shape[1] != codec.bottleneck.num_codebooks
        or not array.size
        or (not medium.timed and array.shape[0] != 1)
    ):
        raise ValueError(f"want tokens {want}, got {array.shape}")
    num_codes = codec.bottleneck.num_codes(k)
    if array.min() < 0 or array.max() >= num_codes:
        raise ValueError(
            f"tokens must lie in [0, {num_codes}), not in [{array.min()}, {array.max()}]"
        )
    grid = array.shape[2:]
    if medium.timed and size is not None:
        raise ValueError("a recording has no size; give num_samples")
    if not medium.timed and (num_samples is not None or sample_rate != SAMPLE_RATE):
        raise ValueError("a picture has no samples and no rate; give its size")
    if medium.timed:
        rate = whole(sample_rate, "a sample rate", 1)
        held = grid[0] * codec.stride * rate // SAMPLE_RATE
        count = held if num_samples is None else whole(num_samples, "a number of samples", 1)
        needed = codec.grid((-(-count * SAMPLE_RATE // rate),))
        shape = {"channels": array.shape[0], "sample_rate": rate}
    else:
        count = 0
        sides = tuple(n * codec.stride for n in grid) if size is None else size
        if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != 2:
            raise ValueError(f"a picture's size is (height, width) in pixels, not {size!r}")
        height, width = (whole(side, "a side of a picture", 1) for side in sides)
        needed = codec.grid((height, width))
        shape = {"channels": medium.channels, "height": height, "width": width}
    if needed != grid:
        raise ValueError(f"a signal of this size has {needed} positions, and the tokens {grid}")
    file = io.BytesIO()
    writer = coding.writer_of(file, coding.header_of(loaded, k, **shape), loaded, layers=False)
    writer.write(array.astype(np.int64).reshape(*array.shape[:2], -1))
    writer.finish(count)
    return file.getvalue()
