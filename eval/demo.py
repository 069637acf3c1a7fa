"""python -m eval.demo: a real recording and a real photograph, there and back.

They go through the commands.

Both come out of the wheels of packages that the demo app needs anyway: a recording from gradio's, a
photograph from scikit-image's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from codec.cli.frame import Parser, filled_path, run
from codec.cli.options import add_care
from codec.errors import CodecError, MediaError, not_installed
from codec.medium import MEDIA
from codec.streams import process

try:
    from eval.metrics import score
    from eval.signals import SIGNALS
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval')}")

SAMPLES = {
    "speech": ("gradio", "media_assets/audio/cate_blanch.mp3"),
    "image": ("skimage", "data/astronaut.png"),
}


def sample(medium: str) -> Path:
    """Finds the file of a bundled sample, without importing its package.

    Raises:
        MediaError: The package is not installed, or holds no such file any more.
    """
    package, inside = SAMPLES[medium]
    spec = find_spec(package)
    path = Path(spec.origin).parent / inside if spec and spec.origin else Path(inside)
    if not path.is_file():
        raise MediaError(f"{path}: {not_installed(package, 'app')}")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m eval.demo", description=__doc__, epilog="See docs/start.md")
    parser.add_argument("--out", type=filled_path, default=Path("demo-out"))
    parser.add_argument("-k", "--codebook-size", default="1024")
    add_care(parser)
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    for medium in SAMPLES:
        source = sample(medium)
        compressed = out / f"{source.stem}.bin"
        restored = out / f"{source.stem}.{MEDIA[medium].default_suffix}"
        for command, start, end in (
            ("compress", source, compressed),
            ("decompress", compressed, restored),
        ):
            words = ["-m", f"codec.{command}", str(start), str(end), "--force"]
            if command == "compress":
                words += ["-k", options.codebook_size]
                words += [f"--effort={options.effort}", f"--search={options.search}"]
            if subprocess.run([sys.executable, *words], check=False).returncode:
                raise CodecError(f"codec.{command} failed on {start}; its error is above")
        kind = SIGNALS[medium]
        x, x_hat = (
            kind.compared(kind.read(path.read_bytes(), None, None)) for path in (source, restored)
        )
        quality = ", ".join(
            f"{name} {value:.3f}"
            for name, value in score(medium, x, x_hat).items()
            if value is not None
        )
        print(f"{quality}\n{source} -> {compressed} -> {restored}\n")


if __name__ == "__main__":
    sys.exit(process(main))
