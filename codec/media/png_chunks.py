"""The chunks of a PNG that say what its colours mean, and copies without metadata.

Some metadata stand in a reader's way.

Format: W3C, Portable Network Graphics (Third Edition).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from codec.png import SIGNATURE

COLOURS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
TRANSPARENCY_BYTES = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}  # of tRNS, by colour type
ANIMATION = b"acTL"
MAX_BYTES = 1 << 24  # of a colour profile


def colour_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """What a PNG says of its colours: names and contents of chunks that are whole."""
    return {
        name: data
        for name, data, _ in _chunks(file, COLOURS)
        if data is not None and name in COLOURS
    }


def without_metadata(file: BinaryIO) -> tuple[BinaryIO, bool]:
    """A copy of a PNG that holds pixels, transparency and orientation.

    Also whether there were more pictures in it.
    """
    copy, animated = io.BytesIO(), False
    copy.write(SIGNATURE)
    allowed: range = range(0)
    for name, data, raw in _chunks(file, None):
        animated |= name == ANIMATION
        if name == b"IHDR" and data is not None and len(data) == 13:
            allowed = TRANSPARENCY_BYTES.get(data[9], allowed)
        whole = data is not None and (name == b"eXIf" or (name == b"tRNS" and len(data) in allowed))
        if name[:1].isupper() or whole:
            copy.write(raw)
    copy.seek(0)
    return copy, animated


def profile(chunk: bytes) -> bytes:
    """The ICC profile in an iCCP chunk. Raises ValueError if it is broken."""
    _, _, packed = chunk.partition(b"\0")
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed[1:], MAX_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        raise ValueError("it breaks off or is too long")
    return data


def _chunks(
    file: BinaryIO, wanted: tuple[bytes, ...] | None
) -> Iterator[tuple[bytes, bytes | None, bytes]]:
    """(name, content, whole chunk) of a PNG.

    The content is None where its checksum is wrong, and both are where they are not wanted.
    """
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        if wanted is not None and name not in wanted:
            file.seek(size + 4, 1)
            yield name, None, b""
            continue
        body = file.read(size + 4)
        right = body[-4:] == struct.pack(">I", zlib.crc32(name + body[:-4]))
        yield name, body[:-4] if right and len(body) == size + 4 else None, head + body
