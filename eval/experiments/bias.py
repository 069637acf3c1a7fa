"""gmvq-fig3: is the Gumbel-softmax gradient more biased where the entropy is higher? (GM-VQ paper,
A.1)

    logits l0 / T ──softmax──> p, H(p)
    E = sum_c p_c f(e_c), f a fixed random MLP 10 -> 50 -> 5 -> 1
    exact dE/dl  vs  the mean of n straight-through Gumbel estimates
        ──> bias |mean - exact|  ──> Pearson r with H

The paper shows one seed (r = 0.77). Its 50 draws mix bias with Monte Carlo error, so 5000 are drawn
as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from eval import markdown
from eval.experiments import output
from eval.experiments.runs import Record, Request, finished, mean_std, run_once, write

NUM_ACTIONS = 10
TEMPERATURES = torch.logspace(-1, 1, 50, dtype=torch.float64)  # of the logits: sets the entropy
DRAWS = (50, 5000)  # the paper's, and enough to see the bias itself
SEEDS = 10
FOLDER = "runs-gmvq-fig3"
TAU = 1.0  # of the Gumbel-softmax
PAPER = 0.77


def make_function(seed: int) -> nn.Module:
    """Makes the MLP of A.1 in the paper, which does not give its activation; here it is tanh."""
    torch.manual_seed(seed)
    layers = [nn.Linear(NUM_ACTIONS, 50), nn.Tanh(), nn.Linear(50, 5), nn.Tanh(), nn.Linear(5, 1)]
    return nn.Sequential(*layers).double().requires_grad_(False)


def exact_gradient(logits: Tensor, values: Tensor) -> Tensor:
    """dE/dl_i = p_i (f(e_i) - sum_j p_j f(e_j)), (..., A), of logits (..., A) and values (A,)."""
    p = logits.softmax(-1)
    return p * (values - (p * values).sum(-1, keepdim=True))


def estimated_gradient(logits: Tensor, slopes: Tensor, gumbel: Tensor, tau: float) -> Tensor:
    """The mean straight-through estimate: c = onehot(argmax(l + g)) forward, softmax((l + g) / tau)
    backward.

    Args:
        logits: (A,).
        slopes: (A, A), row c is df/dc at the one-hot action c: all that draws can meet.
        gumbel: (n, A) noise.
        tau: Temperature of the softmax.

    Returns:
        (A,) mean over the draws of J^T df/dc, J the Jacobian of the softmax.
    """
    scores = logits + gumbel
    y = (scores / tau).softmax(-1)
    slope = slopes[scores.argmax(-1)]
    return (y * (slope - (y * slope).sum(-1, keepdim=True)) / tau).mean(0)


def action_values(function: nn.Module) -> tuple[Tensor, Tensor]:
    """Returns f(e_c), (A,), and df/dc at each e_c, (A, A)."""
    actions = torch.eye(NUM_ACTIONS, dtype=torch.float64, requires_grad=True)
    values = function(actions)[:, 0]
    (slopes,) = torch.autograd.grad(values.sum(), actions)
    return values.detach(), slopes


def measure(seed: int, draws: int) -> Record:
    """Measures entropies in nats, biases, and their correlation, over the temperatures."""
    values, slopes = action_values(make_function(seed))
    start = torch.randn(NUM_ACTIONS, dtype=torch.float64)
    entropies, biases = [], []
    for temperature in TEMPERATURES:
        logits = start / temperature
        gumbel = -torch.empty(draws, NUM_ACTIONS, dtype=torch.float64).exponential_().log()
        estimate = estimated_gradient(logits, slopes, gumbel, TAU)
        log_p = logits.log_softmax(-1)
        entropies.append(float(-(log_p.exp() * log_p).sum()))
        biases.append(float((estimate - exact_gradient(logits, values)).norm()))
    pair = torch.tensor([entropies, biases], dtype=torch.float64)
    return {"r": float(torch.corrcoef(pair)[0, 1]), "entropy": entropies, "bias": biases}


def read(folder: Path) -> dict[int, list[Record]]:
    """Returns the finished runs of a folder, by their number of draws and in the order of seeds."""
    found: dict[int, list[Record]] = {draws: [] for draws in DRAWS}
    records = finished(folder, ("tau", "temperatures"), [f"draws{draws}" for draws in DRAWS])
    for record in sorted(records, key=lambda r: int(r["settings"]["seed"])):
        found[record["settings"]["draws"]].append(record["result"])
    return {draws: runs for draws, runs in found.items() if runs}


def _seeds(results: Mapping[int, list[Record]]) -> str:
    """Says of how many seeds the rows are; of each row, where some runs are not there."""
    counts = {draws: len(records) for draws, records in results.items()}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} seeds"
    return " and ".join(f"{n} ({draws} draws)" for draws, n in counts.items()) + " seeds"


def run(request: Request) -> None:
    """Runs every seed at both numbers of draws, and reports the distribution of r over seeds."""
    seeds = request.seeds or SEEDS

    def once(seed: int, draws: int) -> Record:
        name = f"draws{draws}"
        common = {"tau": TAU, "temperatures": TEMPERATURES.tolist()}
        settings = common | {"name": name, "seed": seed, "draws": draws}
        label = f"{name}-seed{seed}"
        return run_once(request.out / FOLDER, label, settings, lambda _: measure(seed, draws))

    if request.redraw is not None:
        results = read(request.redraw / FOLDER)
    else:
        results = {draws: [once(seed, draws) for seed in range(seeds)] for draws in DRAWS}
    rows = []
    for draws, records in results.items():
        r = [record["r"] for record in records]
        rows.append(
            [
                str(draws),
                output.cell(mean_std(r)),
                f"{min(r):+.2f} to {max(r):+.2f}",
                str(sum(v < 0 for v in r)),
            ]
        )
    path = request.out / "gmvq-fig3"
    write(
        path.with_suffix(".json"),
        json.dumps({str(d): [r["r"] for r in v] for d, v in results.items()}) + "\n",
    )
    head = ["draws", "Pearson r, mean ± deviation", "range", "negative"]
    notes = [
        f"{_seeds(results)} of net and logits; {len(TEMPERATURES)} temperatures each; the paper "
        f"has one: r = {PAPER}"
    ]
    output.save_report(
        path, "GM-VQ, figure 3: gradient bias against entropy", notes, [markdown.table(head, rows)]
    )
    with output.picture(path, columns=3) as axes:
        for axis, (draws, records) in zip(axes, results.items(), strict=False):
            for record in records:
                scale = fmean(record["bias"])
                axis.plot(record["entropy"], [b / scale for b in record["bias"]], ".", markersize=3)
            axis.set(
                title=f"{draws} draws, a colour a seed",
                xlabel="H(p), nats",
                ylabel="bias over its mean",
            )
        bins = [i / 10 for i in range(-10, 11)]
        for draws, records in results.items():
            axes[2].hist([r["r"] for r in records], bins, alpha=0.5, label=f"{draws} draws")
        axes[2].axvline(PAPER, color="black", linestyle="--", label="paper")
        axes[2].set(title="correlation over seeds", xlabel="Pearson r", ylabel="seeds")
        axes[2].legend()
