"""python -m eval.layers [MODEL...] --root DIR: what layers cost, and how fast a file is cut.

Every item of a test set is compressed at each codebook size, and once with layers at the largest. Each prefix of the
layered file is compared with the file made at its size: in bytes, all items together, and index by index. "truncate" is
the speed of cutting to that size in memory, on one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from codec import api, cards, coding
from codec.cli.frame import Parser, filled_path, run
from codec.container import Header
from codec.errors import MediaError
from codec.files import writing
from codec.layers import cut, ladder, survey
from codec.media import Pixels, load_image
from codec.streams import process
from eval import datasets
from eval.bench.timing import machine
from eval.coder_bench import SETS, compressed, line, medium_of

COLUMNS = {  # of the record: title, format
    "model": ("model", ""),
    "test_set": ("test set", ""),
    "items": ("files", "d"),
    "codebook_size": ("K", "d"),
    "single": ("made at K, bytes", "d"),
    "layered": ("cut to K, bytes", "d"),
    "excess": ("more", "+.2%"),
    "payload_excess": ("of it indices", "+.2%"),
    "speed": ("truncate", ""),
}
REPEATS = 20


def layered_files(items: list[bytes | Pixels], model: coding.Model, size: int) -> list[bytes]:
    """Each item's file with layers."""
    files = []
    for content in tqdm(items, desc=f"{model.card.name} layers", disable=None):
        out = io.BytesIO()
        if model.card.medium == "image":
            pixels = load_image(io.BytesIO(content)) if isinstance(content, bytes) else content
            coding.compress_image(pixels, out, model, size, layers=True)
        elif isinstance(content, bytes):
            speech = coding.open_speech(io.BytesIO(content), False)
            coding.compress_speech(*speech, out, model, size, layers=True)
        files.append(out.getvalue())
    return files


def units(header: Header, num_samples: int) -> float:
    """Seconds of speech, or pixels."""
    return num_samples / header.sample_rate if header.medium == "speech" else float(header.width * header.height)


def measure(items: list[bytes | Pixels], model: coding.Model, size: int) -> list[dict[str, Any]]:
    """A row for each codebook size.

    Raises:
        RuntimeError: A prefix holds other indices than the file made at its size.
    """
    files, rows = layered_files(items, model, size), []
    for k in ladder(model.tables, size):
        singles = compressed(items, model, k)[0]
        whole = cut_bytes = payload = more = 0
        amount = seconds = 0.0
        for data, single in zip(files, singles, strict=True):
            start = time.perf_counter()
            for _ in range(REPEATS):
                shorter = cut(data, survey(io.BytesIO(data)), k)
            seconds += (time.perf_counter() - start) / REPEATS
            ours, theirs = coding.read_indices(shorter, model), coding.read_indices(single, model)
            if not np.array_equal(ours[1], theirs[1]):
                raise RuntimeError(f"{model.card.name}: what is cut to K = {k} is not what is made there")
            amount += units(ours[0], ours[2])
            whole, cut_bytes = whole + len(single), cut_bytes + len(shorter)
            found, other = survey(io.BytesIO(shorter)), survey(io.BytesIO(single))
            payload += other.summary.payload_bytes
            more += found.summary.payload_bytes + sum(layer.payload_bytes for layer in found.layers)
        speech = model.card.medium == "speech"
        rate = amount / seconds
        rows.append(
            {
                "codebook_size": k,
                "single": whole,
                "layered": cut_bytes,
                "excess": cut_bytes / whole - 1,
                "payload_excess": (more - payload) / whole,
                "units_per_second": rate,
                "speed": f"{rate:,.0f} x real time" if speech else f"{rate / 1e6:,.0f} MP/s",
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m eval.layers", epilog="See docs/coder.md", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="a model with layers; default: all that have them")
    parser.add_argument("--data", nargs="+", default=SETS, metavar="PATH|NAME", help="default: " + " ".join(SETS))
    parser.add_argument("--root", type=filled_path, metavar="DIR", help="where named sets lie")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N items of each set")
    parser.add_argument(
        "--out", type=filled_path, metavar="FILE", help="the figures as JSON, and the table beside it as .md"
    )
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    sets = [datasets.find(name, options.root) for name in options.data]
    titles = [title for title, _ in COLUMNS.values()]
    lines, records = [line(titles), line(["---"] * len(titles))], []
    print("\n".join(lines), flush=True)
    for name in options.models or api.models():
        model = coding.load(cards.find(name))
        top = max(model.tables, key=lambda size: (len(ladder(model.tables, size)), size))
        if len(ladder(model.tables, top)) < 2:
            if options.models:
                raise MediaError(f"{name} has no layers; name another model")
            continue
        for test_set in sets:
            contents = [item.read() for item in test_set.items[: options.first]]
            items = [content for content in contents if medium_of(content) == model.card.medium]
            for row in measure(items, model, top) if items else ():
                record = {"model": model.card.name, "test_set": test_set.name, "items": len(items)} | row
                records.append(record)
                lines.append(line(format(record[key], spec) for key, (_, spec) in COLUMNS.items()))
                print(lines[-1], flush=True)
    if not records:
        raise MediaError("no model with layers for the media of these sets; name others by --data")
    if options.out:
        record = {"machine": machine("cpu"), "rows": records}
        for path, text in (
            (options.out, json.dumps(record, indent=1)),
            (options.out.with_suffix(".md"), "\n".join(lines)),
        ):
            with writing(str(path), force=True) as file:
                file.write(f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(process(main))
