"""python -m train.prepare speech|image SOURCE... --out PATH: decodes media once, for training."""

from __future__ import annotations

import argparse
import os
import sys

from codec.cli.frame import Parser, UsageError, filled_path, run
from codec.medium import MEDIA, SAMPLE_RATE
from codec.streams import process
from train.data import counted, prepare


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.prepare", description=__doc__, epilog="See docs/train.md")
    parser.add_argument("medium", choices=tuple(MEDIA))
    parser.add_argument(
        "sources",
        nargs="+",
        type=filled_path,
        metavar="SOURCE",
        help="folders, tars, zips, media files or data sets",
    )
    parser.add_argument(
        "--out",
        type=filled_path,
        required=True,
        metavar="PATH",
        help="writes PATH.raw and PATH.json",
    )
    parser.add_argument(
        "--short-side",
        type=int,
        metavar="PIXELS",
        help="scales pictures down to this shorter side (default: as is)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="threads that decode (default: %(default)s, the cores here)",
    )
    return run(parser, arguments, _command, "interrupted; nothing was written")


def _command(options: argparse.Namespace) -> None:
    if options.workers < 1 or (options.short_side is not None and options.short_side < 1):
        raise UsageError("--workers and --short-side must be at least 1")
    if options.short_side is not None and MEDIA[options.medium].timed:
        raise UsageError(f"--short-side is of pictures; leave it out of {options.medium}")
    made = prepare(
        options.medium, options.sources, options.out, options.short_side, options.workers
    )
    medium = MEDIA[options.medium]
    amount = (
        f"{made.amount / SAMPLE_RATE / 60:.1f} minutes"
        if medium.timed
        else f"{made.amount / 1e6:.1f} megapixels"
    )
    skipped = f", {made.skipped} skipped" if made.skipped else ""
    print(
        f"{options.out}: {counted(made.items, medium.name)}, {amount}{skipped}; "
        f"next: python -m train RECIPE --data {options.out} --out RUN"
    )


if __name__ == "__main__":
    sys.exit(process(main))
