"""python -m codec: lists the commands."""

import sys

from codec import __version__
from codec.cli.frame import fail
from codec.streams import process

TEXT = f"""codec {__version__}: speech and image compression with neural networks

  python -m codec.compress IN OUT      a recording or picture to a .bin; folders are mirrored
  python -m codec.decompress IN OUT    and back
  python -m codec.truncate IN OUT      a .bin with layers (compress --layers) to a smaller one
  python -m codec.info FILE            what a .bin holds, without a model
  python -m codec.bottlenecks          the discrete bottlenecks
  python -m codec.onnx MODEL           a model's encoder and decoder as ONNX files
  python -m train RECIPE ...           train a model
  python -m eval ...                   benchmark models
  python -m app                        hear and see what a codebook size means

Each takes --help, which names its page of the manual; docs/index.md lists the pages.
"""


def main() -> int:
    """Lists the commands, and does none of them: who asks for one is told its name."""
    wrong = [word for word in sys.argv[1:] if word not in ("-h", "--help", "--version")]
    if wrong:
        known = f"python -m codec.{wrong[0]} " in TEXT
        advice = (
            f"run python -m codec.{wrong[0]}" if known else "python -m codec lists the commands"
        )
        return fail(f"python -m codec {wrong[0]}: no such command; {advice}", 2)
    sys.stdout.write(TEXT)
    return 0


if __name__ == "__main__":
    sys.exit(process(main))
