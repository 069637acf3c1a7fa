"""Kinds of pictures that Pillow reads as other pixels, and HEIC, which it does not read alone."""

from __future__ import annotations

import base64
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from codec.errors import MediaError
from codec.media import detect, load_audio, load_image
from codec.media.heic import is_heic

GREY: NDArray[np.int64] = np.add.outer(np.arange(16), np.arange(24)) * 6
COLOURS = np.stack([GREY, 255 - GREY, GREY // 2 + 20], -1)


def tiff(
    pixels: NDArray[np.generic],
    white_is_zero: bool = False,
    separate: bool = False,
    *,
    order: str = "<",
    packed: bool = False,
    more: dict[int, list[int]] | None = None,
) -> bytes:
    """A TIFF of grey (H, W) or RGB values, (H, W, 3) or (3, H, W).

    Args:
        order: Of bytes.
        packed: By deflate, which libtiff reads for Pillow.
        more: Tags that are added, or given other values.
    """
    height, width = pixels.shape[1:] if separate else pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[0 if separate else 2]
    strips = [
        np.asarray(plane, plane.dtype.newbyteorder(order)).tobytes()
        for plane in (pixels if separate else [pixels])
    ]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    fields = {
        256: [width],
        257: [height],
        258: [8 * pixels.dtype.itemsize] * channels,
        259: [8 if packed else 1],
        262: [2 if channels == 3 else 0 if white_is_zero else 1],
        273: [0] * len(strips),  # where they are: below
        277: [channels],
        278: [height],
        279: [len(strip) for strip in strips],
        284: [2 if separate else 1],
        339: [{"i": 2, "f": 3}.get(pixels.dtype.kind, 1)] * channels,
    } | (more or {})
    begin = 8 + 2 + 12 * len(fields) + 4
    data = begin + sum(4 * len(values) for values in fields.values() if len(values) > 1)
    fields[273] = [data + sum(fields[279][:i]) for i in range(len(strips))]
    entries, values_behind = b"", b""
    for tag, values in sorted(fields.items()):
        at = packed_values = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            at = struct.pack(f"{order}I", begin + len(values_behind))
            values_behind += packed_values
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + at
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(fields))
    return head + entries + bytes(4) + values_behind + b"".join(strips)


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


def test_other_planes_are_refused() -> None:
    """Pillow makes white or another picture of them."""
    for photometric, channels, more in ((1, 2, {338: [2]}), (8, 3, {})):
        planes = np.stack([GREY.astype(np.uint8)] * channels)
        data = tiff(planes, separate=True, packed=True, more={262: [photometric], **more})
        with pytest.raises(MediaError, match="a TIFF picture with a plane for each channel of LA"):
            load(data)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("packed", [False, True])
def test_deep_values_come_back_in_any_order_of_bytes(order: str, kind: type, packed: bool) -> None:
    """What libtiff unpacks is in the machine's order, and Pillow would turn it round again."""
    white = np.iinfo(kind).max if np.issubdtype(kind, np.integer) else 1
    values = (GREY * (white / 255)).astype(kind)
    values[0, 0] = white
    found = load(tiff(values, order=order, packed=packed))[..., 0].ravel()
    assert found[0] == 255
    assert np.abs(found[1:] - GREY.ravel()[1:]).max() <= 1


@pytest.mark.parametrize("separate", [False, True])
def test_ycbcr_that_is_not_compressed_is_refused(separate: bool) -> None:
    colours = COLOURS.astype(np.uint8)
    planes = colours.transpose(2, 0, 1).copy() if separate else colours
    tags = {262: [6], 530: [1, 1]}
    with pytest.raises(MediaError, match="YCbCr colours that are not compressed"):
        load(tiff(planes, separate=separate, more=tags))
    assert load(tiff(colours, packed=True, more=tags)).shape == colours.shape
    grey = GREY.astype(np.uint8)
    assert np.array_equal(load(tiff(grey, more={262: [6]}))[..., 0], grey)


def test_the_preview_of_a_raw_photograph_is_not_taken_for_it() -> None:
    """Which lies in a directory below the preview's own."""
    preview = GREY.astype(np.uint8)
    with pytest.raises(MediaError, match="a preview in front of the picture itself"):
        load(tiff(preview, more={254: [1], 330: [8]}))
    assert np.array_equal(load(tiff(preview, more={254: [1]}))[..., 0], preview)
    assert np.array_equal(load(tiff(preview, more={254: [0], 330: [8]}))[..., 0], preview)


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


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_few_bits_of_a_jpeg_2000_are_black_to_white(mode: str, bits: int) -> None:
    """Of which Pillow shifts white up, to 128, 192, 240 and 254."""
    assert load(jpeg_2000(mode, bits, (1 << bits) - 1)).tolist() == [[[255] * 3] * 24] * 16
    mean = (1 << bits) // 2 * 255 / ((1 << bits) - 1)
    if mode in ("L", "RGB"):
        assert (load(jpeg_2000(mode, bits, 0)) == 0).all()
        assert (load(jpeg_2000(mode, bits, (1 << bits) // 2)) == round(mean)).all()


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("size", [(4, 3), (6, 5)])
def test_a_gif_is_white_where_it_has_no_pixels(
    mode: str, size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Its picture may be smaller than its canvas, here (6, 5), and lie anywhere in it."""
    image = Image.fromarray(GREY[: size[1], : size[0]].astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, "GIF")
    data = bytearray(file.getvalue())
    left, top = 6 - size[0], 5 - size[1]
    data[6:10] = struct.pack("<2H", 6, 5)
    at = data.rindex(b"," + struct.pack("<4H", 0, 0, *size))
    data[at + 1 : at + 5] = struct.pack("<2H", left, top)
    expected = np.full((5, 6, 3), 255)
    expected[top:, left:] = np.asarray(image.convert("RGB"))
    assert np.array_equal(load(bytes(data)), expected)
    assert bool(caplog.messages) == (size != (6, 5))


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_without_any_alpha_is_opaque(alpha: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its masks name a fourth byte, which many programs leave 0; one pixel that is not tells."""
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<2sI4xI", b"BM", 122 + 8, 122)
    head += (struct.pack("<IiiHHII16x", 108, 2, 1, 1, 32, 3, 8) + masks).ljust(108, b"\0")
    found = load(head + bytes([3, 2, 1, 0, 6, 5, 4, alpha]))
    assert found.tolist() == [[[255] * 3 if alpha else [1, 2, 3], [4, 5, 6]]]
    assert bool(caplog.messages) == bool(alpha)


def test_components_of_a_jpeg_2000_have_bits_of_their_own() -> None:
    assert (load(jpeg_2000("LA", 4, 3, alpha_bits=1)) == 51).all()
    assert (load(jpeg_2000("LA", 8, 51, alpha_bits=4)) == 51).all()


def jpeg_2000(mode: str, bits: int, value: int, alpha_bits: int | None = None) -> bytes:
    """A picture of one value in all channels; alpha is opaque. Pillow writes 8 bits only.

    So the shift of levels by which values have no sign, half of the range, is taken from it.
    """
    depths = [(alpha_bits or bits) if band == "A" else bits for band in mode]
    values = [
        (1 << depth) - 1 if band == "A" else value for depth, band in zip(depths, mode, strict=True)
    ]
    levels = [at - (1 << depth >> 1) + 128 for at, depth in zip(values, depths, strict=True)]
    file = io.BytesIO()
    Image.new(mode, (24, 16), tuple(levels)).save(file, "JPEG2000", no_jp2=True, mct=0)
    data = bytearray(file.getvalue())
    data[42 : 42 + 3 * len(mode) : 3] = bytes(depth - 1 for depth in depths)
    return bytes(data)


@pytest.mark.parametrize(("bits", "colours"), [(4, 2), (8, 1)])
def test_a_palette_of_a_jpeg_2000_is_read_where_pillow_reads_it_right(
    bits: int, colours: int
) -> None:
    def with_palette(values: list[bytes], bits: int) -> bytes:
        def box(name: bytes, body: bytes) -> bytes:
            return struct.pack(">I", 8 + len(body)) + name + body

        head = box(b"ihdr", struct.pack(">2IH4B", 16, 24, 1, bits - 1, 7, 0, 0))
        head += box(b"colr", struct.pack(">3BI", 1, 0, 0, 16))
        head += box(b"pclr", struct.pack(">H4B", len(values), 3, 7, 7, 7) + b"".join(values))
        head += box(b"cmap", b"".join(struct.pack(">H2B", 0, 1, i) for i in range(3)))
        head = box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", head)
        return b"\0\0\0\x0cjP  \r\n\x87\n" + head + box(b"jp2c", jpeg_2000("L", bits, 2))

    assert load(with_palette([b"abc", b"def", b"ghi"], 8))[3, 4].tolist() == list(b"ghi")
    with pytest.raises(MediaError, match="palette of fewer than 8 bits, or of equal colours"):
        load(with_palette([b"abc", b"def" if colours == 2 else b"abc", b"ghi"], bits))


def test_a_bmp_packed_by_rle4_is_refused() -> None:
    """Three values as they are, and their end: Pillow reads two and goes on in another place."""
    palette = bytes(value for index in range(16) for value in (index, index, index, 0))
    for packing, pixels in ((1, b"\1\1\1\2\1\3"), (2, b"\0\3\x12\x30")):
        pixels += b"\0\0\0\1"
        head = struct.pack("<2sI4xI", b"BM", 54 + 64 + len(pixels), 54 + 64)
        depth = 8 if packing == 1 else 4
        head += struct.pack("<IiiHHII8xII", 40, 3, 1, 1, depth, packing, len(pixels), 16, 0)
        if packing == 1:
            assert load(head + palette + pixels)[0, :, 0].tolist() == [1, 2, 3]
        else:
            with pytest.raises(MediaError, match="packed by RLE4, which is not read; save it as"):
                load(head + palette + pixels)


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
