"""codec.media, odd pictures: metadata that is broken, ends that are missing, colours of other
spaces, deep values.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import gradient, picture
from numpy.typing import NDArray
from PIL import Image, ImageCms

import codec
from codec.errors import MediaError
from codec.media import (
    ImageWriter,
    Picture,
    detect,
    load_image,
    picture_writer,
    pictures,
    save_image,
)
from codec.media.colour import D65, PRIMARIES, matrix_profile
from codec.png import SIGNATURE

UNREADABLE = "metadata that cannot be read: left out"
CUT = "the picture is cut short: coded as far as it goes"
CONVERTED = "colours of another space: converted to sRGB"
SEVERAL = "several pictures in one file: only the first is coded"
SMOOTH = np.stack(
    np.broadcast_arrays(60 + np.arange(128), 180 - np.arange(96)[:, None] // 2, 90), -1
).astype(np.uint8)
GREY = np.broadcast_to(np.arange(0, 256, 2, dtype=np.uint8), (96, 128)).copy()
WIDE_GAMUT = matrix_profile(
    [(0.3457, 0.3585), (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)],
    np.linspace(0, 1, 512) ** 1.8,
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def load(data: bytes) -> NDArray[np.uint8]:
    return load_image(io.BytesIO(data))


def chunk(name: bytes, body: bytes, spoil: int = 0) -> bytes:
    return (
        struct.pack(">I", len(body))
        + name
        + body
        + struct.pack(">I", zlib.crc32(name + body) ^ spoil)
    )


def png_with(*chunks: bytes, pixels: NDArray[np.uint8] = SMOOTH) -> bytes:
    data = picture(pixels)
    return data[:33] + b"".join(chunks) + data[33:]


# --------------------------------------------------------------------------------------------------
# metadata of PNG

ODD: list[tuple[bytes, bytes]] = [
    (b"eXIf", b"\0"),
    (b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
    (b"eXIf", b"x" * (1 << 21)),
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (3 << 20))),
    (b"zTXt", b"Comment\0\1of another method"),
    (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"a" * (3 << 20))),
    (b"pHYs", b"abc"),
    (b"sRGB", b""),
    (b"acTL", b""),
    (b"tRNS", b"abc"),
]


@pytest.mark.parametrize(
    ("name", "body"), ODD, ids=[f"{name.decode()} {len(body)}" for name, body in ODD]
)
def test_metadata_that_is_broken_or_huge_is_left_out(
    name: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert np.array_equal(load(png_with(chunk(name, body))), SMOOTH)
    assert UNREADABLE in caplog.messages


NAMES = [
    b"eXIf",
    b"iCCP",
    b"zTXt",
    b"tEXt",
    b"iTXt",
    b"pHYs",
    b"gAMA",
    b"cHRM",
    b"sRGB",
    b"cICP",
    b"tIME",
    b"tRNS",
    b"abCd",
]


@pytest.mark.parametrize("name", NAMES, ids=bytes.decode)
@pytest.mark.parametrize("length", [0, 1, 4, 13, 40])
def test_a_wrong_checksum_of_metadata_is_no_reason_to_refuse(
    name: bytes, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert np.array_equal(load(png_with(chunk(name, bytes(range(1, 1 + length)), spoil=1))), SMOOTH)
    assert caplog.messages == [UNREADABLE]


def test_much_text_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    texts = [chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)))] * 80
    assert np.array_equal(load(png_with(*texts)), SMOOTH)
    assert caplog.messages == [UNREADABLE]


def test_what_a_picture_needs_survives_broken_metadata(caplog: pytest.LogCaptureFixture) -> None:
    """Its orientation, its transparency, its colours, and that there are others."""
    exif = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    pixels = np.zeros((4, 6, 3), np.uint8)
    parts = (
        chunk(b"tRNS", bytes(6)),
        chunk(b"eXIf", exif),
        chunk(b"pHYs", b""),
        chunk(b"acTL", struct.pack(">2I", 2, 0)),
    )
    found = load(png_with(*parts, pixels=pixels))
    assert found.shape == (6, 4, 3)
    assert (found == 255).all()
    assert caplog.messages == [UNREADABLE, SEVERAL, "transparent picture: laid on white"]
    wide = load(picture(SMOOTH, icc_profile=WIDE_GAMUT))
    data = picture(SMOOTH, icc_profile=WIDE_GAMUT)
    assert np.array_equal(load(data[:33] + chunk(b"pHYs", b"") + data[33:]), wide)


def test_damaged_pixels_are_still_an_error() -> None:
    data = bytearray(png_with(chunk(b"pHYs", b"")))
    data[data.find(b"IDAT") + 30] ^= 255
    with pytest.raises(MediaError, match="damaged picture"):
        load(bytes(data))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_exif_that_is_broken_is_left_out(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = (
        {} if kind == "TIFF" else {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\2\x01\x12\0\3"}
    )
    data = picture(SMOOTH, kind, quality=95, **options) if options else picture(SMOOTH, kind)
    assert load(data).shape == SMOOTH.shape
    assert set(caplog.messages) <= {UNREADABLE}


# --------------------------------------------------------------------------------------------------
# JPEG ends


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_jpeg_is_coded_as_far_as_it_goes(
    progressive: bool, subsampling: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever it is cut behind the start of its first scan."""
    data = picture(
        gradient(200, 160), "JPEG", quality=90, progressive=progressive, subsampling=subsampling
    )
    whole = load(data)
    start = data.find(b"\xff\xda") + 14
    for end in [*range(start, len(data), 611), *range(len(data) - 5, len(data))]:
        caplog.clear()
        found = load(data[:end])
        assert caplog.messages == [CUT], end
        assert found.shape == whole.shape
        if not progressive:
            rows = max(int(200 * (end - start) / (len(data) - start)) // 16 * 16 - 32, 1)
            assert end < start + 5000 or np.abs(found[:rows].astype(int) - whole[:rows]).mean() < 12
    assert np.array_equal(found, whole)


def test_a_jpeg_without_a_scan_is_damaged() -> None:
    data = picture(gradient(64, 64), "JPEG")
    for end in (4, 100, 300, data.find(b"\xff\xda")):
        with pytest.raises(MediaError, match="damaged"):
            load(data[:end])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_other_pictures_that_are_cut_are_damaged(kind: str) -> None:
    data = picture(gradient(64, 64), kind)
    with pytest.raises(MediaError, match="damaged"):
        load(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_of_several_pictures_is_coded_and_said(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    load(
        picture(
            Image.fromarray(SMOOTH),
            kind,
            save_all=True,
            append_images=[Image.fromarray(255 - SMOOTH)],
        )
    )
    assert caplog.messages == [SEVERAL]


def test_the_preview_of_a_photograph_is_no_second_picture(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = Image.fromarray(SMOOTH)
    data = picture(image, "MPO", save_all=True, append_images=[image.resize((32, 24))])
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.format == "MPO"
    assert load(data).shape == SMOOTH.shape
    assert not caplog.messages


def test_a_lack_of_memory_is_no_metadata_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    with pytest.raises(MemoryError):
        load(picture(SMOOTH))


# --------------------------------------------------------------------------------------------------
# colours


def meant(image: Image.Image, profile: bytes) -> NDArray[np.uint8]:
    """What LittleCMS makes of a whole picture."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return np.asarray(converted)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_colours_are_those_that_were_meant(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    data = picture(
        SMOOTH, kind, icc_profile=WIDE_GAMUT, **({"lossless": True} if kind == "WEBP" else {})
    )
    with Image.open(io.BytesIO(data)) as image:
        stored = image.convert("RGB")
    expected = meant(stored, WIDE_GAMUT)
    assert np.abs(expected.astype(int) - np.asarray(stored)).mean() > 10
    assert np.array_equal(load(data), expected)
    assert caplog.messages == [CONVERTED]


def jpeg2000_with(profile: bytes) -> bytes:
    """A JP2 whose box of colours holds a profile (method 2) in place of a number.

    Pillow does not write such.
    """
    data = picture(SMOOTH, "JPEG2000", irreversible=False)
    at = data.index(b"colr") - 4
    old = struct.unpack(">I", data[at : at + 4])[0]
    new = struct.pack(">I", 11 + len(profile)) + b"colr" + b"\2\0\0" + profile
    outer = data.index(b"jp2h") - 4
    length = struct.unpack(">I", data[outer : outer + 4])[0] - old + len(new)
    return data[:outer] + struct.pack(">I", length) + data[outer + 4 : at] + new + data[at + old :]


def avif_with(primaries: int, transfer: int) -> bytes:
    """An AVIF that names its colours by numbers of ITU-T H.273."""
    data = picture(SMOOTH, "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">2H", primaries, transfer) + data[at + 4 :]


def test_colours_of_jpeg2000_and_avif_stand_in_a_box(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("PIL._avif", reason="this Pillow has no AVIF")
    plain = Image.fromarray(SMOOTH)
    assert np.array_equal(load(jpeg2000_with(SRGB)), SMOOTH)
    for method in (b"\2", b"\3"):  # restricted, and any
        data = jpeg2000_with(WIDE_GAMUT).replace(b"colr\2", b"colr" + method)
        assert np.array_equal(load(data), meant(plain, WIDE_GAMUT))
    assert caplog.messages == [CONVERTED] * 2
    caplog.clear()
    decoded = load(avif_with(1, 13))
    assert not caplog.messages
    x = np.linspace(0, 1, 512)
    wide = matrix_profile(
        PRIMARIES[12], np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    )
    converted = load(avif_with(12, 13))
    assert caplog.messages == [CONVERTED]
    assert np.abs(converted.astype(int) - meant(Image.fromarray(decoded), wide)).max() <= 1
    assert np.abs(converted.astype(int) - decoded).max() > 5
    caplog.clear()
    assert np.array_equal(load(avif_with(9, 16)), decoded)
    assert "high dynamic range or unknown: transfer function 16" in caplog.text


@pytest.mark.parametrize("space", [14, 16])  # CIE Lab, and sRGB
def test_a_space_of_jpeg2000_that_pillow_does_not_know_is_said(
    space: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(picture(SMOOTH, "JPEG2000", irreversible=False))
    at = data.index(b"colr") + 7
    data[at : at + 4] = struct.pack(">I", space)
    assert np.array_equal(load(bytes(data)), SMOOTH)
    told = f"enumerated space {space} of JPEG 2000" in caplog.text
    assert told == (space == 14)
    assert bool(caplog.messages) == told


def test_srgb_stays_as_it_is_whoever_wrote_its_profile(caplog: pytest.LogCaptureFixture) -> None:
    curve = np.linspace(0, 1, 1024)
    curve = np.where(curve <= 0.04045, curve / 12.92, ((curve + 0.055) / 1.055) ** 2.4)
    for profile in (SRGB, matrix_profile(PRIMARIES[1], curve)):
        assert np.array_equal(
            load(picture(gradient(90, 70), icc_profile=profile)), gradient(90, 70)
        )
    assert not caplog.messages


def grey_profile() -> bytes:
    """The tone curve of a matrix profile, for grey."""
    data = WIDE_GAMUT.replace(b"mntrRGB ", b"mntrGRAY")
    return data.replace(b"rTRC", b"kTRC", 1)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_has_profiles_too(mode: str) -> None:
    expected = meant(Image.fromarray(GREY), grey_profile())
    image = (
        Image.fromarray(GREY.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(GREY).convert(mode)
    )
    assert np.abs(expected[..., 0].astype(int) - GREY).max() > 10
    assert np.array_equal(load(picture(image, icc_profile=grey_profile())), expected)


def test_transparent_colours_are_converted_before_they_are_laid_on_white() -> None:
    image = Image.fromarray(SMOOTH).convert("RGBA")
    image.putalpha(Image.fromarray(GREY))
    alpha = GREY[..., None] / 255
    expected = meant(Image.fromarray(SMOOTH), WIDE_GAMUT) * alpha + 255 * (1 - alpha)
    assert np.abs(load(picture(image, icc_profile=WIDE_GAMUT)) - expected).max() <= 1
    palette = Image.fromarray(SMOOTH).quantize(32)
    assert np.array_equal(
        load(picture(palette, icc_profile=WIDE_GAMUT)), meant(palette.convert("RGB"), WIDE_GAMUT)
    )


def cmyk_profile() -> bytes:
    """Inks by a table of their 16 mixtures: weaker and yellower ones than Pillow's own conversion
    supposes.
    """
    corners = np.array(np.meshgrid(*[(0, 1)] * 4, indexing="ij")).reshape(4, -1).T
    light = np.clip(1 - corners[:, :3] * (0.7, 0.8, 0.9), 0, 1) * (1 - 0.8 * corners[:, 3:])
    rgb = Image.fromarray((light * 255).round().astype(np.uint8)[None])
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(rgb, to_lab)
    assert lab is not None
    levels = np.asarray(lab) ^ np.array([0, 128, 128], np.uint8)  # Pillow gives a and b with a sign
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * np.eye(3, dtype=int).ravel()))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + levels.tobytes() + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc\0\0\0\0" + struct.pack(">I", 4) + b"ink\0" + bytes(78)
    tags = [
        (b"desc", name),
        (b"cprt", b"text\0\0\0\0none\0\0\0\0"),
        (b"wtpt", white),
        (b"A2B0", table),
    ]
    index, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, value in tags:
        index += key + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(index) + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    head += struct.pack(">6H4s28x", 2025, 1, 1, 0, 0, 0, b"acsp") + white[8:]
    return head + bytes(128 - len(head)) + index + body


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_are_converted_by_their_profile(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    inks = Image.fromarray(SMOOTH).convert("CMYK")
    plain = picture(inks, kind)
    with Image.open(io.BytesIO(plain)) as stored:
        assert np.array_equal(load(plain), np.asarray(stored.convert("RGB")))
        assert not caplog.messages
        expected = meant(stored, cmyk_profile())
        naive = np.asarray(stored.convert("RGB"))
    assert np.abs(expected.astype(int) - naive).mean() > 5
    assert np.array_equal(load(picture(inks, kind, icc_profile=cmyk_profile())), expected)
    assert caplog.messages == [CONVERTED]


def test_lab_is_converted_without_a_profile() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.fromarray(SMOOTH), to_lab)
    assert lab is not None
    for info in ({}, {"icc_profile": lab.info.get("icc_profile")}):
        lab.info = info
        assert np.abs(load(picture(lab, "TIFF")).astype(int) - SMOOTH).max() < 14


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "profile", [b"junk" * 50, WIDE_GAMUT[:200], grey_profile(), cmyk_profile()]
)
def test_a_profile_that_does_not_serve_is_left_out(
    kind: str, profile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load(picture(SMOOTH, kind))
    assert np.array_equal(load(picture(SMOOTH, kind, icc_profile=profile)), plain)
    (message,) = caplog.messages
    assert message.startswith("the colour profile is not used (")
    assert message.endswith("): colours are taken as sRGB")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"abc",
        b"n\0\0",
        b"n\0\1abc",
        b"n\0\0" + zlib.compress(bytes(999))[:-3],
        b"n\0\0" + b"junk",
    ],
)
def test_a_broken_profile_of_a_png_is_left_out(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert np.array_equal(load(png_with(chunk(b"iCCP", body))), SMOOTH)
    assert caplog.messages[-1].startswith("the colour profile is not used (")


def test_a_large_profile_is_used() -> None:
    """Pillow stops at 1 MiB."""
    profile = WIDE_GAMUT + bytes(3 << 20)
    profile = struct.pack(">I", len(profile)) + profile[4:]
    data = png_with(chunk(b"iCCP", b"n\0\0" + zlib.compress(profile)))
    assert np.array_equal(load(data), meant(Image.fromarray(SMOOTH), WIDE_GAMUT))


def numbers(*values: float) -> bytes:
    return struct.pack(f">{len(values)}I", *(round(100000 * value) for value in values))


P3 = matrix_profile(
    PRIMARIES[12],
    np.array(
        [
            ((x + 0.055) / 1.055) ** 2.4 if x > 0.04045 else x / 12.92
            for x in np.linspace(0, 1, 4096)
        ]
    ),
)
BY_NUMBERS: dict[str, tuple[list[bytes], bytes | None]] = {
    "cICP, Display P3": ([chunk(b"cICP", bytes([12, 13, 0, 1]))], P3),
    "cICP before iCCP": (
        [
            chunk(b"cICP", bytes([12, 13, 0, 1])),
            chunk(b"iCCP", b"n\0\0" + zlib.compress(WIDE_GAMUT)),
        ],
        P3,
    ),
    "cICP, sRGB": ([chunk(b"cICP", bytes([1, 13, 0, 1]))], None),
    "cICP, video": ([chunk(b"cICP", bytes([9, 14, 1, 0]))], None),
    "cICP, high dynamic range": ([chunk(b"cICP", bytes([9, 16, 0, 1]))], None),
    "gAMA of sRGB": ([chunk(b"gAMA", numbers(0.45455))], None),
    "gAMA, linear": (
        [chunk(b"gAMA", numbers(1))],
        matrix_profile(PRIMARIES[1], np.linspace(0, 1, 4096)),
    ),
    "gAMA of sRGB and another cHRM": (
        [
            chunk(b"gAMA", numbers(0.45455)),
            chunk(b"cHRM", numbers(*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
        ],
        matrix_profile(PRIMARIES[12], np.linspace(0, 1, 4096) ** 2.2),
    ),
    "gAMA and cHRM": (
        [
            chunk(b"gAMA", numbers(0.5)),
            chunk(b"cHRM", numbers(*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
        ],
        matrix_profile(PRIMARIES[12], np.linspace(0, 1, 4096) ** 2),
    ),
    "sRGB before gAMA": ([chunk(b"sRGB", b"\0"), chunk(b"gAMA", numbers(1))], None),
    "gAMA beyond all use": ([chunk(b"gAMA", numbers(0.01))], None),
    "gAMA of 0": ([chunk(b"gAMA", bytes(4))], None),
    "cHRM of nothing": ([chunk(b"gAMA", numbers(1)), chunk(b"cHRM", bytes(32))], None),
}


@pytest.mark.parametrize("name", BY_NUMBERS)
def test_a_png_says_its_colours_in_numbers(name: str) -> None:
    chunks, profile = BY_NUMBERS[name]
    expected = SMOOTH if profile is None else meant(Image.fromarray(SMOOTH), profile)
    assert np.abs(load(png_with(*chunks)).astype(int) - expected).max() <= 1


# --------------------------------------------------------------------------------------------------
# deep values


def deep(values: NDArray[Any]) -> tuple[list[int], Callable[[], bytes]]:
    data = picture(Image.fromarray(values), "TIFF")
    return load(data)[0, :, 0].tolist(), lambda: data


@pytest.mark.parametrize(
    ("values", "expected", "span"),
    [
        (np.array([[0, 65535, 257]], np.uint16), [0, 255, 1], "from 0 as black to 65535 as white"),
        (np.array([[0, 65535, 257]], np.int32), [0, 255, 1], "from 0 as black to 65535 as white"),
        (
            np.array([[0, 8_890_000, 889_000]], np.int32),
            [0, 255, 26],
            "from 0 as black to 8.89e+06 as white",
        ),
        (
            np.array([[8_890_000, 889_000]], np.int32),
            [255, 26],
            "from 0 as black to 8.89e+06 as white",
        ),
        (np.array([[-254, -127]], np.int32), [0, 127], "from -254 as black to 1 as white"),
        (np.array([[-100, 155, 0]], np.int32), [0, 255, 100], "from -100 as black to 155 as white"),
        (np.array([[0, 1, 0.2]], np.float32), [0, 255, 51], "from 0 as black to 1 as white"),
        (np.array([[0, 255, 51]], np.float32), [0, 255, 51], "from 0 as black to 255 as white"),
        (np.array([[-1, 1, 0]], np.float32), [0, 255, 128], "from -1 as black to 1 as white"),
        (
            np.array([[0, 3e30, 6e29]], np.float32),
            [0, 255, 51],
            "from 0 as black to 3e+30 as white",
        ),
        (
            np.array([[np.nan, np.inf, -np.inf, 0.2]], np.float32),
            [0, 255, 0, 51],
            "from 0 as black to 1 as white; 1 values are no numbers, and black",
        ),
        (
            np.array([[np.nan, -np.inf, -1, 1]], np.float32),
            [0, 0, 0, 255],
            "from -1 as black to 1 as white; 1 values are no numbers, and black",
        ),
    ],
)
def test_the_range_that_became_black_to_white_is_said(
    values: NDArray[Any], expected: list[int], span: str, caplog: pytest.LogCaptureFixture
) -> None:
    found, _ = deep(values)
    assert found == expected
    assert caplog.messages == [f"picture of more than 8 bits: coded with 8 bits a channel, {span}"]


def test_what_is_said_of_deep_values_is_of_all_strips(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 2)
    load(picture(Image.fromarray(np.array([[np.nan, 0], [0, 1]], np.float32)), "TIFF"))
    assert "; 1 values are no numbers, and black" in caplog.text
    deep = Image.fromarray(np.array([[3000, 0], [0, 65535]], np.uint16))
    assert load(picture(deep, transparency=3000))[..., 0].tolist() == [[255, 0], [0, 255]]


# --------------------------------------------------------------------------------------------------
# limits


def test_a_big_tiff_is_a_picture() -> None:
    data = picture(SMOOTH, "TIFF", big_tiff=True)
    assert detect(data[:16]) == "image"
    assert detect(b"MM\0+" + bytes(12)) == "image"
    assert np.array_equal(load(data), SMOOTH)


def test_max_pixels_goes_beyond_pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is for the process, and there again afterwards."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 10)
    data = picture(np.zeros((10, 10, 3), np.uint8))
    assert Picture(io.BytesIO(data), 100).width == 10
    assert Image.MAX_IMAGE_PIXELS == 40
    with pytest.raises(MediaError, match="--max-pixels"):
        Picture(io.BytesIO(data), 99)


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_what_loses_values_is_written_with_quality_95(suffix: str, kind: str) -> None:
    """So that what a format loses is little beside what the codec does."""
    file = io.BytesIO()
    save_image(file, SMOOTH, suffix)
    assert file.getvalue() == picture(SMOOTH, kind, quality=95) != picture(SMOOTH, kind)


@pytest.mark.parametrize(("suffix", "most"), [("webp", 16383), ("jpg", 65500), ("jpeg", 65500)])
def test_a_size_that_a_format_cannot_hold_is_refused_before_anything_is_decoded(
    suffix: str, most: int
) -> None:
    ImageWriter(io.BytesIO(), 1, most, suffix)
    for size in ((1, most + 1), (most + 1, 1)):
        with pytest.raises(MediaError, match=rf"\.{suffix} holds at most {most} pixels a side"):
            ImageWriter(io.BytesIO(), *size, suffix)


def test_a_tiff_beyond_4_gib_is_a_big_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, magic in ((10**6, b"II*\0"), (1000, b"II+\0")):
        monkeypatch.setattr(picture_writer, "MAX_FILE_BYTES", most)
        file = io.BytesIO()
        save_image(file, SMOOTH, "tiff")
        assert file.getvalue()[:4] == magic
        assert np.array_equal(load(file.getvalue()), SMOOTH)


def test_a_bmp_holds_4_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.new", lambda *_: None)  # 4 GiB of memory
    ImageWriter(io.BytesIO(), 30000, 47000, "bmp")
    with pytest.raises(MediaError, match="4 GiB"):
        ImageWriter(io.BytesIO(), 30000, 48000, "bmp")
    ImageWriter(io.BytesIO(), 30000, 48000, "tiff")
    ImageWriter(io.BytesIO(), 30000, 48000, "bmp", channels=1)


@pytest.mark.parametrize(
    "error", [OSError("encoder error -2"), ValueError("no"), struct.error("too large")]
)
def test_what_pillow_says_when_it_cannot_write_is_kept(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(MediaError, match=str(error)):
        save_image(io.BytesIO(), SMOOTH, "jpg")


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "tiff"])
def test_a_full_disk_is_named(suffix: str) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        save_image(Full(), SMOOTH, suffix)


def test_pictures_read_side_by_side_leave_the_warnings_as_they_were() -> None:
    """Two at once, of which the first ends first: as threads do it."""
    before = warnings.filters[:]
    one, other = (pictures._decoded(io.BytesIO(picture(SMOOTH)), 1 << 20) for _ in range(2))
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    warnings.warn("not heard while the other is read", stacklevel=1)
    other.__exit__(None, None, None)
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", stacklevel=1)


def test_pillows_limit_is_asked_for_when_no_other_has_raised_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another picture has the limit raised, and puts it back while this one waits."""

    class Other:
        def __enter__(self) -> None:
            Image.MAX_IMAGE_PIXELS = 5000

        def __exit__(self, *_: object) -> None:
            pass

    data = picture(SMOOTH)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 40)
    monkeypatch.setattr(pictures, "_limit", Other())
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 1000)  # Pillow asks of each piece again
    assert load_image(io.BytesIO(data), SMOOTH.size).shape == SMOOTH.shape
    assert Image.MAX_IMAGE_PIXELS == 5000


def test_the_strips_of_a_picture_may_be_taken_twice_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 10 * SMOOTH.shape[1])
    read = Picture(io.BytesIO(picture(SMOOTH)))
    late = read.strips()
    strips = [next(late)]
    for strip in read.strips():
        assert strip.shape[1:] == SMOOTH.shape[1:]
        strips += [next(late)] if len(strips) < 10 else []
    assert np.array_equal(np.concatenate(strips), SMOOTH)


def keyed(bits: int, colour_type: int, key: list[int], row: bytes, width: int) -> bytes:
    """A PNG of one row, with a value that is transparent."""
    head = struct.pack(">2I5B", width, 1, bits, colour_type, 0, 0, 0)
    return (
        SIGNATURE
        + chunk(b"IHDR", head)
        + chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )


KEYED = {
    "1 bit": (keyed(1, 0, [0], b"\x40", 2), [255, 255]),
    "2 bits": (keyed(2, 0, [1], b"\x60", 2), [255, 170]),
    "2 bits, which alone count": (keyed(2, 0, [0x11], b"\x60", 2), [255, 170]),
    "4 bits": (keyed(4, 0, [3], b"\x34", 2), [255, 68]),
    "8 bits": (keyed(8, 0, [3], b"\3\4", 2), [255, 4]),
    "16 bits": (keyed(16, 0, [3000], struct.pack(">2H", 3000, 3001), 2), [255, 12]),
    "8 bits of colour": (keyed(8, 2, [1, 2, 3], bytes([1, 2, 3, 9, 9, 9]), 2), [255, 9]),
    "16 bits of colour": (
        keyed(16, 2, [1000, 2, 3], struct.pack(">6H", 1000, 2, 3, 2313, 2313, 2313), 2),
        [255, 9],
    ),
}


@pytest.mark.parametrize("name", KEYED)
def test_a_transparent_value_of_any_depth_is_laid_on_white(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, grey = KEYED[name]
    assert load(data).tolist() == [[[value] * 3 for value in grey]]
    assert caplog.messages[-1] == "transparent picture: laid on white"


def test_a_transparent_value_that_no_pixel_has_is_not_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load(keyed(16, 0, [5], struct.pack(">2H", 3000, 3001), 2))
    assert "transparent" not in caplog.text


OF_ONE_CHANNEL = {
    "L": gradient(40, 56)[..., 0],
    "1": gradient(40, 56)[..., 0] > 128,
    "I;16": gradient(40, 56)[..., 0].astype(np.uint16) * 257,
    "LA": gradient(40, 56)[..., :2],
}


@pytest.mark.parametrize("mode", [*OF_ONE_CHANNEL, "RGB", "P"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
@pytest.mark.usefixtures("models")
def test_a_greyscale_file_comes_back_in_grey(mode: str, suffix: str) -> None:
    """And a picture in colours, even if they are all grey, in colours."""
    if mode in OF_ONE_CHANNEL:
        image = Image.fromarray(OF_ONE_CHANNEL[mode])
    else:
        image = Image.fromarray(OF_ONE_CHANNEL["L"]).convert(mode)
    assert image.mode == mode
    file = io.BytesIO()
    image.save(file, "PNG")
    data = codec.compress(file.getvalue())
    assert codec.info(data)["channels"] == (1 if mode in OF_ONE_CHANNEL else 3)
    back = Image.open(io.BytesIO(codec.decompress(data, suffix=suffix)))
    assert back.size == image.size
    assert back.mode == ("L" if mode in OF_ONE_CHANNEL and suffix != "webp" else "RGB")
    pixels = np.asarray(back.convert("RGB"))
    if suffix in ("png", "bmp", "tiff"):  # of others the format decides
        assert bool((pixels == pixels[..., :1]).all()) == (mode in OF_ONE_CHANNEL)
