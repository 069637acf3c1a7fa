"""python -m eval.bulk MODEL --data DIR|NAME... --out OUT: compresses, and scores, large sets.

It is a Ray Data job.

Ray runs on this machine, or on a cluster by --address, whose nodes see the data and OUT under the
same paths and have codec installed; --workers 0 needs no Ray. What comes out is Parquet, a row for
each item with its indices, tokens for a language model; or .bin files, with rows that describe
them.

    items ─shards of 64─> worker ─each item─> OUT/staging/SHARD/ITEM.json
                                                 └──whole shard──> OUT/part-N.parquet

An item is done when its row stands in the staging folder, whole; a shard, when its Parquet does. So
a worker that is killed loses the item in its hands and nothing else: whoever takes its shard over,
in this run or the next, goes on behind the last finished item. OUT/log has a line for each item
that was really computed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codec import cards
from codec.cli.frame import Parser, UsageError, filled_path, positive, print_line, run
from codec.cli.options import add_care
from codec.errors import CodecError, MediaError, not_installed, reason_of
from codec.files import blaming
from codec.streams import process

try:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from eval.datasets import find
    from eval.journal import Record
    from eval.lpips_metric import backbones
    from eval.options import add_sets
    from eval.shards import Job, ShardWorker
    from train.alone import lock
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval,cluster')}")

SHARD = 64  # items
MOST_SKIPPED = 20  # lines


def read_parts(out: Path, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """Yields the rows of a finished job, in the order of its items.

    Args:
        out: The output folder.
        columns: What is read of each row, where it is there; by default all of it.
    """
    for path in sorted(out.glob("part-*.parquet"), key=lambda path: int(path.stem[5:])):
        try:
            there = pq.read_schema(path).names
            table = pq.read_table(path, columns=columns and [c for c in columns if c in there])
        except (OSError, pa.ArrowInvalid) as error:
            raise MediaError(
                f"{path}: damaged ({reason_of(error)}); remove it, and run the same command"
            ) from None
        yield from table.to_pylist()


def run_job(job: Job, workers: int, address: str | None = None) -> None:
    """Finishes a job: through Ray with this many workers, or in this process with 0.

    Raises:
        MediaError: Another run is writing there, or left another job's output.
        CodecError: A worker failed.
    """
    with _locked(job.out, job.fingerprint()):
        todo = [number for number in range(job.num_shards) if not job.part(number).is_file()]
        sizes = [len(job.items[n * job.shard : (n + 1) * job.shard]) for n in todo]
        with tqdm(
            total=len(job.items), initial=len(job.items) - sum(sizes), unit="item", disable=None
        ) as bar:
            # Ray takes seconds to start.
            alone = workers == 0 or (address is None and len(todo) == 1)
            for done in _here(job, todo) if alone else _through_ray(job, todo, workers, address):
                bar.update(done["items"])
        with contextlib.suppress(OSError):
            (job.out / "staging").rmdir()


def _earlier(out: Path, text: str) -> Record:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise MediaError(
            f"{out / 'job.json'}: not the description of a job; remove it, or give another --out"
        ) from None


@contextlib.contextmanager
def _locked(out: Path, fingerprint: Record) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "job.json"
    # What could not be written is tried again when the file is closed.
    with blaming(str(path)), path.open("a+", encoding="utf-8", errors="replace") as file:
        lock(file.fileno(), out)
        file.seek(0)
        text = file.read()
        before = _earlier(out, text) if text.endswith("\n") else fingerprint
        if before != fingerprint:
            changed = ", ".join(
                sorted(k for k in {*before, *fingerprint} if before.get(k) != fingerprint.get(k))
            )
            raise MediaError(f"{out} holds another job ({changed} differ); give another --out")
        if not text.endswith("\n"):
            file.truncate(0)
            file.write(json.dumps(fingerprint) + "\n")
            file.flush()
        yield


def _here(job: Job, todo: list[int]) -> Iterator[Record]:
    worker = ShardWorker(job) if todo else None
    for number in todo:
        assert worker is not None
        yield worker({"shard": number})


def _through_ray(job: Job, todo: list[int], workers: int, address: str | None) -> Iterator[Record]:
    if not todo:
        return
    try:
        ray: Any = import_module("ray")
        import_module("ray.data")
    except ModuleNotFoundError:
        raise CodecError(f"{not_installed('Ray', 'cluster')}, or use --workers 0") from None
    started = not ray.is_initialized()
    if started:
        _start_ray(ray, workers, address)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        shards = ray.data.from_items(
            [{"shard": number} for number in todo], override_num_blocks=len(todo)
        )
        # A worker that dies is started again, and its shard with it: Ray Data's rule.
        done = shards.map(
            ShardWorker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(
                size=min(workers, len(todo)), max_tasks_in_flight_per_actor=1
            ),
            num_cpus=1,
        )
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        cause = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        raise CodecError(f"a worker failed ({cause}); run again, finished items are kept") from None
    finally:
        if started:
            ray.shutdown()


def _start_ray(ray: Any, workers: int, address: str | None) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Workers on this machine find the sources where this process does; on a cluster codec is
    # installed.
    paths = os.pathsep.join(
        str(Path(path).resolve()) for path in sys.path if path != "" and Path(path).is_dir()
    )
    local = {"num_cpus": workers + 1, "include_dashboard": False, "object_store_memory": 1 << 27}
    variables = {"OMP_NUM_THREADS": "1"} | ({} if address else {"PYTHONPATH": paths})
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level="ERROR",
            **({} if address else local),
        )
    except (ConnectionError, ValueError) as error:
        raise CodecError(f"no Ray cluster at {address}: {' '.join(str(error).split())}") from None
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        signal.signal(signal.SIGTERM, before)  # Ray would end the process with a dump of its stack


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m eval.bulk", description=__doc__, epilog="See docs/bulk.md")
    parser.add_argument("model", metavar="MODEL", help="a shipped model, or the path of a card")
    add_sets(parser)
    parser.add_argument("-k", "--codebook-size", type=int, default=1024, metavar="K")
    parser.add_argument(
        "--out",
        type=filled_path,
        required=True,
        metavar="DIR",
        help="seen by all workers under this path",
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "bin"),
        default="parquet",
        help="what the indices are kept in",
    )
    add_care(parser)
    parser.add_argument("--score", action="store_true", help="decode, and add metrics to the rows")
    parser.add_argument(
        "--lpips-backbone", type=filled_path, action="append", default=[], metavar="FILE"
    )
    parser.add_argument(
        "--shard",
        type=positive(int),
        default=SHARD,
        metavar="N",
        help=f"items a Parquet file; default {SHARD}",
    )
    parser.add_argument(
        "--first", type=positive(int), metavar="N", help="only the first N items of each set"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="0: without Ray",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="of a running Ray cluster, or auto")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    if options.workers < 0:
        raise UsageError(f"--workers {options.workers}: want at least 0")
    if options.address and options.workers == 0:
        raise UsageError("--workers 0 works here, without Ray; leave --address out")
    if options.lpips_backbone and not options.score:
        raise UsageError("--lpips-backbone is of the metrics; add --score")
    if options.out.is_file():
        raise UsageError(f"--out {options.out} is a file; give a folder")
    card = cards.find(options.model)
    if options.codebook_size not in card.num_codes:
        offered = ", ".join(map(str, card.num_codes))
        raise UsageError(f"--codebook-size {options.codebook_size}: {card.name} offers {offered}")
    sets = [find(name, options.root) for name in options.data]
    if len({one.name for one in sets}) < len(sets):
        raise UsageError("--data: two sets have one name; rename a folder")
    job = Job(
        model=(card.name, str(card.path.resolve()), (options.codebook_size,)),
        items=tuple(
            (one.name, item, one.crop) for one in sets for item in one.items[: options.first]
        ),
        out=options.out.resolve(),
        shard=options.shard,
        keep=options.format,
        score=options.score,
        lpips=tuple(backbones([], options.lpips_backbone)[0]) if options.score else (),
        effort=options.effort,
        search=options.search,
    )
    for one in sets:
        for item in one.duplicates:
            print_line(f"left out {one.name}/{item}: a second item of this name", sys.stderr)
    start = time.perf_counter()
    run_job(job, options.workers, options.address)
    total = skipped = 0
    for row in read_parts(job.out, ("set", "item", "skipped", "notices")):
        total += 1
        for notice in row.get("notices") or []:
            print_line(f"{row['set']}/{row['item']}: {notice}", sys.stderr)
        if row["skipped"] is not None:
            skipped += 1
            if skipped <= MOST_SKIPPED:
                print_line(f"skipped {row['set']}/{row['item']}: {row['skipped']}", sys.stderr)
    elapsed_s = time.perf_counter() - start
    print_line(
        f"{total} items, {skipped} skipped, in {job.num_shards} shards of {job.out}: "
        f"{elapsed_s:.1f} s",
        sys.stdout,
    )
    if skipped == total:
        raise MediaError(f"nothing was coded: all {total} items were skipped")


if __name__ == "__main__":
    sys.exit(process(main))
