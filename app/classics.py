"""Classic codecs on the page: those that work here, and their versions at given bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from app.media import Size
from app.originals import Original
from app.scoring import Scorer
from app.store import TemporaryFiles
from app.versions import Version, rate_of
from codec.errors import MediaError
from codec.medium import MEDIA, SAMPLE_RATE
from eval.baselines import BASELINES, Baseline, find, match_bytes
from eval.signals import SIGNALS

# Of files whose codec is called otherwise.
SUFFIXES = {"jpeg": "jpg", "jpeg2000": "jp2", "codec2": "c2"}


class Classics:
    """The classic codecs that work here. Several threads may ask.

    Args:
        files: Where their files go.
        scorer: Scores their versions.
    """

    def __init__(self, files: TemporaryFiles, scorer: Scorer) -> None:
        self._files = files
        self._scorer = scorer

    def of(self, medium: str) -> list[Baseline]:
        """Returns those for a medium."""
        return [b for b in BASELINES.values() if b.medium == medium and b.available]

    def check(self, medium: str, names: Sequence[str]) -> None:
        """Checks that these are classic codecs that work here, for this medium, each named once.

        Raises:
            MediaError: They are not.
        """
        known = [baseline.name for baseline in self.of(medium)]
        for name in names:
            if name not in known:
                raise MediaError(
                    f"no classic codec {str(name)[:40]!r} for {medium} here; there are "
                    f"{', '.join(known)}"
                )
        if len(set(names)) < len(names):
            raise MediaError("name each classic codec once")

    def code(
        self, original: Original, name: str, num_bytes: int, tried: dict[int, bytes] | None = None
    ) -> Version:
        """Codes at the setting whose whole file comes nearest to so many bytes.

        Args:
            original: What is coded.
            name: The classic codec.
            num_bytes: The size that is wanted.
            tried: Files by setting; give the same dictionary to every call on one original and
                name.

        Raises:
            MediaError: There is no such codec here.
        """
        baseline = find([name], original.medium)[0] if name in BASELINES else find([name])[0]
        if baseline.medium != original.medium:
            raise MediaError(f"{baseline.title} does not code {original.medium}")
        signal, signals = original.signal, SIGNALS[original.medium]
        match = match_bytes(baseline, signal, num_bytes, tried)
        start = time.perf_counter()
        baseline.encode(signal, match.setting)
        encoded = time.perf_counter()
        decoded = baseline.decode(match.data, len(signal))
        decode_s = time.perf_counter() - encoded
        stem = f"{Path(original.name).stem}-{name}-{match.setting}"
        height, width = signal.shape[:2]
        size = Size(SAMPLE_RATE, 1, height, width)
        media = self._files.save(MEDIA[original.medium], size, [decoded], stem)
        file = media.with_suffix(f".{SUFFIXES.get(name, name)}")
        file.write_bytes(match.data)
        samples = signals.compared(signals.fitted(decoded, len(signal)))
        return Version(
            label=f"{baseline.title}, {_setting(baseline, match.setting)}",
            family=baseline.title,
            kind="classic",
            medium=original.medium,
            file=file,
            media=media,
            num_bytes=len(match.data),
            rate=rate_of(original.medium, len(match.data), original.units),
            ratio=original.raw_bytes / len(match.data),
            encode_s=encoded - start,
            decode_s=decode_s,
            samples=samples,
            scores=self._scorer.score(original, samples),
            notices=_mixed(original)
            + _too_large(baseline, match.setting, len(match.data), num_bytes),
        )


def _setting(baseline: Baseline, setting: int) -> str:
    """Returns what people call a setting."""
    if baseline.unit == "bit/s":
        return f"{setting / 1000:g} kbit/s"
    return f"{baseline.unit} {setting}"


def _mixed(original: Original) -> list[str]:
    """Returns the remark on a recording of several channels, which only models code each."""
    if original.streams == 1:
        return []
    return [
        f"Opus and other classic codecs get the mean of the {original.streams} channels here, in "
        "one; the models code each channel, in as many bytes together"
    ]


def _too_large(baseline: Baseline, setting: int, size: int, wanted: int) -> list[str]:
    """Returns the remark on a codec whose smallest file is larger than what was wanted."""
    if setting != baseline.settings[0] or size <= 1.1 * wanted:
        return []
    return [
        f"{baseline.title} cannot go down to {wanted:,} bytes: its smallest file has {size:,}, "
        f"{size / wanted:.1f} times as many"
    ]
