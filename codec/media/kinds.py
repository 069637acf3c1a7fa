"""Which kinds of media there are.

A file's first bytes tell its kind when it is read, its suffix when it is written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.errors import MediaError
from codec.medium import IMAGE, SPEECH

Samples = NDArray[np.float32]
Pixels = NDArray[np.uint8]

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM")
AUDIO_NAMES = "WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, CAF, AU"
HEAD_BYTES = 16  # of a file, which tell its kind
AVIF_BRANDS = frozenset((b"avif", b"avis"))
HEIC_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"))
_PICTURES = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"BM",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"II+\0",  # BigTIFF
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)


def detect(head: bytes) -> str:
    """Tells "image" from "speech" by the first `HEAD_BYTES` of a file.

    What is no known picture is left to the audio reader.

    Raises:
        MediaError: The file is empty.
    """
    if not head:
        raise MediaError("the file is empty; give a recording or a picture")
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_heif = head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS | HEIC_BRANDS | {b"mif1"}
    is_ppm = head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    return (IMAGE if head.startswith(_PICTURES) or is_webp or is_heif or is_ppm else SPEECH).name
