"""The shipped models and what they reach, as Markdown, from their cards.

The figures come from `python -m eval MODEL --data PATH --card NAME` (with `--lpips-backbone FILE`
and `--mos` for what these measure); a test holds docs/models.md to this output.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from codec.cards import QUALITY_SIZE, Card, list_cards
from codec.medium import MEDIA
from eval import markdown
from eval.trained import Trained, mark, note, trained_on

TITLES = {"speech": "Speech", "image": "Pictures"}
SHOWN: dict[str, dict[str, int]] = {  # with their decimals
    "speech": {"STOI": 3, "PESQ": 2, "DistillMOS": 2},
    "image": {"PSNR": 2, "SSIM": 3, "MS-SSIM": 3, "SSIMULACRA2": 1, "LPIPS-squeeze": 3},
}
GROWING = {"speech": "PESQ", "image": "PSNR"}  # what more codes are expected to raise


def kept_in_cards(medium: str, metric: str) -> bool:
    """Says whether a card keeps a metric: one that the tables show, or LPIPS of any net."""
    return metric in SHOWN[medium] or metric.startswith("LPIPS")


def table(medium: str, cards: list[Card]) -> str:
    """Returns a table with the models side by side, and notes below it.

    On the first test set it has every codebook size, on the others `QUALITY_SIZE` alone. A metric
    that no card has a figure of has no column. The notes say what the marks mean, what the
    originals score where a metric needs no original, and where quality does not grow with the
    codebook.
    """
    rate, metrics = MEDIA[medium].rate_unit, SHOWN[medium]
    measured = {
        key
        for card in cards
        for sizes in card.data["results"].values()
        for r in sizes.values()
        for key in r
    }
    metrics = {metric: digits for metric, digits in metrics.items() if metric in measured}
    trained = {card.name: trained_on(card) for card in cards}
    sets = list(dict.fromkeys(name for card in cards for name in card.data["results"]))
    found = [
        (sets.index(name), int(size), name, card.name, result)
        for card in cards
        for name, sizes in card.data["results"].items()
        for size, result in sizes.items()
        if name == sets[0] or size == QUALITY_SIZE
    ]
    head = ["test set", "K", "model", rate, *metrics, "coded bits/token", "H0", "CVU"]
    rows = []
    for _, size, name, model, result in sorted(found, key=lambda entry: entry[:4]):
        quality = [
            _cell(metric, result, digits, trained[model]) for metric, digits in metrics.items()
        ]
        use = [f"{result['bits_per_token']:.2f}", f"{result['H0']:.2f}", f"{result['CVU']:.2f}"]
        rows.append(
            [
                f"{name} ({result['items']})",
                str(size),
                model,
                f"{result['rate']:.3f}",
                *quality,
                *use,
            ]
        )
    notes = [note(trained, metrics)]
    notes += [_originals(metric, digits, cards) for metric, digits in metrics.items()]
    notes += [_growth(GROWING[medium], cards)]
    return "\n\n".join([markdown.table(head, rows), *filter(None, notes)])


def _originals(metric: str, digits: int, cards: list[Card]) -> str:
    """Says what the originals score in a metric that needs no original."""
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
    """Says where quality does not grow with the codebook, on any test set."""
    falls, steps = [], 0
    for card in cards:
        for name, sizes in card.data["results"].items():
            scored = {
                int(k): result[metric]
                for k, result in sizes.items()
                if result.get(metric) is not None
            }
            for small, large in pairwise(sorted(scored)):
                steps += 1
                if scored[large] <= scored[small]:
                    change = f"{small} to {large} ({scored[small]:.4g} to {scored[large]:.4g})"
                    falls.append(f"{card.name} on {name} from {change}")
    if not steps:
        return ""
    return f"{metric} grows with K on every test set" + (
        f", but for {'; '.join(falls)}." if falls else "."
    )


def _cell(metric: str, result: Mapping[str, Any], digits: int, trained: Trained) -> str:
    value = result.get(metric)
    return "-" if value is None else f"{value:.{digits}f}{mark(metric, trained)}"


def tables() -> str:
    """Returns a table for each medium, with how each model was trained."""
    parts = []
    for medium, title in TITLES.items():
        cards = [
            card for card in list_cards() if card.medium == medium and card.data.get("results")
        ]
        notes = [_trained(card) for card in cards]
        parts.append(f"### {title}\n\n" + "\n".join(notes) + "\n\n" + table(medium, cards))
    return "\n\n".join(parts) + "\n"


def _trained(card: Card) -> str:
    """Says how a model was trained, and how it was trained on or tuned afterwards."""
    how, tuned = card.data["training"], ""
    while before := how.get("begun_from"):
        what = "its decoder tuned" if set(how["recipe"]["stages"]) == {"C"} else "trained on"
        tuned, how = f"; {what} for {_minutes(how)}{tuned}", before
    size = f"{card.data['parameters'] / 1e6:.2f} M parameters"
    name, _, rest = (how.get("init") or "").replace(", ", " , ", 1).partition(" ")
    begun = f", begun from `{name}` ({rest.partition(', ')[2]})" if name else ""
    return f"`{card.name}`: {size}, {_minutes(how)}{begun}{tuned}."


def _minutes(training: Mapping[str, Any]) -> str:
    hardware = training.get("hardware", "an unnamed machine")
    return f"{training['minutes']:.0f} minutes on {hardware}, seed {training['seed']}"
