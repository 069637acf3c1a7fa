"""What a run's records say together.

These are means with their uncertainty, codebook use and speeds. Bjontegaard rates are in
`eval.curves`.

A mean never hides what it leaves out: each statistic carries the number of items scored, the number
there were, and the reasons for the difference. Quality is a mean over items; a rate is of the whole
set, total bits over total seconds, pixels or tokens.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap

from codec.errors import MediaError
from codec.files import writing
from codec.medium import MEDIA
from eval.experiments.usage import hard_usage
from eval.journal import Journal, Record, unpack_tokens
from eval.plan import FORMAT

RESAMPLES = 2000
CONFIDENCE = 0.95
# Of perplexity_hard_batch: 256 pictures of 8 x 8 tokens, the GM-VQ paper's batch.
BATCH_TOKENS = 256 * 64
RESULTS_NAME = "results.json"
NOT_METRICS = {
    "set",
    "item",
    "medium",
    "system",
    "setting",
    "matched_to",
    "chosen",
    "bytes",
    "payload_bytes",
    "units",
    "perplexity_soft",
    "unscored",
}


def statistic(values: Sequence[float | None], seed: str = "") -> Record:
    """Returns mean, standard error and 95 % bootstrap interval of what was scored.

    The interval is between percentiles of 2000 resampled means.

    Args:
        values: A value for each item; None where it was not scored.
        seed: A text that the resampling starts from, so that it can be repeated.
    """
    scored = np.array([value for value in values if value is not None], np.float64)
    result: Record = {
        "mean": None,
        "se": None,
        "low": None,
        "high": None,
        "scored": len(scored),
        "of": len(values),
    }
    return result | (_pooled(scored, np.ones(len(scored)), seed) if len(scored) else {})


def total_rate(amounts: Sequence[float], units: Sequence[float], seed: str = "") -> Record:
    """Returns the rate of a whole set: the sum of amounts over the sum of units.

    It is not the mean of the items' own rates: a clip of one sample has hundreds of kbit/s, as its
    file is nearly all container, and must weigh one sample. "mean" is the rate, the mean over all
    units; "se" and the interval are as in `statistic`, with items as what is drawn.

    Args:
        amounts: The amount of each item, such as its bits.
        units: The units of each item, such as its seconds or pixels; their sum is above 0.
        seed: See `statistic`.
    """
    found = _pooled(np.asarray(amounts, np.float64), np.asarray(units, np.float64), seed)
    return (
        {"mean": None, "se": None, "low": None, "high": None}
        | found
        | {"scored": len(units), "of": len(units)}
    )


def _pooled(amounts: NDArray[np.float64], units: NDArray[np.float64], seed: str) -> Record:
    """Returns sum over sum, and from two items on its standard error and interval.

    The standard error is that of a ratio (Cochran 1977, section 2.11).
    """
    mean = float(amounts.sum() / units.sum())
    if len(amounts) < 2:
        return {"mean": mean}
    errors = amounts - mean * units
    low = high = mean
    if np.ptp(amounts) > 0 or np.ptp(units) > 0:
        found = bootstrap(
            (amounts, units),
            _sum_over_sum,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            paired=True,
            vectorized=True,
            rng=np.random.default_rng(zlib.crc32(seed.encode())),
            batch=max(1, 2**21 // len(amounts)),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    se = float(np.sqrt((errors**2).sum() / (len(errors) - 1) / len(errors)) / units.mean())
    return {"mean": mean, "se": se, "low": low, "high": high}


def _sum_over_sum(
    amounts: NDArray[np.float64], units: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    return np.asarray(amounts.sum(axis) / units.sum(axis))


def summarise(journal: Journal) -> Record:
    """Returns what results.json holds.

    These are the plan with its sets, the summary, skipped and failed items, notices on those that
    were measured, and the records in the order of the items.
    """
    lines = [journal.lines[key] for key in sorted(journal.lines)]
    records = [
        {"set": line["set"], "item": line["item"], "medium": line["medium"]} | record
        for line in lines
        for record in line["records"]
    ]
    skipped = [
        {"set": line["set"], "item": line["item"], "reason": line["skipped"]}
        for line in lines
        if "skipped" in line
    ]
    sets = journal.header["sets"]
    for name, one in sets.items():
        skipped += [
            {"set": name, "item": item, "reason": "a second item of this name"}
            for item in one["duplicates"]
        ]
    failures = [
        {"set": line["set"], "item": line["item"]} | failed
        for line in lines
        for failed in line.get("failed", [])
    ]
    return {
        "format": FORMAT,
        "plan": journal.header,
        "summary": [
            _summarise(group, lines, failures)
            for group in _groups(records, [model[0] for model in journal.header["models"]])
        ],
        "originals": _originals(lines),
        "skipped": sorted(skipped, key=lambda s: (s["set"], s["item"])),
        "failed": failures,
        "notices": [
            {"set": line["set"], "item": line["item"], "reason": notice}
            for line in lines
            for notice in line.get("notices", [])
        ],
        "records": records,
    }


def _groups(records: list[Record], models: list[str]) -> list[list[Record]]:
    """Groups records by set, system and setting; models first, then in the order of the plan."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["set"], record["system"], record["setting"]), []).append(record)
    order = list(dict.fromkeys(key[1:] for key in groups))
    rank = {key: (key[0] not in models, order.index(key)) for key in order}
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0], rank[key[1:]]))]


def _summarise(records: list[Record], lines: list[Record], failures: list[Record]) -> Record:
    first = records[0]
    name, system, setting, medium = (first[key] for key in ("set", "system", "setting", "medium"))
    seed = f"{name}/{system}/{setting}"
    scale = MEDIA[medium].rate_bits
    summary: Record = {
        "set": name,
        "system": system,
        "setting": setting,
        "medium": medium,
        "items": len(records),
    }
    summary["failed"] = sum(
        (f["set"], f["system"], f["setting"]) == (name, system, setting) for f in failures
    )
    if "matched_to" in first:
        summary["matched_to"] = first["matched_to"]
        summary["bytes_off"] = _bytes_off(records, lines, f"{seed}/bytes_off")
    for rate, size in (("rate", "bytes"), ("payload_rate", "payload_bytes")):
        bits = [8 * record[size] / scale for record in records]
        summary[rate] = total_rate(bits, [record["units"] for record in records], f"{seed}/{rate}")
    names = [key for key in first if key not in NOT_METRICS]
    summary["metrics"] = {
        n: statistic([record[n] for record in records], f"{seed}/{n}") for n in names
    }
    summary["unscored"] = {
        n: dict(
            sorted(Counter(r["unscored"][n] for r in records if n in r.get("unscored", {})).items())
        )
        for n in names
        if any(n in record.get("unscored", {}) for record in records)
    }
    key = f"{system} {setting}"
    packed = [
        line["tokens"][key]
        for line in lines
        if line["set"] == name and key in line.get("tokens", {})
    ]
    if packed:
        payload_bits = 8 * sum(record["payload_bytes"] for record in records)
        soft = [record.get("perplexity_soft") for record in records]
        found = use(
            [unpack_tokens(p["indices"]) for p in packed], packed[0]["num_codes"], payload_bits
        )
        summary["use"] = found | {"perplexity_soft_batch": statistic(soft)["mean"]}
    return summary


def _originals(lines: list[Record]) -> list[Record]:
    """Returns what metrics without an original say of the originals, for each set and metric."""
    groups: dict[tuple[str, str], list[float | None]] = {}
    for line in lines:
        for metric, value in line.get("original", {}).items():
            groups.setdefault((line["set"], metric), []).append(value)
    return [
        {"set": name, "metric": metric} | statistic(values, f"{name}/originals/{metric}")
        for (name, metric), values in groups.items()
    ]


def _bytes_off(records: list[Record], lines: list[Record], seed: str) -> Record:
    """Returns by how many per cent matched files are larger than their targets, all together."""
    target = {
        line["item"]: r["bytes"]
        for line in lines
        if line["set"] == records[0]["set"]
        for r in line["records"]
        if f"{r['system']} {r['setting']}" == records[0]["matched_to"]
    }
    wanted = [target[record["item"]] for record in records]
    return total_rate(
        [100 * (r["bytes"] - size) for r, size in zip(records, wanted, strict=True)], wanted, seed
    )


def use(tokens: Iterable[np.ndarray], num_codes: int, payload_bits: int) -> Record:
    """Returns the use of a codebook over a test set, see docs/methods/metrics.md.

    Of several streams it is the mean over streams.

    Args:
        tokens: The (G, n) indices of each item, in order.
        num_codes: The number of codes K that a stream really has.
        payload_bits: The sum of the bits of all payloads.
    """
    together = np.concatenate(list(tokens), 1)
    size = min(BATCH_TOKENS, together.shape[1])
    batches = [torch.from_numpy(stream.copy()).split(size) for stream in together]
    per_stream = [hard_usage(list(stream), num_codes) for stream in batches]
    mean = {key: float(np.mean([stream[key] for stream in per_stream])) for key in per_stream[0]}
    return {
        "num_codes": num_codes,
        "tokens": int(together.size),
        "bits_per_token": payload_bits / together.size,
        "H0": mean["h0"],
        "CVU": mean["cvu"],
        "used": mean["used"],
        "perplexity_hard_batch": mean["perplexity_hard_batch"],
        "batch_tokens": size,
        "perplexity_hard_global": mean["perplexity_hard_global"],
    }


def speeds(journal: Journal) -> list[Record]:
    """Returns the speeds of each system and setting, and the peak memory of a worker.

    Speeds are in seconds of speech a second, or pixels a second.
    """
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    peak: dict[str, int] = {}
    for _, line in sorted(journal.lines.items()):
        if "timing" not in line:
            continue
        peak[line["medium"]] = max(peak.get(line["medium"], 0), line["timing"]["peak_bytes"])
        for timing in line["timing"]["systems"]:
            key = (line["set"], timing["system"], timing["setting"], line["medium"])
            groups.setdefault(key, []).append(timing)
    return [
        {
            "set": name,
            "system": system,
            "setting": setting,
            "medium": medium,
            "encode_speed": sum(t["units"] for t in timings)
            / max(sum(t["encode_s"] for t in timings), 1e-9),
            "decode_speed": sum(t["units"] for t in timings)
            / max(sum(t["decode_s"] for t in timings), 1e-9),
            "encode_s": sum(t["encode_s"] for t in timings),
            "decode_s": sum(t["decode_s"] for t in timings),
            "worker_peak_bytes": peak[medium],
        }
        for (name, system, setting, medium), timings in groups.items()
    ]


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    with writing(str(path), force=True) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def read_results(folder: Path, name: str = RESULTS_NAME) -> Any:
    """Reads what a finished run left in a file of its folder.

    Raises:
        MediaError: There is no finished run.
    """
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        if name == RESULTS_NAME and not {"plan", "summary", "records"} <= dict(found).keys():
            raise ValueError(f"{name} is not of this program")
    except (OSError, ValueError, TypeError) as error:
        raise MediaError(
            f"{folder}: no finished run ({error}); run python -m eval --out {folder}"
        ) from None
    return found
