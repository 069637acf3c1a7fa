"""python -m codec.compress; the command is in codec.cli.compress.

No other module imports this file, or it would take the place of the function of that name.
"""

import sys

from codec.streams import process


def main() -> int:
    """The command as a process, which may have been started with closed streams."""
    return process("codec.cli.compress:compress_main")


if __name__ == "__main__":
    sys.exit(main())
