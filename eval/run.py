"""A run: every item through every system of its medium, into a folder, resumable at any point.

    TestSet ─> Worker.measure(item) ─> line ─> OUT/journal.jsonl ─summary─> OUT/results.json, OUT/timing.json
                    └─> OUT/files/SYSTEM/SETTING/SET/ITEM                └─> OUT/report.md and pictures
                    └─> OUT/samples/SET/ITEM/SYSTEM SETTING.png|flac, of the first few items

A line of the journal is all that is known of one item. A killed run leaves at most one torn line, which the next run
drops; the items of whole lines are never measured again. What depends on the machine's speed stands in timing.json, so
that results.json depends on the plan alone and is the same, byte for byte, however often a run was stopped.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import multiprocessing
import os
import resource
import signal as signals
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from codec import __version__, cards
from codec.errors import CodecError, MediaError
from codec.files import writing
from codec.media import AudioWriter, save_image
from eval.baselines import BASELINES, SAMPLE_RATE, match_bytes
from eval.datasets import Item, TestSet, load_signal
from eval.lpips_metric import Source
from eval.metrics import METRICS, MORE_METRICS, Metric, measure
from eval.mos import NAME as MOS
from eval.mos import DistillMOS
from eval.systems import BaselineSystem, ModelSystem, NeighbourSystem, System, check_shape, load_models, load_neighbour
from eval.trained import lpips_weight

FORMAT = 1
MAX_NAME = 150  # bytes of a file's name; longer ones end in a hash
PACKAGES = (
    "av", "distillmos", "lpips", "numpy", "pesq", "pillow", "pillow-jxl-plugin", "pycodec2", "pystoi", "pytorch-msssim",
    "scikit-image", "ssimulacra2", "torch", "torchaudio", "torchmetrics",
)  # fmt: skip
IN_FLIGHT = 2  # items a worker has waiting
SAMPLES = 4  # items of each set that are kept to look at and listen to

Record = dict[str, Any]
Job = tuple[TestSet, Item, bool]  # what Worker.measure takes; of the set all but its items


@dataclass(frozen=True)
class Plan:
    """What a run measures; picklable, and all that results depend on beside the items.

    Attributes:
        models: (name, path of the card, codebook sizes).
        baselines: Names of classic codecs.
        curves: Whether baselines are measured along their curves.
        match: Whether, for each model and size, they are measured at the setting nearest in bytes.
        neighbours: Words for `load_neighbour`.
        lpips: Backbones.
        quick: Only the two metrics of every table.
        mos: Whether speech is scored by DistillMOS, too.
    """

    models: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    baselines: tuple[str, ...] = ()
    curves: bool = True
    match: bool = False
    neighbours: tuple[str, ...] = ()
    lpips: tuple[Source, ...] = ()
    quick: bool = False
    mos: bool = False

    def fingerprint(self) -> Record:
        """The plan by content: models and backbones by hash, packages by version."""
        known = asdict(self)
        found = {name: cards.find(path) for name, path, _ in self.models}
        known["models"] = [[name, found[name].model_id.hex(), list(sizes)] for name, _, sizes in self.models]
        known["lpips_weight"] = {name: lpips_weight(card) for name, card in found.items() if card.medium == "image"}
        known["lpips"] = [[s.net, hashlib.sha256(Path(s.path).read_bytes()).hexdigest()] for s in self.lpips]
        packages = {"codec": __version__}
        for name in PACKAGES:
            try:
                packages[name] = version(name)
            except PackageNotFoundError:
                continue
        return json.loads(json.dumps(known | {"format": FORMAT, "packages": packages}))

    def metrics(self, medium: str) -> dict[str, Metric]:
        """Name -> metric, without LPIPS and DistillMOS, whose nets a worker loads."""
        return METRICS[medium] | ({} if self.quick else MORE_METRICS[medium])


# ------------------------------------------------------------------------------------------------------------- worker


class Worker:
    """Measures items; one in each process, since models and LPIPS nets are loaded once.

    One thread each: items run in parallel instead, and the sums inside a net do not depend on the number of threads.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        torch.set_num_threads(1)
        self._plan, self._folder = plan, folder
        self._models = load_models(list(plan.models))
        self._neighbours = [NeighbourSystem(load_neighbour(spec)) for spec in plan.neighbours]
        self._mos = DistillMOS() if plan.mos else None
        with_weights: dict[str, dict[str, Metric]] = {
            "image": {source.name: source.load() for source in plan.lpips},
            "speech": {MOS: self._mos} if self._mos else {},
        }
        self._metrics = {medium: plan.metrics(medium) | more for medium, more in with_weights.items()}

    def measure(self, one: TestSet, item: Item, sample: bool = False) -> Record:
        """All there is to know of one item: its records, tokens and timings, or why it was skipped.

        Args:
            one: Its set; the items of that do not matter.
            item: A recording or picture.
            sample: Keep it and what comes out of each system, to look at and to listen to.
        """
        line: Record = {"set": one.name, "item": item.name}
        try:
            medium, signal = load_signal(item, one.crop, one.level_dbfs)
            if not any(system.medium == medium for system in self._all_systems()):
                raise MediaError(f"{medium}, which no system of this run codes")
        except (CodecError, OSError) as error:
            return line | {"skipped": " ".join(str(error).split()), "records": []}
        line |= {"medium": medium}
        if self._mos and medium == "speech":
            line["original"] = {MOS: measure(self._mos, signal[:, 0], signal[:, 0])[0]}
        return line | self._measure(one.name, item.name, medium, signal, sample)

    def _all_systems(self) -> Iterator[System]:
        yield from self._models
        yield from self._neighbours
        for name in self._plan.baselines:
            yield BaselineSystem(BASELINES[name], BASELINES[name].curve[0])

    def _measure(self, set_name: str, name: str, medium: str, signal: NDArray[Any], sample: bool) -> Record:
        records, failed, timings, tokens = [], [], [], {}
        tried: dict[str, dict[int, bytes]] = {baseline: {} for baseline in self._plan.baselines}
        scored: dict[tuple[str, bytes], Record] = {}  # one file may be nearest to several of ours
        if sample:
            save_sample(self._folder, set_name, name, "original", medium, signal)

        def add(system: System, setting: str, **more: Any) -> int | None:
            """Measures, and returns the bytes; files of models and matched ones are kept."""
            label = f"{system.name} {setting}"
            try:
                data, decoded, timing = _there_and_back(system, signal)
            except MediaError as error:
                failed.append({"system": system.name, "setting": setting, "reason": " ".join(str(error).split())})
                return None
            if (system.name, data) not in scored:
                scored[system.name, data] = self._score(system, signal, decoded, data)
            record = scored[system.name, data]
            records.append({"system": system.name, "setting": setting} | more | record)
            timings.append({"system": system.name, "setting": setting, "units": record["units"]} | timing)
            indices = system.indices(data)
            if indices is not None:
                tokens[label] = {"num_codes": system.num_codes, "indices": pack_tokens(indices)}
            if indices is not None or more:
                with writing(str(file_path(self._folder, system.name, setting, set_name, name)), force=True) as file:
                    file.write(data)
                if sample:
                    save_sample(self._folder, set_name, name, label, medium, decoded)
            return len(data)

        targets = {}
        for system in (*self._models, *self._neighbours):
            if system.medium == medium:
                targets[f"{system.name} {system.setting}"] = add(system, system.setting)
        for baseline in (BASELINES[known] for known in self._plan.baselines):
            if baseline.medium != medium:
                continue
            for setting in baseline.curve if self._plan.curves else ():
                add(BaselineSystem(baseline, setting), str(setting))
            for target, size in targets.items() if self._plan.match else ():
                if size is None:
                    continue
                try:
                    match = match_bytes(baseline, signal, size, tried[baseline.name])
                except Exception as error:  # whatever an encoder has against a signal
                    reason = f"{type(error).__name__}: {error}"
                    failed.append({"system": baseline.name, "setting": f"@ {target}", "reason": reason})
                    continue
                add(BaselineSystem(baseline, match.setting), f"@ {target}", matched_to=target, chosen=match.setting)
        timing = {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "systems": timings}
        return {"records": records, "failed": failed, "tokens": tokens, "timing": timing}

    def _score(self, system: System, signal: NDArray[Any], decoded: NDArray[Any], data: bytes) -> Record:
        speech = system.medium == "speech"
        record: Record = {
            "bytes": len(data),
            "payload_bytes": system.payload(data),
            "units": len(signal) / SAMPLE_RATE if speech else signal.shape[0] * signal.shape[1],
        }
        if isinstance(system, ModelSystem):
            record["perplexity_soft"] = system.soft_perplexity(signal)
        pair = (signal[:, 0], decoded[:, 0]) if speech else (signal, decoded)
        reasons = {}
        for name, metric in self._metrics[system.medium].items():
            record[name], reason = measure(metric, *pair)
            if reason:
                reasons[name] = reason
        return record | ({"unscored": reasons} if reasons else {})


def _there_and_back(system: System, signal: NDArray[Any]) -> tuple[bytes, NDArray[Any], Record]:
    """A file, what it decodes to, and the seconds both took. Raises MediaError where the system fails on the signal."""
    try:
        start = time.perf_counter()
        data = system.compress(signal)
        encoded = time.perf_counter()
        decoded = system.decompress(data, len(signal))
        done = time.perf_counter()
    except (CodecError, MemoryError):
        raise
    except Exception as error:  # an encoder of another's, on a signal that it cannot take
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; Pillow's encoders have no number
            raise
        raise MediaError(f"{system.name}: {type(error).__name__}: {error}") from None
    return data, check_shape(system, signal, decoded), {"encode_s": encoded - start, "decode_s": done - encoded}


def save_sample(folder: Path, set_name: str, item: str, label: str, medium: str, signal: NDArray[Any]) -> None:
    """Keeps a signal as .png or .flac."""
    path = sample_path(folder, set_name, item, label, medium)
    with writing(str(path), force=True) as file:
        if medium == "image":
            save_image(file, signal)
        else:
            writer = AudioWriter(file, SAMPLE_RATE, 1, "flac")
            writer.write(signal)
            writer.close()


def sample_path(folder: Path, set_name: str, item: str, label: str, medium: str) -> Path:
    """Where a run keeps what one system made of one item."""
    return folder.joinpath("samples", *map(flat_name, (set_name, item))) / (
        f"{flat_name(label)}.{'png' if medium == 'image' else 'flac'}"
    )


def pack_tokens(indices: NDArray[np.int64]) -> str:
    """(G, n) tokens as text."""
    shape = ",".join(map(str, indices.shape))
    return f"{shape} {base64.b64encode(zlib.compress(indices.astype('<u4').tobytes(), 9)).decode()}"


def unpack_tokens(text: str) -> NDArray[np.int64]:
    """The inverse of `pack_tokens`."""
    shape, packed = text.split()
    values = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<u4")
    return values.reshape([int(n) for n in shape.split(",")]).astype(np.int64)


def file_path(folder: Path, system: str, setting: str, set_name: str, item: str) -> Path:
    """Where a run keeps the file of an item."""
    return folder.joinpath("files", *map(flat_name, (system, setting, set_name, item)))


def flat_name(name: str) -> str:
    """A name that is one part of a path, another one for every name."""
    flat = quote(name, safe=" @,+=()") or "%"
    if flat.startswith("."):
        flat = f"%2E{flat[1:]}"
    if len(flat) > MAX_NAME:
        flat = f"{flat[:MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return flat


# ------------------------------------------------------------------------------------------------------------ journal


@dataclass
class Journal:
    """The lines of a run's finished items."""

    header: Record
    lines: dict[tuple[str, str], Record] = field(default_factory=dict)
    file: TextIO | None = None

    def append(self, line: Record) -> None:
        """Adds an item, on the disk before this returns."""
        assert self.file is not None
        text = json.dumps(line)
        self.file.write(text + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.lines[line["set"], line["item"]] = json.loads(text)


@contextmanager
def open_journal(folder: Path, header: Record, fresh: bool = False) -> Iterator[Journal]:
    """The journal of a run, locked: what an earlier run of the same plan left, without a torn last line.

    Raises:
        MediaError: Another run is writing there, or the folder holds a run of another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "journal.jsonl"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MediaError(f"{folder}: another run is writing there; wait for it, or give another --out") from None
        if fresh:
            file.truncate(0)
        journal = _read(path, header)
        whole = sum(len(part) for part in path.read_bytes().splitlines(keepends=True) if part.endswith(b"\n"))
        file.truncate(whole)
        journal.file = file
        if not whole:
            file.write(json.dumps(header) + "\n")
            file.flush()
        yield journal


def _read(path: Path, header: Record | None) -> Journal:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    try:
        parsed = [json.loads(line) for line in lines]
        found = parsed[0] if parsed else header
        journal = Journal(found, {(line["set"], line["item"]): line for line in parsed[1:]})
    except (ValueError, KeyError, TypeError) as error:
        raise MediaError(f"{path}: damaged journal ({error}); start again with --fresh") from None
    if header is not None and found != header:
        changed = sorted(k for k in {*found, *header} if found.get(k) != header.get(k)) if found else []
        raise MediaError(
            f"{path.parent} holds a run of another plan ({', '.join(changed)} differ); "
            "give another --out, or start again with --fresh"
        )
    return journal


def read_journal(folder: Path) -> Journal:
    """The journal of a finished run. Raises MediaError where there is none."""
    path = folder / "journal.jsonl"
    if not path.is_file():
        raise MediaError(f"{folder}: no run here (there is no journal.jsonl)")
    return _read(path, None)


def header_of(plan: Plan, sets: list[TestSet]) -> Record:
    """The first line of a journal: plan and items."""
    described = {}
    for one in sets:
        listing = json.dumps([[item.name, item.size] for item in one.items]).encode()
        described[one.name] = {
            "items": len(one.items),
            "listing": hashlib.sha256(listing).hexdigest(),
            "crop": one.crop,
            "level_dbfs": one.level_dbfs,
            "duplicates": list(one.duplicates),
        }
    return plan.fingerprint() | {"sets": described}


# ---------------------------------------------------------------------------------------------------------------- run


def run_all(plan: Plan, sets: list[TestSet], folder: Path, workers: int = 1, fresh: bool = False) -> Journal:
    """Measures what the folder's journal lacks.

    Raises:
        MediaError: The folder is another run's, or a worker died.
        CodecError: A model cannot be loaded.
    """
    with open_journal(folder, header_of(plan, sets), fresh) as journal:
        todo = [
            (replace(one, items=[]), item, item.name in samples)
            for one, samples in ((one, _samples(one)) for one in sets)
            for item in one.items
            if (one.name, item.name) not in journal.lines
        ]
        total = sum(len(one.items) for one in sets)
        with tqdm(total=total, initial=total - len(todo), unit="item", smoothing=0.05, disable=None) as bar:
            for line in _measured(plan, folder, todo, min(workers, len(todo))):
                journal.append(line)
                bar.update()
        return journal


def _samples(one: TestSet) -> set[str]:
    """The first few items of each kind of file, so that a mixed folder has some of both media."""
    kinds: dict[str, list[str]] = {}
    for item in one.items:
        kinds.setdefault(Path(item.name).suffix.lower(), []).append(item.name)
    return {name for names in kinds.values() for name in names[:SAMPLES]}


def _measured(plan: Plan, folder: Path, todo: list[Job], workers: int) -> Iterator[Record]:
    """Lines in the order in which they are done."""
    if workers <= 1:
        worker = Worker(plan, folder) if todo else None
        for job in todo:
            assert worker is not None
            yield worker.measure(*job)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    with ProcessPoolExecutor(workers, context, _start, (plan, folder)) as pool:
        jobs, waiting = iter(todo), set[Future[Record]]()
        try:
            while True:
                while len(waiting) < IN_FLIGHT * workers and (job := next(jobs, None)) is not None:
                    waiting.add(pool.submit(_work, *job))
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise MediaError(
                "a worker died, perhaps for lack of memory; run again with fewer --workers, finished items are kept"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


_worker: Worker | CodecError | None = None  # the error that it could not be made for


def _start(plan: Plan, folder: Path) -> None:
    """Makes the worker of a process, which ends with its parent and leaves Ctrl-C to it."""
    global _worker
    signals.signal(signals.SIGINT, signals.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _worker = Worker(plan, folder)
    except CodecError as error:
        _worker = error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(*job: Any) -> Record:
    if not isinstance(_worker, Worker):
        raise _worker or CodecError("no worker")
    return _worker.measure(*job)
