"""Classic codecs behind one small interface.

So a model can be held against them at the same number of bytes.

    signal ─encode(signal, setting)─> bytes of a whole file ─decode(bytes, length)─> signal, aligned
    match_bytes(baseline, signal, target): the setting whose file comes nearest to so many bytes

Their files are written and read in `eval.classic_pictures` and `eval.classic_speech`. AVIF is given
two threads, since its bytes depend on whether there is one or more. What is not installed says so
in `missing` and is left out by name, never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec

from PIL import features

from codec.errors import MediaError
from eval.classic_pictures import heic_payload, read_heic, read_picture, write_heic, write_picture
from eval.classic_speech import (
    AAC_DELAY,
    ADTS_HEADER,
    CODEC2_MODES,
    packet_bytes,
    read_codec2,
    read_frames,
    read_opus,
    write_codec2,
    write_speech,
)
from eval.signals import Signal


class UnknownBaselineError(MediaError):
    """There is no classic codec of this name."""


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
        UnknownBaselineError: There is none of a name.
        MediaError: It is not installed; the message says what to do.
    """
    chosen: list[Baseline] = []
    for name in names:
        if name != "all" and name not in BASELINES:
            raise UnknownBaselineError(
                f"no baseline {name}; there are {', '.join(BASELINES)}, or all"
            )
        if name != "all" and BASELINES[name].missing:
            raise MediaError(f"baseline {name}: {BASELINES[name].missing}")
        chosen += (
            [b for b in BASELINES.values() if b.available] if name == "all" else [BASELINES[name]]
        )
    return [b for b in dict.fromkeys(chosen) if medium in (None, b.medium)]


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
            partial(write_picture, kind="JPEG", optimize=True),
            read_picture,
        ),
        Baseline(
            "webp",
            "WebP",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            partial(write_picture, kind="WEBP", method=6),
            read_picture,
            missing=_pillow("webp"),
        ),
        Baseline(
            "avif",
            "AVIF",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            partial(write_picture, kind="AVIF", max_threads=2),
            read_picture,
            missing=_pillow("avif"),
        ),
        Baseline(
            "heic",
            "HEIC",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            write_heic,
            read_heic,
            heic_payload,
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
                write_picture,
                kind="JPEG2000",
                name="quality_layers",
                quality_mode="rates",
                irreversible=True,
            ),
            read_picture,
            missing=_pillow("jpg_2000"),
        ),
        Baseline(
            "jxl",
            "JPEG XL",
            "image",
            "quality",
            (0, *QUALITIES),
            MIDDLE,
            partial(write_picture, kind="JXL"),
            read_picture,
            missing=_package("pillow_jxl", "pillow-jxl-plugin"),
        ),
        Baseline(
            "opus",
            "Opus",
            "speech",
            "bit/s",
            OPUS_RATES,
            (6_000, 9_000, 12_000, 16_000, 24_000),
            partial(write_speech, codec="libopus", container="ogg", application="voip"),
            read_opus,
            packet_bytes,
            _package("av", "av"),
        ),
        Baseline(
            "mp3",
            "MP3",
            "speech",
            "bit/s",
            tuple(range(8_000, 64_001, 8_000)),
            (8_000, 16_000, 24_000, 32_000),
            partial(write_speech, codec="libmp3lame", container="mp3"),
            read_frames,
            packet_bytes,
            _package("av", "av"),
        ),
        Baseline(
            "aac",
            "AAC",
            "speech",
            "bit/s",
            tuple(range(6_000, 64_001, 1_000)),
            (8_000, 16_000, 24_000, 32_000),
            partial(write_speech, codec="aac", container="adts"),
            partial(read_frames, delay=AAC_DELAY),
            partial(packet_bytes, header=ADTS_HEADER),
            _package("av", "av"),
        ),
        Baseline(
            "codec2",
            "Codec2",
            "speech",
            "bit/s",
            CODEC2_MODES,
            CODEC2_MODES,
            write_codec2,
            read_codec2,
            lambda data: len(data) - 1,
            _package("pycodec2", "pycodec2"),
        ),
    )
}
