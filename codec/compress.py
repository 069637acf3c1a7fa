"""python -m codec.compress; the command is in codec.cli.compress."""

import sys

from codec.command_module import CommandModule
from codec.streams import process


def main() -> int:
    """The command as a process, which may have been started with closed streams."""
    return process("codec.cli.compress:compress_main")


if __name__ == "__main__":
    sys.exit(main())
sys.modules[__name__].__class__ = CommandModule
