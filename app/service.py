"""The service: what tabs and endpoints call, without Gradio.

It codes originals, scores them, and opens .bin files.

    file ─InputReader─> Original ─code─> Version (.bin, decoded media, figures)
                            └─classic──> Version of Opus, WebP ... at the same bytes
    .bin ─decode─> Version

Coding is that of codec.api, so a .bin made here is the one that `python -m codec.compress` makes,
byte for byte.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.originals import InputReader, Original, at_speech_rate, collected_notices, file_stem
from app.scoring import Scorer
from app.store import Models, Settings, TemporaryFiles, import_heavy
from app.versions import Version, rate_of, title_of
from codec.container import Reader, Summary, scan
from codec.container.limits import Limits
from codec.description import describe_all
from codec.errors import BitstreamError, CodecError, MediaError
from codec.layers import ladder, survey
from codec.medium import SAMPLE_RATE
from codec.truncation import truncate
from eval.baselines import BASELINES, Baseline, find, match_bytes
from eval.trained import trained_on

log = logging.getLogger("app")

MAX_VERSIONS = 16
# Of files whose codec is called otherwise.
SUFFIXES = {"jpeg": "jpg", "jpeg2000": "jp2", "codec2": "c2"}

Report = Callable[[float, str], None]  # progress: share done, what is being done


class Service:
    """The work of the app, on one set of models, limits and temporary files.

    Its methods may run in several threads.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings = settings
        self.models = Models(settings.models)
        self.files = TemporaryFiles(root, settings.keep_s)
        self.reader = InputReader(settings, self.files)
        self.scorer = Scorer(settings.lpips_backbone)
        self.limits = Limits(
            settings.max_pixels, math.ceil(settings.max_seconds), max_width=settings.max_width
        )

    def warm(self) -> threading.Thread:
        """Loads everything in the background, and returns the thread that does it."""

        def load() -> None:
            for name in self.models.cards:
                try:
                    self.models.get(name)
                except CodecError as error:  # it is said again to whoever asks for the model
                    log.error("%s", error)
            self.scorer.load()

        thread = threading.Thread(target=load, name="warm", daemon=True)
        thread.start()
        return thread

    def open(self, path: str | Path | None, medium: str | None = None) -> Original:
        """Reads an input; see `InputReader.open`."""
        import_heavy()
        return self.reader.open(path, medium)

    def code(self, original: Original, name: str, size: int, layers: bool = False) -> Version:
        """Compresses, decompresses and scores.

        Args:
            layers: Make a file that can be cut to smaller sizes.

        Raises:
            CodecError: The model is missing or damaged, codes another medium, does not offer the
                size, or has no layers there and they are wanted.
        """
        from codec import api

        model = self.models.get(name)
        if size not in model.card.num_codes:
            offered = ", ".join(map(str, model.card.num_codes))
            raise MediaError(f"{name} has no codebook of size {size}; choose from {offered}")
        if model.card.medium != original.medium:
            raise MediaError(
                f"{name} codes {model.card.medium}; choose a model for {original.medium}"
            )
        with collected_notices():  # its reader has said it already
            start = time.perf_counter()
            data = api.compress(original.data, size, model, layers=layers)
            encode_s = time.perf_counter() - start
        stem = f"{Path(original.name).stem}-{name}-{size}"
        return self.decoded(data, stem, encode_s, original)

    def usual_size(self, name: str) -> int:
        """Returns the codebook size of a model where none is asked for.

        Raises:
            ModelError: There is no such model.
        """
        sizes = self.models.card(name).num_codes
        return 1024 if 1024 in sizes else min(sizes)

    def layered(
        self, original: Original, models: Sequence[str], sizes: Sequence[int]
    ) -> Path | None:
        """A .bin that can be cut to several sizes.

        It is made by the first of the models that has layers at one of these.

        Returns:
            The file, up to the largest of the sizes; None where none of the models has layers
            there.
        """
        from codec import api

        for name in models:
            model = self.models.get(name)
            fit = [
                size
                for size in sizes
                if size in model.card.num_codes and len(ladder(model.tables, size)) > 1
            ]
            if fit:
                with collected_notices():  # its reader has said it already
                    data = api.compress(original.data, max(fit), model, layers=True)
                path = (
                    self.files.folder()
                    / f"{file_stem(f'{Path(original.name).stem}-{name}')}-layers.bin"
                )
                path.write_bytes(data)
                return path
        return None

    def layers(self, path: str | Path) -> dict[int, int]:
        """Codebook size -> bytes of a .bin cut there, coarsest first.

        There is one entry if the file has no layers.

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
        stem = Path(path or "").stem + ("" if size is None else f"-{size}")
        return self.decoded(data, stem, 0.0, None), summary

    def cut(self, path: str | Path | None, size: int) -> Path:
        """A .bin cut to a codebook size that it has a layer of, as a file of its own.

        Errors are those of `decode`.
        """
        data = self._cut(path, size)
        file = self.files.folder() / f"{file_stem(Path(str(path)).stem)}-{size}.bin"
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
        """Returns what `python -m codec.info` prints of a .bin.

        Raises:
            BitstreamError: It is damaged, or is none.
        """
        with Path(path).open("rb") as file:
            record = describe_all(
                survey(file),
                {
                    key: c.name
                    for c in self.models.cards.values()
                    for key in (c.base_id, c.model_id)
                },
            )
        record.pop("layers", None)  # the page has a control for them
        record["model"] = record["model"] or "not among the installed models"
        return {
            key.replace("_", " "): f"{value:.6g}" if isinstance(value, float) else str(value)
            for key, value in record.items()
        }

    def classics(self, medium: str) -> list[Baseline]:
        """Returns the classic codecs that work here."""
        return [b for b in BASELINES.values() if b.medium == medium and b.available]

    def classic(
        self, original: Original, name: str, num_bytes: int, tried: dict[int, bytes] | None = None
    ) -> Version:
        """Codes by a classic codec, at the setting whose whole file comes nearest to so many bytes.

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
        signal = original.reference if original.medium == "image" else original.reference[:, None]
        match = match_bytes(baseline, signal, num_bytes, tried)
        start = time.perf_counter()
        baseline.encode(signal, match.setting)
        encoded = time.perf_counter()
        decoded = baseline.decode(match.data, len(signal))
        decode_s = time.perf_counter() - encoded
        stem = f"{Path(original.name).stem}-{name}-{match.setting}"
        if original.medium == "image":
            media, samples = self.reader.save_picture(decoded, stem), decoded
        else:
            media, samples = (
                self.reader.save_recording([decoded], SAMPLE_RATE, 1, stem),
                decoded[:, 0].clip(-1, 1),
            )
        file = media.with_suffix(f".{SUFFIXES.get(name, name)}")
        file.write_bytes(match.data)
        size, notices = len(match.data), []
        kilo = baseline.unit == "bit/s"
        setting = f"{match.setting / 1000:g} kbit/s" if kilo else f"{baseline.unit} {match.setting}"
        if match.setting == baseline.settings[0] and size > 1.1 * num_bytes:
            notices.append(
                f"{baseline.title} cannot go down to {num_bytes:,} bytes: its smallest file has "
                f"{size:,}, "
                f"{size / num_bytes:.1f} times as many"
            )
        return Version(
            label=f"{baseline.title}, {setting}",
            family=baseline.title,
            kind="classic",
            medium=original.medium,
            file=file,
            media=media,
            num_bytes=size,
            rate=rate_of(original.medium, size, original.units),
            ratio=original.raw_bytes / size,
            encode_s=encoded - start,
            decode_s=decode_s,
            samples=samples,
            scores=self.scorer.score(original, samples),
            notices=notices,
        )

    def decoded(
        self, data: bytes, stem: str, encode_s: float, original: Original | None
    ) -> Version:
        """Decodes the version that a bitstream holds, and scores it if its original is known."""
        from codec import coding

        start = time.perf_counter()
        head = Reader(io.BytesIO(data), self.limits)
        model = self.models.by_id(head.header.model_id)
        reader = coding.layered(head, model)
        header = reader.header
        units: float
        samples: NDArray[Any]
        if header.medium == "image":
            pixels = coding.decompress_image(reader, model)
            decode_s, units, raw = (
                time.perf_counter() - start,
                header.height * header.width,
                pixels.size,
            )
            media, samples = self.reader.save_picture(pixels, stem), pixels
        else:
            end = coding.expected(reader, model)
            if end is not None and end.num_samples == 0:
                raise BitstreamError("the file holds no samples: compress again")
            blocks = list(coding.decompress_speech(reader, model))
            decode_s = time.perf_counter() - start
            units, raw = (
                reader.num_samples / header.sample_rate,
                2 * reader.num_samples * header.channels,
            )
            media = self.reader.save_recording(blocks, header.sample_rate, header.channels, stem)
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
            scores=self.scorer.score(original, samples) if original else {},
            model=model.card.name,
            codebook_size=size,
            num_codes=header.num_codes * header.num_codebooks,
            trained=trained_on(model.card),
            used_codes=sum(len(np.unique(indices[:, book])) for book in range(indices.shape[1])),
        )

    def _check_classics(self, original: Original, names: Sequence[str]) -> None:
        """Checks that these are classic codecs that work here, for this medium, each named once.

        Raises:
            MediaError: They are not.
        """
        known = [baseline.name for baseline in self.classics(original.medium)]
        for name in names:
            if name not in known:
                raise MediaError(
                    f"no classic codec {str(name)[:40]!r} for {original.medium} here; there are "
                    f"{', '.join(known)}"
                )
        if len(set(names)) < len(names):
            raise MediaError("name each classic codec once")

    def compare(
        self,
        original: Original,
        models: Sequence[str],
        sizes: Sequence[int],
        classics: Sequence[str] = (),
        match_all: bool = False,
        report: Report = lambda *_: None,
    ) -> list[Version]:
        """Codes by every chosen model at every chosen size, then by classic codecs.

        Those code at the same bytes.

        Args:
            original: What is coded.
            models: The names of models.
            sizes: Codebook sizes; a model passes over those that it does not offer.
            classics: Names of classic codecs.
            match_all: Whether there is a classic version for every codec version, rather than for
                the largest only.
            report: Is told of the progress.

        Raises:
            MediaError: Nothing, or too much, is chosen.
        """
        self._check_classics(original, classics)
        pairs = [
            (name, size)
            for name in models
            for size in sorted(sizes)
            if size in self.models.card(name).num_codes
        ]
        total = len(pairs) + len(classics) * (len(pairs) if match_all else 1)
        if not pairs:
            raise MediaError(
                "nothing to compare: choose a model and a codebook size that it offers"
            )
        if total > MAX_VERSIONS:
            raise MediaError(f"that makes {total} versions; choose at most {MAX_VERSIONS}")
        versions: list[Version] = []
        for name, size in pairs:
            report(len(versions) / total, f"{name} with {size:,} codes: encode, decode, measure")
            versions.append(self.code(original, name, size))
        targets = sorted(
            {v.num_bytes for v in versions} if match_all else {max(v.num_bytes for v in versions)}
        )
        for name in classics:
            tried: dict[int, bytes] = {}
            for target in targets:
                report(min(len(versions) / total, 0.99), f"{title_of(name)} at {target:,} bytes")
                versions.append(self.classic(original, name, target, tried))
        return versions

    def sweep(
        self, original: Original, classics: Sequence[str] = (), report: Report = lambda *_: None
    ) -> list[Version]:
        """Codes by every model of the medium at every size, and by classic codecs.

        Those code at the same bytes.

        Raises:
            MediaError: A classic codec is not known, or more than `MAX_VERSIONS` of theirs are
                asked for.
        """
        self._check_classics(original, classics)
        pairs = [
            (card.name, size) for card in self.models.of(original.medium) for size in card.num_codes
        ]
        total = len(classics) * len(self.models.card(pairs[0][0]).num_codes)
        if total > MAX_VERSIONS:
            raise MediaError(
                f"that makes {total} versions of classic codecs; choose at most {MAX_VERSIONS}"
            )
        versions: list[Version] = []
        for count, (name, size) in enumerate(pairs):
            report(
                count / (len(pairs) + len(classics)),
                f"{name} with {size:,} codes: encode, decode, measure",
            )
            versions.append(self.code(original, name, size))
        first = [version.num_bytes for version in versions if version.model == pairs[0][0]]
        for count, name in enumerate(classics):
            report(
                (len(pairs) + count) / (len(pairs) + len(classics)),
                f"{title_of(name)} at the same numbers of bytes",
            )
            seen: set[int] = set()
            tried: dict[int, bytes] = {}
            for target in first:
                version = self.classic(original, name, target, tried)
                # Its lowest setting may be the nearest to them all.
                if version.num_bytes not in seen:
                    versions.append(version)
                seen.add(version.num_bytes)
        return versions
