"""What the tabs call, without Gradio: code an input, score it, open a .bin.

    file ─Reading─> Source ─code─> Version (.bin, decoded media, figures)
                      └─classic──> Version of Opus, WebP ... at the same bytes
    .bin ─decode─> Version

Coding is that of codec.api, so a .bin made here is the one that `python -m codec.compress` makes, byte for byte.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import perceptual
from app.reading import Reading, Source, at_speech_rate, file_stem, heard
from app.store import Models, Settings, Shelf, wake
from codec.container import Reader, Summary, scan
from codec.container.limits import Limits
from codec.description import describe_all
from codec.errors import BitstreamError, CodecError, MediaError
from codec.layers import ladder, survey
from codec.medium import MEDIA, SAMPLE_RATE
from codec.truncation import truncate
from eval.baselines import BASELINES, Baseline, find, match_bytes
from eval.trained import lpips_weight

log = logging.getLogger("app")

SCORED_SECONDS = 10  # PESQ takes a quarter of a second for these
SCORED_PIXELS = 1 << 20  # SSIMULACRA2 takes two seconds and a gigabyte for these
MAX_VERSIONS = 16
SUFFIXES = {"jpeg": "jpg", "jpeg2000": "jp2", "codec2": "c2"}  # of files whose codec is called otherwise
UNIT = {name: medium.rate_unit for name, medium in MEDIA.items()}

Report = Callable[[float, str], None]  # progress: share done, what is being done


@dataclass(frozen=True, slots=True)
class Version:
    """One coded version of a source, or something decoded.

    Attributes:
        family: The model or the classic codec: what a line of a plot joins.
        kind: "codec" or "classic".
        codebook_size: The nominal K; None for classic codecs.
        num_codes: The codes it really has.
        used_codes: How many of them occur.
        file: The coded file, a real .bin (or .opus, .webp ...).
        media: The decoded .wav or .png.
        rate: kbit/s or bits per pixel of the whole file.
        scores: Metric -> figure; None where it cannot be scored.
        samples: What the metrics saw: (T,) at 16 kHz or (H, W, 3).
        lpips_weight: Of LPIPS among the losses that trained the model, which then flatters it; 0 for classic codecs,
            None where nobody knows.
    """

    label: str
    family: str
    kind: str
    medium: str
    file: Path
    media: Path
    num_bytes: int
    rate: float
    ratio: float
    encode_s: float
    decode_s: float
    samples: NDArray[Any]
    scores: dict[str, float | None] = field(default_factory=dict)
    model: str = ""
    codebook_size: int | None = None
    num_codes: int | None = None
    used_codes: int | None = None
    lpips_weight: float | None = 0.0
    notices: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Plain data: what tables, CSV files and the API show."""
        known: dict[str, Any] = {
            "version": self.label,
            "kind": self.kind,
            "model": self.model,
            "codebook_size": self.codebook_size,
            "num_codes": self.num_codes,
            "used_codes": self.used_codes,
            "bytes": self.num_bytes,
            UNIT[self.medium].replace(" ", "_"): round(self.rate, 5),
            "ratio": round(self.ratio, 2),
            "encode_s": round(self.encode_s, 4),
            "decode_s": round(self.decode_s, 4),
        }
        scores = {name: None if value is None else round(value, 4) for name, value in self.scores.items()}
        if any(name.startswith("LPIPS") for name in scores):
            scores["trained_on_lpips"] = None if self.lpips_weight is None else self.lpips_weight > 0
        return known | scores


class Workshop:
    """The jobs, on one set of models, limits and temporary files. Its methods may run in several threads."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings = settings
        self.models = Models(settings.models)
        self.shelf = Shelf(root, settings.keep_s)
        self.reading = Reading(settings, self.shelf)
        self._perceptual: dict[str, Callable[[Any, Any], float | None]] | None = None
        self._lock = threading.Lock()
        self.limits = Limits(settings.max_pixels, math.ceil(settings.max_seconds), max_width=settings.max_width)

    def warm(self) -> threading.Thread:
        """Loads everything in the background."""

        def load() -> None:
            for name in self.models.cards:
                try:
                    self.models.get(name)
                except CodecError as error:  # it is said again to whoever asks for the model
                    log.error("%s", error)
            self._more_metrics()

        thread = threading.Thread(target=load, name="warm", daemon=True)
        thread.start()
        return thread

    def open(self, path: str | Path | None, medium: str | None = None) -> Source:
        """Reads an input; see `Reading.open`."""
        wake()
        return self.reading.open(path, medium)

    def code(self, source: Source, name: str, size: int, layers: bool = False) -> Version:
        """Compresses, decompresses and scores.

        Args:
            layers: Make a file that can be cut to smaller sizes.

        Raises:
            CodecError: The model is missing or damaged, codes another medium, does not offer the size, or has no layers
                there and they are wanted.
        """
        from codec import api

        model = self.models.get(name)
        if size not in model.card.num_codes:
            offered = ", ".join(map(str, model.card.num_codes))
            raise MediaError(f"{name} has no codebook of size {size}; choose from {offered}")
        if model.card.medium != source.medium:
            raise MediaError(f"{name} codes {model.card.medium}; choose a model for {source.medium}")
        with heard():  # the source has said it already
            start = time.perf_counter()
            data = api.compress(source.data, size, model, layers=layers)
            encode_s = time.perf_counter() - start
        stem = f"{Path(source.name).stem}-{name}-{size}"
        return self.decoded(data, stem, encode_s, source)

    def usual_size(self, name: str) -> int:
        """The codebook size of a model where none is asked for. Raises ModelError where there is no such model."""
        sizes = self.models.card(name).num_codes
        return 1024 if 1024 in sizes else min(sizes)

    def layered(self, source: Source, models: Sequence[str], sizes: Sequence[int]) -> Path | None:
        """A .bin that can be cut to several sizes: by the first of the models that has layers at one of these.

        Returns:
            The file, up to the largest of the sizes; None where none of the models has layers there.
        """
        from codec import api

        for name in models:
            model = self.models.get(name)
            fit = [size for size in sizes if size in model.card.num_codes and len(ladder(model.tables, size)) > 1]
            if fit:
                with heard():  # the source has said it already
                    data = api.compress(source.data, max(fit), model, layers=True)
                path = self.shelf.folder() / f"{file_stem(f'{Path(source.name).stem}-{name}')}-layers.bin"
                path.write_bytes(data)
                return path
        return None

    def layers(self, path: str | Path) -> dict[int, int]:
        """Codebook size -> bytes of a .bin cut there, coarsest first; one entry if it has no layers.

        Raises:
            BitstreamError: Damaged, or none.
        """
        with Path(path).open("rb") as file:
            return survey(file).stops

    def decode(self, path: str | Path | None, size: int | None = None) -> tuple[Version, Summary]:
        """Decodes a .bin, cut to a codebook size that it has a layer of, if one is given.

        Raises:
            BitstreamError: Damaged, not one of ours, or beyond the limits.
            ModelError: Its model is not here.
        """
        data = self._cut(path, size)
        summary = scan(io.BytesIO(data))
        stem = Path(path).stem if size is None else f"{Path(path).stem}-{size}"
        return self.decoded(data, stem, 0.0, None), summary

    def cut(self, path: str | Path | None, size: int) -> Path:
        """A .bin cut to a codebook size that it has a layer of, as a file of its own; errors as for `decode`."""
        data = self._cut(path, size)
        file = self.shelf.folder() / f"{file_stem(Path(str(path)).stem)}-{size}.bin"
        file.write_bytes(data)
        return file

    def _cut(self, path: str | Path | None, size: int | None) -> bytes:
        if not path:
            raise MediaError("nothing is chosen yet; drop a .bin here")
        data = Path(path).read_bytes()
        if size is None:
            return data
        try:
            return truncate(data, size)
        except ValueError as error:
            raise MediaError(str(error)) from None

    def info(self, path: str | Path) -> dict[str, str]:
        """What `python -m codec.info` prints of a .bin. Raises BitstreamError where it is damaged, or is none."""
        with Path(path).open("rb") as file:
            record = describe_all(
                survey(file), {key: c.name for c in self.models.cards.values() for key in (c.base_id, c.model_id)}
            )
        record.pop("layers", None)  # the page has a control for them
        record["model"] = record["model"] or "not among the installed models"
        return {
            key.replace("_", " "): f"{value:.6g}" if isinstance(value, float) else str(value)
            for key, value in record.items()
        }

    def classics(self, medium: str) -> list[Baseline]:
        """The classic codecs that work here."""
        return [b for b in BASELINES.values() if b.medium == medium and b.available]

    def classic(self, source: Source, name: str, num_bytes: int, tried: dict[int, bytes] | None = None) -> Version:
        """The setting of a classic codec whose whole file comes nearest to so many bytes.

        Args:
            tried: Files by setting; give the same dictionary to every call on one source and name.

        Raises:
            MediaError: There is no such codec here.
        """
        baseline = find([name], source.medium)[0] if name in BASELINES else find([name])[0]
        if baseline.medium != source.medium:
            raise MediaError(f"{baseline.title} does not code {source.medium}")
        signal = source.reference if source.medium == "image" else source.reference[:, None]
        match = match_bytes(baseline, signal, num_bytes, tried)
        start = time.perf_counter()
        baseline.encode(signal, match.setting)
        encoded = time.perf_counter()
        decoded = baseline.decode(match.data, len(signal))
        decode_s = time.perf_counter() - encoded
        stem = f"{Path(source.name).stem}-{name}-{match.setting}"
        if source.medium == "image":
            media, samples = self.reading.save_picture(decoded, stem), decoded
        else:
            media, samples = self.reading.save_recording([decoded], SAMPLE_RATE, 1, stem), decoded[:, 0].clip(-1, 1)
        file = media.with_suffix(f".{SUFFIXES.get(name, name)}")
        file.write_bytes(match.data)
        size, notices = len(match.data), []
        kilo = baseline.unit == "bit/s"
        setting = f"{match.setting / 1000:g} kbit/s" if kilo else f"{baseline.unit} {match.setting}"
        if match.setting == baseline.settings[0] and size > 1.1 * num_bytes:
            notices.append(
                f"{baseline.title} cannot go down to {num_bytes:,} bytes: its smallest file has {size:,}, "
                f"{size / num_bytes:.1f} times as many"
            )
        return Version(
            label=f"{baseline.title}, {setting}",
            family=baseline.title,
            kind="classic",
            medium=source.medium,
            file=file,
            media=media,
            num_bytes=size,
            rate=rate_of(source.medium, size, source.units),
            ratio=source.raw_bytes / size,
            encode_s=encoded - start,
            decode_s=decode_s,
            samples=samples,
            scores=self.scored(source, samples),
            notices=notices,
        )

    def decoded(self, data: bytes, stem: str, encode_s: float, source: Source | None) -> Version:
        """The version that a bitstream holds; scored if its source is known."""
        from codec import coding

        start = time.perf_counter()
        head = Reader(io.BytesIO(data), self.limits)
        model = self.models.by_id(head.header.model_id)
        reader = coding.layered(head, model)
        header = reader.header
        if header.medium == "image":
            pixels = coding.decompress_image(reader, model)
            decode_s, units, raw = time.perf_counter() - start, header.height * header.width, pixels.size
            media, samples = self.reading.save_picture(pixels, stem), pixels
        else:
            end = coding.expected(reader, model)
            if end is not None and end.num_samples == 0:
                raise BitstreamError("the file holds no samples: compress again")
            blocks = list(coding.decompress_speech(reader, model))
            decode_s = time.perf_counter() - start
            units, raw = reader.num_samples / header.sample_rate, 2 * reader.num_samples * header.channels
            media = self.reading.save_recording(blocks, header.sample_rate, header.channels, stem)
            samples = at_speech_rate(np.concatenate(blocks).clip(-1, 1), header.sample_rate)
        size = header.codebook_size
        indices = coding.read_indices(data, model, self.limits)[1]
        file = media.with_suffix(".bin")
        file.write_bytes(data)
        return Version(
            label=f"{model.card.name}, {size:,} codes",
            family=model.card.name,
            kind="codec",
            medium=header.medium,
            file=file,
            media=media,
            num_bytes=len(data),
            rate=rate_of(header.medium, len(data), units),
            ratio=raw / len(data),
            encode_s=encode_s,
            decode_s=decode_s,
            samples=samples,
            scores=self.scored(source, samples) if source else {},
            model=model.card.name,
            codebook_size=size,
            num_codes=header.num_codes * header.num_codebooks,
            lpips_weight=lpips_weight(model.card),
            used_codes=sum(len(np.unique(indices[:, book])) for book in range(indices.shape[1])),
        )

    def scored(self, source: Source, samples: NDArray[Any]) -> dict[str, float | None]:
        """The page's metrics of the medium; of speech, on its first `SCORED_SECONDS`."""
        from eval.metrics import score, ssimulacra2

        if source.medium == "image":
            small = samples.shape[0] * samples.shape[1] <= SCORED_PIXELS
            scores = score("image", source.reference, samples)
            scores["SSIMULACRA2"] = ssimulacra2(source.reference, samples) if small else None
            return scores | {name: metric(source.reference, samples) for name, metric in self._more_metrics().items()}
        count = min(SCORED_SECONDS * SAMPLE_RATE, len(source.reference), len(samples))
        return score("speech", source.reference[:count], samples[:count])

    def _more_metrics(self) -> dict[str, Callable[[Any, Any], float | None]]:
        with self._lock:
            if self._perceptual is None:
                wake()
                self._perceptual = perceptual.load(self.settings.lpips_backbone)
            return self._perceptual

    def _check_classics(self, source: Source, names: Sequence[str]) -> None:
        """Raises MediaError unless these are classic codecs that work here, for this medium, each named once."""
        known = [baseline.name for baseline in self.classics(source.medium)]
        for name in names:
            if name not in known:
                raise MediaError(
                    f"no classic codec {str(name)[:40]!r} for {source.medium} here; there are {', '.join(known)}"
                )
        if len(set(names)) < len(names):
            raise MediaError("name each classic codec once")

    def compare(
        self,
        source: Source,
        models: Sequence[str],
        sizes: Sequence[int],
        classics: Sequence[str] = (),
        match_all: bool = False,
        report: Report = lambda *_: None,
    ) -> list[Version]:
        """Every chosen model at every chosen size that it offers, then classic codecs at the same bytes.

        Args:
            classics: Names of classic codecs.
            match_all: A classic version for every codec version, rather than for the largest only.

        Raises:
            MediaError: Nothing, or too much, is chosen.
        """
        self._check_classics(source, classics)
        pairs = [(name, size) for name in models for size in sorted(sizes) if size in self.models.card(name).num_codes]
        total = len(pairs) + len(classics) * (len(pairs) if match_all else 1)
        if not pairs:
            raise MediaError("nothing to compare: choose a model and a codebook size that it offers")
        if total > MAX_VERSIONS:
            raise MediaError(f"that makes {total} versions; choose at most {MAX_VERSIONS}")
        versions: list[Version] = []
        for name, size in pairs:
            report(len(versions) / total, f"{name} with {size:,} codes: encode, decode, measure")
            versions.append(self.code(source, name, size))
        targets = sorted({v.num_bytes for v in versions} if match_all else {max(v.num_bytes for v in versions)})
        for name in classics:
            tried: dict[int, bytes] = {}
            for target in targets:
                report(min(len(versions) / total, 0.99), f"{title_of(name)} at {target:,} bytes")
                versions.append(self.classic(source, name, target, tried))
        return versions

    def sweep(self, source: Source, classics: Sequence[str] = (), report: Report = lambda *_: None) -> list[Version]:
        """Every model of the medium at every size it offers, and classic codecs over the same range of bytes.

        Raises:
            MediaError: A classic codec is not known, or more than `MAX_VERSIONS` of theirs are asked for.
        """
        self._check_classics(source, classics)
        pairs = [(card.name, size) for card in self.models.of(source.medium) for size in card.num_codes]
        total = len(classics) * len(self.models.card(pairs[0][0]).num_codes)
        if total > MAX_VERSIONS:
            raise MediaError(f"that makes {total} versions of classic codecs; choose at most {MAX_VERSIONS}")
        versions: list[Version] = []
        for count, (name, size) in enumerate(pairs):
            report(count / (len(pairs) + len(classics)), f"{name} with {size:,} codes: encode, decode, measure")
            versions.append(self.code(source, name, size))
        first = [version.num_bytes for version in versions if version.model == pairs[0][0]]
        for count, name in enumerate(classics):
            report(
                (len(pairs) + count) / (len(pairs) + len(classics)), f"{title_of(name)} at the same numbers of bytes"
            )
            seen: set[int] = set()
            tried: dict[int, bytes] = {}
            for target in first:
                version = self.classic(source, name, target, tried)
                if version.num_bytes not in seen:  # its lowest setting may be the nearest to them all
                    versions.append(version)
                seen.add(version.num_bytes)
        return versions


def title_of(name: str) -> str:
    """What people call a classic codec."""
    return BASELINES[name].title if name in BASELINES else name


def rate_of(medium: str, num_bytes: int, units: float) -> float:
    """In the medium's unit."""
    return MEDIA[medium].rate(num_bytes, units)


def write_csv(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """One line a record; returns the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for record in records for key in record)))
        writer.writeheader()
        writer.writerows(records)
    return path
