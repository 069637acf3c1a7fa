"""python -m eval.layers [MODEL...] --root DIR: what layers cost, and how fast a file is cut.

Every item of a test set is compressed at each codebook size, and once with layers at the largest.
Each prefix of the layered file is compared with the file made at its size: in bytes, all items
together, and index by index. "truncate" is the speed of cutting to that size in memory, on one
thread.
"""

from __future__ import annotations

import argparse
import io
import sys
import time

import numpy as np

from codec import coding
from codec.cli.frame import Parser, run
from codec.errors import MediaError, ModelError
from codec.layers import cut, ladder, survey
from codec.medium import MEDIA
from codec.streams import process
from eval import coder_table
from eval.coder_table import Contents, Record, Table, compressed, items_of

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


def measure(items: Contents, model: coding.Model, size: int) -> list[Record]:
    """Returns a row of the table for each codebook size.

    Raises:
        RuntimeError: A prefix holds other indices than the file made at its size.
    """
    files, rows = compressed(items, model, size, layers=True), []
    for k in ladder(model.tables, size):
        singles = compressed(items, model, k)
        whole = cut_bytes = payload = more = 0
        amount = seconds = 0.0
        for data, single in zip(files, singles, strict=True):
            start = time.perf_counter()
            for _ in range(REPEATS):
                shorter = cut(data, survey(io.BytesIO(data)), k)
            seconds += (time.perf_counter() - start) / REPEATS
            ours, theirs = coding.read_indices(shorter, model), coding.read_indices(single, model)
            if not np.array_equal(ours[1], theirs[1]):
                raise RuntimeError(
                    f"{model.card.name}: what is cut to K = {k} is not what is made there"
                )
            amount += ours[0].kind.units(ours[0], ours[2])
            whole, cut_bytes = whole + len(single), cut_bytes + len(shorter)
            found, other = survey(io.BytesIO(shorter)), survey(io.BytesIO(single))
            payload += other.summary.payload_bytes
            more += found.summary.payload_bytes + sum(layer.payload_bytes for layer in found.layers)
        medium, rate = MEDIA[model.card.medium], amount / seconds
        rows.append(
            {
                "codebook_size": k,
                "single": whole,
                "layered": cut_bytes,
                "excess": cut_bytes / whole - 1,
                "payload_excess": (more - payload) / whole,
                "units_per_second": rate,
                "speed": f"{rate / medium.pace_units:,.0f} {medium.pace_unit}",
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m eval.layers", epilog="See docs/coder.md", description=__doc__)
    coder_table.add_arguments(parser, "a model with layers; default: all that have them")
    return run(parser, arguments, _command)


def _top(model: coding.Model) -> int:
    """Returns the codebook size below which a file has the most layers."""
    return max(model.tables, key=lambda size: (len(ladder(model.tables, size)), size))


def _command(options: argparse.Namespace) -> None:
    sets = coder_table.test_sets(options)
    tops = [(model, _top(model)) for model in coder_table.models(options)]
    layered = [(model, top) for model, top in tops if len(ladder(model.tables, top)) > 1]
    if options.models and len(layered) < len(tops):
        flat = next(model for model, top in tops if len(ladder(model.tables, top)) < 2)
        raise ModelError(f"{flat.card.name} has no layers; name another model")
    table = Table(COLUMNS)
    for model, top in layered:
        for test_set in sets:
            items = items_of(test_set, model.card.medium)
            for row in measure(items, model, top) if items else ():
                table.add(model, test_set, items, row)
    if not table.records:
        raise MediaError("no model with layers for the media of these sets; name others by --data")
    if options.out:
        table.save(options.out)


if __name__ == "__main__":
    sys.exit(process(main))
