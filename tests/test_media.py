"""codec.media: what users hand in becomes plain arrays or one clear error, and comes out as it went
in.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from conftest import gradient, picture, tones, wav
from PIL import Image

from codec import png
from codec.errors import MediaError
from codec.media import (
    AudioReader,
    AudioWriter,
    ImageWriter,
    Picture,
    detect,
    load_audio,
    load_image,
    pictures,
    resample,
    save_image,
    window,
)
from codec.medium import SPEECH

GREY = Image.new("L", (5, 4), 100)
RED = Image.new("RGB", (5, 4), (200, 30, 40))


def sixteen_bit(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 5), value, np.uint16))


def sixteen_bit_rgb(value: int) -> bytes:
    """A PNG of 4 x 5 pixels that Pillow can read and not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + struct.pack(">3H", value, value, value) * 5 for _ in range(4))
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def palette(transparent: bool) -> bytes:
    image = RED.quantize(4)
    return picture(image, transparency=image.getpixel((0, 0))) if transparent else picture(image)


# A picture's bytes, and the colour that all of it must have.
PICTURES: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "rgb": (lambda: picture(RED), (200, 30, 40)),
    "grey": (lambda: picture(GREY), (100, 100, 100)),
    "1-bit": (lambda: picture(Image.new("1", (5, 4), 1)), (255, 255, 255)),
    "16-bit": (lambda: picture(sixteen_bit(40000)), (156, 156, 156)),
    "16-bit-rgb": (lambda: sixteen_bit_rgb(40000), (156, 156, 156)),
    "16-bit-dark": (lambda: picture(sixteen_bit(200)), (1, 1, 1)),
    "16-bit-pgm": (lambda: picture(sixteen_bit(40000), "PPM"), (156, 156, 156)),
    "float-tiff": (lambda: picture(Image.new("F", (5, 4), 0.5), "TIFF"), (128, 128, 128)),
    "float-nan": (lambda: picture(Image.new("F", (5, 4), float("nan")), "TIFF"), (0, 0, 0)),
    "palette": (lambda: palette(False), (200, 30, 40)),
    "palette-transparent": (lambda: palette(True), (255, 255, 255)),
    "rgba": (lambda: picture(Image.new("RGBA", (5, 4), (0, 0, 0, 51))), (204, 204, 204)),
    "rgba-opaque": (lambda: picture(Image.new("RGBA", (5, 4), (9, 8, 7, 255))), (9, 8, 7)),
    "la": (lambda: picture(Image.new("LA", (5, 4), (0, 51))), (204, 204, 204)),
    "cmyk": (
        lambda: picture(Image.new("CMYK", (5, 4), (0, 255, 255, 0)), "JPEG", quality=100),
        (254, 0, 0),
    ),
    "webp": (lambda: picture(RED, "WEBP", lossless=True), (200, 30, 40)),
    "bmp": (lambda: picture(RED, "BMP"), (200, 30, 40)),
    "gif": (lambda: picture(RED, "GIF", save_all=True, append_images=[GREY]), (200, 30, 40)),
    "webp-animated": (
        lambda: picture(RED, "WEBP", save_all=True, append_images=[GREY], lossless=True),
        (200, 30, 40),
    ),
}


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_every_kind_of_picture_becomes_rgb(name: str) -> None:
    make, colour = PICTURES[name]
    data = make()
    pixels = load_image(io.BytesIO(data))
    assert detect(data[:16]) == "image"
    assert pixels.shape == (4, 5, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - colour).max() <= 1


@pytest.mark.parametrize(
    ("name", "notice"),
    [
        ("16-bit", "8 bits a channel"),
        ("16-bit-rgb", "8 bits a channel"),
        ("rgba", "laid on white"),
        ("rgba-opaque", None),
        ("gif", "only the first"),
        ("palette", None),
    ],
)
def test_what_is_lost_is_said_and_nothing_else(
    name: str, notice: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    load_image(io.BytesIO(PICTURES[name][0]()))
    assert [notice in message for message in caplog.messages] == ([True] if notice else [])


def test_a_rotated_photograph_is_upright() -> None:
    """EXIF orientation 6: the camera was held on its side."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x112] = 6
    upright = load_image(io.BytesIO(picture(pixels, "PNG", exif=exif)))
    assert upright.shape == (16, 8, 3)
    assert upright[0, 0, 0] == 255
    assert upright[-1, -1, 0] == 0


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"]
)
def test_damaged_pictures_raise_nothing_but_media_errors(kind: str) -> None:
    """Cut and flipped bytes; readers of damaged files raise RuntimeError, ValueError, SyntaxError
    and more.
    """
    whole = picture(gradient(24, 20), kind)
    assert load_image(io.BytesIO(whole)).shape == (24, 20, 3)
    chance = random.Random(kind)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            data[chance.randrange(min(len(data), 400))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            load_image(io.BytesIO(bytes(data)), max_pixels=10**5)
        except MediaError:
            refused += 1
    assert refused > 5


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded() -> None:
    data = picture(np.zeros((100, 100, 3), np.uint8))
    assert load_image(io.BytesIO(data), 10**4).shape == (100, 100, 3)
    with pytest.raises(MediaError, match=r"100x100 .* --max-pixels"):
        load_image(io.BytesIO(data[:60]), 10**4 - 1)


@pytest.mark.parametrize(
    ("kind", "subtype", "steps"),
    [
        ("WAV", "PCM_16", 2**15),
        ("WAV", "PCM_U8", 2**7),
        ("WAV", "PCM_24", 2**23),
        ("WAV", "FLOAT", None),
        ("WAV", "DOUBLE", None),
        ("WAV", "ULAW", 30),
        ("FLAC", "PCM_16", 2**15),
        ("AIFF", "PCM_16", 2**15),
        ("OGG", "VORBIS", 4),
        ("OGG", "OPUS", 4),
        ("MP3", "MPEG_LAYER_III", 10),
    ],
)
def test_every_kind_of_recording_is_read(kind: str, subtype: str, steps: int | None) -> None:
    samples = tones(9000, channels=2)
    data = wav(samples, kind=kind, subtype=subtype)
    assert detect(data[:16]) == "speech"
    read, rate = load_audio(io.BytesIO(data))
    assert (rate, read.dtype, read.shape[1]) == (16000, np.float32, 2)
    assert len(read) == 9000 or kind == "MP3"
    if kind != "MP3":
        assert np.abs(read - samples).max() <= (1 / steps if steps else 1e-6)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_damaged_recordings_raise_nothing_but_media_errors(kind: str) -> None:
    whole = wav(tones(8000), kind=kind, subtype=None)
    chance = random.Random(kind)
    for _ in range(40):
        data = bytearray(whole)
        data[chance.randrange(min(len(data), 200))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(MediaError):
            load_audio(io.BytesIO(bytes(data)))


def test_a_recording_cut_short_is_coded_as_far_as_it_goes_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = wav(tones(4000))
    assert len(load_audio(io.BytesIO(data[:-4000]))[0]) == 2000
    assert caplog.messages == ["the recording is cut short: coded as far as it goes"]


def test_a_recording_from_a_pipe_knows_no_length_and_is_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What ffmpeg and sox write to a pipe declares 2**32 - 1 bytes."""
    data = bytearray(wav(tones(4000)))
    data[4:8] = data[40:44] = struct.pack("<I", 2**32 - 1)
    assert len(load_audio(io.BytesIO(bytes(data)))[0]) == 4000
    assert not caplog.messages


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_and_located(value: float) -> None:
    samples = tones(70000)
    samples[66000] = value
    with pytest.raises(MediaError, match="sample 66000 is not a number"):
        load_audio(io.BytesIO(wav(samples, subtype="FLOAT")))


def test_samples_beyond_full_scale_are_clipped_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples = tones(200000) * 1e30
    read, _ = load_audio(io.BytesIO(wav(samples, subtype="FLOAT")))
    assert np.abs(read).max() == 1
    assert caplog.messages == ["samples beyond full scale: clipped"]


@pytest.mark.parametrize("rate", [500, 800_000])
def test_an_absurd_sample_rate_is_refused(rate: int) -> None:
    with pytest.raises(MediaError, match="sample rate"):
        AudioReader(io.BytesIO(wav(tones(100), rate)))


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_16_bit_samples_come_back_bit_for_bit(suffix: str) -> None:
    """No hidden gain: reading divides by 32768, so writing must multiply by it."""
    values = np.arange(-32768, 32768, dtype=np.int16)[:, None]
    file = io.BytesIO()
    writer = AudioWriter(file, 16000, 1, suffix)
    writer.write(values.astype(np.float32) / 32768)
    writer.close()
    read, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="int16", always_2d=True)
    assert np.array_equal(read, values)


@pytest.mark.parametrize("suffix", sorted(SPEECH.suffixes))
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_in_the_file_comes_out(suffix: str, error: BaseException) -> None:
    """libsndfile's callbacks would swallow it, print a traceback, and leave a file that ends too
    early.
    """

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            if self.tell() > 5000:
                raise error
            return super().write(data)  # type: ignore[arg-type]

    def write() -> None:
        writer = AudioWriter(Full(), 48000, 1, suffix)
        for _ in range(4):
            writer.write(tones(48000, 48000))
        writer.close()

    with pytest.raises(type(error)) as raised:
        write()
    assert raised.value is error


def test_loud_samples_clip_and_do_not_wrap() -> None:
    file = io.BytesIO()
    writer = AudioWriter(file, 16000, 1)
    writer.write(np.array([[1.0], [1.5], [-1.5]], np.float32))
    writer.close()
    assert soundfile.read(io.BytesIO(file.getvalue()), dtype="int16")[0].tolist() == [
        32767,
        32767,
        -32768,
    ]


@pytest.mark.parametrize("suffix", sorted(SPEECH.suffixes))
def test_every_audio_suffix_is_written_and_read(suffix: str) -> None:
    file = io.BytesIO()
    writer = AudioWriter(file, 48000, 2, suffix)
    writer.write(tones(200_000, 48000, 2))
    writer.close()
    read, rate = load_audio(io.BytesIO(file.getvalue()))
    assert rate == 48000
    assert len(read) == pytest.approx(200_000, abs=5000 if suffix == "mp3" else 0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", sorted(SPEECH.suffixes))
def test_what_is_written_is_what_is_heard(suffix: str, channels: int) -> None:
    """libsndfile makes noise at full scale of a stereo MP3 that it is given as 16-bit integers."""
    sound = tones(100_000, 48000, channels)
    file = io.BytesIO()
    writer = AudioWriter(file, 48000, channels, suffix)
    writer.write(sound)
    writer.close()
    read = load_audio(io.BytesIO(file.getvalue()))[0][: len(sound)]
    for channel in range(channels):
        assert np.corrcoef(read[:, channel], sound[: len(read), channel])[0, 1] > 0.9
        assert read[:, channel].std() == pytest.approx(sound[:, channel].std(), rel=0.1)


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"), [(44100, 1, "opus"), (16000, 9, "flac"), (16000, 1, "xyz")]
)
def test_what_a_format_cannot_hold_is_a_media_error(rate: int, channels: int, suffix: str) -> None:
    with pytest.raises(MediaError, match=suffix):
        AudioWriter(io.BytesIO(), rate, channels, suffix)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "tif"])
def test_pictures_are_written_without_loss(suffix: str) -> None:
    file = io.BytesIO()
    save_image(file, gradient(9, 7), suffix)
    assert np.array_equal(load_image(file), gradient(9, 7))


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_the_same_in_strips(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a row each, from a temporary file; what is said of it is said once."""
    data = PICTURES[name][0]()
    whole, notices = load_image(io.BytesIO(data)), list(caplog.messages)
    caplog.clear()
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 5)
    monkeypatch.setattr(pictures, "MAX_IN_MEMORY", 1)
    found = Picture(io.BytesIO(data))
    assert (found.height, found.width) == (4, 5)
    for _ in range(2):
        strips = list(found.strips())
        assert [strip.shape for strip in strips] == [(1, 5, 3)] * 4
        assert np.array_equal(np.concatenate(strips), whole)
    assert caplog.messages == notices


def test_a_full_disk_is_not_a_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.write", full)
    with pytest.raises(OSError, match="No space left"):
        Picture(io.BytesIO(picture(gradient(9, 7))))


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "webp"])
@pytest.mark.parametrize("rows", [1, 4, 9])
def test_a_picture_written_in_strips_is_the_one_written_whole(suffix: str, rows: int) -> None:
    pixels, whole, file = gradient(9, 7), io.BytesIO(), io.BytesIO()
    save_image(whole, pixels, suffix)
    writer = ImageWriter(file, 9, 7, suffix)
    for top in range(0, 9, rows):
        writer.write(pixels[top : top + rows])
    writer.close()
    assert np.array_equal(load_image(file), load_image(whole))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (131, 67)])
@pytest.mark.parametrize("kind", ["detail", "noise", "flat", "full range"])
def test_a_png_is_what_pillow_reads(
    size: tuple[int, int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written with little at once, so that rows meet across its pieces."""
    monkeypatch.setattr(png, "PIXELS_AT_ONCE", 150)
    random = np.random.default_rng(0)
    pixels = {
        "detail": gradient(*size),
        "noise": random.integers(0, 256, (*size, 3)).astype(np.uint8),
        "flat": np.full((*size, 3), 200, np.uint8),
        "full range": (random.integers(0, 2, (*size, 3)) * 255).astype(np.uint8),
    }[kind]
    file = io.BytesIO()
    save_image(file, pixels)
    with Image.open(file) as image:
        image.verify()  # the CRC-32 of every chunk
    with Image.open(file) as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_a_png_is_about_as_small_as_pillows(real: Callable[[str, int], bytes]) -> None:
    pixels = load_image(io.BytesIO(real("image-kodak-00.tar", 0)))
    ours = io.BytesIO()
    theirs = io.BytesIO()
    save_image(ours, pixels)
    Image.fromarray(pixels).save(theirs, "PNG", compress_type=zlib.Z_RLE)
    assert len(ours.getvalue()) < 1.01 * len(theirs.getvalue())


def test_an_unknown_picture_suffix_lists_the_known() -> None:
    with pytest.raises(MediaError, match="jpeg, jpg, png"):
        save_image(io.BytesIO(), gradient(2, 2), "xyz")


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 44101, 44110])
def test_resampling_keeps_level_and_pitch(rate: int) -> None:
    """There and back is the same sound. 44101 and 44110 Hz share little with 16 kHz and go through
    the spectrum.
    """
    time = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)[:, None]
    at_16k = resample(tone, rate, 16000)
    assert at_16k.shape == (16000, 1)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    middle = slice(4000, 12000)
    assert np.abs(at_16k[middle, 0] - expected[middle]).max() < 2e-3
    back = resample(at_16k, 16000, rate)
    assert back.shape == tone.shape
    assert np.abs(back - tone)[rate // 4 : -rate // 4].max() < 4e-3


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 44101])
def test_resampling_keeps_what_fits_and_folds_nothing(rate: int) -> None:
    """Tones at 9/10 of the lower rate's band stay, those above it vanish, and none gets an echo."""

    def spectrum_db(tone_hz: float, start: int, end: int) -> np.ndarray:
        time = np.arange(2 * start) / start
        tone = np.sin(2 * np.pi * tone_hz * time).astype(np.float32)[:, None]
        found = resample(tone, start, end)[end // 2 : end // 2 + end, 0]
        window = np.hanning(end)
        lines = np.abs(np.fft.rfft(found * window)) / window.sum() * 2
        return 20 * np.log10(lines + 1e-9)

    band = min(rate, 16000) // 2
    for start, end in ((rate, 16000), (16000, rate)):
        kept = round(0.9 * band)
        lines = spectrum_db(kept, start, end)
        assert abs(lines[kept]) < 0.3
        lines[kept - 5 : kept + 6] = -200
        assert lines.max() < -70
        if start > end:
            assert spectrum_db(round(1.15 * band), start, end).max() < -70


def test_resampling_loses_no_sample() -> None:
    """Of lengths that torchaudio, which counts in float32, makes one too short."""
    length = 1_572_869
    found = resample(np.zeros((length, 1), np.float32), 16000, 44100)
    assert len(found) == -(-length * 441 // 160)


@pytest.mark.parametrize(("at_once", "behind"), [(1, 0), (3, 1), (8, 4)])
def test_a_window_is_the_file(at_once: int, behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for in whatever order, also across the ends of what is at hand."""
    monkeypatch.setattr(window, "AT_ONCE", at_once)
    monkeypatch.setattr(window, "BEHIND", behind)
    data = b"abaabbabcaabcbcabbcacb"
    seen = window.Window(io.BytesIO(data))
    for start in (*range(24), *range(24, -1, -3)):
        for length in range(1, 7):
            assert seen.read(start, length) == data[start : start + length]
        for pattern in (b"c", b"bc", b"abb", b"bcab", b"cc"):
            assert seen.find(pattern, start) == data.find(pattern, start)


def test_an_empty_file_says_so() -> None:
    with pytest.raises(MediaError, match="empty"):
        detect(b"")


def test_logging_of_pillow_is_silent() -> None:
    """It would print a second line under an error."""
    assert any(
        isinstance(handler, logging.NullHandler) for handler in logging.getLogger("PIL").handlers
    )
