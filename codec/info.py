"""python -m codec.info: see `codec.commands`. Nothing imports this file: `codec.info` is a function, too."""

import sys

from codec.commands import info_main

if __name__ == "__main__":
    sys.exit(info_main())
