"""Making a finished file smaller: `codec.truncate`.

Bytes are cut off; no model is needed, no torch.
"""

from __future__ import annotations

import io

from codec.arguments import whole
from codec.files import Source, opened
from codec.layers import Survey, cut, survey


def truncate(
    data: Source, codebook_size: int | None = None, *, max_bytes: int | None = None
) -> bytes:
    """Cuts a file with layers so that it ends behind one of them.

    What it then decodes to is that layer.

    Args:
        data: The file, as `codec.compress(..., layers=True)` makes it: its path, an open binary
            file, or its bytes.
        codebook_size: K of the layer to keep last.
        max_bytes: Instead: the last layer with which the file has no more bytes than this, or the
            base.

    Returns:
        The shorter file. Cut to its base, it is what `codec.compress` makes at that K.

    Raises:
        BitstreamError: The file is damaged in what would be kept.
        MediaError: It cannot be read.
        ValueError: It has no such layer, or not exactly one of the two arguments is given as a
            whole number.
        TypeError: `data` is something else.
    """
    if (codebook_size is None) == (max_bytes is None):
        raise ValueError("give codebook_size or max_bytes")
    if max_bytes is not None:
        max_bytes = whole(max_bytes, "max_bytes", 0)
    with opened(data) as file:
        content = file.read()
    found = survey(io.BytesIO(content))
    return cut(content, found, within(found, max_bytes) if codebook_size is None else codebook_size)


def within(found: Survey, max_bytes: float | None) -> int:
    """The last layer with which a file is no larger; the base, if none is so small."""
    stops = found.stops
    return max(
        (size for size, stop in stops.items() if max_bytes is None or stop <= max_bytes),
        default=min(stops),
    )
