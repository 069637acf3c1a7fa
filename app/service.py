"""The service: what tabs and endpoints call, without Gradio.

It codes originals, scores them, and opens .bin files.

    file ─open─> Original ─code─> Version (.bin, decoded media, figures)
                     └─classics.code──> Version of Opus, WebP ... at the same bytes
    .bin ─decode─> Version
    .bin ─bins──> cut to a layer, described

Coding is that of codec.api, so a .bin made here is the one that `python -m codec.compress` makes,
byte for byte.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.bins import Bins
from app.classics import Classics
from app.media import KINDS, SEARCH
from app.originals import InputReader, Original, collected_notices
from app.scoring import Scorer
from app.store import Models, Settings, TemporaryFiles, file_stem, import_heavy
from app.versions import Version, rate_of
from codec.container import Reader, Summary, scan
from codec.container.limits import Limits
from codec.errors import BitstreamError, CodecError, MediaError
from codec.layers import ladder
from eval.trained import trained_on

log = logging.getLogger("app")


class Service:
    """The work of the app, on one set of models, limits and temporary files.

    Its methods may run in several threads.

    Attributes:
        settings: What the operator chose.
        models: Those that are here.
        files: What the page shows, for a while.
        bins: What is done with .bin files without decoding them.
        classics: The classic codecs that work here.
        scorer: Scores versions.
        limits: How much a .bin may decode to.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        self.settings = settings
        self.models = Models(settings.models)
        self.files = TemporaryFiles(root, settings.keep_s)
        self.reader = InputReader(settings, self.files)
        self.scorer = Scorer(settings.lpips_backbone)
        self.bins = Bins(self.models, self.files)
        self.classics = Classics(self.files, self.scorer)
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

    def code(
        self, original: Original, name: str, size: int, layers: bool = False, search: int = 0
    ) -> Version:
        """Compresses, decompresses and scores.

        Args:
            layers: Make a file that can be cut to smaller sizes.
            search: Steps of the encoder's search for nearer codes, as in `codec.compress`;
                see `check_search`.

        Raises:
            CodecError: The model is missing or damaged, codes another medium, does not offer the
                size, or has no layers there and they are wanted.
        """
        from codec import api

        offered = self.models.card_for(name, original.medium).num_codes
        if size not in offered:
            raise MediaError(
                f"{name} has no codebook of size {size}; choose from {', '.join(map(str, offered))}"
            )
        self.check_search(original, search)
        model = self.models.get(name)
        with collected_notices():  # its reader has said it already
            start = time.perf_counter()
            data = api.compress(original.data, size, model, layers=layers, search=search)
            encode_s = time.perf_counter() - start
        stem = f"{Path(original.name).stem}-{name}-{size}" + ("-searched" if search else "")
        version = self.decoded(data, stem, encode_s, original)
        if not search:
            return version
        return replace(
            version,
            search=search,
            label=f"{version.label}, searched",
            family=f"{version.family} searched",
            trained=trained_on(model.card, searched=True),
        )

    def check_search(self, original: Original, steps: int) -> None:
        """Raises MediaError where a search of so many steps would take longer than people wait."""
        limit = KINDS[original.medium].searched_units * SEARCH
        if original.units * original.streams * steps > limit:
            raise MediaError(
                "a search would take minutes for this input: take a shorter or smaller one, or "
                "python -m codec.compress --search"
            )

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
                stem = file_stem(f"{Path(original.name).stem}-{name}")
                path = self.files.folder() / f"{stem}-layers.bin"
                path.write_bytes(data)
                return path
        return None

    def decode(self, path: str | Path | None, size: int | None = None) -> tuple[Version, Summary]:
        """Decodes a .bin, cut to a codebook size that it has a layer of, if one is given.

        Raises:
            BitstreamError: Damaged, not one of ours, or beyond the limits.
            ModelError: Its model is not here.
        """
        data = self.bins.read(path, size)
        summary = scan(io.BytesIO(data))
        stem = Path(path or "").stem + ("" if size is None else f"-{size}")
        return self.decoded(data, stem, 0.0, None), summary

    def decoded(
        self, data: bytes, stem: str, encode_s: float, original: Original | None
    ) -> Version:
        """Decodes the version that a bitstream holds, and scores it if its original is known."""
        from codec import coding

        start = time.perf_counter()
        head = Reader(io.BytesIO(data), self.limits)
        model = self.models.by_id(head.header.model_id)
        reader = coding.layered(head, model)
        header, kind = reader.header, reader.header.kind
        end = coding.expected(reader, model) if kind.timed else None
        if end is not None and end.num_samples == 0:
            raise BitstreamError("the file holds no samples: compress again")
        blocks = list(coding.CODINGS[kind.name].decompress(reader, model))
        decode_s = time.perf_counter() - start
        media = self.files.save(kind, header, blocks, stem)
        samples = KINDS[kind.name].decoded(blocks, header.sample_rate)
        units = kind.units(header, reader.num_samples)
        raw = kind.value_bytes * sum(block.size for block in blocks)
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
