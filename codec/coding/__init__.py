"""Where nets meet bytes: media in, bitstream out, and back. The only such place.

Both directions stream, so that memory does not grow with length. Speech passes through overlapping
windows, a core with context on both sides that covers the nets' receptive field: the cut is
invisible, and the windows lie at fixed positions of the signal, however it arrives in blocks. A
picture passes in strips of rows from layer to layer of a net, each of which keeps the few rows that
it needs of its neighbours: nothing is computed twice, and strips stay near the cache.

Nets run in float32 here, whatever precision the caller computes in, so that the same input gives
the same bytes.

    blocks ─windows─resample─> 16 kHz ─windows─encoder─> indices ─Writer─> .bin
    .bin ─Reader─> indices ─windows─decoder─> 16 kHz ─windows─resample─> blocks
    picture rows ─strips─layer─...─layer─> latent rows ─> indices ─Writer─> .bin   (and back)
"""

from codec.coding.bitstreams import (
    Written,
    header_of,
    layered,
    left_of,
    lost,
    read_indices,
    salvaged,
    writer_of,
)
from codec.coding.checks import AnyReader, check_room, expected, num_positions
from codec.coding.effort import MAX_EFFORT
from codec.coding.media import CODINGS, Coding, compress, decompress
from codec.coding.models import Model, load, tables_for, tables_of
from codec.coding.pictures import compress_image, decompress_image, image_strips
from codec.coding.search import MAX_STEPS
from codec.coding.speech import compress_speech, decompress_speech, open_speech

__all__ = [
    "CODINGS",
    "MAX_EFFORT",
    "MAX_STEPS",
    "AnyReader",
    "Coding",
    "Model",
    "Written",
    "check_room",
    "compress",
    "compress_image",
    "compress_speech",
    "decompress",
    "decompress_image",
    "decompress_speech",
    "expected",
    "header_of",
    "image_strips",
    "layered",
    "left_of",
    "load",
    "lost",
    "num_positions",
    "open_speech",
    "read_indices",
    "salvaged",
    "tables_for",
    "tables_of",
    "writer_of",
]
