"""Differences between two runs, paired by item, and which of them are regressions.

A, B ─pairs of (set, system, setting)─> items of both ─differences─> a finding each
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from codec.errors import MediaError
from eval.metrics import LOWER_IS_BETTER, NO_DIFFERENCE
from eval.summary import NOT_METRICS, statistic, total_rate

Record = dict[str, Any]
Values = NDArray[np.float64]
Key = tuple[str, str, str]  # set, system, setting
MATCHED = "@ "  # begins the setting of a classic codec at the bytes of a model
LEVEL = 0.05
FEWEST = 6  # differences that are not 0; six of one sign have p = 1/32, and five 1/16
MARGINS = {  # that of the rate is a share of A's
    "PSNR": 0.1, "SSIMULACRA2": 0.5, "SI-SDR": 0.1, "PESQ": 0.02, "DistillMOS": 0.02, "rate": 0.01,
}  # fmt: skip
FAR = 10  # margins; an item that is worse by more is named
OTHER_MARGIN = 0.005  # of metrics that are not among these


@dataclass(frozen=True, slots=True)
class Finding:
    """How one metric of one system differs between two runs, over the items that both scored.

    Attributes:
        what: The set, system and setting.
        metric: The name of the metric; "rate" is that of the file.
        a, b: The means; that of B is None where it scored nothing.
        low, high: The 95 % interval of the difference B - A, where it is known.
        p: How often chance makes a difference in this direction, times two.
        items: The number of items that both scored.
        lost: The number of items that A scored and B did not, or that only A gave back exactly.
        regressed: Whether B is worse beyond the margin.
        worst: The item that is worse by most, if that is `FAR` margins or more.
        worst_by: Its difference B - A.
    """

    what: str
    metric: str
    a: float
    b: float | None
    low: float | None
    high: float | None
    p: float | None
    items: int
    lost: int
    regressed: bool
    worst: str | None = None
    worst_by: float | None = None


def compare(a: Record, b: Record, same: dict[str, str], margins: dict[str, float]) -> list[Finding]:
    """Compares two runs in all metrics of all systems that both have.

    A setting of such a system that B lacks makes one finding, of the rate.

    Args:
        a: The content of a results.json, the reference.
        b: The content of another.
        same: For a system of A, the one of B that it is held against, where it is called otherwise.
        margins: For each metric, how much worse is too much; for "rate" as a share of A's.

    Raises:
        MediaError: They have no set, system and setting in common, or a pair has no item in common.
    """
    of_a, of_b = _by_key(a, same), _by_key(b, {})
    lost = _lost(of_a, of_b, b)
    shared = [key for key in of_a if key in of_b]
    if not shared and not lost:
        have = [
            ", ".join(sorted({" ".join(key) for key in found})[:4]) or "nothing"
            for found in (of_a, of_b)
        ]
        raise MediaError(
            f"nothing to compare: A has {have[0]} ..., B has {have[1]} ...; pair models by --as A=B"
        )
    findings = [
        finding
        for key in lost
        if (finding := _finding(" ".join(key), "rate", of_a[key], {}, margins)) is not None
    ]
    for key in shared:
        items = [item for item in of_a[key] if item in of_b[key]]
        if not items:
            raise MediaError(f"{' '.join(key)}: A and B have no item in common")
        measured = _metrics(of_b[key])
        for metric in ("rate", *(m for m in _metrics(of_a[key]) if m in measured)):
            finding = _finding(" ".join(key), metric, of_a[key], of_b[key], margins)
            if finding is not None:
                findings.append(finding)
    return findings


def unlike(a: Record, b: Record) -> list[str]:
    """Says in what two runs differ that may be why their figures do.

    Raises:
        MediaError: A set was cropped, or brought to a level, in another way.
    """
    plans = [results.get("plan", {}) for results in (a, b)]
    sets = [plan.get("sets", {}) for plan in plans]
    notices = []
    for name in sets[0].keys() & sets[1].keys():
        ours, theirs = (one[name] for one in sets)
        for key in ("crop", "level_dbfs"):
            if ours.get(key) != theirs.get(key):
                raise MediaError(
                    f"{name}: A has {key} {ours.get(key)} and B {theirs.get(key)}; runs are "
                    "compared on the same data"
                )
        if ours.get("listing") != theirs.get("listing"):
            notices.append(f"{name}: A and B are of other items, or of files that were changed")
    packages = [plan.get("packages", {}) for plan in plans]
    changed = [
        f"{name} {packages[0].get(name)} and {packages[1].get(name)}"
        for name in sorted(packages[0].keys() | packages[1].keys())
        if name != "codec" and packages[0].get(name) != packages[1].get(name)
    ]
    if changed and all(packages):
        notices.append(f"A and B were measured with {', '.join(changed)}")
    return notices


def unmeasured(a: Record, b: Record, same: dict[str, str]) -> list[str]:
    """Names the metrics that A has of a system, and B measured on none of that system's items."""
    of_a, of_b = _by_key(a, same), _by_key(b, {})
    return list(
        dict.fromkeys(
            metric
            for key in of_a.keys() & of_b.keys()
            for metric in sorted(_metrics(of_a[key]).keys() - _metrics(of_b[key]).keys())
        )
    )


def _metrics(records: dict[str, Record]) -> dict[str, None]:
    """Names the metrics that were measured, whether or not they had a value."""
    return dict.fromkeys(
        key for record in records.values() for key in record if key not in NOT_METRICS
    )


def _by_key(results: Record, same: dict[str, str]) -> dict[Key, dict[str, Record]]:
    """Returns a run's records by set, system and setting, and then by item.

    A system that has the name of another's partner in `same` has none itself, and is left out.
    """
    taken = set(same.values()) - same.keys()
    found: dict[Key, dict[str, Record]] = {}
    for record in results["records"]:
        if "matched_to" not in record and record["system"] not in taken:
            system = same.get(record["system"], record["system"])
            found.setdefault((record["set"], system, record["setting"]), {})[record["item"]] = (
                record
            )
    return found


def _lost(of_a: Iterable[Key], of_b: Iterable[Key], b: Record) -> list[Key]:
    """Returns the keys of A that B lacks, of systems that B measured or tried to measure.

    A classic codec that failed at matched bytes says nothing of its curve, which B may do without.
    """
    tried = {key[:2] for key in of_b} | {
        (failed["set"], failed["system"])
        for failed in b.get("failed", [])
        if not failed["setting"].startswith(MATCHED)
    }
    return [key for key in of_a if key not in of_b and key[:2] in tried]


def _finding(
    what: str, metric: str, a: dict[str, Record], b: dict[str, Record], margins: dict[str, float]
) -> Finding | None:
    scored = {
        item: value for item, record in a.items() if (value := _value(record, metric)) is not None
    }
    both = [item for item in scored if item in b and _value(b[item], metric) is not None]
    lost = sum(_rank(b.get(item), metric) < _rank(record, metric) for item, record in a.items())
    if not scored or not (both or lost):
        return None
    if not both:
        of_scored = np.array([a[item]["units"] for item in scored], np.float64)
        before = _mean(metric, np.array(list(scored.values())), of_scored)
        return Finding(what, metric, before, None, None, None, None, 0, lost, True)
    units = np.array([a[item]["units"] for item in both], np.float64)
    x = np.array([scored[item] for item in both])
    y = np.array([_value(b[item], metric) for item in both], np.float64)
    differences = y - x
    differing = int(np.count_nonzero(differences))  # the test leaves the others out
    if metric == "rate":
        spread = total_rate((differences * units).tolist(), units.tolist(), what + metric)
    else:
        spread = statistic(differences.tolist(), what + metric)
    before = _mean(metric, x, units)
    change = float(spread["mean"])
    # Against the ranks' own direction the mean was moved by few items, which proves nothing.
    direction = "greater" if change > 0 else "less"
    one_sided = float(wilcoxon(differences, alternative=direction).pvalue) if differing else 1.0
    p = min(1.0, 2 * one_sided)
    sign = 1 if metric in LOWER_IS_BETTER or metric == "rate" else -1
    margin = margins.get(metric, OTHER_MARGIN) * (before if metric == "rate" else 1)
    regressed = bool(lost) or (sign * change > margin and (p < LEVEL or differing < FEWEST))
    last = int((sign * differences).argmax())
    far = sign * float(differences[last]) > FAR * margin
    return Finding(
        what, metric, before, before + change, spread["low"], spread["high"], p, len(both), lost,
        regressed, both[last] if far else None, float(differences[last]) if far else None,
    )  # fmt: skip


def _mean(metric: str, values: Values, units: Values) -> float:
    """Returns the mean over items, where a rate weighs as many seconds or pixels as it is of."""
    return float(np.average(values, weights=units if metric == "rate" else None))


def _rank(record: Record | None, metric: str) -> int:
    """Returns 0 without a value, 1 with one, and 2 where there is none for want of a difference."""
    if record is not None and record.get("unscored", {}).get(metric) == NO_DIFFERENCE:
        return 2
    return int(record is not None and _value(record, metric) is not None)


def _value(record: Record, metric: str) -> float | None:
    return 8 * record["bytes"] / record["units"] if metric == "rate" else record.get(metric)
