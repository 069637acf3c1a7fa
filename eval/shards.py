"""Shards of a bulk job, and the worker that finishes them.

a shard's items ─each item─> OUT/staging/SHARD/ITEM.json ──whole shard──> OUT/part-N.parquet
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codec import cards
from codec.errors import CodecError, MediaError
from codec.files import blaming, writing
from codec.quiet import heard
from eval import lpips_metric
from eval.datasets import Item, load_signal
from eval.journal import Record
from eval.lpips_metric import Backbone
from eval.metrics import METRICS, Metric, measure
from eval.paths import flat_name
from eval.signals import SIGNALS, Signal
from eval.systems import ModelSystem, load_models


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know of the work.

    Attributes:
        model: The model's name, the path of its card, and the one codebook size.
        items: For each item the name of its set, itself, and the crop; in order.
        out: The output folder.
        shard: The number of items in one Parquet file.
        keep: What the indices are kept in, "parquet" or "bin".
        score: Whether files are decoded and measured.
        lpips: The backbones that LPIPS is computed with.
        effort: As in `codec.compress`.
        search: Likewise.
    """

    model: tuple[str, str, tuple[int, ...]]
    items: tuple[tuple[str, Item, int | None], ...]
    out: Path
    shard: int
    keep: str
    score: bool
    lpips: tuple[Backbone, ...] = ()
    effort: int = 0
    search: int = 0

    @property
    def num_shards(self) -> int:
        return -(-len(self.items) // self.shard)

    def part(self, number: int) -> Path:
        """Returns the path of a shard's Parquet file."""
        return self.out / f"part-{number:05d}.parquet"

    def fingerprint(self) -> Record:
        """Describes what another run into the same folder must share.

        Of files it goes by their time stamps, as reading them all would take too long.
        """
        name, path, (size,) = self.model
        listing = json.dumps(
            [[one, item.name, item.size, item.changed_ns, crop] for one, item, crop in self.items]
        ).encode()
        found: Record = {
            "model": [name, cards.find(path).model_id.hex(), size],
            "items": [len(self.items), hashlib.sha256(listing).hexdigest()],
            "shard": self.shard,
            "format": self.keep,
            "score": self.score,
            "lpips": [backbone.fingerprint for backbone in self.lpips],
        }
        care = {"effort": self.effort, "search": self.search}
        return found | {name: value for name, value in care.items() if value}


class ShardWorker:
    """Finishes shards; one in each process, with the model loaded once."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(1)
        self._job = job
        self._system: ModelSystem = load_models([job.model], job.effort, job.search)[0]
        self._metrics: dict[str, Metric] = {}
        if job.score:
            self._metrics |= METRICS[self._system.medium]
            self._metrics |= lpips_metric.metrics(self._system.medium, job.lpips)
        self._log = job.out / "log" / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self._log.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, row: Record) -> Record:
        """Does what is left of a shard, {"shard": number}; returns the counts of its items."""
        job, number = self._job, int(row["shard"])
        first = number * job.shard
        mine = job.items[first : first + job.shard]
        if not job.part(number).is_file():
            staging = job.out / "staging" / f"{number:05d}"
            staging.mkdir(parents=True, exist_ok=True)
            rows = [self._item(staging, *work) for work in mine]
            self._write(number, rows)
            shutil.rmtree(staging, ignore_errors=True)
        return {"shard": number, "items": len(mine)}

    def _item(self, staging: Path, set_name: str, item: Item, crop: int | None) -> Record:
        """Returns the row of an item, computed now or as an earlier worker left it."""
        done = staging / f"{flat_name(f'{set_name}/{item.name}')}.json"
        # No sync of what is soon deleted: a row that a power failure has torn is no JSON, and is
        # computed again.
        with contextlib.suppress(FileNotFoundError, ValueError):
            row: Record = json.loads(done.read_text(encoding="utf-8"))
            return row
        row = self._compute(set_name, item, crop)
        with blaming(str(done)):
            done.write_text(json.dumps(row), encoding="utf-8")
        line = json.dumps({"set": set_name, "item": item.name, "time": time.time()})
        with blaming(str(self._log)), self._log.open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        return row

    def _compute(self, set_name: str, item: Item, crop: int | None) -> Record:
        name, _, (size,) = self._job.model
        row: Record = {
            "set": set_name,
            "item": item.name,
            "model": name,
            "model_id": self._system.model.card.model_id.hex(),
            "codebook_size": size,
            "num_codes": self._system.num_codes,
            "skipped": None,
        }
        try:
            with heard() as notices:
                medium, signal = load_signal(item, crop)
            if medium != self._system.medium:
                raise MediaError(f"{medium}, which {name} does not code")
        except (CodecError, OSError) as error:
            return row | {"skipped": _line(error)}
        row["notices"] = notices
        try:
            data, found = self._coded(medium, signal)
        except OSError:  # a full disk is no fault of this item
            raise
        except Exception as error:  # whatever it is, it does not end a night's work
            return row | {"skipped": _line(error)}
        if self._job.keep == "bin":
            target = self._job.out / "files" / flat_name(set_name) / f"{flat_name(item.name)}.bin"
            with writing(str(target), force=True) as file:
                file.write(data)
        return row | found

    def _coded(self, medium: str, signal: Signal) -> tuple[bytes, Record]:
        """Returns the file of an item, and what its row says of it."""
        data = self._system.compress(signal)
        found = {
            "signal": list(signal.shape),
            "bytes": len(data),
            "payload_bytes": self._system.payload(data),
        }
        if self._job.keep == "parquet":
            indices = self._system.indices(data)
            assert indices is not None
            found |= {"indices": indices.ravel().tolist(), "shape": list(indices.shape)}
        if self._metrics:
            decoded = self._system.decompress(data, len(signal))
            pair = [SIGNALS[medium].compared(one) for one in (signal, decoded)]
            found |= {name: measure(metric, *pair)[0] for name, metric in self._metrics.items()}
        return data, found

    def _write(self, number: int, rows: list[Record]) -> None:
        fields = {
            "set": pa.string(),
            "item": pa.string(),
            "model": pa.string(),
            "model_id": pa.string(),
            "codebook_size": pa.int64(),
            "num_codes": pa.int64(),
            "skipped": pa.string(),
            "notices": pa.list_(pa.string()),
            "signal": pa.list_(pa.int64()),
            "bytes": pa.int64(),
            "payload_bytes": pa.int64(),
            **dict.fromkeys(self._metrics, pa.float64()),
        }
        if self._job.keep == "parquet":
            fields |= {"shape": pa.list_(pa.int64()), "indices": pa.list_(pa.int32())}
        whole = [{name: row.get(name) for name in fields} for row in rows]
        table = pa.Table.from_pylist(whole, schema=pa.schema(list(fields.items())))
        with writing(str(self._job.part(number)), force=True) as file:
            pq.write_table(table, file, compression="zstd")


def _line(error: Exception) -> str:
    """Puts an error into one line; one that is not this project's says its class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CodecError | OSError) else f"{type(error).__name__}: {text}"
