"""python -m eval.coder_bench MODEL... --data PATH: what the entropy coder is worth, in bits and in seconds.

Every figure of one line is of the same indices, in one run: whole files, their payload, the ideal of a static table of
the test set itself (H0), a static order-1 model, and what xz and zstd make of the indices of all files together.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from codec import cards, coding
from codec.bitstream import Reader, scan
from codec.entropy import Tables, decode_indices, encode_indices
from codec.errors import CodecError
from codec.files import walk
from codec.media import load_image

PSEUDO_COUNTS = (3, 10, 30, 100, 300, 1000)  # of the order-1 model's fallback to order 0; the best one is shown
REPEATS = 5
COLUMNS = (
    "model", "K", "log2 K", "H0", "order 1", "xz", "zstd -19", "fixed width", "static table", "coded", "whole file",
    "whole / log2 K", "encode Mtok/s", "decode Mtok/s", "share of compress",
)  # fmt: skip
FIRST_USE = (
    "import time; start = time.perf_counter(); from codec.entropy import mixing; mixing._coder(); import numpy as np\n"
    "from codec import cards, coding; from codec.entropy import encode_indices\n"
    "card = cards.find({model!r}); prior = coding._tables(card.read(), {size}); start = time.perf_counter()\n"
    "encode_indices(np.zeros((1, 9), np.int64), card.num_codes[{size}], prior, 64)\n"
    "print(time.perf_counter() - start)"
)


def compressed(items: list[bytes], model: coding.Model, size: int) -> tuple[list[bytes], float]:
    """Each item's bitstream, and the seconds that all took."""
    files, start = [], time.perf_counter()
    for content in tqdm(items, desc=f"{model.card.name} K={size}", disable=None):
        out = io.BytesIO()
        if model.card.medium == "image":
            coding.compress_image(load_image(io.BytesIO(content)), out, model, size)
        else:
            coding.compress_speech(*coding.open_speech(io.BytesIO(content), False), out, model, size)
        files.append(out.getvalue())
    return files, time.perf_counter() - start


def order_1(rows: list[np.ndarray], num_codes: int) -> float:
    """Bits per index of p(index | the one before), counted on one half of the files and measured on the other."""
    totals = np.zeros(len(PSEUDO_COUNTS))
    for fold in (0, 1):
        seen = [row for number, row in enumerate(rows) if number % 2 != fold]
        new = [row for number, row in enumerate(rows) if number % 2 == fold]
        zero = np.bincount(np.concatenate(seen), minlength=num_codes) + 1.0
        zero /= zero.sum()
        pairs, counts = np.unique(np.concatenate([r[:-1] * num_codes + r[1:] for r in seen]), return_counts=True)
        before = np.bincount(np.concatenate([r[:-1] for r in seen]), minlength=num_codes)
        for row in new:
            key = row[:-1] * num_codes + row[1:]
            at = np.minimum(np.searchsorted(pairs, key), len(pairs) - 1)
            count = np.where(pairs[at] == key, counts[at], 0)
            totals -= np.log2(zero[row[0]])
            for number, pseudo in enumerate(PSEUDO_COUNTS):
                totals[number] -= np.log2((count + pseudo * zero[row[1:]]) / (before[row[:-1]] + pseudo)).sum()
    return float(totals.min()) / sum(map(len, rows))


def packed_by(command: list[str] | None, data: bytes) -> float:
    """Bytes of what a program makes of its input; not a number where it is not installed."""
    if command is None:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME, format=lzma.FORMAT_ALONE))
    if shutil.which(command[0]) is None:
        return float("nan")
    return len(subprocess.run(command, input=data, capture_output=True, check=True).stdout)


def best_of(work: Callable[[], object]) -> float:
    """The shortest of several runs, in seconds of this process: other processes share the machine."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(items: list[bytes], model: coding.Model, size: int) -> list[str]:
    """One row of the table."""
    num_codes, tables = model.card.num_codes[size], model.tables[size]
    files, elapsed_s = compressed(items, model, size)
    chunks, widths, rows = [], [], []
    for data in files:
        reader = Reader(io.BytesIO(data))
        parts = [stream for chunk in reader.chunks(coding.tables_for(reader.header, model)) for stream in chunk]
        chunks += parts
        widths += [reader.header.width] * len(parts)
        rows.append(np.concatenate([part[0] for part in parts]))
    count = sum(map(len, rows))
    payload = sum(scan(io.BytesIO(data)).payload_bytes for data in files)
    p = np.bincount(np.concatenate(rows), minlength=num_codes) / count
    p = p[p > 0]
    flat = np.concatenate(rows).astype(np.uint8 if num_codes <= 256 else "<u2").tobytes()
    fixed = sum(len(encode_indices(chunk, num_codes)) for chunk in chunks)
    static = sum(len(encode_indices(chunk, num_codes, Tables(tables.frequencies))) for chunk in chunks)

    def encode() -> list[bytes]:
        return [encode_indices(c, num_codes, tables, w) for c, w in zip(chunks, widths, strict=True)]

    encoded = encode()
    encode_s = best_of(encode)
    decode_s = best_of(
        lambda: [
            decode_indices(data, 1, chunk.shape[1], num_codes, tables, width)
            for data, chunk, width in zip(encoded, chunks, widths, strict=True)
        ]
    )
    bits = [
        np.log2(num_codes),
        -(p * np.log2(p)).sum(),
        order_1(rows, num_codes),
        *(8 * packed_by(command, flat) / count for command in (None, ["zstd", "-19", "-c"])),
        *(8 * size_bytes / count for size_bytes in (fixed, static, payload, sum(map(len, files)))),
    ]
    speed = [count / encode_s / 1e6, count / decode_s / 1e6]
    cells = [f"{value:.2f}" for value in [*bits, bits[-1] / bits[0], *speed]]
    return [model.card.name, str(size), *cells, f"{encode_s / elapsed_s:.1%}"]


def first_use(model: cards.Card, size: int) -> str:
    """Seconds that the first call costs: with nothing in numba's cache, then with it filled."""
    script, seconds = FIRST_USE.format(model=str(model.path), size=size), []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            environment = os.environ | {"NUMBA_CACHE_DIR": folder}
            done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
            seconds.append(float(done.stdout))
    return f"first use: {seconds[0]:.1f} s to compile, once; {seconds[1]:.1f} s in later processes"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.coder_bench", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a shipped model, or the path of a card")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH")
    parser.add_argument("-k", "--codebook-size", metavar="K,...", help="default: all that a model offers")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N items")
    options = parser.parse_args(arguments)
    try:
        items = [content for _, content in walk(options.data)][: options.first]
        print(f"| {' | '.join(COLUMNS)} |\n| {' | '.join(['---'] * len(COLUMNS))} |", flush=True)
        for name in options.models:
            model = coding.load(cards.find(name))
            chosen = options.codebook_size
            for size in map(int, chosen.split(",")) if chosen else model.codec.bottleneck.codebook_sizes:
                print(f"| {' | '.join(measure(items, model, model.codec.bottleneck.check_size(size)))} |", flush=True)
        print(first_use(model.card, model.codec.bottleneck.default_size))
    except (CodecError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
