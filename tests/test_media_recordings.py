"""codec.media, odd recordings: headers that lie, files in a row, streams side by side, ends that
are missing.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import soundfile
from conftest import tones, wav

from codec.errors import MediaError
from codec.files import Pipe
from codec.media import AudioReader, AudioWriter, load_audio, ogg, streamed
from codec.media.wav import WavStream, declared_samples

CUT = "the recording is cut short: coded as far as it goes"
DAMAGED = "the recording is damaged: what is lost within it is left out"
LEFT_OUT = "what lies behind the recording is no sound that its header tells of: left out"
PCM = np.round(tones(4000)[:, 0] * 32767).astype("<i2")
WIDE = PCM.astype("<i4") << 16
FINE = WIDE | 0x1100  # of 24 bits


def riff(
    form: bytes, data: bytes, size: int | None = None, riff_size: int = 36, magic: bytes = b"RIFF"
) -> bytes:
    """A WAV; `size` is what it says of its sound."""
    size = len(data) if size is None else size
    head = magic + struct.pack("<I", riff_size) + b"WAVEfmt " + struct.pack("<I", len(form)) + form
    return head + b"data" + struct.pack("<I", size) + data


def form(
    bits: int = 16, align: int | None = None, tag: int = 1, channels: int = 1, rate: int = 16000
) -> bytes:
    align = channels * -(-bits // 8) if align is None else align
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)


def extensible(bits: int, valid: int, tag: int = 1) -> bytes:
    guid = struct.pack("<H", tag) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    return form(bits, tag=0xFFFE) + struct.pack("<HHI", 22, valid, 0) + guid


def from_pipe(data: bytes) -> np.ndarray[Any, Any]:
    """Of a plain WAV; nothing is held back for a file."""
    pipe = cast(BinaryIO, Pipe(io.BytesIO(data)))
    reader = streamed(pipe, cast(Pipe, pipe).peek(16))
    assert reader is not None
    return np.concatenate(list(reader.blocks()))


def both_ways(data: bytes) -> np.ndarray[Any, Any]:
    """What a file gives, which is what a pipe gives."""
    samples, _ = load_audio(io.BytesIO(data))
    assert np.array_equal(from_pipe(data), samples)
    return samples


# --------------------------------------------------------------------------------------------------
# WAV


@pytest.mark.parametrize(
    "size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFFF, 0xFFFFFFD8, 0xFFFFFFF0]
)
@pytest.mark.parametrize("riff_size", [0, 36, 4036, 0xFFFFFFFF])
def test_a_size_that_was_not_known_means_all_there_is(
    size: int, riff_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    samples = both_ways(riff(form(), PCM.tobytes(), size, riff_size))
    assert np.array_equal(samples[:, 0] * 32768, PCM)
    assert not caplog.messages


def test_the_size_of_the_whole_file_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert len(both_ways(riff(form(), PCM.tobytes(), riff_size=36 + PCM.nbytes // 2))) == len(PCM)
    assert not caplog.messages


def test_a_wav_without_sound_is_no_sound_of_unknown_size() -> None:
    """Its size is 0 and another chunk follows, or nothing."""
    for data in (riff(form(), b""), riff(form(), b"LIST" + struct.pack("<I", 4) + b"INFO", 0)):
        with pytest.raises(MediaError, match="no samples"):
            both_ways(data)


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
@pytest.mark.parametrize("size", [PCM.nbytes, 0, 2**64 - 1])
def test_a_64_bit_header_is_read(magic: bytes, size: int, caplog: pytest.LogCaptureFixture) -> None:
    data = riff(form(), PCM.tobytes(), 0xFFFFFFFF, 0xFFFFFFFF, magic)
    chunk = b"ds64" + struct.pack("<IQQQI", 28, 2**64 - 1, size, 0, 0)
    assert np.array_equal(both_ways(data[:12] + chunk + data[12:])[:, 0] * 32768, PCM)
    assert not caplog.messages


def big_endian(samples: np.ndarray[Any, Any], bits: int) -> bytes:
    width = bits // 8
    head = (
        b"RIFX"
        + struct.pack(">I", 36)
        + b"WAVEfmt "
        + struct.pack(">IHHIIHH", 16, 1, 1, 16000, 16000 * width, width, bits)
    )
    return head + b"data" + struct.pack(">I", samples.nbytes) + samples.tobytes()


# Kinds of plain WAV, all of the same sound.
KINDS: dict[str, Callable[[], bytes]] = {
    "16 bits": lambda: riff(form(), PCM.tobytes()),
    "big-endian": lambda: big_endian(PCM.astype(">i2"), 16),
    "12 bits in 2 bytes": lambda: riff(form(12), PCM.tobytes()),
    "24 bits": lambda: riff(form(24), WIDE.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()),
    "big-endian, 24 bits": lambda: big_endian(WIDE.view(np.uint8).reshape(-1, 4)[:, :0:-1], 24),
    "24 bits at the upper end of 4 bytes": lambda: riff(form(24, 4), WIDE.tobytes()),
    "24 bits at the lower end of 4 bytes": lambda: riff(form(24, 4), (FINE >> 8).tobytes()),
    "16 bits at the lower end of 4 bytes": lambda: riff(form(16, 4), (WIDE >> 16).tobytes()),
    "20 bits in 3 bytes": lambda: riff(
        form(20), WIDE.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    ),
    "32 bits": lambda: riff(form(32), WIDE.tobytes()),
    "64 bits": lambda: riff(form(64), (WIDE.astype("<i8") << 32).tobytes()),
    "extensible, 24 of 32 bits": lambda: riff(extensible(32, 24), WIDE.tobytes()),
    "extensible, floats": lambda: riff(
        extensible(32, 32, 3), (PCM / 32768).astype("<f4").tobytes()
    ),
    "32-bit floats": lambda: riff(form(32, tag=3), (PCM / 32768).astype("<f4").tobytes()),
    "64-bit floats": lambda: riff(form(64, tag=3), (PCM / 32768).astype("<f8").tobytes()),
    "block align 0": lambda: riff(form(16, 0), PCM.tobytes()),
    "block align 1": lambda: riff(form(16, 1), PCM.tobytes()),
    "block align 4 for 16 bits": lambda: riff(form(16, 4), PCM.tobytes()),
    "block align 6": lambda: riff(form(16, 6), PCM.tobytes()),
    "block align 8 for 24 bits": lambda: riff(
        form(24, 8), WIDE.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    ),
    "a long format chunk": lambda: riff(form() + b"\xff" * 80, PCM.tobytes()),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_plain_wav_is_read_alike(name: str, caplog: pytest.LogCaptureFixture) -> None:
    samples = both_ways(KINDS[name]())
    assert samples.dtype == np.float32
    assert np.array_equal(np.floor(samples[:, 0] * 32768), PCM)
    assert not caplog.messages


def test_silence_does_not_tell_where_24_bits_lie() -> None:
    data = np.concatenate([np.zeros(70000, "<i4"), FINE >> 8])
    assert np.array_equal(both_ways(riff(form(24, 4), data.tobytes()))[70000:, 0], FINE / 2**31)


@pytest.mark.parametrize("subtype", ["ALAW", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"])
@pytest.mark.parametrize("size", [None, 0, 0x7FFFF000, 0xFFFFFFFF])
def test_other_wavs_are_libsndfiles_with_the_same_sizes(
    subtype: str, size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(wav(tones(4000), subtype=subtype))
    whole, _ = soundfile.read(io.BytesIO(bytes(data)), dtype="float32", always_2d=True)
    whole = whole[: declared_samples(io.BytesIO(bytes(data)))]  # the rest fills the last block
    if size is not None:
        at = data.find(b"data") + 4
        data[at : at + 4] = struct.pack("<I", size)
    pipe = Pipe(io.BytesIO(bytes(data)))
    assert streamed(cast(BinaryIO, pipe), pipe.peek(16)) is None
    assert np.array_equal(load_audio(io.BytesIO(bytes(data)))[0], whole)
    assert not caplog.messages


@pytest.mark.parametrize("text", [b"INFO", b"INFOISFT\x05\0\0\0Lavf\0"])
def test_chunks_between_two_recordings_are_passed_over(
    text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = riff(form(16), bytes(range(200))), riff(form(16), bytes(range(100, 200)))
    listed = b"LIST" + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    whole = both_ways(one + other)
    assert len(whole) == 150
    assert np.array_equal(both_ways(one + listed + other), whole)
    assert not caplog.messages


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [1, 4000, 4089, 9001])
def test_adpcm_has_the_samples_that_it_says(count: int, channels: int) -> None:
    samples = np.tile(tones(count), (1, channels))
    data = wav(samples, subtype="MS_ADPCM")
    assert load_audio(io.BytesIO(data))[0].shape == (count, channels)
    padded = soundfile.read(io.BytesIO(data), always_2d=True)[0].shape
    assert padded[0] > count
    at = data.find(b"fact") + 8
    for wrong in (0, padded[0] + 1, 0xFFFFFFFF):
        lying = data[:at] + struct.pack("<I", wrong) + data[at + 4 :]
        assert load_audio(io.BytesIO(lying))[0].shape == padded


def test_a_wav_need_not_say_how_many_samples_it_has() -> None:
    data = wav(tones(3000), subtype="MS_ADPCM")
    at = data.find(b"fact")
    other = data[:at] + b"junk" + data[at + 4 :]
    assert declared_samples(io.BytesIO(data)) == 3000
    for none in (other, data[: at + 10], data[: at + 4], data[:10], b"", b"RIFX" + data[4:40]):
        assert declared_samples(io.BytesIO(none)) is None
    assert len(load_audio(io.BytesIO(other))[0]) >= 3000


@pytest.mark.parametrize("cut", [1, 999, 4001])
@pytest.mark.parametrize(
    "name", ["16 bits", "24 bits", "32-bit floats", "24 bits at the lower end of 4 bytes"]
)
def test_a_wav_that_was_cut_says_so(name: str, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    samples, whole = both_ways(KINDS[name]()[:-cut]), both_ways(KINDS[name]())
    assert np.array_equal(samples, whole[: len(samples)])
    assert 0 <= len(whole) - len(samples) <= cut
    assert caplog.messages == [CUT] * 2


def test_a_stream_that_ends_within_a_sample_was_cut(caplog: pytest.LogCaptureFixture) -> None:
    assert len(both_ways(riff(form(24), bytes(range(1, 201)), 0xFFFFFFFF))) == 66
    assert caplog.messages == [CUT] * 2
    caplog.clear()
    assert len(both_ways(riff(form(24), bytes(range(1, 100)) + b"\0", 0xFFFFFFFF))) == 33  # padded
    assert not caplog.messages


@pytest.mark.parametrize("padded", [True, False])
def test_chunks_behind_the_sound_are_no_sound(
    padded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    behind = b"\0" * padded + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert len(both_ways(riff(form(8), bytes([100]) * 1001 + behind, 1001))) == 1001
    assert not caplog.messages


@pytest.mark.parametrize("padded", [True, False])
def test_the_next_recording_may_follow_an_odd_one_with_padding_or_none(
    padded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    odd = riff(form(8), bytes([100]) * 1001) + b"\0" * padded
    assert len(both_ways(odd + riff(form(8), bytes([200]) * 500))) == 1501
    assert not caplog.messages


def test_a_later_recording_that_was_cut_says_so(caplog: pytest.LogCaptureFixture) -> None:
    whole = riff(form(), PCM.tobytes())
    assert len(both_ways(whole + whole[:-100])) == 2 * len(PCM) - 50
    assert caplog.messages == [CUT] * 2


def test_a_later_recording_of_an_absurd_rate_is_refused() -> None:
    data = riff(form(), PCM.tobytes()) + riff(form(rate=500), PCM.tobytes())
    with pytest.raises(MediaError, match="sample rate of 500 Hz"):
        both_ways(data)


def test_a_64_bit_header_is_asked_only_where_the_other_says_so() -> None:
    data = riff(form(), PCM.tobytes(), magic=b"RF64")
    chunk = b"ds64" + struct.pack("<IQQQI", 28, 0, PCM.nbytes // 2, 0, 0)
    assert len(both_ways(data[:12] + chunk + data[12:])) == len(PCM)


def test_quiet_24_bits_lie_at_the_upper_end_of_4_bytes() -> None:
    """Where both ends are possible."""
    quiet = np.array([0x1100, -0x2200, 0x300], "<i4")
    assert np.array_equal(both_ways(riff(form(24, 4), quiet.tobytes()))[:, 0], quiet / 2**31)


def test_8_bits_lie_in_no_wider_containers() -> None:
    octets = np.arange(256, dtype=np.uint8)
    assert np.array_equal(both_ways(riff(form(8, 4), octets.tobytes()))[:, 0], octets / 128 - 1)


def test_16_bit_floats_are_read() -> None:
    halves = (PCM / 32768).astype("<f2")
    assert np.array_equal(both_ways(riff(form(16, tag=3), halves.tobytes()))[:, 0], halves)


def test_where_24_bits_lie_is_decided_once() -> None:
    """And not again by a later block that is so quiet that it might lie at either end."""
    data = np.concatenate([np.resize(FINE >> 8, 1 << 16), np.array([256, -512])]).astype("<i4")
    assert np.array_equal(both_ways(riff(form(24, 4), data.tobytes()))[:, 0], data / 2**23)


def test_a_format_of_another_family_is_not_taken_for_pcm() -> None:
    """Its number, 1, is that of PCM."""
    head = extensible(16, 16)
    assert np.array_equal(from_pipe(riff(head, PCM.tobytes()))[:, 0] * 32768, PCM)
    pipe = Pipe(io.BytesIO(riff(head[:26] + bytes(14), PCM.tobytes())))
    assert streamed(cast(BinaryIO, pipe), pipe.peek(16)) is None


def test_a_wav_of_no_channels_is_damaged() -> None:
    with pytest.raises(MediaError, match="it has no channels"):
        both_ways(riff(form(16, 2, channels=0), PCM.tobytes()))


def test_what_follows_much_silence_is_said_and_taken_from_the_pipe(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = riff(form(), PCM.tobytes()) + bytes(70_000) + b"\xf3" + bytes(200_000)
    pipe = Pipe(io.BytesIO(data))
    reader = streamed(cast(BinaryIO, pipe), pipe.peek(16))
    assert reader is not None
    assert sum(map(len, reader.blocks())) == len(PCM)
    assert caplog.messages == [LEFT_OUT]
    assert pipe.total == len(data), "whoever writes into it would be told that nobody reads"


def test_a_wav_into_a_pipe_is_rounded_and_goes_there_at_once() -> None:
    raw = io.BytesIO()
    stream = WavStream(cast(BinaryIO, io.BufferedWriter(cast(Any, raw), 1 << 20)), 16000, 1)
    stream.write(np.array([[0.6], [-0.6], [1.4]], np.float32) / 32768)
    assert np.frombuffer(raw.getvalue()[44:], "<i2").tolist() == [1, -1, 1]


def test_what_is_no_chunk_behind_the_sound_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert len(both_ways(riff(form(), PCM.tobytes(), 2000))) == 1000
    assert caplog.messages == [LEFT_OUT] * 2
    caplog.clear()
    assert len(both_ways(riff(form(), PCM.tobytes() + bytes(500), PCM.nbytes))) == len(PCM)
    assert not caplog.messages


def test_a_wav_of_thousands_of_channels_is_read_in_small_blocks() -> None:
    reader = AudioReader(io.BytesIO(riff(form(8, channels=60000), bytes(60000 * 100))))
    assert max(block.size for block in reader.blocks()) <= 1 << 22


def test_so_is_another_recording_of_a_thousand_channels() -> None:
    head = struct.pack(">4s5I", b".snd", 24, 0xFFFFFFFF, 1, 16000, 1024)  # mu-law
    reader = AudioReader(io.BytesIO(head + bytes(1024 * 4100)))
    assert [len(block) for block in reader.blocks()] == [4096, 4]


@pytest.mark.parametrize("length", range(12, 44, 4))
def test_a_wav_cut_within_its_header_is_an_error(length: int) -> None:
    with pytest.raises(MediaError, match="breaks off"):
        both_ways(riff(form(), PCM.tobytes())[:length])


# ------------------------------------------------------------------------------------------------
# chunks of others


def with_size(kind: str, size: int) -> bytes:
    """A file of 4000 samples that says something else about itself."""
    data = bytearray(wav(tones(4000), kind=kind))
    at, layout = {
        "AIFF": (data.find(b"SSND") + 4, ">I"),
        "AU": (8, ">I"),
        "CAF": (data.find(b"data") + 4, ">Q"),
        "W64": (data.find(b"data") + 16, "<Q"),
    }[kind]
    data[at : at + struct.calcsize(layout)] = struct.pack(layout, size)
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "size"),
    [(kind, size) for kind in ("AIFF", "AU") for size in (0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF)]
    + [
        ("AIFF", 8),
        ("AIFF", 0x7F000008),
        ("AIFF", 0x7EFFFE08),
        ("CAF", 2**64 - 1),
        ("CAF", 0),
        ("W64", 2**64 - 1),
        ("W64", 0),
        ("W64", 24),
    ],
)
def test_other_containers_of_unknown_size_are_read_to_their_end(
    kind: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(load_audio(io.BytesIO(with_size(kind, size)))[0]) == 4000
    assert not caplog.messages


# --------------------------------------------------------------------------------------------------
# cut short, damaged, in a row


def unknown_flac(length: int = 100_000, rate: int = 16000) -> bytes:
    """As an encoder writes it into a pipe: the total number of samples is 0."""
    data = bytearray(wav(tones(length), rate, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def plain_mp3() -> bytes:
    """Without the frame that counts the others: a cut shows only in the last frame."""
    data = wav(tones(100_000), kind="MP3", subtype=None)
    from codec.media import mpeg

    return data[mpeg.frame_bytes(data) :]


CONTAINERS: dict[str, Callable[[], bytes]] = {
    "wav": lambda: wav(tones(100_000)),
    "a-law": lambda: wav(tones(100_000), subtype="ALAW"),
    "rf64": lambda: wav(tones(100_000), kind="RF64"),
    "w64": lambda: wav(tones(100_000), kind="W64"),
    "aiff": lambda: wav(tones(100_000), kind="AIFF"),
    "caf": lambda: wav(tones(100_000), kind="CAF"),
    "alac": lambda: wav(tones(100_000), kind="CAF", subtype="ALAC_16"),
    "au": lambda: wav(tones(100_000), kind="AU"),
    "nist": lambda: wav(tones(100_000), kind="NIST"),
    "flac": lambda: wav(tones(100_000), kind="FLAC"),
    "flac of unknown length": unknown_flac,
    "vorbis": lambda: wav(tones(100_000), kind="OGG", subtype="VORBIS"),
    "opus": lambda: wav(tones(100_000), kind="OGG", subtype="OPUS"),
    "mp3": lambda: wav(tones(100_000), kind="MP3", subtype=None),
    "mp3 without a count": plain_mp3,
}


def flac_ending_with(zeros: int) -> bytes:
    """Whose last frame's CRC-16 ends with so many zero bytes, as one file in 256 does with one."""
    for seed in range(5000):
        noise = np.random.default_rng(seed).integers(-99, 99, (300, 1)) / 32768
        data = wav(noise.astype(np.float32), kind="FLAC")
        if data.endswith(bytes(zeros)) and data[-1 - zeros]:
            return data
    raise AssertionError("no seed gives such a file")


@pytest.mark.parametrize("tells_length", [True, False])
@pytest.mark.parametrize("padding", [0, 40])
def test_zeros_at_the_end_of_a_flac_are_its_own_or_padding(
    tells_length: bool, padding: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(flac_ending_with(0 if padding and not tells_length else 1))
    if not tells_length:
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    assert len(load_audio(io.BytesIO(bytes(data) + bytes(padding)))[0]) == 300
    assert not caplog.messages
    damaged = bytes(data[:-1]) + (b"\1" if data[-1] == 0 else b"\0") + bytes(padding)
    with pytest.raises(MediaError, match="damaged"):
        load_audio(io.BytesIO(damaged))


@pytest.mark.parametrize("name", CONTAINERS)
def test_whatever_is_cut_says_so_and_what_is_whole_says_nothing(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = CONTAINERS[name]()
    whole, _ = load_audio(io.BytesIO(data))
    assert not caplog.messages
    lengths = []
    for kept in (len(data) // 3, len(data) // 2, len(data) - 999, len(data) - 3):
        caplog.clear()
        lengths.append(len(load_audio(io.BytesIO(data[:kept]))[0]))
        assert caplog.messages == [CUT], kept
    assert lengths == sorted(lengths)
    assert len(whole) // 8 < lengths[0] < len(whole) // 2.5


@pytest.mark.parametrize("name", CONTAINERS)
def test_files_in_a_row_are_read_one_after_the_other(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = CONTAINERS[name]()
    whole, _ = load_audio(io.BytesIO(data))
    joined, _ = load_audio(io.BytesIO(data + data))
    if name == "mp3 without a count":  # one stream for its decoder
        assert abs(len(joined) - 2 * len(whole)) < 3000
    else:
        assert np.array_equal(joined, np.concatenate([whole, whole]))
    assert not caplog.messages


@pytest.mark.parametrize(
    "name", ["wav", "a-law", "aiff", "caf", "au", "nist", "vorbis", "opus", "mp3"]
)
def test_what_lies_behind_is_said_unless_it_is_nothing(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = CONTAINERS[name]()
    whole, _ = load_audio(io.BytesIO(data))
    for rest, notices in ((bytes(100), []), (b"\xf3, no sound" * 9, [LEFT_OUT])):
        caplog.clear()
        assert np.array_equal(load_audio(io.BytesIO(data + rest))[0], whole)
        assert caplog.messages == notices


@pytest.mark.parametrize(
    "name", ["vorbis", "opus", "mp3", "mp3 without a count", "flac", "flac of unknown length"]
)
def test_damage_within_is_a_notice_or_an_error(name: str, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(CONTAINERS[name]())
    middle = len(data) // 2
    data[middle : middle + 200] = (
        np.random.default_rng(0).integers(0, 256, 200).astype(np.uint8).tobytes()
    )
    if "flac" in name:
        with pytest.raises(MediaError, match=r"damaged recording after \d+ samples"):
            load_audio(io.BytesIO(bytes(data)))
    else:
        load_audio(io.BytesIO(bytes(data)))
        assert caplog.messages == [DAMAGED]


def test_a_flac_that_lacks_its_last_frame_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    data = wav(tones(20000), kind="FLAC")
    *_, last = re.finditer(rb"\xff\xf8..\x04", data, re.DOTALL)  # of 4096 samples each, from 0 on
    assert len(load_audio(io.BytesIO(data[: last.start()]))[0]) == 4 * 4096
    assert caplog.messages == [CUT]


@pytest.mark.parametrize("rate", [65000, 12345, 123450])
def test_a_flac_of_any_rate_and_unknown_length_is_whole(
    rate: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its frames say such a rate in bytes of their own: in kHz, in Hz, in tens of Hz."""
    data = unknown_flac(9000, rate)
    assert len(load_audio(io.BytesIO(data))[0]) == 9000
    assert len(load_audio(io.BytesIO(data * 3))[0]) == 27000
    assert not caplog.messages


# --------------------------------------------------------------------------------------------------
# MP3


def mp3(rate: int, kbps: int, most: int) -> bytes:
    """A second of one bit rate; `most` is the largest of its sample rate."""
    least, file = 32 if rate >= 32000 else 8, io.BytesIO()
    with soundfile.SoundFile(
        file,
        "w",
        rate,
        1,
        format="MP3",
        compression_level=min(1 - (kbps - least) / (most - least), 0.999),
        bitrate_mode="CONSTANT",
    ) as out:
        out.write(tones(rate, rate))
    return file.getvalue()


LAYER_3 = {
    320: ((32000, 44100, 48000), (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)),
    160: ((16000, 22050, 24000), (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)),
    64: ((8000, 11025, 12000), (8, 16, 24, 32, 40, 48, 56, 64)),
}


@pytest.mark.parametrize(
    ("rate", "kbps", "most"),
    [
        (rate, kbps, most)
        for most, (rates, all_) in LAYER_3.items()
        for rate, kbps in [
            *((rate, all_[-1]) for rate in rates),
            *((rates[0], kbps) for kbps in all_[:-1]),
        ]
    ],
)
def test_an_mp3_of_any_rate_is_whole(
    rate: int, kbps: int, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = mp3(rate, kbps, most)
    assert len(data) == pytest.approx(kbps * 125, rel=0.3, abs=700)
    assert len(load_audio(io.BytesIO(data))[0]) == pytest.approx(rate, abs=2500)
    assert not caplog.messages


def test_an_mp3_that_lacks_a_frame_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Its first frame tells how many there are."""
    data = mp3(48000, 320, 320)
    assert len(data) % 960 == 0
    load_audio(io.BytesIO(data[:-960]))
    assert caplog.messages == [CUT]


@pytest.mark.parametrize("footer", [False, True])
def test_a_tag_before_an_mp3_may_have_a_footer(
    footer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = mp3(16000, 32, 160)
    sizes = bytes([4, 0, 16 if footer else 0, 0, 0, 1, 3])  # 131 bytes, seven bits each
    tag = b"ID3" + sizes + b"\0" * 131 + (b"3DI" + sizes if footer else b"")
    plain, tagged = (load_audio(io.BytesIO(rest + data))[0] for rest in (b"", tag))
    assert plain.shape == tagged.shape
    assert np.allclose(plain, tagged, atol=1e-5)
    assert not caplog.messages


# --------------------------------------------------------------------------------------------------
# Ogg


def pages(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        length = 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])
        found.append(data[at : at + length])
        at += length
    return found


def renumbered(page: bytes, serial: int) -> bytes:
    page = page[:14] + struct.pack("<I", serial) + page[18:]
    return page[:22] + ogg.checksum(page) + page[26:]


def link(serial: int, subtype: str = "VORBIS", rate: int = 16000, channels: int = 1) -> list[bytes]:
    """The pages of a second of sound."""
    data = wav(tones(rate, rate, channels), rate, "OGG", subtype)
    return [renumbered(page, serial) for page in pages(data)]


# How many channels; for each in the order of a WAV, its place in Vorbis and in Opus.
ORDERS = [
    (2, (0, 1)),
    (3, (0, 2, 1)),
    (4, (0, 1, 2, 3)),
    (5, (0, 2, 1, 3, 4)),
    (6, (0, 2, 1, 5, 3, 4)),
    (7, (0, 2, 1, 6, 5, 3, 4)),
    (8, (0, 2, 1, 7, 5, 6, 3, 4)),
]


def staggered(channels: int) -> Any:
    """A second at 48 kHz; each channel ends before the one in front of it."""
    samples = tones(48000, 48000).repeat(channels, 1)
    for channel in range(channels):
        samples[48000 - 5000 * channel :, channel] = 0
    return samples


def ranks(samples: Any) -> list[int]:
    """Of each channel, how many last longer."""
    ends = [np.flatnonzero(np.abs(channel) > 0.03)[-1] for channel in samples.T]
    return [sum(other > end for other in ends) for end in ends]


def test_the_checksum_of_a_page_is_oggs() -> None:
    assert all(
        ogg.checksum(page) == page[22:26]
        for page in pages(wav(tones(9000), kind="OGG", subtype="VORBIS"))
    )


@pytest.mark.parametrize("serial", [1, 2])
def test_links_of_other_kinds_are_coded_like_the_first(
    serial: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The second link has another rate, other channels and another codec.

    Some writers repeat the serial number.
    """
    data = b"".join(link(1) + link(serial, "OPUS", 48000, 2) + link(3, "VORBIS", 44100))
    samples, rate = load_audio(io.BytesIO(data))
    assert (samples.shape, rate) == ((48000, 1), 16000)
    assert min(np.abs(samples[second * 16000 :][:16000]).max() for second in range(3)) > 0.1
    assert caplog.messages == [
        "recordings of different kinds in one file: "
        "all are coded like the first, 16 kHz, channels: 1"
    ]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize(("channels", "order"), ORDERS)
def test_channels_of_an_ogg_come_in_the_order_of_a_wav(
    channels: int, order: tuple[int, ...], subtype: str
) -> None:
    """Of six, an Ogg has left, centre, right, two behind, deep; a WAV left, right, centre, deep.

    libsndfile, which writes them here, minds no order.
    """
    data = wav(staggered(channels), 48000, "OGG", subtype)
    assert ranks(load_audio(io.BytesIO(data))[0]) == list(order)


def test_channels_of_an_opus_that_are_no_speakers_keep_their_order() -> None:
    first, *others = pages(wav(staggered(6), 48000, "OGG", "OPUS"))
    at = first.find(b"OpusHead") + 18
    assert first[at] == 1
    first = renumbered(first[:at] + b"\xff" + first[at + 1 :], 1)
    data = b"".join([first, *(renumbered(page, 1) for page in others)])
    assert ranks(load_audio(io.BytesIO(data))[0]) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
@pytest.mark.parametrize(("channels", "order"), ORDERS)
def test_an_ogg_is_written_in_its_own_order(
    channels: int, order: tuple[int, ...], suffix: str
) -> None:
    file = io.BytesIO()
    writer = AudioWriter(file, 48000, channels, suffix)
    writer.write(staggered(channels))
    writer.close()
    written = ranks(soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0])
    assert [written[place] for place in order] == list(range(channels))


def test_streams_side_by_side_are_the_first_and_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    one, other = link(1), link(2, "OPUS", 48000, 2)
    video = renumbered(b"OggS\0\2" + bytes(20) + b"\1\x2a\x80theora" + bytes(35), 3)
    alone = load_audio(io.BytesIO(b"".join(one)))[0]
    mixed = [
        one[0],
        other[0],
        *(page for pair in zip(one[1:], other[1:], strict=False) for page in pair),
    ]
    mixed += [*one[len(other) :], *other[len(one) :]]
    for found in (mixed, [video, *one], [one[0], video, *one[1:]]):
        caplog.clear()
        assert np.array_equal(load_audio(io.BytesIO(b"".join(found)))[0], alone)
        assert caplog.messages == ["several streams in one file: only its first recording is coded"]


def test_a_link_that_was_cut_does_not_hide_the_next(caplog: pytest.LogCaptureFixture) -> None:
    data = b"".join(link(1))[:-200] + b"".join(link(2))
    assert 16000 < len(load_audio(io.BytesIO(data))[0]) < 32000
    assert caplog.messages == [DAMAGED, CUT]


# --------------------------------------------------------------------------------------------------
# PyAV


def coded(container: str, codec: str, rate: int = 16000) -> bytes:
    """Two seconds of sound as FFmpeg writes them."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = "mono"
        resampler = av.AudioResampler(
            format=stream.codec_context.format.name, layout="mono", rate=rate, frame_size=1024
        )
        frame = av.AudioFrame.from_ndarray(tones(32000).T.copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "aac"), ("ipod", "alac"), ("adts", "aac"), ("matroska", "flac"), ("matroska", "aac")],
)
def test_what_libsndfile_does_not_know_goes_through_pyav(
    container: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = coded(container, codec)
    samples, rate = load_audio(io.BytesIO(data))
    assert rate == 16000
    assert 32000 <= len(samples) < 35000
    assert not caplog.messages
    original, best = tones(32000)[8000:16000, 0], 0.0
    for delay in range(0, 2200, 8 if codec == "aac" else 1024):
        best = max(
            best, float(np.corrcoef(original, samples[8000 + delay : 16000 + delay, 0])[0, 1])
        )
    assert best > 0.9


def test_channels_of_an_8svx_lie_behind_one_another(caplog: pytest.LogCaptureFixture) -> None:
    """libsndfile takes them for samples in turn."""
    pytest.importorskip("av", reason="PyAV reads it")
    left, right = (np.round(100 * tones(4000)[::step, 0]).astype("i1") for step in (1, -1))
    body = left.tobytes() + right.tobytes()
    header = struct.pack(">IIIHBBI", 4000, 0, 0, 16000, 1, 0, 1 << 16)
    chunks = [(b"VHDR", header), (b"CHAN", struct.pack(">I", 6)), (b"BODY", body)]
    content = b"8SVX" + b"".join(
        name + struct.pack(">I", len(data)) + data for name, data in chunks
    )
    data = b"FORM" + struct.pack(">I", len(content)) + content
    samples, rate = load_audio(io.BytesIO(data))
    assert rate == 16000
    assert np.array_equal(samples * 128, np.stack([left, right], 1))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("container", "codec"), [("adts", "aac"), ("matroska", "flac"), ("ipod", "alac")]
)
def test_what_pyav_reads_says_that_it_is_cut(
    container: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = coded(container, codec)
    if container == "ipod":  # what tells how to read it comes last
        with pytest.raises(MediaError, match="cut short"):
            load_audio(io.BytesIO(data[: len(data) // 2]))
        return
    assert 8000 < len(load_audio(io.BytesIO(data[: len(data) // 2]))[0]) < 24000
    assert caplog.messages == [CUT]


def test_a_playlist_is_not_followed(tmp_path: Any) -> None:
    """FFmpeg would read what it names."""
    pytest.importorskip("av")
    (tmp_path / "secret.ts").write_bytes(b"G" * 1880)
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{tmp_path}/secret.ts'\n",
    ):
        with pytest.raises(MediaError, match="not a recording or picture in a known format"):
            load_audio(io.BytesIO(text.encode()))


def test_without_pyav_the_message_names_formats_and_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match=r"FLAC.*m4a, webm.*pip install av.*ffmpeg -i") as raised:
        load_audio(io.BytesIO(b"\0\0\0\x20ftypM4A " + bytes(100)))
    assert "\n" not in str(raised.value)
