"""python -m codec.truncate; the command is in codec.truncation."""

import sys

from codec.truncation import truncate_main

if __name__ == "__main__":
    sys.exit(truncate_main())
