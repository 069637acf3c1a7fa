"""The runs behind the GM-VQ paper's tables: data sets, which rows are trained or read again, and
the table they make.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codec.errors import CodecError, MediaError
from eval import markdown
from eval.experiments import images, output, training
from eval.experiments.images import ImageSet
from eval.experiments.rows import Row
from eval.experiments.runs import (
    Record,
    Request,
    aggregate,
    check_seeds,
    finished,
    run_once,
    seeds,
)
from eval.experiments.training import Settings
from train.hardware import hardware

SEEDS = 3  # the paper gives none
EPOCHS, SMALL_EPOCHS = 100.0, 5.0  # the paper's, and what an hour of a CPU core has


@dataclass(frozen=True, slots=True)
class Task:
    """A data set that nets are trained on: how it is loaded, at reduced size or not, and with which
    settings.
    """

    title: str
    load: Callable[[Iterable[Path], bool], ImageSet]
    settings: Settings
    small: Settings


TASKS: dict[str, Task] = {
    "cifar10": Task(
        "CIFAR-10, 32x32",
        lambda folders, small: images.cifar10(folders),  # noqa: ARG005
        settings=Settings(stages=2, blocks=2, learning_rate=1e-2),
        small=Settings(stages=2, blocks=2, learning_rate=1e-2, batch=64),
    ),
    "celeba": Task(
        "CelebA",
        lambda folders, small: images.celeba(folders, 64 if small else 128),
        settings=Settings(stages=3, blocks=6, learning_rate=1e-4),
        small=Settings(stages=3, blocks=2, learning_rate=1e-3, batch=64),
    ),
}

# key of a record -> head, digits, scale
Columns = dict[str, tuple[str, int, float]]
QUALITY: Columns = {
    "mse": ("MSE x 1e-3", 2, 1e3),
    "perplexity_soft_batch": ("perplexity, soft, batch", 0, 1.0),
    "perplexity_hard_batch": ("hard, batch", 0, 1.0),
    "perplexity_hard_global": ("hard, global", 0, 1.0),
    "coded_bits": ("coded bits/token", 2, 1.0),
    "entropy": ("H(q(c\\|x)), nats", 2, 1.0),
}
COURSE: Columns = {
    "steps": ("steps", 0, 1.0),
    "steps_per_second": ("steps/s", 1, 1.0),
    "minutes": ("minutes", 1, 1.0),
    "skipped": ("skipped", 0, 1.0),
    "used": ("share of codes used", 3, 1.0),
    "log_latent_std": ("log std(z)", 2, 1.0),
    "weight": ("mean w", 2, 1.0),
}


@dataclass(frozen=True, slots=True)
class Runs:
    """Finished runs of one data set.

    Attributes:
        rows: The name of each row, and a record for each of its seeds.
        settings: What all runs have in common: "data", "settings", "budget" and "hardware".
    """

    rows: dict[str, list[Record]]
    settings: dict[str, Any]


def collect(
    request: Request,
    name: str,
    key: str,
    candidates: tuple[Row, ...],
    validation: int = 0,
) -> Runs:
    """Trains every row at every seed, or reads those that were trained before.

    Seeds are outermost, so that an interrupted table has whole ones.

    Args:
        request: What the command line asks for.
        name: The experiment; its runs lie in a folder of that name.
        key: The data set, a key of `TASKS`.
        candidates: The rows.
        validation: If not 0, so many pictures of the training set are held out and tested on, and
            the test set is not touched.

    Raises:
        CodecError: A row that is asked for is not known, or the runs to redraw cannot be read.
        MediaError: The data set is not there.
    """
    names = request.choose("methods", [row.name for row in candidates])
    chosen = [row for row in candidates if row.name in names]
    folder = f"runs-{name}-{key}"
    if request.redraw is not None:
        return read(request.redraw / folder, names)
    task = TASKS[key]
    data = task.load(request.data, request.small)
    if validation:
        data = data.held_out(validation)
    print(f"{task.title}: {data.source}", flush=True)
    settings = task.small if request.small else task.settings
    if request.learning_rate is not None:
        settings = replace(settings, learning_rate=request.learning_rate)
    budget = request.budget(
        max(1, len(data.train) // settings.batch), SMALL_EPOCHS if request.small else EPOCHS
    )
    common = {
        "data": data.source,
        "settings": asdict(settings),
        "budget": asdict(budget),
        "small": request.small,
        "hardware": hardware(request.device),
    }
    runs: dict[str, list[Record]] = {row.name: [] for row in chosen}
    for seed in range(request.seeds or SEEDS):
        for row in chosen:
            identity = common | {"name": row.name, "row": row.data(), "seed": seed}

            def work(_: Path, row: Row = row, seed: int = seed) -> Record:
                return training.train(row, data, settings, budget, seed, request.device)

            record = run_once(request.out / folder, f"{row.name}-seed{seed}", identity, work)
            if "mse" in record:
                print(
                    f"  mse {record['mse']:.5f}, perplexity {record['perplexity_hard_global']:.0f}",
                    flush=True,
                )
            runs[row.name].append(record)
    return Runs(runs, common)


def read(folder: Path, names: Iterable[str]) -> Runs:
    """Returns the finished runs of a folder, of the rows that are named.

    Raises:
        CodecError: There are none, or they differ in data, settings or budget, or those of a row
            in more than their seed.
    """
    common = ("data", "settings", "budget", "small")
    names = list(names)
    records = finished(folder, common, names)
    check_seeds(folder, records)
    runs: dict[str, list[Record]] = {name: [] for name in names}
    for record in sorted(records, key=lambda r: int(r["settings"]["seed"])):
        runs[record["settings"]["name"]].append(record["result"])
    settings = {key: records[0]["settings"][key] for key in common}
    places = dict.fromkeys(str(record["settings"]["hardware"]) for record in records)
    settings["hardware"] = " and ".join(places)
    return Runs({name: found for name, found in runs.items() if found}, settings)


def tables(title: str, runs: Runs, published: Mapping[str, tuple[float, float]]) -> list[str]:
    """Returns two tables with a row for each method, mean ± deviation over seeds.

    The first has what the methods reach and, where it is known, what was published; the second how
    the runs went.
    """
    summaries = {name: aggregate(records) for name, records in runs.rows.items()}

    def table(columns: Columns, more: Mapping[str, str]) -> str:
        known = {k: c for k, c in columns.items() if any(k in s for s in summaries.values())}
        lines = []
        for name, summary in summaries.items():
            cells = [output.cell(summary.get(key), *form[1:]) for key, form in known.items()]
            last = [more.get(name, "-")] if more else []
            lines.append([name, seeds(runs.rows[name]), *cells, *last])
        heads = ["method", "seeds", *(head for head, _, _ in known.values())]
        return markdown.table(heads + (["paper: MSE, perplexity"] if more else []), lines)

    papers = {name: "{:.2f}, {:.0f}".format(*pair) for name, pair in published.items()}
    return [f"## {title}\n\n{table(QUALITY, papers)}", table(COURSE, {})]


def how(runs: Runs) -> list[str]:
    """Returns notes on what was run."""
    settings = runs.settings
    nominal = math.log2(settings["settings"]["size"])
    notes = [
        f"data: {settings['data']}",
        f"K = {settings['settings']['size']}, batches of {settings['settings']['batch']}, learning "
        f"rate {settings['settings']['learning_rate']:g}; {settings['hardware']}; mean ± deviation "
        "(n - 1) over seeds",
        "the paper: 50000 or 162770 pictures, 100 epochs, nets that are not public; compare within "
        "the table",
        "the paper's perplexity is of a batch's mean posterior, averaged over batches: \"soft, "
        'batch" here, "hard, batch" for methods without a posterior; "hard, global" counts the '
        "indices of the whole test set",
        f"coded bits/token: the indices of all test pictures as one file of the project's coder; "
        f"nominal are {nominal:g}",
    ]
    if settings["small"]:
        notes.append(
            "REDUCED SIZE for a CPU: fewer pictures and epochs; CIFAR-10 has its full net, in "
            "batches of 64 for more steps; CelebA at 64x64 with two residual blocks"
        )
    return notes


def summary(runs: Runs) -> str:
    """Returns mean and deviation of every number of every row, as JSON."""
    plain = {name: aggregate(records) for name, records in runs.rows.items()}
    return json.dumps(plain, indent=1) + "\n"


def skip_missing(request: Request, name: str, candidates: tuple[Row, ...]) -> dict[str, Runs]:
    """Collects the runs of every data set that is there.

    Raises:
        MediaError: None is there.
        CodecError: There are no runs to redraw.
    """
    found: dict[str, Runs] = {}
    for key in request.choose("datasets", TASKS):
        if request.redraw is not None and not (request.redraw / f"runs-{name}-{key}").is_dir():
            continue
        try:
            found[key] = collect(request, name, key, candidates)
        except MediaError as error:
            print(f"{key}: skipped, {error}", flush=True)
    if not found and request.redraw is not None:
        raise CodecError(f"{request.redraw}: no finished runs of {name} to redraw")
    if not found:
        raise MediaError("no data for this table; give --data folders with CIFAR-10 or CelebA")
    return found
