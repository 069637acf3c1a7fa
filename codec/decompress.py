"""python -m codec.decompress; the command is in codec.commands.

Nothing imports this file, or a module would take the place of the function of that name.
"""

import sys

from codec.commands import decompress_main

if __name__ == "__main__":
    sys.exit(decompress_main())
