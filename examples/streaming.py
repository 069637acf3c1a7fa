"""Streaming: a recording is coded while it comes in, and decoded while it is coded.

    python examples/streaming.py input.wav out.bin restored.wav

`microphone` stands for whatever gives samples bit by bit. The encoder takes any iterable of blocks
and writes a chunk of the file as soon as it has enough samples for one; the decoder gives blocks as
soon as it has read enough chunks. Memory does not grow with the length. What comes out is what
whole files give, bit for bit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

import codec
from codec.coding import compress_speech, decompress_speech
from codec.container import Reader
from codec.errors import CodecError

BLOCK_SECONDS = 0.02


def microphone(path: Path) -> Iterator[NDArray[np.float32]]:
    """(n, C) blocks of 20 ms, as a sound card would hand them over."""
    with soundfile.SoundFile(path) as file:
        while len(
            block := file.read(
                int(BLOCK_SECONDS * file.samplerate), dtype="float32", always_2d=True
            )
        ):
            yield block


def encode(source: Path, target: Path, codebook_size: int) -> None:
    """Codes a recording block by block."""
    about = soundfile.info(source)
    model = codec.load(medium="speech")
    model.codec.bottleneck.num_codes(codebook_size)  # a size that it lacks leaves no empty file
    with target.open("wb") as file:  # a pipe or a socket does as well: nothing seeks
        written = compress_speech(
            microphone(source), about.samplerate, about.channels, file, model, codebook_size
        )
    print(f"{written.units:.1f} s -> {written.total_bytes} bytes")


def decode(source: Path, target: Path) -> None:
    """Decodes a file block by block, each a good ten seconds long or the rest."""
    model = codec.load(medium="speech")
    with source.open("rb") as file:
        reader = Reader(file)
        with soundfile.SoundFile(
            target, "w", reader.header.sample_rate, reader.header.channels
        ) as out:
            for block in decompress_speech(reader, model):
                out.write(block)  # or to a sound card
                print(f"decoded {len(block) / reader.header.sample_rate:.1f} s")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="a recording that stands for the microphone")
    parser.add_argument("coded", type=Path)
    parser.add_argument("restored", type=Path)
    parser.add_argument("-k", "--codebook-size", type=int, default=1024)
    options = parser.parse_args(arguments)
    try:
        encode(options.input, options.coded, options.codebook_size)
        decode(options.coded, options.restored)
    except (CodecError, OSError, ValueError, soundfile.SoundFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
