"""python -m eval.coder_bench [MODEL...] --root DIR: what the entropy coder is worth.

It is worth bits, and costs seconds.

Every figure of one line is of the same indices, in one run: whole files, their payload, the ideal
of a static table of the test set itself (H0), a static order-1 model, and what xz and zstd make of
the indices of all files together. "over fixed" is the most bytes that a chunk took above its
indices at ceil(log2 K) bits, among these and as many of indices that are noise, which no coder can
shorten: the price of the choice of a coder.
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

import numpy as np

from codec import cards, coding
from codec.cli.frame import Parser, UsageError, filled, print_text, run
from codec.container import Reader, scan
from codec.entropy import NO_TABLES, Tables, decode_indices, encode_indices
from codec.errors import MediaError
from codec.files import temporary_folder
from codec.streams import process
from eval import coder_table
from eval.coder_table import Contents, Record, Table, compressed, items_of

# How much the order-1 model trusts order 0, as a number of occurrences; the best one is shown.
PSEUDO_COUNTS = (3, 10, 30, 100, 300, 1000)
REPEATS = 5
COLUMNS = {  # of the record: title, decimals
    "model": ("model", ""),
    "test_set": ("test set", ""),
    "codebook_size": ("K", "d"),
    "log2_codes": ("log2 K", ".2f"),
    "order_0": ("H0", ".2f"),
    "order_1": ("order 1", ".2f"),
    "xz": ("xz", ".2f"),
    "zstd": ("zstd -19", ".2f"),
    "fixed": ("fixed width", ".2f"),
    "static": ("static table", ".2f"),
    "coded": ("coded", ".2f"),
    "whole": ("whole file", ".2f"),
    "coded_share": ("coded / log2 K", ".2f"),
    "whole_share": ("whole / log2 K", ".2f"),
    "over_fixed": ("over fixed, bytes", "+d"),
    "encode": ("encode Mtok/s", ".2f"),
    "decode": ("decode Mtok/s", ".2f"),
    "share": ("share of compress", ".1%"),
}
FIRST_USE = (
    "import time; start = time.perf_counter(); from codec.entropy import mixing; mixing._coder(); "
    "import numpy as np\n"
    "from codec import cards, coding; from codec.entropy import encode_indices\n"
    "card = cards.find({model!r}); prior = coding.tables_of(card.read(), {size})\n"
    "start = time.perf_counter()\n"
    "encode_indices(np.zeros((1, 9), np.int64), card.num_codes[{size}], prior, 64)\n"
    "print(time.perf_counter() - start)"
)


def streams(
    files: list[bytes], model: coding.Model
) -> tuple[list[np.ndarray], list[int], list[np.ndarray]]:
    """Returns what the coder is given.

    These are the (1, n) indices of each chunk, the width of its picture, and the indices of each
    file.
    """
    chunks, widths, rows = [], [], []
    for data in files:
        reader = Reader(io.BytesIO(data))
        parts = [
            stream
            for chunk in reader.chunks(coding.tables_for(reader.header, model))
            for stream in chunk
        ]
        chunks += parts
        widths += [reader.header.width] * len(parts)
        rows.append(np.concatenate([part[0] for part in parts]))
    return chunks, widths, rows


def order_0(rows: list[np.ndarray], num_codes: int) -> float:
    """Returns the bits per index of the best static table, which is that of the rows themselves."""
    counts = np.bincount(np.concatenate(rows), minlength=num_codes)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def order_1(rows: list[np.ndarray], num_codes: int) -> float:
    """Returns the bits per index of a model of order 1, p(index | the one before).

    It is counted on one half of the files and measured on the other, then the other way round; NaN
    for a single file, which has no other half.
    """
    if len(rows) < 2:
        return float("nan")
    totals = np.zeros(len(PSEUDO_COUNTS))
    for fold in (0, 1):
        seen = [row for number, row in enumerate(rows) if number % 2 != fold]
        new = [row for number, row in enumerate(rows) if number % 2 == fold]
        zero = np.bincount(np.concatenate(seen), minlength=num_codes) + 1.0
        zero /= zero.sum()
        pairs, counts = np.unique(
            np.concatenate([r[:-1] * num_codes + r[1:] for r in seen]), return_counts=True
        )
        before = np.bincount(np.concatenate([r[:-1] for r in seen]), minlength=num_codes)
        for row in new:
            key = row[:-1] * num_codes + row[1:]
            at = np.minimum(np.searchsorted(pairs, key), len(pairs) - 1)
            count = np.where(pairs[at] == key, counts[at], 0)
            totals -= np.log2(zero[row[0]])
            for number, pseudo in enumerate(PSEUDO_COUNTS):
                totals[number] -= np.log2(
                    (count + pseudo * zero[row[1:]]) / (before[row[:-1]] + pseudo)
                ).sum()
    return float(totals.min()) / sum(map(len, rows))


def packed_by(command: list[str] | None, data: bytes) -> float:
    """Returns the bytes that a program makes of its input; NaN where it is not installed."""
    if command is None:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME, format=lzma.FORMAT_ALONE))
    if shutil.which(command[0]) is None:
        return float("nan")
    return len(subprocess.run(command, input=data, capture_output=True, check=True).stdout)


def best_of(work: Callable[[], object]) -> float:
    """Returns the shortest of several runs in CPU seconds, as other processes share the machine."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(items: Contents, model: coding.Model, size: int) -> Record:
    """Returns one row of the table as numbers; bits are per token."""
    num_codes, tables = model.card.num_codes[size], model.tables[size]
    start = time.process_time()
    files = compressed(items, model, size)
    elapsed_s = time.process_time() - start  # of this process, on all its threads
    chunks, widths, rows = streams(files, model)
    count = sum(map(len, rows))
    payload = sum(scan(io.BytesIO(data)).payload_bytes for data in files)
    flat = np.concatenate(rows).astype(np.uint8 if num_codes <= 256 else "<u2").tobytes()

    def encode(chunks: list[np.ndarray], tables: Tables = tables) -> list[bytes]:
        return [
            encode_indices(c, num_codes, tables, w) for c, w in zip(chunks, widths, strict=True)
        ]

    encoded, random = encode(chunks), np.random.default_rng(0)
    noise = [random.integers(0, num_codes, chunk.shape) for chunk in chunks]
    width_bits = (num_codes - 1).bit_length()
    over = [
        len(data) - -(-width_bits * chunk.size // 8)
        for data, chunk in zip(encoded + encode(noise), chunks + noise, strict=True)
    ]
    encode_s = best_of(lambda: encode(chunks))
    decode_s = best_of(
        lambda: [
            decode_indices(data, 1, chunk.shape[1], num_codes, tables, width)
            for data, chunk, width in zip(encoded, chunks, widths, strict=True)
        ]
    )
    sizes = {
        "xz": packed_by(None, flat),
        "zstd": packed_by(["zstd", "-19", "-c"], flat),
        "fixed": sum(map(len, encode(chunks, NO_TABLES))),
        "static": sum(map(len, encode(chunks, Tables(tables.frequencies)))),
        "coded": payload,
        "whole": sum(map(len, files)),
    }
    bits = {name: 8 * size_bytes / count for name, size_bytes in sizes.items()}
    whole = float(np.log2(num_codes))
    return bits | {
        "codebook_size": size,
        "tokens": count,
        "log2_codes": whole,
        "order_0": order_0(rows, num_codes),
        "order_1": order_1(rows, num_codes),
        "coded_share": bits["coded"] / whole,
        "whole_share": bits["whole"] / whole,
        "over_fixed": max(over),
        "encode": count / encode_s / 1e6,
        "decode": count / decode_s / 1e6,
        "share": encode_s / elapsed_s,
    }


def first_use(model: cards.Card, size: int) -> str:
    """Says how many seconds the first call costs, with numba's cache empty and with it filled."""
    script, seconds = FIRST_USE.format(model=str(model.path), size=size), []
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
        for _ in range(2):
            environment = os.environ | {"NUMBA_CACHE_DIR": folder}
            done = subprocess.run(
                [sys.executable, "-c", script], env=environment, capture_output=True, check=True
            )
            seconds.append(float(done.stdout))
    return f"first use: {seconds[0]:.1f} s to compile, once; {seconds[1]:.1f} s in later processes"


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m eval.coder_bench", description=__doc__, epilog="See docs/coder.md"
    )
    coder_table.add_arguments(parser, "a shipped model or a card's path; default: all")
    parser.add_argument(
        "-k",
        "--codebook-size",
        type=filled,
        metavar="K,...",
        help="default: all that a model offers",
    )
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    sets = coder_table.test_sets(options)
    table = Table(COLUMNS)
    for model in coder_table.models(options):
        sizes = _sizes(model, options.codebook_size)
        for test_set in sets:
            items = items_of(test_set, model.card.medium)
            for size in sizes if items else ():
                table.add(model, test_set, items, measure(items, model, size))
    if not table.records:
        raise MediaError("no model for the media of these sets; name others by --data")
    last = first_use(model.card, model.codec.bottleneck.default_size)
    print_text(last)
    if options.out:
        table.save(options.out, first_use=last)


def _sizes(model: coding.Model, chosen: str | None) -> list[int]:
    """The codebook sizes to measure a model at."""
    bottleneck = model.codec.bottleneck
    if not chosen:
        return list(bottleneck.codebook_sizes)
    try:
        return [bottleneck.check_size(int(size)) for size in chosen.split(",")]
    except ValueError as error:
        raise UsageError(f"{model.card.name}: --codebook-size {chosen}: {error}") from None


if __name__ == "__main__":
    sys.exit(process(main))
