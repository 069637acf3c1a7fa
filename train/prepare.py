"""python -m train.prepare speech|image SOURCE... --out PATH: decodes media once, for training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codec.errors import CodecError
from train.data import prepare


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.prepare", description=__doc__)
    parser.add_argument("medium", choices=("speech", "image"))
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="folders, .tar files or media files")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="writes PATH.raw and PATH.json")
    options = parser.parse_args(arguments)
    try:
        prepare(options.medium, options.sources, options.out)
    except (CodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
