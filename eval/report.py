"""python -m eval.report: the shipped models and what they reach, as Markdown, from their cards.

The figures come from `python -m eval MODEL --data PATH --card NAME` (with `--lpips-backbone FILE` and `--mos` for what
these measure); a test holds docs/models.md to this output.
`python -m eval.report DIR` writes the report of a run, DIR/report.md, anew; `--beside MODEL` prints a short table of it
instead: a model beside the run's classic codecs at equal quality.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from codec.cards import QUALITY_SIZE, Card, list_cards
from codec.cli.frame import Parser, UsageError, filled_path, run
from codec.errors import MediaError
from codec.streams import process
from eval.trained import lpips_weight, mark, note

COLUMNS: dict[str, tuple[str, dict[str, int]]] = {  # unit of the rate; metrics and their decimals
    "speech": ("kbit/s", {"STOI": 3, "PESQ": 2, "DistillMOS": 2}),
    "image": ("bits per pixel", {"PSNR": 2, "SSIM": 3, "MS-SSIM": 3, "SSIMULACRA2": 1, "LPIPS-squeeze": 3}),
}
GROWING = {"speech": "PESQ", "image": "PSNR"}  # what more codes are expected to raise


def kept_in_cards(medium: str, metric: str) -> bool:
    """Whether a card keeps a metric: what the tables show, and LPIPS of every net."""
    return metric in COLUMNS[medium][1] or metric.startswith("LPIPS")


def table(medium: str, cards: list[Card]) -> str:
    """The models side by side: on the first test set at every codebook size, on the others at `QUALITY_SIZE` alone.

    A metric that no card has a figure of has no column. Below stand what the marks mean, what the originals score where
    a metric needs none, and where quality does not grow with the codebook.
    """
    rate, metrics = COLUMNS[medium]
    measured = {key for card in cards for sizes in card.data["results"].values() for r in sizes.values() for key in r}
    metrics = {metric: digits for metric, digits in metrics.items() if metric in measured}
    weights = {card.name: lpips_weight(card) for card in cards}
    sets = list(dict.fromkeys(name for card in cards for name in card.data["results"]))
    found = [
        (sets.index(name), int(size), name, card.name, result)
        for card in cards
        for name, sizes in card.data["results"].items()
        for size, result in sizes.items()
        if name == sets[0] or size == QUALITY_SIZE
    ]
    head = ["test set", "K", "model", rate, *metrics, "coded bits/token", "H0", "CVU"]
    rows = [head, ["---"] * len(head)]
    for _, size, name, model, result in sorted(found, key=lambda entry: entry[:4]):
        quality = [_cell(metric, result, digits, weights[model]) for metric, digits in metrics.items()]
        use = [f"{result['bits_per_token']:.2f}", f"{result['H0']:.2f}", f"{result['CVU']:.2f}"]
        rows.append([f"{name} ({result['items']})", str(size), model, f"{result['rate']:.3f}", *quality, *use])
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = [note(weights) if any(metric.startswith("LPIPS") for metric in metrics) else ""]
    notes += [_originals(metric, digits, cards) for metric, digits in metrics.items()]
    notes += [_growth(GROWING[medium], cards)]
    return "\n\n".join([lines, *filter(None, notes)])


def _originals(metric: str, digits: int, cards: list[Card]) -> str:
    """What the originals score, where a metric needs none."""
    scores = {
        name: result[f"{metric}_originals"]
        for card in cards
        for name, sizes in card.data["results"].items()
        for result in sizes.values()
        if result.get(f"{metric}_originals") is not None
    }
    listed = ", ".join(f"{score:.{digits}f} on {name}" for name, score in scores.items())
    return f"{metric} needs no original; the originals score {listed}." if listed else ""


def _growth(metric: str, cards: list[Card]) -> str:
    """Where quality does not grow with the codebook; all test sets, those not shown in full among them."""
    falls, steps = [], 0
    for card in cards:
        for name, sizes in card.data["results"].items():
            scored = {int(k): result[metric] for k, result in sizes.items() if result.get(metric) is not None}
            for small, large in pairwise(sorted(scored)):
                steps += 1
                if scored[large] <= scored[small]:
                    change = f"{small} to {large} ({scored[small]:.4g} to {scored[large]:.4g})"
                    falls.append(f"{card.name} on {name} from {change}")
    if not steps:
        return ""
    return f"{metric} grows with K on every test set" + (f", but for {'; '.join(falls)}." if falls else ".")


def _cell(metric: str, result: Mapping[str, Any], digits: int, weight: float | None) -> str:
    value = result.get(metric)
    return "-" if value is None else f"{value:.{digits}f}{mark(metric, weight)}"


def report() -> str:
    """Both media, with how each model was trained."""
    parts = []
    for medium, title in (("speech", "Speech"), ("image", "Pictures")):
        cards = [card for card in list_cards() if card.medium == medium and card.data.get("results")]
        notes = [_trained(card) for card in cards]
        parts.append(f"### {title}\n\n" + "\n".join(notes) + "\n\n" + table(medium, cards))
    return "\n\n".join(parts) + "\n"


def _trained(card: Card) -> str:
    how = card.data["training"]
    hardware = how.get("hardware", "an unnamed machine")
    size = f"{card.data['parameters'] / 1e6:.2f} M parameters"
    name, _, rest = (how.get("init") or "").replace(", ", " , ", 1).partition(" ")
    begun = f", begun from `{name}` ({rest.partition(', ')[2]})" if name else ""
    return f"`{card.name}`: {size}, {how['minutes']:.0f} minutes on {hardware}, seed {how['seed']}{begun}."


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m eval.report", description=__doc__, epilog="See docs/evaluate.md")
    parser.add_argument("run", nargs="?", type=filled_path, metavar="DIR", help="what python -m eval --out DIR left")
    parser.add_argument("--anchor", metavar="NAME", help="of BD-rates; default: the first baseline of a medium")
    parser.add_argument("--beside", metavar="MODEL", help="print this model beside classic codecs at equal quality")
    parser.add_argument("--metric", metavar="NAME", help="of --beside; default: STOI, SSIM")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    if options.run is None:
        if options.beside:
            raise UsageError("--beside is of a run; name its DIR")
        sys.stdout.write(report())
        return
    if options.beside:
        from eval import beside

        print(beside.table(_results(options.run), options.beside, options.metric))
        return
    from eval import paper  # matplotlib: the cards do without

    print(f"report: {paper.write(options.run, options.anchor)}")


def _results(folder: Path) -> dict[str, Any]:
    """What a run measured. Raises MediaError where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MediaError(f"{folder}: no finished run ({error}); run python -m eval --out {folder}") from None
    return found


if __name__ == "__main__":
    sys.exit(process(main))
