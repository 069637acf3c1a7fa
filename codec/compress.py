"""python -m codec.compress: see `codec.commands`. Nothing imports this file: `codec.compress` is a function, too."""

import sys

from codec.commands import compress_main

if __name__ == "__main__":
    sys.exit(compress_main())
