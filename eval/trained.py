"""A metric that a model was trained on flatters it.

This is the mark that stands beside such a figure, and what it means.

Three losses of the trainer are metrics or follow one. A model that minimised such a loss has a
better figure than equal work of a codec that never saw it, so every table says of each model which
metrics those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codec.cards import Card

MARK = "†"
# Metric -> the loss that is it or follows it.
LOSSES = {"LPIPS": "lpips", "PESQ": "loudness", "STOI": "stoi"}
JUDGES = {"LPIPS": "MS-SSIM and SSIMULACRA2", "PESQ": "DistillMOS", "STOI": "DistillMOS"}
# Metric of `LOSSES` -> weight in a model's training; None where nobody knows.
Trained = Mapping[str, float] | None


def trained_on(card: Card) -> Trained:
    """Returns the metrics that a model was trained on; None where its card names no losses."""
    if not card.losses:
        return None
    return {metric: card.losses[loss] for metric, loss in LOSSES.items() if card.losses.get(loss)}


def followed(metric: str) -> str | None:
    """Returns the key of `LOSSES` that a metric belongs to; None for any other.

    "LPIPS-vgg" belongs to "LPIPS", and "ESTOI" to "STOI".
    """
    family = "STOI" if metric == "ESTOI" else metric.split("-")[0]
    return family if family in LOSSES else None


def mark(metric: str, trained: Trained) -> str:
    """Returns what stands behind a model's figure: the mark, or nothing."""
    return MARK if trained and followed(metric) in trained else ""


def note(models: Mapping[str, Trained], metrics: Iterable[str]) -> str:
    """Returns the note below a table of these metrics, on all its models.

    It is empty where none of the metrics can be trained on.
    """
    parts = []
    for metric in dict.fromkeys(filter(None, map(followed, metrics))):
        known = {
            name: trained.get(metric, 0.0)
            for name, trained in models.items()
            if trained is not None
        }
        on = [f"{name} (weight {weight:g})" for name, weight in known.items() if weight]
        off = [name for name, weight in known.items() if not weight]
        unknown = [name for name, trained in models.items() if trained is None]
        what = metric if LOSSES[metric] == metric.lower() else f"a loss that follows {metric}"
        if on:
            judge = f"judge by {JUDGES[metric]} where they disagree with it"
            parts.append(
                f"{MARK} Trained on {what}, which flatters there: {', '.join(on)}; {judge}."
            )
        if off:
            parts.append(f"Not trained on {what}: {', '.join(off)}.")
        if unknown:
            parts.append(f"Whether trained on {what} is not known: {', '.join(unknown)}.")
    return " ".join(parts)
