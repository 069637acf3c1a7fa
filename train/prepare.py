"""python -m train.prepare speech|image SOURCE... --out PATH: decodes media once, for training."""

from __future__ import annotations

import os
import sys

from codec.cli.frame import Parser, filled_path
from codec.errors import CodecError
from codec.medium import MEDIA
from codec.streams import process
from train.data import prepare


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.prepare", description=__doc__, epilog="See docs/train.md")
    parser.add_argument("medium", choices=tuple(MEDIA))
    parser.add_argument(
        "sources", nargs="+", type=filled_path, metavar="SOURCE", help="folders, tars, zips, media files or data sets"
    )
    parser.add_argument("--out", type=filled_path, required=True, metavar="PATH", help="writes PATH.raw and PATH.json")
    parser.add_argument(
        "--short-side", type=int, metavar="PIXELS", help="scales pictures down to this shorter side (default: as is)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads that decode")
    options = parser.parse_args(arguments)
    if options.workers < 1 or (options.short_side is not None and options.short_side < 1):
        parser.error("--workers and --short-side must be at least 1")
    try:
        prepare(options.medium, options.sources, options.out, options.short_side, options.workers)
    except (CodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(process(main))
