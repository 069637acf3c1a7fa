"""python -m eval.demo: a real recording and a real photograph, there and back.

They go through the commands.

Both come out of the wheels of packages that the demo app needs anyway: a recording from gradio's, a
photograph from scikit-image's.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from codec.cli.frame import Parser, filled_path
from codec.media import load_audio, load_image
from codec.medium import SAMPLE_RATE
from codec.streams import process

try:
    from eval.metrics import score
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed; pip install 'codec[eval]'")

SAMPLES = {
    "speech": ("gradio", "media_assets/audio/cate_blanch.mp3"),
    "image": ("skimage", "data/astronaut.png"),
}


def sample(medium: str) -> Path:
    """Finds the file of a bundled sample, without importing its package."""
    package, inside = SAMPLES[medium]
    spec = find_spec(package)
    path = Path(spec.origin).parent / inside if spec and spec.origin else Path(inside)
    if not path.is_file():
        raise FileNotFoundError(f"{package} has no {inside} here; install codec[app]")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m eval.demo", description=__doc__, epilog="See docs/start.md")
    parser.add_argument("--out", type=filled_path, default=Path("demo-out"))
    parser.add_argument("-k", "--codebook-size", default="1024")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        _there_and_back(options.out, options.codebook_size)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _there_and_back(out: Path, codebook_size: str) -> None:
    for medium, suffix in (("speech", "wav"), ("image", "png")):
        source = sample(medium)
        compressed = out / f"{source.stem}.bin"
        restored = out / f"{source.stem}.{suffix}"
        for command, start, end in (
            ("compress", source, compressed),
            ("decompress", compressed, restored),
        ):
            extra = ["-k", codebook_size] if command == "compress" else []
            subprocess.run(
                [sys.executable, "-m", f"codec.{command}", str(start), str(end), "--force", *extra],
                check=True,
            )
        if medium == "speech":
            x, x_hat = (
                load_audio(path.open("rb"), SAMPLE_RATE)[0].mean(1) for path in (source, restored)
            )
        else:
            x, x_hat = (load_image(path.open("rb")) for path in (source, restored))
        quality = ", ".join(
            f"{name} {value:.3f}"
            for name, value in score(medium, x, x_hat).items()
            if value is not None
        )
        print(f"{quality}\n{source} -> {compressed} -> {restored}\n")


if __name__ == "__main__":
    sys.exit(process(main))
