"""Classic codecs behind one small interface.

So a model can be held against them at the same number of bytes.

    signal ─encode(signal, setting)─> bytes of a whole file ─decode(bytes, length)─> signal, aligned
    match_bytes(baseline, signal, target): the setting whose file comes nearest to so many bytes

AVIF is given two threads, since its bytes depend on whether there is one or more. Pictures are (H,
W, 3) uint8, speech is (n, 1) float32 at 16 kHz in [-1, 1]. Pillow codes the pictures, pillow-heif
HEIC, PyAV speech, and pycodec2 Codec2; what is not installed says so in `missing` and is left out
by name, never replaced.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image, features

from codec.errors import MediaError
from codec.media import load_audio, resample
from codec.media.heic import opened
from codec.medium import SAMPLE_RATE
from eval import codec2_decoder
from eval.signals import Signal

CODEC2_RATE = 8_000  # Hz
ADTS_HEADER = 7  # bytes before each frame of raw AAC
# Samples that FFmpeg's encoder puts before the signal; a raw AAC stream does not say so.
AAC_DELAY = 1024


@dataclass(frozen=True, slots=True)
class Baseline:
    """A classic codec.

    Attributes:
        name: What the command line and results call it.
        title: What tables and figures call it.
        medium: "image" or "speech".
        unit: What a setting is: "quality", "compression ratio" or "bit/s".
        settings: All settings that may be chosen, in the order of growing files.
        curve: The settings that a rate-distortion curve is drawn through.
        encode: Turns a signal and a setting into the bytes of a whole file.
        decode: Turns bytes and a length in samples into a signal. The length is needed by the
            formats that do not store it (AAC, Codec2), and may be None, which leaves up to a frame
            of padding; pictures ignore it.
        payload: Counts the bytes of a file without its container; of pictures, HEIC alone has one.
        missing: Why it cannot be used here and what to install; None where it can be used.
    """

    name: str
    title: str
    medium: str
    unit: str
    settings: tuple[int, ...]
    curve: tuple[int, ...]
    encode: Callable[[Signal, int], bytes] = field(repr=False)
    decode: Callable[..., Signal] = field(repr=False)
    payload: Callable[[bytes], int] = field(default=len, repr=False)
    missing: str | None = None

    @property
    def available(self) -> bool:
        return self.missing is None


@dataclass(frozen=True, slots=True)
class Match:
    """The setting that came nearest to a number of bytes, and the file it gave."""

    setting: int
    data: bytes


def match_bytes(
    baseline: Baseline, signal: Signal, target: int, tried: dict[int, bytes] | None = None
) -> Match:
    """Finds the setting whose file is nearest to `target` bytes; of two as near, the smaller file.

    The search bisects, since files grow with the setting but for a few bytes, and then looks at
    both neighbours.

    Args:
        baseline: An available codec.
        signal: The signal, as `Baseline.encode` takes it.
        target: The number of bytes of a whole file.
        tried: Files by setting, which the search reads and adds to; calls on one signal share it.
    """
    files = {} if tried is None else tried

    def encode(position: int) -> bytes:
        setting = baseline.settings[position]
        if setting not in files:
            files[setting] = baseline.encode(signal, setting)
        return files[setting]

    low, high = 0, len(baseline.settings) - 1
    while low < high:  # the first setting that reaches the target
        middle = (low + high) // 2
        low, high = (middle + 1, high) if len(encode(middle)) < target else (low, middle)
    near = range(max(low - 1, 0), min(low + 2, len(baseline.settings)))
    best = min(
        near, key=lambda position: (abs(len(encode(position)) - target), len(encode(position)))
    )
    return Match(baseline.settings[best], encode(best))


def title_of(name: str) -> str:
    """Returns what people call a classic codec; any other name stays as it is."""
    return BASELINES[name].title if name in BASELINES else name


def find(names: Sequence[str], medium: str | None = None) -> list[Baseline]:
    """Returns classic codecs by name.

    Args:
        names: Their names; "all" is every one that is available here.
        medium: The medium that they are for; None for both.

    Raises:
        MediaError: A name is unknown, or not installed; the message says what to do.
    """
    chosen: list[Baseline] = []
    for name in names:
        if name != "all" and name not in BASELINES:
            raise MediaError(f"no baseline {name}; there are {', '.join(BASELINES)}, or all")
        if name != "all" and BASELINES[name].missing:
            raise MediaError(f"baseline {name}: {BASELINES[name].missing}")
        chosen += (
            [b for b in BASELINES.values() if b.available] if name == "all" else [BASELINES[name]]
        )
    return [b for b in dict.fromkeys(chosen) if medium in (None, b.medium)]


# ----------------------------------------------------------------------------------------- pictures


def _write_picture(
    pixels: Signal, setting: int, kind: str, name: str = "quality", **options: Any
) -> bytes:
    if kind == "JXL":
        import pillow_jxl  # noqa: F401  registers itself with Pillow
    file = io.BytesIO()
    value: Any = [setting] if name == "quality_layers" else setting
    Image.fromarray(pixels).save(file, kind, **{name: value}, **options)
    return file.getvalue()


def _read_picture(data: bytes, length: int | None = None) -> Signal:  # noqa: ARG001  a picture's file knows its size
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        import pillow_jxl  # noqa: F401
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _write_heic(pixels: Signal, setting: int) -> bytes:
    """Codes as HEVC, intra alone, by x265."""
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, quality=setting)
    return file.getvalue()


def _read_heic(data: bytes, length: int | None = None) -> Signal:  # noqa: ARG001
    return np.array(opened(io.BytesIO(data)).convert("RGB"))


def _heic_payload(data: bytes) -> int:
    """Counts what the box "mdat" holds; the boxes before it take some hundred bytes."""
    start = 0
    while data[start + 4 : start + 8] != b"mdat":
        start += int.from_bytes(data[start : start + 4], "big")
    return int.from_bytes(data[start : start + 4], "big") - 8


def _pillow(feature: str) -> str | None:
    return (
        None
        if features.check(feature)
        else f"this Pillow was built without {feature}; install pillow>=12.3 anew"
    )


def _package(module: str, requirement: str) -> str | None:
    return None if find_spec(module) else f"{module} is not installed; pip install {requirement}"


def _heic() -> str | None:
    if missing := _package("pillow_heif", "pillow-heif"):
        return missing
    from pillow_heif import libheif_info

    return None if libheif_info()["HEIF"] else "this pillow-heif has no encoder; install another"


# ------------------------------------------------------------------------------------------- speech


def _write_speech(
    samples: Signal, setting: int, codec: str, container: str, **options: str
) -> bytes:
    """Codes through FFmpeg's libraries at `setting` bit/s."""
    import av
    from av.audio.stream import AudioStream

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=SAMPLE_RATE, options=options)
        assert isinstance(stream, AudioStream)
        layout = "flt" if codec == "libopus" else "fltp"
        stream.layout, stream.bit_rate, stream.format = "mono", setting, layout
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T, np.float32), layout, "mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return file.getvalue()


def _read_opus(data: bytes, length: int | None = None) -> Signal:
    """Reads an Opus file: libsndfile heeds its delay and length, and decodes at 16 kHz."""
    return _fit(load_audio(io.BytesIO(data), SAMPLE_RATE)[0], length)


def _read_frames(data: bytes, length: int | None = None, *, delay: int = 0) -> Signal:
    """Reads MP3, whose header holds its delay and length, and AAC, whose `delay` must be known."""
    import av

    with av.open(io.BytesIO(data), "r") as source:
        blocks = [frame.to_ndarray()[0] for frame in source.decode(audio=0)]
    return _fit(np.concatenate(blocks)[delay:, None], length)


def _packet_bytes(data: bytes, header: int = 0) -> int:
    """Counts the bytes of all packets, without the pages of a file or a `header` in each packet."""
    import av

    with av.open(io.BytesIO(data), "r") as source:
        return int(sum(packet.size - header for packet in source.demux(audio=0) if packet.size))


def _write_codec2(samples: Signal, setting: int) -> bytes:
    """Codes whole frames, one after the other, behind a byte with the mode, which decoders need."""
    import pycodec2

    coder = pycodec2.Codec2(setting)
    frame = coder.samples_per_frame()
    narrow = resample(np.asarray(samples, np.float32), SAMPLE_RATE, CODEC2_RATE)[:, 0]
    # So that the last is coded, too.
    narrow = np.pad(narrow, (0, _codec2_delay(setting) * CODEC2_RATE // SAMPLE_RATE))
    pcm = (
        (np.pad(narrow, (0, -len(narrow) % frame)) * 32768)
        .round()
        .clip(-32768, 32767)
        .astype(np.int16)
    )
    parts = [coder.encode(part) for part in pcm.reshape(-1, frame)]
    return bytes([CODEC2_MODES.index(setting)]) + b"".join(parts)


def _read_codec2(data: bytes, length: int | None = None) -> Signal:
    mode = CODEC2_MODES[data[0]]
    narrow = (codec2_decoder.decode(mode, data[1:])[:, None] / 32768).astype(np.float32)
    return _fit(resample(narrow, CODEC2_RATE, SAMPLE_RATE)[_codec2_delay(mode) :], length)


def _codec2_delay(mode: int) -> int:
    """Returns the samples at 16 kHz by which a decoder lags.

    It is the shift that gives recordings the best STOI: 0.88 for 0.66 without one, at mode 3200.
    """
    return 480 if mode == 700 else 320


def _fit(samples: Signal, length: int | None) -> Signal:
    """Returns (n, 1) float32 samples cut, or padded with silence, to `length`."""
    samples = np.asarray(samples, np.float32)
    if length is None:
        return samples
    return np.pad(samples[:length], ((0, max(length - len(samples), 0)), (0, 0)))


# -------------------------------------------------------------------------------------------- table

# Nominal bit/s; those of 700 and 1300 fill up to whole bytes.
CODEC2_MODES = (700, 1200, 1300, 1400, 1600, 2400, 3200)
QUALITIES = tuple(range(1, 96))
# 400 : 1 to 5 : 1.
RATIOS = tuple(sorted({round(400 / 1.05**step) for step in range(92)}, reverse=True))
OPUS_RATES = tuple(range(6_000, 64_001, 250))
LOW, MIDDLE = (3, 5, 10, 20, 40, 70), (0, 5, 10, 20, 40, 70)

BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            "jpeg",
            "JPEG",
            "image",
            "quality",
            QUALITIES,
            LOW,
            partial(_write_picture, kind="JPEG", optimize=True),
            _read_picture,
        ),
        Baseline(
            "webp",
            "WebP",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            partial(_write_picture, kind="WEBP", method=6),
            _read_picture,
            missing=_pillow("webp"),
        ),
        Baseline(
            "avif",
            "AVIF",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            partial(_write_picture, kind="AVIF", max_threads=2),
            _read_picture,
            missing=_pillow("avif"),
        ),
        Baseline(
            "heic",
            "HEIC",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            _write_heic,
            _read_heic,
            _heic_payload,
            _heic(),
        ),
        Baseline(
            "jpeg2000",
            "JPEG 2000",
            "image",
            "compression ratio",
            RATIOS,
            (202, 118, 73, 40, 24, 14),
            partial(
                _write_picture,
                kind="JPEG2000",
                name="quality_layers",
                quality_mode="rates",
                irreversible=True,
            ),
            _read_picture,
            missing=_pillow("jpg_2000"),
        ),
        Baseline(
            "jxl",
            "JPEG XL",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            partial(_write_picture, kind="JXL"),
            _read_picture,
            missing=_package("pillow_jxl", "pillow-jxl-plugin"),
        ),
        Baseline(
            "opus",
            "Opus",
            "speech",
            "bit/s",
            OPUS_RATES,
            (6_000, 9_000, 12_000, 16_000, 24_000),
            partial(_write_speech, codec="libopus", container="ogg", application="voip"),
            _read_opus,
            _packet_bytes,
            _package("av", "av"),
        ),
        Baseline(
            "mp3",
            "MP3",
            "speech",
            "bit/s",
            tuple(range(8_000, 64_001, 8_000)),
            (8_000, 16_000, 24_000, 32_000),
            partial(_write_speech, codec="libmp3lame", container="mp3"),
            _read_frames,
            _packet_bytes,
            _package("av", "av"),
        ),
        Baseline(
            "aac",
            "AAC",
            "speech",
            "bit/s",
            tuple(range(6_000, 64_001, 1_000)),
            (8_000, 16_000, 24_000, 32_000),
            partial(_write_speech, codec="aac", container="adts"),
            partial(_read_frames, delay=AAC_DELAY),
            partial(_packet_bytes, header=ADTS_HEADER),
            _package("av", "av"),
        ),
        Baseline(
            "codec2",
            "Codec2",
            "speech",
            "bit/s",
            CODEC2_MODES,
            CODEC2_MODES,
            _write_codec2,
            _read_codec2,
            lambda data: len(data) - 1,
            _package("pycodec2", "pycodec2"),
        ),
    )
}
