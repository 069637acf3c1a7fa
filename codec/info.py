"""python -m codec.info; the command is in codec.commands."""

import sys

from codec.commands import info_main

if __name__ == "__main__":
    sys.exit(info_main())
