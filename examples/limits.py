"""What picture models are bad at, to look at: letters, thin lines, flat colours, a soft gradient.

    python examples/limits.py --out assets/pictures          # draws limits.webp

The picture is drawn here, coded at the smallest and the largest codebook size, and set side by
side.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import codec
from codec.errors import CodecError

SIDE = 320
WORDS = ("The quick brown fox", "jumps over the lazy dog", "0123456789")


def drawing() -> Image.Image:
    """SIDE x SIDE: letters of four heights, lines of four widths, flat discs, a gradient."""
    rows = np.linspace(245, 190, SIDE)
    image = Image.fromarray(
        np.repeat(np.repeat(rows[:, None, None], SIDE, 1), 3, 2).astype(np.uint8)
    )
    draw = ImageDraw.Draw(image)
    top = 6
    for size, text in zip((11, 16, 24, 36), (*WORDS, "Letters"), strict=True):
        draw.text((8, top), text, fill=(20, 20, 30), font=ImageFont.load_default(size))
        top += int(size * 1.45)
    for i, width in enumerate((1, 2, 4, 8)):
        draw.line((10 + 40 * i, 150, 90 + 40 * i, 230), fill=(160, 30, 30), width=width)
    for i, colour in enumerate(((220, 60, 50), (60, 140, 70), (50, 80, 190), (240, 190, 40))):
        draw.ellipse(
            (10 + 78 * i, 244, 74 + 78 * i, 308), fill=colour, outline=(20, 20, 20), width=2
        )
    return image


def coded(image: Image.Image, model: str, codebook_size: int) -> tuple[Image.Image, int]:
    """The picture after compressing and decompressing, and the bytes between."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = codec.compress(file.getvalue(), codebook_size, model)
    return Image.open(io.BytesIO(codec.decompress(data))), len(data)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--model", default="image-vp")
    options = parser.parse_args(arguments)
    original = drawing()
    shown = [("original", original)]
    for size in (256, 16384):
        try:
            image, count = coded(original, options.model, size)
        except (CodecError, ValueError) as error:  # no such model, or not at this size
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code if isinstance(error, CodecError) else 1
        shown.append((f"{options.model}, K = {size}: {count} bytes", image))
    sheet = Image.new("RGB", (3 * SIDE + 40, SIDE + 34), "white")
    for i, (label, image) in enumerate(shown):
        sheet.paste(image, (10 + i * (SIDE + 10), 26))
        ImageDraw.Draw(sheet).text(
            (10 + i * (SIDE + 10), 6), label, fill="black", font=ImageFont.load_default(14)
        )
    options.out.mkdir(parents=True, exist_ok=True)
    sheet.save(options.out / "limits.webp", quality=88)
    return 0


if __name__ == "__main__":
    sys.exit(main())
