"""A run: every item of the test sets through every system of its medium.

It writes into a folder, and is resumable at any point.

    TestSet ─> Worker.measure(item) ─> line ─> journal.jsonl ─summary─> results.json, timing.json
                    └─> files, samples (see eval.paths)  ─report──> report.md, pictures

What depends on the machine's speed stands in timing.json, so that results.json depends on the plan
alone and is the same, byte for byte, however often a run was stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal as signals
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codec.errors import CodecError, MediaError
from eval.datasets import Item, TestSet
from eval.journal import JOURNAL, Journal, Record, open_journal
from eval.plan import Plan, header_of
from eval.worker import Worker

IN_FLIGHT = 2  # items a worker has waiting
FOLDERS = ("files", "samples", "report")
RESULTS = ("results.json", "timing.json", "report.md")  # what is made of all items together
SAMPLES = 4  # items of each set that are kept to look at and listen to

Job = tuple[TestSet, Item, bool]  # what Worker.measure takes; of the set all but its items


def run_all(
    plan: Plan, sets: list[TestSet], folder: Path, workers: int = 1, fresh: bool = False
) -> Journal:
    """Measures all items that the folder's journal lacks.

    Args:
        plan: What to measure.
        sets: The items.
        folder: The output folder.
        workers: Number of processes; 1 works in this one.
        fresh: Whether to measure again what the folder has.

    Returns:
        The journal with all items, closed.

    Raises:
        MediaError: The folder is another run's, or a worker died.
        CodecError: A model cannot be loaded.
    """
    again = fresh and (folder / JOURNAL).is_file()
    with open_journal(folder, header_of(plan, sets), fresh) as journal:
        for name in FOLDERS if again else ():  # an earlier plan may have made other files
            shutil.rmtree(folder / name, ignore_errors=True)
        todo = [
            (replace(one, items=[]), item, item.name in samples)
            for one, samples in ((one, _samples(one)) for one in sets)
            for item in one.items
            if (one.name, item.name) not in journal.lines
        ]
        if todo:  # what an earlier run made of its items is none of this one
            for name in RESULTS:
                (folder / name).unlink(missing_ok=True)
        total = sum(len(one.items) for one in sets)
        with tqdm(
            total=total, initial=total - len(todo), unit="item", smoothing=0.05, disable=None
        ) as bar:
            for line in _measured(plan, folder, todo, min(workers, len(todo))):
                journal.append(line)
                bar.update()
        return journal


def _samples(one: TestSet) -> set[str]:
    """Names the first few items of each kind of file.

    So a mixed folder has some of both media.
    """
    kinds: dict[str, list[str]] = {}
    for item in one.items:
        kinds.setdefault(Path(item.name).suffix.lower(), []).append(item.name)
    return {name for names in kinds.values() for name in names[:SAMPLES]}


def _measured(plan: Plan, folder: Path, todo: list[Job], workers: int) -> Iterator[Record]:
    """Yields the lines of all jobs, in the order in which they are done."""
    if workers <= 1:
        worker = Worker(plan, folder) if todo else None
        for job in todo:
            assert worker is not None
            yield worker.measure(*job)
        return
    # A fork of a process with torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (plan, folder)) as pool:
        jobs, waiting = iter(todo), set[Future[Record]]()
        try:
            while True:
                with _ctrl_c_later():  # the first submission starts the workers
                    for job in islice(jobs, IN_FLIGHT * workers - len(waiting)):
                        waiting.add(pool.submit(_work, *job))
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise MediaError(
                "a worker died, perhaps for lack of memory; run again with fewer --workers, "
                "finished items are kept"
            ) from None
        except KeyboardInterrupt:  # what they measure now is measured again
            for process in multiprocessing.active_children():
                process.terminate()
            waiting.clear()
            raise
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Lets Ctrl-C wait; processes that are started meanwhile never get it.

    A terminal sends it to all of them, and those that are still importing would print tracebacks.
    """
    came: list[int] = []
    try:
        before = signals.signal(signals.SIGINT, lambda number, _: came.append(number))
    except ValueError:  # only the main thread gets it
        yield
        return
    masked = getattr(signals, "pthread_sigmask", None)  # Windows has none
    mask = masked(signals.SIG_BLOCK, {signals.SIGINT}) if masked else None
    try:
        yield
    finally:
        if masked:
            masked(signals.SIG_SETMASK, mask)
        signals.signal(signals.SIGINT, before)
    if came:
        raise KeyboardInterrupt


_worker: Worker | CodecError | None = None  # of this process; or why it could not be made


def _start(plan: Plan, folder: Path) -> None:
    """Makes the worker of this process, which ends with its parent."""
    global _worker
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
