"""One model beside classic codecs at equal quality, in a short table: what a README shows.

results.json ─curves of the classic codecs─> the rate that each needs for the model's quality
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from codec.errors import MediaError
from codec.medium import MEDIA
from eval import markdown
from eval.baselines import title_of
from eval.curves import Curve, curves_of, monotone
from eval.metrics import DECIMALS, LOWER_IS_BETTER, METRICS
from eval.signals import SIGNALS
from eval.trained import Trained, mark, note

Record = dict[str, Any]
DIGITS = {"speech": 2, "image": 3}  # decimals of a rate


def rate_at(curve: Sequence[tuple[float, float]], quality: float) -> float | None:
    """The rate at which a curve reaches a quality, log rate interpolated over quality (PCHIP).

    Args:
        curve: (rate, quality) points, quality higher is better; one that costs more than a better
            one is left out.
        quality: Wanted.

    Returns:
        In the curve's unit; None outside the qualities that the curve has.
    """
    kept = monotone(curve)
    if len(kept) < 2 or not kept[0][1] <= quality <= kept[-1][1]:
        return None
    rates, values = np.array(kept).T
    return float(np.exp(PchipInterpolator(values, np.log(rates))(quality)))


def table(results: Record, model: str, metric: str | None = None) -> str:
    """A model's rates and qualities at each codebook size.

    Beside them stand the rates of classic codecs at the same quality.

    Args:
        results: The content of DIR/results.json, which `python -m eval MODEL --baselines NAMES
            --out DIR` wrote.
        model: The model that the rows are of; its first test set is taken.
        metric: The metric in which the codecs are equal; by default the one that the default model
            is chosen by, STOI or SSIM.

    Returns:
        Markdown, with a line above that names the set and one below that says which metrics the
        model was trained on.

    Raises:
        MediaError: The run does not have the model, or not the metric.
    """
    rows = [e for e in results["summary"] if e["system"] == model and "matched_to" not in e]
    if not rows:
        known = sorted({entry["system"] for entry in results["summary"]})
        raise MediaError(f"no {model} in this run; there are {', '.join(known)}")
    name, medium = rows[0]["set"], rows[0]["medium"]
    rows = [row for row in rows if row["set"] == name]
    metric = metric or MEDIA[medium].quality
    if metric not in rows[0]["metrics"]:
        raise MediaError(
            f"{metric} was not measured in this run; there are {', '.join(rows[0]['metrics'])}"
        )
    metrics = [key for key in rows[0]["metrics"] if key in (*METRICS[medium], metric)]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    others = list(dict.fromkeys(
        e["system"] for e in results["summary"]
        if e["set"] == name and e["medium"] == medium and "use" not in e and "matched_to" not in e
    ))  # fmt: skip
    pairs = {other: curves_of(results["records"], name, (model, other), metric) for other in others}
    trained: Trained = (results.get("plan", {}).get("trained_on") or {}).get(model)
    unit, digits = MEDIA[medium].rate_unit, DIGITS[medium]
    head = [
        "K",
        unit,
        *metrics,
        *(f"{title_of(other)} at equal {metric}" for other in others),
    ]
    lines = []
    for row in rows:
        needed = [_needed(*pairs[other], row["setting"], sign) for other in others]
        lines.append([
            row["setting"],
            f"{row['rate']['mean']:.{digits}f}",
            *(
                _number(row["metrics"][key]["mean"], DECIMALS.get(key, 3), mark(key, trained))
                for key in metrics
            ),
            *(_number(rate, digits) for rate in needed),
        ])  # fmt: skip
    items = f"{rows[0]['items']} {SIGNALS[medium].items} of {name}"
    above = f"`{model}` on {items}. A dash: no file that was measured has this quality."
    fewer = [
        f"{key} of {least} of them"
        for key in metrics
        if (least := min(row["metrics"][key]["scored"] for row in rows)) < rows[0]["items"]
    ]
    above += f" Scored: {', '.join(fewer)}." if fewer else ""
    parts = [above, markdown.table(head, lines), note({model: trained}, metrics)]
    return "\n\n".join(part for part in parts if part)


def _needed(ours: Curve, theirs: Curve, setting: str, sign: int) -> float | None:
    """Returns the rate at which their curve has the quality of one of our settings."""
    if setting not in ours:
        return None
    return rate_at([(rate, sign * q) for rate, q in theirs.values()], sign * ours[setting][1])


def _number(value: float | None, digits: int, mark: str = "") -> str:
    return "–" if value is None else f"{value:.{digits}f}{mark}"
