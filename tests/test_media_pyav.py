"""Recordings through PyAV that are odd or broken: each gives its sound, a notice, or one line."""

from __future__ import annotations

import errno
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from conftest import tones
from numpy.typing import NDArray
from PIL import Image

from codec.cli.compress import compress_main
from codec.errors import MediaError
from codec.media import AudioReader, boxes
from codec.media.mp4 import check_counts
from codec.media.pyav import FILM, GAPS
from codec.media.recordings import load_audio
from codec.media.resampling import resample
from codec.media.survey import DAMAGED, LEFT_OUT, SEVERAL
from codec.media.window import Window

av: Any = pytest.importorskip("av", reason="PyAV is not installed")

Samples = NDArray[np.float32]

CUT = "the recording is cut short: coded as far as it goes"
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # how such a file begins


def kinds(rate_khz: str, channels: int) -> str:
    return (
        f"recordings of different kinds in one file: all are coded like the first, {rate_khz} kHz, "
        f"channels: {channels}"
    )


def made(
    container: str,
    codec: str,
    *,
    rate: int = 16000,
    layout: str = "mono",
    samples: Samples | None = None,
    kind: str | None = None,
    streams: int = 1,
    film: str | None = None,
    cover: bool = False,
    title: str = "",
    start: int = 0,
    gap: int = 0,
) -> bytes:
    """A file as FFmpeg writes it: half a second of sound, a second of film.

    Args:
        rate: Hz.
        samples: (T, C), instead of tones.
        kind: Sample format of the encoder.
        streams: Of sound, each half as loud as the one before.
        film: Codec of a film.
        cover: The film is a picture of the cover.
        start: When the sound begins, samples.
        gap: Between the two halves of the sound, samples.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        if title:
            out.metadata["title"] = title
        sounds = [out.add_stream(codec, rate=rate) for _ in range(streams)]
        for sound in sounds:
            sound.layout = layout
            if kind is not None:
                sound.codec_context.format = kind
        if film:
            add_film(out, film, cover)
        for number, sound in enumerate(sounds):
            if samples is None:
                channels = sound.codec_context.layout.nb_channels
                found = tones(rate // 2, rate, channels)
            else:
                found = samples
            for frame in frames(found / 2**number, sound, rate, layout, start, gap):
                out.mux(sound.encode(frame))
            out.start_encoding()
            out.mux(sound.encode(None))
    return file.getvalue()


def add_film(out: Any, codec: str, cover: bool) -> None:
    stream = out.add_stream(codec, rate=10)
    stream.width = stream.height = 32
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if cover:
        stream.disposition = av.stream.Disposition.attached_pic
    for number in range(1 if cover else 10):
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * number, np.uint8))
        frame.pts = number
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def frames(
    samples: Samples, stream: Any, rate: int, layout: str, start: int, gap: int
) -> Iterator[Any]:
    if not stream.codec_context.is_open:
        stream.codec_context.open()
    size = stream.codec_context.frame_size or 1024
    if stream.codec_context.name in ("tta", "wavpack"):  # they take what they get as a block
        size = 4096
    for at in range(0, len(samples), size):
        block = np.ascontiguousarray(samples[at : at + size]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
        frame.sample_rate = rate
        converter = av.AudioResampler(stream.codec_context.format.name, layout, rate)
        for part in converter.resample(frame):
            part.pts = start + at + (gap if at >= len(samples) // 2 else 0)
            part.time_base = stream.codec_context.time_base
            yield part


def read(data: bytes) -> Samples:
    return load_audio(io.BytesIO(data))[0]


def patched(data: bytes, at: int, patch: bytes) -> bytes:
    assert at >= 0
    return data[:at] + patch + data[at + len(patch) :]


def wave_format(data: bytes, rate: int = 16000) -> int:
    """Where the WAVEFORMAT of an .avi or .asf lies: coding, channels, rate."""
    at = data.find(struct.pack("<HI", 1, rate)) - 2
    assert at >= 0
    return at


# ------------------------------------------------------------------- streams that cannot be decoded


def of_unknown_coding() -> dict[str, bytes]:
    mka, mov = made("matroska", "pcm_s16le"), made("mov", "pcm_s16le")
    avi, asf = made("avi", "pcm_s16le"), made("asf", "mp3")
    return {
        "mka": mka.replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"),
        "mov": mov.replace(b"sowt", b"zzzz"),
        "avi": patched(avi, wave_format(avi), b"\x99\x99"),
        "asf": patched(asf, wave_format(asf), b"\x99\x99"),
    }


def test_a_voc_of_several_blocks_has_its_sound_alone() -> None:
    """libsndfile gives the blocks' heads as samples."""
    samples = tones(16000)
    file = io.BytesIO()
    with av.open(file, "w", format="voc") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        values = (samples * 32767).round().astype(np.int16)
        for part in np.split(values, 10):
            frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), "s16", "mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = load_audio(file)[0]
    assert found.shape == (16000, 1)
    assert np.abs(found[:, 0] - values.ravel() / 32768).max() < 1e-4


@pytest.mark.parametrize("name", ["mka", "mov", "avi", "asf"])
def test_a_stream_of_unknown_coding_is_an_error(name: str) -> None:
    with pytest.raises(MediaError, match=r"its coding is not known") as raised:
        read(of_unknown_coding()[name])
    assert "\n" not in str(raised.value)


def test_the_first_sound_that_can_be_decoded_is_coded(caplog: pytest.LogCaptureFixture) -> None:
    data = made("matroska", "pcm_s16le", streams=2)
    second = data.replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT", 1)
    assert np.allclose(read(second), read(data) / 2, atol=1e-4)
    assert caplog.messages == [SEVERAL] * 2


def without_channels() -> dict[str, bytes]:
    webm, avi = made("webm", "libopus", rate=48000), made("avi", "pcm_s16le")
    mka = made("matroska", "pcm_s16le")
    return {
        "webm": patched(webm, webm.find(b"OpusHead") + 9, b"\0"),
        "avi": patched(avi, wave_format(avi) + 2, b"\0\0"),
        "mka": patched(mka, mka.find(b"\x9f\x81\x01") + 2, b"\0"),
    }


@pytest.mark.parametrize("name", ["webm", "avi", "mka"])
def test_a_stream_without_channels_is_an_error(name: str) -> None:
    with pytest.raises(MediaError, match="it has no channels"):
        read(without_channels()[name])


@pytest.mark.parametrize("size", [2**62, 2**63 - 200])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_place_that_is_none_is_an_error(
    size: int, on_disk: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """FFmpeg goes where a damaged file says; Python refuses a negative place."""
    objects = [bytes(16) + struct.pack("<Q", length) for length in (104, size)]
    data = ASF + bytes(14) + objects[0] + bytes(80) + objects[1] + bytes(60)
    (tmp_path / "a.asf").write_bytes(data)
    with (
        (tmp_path / "a.asf").open("rb") if on_disk else io.BytesIO(data) as file,
        pytest.raises(MediaError, match="not a recording or picture in a known format"),
    ):
        AudioReader(cast(BinaryIO, file))
    assert capfd.readouterr() == ("", "")


def test_a_first_packet_that_cannot_be_read_is_an_error() -> None:
    data = made("wv", "wavpack", layout="5.1")  # several blocks a packet
    with pytest.raises(MediaError, match="it breaks off before its first sample"):
        read(patched(data, data.find(b"wvpk", 4), b"xxxx"))


class Failing(io.BytesIO):
    """A file on a disk that fails."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 30_000:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(min(size or 4096, 4096) if size != -1 else 4096)


def test_a_disk_that_fails_is_no_cut_recording(capfd: pytest.CaptureFixture[str]) -> None:
    from codec.media.pyav import AvReader

    data = made("adts", "aac", samples=tones(160_000))
    assert len(data) > 50_000
    reader = AvReader(cast(BinaryIO, Failing(data)), False, "", [].append)
    with pytest.raises(OSError, match="Input/output error"):
        list(reader.blocks())
    assert capfd.readouterr() == ("", "")


def fragmented() -> bytes:
    file = io.BytesIO()
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(file, "w", format="mp4", options=flags) as out:
        stream = out.add_stream("aac", rate=16000)
        stream.layout = "mono"
        for frame in frames(tones(8000), stream, 16000, "mono", 0, 0):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def with_too_many_samples() -> dict[str, bytes]:
    """Files that FFmpeg makes an index of up to 2 million entries for; 2 thousand times as many
    could be asked for in the same way.
    """
    many = 2_000_000
    alac, pcm, parts = made("mov", "alac"), made("mov", "pcm_s16le"), fragmented()
    sizes = patched(alac, alac.find(b"stsz") + 8, numbers(1, many))
    return {
        "a fragment": patched(parts, parts.find(b"trun") + 8, numbers(many)),
        "sizes": patched(sizes, sizes.find(b"stsc") + 16, numbers(many)),
        "chunks": patched(pcm, pcm.find(b"stsc") + 16, numbers(many)),
        "no head": patched(sizes, sizes.find(b"stsc") + 16, numbers(many))[
            int.from_bytes(sizes[:4], "big") :
        ],
    }


@pytest.mark.parametrize("name", ["a fragment", "sizes", "chunks", "no head"])
def test_more_samples_than_bytes_are_an_error(name: str) -> None:
    with pytest.raises(MediaError, match="it tells of more samples than its bytes can be"):
        read(with_too_many_samples()[name])


@pytest.mark.parametrize(("name", "version"), [(b"iinf", 1), (b"iloc", 2), (b"ipma", 0)])
def test_more_pictures_than_bytes_are_an_error(name: bytes, version: int) -> None:
    """FFmpeg makes room for as many items as an AVIF tells of, in whatever it is asked to play."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "AVIF")
    whole = file.getvalue()
    at = whole.find(name) + 4
    told = patched(whole, at + (6 if name == b"iloc" else 4), numbers(20_000_000))
    with pytest.raises(MediaError, match="it tells of more samples than its bytes can be"):
        AudioReader(io.BytesIO(patched(told, at, bytes([version]))))
    with pytest.raises(MediaError, match="it tells of more samples than its bytes can be"):
        AudioReader(io.BytesIO(patched(patched(told, at, bytes([version])), 4, b"what")))
    with pytest.raises(MediaError, match="there is no sound in this file"):
        AudioReader(io.BytesIO(whole))


def box(name: bytes, body: bytes, long: bool = False) -> bytes:
    if long:
        return numbers(1) + name + struct.pack(">Q", 16 + len(body)) + body
    return numbers(8 + len(body)) + name + body


def counting(kind: str, most: int) -> list[tuple[bytes, bytes]]:
    """Boxes that tell of `most` bytes' worth of samples, 16 a byte, or of as many pictures."""
    return {
        "a fragment": [(b"trun", numbers(0, most))],
        "sizes": [(b"stsz", numbers(0, 0, 16 * most))],
        "one size": [(b"stsz", numbers(0, 4, 4 * most))],
        "chunks": [
            (b"stsc", numbers(0, 2, 1, 3 * most, 1, 3, 5 * most, 1)),
            (b"stco", numbers(0, 4, 0, 0, 0, 0)),
        ],
        "items": [(b"iinf", struct.pack(">IH", 0, most))],
        "many items": [(b"iinf", numbers(1 << 24, most))],
        "places": [(b"iloc", struct.pack(">IHH", 1 << 24, 0, most))],
        "many places": [(b"iloc", struct.pack(">IHI", 2 << 24, 0, most))],
        "properties": [(b"ipma", numbers(0, most))],
    }[kind]


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "a fragment",
        "sizes",
        "one size",
        "chunks",
        "items",
        "many items",
        "places",
        "many places",
        "properties",
    ],
)
def test_as_many_samples_or_pictures_as_its_bytes_can_be_are_read(kind: str, long: bool) -> None:
    size = 200
    for most, fits in ((size, True), (size + 1, False)):
        body = b"".join(box(name, body, long) for name, body in counting(kind, most))
        if body[4:8] in (b"iinf", b"iloc", b"ipma"):
            body = box(b"meta", bytes(4) + body, long)
        else:
            for name in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
                body = box(name, body, long)
        data = box(b"ftyp", b"M4A ") + body
        data += box(b"free", bytes(size - 8 - len(data)))
        assert len(data) == size
        if fits:
            check_counts(Window(io.BytesIO(data)))
        else:
            with pytest.raises(MediaError, match="it tells of more samples than its bytes can be"):
                check_counts(Window(io.BytesIO(data)))


def test_fragments_are_read(caplog: pytest.LogCaptureFixture) -> None:
    assert 8000 <= len(read(fragmented())) < 11000
    assert not caplog.messages


# ---------------------------------------------------------------------------- kinds change midway

CHANGES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "rate": ("adts", "aac", {}, {"rate": 44100}),
    "lower rate": ("adts", "aac", {"rate": 44100}, {}),
    "channels": ("adts", "aac", {}, {"layout": "stereo"}),
    "fewer channels": ("adts", "aac", {"layout": "stereo"}, {}),
    "all": ("adts", "aac", {}, {"rate": 48000, "layout": "5.1"}),
    "layout": ("ac3", "ac3", {"rate": 48000, "layout": "4.0"}, {"rate": 48000, "layout": "3.1"}),
    "within a transport stream": (
        "mpegts",
        "aac",
        {"rate": 44100},
        {"rate": 32000, "layout": "stereo"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_midway_is_coded_like_the_first(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    container, codec, before, after = CHANGES[name]
    first, second = made(container, codec, **before), made(container, codec, **after)
    (wanted, rate), (rest, other) = (load_audio(io.BytesIO(data)) for data in (first, second))
    assert not caplog.messages
    joined, joined_rate = load_audio(io.BytesIO(first + second))
    channels = wanted.shape[1]
    if rest.shape[1] != channels:
        rest = rest.mean(1, keepdims=True).repeat(channels, 1)
    wanted = np.concatenate([wanted, resample(rest, other, rate)])
    assert joined_rate == rate
    assert joined.shape == wanted.shape
    changed = (rate, channels) != (other, load_audio(io.BytesIO(second))[0].shape[1])
    assert caplog.messages == ([kinds(f"{rate / 1000:g}", channels)] if changed else [])
    quiet = 3000  # a decoder that goes on begins otherwise than one that is new
    assert np.allclose(joined[:-quiet][: len(joined) // 3], wanted[: len(joined) // 3], atol=1e-5)
    assert np.corrcoef(joined[-len(joined) // 4 :, 0], wanted[-len(joined) // 4 :, 0])[0, 1] > 0.99


# ----------------------------------------------------------------------------- files behind a file

ROWS = {
    "mka": ("matroska", "flac", {}),
    "webm": ("webm", "libopus", {"rate": 48000}),
    "mp4": ("mp4", "aac", {}),
    "mov": ("ipod", "alac", {}),
    "avi": ("avi", "pcm_s16le", {}),
    "asf": ("asf", "mp3", {"rate": 44100}),
    "wv": ("wv", "wavpack", {}),
    "wv of several blocks a packet": ("wv", "wavpack", {"layout": "5.1"}),
    "tta": ("tta", "tta", {}),
    "flv": ("flv", "aac", {"rate": 44100}),
    "amr": ("amr", "libopencore_amrnb", {"rate": 8000}),
}


@pytest.mark.parametrize("name", ROWS)
def test_files_in_a_row_are_coded_one_after_the_other(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    container, codec, options = ROWS[name]
    data = made(container, codec, **options)
    alone = read(data)
    assert np.array_equal(read(data * 3), np.concatenate([alone] * 3))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("container", "codec"),
    [("matroska", "flac"), ("avi", "pcm_s16le"), ("wv", "wavpack"), ("adts", "aac")],
)
def test_files_in_a_row_may_be_of_different_kinds(
    container: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = made(container, codec), made(container, codec, rate=44100, layout="stereo")
    samples = read(one + other)
    assert 16000 <= len(samples) < 19000
    assert samples.shape[1] == 1
    assert np.abs(samples[8000:]).max() > 0.1
    assert caplog.messages == [kinds("16", 1)]


def test_a_file_larger_than_its_buffer_is_read_from_its_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """libsndfile looks at it first, through the same descriptor."""
    data = made("matroska", "pcm_s16le", samples=tones(100_000))
    (tmp_path / "a.mka").write_bytes(data)
    with (tmp_path / "a.mka").open("rb") as file:
        assert np.array_equal(load_audio(file)[0], read(data))
    assert not caplog.messages


def test_a_row_that_breaks_is_coded_up_to_there(caplog: pytest.LogCaptureFixture) -> None:
    data = made("matroska", "flac")
    assert np.array_equal(read(data + data.replace(b"A_FLAC", b"A_FXXX")), read(data))
    assert caplog.messages == [LEFT_OUT]
    caplog.clear()
    assert len(read(data + data[:-2000])) < 16000
    assert caplog.messages == [CUT]


def test_a_head_without_a_size_is_passed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []

    def find(self: Window, pattern: bytes, offset: int) -> int:
        searches.append(offset)
        assert len(searches) < 9
        return real(self, pattern, offset)

    real = Window.find
    monkeypatch.setattr(Window, "find", find)
    data = made("matroska", "flac")
    with pytest.raises(MediaError, match="not a recording or picture in a known format"):
        read(patched(data, 4, b"\0"))
    assert searches == [1]


def test_packets_begin_alike_from_the_first_on() -> None:
    """Of a transport stream; 188 bytes behind another beginning a G is nothing but a byte."""
    for head, cut in ((b"G", True), (b"\x0b", False)):
        for size in (3 * 188, 3 * 188 + 99):
            data = (head.ljust(188) + b"G".ljust(188) * 3)[:size]
            assert boxes.survey(Window(io.BytesIO(data))).cut == (cut and size % 188 > 0)


def test_a_riff_of_another_kind_says_where_it_ends() -> None:
    data = b"RIFF" + struct.pack("<I", 92) + b"RMP3" + bytes(88)
    assert not boxes.survey(Window(io.BytesIO(data))).cut
    assert boxes.survey(Window(io.BytesIO(data[:-1]))).cut


def test_a_live_avi_tells_no_size(caplog: pytest.LogCaptureFixture) -> None:
    data = made("avi", "pcm_s16le")
    assert np.array_equal(read(patched(data, 4, b"\xff" * 4)), read(data))
    assert not caplog.messages
    read(data[:-9000])
    assert caplog.messages == [CUT]


# ------------------------------------------------------------------------- lengths, gaps and films

WHOLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "later start in mka": ("matroska", "aac", {"start": 16000}),
    "later start in asf": ("asf", "mp3", {"rate": 44100, "start": 44100}),
    "later start in avi": ("avi", "mp3", {"rate": 44100, "start": 44100}),
    "later start in mov": ("mov", "pcm_s16le", {"start": 16000}),
    "later start in ts": ("mpegts", "mp2", {"start": 16000}),
    "negative start in mka": ("matroska", "flac", {"start": -4000}),
    "longer film in mka": ("matroska", "aac", {"film": "mpeg4"}),
    "longer film in flv": ("flv", "mp3", {"rate": 44100, "film": "flv"}),
    "longer film in asf": ("asf", "mp3", {"rate": 44100, "film": "mpeg4"}),
    "longer film in mov": ("mov", "pcm_s16le", {"film": "mpeg4"}),
    "blocks without a length": ("matroska", "wavpack", {"samples": tones(8192)}),
    "short last block": ("matroska", "flac", {"rate": 44100, "samples": tones(4609)}),
    "short only block": ("matroska", "flac", {"rate": 44100, "samples": tones(9)}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_is_not_said_to_be_cut(name: str, caplog: pytest.LogCaptureFixture) -> None:
    container, codec, options = WHOLE[name]
    rate = options.get("rate", 16000)
    wanted = len(options["samples"]) if "samples" in options else rate // 2
    length = len(read(made(container, codec, **options)))
    assert wanted <= length <= wanted + (0 if codec in ("flac", "pcm_s16le") else 3000)
    assert caplog.messages == ([FILM] if "film" in options else [])


def test_a_negative_start_is_left_out_where_the_file_says_so() -> None:
    assert len(read(made("mov", "pcm_s16le", start=-4000))) == 8000 - 4000


@pytest.mark.parametrize("container", ["matroska", "mp4", "flv"])
def test_gaps_are_said(container: str, caplog: pytest.LogCaptureFixture) -> None:
    codec, rate = ("mp3", 44100) if container == "flv" else ("aac", 44100)
    data = made(container, codec, rate=rate, gap=2 * rate)
    assert rate // 2 <= len(read(data)) < rate
    assert caplog.messages == [GAPS]


def test_a_cover_is_no_film(caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(made("mp4", "aac", film="mjpeg", cover=True))) > 7000
    assert not caplog.messages


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "mpegts"])
def test_a_film_without_sound_is_an_error(container: str) -> None:
    codec = "mpeg2video" if container == "mpegts" else "mpeg4"
    with pytest.raises(MediaError, match="there is no sound in this file"):
        read(made(container, "aac", streams=0, film=codec))


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("avi", "pcm_s16le", 16000), ("asf", "mp3", 44100), ("caf", "pcm_s16le", 16000)],
)
def test_a_stream_without_samples_is_an_error(container: str, codec: str, rate: int) -> None:
    with pytest.raises(MediaError, match="the recording has no samples"):
        read(made(container, codec, rate=rate, samples=np.zeros((0, 1), np.float32)))


@pytest.mark.parametrize("container", ["matroska", "avi", "mov", "flv", "ipod"])
def test_titles_may_be_in_any_encoding(container: str, caplog: pytest.LogCaptureFixture) -> None:
    codec = {"ipod": "alac", "flv": "mp3"}.get(container, "pcm_s16le")
    data = made(container, codec, rate=44100, title="Strasse")
    assert b"Strasse" in data
    latin = data.replace(b"Strasse", b"Stra\xdfe ")
    assert np.array_equal(read(latin), read(data))
    assert not caplog.messages


@pytest.mark.parametrize("container", ["matroska", "adts"])
def test_damage_within_is_said(container: str, caplog: pytest.LogCaptureFixture) -> None:
    data = made(container, "aac", samples=tones(32000))
    middle = len(data) // 2
    noise = np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8).tobytes()
    assert len(read(patched(data, middle, noise))) > 16000
    assert caplog.messages == [DAMAGED]


def test_damage_within_is_said_of_what_is_cut_short_too(caplog: pytest.LogCaptureFixture) -> None:
    data = made("matroska", "aac", samples=tones(32000))
    noise = np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8).tobytes()
    assert len(read(patched(data, len(data) // 2, noise)[:-500])) > 8000
    assert sorted(caplog.messages) == sorted([DAMAGED, CUT])
    caplog.clear()
    assert len(read(data[:-500])) > 8000
    assert caplog.messages == [CUT]


# ----------------------------------------------------------------- rates, channels, sample formats


@pytest.mark.parametrize("rate", [1, 100, 999, 1000, 1001, 7350, 44101, 768000, 768001, 2822400])
@pytest.mark.parametrize(
    "kind", [("matroska", "pcm_s16le"), ("mov", "pcm_s16le"), ("ipod", "alac")]
)
def test_rates(rate: int, kind: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    data = made(*kind, rate=rate, samples=tones(5000, rate))
    if 1000 <= rate <= 768000:
        samples, found = load_audio(io.BytesIO(data))
        assert found == rate
        assert np.allclose(samples, tones(5000, rate), atol=1e-4)
    else:
        with pytest.raises(MediaError, match=rf"sample rate of {rate} Hz; want 1000\.\.768000"):
            read(data)
    assert not caplog.messages


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 9, 16, 63, 64])
@pytest.mark.parametrize("kind", [("mov", "pcm_s16le"), ("mov", "pcm_f32le"), ("wv", "wavpack")])
def test_channels_keep_their_order(channels: int, kind: tuple[str, str]) -> None:
    named = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}
    layout = named.get(channels, f"{channels} channels")
    samples = tones(2000, channels=channels)
    data = made(*kind, layout=layout, samples=samples, kind="s16p" if kind[0] == "wv" else None)
    assert np.allclose(read(data), samples, atol=1e-4)


@pytest.mark.usefixtures("models")
def test_too_many_channels_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made("mov", "pcm_f32le", layout="65 channels", samples=tones(500, channels=65))
    (tmp_path / "a.mov").write_bytes(data)
    assert compress_main([str(tmp_path / "a.mov"), str(tmp_path / "a.bin")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "channels of speech must be in 1 to 64, not 65" in line
    assert not (tmp_path / "a.bin").exists()


FORMATS = [
    ("mov", "pcm_u8", 2**-7),
    ("mov", "pcm_s8", 2**-7),
    ("mov", "pcm_s16be", 2**-15),
    ("mov", "pcm_s24be", 2**-20),
    ("mov", "pcm_s32le", 2**-20),
    ("mov", "pcm_f32be", 0),
    ("mov", "pcm_f64be", 0),
    ("mov", "pcm_alaw", 2**-5),
    ("mov", "pcm_mulaw", 2**-5),
    ("matroska", "pcm_s24le", 2**-20),
    ("matroska", "pcm_f64le", 0),
    ("wv", "wavpack:u8p", 2**-7),
    ("wv", "wavpack:s16p", 2**-15),
    ("wv", "wavpack:s32p", 2**-20),
    ("wv", "wavpack:fltp", 0),
    ("matroska", "flac:s16", 2**-15),
    ("matroska", "flac:s32", 2**-20),
    ("ipod", "alac:s16p", 2**-15),
    ("ipod", "alac:s32p", 2**-20),
]


@pytest.mark.parametrize(("container", "codec", "error"), FORMATS)
def test_sample_formats(container: str, codec: str, error: float) -> None:
    name, _, kind = codec.partition(":")
    data = made(
        container, name, layout="stereo", kind=kind or None, samples=tones(8000, channels=2)
    )
    assert np.abs(read(data) - tones(8000, channels=2)).max() <= error


# ------------------------------------------------------------------------------- through a command


@pytest.mark.usefixtures("models")
def test_the_command_says_what_is_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    film = made("matroska", "aac", streams=2, film="mpeg4")
    (tmp_path / "a.mkv").write_bytes(film)
    (tmp_path / "b.mkv").write_bytes(film.replace(b"A_AAC", b"A_XXX"))
    assert compress_main([str(tmp_path / "a.mkv"), str(tmp_path / "a.bin")]) == 0
    assert capfd.readouterr().err.splitlines()[:2] == [f"WARNING: {SEVERAL}", f"WARNING: {FILM}"]
    assert compress_main([str(tmp_path / "b.mkv"), str(tmp_path / "b.bin")]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'b.mkv'}: ")
    assert "its coding is not known" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.mkv", "b.mkv"]
