"""python -m codec.decompress; the command is in codec.commands.

Nothing imports this file, or a module would take the place of the function of that name.
"""

import sys

try:
    from codec.commands import decompress_main
except KeyboardInterrupt:  # Ctrl-C while the imports run
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(decompress_main())
