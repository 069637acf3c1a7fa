"""`python -m codec.compress`: a recording or picture, or a folder of them, to .bin files."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from codec import cards
from codec.cli.decompress import verify
from codec.cli.frame import UsageError, each, progress, run
from codec.cli.options import (
    Models,
    add_care,
    add_common,
    add_paths,
    is_done,
    jobs_of,
    list_models,
    parser_of,
)
from codec.cli.report import report_file
from codec.container import MAGIC
from codec.errors import MediaError
from codec.files import STDIO, Pipe, piping, temporary, writing
from codec.media import HEAD_BYTES, AudioReader, detect, streamed
from codec.medium import MEDIA, rate_units

if TYPE_CHECKING:
    from codec.coding import Model

log = logging.getLogger("codec")


def compress_main(arguments: list[str] | None = None) -> int:
    """`python -m codec.compress`; returns the exit code."""
    parser = parser_of(
        "compress", "Compresses a recording or a picture (or a folder of them) to .bin files."
    )
    add_paths(parser, "recording, picture, folder, or - for stdin", needed=False)
    parser.add_argument(
        "-m",
        "--model",
        metavar="NAME|PATH",
        help="default: the medium's best, or the best with layers",
    )
    parser.add_argument(
        "-k",
        "--codebook-size",
        type=int,
        metavar="K",
        help="256, 1024, 4096 or 16384; default 1024",
    )
    parser.add_argument(
        "-b",
        "--bitrate",
        type=float,
        metavar="R",
        help=f"instead of K, for each channel of a recording: {rate_units()}; nearest wins",
    )
    add_care(parser)
    parser.add_argument(
        "--layers",
        action="store_true",
        help="a file that codec.truncate can cut to every smaller K",
    )
    parser.add_argument(
        "--mono", action="store_true", help="mix the channels of a recording into one"
    )
    parser.add_argument(
        "-t", "--test", action="store_true", help="decode what was written and verify it"
    )
    parser.add_argument(
        "--list-models", action="store_true", help="list the shipped models and exit"
    )
    add_common(parser)
    return run(parser, arguments, _compress)


def _compress(options: argparse.Namespace) -> None:
    if options.list_models:
        list_models(options.json)
        return
    if options.codebook_size is not None and options.bitrate is not None:
        raise UsageError("give --codebook-size or --bitrate, not both")
    models = Models(options.device)
    each(jobs_of(options), lambda source, target: _compress_file(source, target, options, models))


def _compress_file(source: str, target: str, options: argparse.Namespace, models: Models) -> None:
    if is_done(source, target, options):
        return
    with (
        piping(source) as file,
        writing(target, options.force, stream=not options.test) as out,
        ExitStack() as spools,
    ):
        head = file.peek(HEAD_BYTES) if isinstance(file, Pipe) else file.read(HEAD_BYTES)
        if not isinstance(file, Pipe):
            file.seek(0)
        if head.startswith(MAGIC):
            raise MediaError("this is a .bin already; give a recording or a picture")
        medium = detect(head)
        medium_of_best = medium if options.model is None else None
        card = cards.find(options.model, medium_of_best, layered=options.layers)
        size = _choose_size(card, options)
        recording = _streamed(file, head)
        if isinstance(file, Pipe) and recording is None:
            file = file.spooled(spools.enter_context(temporary()))
        report = _compress_one(
            file, recording, out, medium, lambda: models.get(card), size, options
        )
        if options.test:
            verify(out, models)
            report["verified"] = True
    report_file(
        report | {"input": source, "output": target}, options, data_on_stdout=target == STDIO
    )


def _streamed(file: BinaryIO | Pipe, head: bytes) -> AudioReader | None:
    """A recording that can be coded while it still comes in: a plain .wav through a pipe.

    Else None.
    """
    recording = streamed(cast(BinaryIO, file), head) if isinstance(file, Pipe) else None
    if recording is not None:
        cast(Pipe, file).forget()
    return recording


def _compress_one(
    file: BinaryIO | Pipe,
    recording: AudioReader | None,
    out: BinaryIO,
    medium: str,
    load: Callable[[], Model],
    size: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    start = time.perf_counter()
    # A large picture is decoded, and its memory given back, before torch and the nets take theirs.
    signal = MEDIA[medium].read(
        cast(BinaryIO, recording or file), mono=options.mono, max_pixels=options.max_pixels
    )
    read_s = time.perf_counter() - start
    from codec import coding

    model = load()
    start = time.perf_counter() - read_s
    watch = partial(progress, quiet=options.quiet)
    written = coding.compress(
        medium, signal, out, model, size, options.effort, options.layers, options.search, watch
    )
    elapsed_s = time.perf_counter() - start
    bytes_in = file.total if isinstance(file, Pipe) else file.seek(0, os.SEEK_END)
    return {
        "medium": medium,
        "model": model.card.name,
        "codebook_size": size,
        **signal.describe(written.units),
        "bytes_in": bytes_in,
        "bytes_out": written.total_bytes,
        "payload_bytes": written.payload_bytes,
        "units": written.units,
        "elapsed_s": elapsed_s,
    }


def _choose_size(card: cards.Card, options: argparse.Namespace) -> int:
    """The codebook size that the options ask for; of a rate the one whose files come nearest."""
    sizes = card.num_codes
    medium = MEDIA[card.medium]
    unit = f"{medium.rate_unit} a channel" if medium.timed else medium.rate_unit
    rates = {
        k: card.tokens_per_unit * bits / medium.rate_bits for k, bits in card.bits_per_token.items()
    }
    if options.bitrate is not None:
        if not 0 < options.bitrate < inf:
            known = ", ".join(f"{rate:.3g}" for rate in rates.values())
            raise UsageError(f"--bitrate {options.bitrate:g}: want one near {known} {unit}")
        size = min(rates, key=lambda k: abs(rates[k] - options.bitrate))
        log.warning(
            "--bitrate %g: nearest is about %.3g %s (K = %d)",
            options.bitrate,
            rates[size],
            unit,
            size,
        )
        return size
    default = 1024 if 1024 in sizes else min(sizes)
    size = default if options.codebook_size is None else int(options.codebook_size)
    if size not in sizes:
        offered = ", ".join(f"{k} (about {rates[k]:.3g} {unit})" for k in sizes)
        raise UsageError(f"--codebook-size {size}: {card.name} offers {offered}")
    return size
