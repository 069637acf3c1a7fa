"""gmvq-table1, gmvq-fig4, gmvq-grid and gmvq-readings: the methods of the GM-VQ paper in one
harness, its entropy term swept, its weights chosen, and its latent term read in every way.
"""

from __future__ import annotations

import json

from eval.experiments import gmvq_runs, output, rows
from eval.experiments.gmvq_runs import TASKS, how
from eval.experiments.rows import PUBLISHED, ROWS
from eval.experiments.runs import Record, Request, aggregate, write

BETAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
GRID_GAMMAS, GRID_BETAS = (0.001, 0.003, 0.01, 0.03), (1.0, 4.0, 16.0)
VALIDATION = 1000  # pictures of the training set that the grid is judged on
CONSTANT_WEIGHT = {"weight_offset": 20.0, "max_weight": 1.0}  # softplus is far above 1, and cut

GRID = tuple(
    rows.gmvq(f"gamma={gamma:g} beta={beta:g}", beta, gamma=gamma)
    for gamma in GRID_GAMMAS
    for beta in GRID_BETAS
)
SWEEP = tuple(rows.gmvq(f"beta={beta:g}", beta) for beta in BETAS)
READINGS = (
    rows.gmvq("gmvq", 1.0),
    rows.gmvq("gmvq posterior", 1.0, {"latent_term": "posterior"}),
    rows.gmvq("gmvq literal", 1.0, {"latent_term": "literal"}),
    rows.gmvq("gmvq w=1", 1.0, CONSTANT_WEIGHT),
)


def table1(request: Request) -> None:
    """Runs all eleven rows on CIFAR-10 and CelebA, as far as their data are there.

    Raises:
        MediaError: Neither data set is there.
    """
    results = gmvq_runs.skip_missing(request, "gmvq-table1", ROWS)
    tables: list[str] = []
    notes: list[str] = []
    for key, runs in results.items():
        tables += gmvq_runs.tables(TASKS[key].title, runs, PUBLISHED[key])
        notes += [f"{key}: {note}" for note in how(runs)]
    path = request.out / "gmvq-table1"
    summary = {
        key: {name: aggregate(records) for name, records in runs.rows.items()}
        for key, runs in results.items()
    }
    write(path.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
    for row in ROWS:
        if any(row.name in runs.rows for runs in results.values()):
            weights = ", ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items())
            notes.append(f"weights of {row.name}: {weights} ({row.source})")
    output.save_report(path, "GM-VQ, table 1", notes, tables)
    figures = {"perplexity_hard_global": "perplexity, hard, whole test set"}
    figures["coded_bits"] = "coded bits per token"
    with output.picture(path, columns=2, rows=len(results), size=(5.2, 4.2)) as axes:
        for number, (key, runs) in enumerate(results.items()):
            for axis, (name, label) in zip(axes[2 * number :], figures.items(), strict=False):
                axis.set(title=TASKS[key].title, xlabel=label, ylabel="MSE x 1e-3")
                for i, (method, records) in enumerate(runs.rows.items()):
                    known = [r for r in records if "mse" in r and name in r]
                    axis.plot(
                        [r[name] for r in known],
                        [r["mse"] * 1e3 for r in known],
                        "o^s"[i % 3],
                        color=f"C{i % 10}",
                        label=method,
                        markersize=5,
                    )
            axes[2 * number].set_xscale("log")
            axes[2 * number].legend()


def fig4(request: Request) -> None:
    """Runs GM-VQ on CIFAR-10 over beta; a box of the picture holds all test batches and seeds."""
    runs = gmvq_runs.collect(request, "gmvq-fig4", "cifar10", SWEEP)
    path = request.out / "gmvq-fig4"
    write(path.with_suffix(".json"), gmvq_runs.summary(runs))
    title = "GM-VQ, figure 4: the entropy term swept"
    output.save_report(path, title, how(runs), gmvq_runs.tables("CIFAR-10", runs, {}))
    panels = {
        "entropy": "H(q(c|x)), nats",
        "perplexity": "perplexity, soft, batch",
        "mse": "MSE",
    }
    with output.picture(path, columns=len(panels), size=(4.4, 3.8)) as axes:
        for axis, (name, label) in zip(axes, panels.items(), strict=True):
            boxes = [
                [value for r in records if "batches" in r for value in r["batches"][name]]
                for records in runs.rows.values()
            ]
            axis.boxplot(boxes, tick_labels=list(runs.rows), widths=0.6)
            axis.set(ylabel=label)
            axis.tick_params(axis="x", rotation=60)


def readings(request: Request) -> None:
    """Runs the readings of the latent term (eq. 14 of the paper) on CIFAR-10, and the first of them
    with w = 1.

    "gmvq" is the row of table 1, which reads it as sampled. The runs are shared, so give the same
    budget.
    """
    runs = gmvq_runs.collect(request, "gmvq-table1", "cifar10", READINGS)
    path = request.out / "gmvq-readings"
    write(path.with_suffix(".json"), gmvq_runs.summary(runs))
    title = "GM-VQ: three readings of the latent term of eq. 14, and w = 1; beta = 1"
    output.save_report(path, title, how(runs), gmvq_runs.tables("CIFAR-10", runs, {}))
    with output.picture(path, size=(5.2, 4.2)) as axes:
        for i, (name, records) in enumerate(runs.rows.items()):
            known = [r for r in records if "mse" in r]
            axes[0].plot(
                [r["perplexity_hard_global"] for r in known],
                [r["mse"] * 1e3 for r in known],
                "o",
                color=f"C{i}",
                label=name,
            )
        axes[0].set(xlabel="perplexity, hard, whole test set", ylabel="MSE x 1e-3")
        axes[0].legend()


def grid(request: Request) -> None:
    """Runs GM-VQ on CIFAR-10 over gamma and beta, tested on a part of the training set.

    It says where `rows.GAMMA` and `rows.BETA` come from.
    """
    runs = gmvq_runs.collect(request, "gmvq-grid", "cifar10", GRID, VALIDATION)
    path = request.out / "gmvq-grid"
    write(path.with_suffix(".json"), gmvq_runs.summary(runs))
    title = "GM-VQ: gamma' and beta chosen on pictures held out of the training set"
    output.save_report(path, title, how(runs), gmvq_runs.tables("CIFAR-10", runs, {}))
    with output.picture(path, columns=2, size=(4.4, 3.8)) as axes:
        panels = {"mse": ("MSE x 1e-3", 1e3), "perplexity_hard_global": ("perplexity, hard", 1.0)}
        for axis, (key, (label, scale)) in zip(axes, panels.items(), strict=True):
            for beta in GRID_BETAS:
                points = [(gamma, _mean(runs.rows, gamma, beta, key)) for gamma in GRID_GAMMAS]
                known = [(gamma, scale * mean) for gamma, mean in points if mean is not None]
                if known:
                    axis.plot(*zip(*known, strict=True), "o-", label=f"beta {beta:g}")
            axis.set(xscale="log", xlabel="gamma'", ylabel=label)
            if axis.lines:
                axis.legend()


def _mean(runs: dict[str, list[Record]], gamma: float, beta: float, key: str) -> float | None:
    found = aggregate(runs.get(f"gamma={gamma:g} beta={beta:g}", [])).get(key)
    return None if found is None else found[0]
