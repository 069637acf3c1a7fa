"""`python -m codec.truncate`: cuts .bin files with layers to a smaller codebook."""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import time
from math import inf
from typing import Any, BinaryIO, cast

from codec.cli.frame import UsageError, each, filled, print_line, run
from codec.cli.jobs import mirrored
from codec.cli.options import add_existing, is_done, parser_of
from codec.container import Summary
from codec.errors import MediaError
from codec.files import STDIO, Pipe, piping, writing
from codec.layers import cut, survey
from codec.medium import rate_units
from codec.truncation import within

log = logging.getLogger("codec")


def truncate_main(arguments: list[str] | None = None) -> int:
    """`python -m codec.truncate`; returns the exit code."""
    parser = parser_of(
        "truncate",
        "Cuts .bin files with layers (or a folder of them) to a smaller codebook, "
        "without decoding.",
    )
    parser.add_argument(
        "input", metavar="IN", type=filled, help=".bin file, folder, or - for stdin"
    )
    parser.add_argument("output", metavar="OUT", type=filled, help="file, folder, or - for stdout")
    parser.add_argument(
        "-k", "--codebook-size", type=int, metavar="K", help="the last layer to keep"
    )
    parser.add_argument(
        "-b",
        "--bitrate",
        type=float,
        metavar="R",
        help=f"instead of K: {rate_units()}, of the file at most",
    )
    add_existing(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no report and no notices")
    parser.add_argument("--json", action="store_true", help="report as one JSON object a line")
    return run(parser, arguments, _truncate)


def _truncate(options: argparse.Namespace) -> None:
    if (options.codebook_size is None) == (options.bitrate is None):
        raise UsageError("give one of --codebook-size or --bitrate")
    if options.bitrate is not None and not 0 < options.bitrate < inf:
        raise UsageError(f"--bitrate {options.bitrate:g}: want a number above 0")
    jobs = mirrored(
        options.input, options.output, lambda path: path.suffix.lower() == ".bin", lambda name: name
    )
    each(jobs, lambda source, target: _truncate_file(source, target, options))


def _truncate_file(source: str, target: str, options: argparse.Namespace) -> None:
    if is_done(source, target, options):
        return
    with piping(source) as file:
        if isinstance(file, Pipe):
            file.forget()
        data = cast(BinaryIO, file).read()
    start = time.perf_counter()
    found = survey(io.BytesIO(data))
    size = options.codebook_size
    if size is None:
        size = within(found, options.bitrate * _bytes_per_rate(found.summary))
        if found.stops[size] > options.bitrate * _bytes_per_rate(found.summary):
            log.warning("even its base, K = %d, is above --bitrate %g", size, options.bitrate)
    try:
        shorter = cut(data, found, size)
    except ValueError as error:
        raise MediaError(str(error)) from None
    report: dict[str, Any] = {
        "codebook_size": size,
        "bytes_in": len(data),
        "bytes_out": len(shorter),
        "elapsed_s": time.perf_counter() - start,
        "input": source,
        "output": target,
    }
    if found.damage is not None:
        log.warning("layers were left out, for they are damaged: %s", found.damage)
    with writing(target, options.force) as out:
        out.write(shorter)
    if options.quiet:
        return
    stream = sys.stderr if target == STDIO else sys.stdout
    if options.json:
        print_line(json.dumps(report), stream)
    else:
        print_line(f"{source}: {len(data)} -> {len(shorter)} bytes, K = {size}", stream)


def _bytes_per_rate(summary: Summary) -> float:
    """Bytes of a file at a rate of 1, in its medium's unit."""
    medium = summary.header.kind
    return medium.units(summary.header, summary.num_samples) * medium.rate_bits / 8
