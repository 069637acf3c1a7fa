"""python -m codec.decompress; the command is in codec.cli.decompress."""

import sys

from codec.command_module import CommandModule
from codec.streams import process


def main() -> int:
    """The command as a process, which may have been started with closed streams."""
    return process("codec.cli.decompress:decompress_main")


if __name__ == "__main__":
    sys.exit(main())
sys.modules[__name__].__class__ = CommandModule
