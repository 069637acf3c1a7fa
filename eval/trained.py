"""A metric that a model was trained on flatters it.

This is the mark that stands beside such a figure, and what it means.

Some losses of the trainer are metrics or follow one. A model that minimised such a loss has a
better figure than equal work of a codec that never saw it, so every table says of each model which
metrics those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codec.cards import Card

MARK = "†"
# Metric -> the loss that is it or follows it.
LOSSES = {
    "PSNR": "mse",
    "SSIM": "ssim",
    "LPIPS": "lpips",
    "PESQ": "loudness",
    "STOI": "stoi",
    "STFT": "stft",
    "mel": "mel",
}
FAMILIES = {"MS-SSIM": "SSIM", "ESTOI": "STOI"}  # a metric -> the metric that it varies
# Metric -> one of the same medium that no loss of the trainer follows.
JUDGES = dict.fromkeys(("PSNR", "SSIM", "LPIPS"), "SSIMULACRA2") | dict.fromkeys(
    ("PESQ", "STOI", "STFT", "mel"), "DistillMOS"
)
# Metric of `LOSSES` -> weight in a model's training; None where nobody knows.
Trained = Mapping[str, float] | None


def trained_on(card: Card, searched: bool = False) -> Trained:
    """Returns the metrics that a model was trained on; None where its card names no losses.

    With `searched` those that the encoder's search makes better, too, which flatters as well.
    """
    if not card.losses:
        return None
    losses = dict(card.losses)
    if searched:
        from codec.coding.search import AIMS  # and torch, for which the app's page does not wait

        losses |= AIMS[card.medium].weights
    return {metric: losses[loss] for metric, loss in LOSSES.items() if losses.get(loss)}


def followed(metric: str) -> str | None:
    """Returns the key of `LOSSES` that a metric belongs to; None for any other.

    "LPIPS-vgg" belongs to "LPIPS", "MS-SSIM" to "SSIM" and "ESTOI" to "STOI".
    """
    family = FAMILIES.get(metric) or metric.split("-")[0]
    return family if family in LOSSES else None


def mark(metric: str, trained: Trained) -> str:
    """Returns what stands behind a model's figure: the mark, or nothing."""
    return MARK if trained and followed(metric) in trained else ""


def _has_figures(trained: Mapping[str, float], judge: str) -> bool:
    """Whether a model may have figures of the metrics with this judge: not of another medium's."""
    return not trained or judge in {JUDGES[metric] for metric in trained}


def _grouped(metrics_of: Mapping[tuple[str, ...], list[str]]) -> str:
    """Lists metrics, and behind those of the same models these."""
    return ", ".join(
        f"{', '.join(metrics)} ({', '.join(models)})" for models, metrics in metrics_of.items()
    )


def note(models: Mapping[str, Trained], metrics: Iterable[str]) -> str:
    """Returns the note below a table of these metrics, on all its models.

    Of what to judge by it says whether that is in the table, or where to get it.

    It is empty where no model was trained on any of them, as far as their cards tell.
    """
    metrics = list(dict.fromkeys(metrics))
    known = {name: trained for name, trained in models.items() if trained is not None}
    on, off = dict[tuple[str, ...], list[str]](), dict[tuple[str, ...], list[str]]()
    judges = []
    for metric in metrics:
        family = followed(metric)
        if family is None:
            continue
        names = tuple(name for name, trained in known.items() if family in trained)
        others = tuple(
            name
            for name, trained in known.items()
            if name not in names and _has_figures(trained, JUDGES[family])
        )
        if names:
            on.setdefault(names, []).append(metric)
            judges.append(JUDGES[family])
            if others:
                off.setdefault(others, []).append(metric)
    unknown = [name for name, trained in models.items() if trained is None]
    parts = []
    if on:
        parts.append(
            f"{MARK} The model was trained on this metric or on a loss that follows it, which "
            f"flatters: {_grouped(on)}."
        )
        here = [judge for judge in dict.fromkeys(judges) if judge in metrics]
        away = [judge for judge in dict.fromkeys(judges) if judge not in metrics]
        if here:
            parts.append(f"Judge by {' and '.join(here)}.")
        if away:
            parts.append(f"To judge, see {' and '.join(away)} of python -m eval.")
    if off:
        parts.append(f"Not trained on {_grouped(off)}.")
    if unknown and any(map(followed, metrics)):
        parts.append(f"What was trained on is not known of {', '.join(unknown)}.")
    return " ".join(parts)
