"""`python -m codec.decompress`: .bin files, or a folder of them, to recordings and pictures."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from codec import cards
from codec.cli.frame import UsageError, each, progress, run, within
from codec.cli.options import Models, add_common, add_paths, is_done, jobs_of, parser_of
from codec.cli.report import report_file
from codec.container import Limits, Reader
from codec.container.salvage import MAX_FILE_BYTES, Salvage
from codec.errors import MediaError
from codec.files import STDIO, Pipe, piping, room_for, writing
from codec.layers import Layered
from codec.medium import Medium

if TYPE_CHECKING:
    from codec.coding import AnyReader, Model

log = logging.getLogger("codec")


def decompress_main(arguments: list[str] | None = None) -> int:
    """`python -m codec.decompress`; returns the exit code."""
    parser = parser_of(
        "decompress",
        "Decompresses .bin files (or a folder of them); the output's suffix chooses its format.",
    )
    add_paths(parser, ".bin file, folder, or - for stdin")
    parser.add_argument(
        "-m", "--model", metavar="PATH", help="a model that did not come with the package"
    )
    parser.add_argument(
        "-k",
        "--codebook-size",
        type=int,
        metavar="K",
        help="of a file with layers: stop there; default: the last",
    )
    parser.add_argument(
        "-t",
        "--test",
        action="store_true",
        help="verify only: decode and write nothing (OUT is left out)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="decode what a damaged file still holds: silence or grey for the rest",
    )
    parser.add_argument(
        "--max-seconds",
        type=within(int, 1, sys.maxsize),
        default=Limits().max_seconds,
        metavar="S",
        help="refuse longer ones",
    )
    add_common(parser)
    return run(parser, arguments, _decompress)


def _decompress(options: argparse.Namespace) -> None:
    if options.test and options.partial:
        raise UsageError("--test verifies a whole file; leave --partial out")
    models = Models(options.device)
    limits = Limits(max_pixels=options.max_pixels, max_seconds=options.max_seconds)
    each(
        jobs_of(options, unpack=True),
        lambda source, target: _decompress_file(source, target, options, models, limits),
    )


def _decompress_file(
    source: str, target: str | None, options: argparse.Namespace, models: Models, limits: Limits
) -> None:
    with piping(source) as pipe:
        if isinstance(pipe, Pipe):
            pipe.forget()
        if target is not None:
            limits = replace(limits, max_bytes=room_for(target))
        file = (
            io.BytesIO(pipe.read(MAX_FILE_BYTES + 1)) if options.partial else cast(BinaryIO, pipe)
        )
        head = Reader(file, limits)
        card = cards.find(options.model, model_id=head.header.model_id)
        if target is None:
            model, start = models.get(card), time.perf_counter()
            reader = _open(file, head, model, options, limits, strict=True)
            units = decode(reader, model)
        else:
            target, suffix = _suffix(
                target, head.header.kind, chosen=not Path(options.input).is_dir()
            )
            if target in models.written:
                raise MediaError(
                    f"{target} was written for another file of this run; rename one of them"
                )
            if is_done(source, target, options):
                models.written.add(target)
                return
            piped = (
                target == STDIO
                and head.header.kind.timed
                and suffix == head.header.kind.default_suffix
            )
            with writing(target, options.force, stream=piped) as out:
                model, start = models.get(card), time.perf_counter()
                reader = _open(file, head, model, options, limits, strict=False)
                units = decode(reader, model, out, suffix, piped, options.quiet)
            models.written.add(target)
        report = {
            "medium": reader.header.medium,
            "model": card.name,
            "codebook_size": reader.header.codebook_size,
            "units": units,
            "verified": target is None and not reader.gaps,
            "elapsed_s": time.perf_counter() - start,
        }
        if isinstance(reader, Salvage):
            from codec import coding

            report["lost"] = coding.lost(reader, model)
    report_file(
        report | {"input": source, "output": target}, options, data_on_stdout=target == STDIO
    )


def _open(
    file: BinaryIO,
    head: Reader,
    model: Model,
    options: argparse.Namespace,
    limits: Limits,
    strict: bool,
) -> AnyReader:
    """What to decode from: the whole file, or what is left of it.

    A whole file is read as far as its layers are asked for and sound.

    Raises:
        BitstreamError: The file is damaged; `strict` counts its last layers, too.
    """
    from codec import coding

    if options.partial:
        return coding.left_of(file, model, limits, options.codebook_size)
    reader = coding.layered(head, model, options.codebook_size)
    if strict and isinstance(reader, Layered) and reader.damage is not None:
        raise reader.damage
    return reader


def decode(
    reader: AnyReader,
    model: Model,
    out: BinaryIO | None = None,
    suffix: str = "",
    piped: bool = False,
    quiet: bool = True,
) -> float:
    """Decodes to a media file, or only checks if there is none; returns seconds or pixels."""
    from codec import coding

    return coding.decompress(reader, model, out, suffix, piped, partial(progress, quiet=quiet))


def verify(out: BinaryIO, models: Models) -> None:
    """Decodes what was just written: containers, checksums and nets."""
    from codec import coding

    out.flush()
    out.seek(0)
    head = Reader(out, Limits(max_pixels=sys.maxsize, max_seconds=sys.maxsize))
    model = models.get(cards.find(models.last, model_id=head.header.model_id))
    decode(coding.layered(head, model), model)
    out.seek(0, os.SEEK_END)


def _suffix(target: str, medium: Medium, chosen: bool) -> tuple[str, str]:
    """The output's name and format.

    A name that was not `chosen` but restored, say a.avif, may become a.avif.png.
    """
    known, default = medium.suffixes, medium.default_suffix
    suffix = Path(target).suffix.lstrip(".").lower()
    if suffix in known and target != STDIO:
        return target, suffix
    if not chosen:
        return f"{target}.{default}", default
    if suffix and target != STDIO:
        offered = ", ".join(sorted(known))
        raise MediaError(
            f"the file holds {medium.noun}, which cannot be written as .{suffix}; use {offered}"
        )
    return target, default
