"""A metric that a model was trained on flatters it: the mark that stands beside such a figure, and what it means.

Of the metrics only LPIPS is a loss of the trainer. A model that minimised it has a better LPIPS than pictures of equal
worth that come from a codec which never saw it, so every table says of each model which of the two it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from codec.cards import Card

MARK = "†"
Weights = Mapping[str, float | None]  # model -> weight of LPIPS in its training, 0 for none; None where nobody knows


def lpips_weight(card: Card) -> float | None:
    """Returns the weight of LPIPS among a model's losses; None where its card names no losses."""
    return card.losses.get("lpips", 0.0) if card.losses else None


def mark(metric: str, weight: float | None) -> str:
    """Returns what stands behind a model's figure: the mark, or nothing."""
    return MARK if metric.startswith("LPIPS") and weight else ""


def note(weights: Weights) -> str:
    """Returns the note below a table with LPIPS, on all its models; empty where there is none."""
    on = [f"{name} (weight {weight:g})" for name, weight in weights.items() if weight]
    off = [name for name, weight in weights.items() if weight == 0]
    unknown = [name for name, weight in weights.items() if weight is None]
    parts = []
    if on:
        parts.append(
            f"{MARK} Trained on LPIPS, which flatters there: {', '.join(on)}; judge by MS-SSIM and SSIMULACRA2 where "
            "they disagree with it."
        )
    if off:
        parts.append(f"Not trained on LPIPS: {', '.join(off)}.")
    if unknown:
        parts.append(f"Whether trained on LPIPS is not known: {', '.join(unknown)}.")
    return " ".join(parts)
