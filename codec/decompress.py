"""python -m codec.decompress: see `codec.commands`. Nothing imports this file: `codec.decompress` is a function, too."""

import sys

from codec.commands import decompress_main

if __name__ == "__main__":
    sys.exit(decompress_main())
