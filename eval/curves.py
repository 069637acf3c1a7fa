"""Bjontegaard rates: how many more bytes one codec needs than another at equal quality.

results ──curves_of──> points (rate, quality) of each codec ──bd_rate──> per cent
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from codec.medium import MEDIA
from eval.journal import Record
from eval.metrics import LOWER_IS_BETTER

Curve = dict[str, tuple[float, float]]  # (rate, mean quality) of each setting
LEAST_SHARED = 0.1  # of the narrower curve's qualities: on fewer a mean would stand for one end


def bd_rate(
    anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]]
) -> float | None:
    """Returns Bjontegaard's mean difference in rate at equal quality, in per cent.

    Log rate is interpolated over quality by PCHIP (Bjontegaard 2001; piecewise cubic as in the JVET
    tools) and averaged over the qualities that both curves reach.

    Args:
        anchor: The reference as (rate, quality) points; higher quality is better.
        test: The other curve.

    Returns:
        A negative number where `test` needs fewer bits. None where a curve has fewer than two
        points, or where they share less than a tenth of the narrower curve's range of quality.
    """
    curves = [monotone(points) for points in (anchor, test)]
    if min(map(len, curves)) < 2:
        return None
    low = max(curve[0][1] for curve in curves)
    high = min(curve[-1][1] for curve in curves)
    narrower = min(curve[-1][1] - curve[0][1] for curve in curves)
    if high - low < LEAST_SHARED * narrower:
        return None
    areas = []
    for curve in curves:
        rate, quality = np.array(curve).T
        areas.append(float(PchipInterpolator(quality, np.log(rate)).integrate(low, high)))
    return float(np.expm1((areas[1] - areas[0]) / (high - low)) * 100)


def monotone(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sorts (rate, quality) points by quality, without those that cost more than a better one."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda p: (-p[1], p[0])):
        if not kept or (rate < kept[-1][0] and quality < kept[-1][1]):
            kept.append((rate, quality))
    return kept[::-1]


def curves_of(
    records: list[Record], set_name: str, systems: tuple[str, str], metric: str
) -> tuple[Curve, Curve]:
    """Returns the curves of two systems, over the items that all their settings scored.

    What only one of them scored would move its curve alone. Files at matched bytes are no part of
    a curve. Quality is as measured: of some metrics lower is better.
    """
    points: tuple[dict[str, dict[str, Record]], ...] = ({}, {})
    for record in records:
        if record["set"] == set_name and "matched_to" not in record:
            for of_system, system in zip(points, systems, strict=True):
                if record["system"] == system and record.get(metric) is not None:
                    of_system.setdefault(record["setting"], {})[record["item"]] = record
    scored = [set(items) for of_system in points for items in of_system.values()]
    shared = sorted(set.intersection(*scored)) if scored else []

    def curve(of_system: dict[str, dict[str, Record]]) -> Curve:
        return {
            setting: _point([items[item] for item in shared], metric)
            for setting, items in of_system.items()
            if shared
        }

    return curve(points[0]), curve(points[1])


def _point(records: list[Record], metric: str) -> tuple[float, float]:
    bits = np.array([8 * r["bytes"] / MEDIA[r["medium"]].rate_bits for r in records])
    units = np.array([r["units"] for r in records], np.float64)
    return float(bits.sum() / units.sum()), float(np.mean([r[metric] for r in records]))


def bd_rates(
    records: list[Record], set_name: str, anchor: str, metric: str
) -> dict[str, float | None]:
    """Returns the BD-rate of each other system against the anchor, in one metric.

    See `curves_of`.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    systems = dict.fromkeys(
        r["system"] for r in records if r["set"] == set_name and "matched_to" not in r
    )
    rates = {}
    for system in systems:
        if system != anchor:
            pair = curves_of(records, set_name, (anchor, system), metric)
            first, second = ([(rate, sign * q) for rate, q in c.values()] for c in pair)
            rates[system] = bd_rate(first, second)
    return rates
