"""gmvq-table1 and gmvq-fig4: the methods of the GM-VQ paper in one harness, and its entropy term
swept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from codec.errors import MediaError
from eval import markdown
from eval.experiments import images, output, rows, training
from eval.experiments.images import ImageSet
from eval.experiments.rows import PUBLISHED, ROWS, Row
from eval.experiments.runs import Record, Request, aggregate, run_once, write
from eval.experiments.training import Settings

SEEDS = 3  # the paper gives none
EPOCHS, SMALL_EPOCHS = 100.0, 5.0  # the paper's; two hours of a CPU core for all rows at two seeds
BETAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# At beta = 1; the sweep itself is R1, "sampled".
LATENT_TERMS = {"R2": "posterior", "R3": "literal"}

Runs = dict[str, list[Record]]  # row name -> one record for each seed


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
        small=Settings(stages=3, blocks=2, learning_rate=1e-4),
    ),
}

# key of a record -> head, digits, scale
COLUMNS: dict[str, tuple[str, int, float]] = {
    "mse": ("MSE x 1e-3", 2, 1e3),
    "perplexity_soft_batch": ("perplexity, soft, batch", 1, 1.0),
    "perplexity_hard_batch": ("hard, batch", 1, 1.0),
    "perplexity_hard_global": ("hard, global", 1, 1.0),
    "entropy": ("H(q(c\\|x)), nats", 2, 1.0),
    "used": ("share used", 3, 1.0),
    "log_latent_std": ("log std(z)", 2, 1.0),
    "weight": ("mean w", 2, 1.0),
    "steps": ("steps", 0, 1.0),
    "skipped": ("skipped", 0, 1.0),
    "failed": ("failed", 0, 1.0),
}


def collect(
    request: Request, key: str, candidates: tuple[Row, ...], seeds: int
) -> tuple[Runs, ImageSet]:
    """Runs every row at every seed; seeds are outermost, so that an interrupted table has whole
    ones.

    Raises:
        CodecError: A row that is asked for is not known.
    """
    task, small = TASKS[key], request.small
    names = request.choose("methods", [row.name for row in candidates])
    chosen = [row for row in candidates if row.name in names]
    data = task.load(request.data, small)
    print(f"{task.title}: {data.source}", flush=True)
    settings = task.small if small else task.settings
    if request.learning_rate is not None:
        settings = replace(settings, learning_rate=request.learning_rate)
    budget = request.budget(
        max(1, len(data.train) // settings.batch), SMALL_EPOCHS if small else EPOCHS
    )
    runs: Runs = {row.name: [] for row in chosen}
    for seed in range(seeds):
        for row in chosen:
            identity = {
                "data": data.source,
                "settings": asdict(settings),
                "budget": asdict(budget),
                "seed": seed,
            }
            row_data = {k: v for k, v in asdict(row).items() if k not in ("name", "source")}
            if not row.ramps:
                del row_data["ramps"]  # so that its runs keep their names, which are hashes of this
            identity |= {"row": row_data}

            def work(_: Path, row: Row = row, seed: int = seed) -> Record:
                return training.train(row, data, settings, budget, seed, request.device)

            record = run_once(request.out / f"runs-{key}", f"{row.name}-seed{seed}", identity, work)
            if "mse" in record:
                print(
                    f"  mse {record['mse']:.5f}, perplexity {record['perplexity_hard_global']:.0f}",
                    flush=True,
                )
            runs[row.name].append(record)
    return runs, data


def table(runs: Runs, published: dict[str, tuple[float, float]]) -> str:
    """Returns a table with a row for each method: mean ± deviation over seeds, then what was
    published.
    """
    lines = []
    for name, records in runs.items():
        summary = aggregate(records)
        cells = [
            output.cell(summary.get(k), digits, scale) for k, (_, digits, scale) in COLUMNS.items()
        ]
        paper = "{:.2f} / {:.0f}".format(*published[name]) if name in published else "-"
        lines.append([name, *cells, paper])
    return markdown.table(
        ["method", *(head for head, _, _ in COLUMNS.values()), "paper MSE / perplexity"], lines
    )


def how(request: Request, runs: Runs, data: ImageSet, seeds: int) -> list[str]:
    """Returns notes on what was run."""
    pace = aggregate([r for records in runs.values() for r in records]).get(
        "seconds_per_step", (math.nan, None)
    )[0]
    notes = [
        f"data: {data.source}",
        f"{seeds} seeds; {pace:.2g} s a step on {request.device}; mean ± deviation (n - 1)",
    ]
    notes.append(
        "the paper: 50000 or 162770 pictures, 100 epochs, nets that are not public; compare within "
        "the table"
    )
    notes.append(
        "the paper's perplexity is of a batch's mean posterior, averaged over batches: \"soft, "
        'batch" here, "hard, '
        'batch" for methods without a posterior; "hard, global" counts the indices of the whole '
        "test set"
    )
    if request.small:
        notes.append(
            "REDUCED SIZE for a CPU: few epochs; CIFAR-10 has its full net, in batches of 64 for "
            "more steps; "
            "CelebA at 64x64 with two residual blocks"
        )
    return notes


def table1(request: Request) -> None:
    """Runs all eleven rows on CIFAR-10 and CelebA, as far as their data are there.

    Raises:
        MediaError: Neither dataset is there.
    """
    seeds = request.seeds or SEEDS
    results: dict[str, Runs] = {}
    tables, notes = [], []
    for key in request.choose("datasets", TASKS):
        try:
            results[key], data = collect(request, key, ROWS, seeds)
        except MediaError as error:
            print(f"{key}: skipped, {error}", flush=True)
            continue
        tables.append(f"## {TASKS[key].title}\n\n{table(results[key], PUBLISHED[key])}")
        notes += [f"{key}: {note}" for note in how(request, results[key], data, seeds)]
    if not results:
        raise MediaError("no data for this table; give --data folders with CIFAR-10 or CelebA")
    path = request.out / "gmvq-table1"
    summary = {
        key: {name: aggregate(records) for name, records in runs.items()}
        for key, runs in results.items()
    }
    write(path.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
    for row in ROWS:
        if any(row.name in runs for runs in results.values()):
            weights = ", ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items())
            notes.append(f"weights of {row.name}: {weights} ({row.source})")
    output.save_report(path, "GM-VQ, table 1", notes, tables)
    with output.picture(path, columns=len(results), size=(5.2, 4.2)) as axes:
        for axis, (key, runs) in zip(axes, results.items(), strict=True):
            for i, (name, records) in enumerate(runs.items()):
                x, y = (
                    [r[k] for r in records if k in r] for k in ("perplexity_hard_global", "mse")
                )
                axis.plot(
                    x,
                    [v * 1e3 for v in y],
                    "o^s"[i % 3],
                    color=f"C{i % 10}",
                    label=name,
                    markersize=5,
                )
            axis.set(
                title=TASKS[key].title,
                xlabel="perplexity, hard, whole test set",
                ylabel="MSE x 1e-3",
            )
            axis.set_xscale("log")
            axis.legend()


def fig4(request: Request) -> None:
    """Runs GM-VQ on CIFAR-10 over beta, and the three readings of its latent term.

    A box of the picture holds all test batches and seeds.
    """
    seeds = request.seeds or SEEDS
    sweep = tuple(rows.gmvq(f"beta={beta:g}", beta) for beta in BETAS)
    readings = tuple(rows.gmvq(tag, 1.0, term) for tag, term in LATENT_TERMS.items())
    runs, data = collect(request, "cifar10", sweep + readings, seeds)
    path = request.out / "gmvq-fig4"
    write(
        path.with_suffix(".json"),
        json.dumps({k: aggregate(v) for k, v in runs.items()}, indent=1) + "\n",
    )
    title = (
        "GM-VQ, figure 4: the entropy term swept, and the latent term read otherwise "
        "(beta = 1 is R1)"
    )
    output.save_report(path, title, how(request, runs, data, seeds), [table(runs, {})])
    panels = {"entropy": "H(q(c|x)), nats", "perplexity": "perplexity, soft, batch", "mse": "MSE"}
    with output.picture(path, columns=len(panels), size=(4.4, 3.8)) as axes:
        for axis, (name, label) in zip(axes, panels.items(), strict=True):
            boxes = [
                [value for r in records if "batches" in r for value in r["batches"][name]]
                for records in runs.values()
            ]
            axis.boxplot(boxes, tick_labels=list(runs), widths=0.6)
            axis.set(ylabel=label)
            axis.tick_params(axis="x", rotation=60)
