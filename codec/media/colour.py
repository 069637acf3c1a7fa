"""Colours as they were meant, in sRGB.

That is what models are trained on, metrics compare, and screens show.

A picture says in a profile, or in few numbers (PNG), what its values mean. LittleCMS converts them.
Where that would change next to nothing the profile is one of sRGB's many, and values stay as they
are.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.media import png_chunks

log = logging.getLogger("codec")

# Of 255: how far versions of sRGB's profile lie apart at most; those of other spaces differ by
# tens.
NEARLY = 3
# A profile's colour space, and Pillow's mode for it.
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
# Chromaticities x, y of white, red, green and blue, by their numbers in ITU-T H.273.
D65 = (0.3127, 0.3290)
SRGB_PRIMARIES = (D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
PRIMARIES = {
    1: SRGB_PRIMARIES,
    9: (D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
# Transfer functions: sRGB's and those of video, which is shown as if it were sRGB; and plain
# exponents.
SRGB_TRANSFERS, GAMMAS = (13, 1, 6, 14, 15), {4: 2.2, 5: 2.8, 8: 1.0}
# Spaces of a JPEG 2000 that Pillow knows: CMYK, black and white, sRGB, grey and sYCC.
ENUMERATED = (12, 15, 16, 17, 18)
HEAD_BYTES = 1 << 16  # of a file, which hold the boxes about colours
CURVE_POINTS = 4096
GAMMA_RANGE = range(10_000, 500_001)  # of gAMA, in units of 1 / 100000
D50 = (0.9642, 1.0, 0.8249)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)

Conversion = Callable[[Image.Image], Image.Image]


def conversion(image: Image.Image, file: BinaryIO) -> Conversion | None:
    """What turns pieces of a picture, without transparency, into sRGB.

    None if Pillow's own conversion is right.

    Args:
        image: Decoded or not; a piece has its mode, or "L" where that is deeper than 8 bits.
        file: What it comes from; some formats keep what Pillow does not look for.
    """
    try:
        profile = _profile(image, file)
        if not profile:
            return None
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = MODES.get(space)
        if mode is None or not _fits(image.mode, mode):
            raise ValueError(f"it is for {space} colours")
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception as error:  # ImageCms raises PyCMSError, OSError, TypeError, ValueError ...
        log.warning(
            "the colour profile is not used (%s): colours are taken as sRGB",
            " ".join(str(error).split()),
        )
        return None

    def convert(piece: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(
            piece if piece.mode == mode else piece.convert(mode), transform
        )
        assert converted is not None
        return converted

    if mode in ("RGB", "L") and _changes_nothing(convert, mode):
        return None
    log.warning("colours of another space: converted to sRGB")
    return convert


def _fits(mode: str, profile_mode: str) -> bool:
    """Whether a picture of a mode may have such a profile."""
    if profile_mode in ("CMYK", "LAB"):
        return mode == profile_mode
    grey = mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16")
    return grey or (
        profile_mode == "RGB" and mode in ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "YCbCr")
    )


def _changes_nothing(convert: Conversion, mode: str) -> bool:
    if mode == "L":
        probe = np.arange(256, dtype=np.uint8)[None]
    else:
        steps = np.linspace(0, 255, 18).round().astype(np.uint8)
        probe = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    image = Image.fromarray(probe)
    difference = np.asarray(convert(image), np.int16) - np.asarray(image.convert("RGB"), np.int16)
    return bool(np.abs(difference).max() <= NEARLY)


def _profile(image: Image.Image, file: BinaryIO) -> bytes | None:
    """An ICC profile. Raises ValueError or struct.error on broken ones."""
    if image.format == "PNG":
        return _of_png(png_chunks.colour_chunks(file))
    profile = image.info.get("icc_profile", b"")
    if not isinstance(profile, bytes):
        raise ValueError("pieces of it are missing")
    return profile or (_of_boxes(file) if image.format in ("AVIF", "HEIF", "JPEG2000") else None)


def box_of(file: BinaryIO, name: bytes) -> bytes:
    """Returns what the first box of a name holds; empty where there is none near the beginning."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    at = head.find(name)
    return head[at + 4 : at - 4 + int.from_bytes(head[at - 4 : at], "big")] if at >= 4 else b""


def _of_boxes(file: BinaryIO) -> bytes | None:
    """From the box colr of a JPEG 2000, AVIF or HEIC (ISO/IEC 15444-1 and 23008-12)."""
    box = box_of(file, b"colr")
    if box.startswith(b"nclx"):
        primaries, transfer = struct.unpack(">2H", box[4:8])
        return None if 2 in (primaries, transfer) else _of_numbers(primaries, transfer)
    if box[:1] == b"\1" and (space := int.from_bytes(box[3:7], "big")) not in ENUMERATED:
        raise ValueError(f"enumerated space {space} of JPEG 2000")
    return box[3:] if box[:1] in (b"\2", b"\3") else None


def _of_png(png: dict[bytes, bytes]) -> bytes | None:
    """From the chunks of a PNG, in the order in which they count."""
    if b"cICP" in png:
        primaries, transfer, matrix, full = struct.unpack("4B", png[b"cICP"])
        if matrix != 0 or full != 1:
            raise ValueError(f"it is for video, matrix {matrix} and range {full}")
        return _of_numbers(primaries, transfer)
    if b"iCCP" in png:
        return png_chunks.profile(png[b"iCCP"])
    if b"sRGB" in png or b"gAMA" not in png:
        return None
    (gamma,) = struct.unpack(">I", png[b"gAMA"])
    if gamma not in GAMMA_RANGE:
        raise ValueError(f"its gamma is {gamma / 100000:g}")
    primaries = SRGB_PRIMARIES
    if b"cHRM" in png:
        values = [value / 100000 for value in struct.unpack(">8I", png[b"cHRM"])]
        primaries = tuple(zip(values[::2], values[1::2], strict=True))
    if abs(gamma - 45455) < 500 and np.abs(np.subtract(primaries, SRGB_PRIMARIES)).max() < 0.002:
        return None  # what writers of sRGB put there
    return matrix_profile(primaries, np.linspace(0, 1, CURVE_POINTS) ** (100000 / gamma))


def _of_numbers(primaries: int, transfer: int) -> bytes | None:
    """From code points of ITU-T H.273."""
    if primaries not in PRIMARIES:
        raise ValueError(f"primaries {primaries}")
    x = np.linspace(0, 1, CURVE_POINTS)
    if transfer in SRGB_TRANSFERS:
        curve = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    elif transfer in GAMMAS:
        curve = x ** GAMMAS[transfer]
    else:
        raise ValueError(f"high dynamic range or unknown: transfer function {transfer}")
    return matrix_profile(PRIMARIES[primaries], curve)


def matrix_profile(primaries: Any, curve: NDArray[np.floating]) -> bytes:
    """An ICC profile of three primaries and one curve.

    Args:
        primaries: Chromaticities (x, y) of white, red, green and blue.
        curve: Light in [0, 1] for equally spaced values.

    Raises:
        ValueError: The primaries span no colours.
    """
    points = np.array([(x, y, 1 - x - y) for x, y in primaries], float)
    if (points[:, 1] <= 0).any() or abs(np.linalg.det(points[1:])) < 1e-6:
        raise ValueError("its primaries span no colours")
    points /= points[:, 1:2]
    white, colours = points[0], points[1:].T
    colours = colours * np.linalg.solve(colours, white)
    cones = (BRADFORD @ D50) / (BRADFORD @ white)
    # As they look under D50.
    colours = np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD @ colours
    xyz = [_xyz(column) for column in colours.T]
    samples = (np.clip(curve, 0, 1) * 65535).round().astype(">u2")
    tone = b"curv\0\0\0\0" + struct.pack(">I", len(samples)) + samples.tobytes()
    name = b"desc\0\0\0\0" + struct.pack(">I", 4) + b"PNG\0" + bytes(78)
    tags = [(b"desc", name), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", _xyz(D50))]
    tags += list(zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz, strict=True))
    tags += [(key, tone) for key in (b"rTRC", b"gTRC", b"bTRC")]
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, value in tags:
        table += key + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(table) + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    head += struct.pack(">6H4s28x", 2025, 1, 1, 0, 0, 0, b"acsp") + _xyz(D50)[8:]
    return head + bytes(128 - len(head)) + table + body


def _xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(
        struct.pack(">i", round(float(value) * 65536)) for value in values
    )
