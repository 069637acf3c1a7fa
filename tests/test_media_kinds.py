"""Kinds of TIFF that Pillow reads as other pixels, and HEIC, which Pillow alone does not read."""

from __future__ import annotations

import base64
import io
import struct
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from codec.errors import MediaError
from codec.media import detect, load_audio, load_image
from codec.media.heic import is_heic

GREY: NDArray[np.int64] = np.add.outer(np.arange(16), np.arange(24)) * 6
COLOURS = np.stack([GREY, 255 - GREY, GREY // 2 + 20], -1)


def tiff(pixels: NDArray[np.generic], white_is_zero: bool = False, separate: bool = False) -> bytes:
    """An uncompressed TIFF of grey (H, W) or RGB values, (H, W, 3) or (3, H, W)."""
    height, width = pixels.shape[1:] if separate else pixels.shape[:2]
    channels = 3 if pixels.ndim == 3 else 1
    bits = 8 * pixels.dtype.itemsize
    fields: list[tuple[int, list[int]]] = [
        (256, [width]),
        (257, [height]),
        (258, [bits] * channels),
        (259, [1]),
        (262, [2 if channels == 3 else 0 if white_is_zero else 1]),
        (273, [0]),  # where the strips are: below
        (277, [channels]),
        (278, [height]),
        (279, [pixels.nbytes]),
        (284, [2 if separate else 1]),
        (339, [2 if pixels.dtype.kind == "i" else 1] * channels),
    ]
    if separate:
        size = pixels.nbytes // 3
        fields = [(t, [0] * 3 if t == 273 else [size] * 3 if t == 279 else v) for t, v in fields]
    begin = 8 + 2 + 12 * len(fields) + 4
    longer = sum(4 * len(values) for _, values in fields if len(values) > 1)
    data = begin + longer
    entries, values_behind = b"", b""
    for tag, values in fields:
        if tag == 273:
            values = [data + i * pixels.nbytes // len(values) for i in range(len(values))]
        packed = struct.pack(f"<{len(values)}I", *values)
        at = packed
        if len(values) > 1:
            at = struct.pack("<I", begin + len(values_behind))
            values_behind += packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + at
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(fields))
    return head + entries + bytes(4) + values_behind + pixels.tobytes()


def load(data: bytes) -> NDArray[np.uint8]:
    return load_image(io.BytesIO(data))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_negative_comes_back_as_it_is_meant(kind: type) -> None:
    most = np.iinfo(kind).max
    values = (GREY * (most // 255)).astype(kind)
    assert np.array_equal(load(tiff(values))[..., 0], GREY)
    assert np.array_equal(load(tiff(most - values, white_is_zero=True))[..., 0], GREY)
    assert np.array_equal(load(tiff(values, white_is_zero=True))[..., 0], 255 - GREY)


def test_32_bits_have_no_sign_unless_they_say_so() -> None:
    values = GREY.copy()
    values[0, 0], values[0, 1] = 0, 255  # black and white
    wide = (values * 0x01010101).astype(np.uint32)
    assert np.array_equal(load(tiff(wide))[..., 0], values)
    signed = (values * 0x01010101 - (1 << 31)).astype(np.int32)
    assert np.array_equal(load(tiff(signed))[..., 0], values)


def test_planes_are_read_where_pillow_reads_them_right() -> None:
    planes = COLOURS.astype(np.uint8).transpose(2, 0, 1).copy()
    assert np.array_equal(load(tiff(planes, separate=True)), COLOURS)
    deep = (COLOURS * 257).astype(np.uint16)
    assert np.array_equal(load(tiff(deep)), COLOURS)
    with pytest.raises(MediaError, match="more than 8 bits with a plane for each channel"):
        load(tiff(deep.transpose(2, 0, 1).copy(), separate=True))


def test_a_deep_plane_alone_is_refused_as_several_are() -> None:
    data = bytearray(tiff((GREY * 257).astype(np.uint16)))
    at = data.find(struct.pack("<HHI", 284, 4, 1)) + 8
    data[at : at + 4] = struct.pack("<I", 2)
    with pytest.raises(MediaError, match="more than 8 bits with a plane for each channel"):
        load(bytes(data))


def test_12_bits_are_black_to_white() -> None:
    """Two values in three bytes."""
    values = (GREY * 4095 / 255).round().astype(np.uint16)
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    data = bytearray(tiff(values))
    at = data.find(struct.pack("<HHI", 258, 4, 1)) + 8
    data[at : at + 4] = struct.pack("<I", 12)
    data[-values.nbytes :] = packed.astype(np.uint8).tobytes()
    assert np.array_equal(load(bytes(data))[..., 0], GREY)


def test_deep_colours_of_a_jpeg_2000_are_refused() -> None:
    """Pillow rounds them, and white up to 256, which it has as 0."""
    for mode, kind in (("RGB", "JPEG2000"), ("RGBA", "JPEG2000"), ("LA", "JPEG2000")):
        file = io.BytesIO()
        Image.new(mode, (24, 16), "white").save(file, kind)
        assert (load(file.getvalue()) == 255).all()
        data = bytearray(file.getvalue())
        data[data.find(b"\xff\x4f\xff\x51") + 42 + 3 * (len(mode) - 1)] = 8
        with pytest.raises(MediaError, match="JPEG 2000 picture with colours of more than 8 bits"):
            load(bytes(data))
    file = io.BytesIO()
    Image.fromarray((GREY * 257).astype(np.uint16)).save(file, "JPEG2000")
    assert np.array_equal(load(file.getvalue())[..., 0], GREY)


def test_16_bits_a_pixel_are_not_deep(caplog: pytest.LogCaptureFixture) -> None:
    """Five for red and blue, six for green."""
    masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    head = struct.pack("<2sI4xI", b"BM", 66 + 8, 66)
    head += struct.pack("<IiiHHII16x", 40, 2, 2, 1, 16, 3, 8) + masks
    found = load(head + struct.pack("<4H", 0xFFFF, 0, 0xF800, 0x1F))
    assert found.tolist() == [[[255, 0, 0], [0, 0, 255]], [[255] * 3, [0] * 3]]
    assert not caplog.messages


def colours(kind: str, bits: int) -> bytes:
    """A picture that says it has so many bits a channel."""
    if kind == "PPM":
        values = np.full((16, 24, 3), (1 << bits) - 1)
        kept = values.astype(">u2" if bits > 8 else np.uint8).tobytes()
        return b"P6 24 16 %d\n" % ((1 << bits) - 1) + kept
    if kind == "HEIC":
        return heic(Image.new("RGB", (24, 16), "white"), deep=bits > 8)
    pytest.importorskip("PIL._avif", reason="this Pillow has no AVIF")
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(file, "AVIF")
    return base64.b64decode(DEEP_AVIF) if bits == 10 else file.getvalue()


# White, of 10 bits, which Pillow does not write.
DEEP_AVIF = """
    AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAAD5bWV0YQAAAAAAAAAvaGRscgAAAAAAAAAAcGljdAAAAA
    AAAAAAAAAAAFBpY3R1cmVIYW5kbGVyAAAAAA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAASEAAAAX
    AAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYwMUNvbG9yAAAAAGppcHJwAAAAS2lwY28AAAAUaXNwZQAAAA
    AAAAAQAAAAEAAAABBwaXhpAAAAAAMKCgoAAAAMYXYxQ4EATAAAAAATY29scm5jbHgAAgACAAIAAAAAF2lwbWEAAAAA
    AAAAAQABBAECgwQAAAAfbWRhdAoGGAz/24CAMg0YAAAAUAAAAACpjL6s
"""


@pytest.mark.parametrize("kind", ["PPM", "AVIF", "HEIC"])
def test_deep_colours_that_are_cut_to_8_bits_are_told(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (load(colours(kind, 8)) > 250).all()
    assert not caplog.messages
    assert (load(colours(kind, 10)) > 250).all()
    assert caplog.messages == ["picture of more than 8 bits: coded with 8 bits a channel"]


def test_signed_values_of_8_bits_are_refused() -> None:
    with pytest.raises(MediaError, match="signed values of 8 bits, which is not read; save it as"):
        load(tiff((GREY - 128).astype(np.int8)))
    wide = (GREY * 257 - (1 << 15)).astype(np.int16)
    wide[0, 0], wide[0, 1] = -(1 << 15), (1 << 15) - 1
    assert np.abs(load(tiff(wide))[1:, :, 0] - GREY[1:]).max() <= 1


def heic(
    image: Image.Image, brand: bytes = b"heic", deep: bool = False, **options: object
) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    file, values = io.BytesIO(), np.asarray(image).astype(np.uint16) * 257
    try:
        made = pillow_heif.from_pillow(image)
        if deep:  # with 10 bits
            made = pillow_heif.from_bytes("RGB;16", image.size, values.tobytes())
        made.save(file, quality=90, **options)
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"this pillow-heif does not write HEIC: {error}")
    data = file.getvalue()
    return data[:8] + brand + data[12:]


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_a_picture(brand: bytes) -> None:
    data = heic(Image.fromarray(COLOURS.astype(np.uint8)), brand)
    assert detect(data[:16]) == "image"
    assert np.abs(load(data).astype(int) - COLOURS).mean() < 6


def test_heic_is_upright() -> None:
    image = Image.fromarray(COLOURS.astype(np.uint8))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    data = heic(image, exif=exif.tobytes())
    turned = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).astype(int)
    found = load(data)
    assert found.shape == turned.shape
    assert np.abs(found - turned).mean() < 6


def test_colours_of_heic_stand_in_a_box(caplog: pytest.LogCaptureFixture) -> None:
    """Display P3, as a telephone has them."""
    data = heic(Image.fromarray(COLOURS.astype(np.uint8)))
    at = data.index(b"colrnclx") + 8
    plain, wide = (data[:at] + struct.pack(">2H", n, 13) + data[at + 4 :] for n in (1, 12))
    decoded = load(plain)
    assert not caplog.messages
    assert np.abs(load(wide).astype(int) - decoded).max() > 5
    assert caplog.messages == ["colours of another space: converted to sRGB"]


def test_heic_beyond_the_limit_or_damaged_is_a_line() -> None:
    data = heic(Image.fromarray(COLOURS.astype(np.uint8)))
    with pytest.raises(MediaError, match="24x16 pixels is above the limit of 100"):
        load_image(io.BytesIO(data), 100)
    for damaged in (data[:40], data[: len(data) // 2], data[:-30]):
        with pytest.raises(MediaError):
            load(damaged)


def test_heic_without_its_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    head = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic"
    assert detect(head[:16]) == "image"
    with pytest.raises(MediaError, match="pip install pillow-heif"):
        load(head + bytes(100))


def test_avif_and_sound_are_no_heic() -> None:
    for name in (b"mif1", b"avif"):
        both = struct.pack(">I", 28) + b"ftyp" + name + bytes(4) + b"mif1avifheic"
        assert not is_heic(io.BytesIO(both))
    sound = struct.pack(">I", 24) + b"ftypM4A " + bytes(4) + b"isommp42"
    assert not is_heic(io.BytesIO(sound))
    assert detect(sound[:16]) == "speech"
    with pytest.raises(MediaError):
        load_audio(io.BytesIO(sound))


def test_the_brands_of_the_first_box_alone_tell_a_heic() -> None:
    assert is_heic(io.BytesIO(struct.pack(">I", 20) + b"ftypmsf1" + bytes(4) + b"heic"))
    behind = struct.pack(">I", 16) + b"ftypM4A " + bytes(4) + b"heicheic"
    assert not is_heic(io.BytesIO(behind))
    assert not is_heic(io.BytesIO(struct.pack(">I", 20) + b"freeheic" + bytes(4) + b"heic"))
