"""python -m eval MODEL... --data PATH: compresses to real bitstreams, decompresses them, measures.

PATH is a folder, a .tar or a media file. Prints a line for each size; --out keeps one record per item and size as JSON,
--card the means in the model's card, where `eval.report` and the choice of the default model find them.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from codec import cards, coding
from codec.bitstream import DEFAULT_LIMITS, Reader, unpack
from codec.errors import CodecError, MediaError
from codec.files import walk
from codec.media import detect, load_audio, load_image

try:
    from eval.metrics import METRICS, SAMPLE_RATE, score
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed; pip install 'codec[eval]'")

Record = dict[str, Any]


def evaluate(content: bytes, model: coding.Model, size: int) -> tuple[Record, np.ndarray]:
    """One item at one codebook size: its record, and its indices (G, n)."""
    file = io.BytesIO()
    start = time.perf_counter()
    if model.card.medium == "image":
        original = load_image(io.BytesIO(content))
        written = coding.compress_image(original, file, model, size)
        encoded = time.perf_counter()
        decoded = coding.decompress_image(Reader(io.BytesIO(file.getvalue())), model)
    else:
        samples, _ = load_audio(io.BytesIO(content), SAMPLE_RATE)
        mono = samples.mean(1, keepdims=True)
        written = coding.compress_speech([mono], SAMPLE_RATE, 1, file, model, size)
        encoded = time.perf_counter()
        blocks = list(coding.decompress_speech(Reader(io.BytesIO(file.getvalue())), model))
        original, decoded = mono[:, 0], np.clip(np.concatenate(blocks)[:, 0], -1, 1)
    done = time.perf_counter()
    indices = unpack(file.getvalue(), model.tables.get(size), DEFAULT_LIMITS)[1][0]
    record: Record = {
        "bytes": written.total_bytes,
        "payload_bytes": written.payload_bytes,
        "units": written.units,
        "encode_s": encoded - start,
        "decode_s": done - encoded,
    }
    return record | score(model.card.medium, original, decoded), indices


def summarise(medium: str, records: list[Record], indices: np.ndarray, num_codes: int) -> Record:
    """Means over items, and codebook use over all their tokens together."""
    units = np.array([r["units"] for r in records])
    scale = 1000 if medium == "speech" else 1
    rate = np.array([8 * r["bytes"] for r in records]) / units / scale
    counts = np.bincount(indices.ravel(), minlength=num_codes)
    p = counts[counts > 0] / counts.sum()
    entropy = float(-(p * np.log2(p)).sum())
    payload_bits = 8 * sum(r["payload_bytes"] for r in records)
    summary: Record = {
        "items": len(records),
        "rate": float(rate.mean()),
        "bits_per_token": payload_bits / indices.size,
        "H0": entropy,
        "CVU": 2**entropy / num_codes,
        "encode_speed": float(units.sum() / sum(r["encode_s"] for r in records)),
        "decode_speed": float(units.sum() / sum(r["decode_s"] for r in records)),
    }
    for name in METRICS[medium]:
        values = [r[name] for r in records if r[name] is not None]
        summary[name] = float(np.mean(values)) if values else None
        summary[f"{name}_scored"] = len(values)
    return summary


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a shipped model, or the path of a card")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH")
    parser.add_argument("-k", "--codebook-size", metavar="K,...", help="default: all that a model offers")
    parser.add_argument("--out", type=Path, metavar="FILE", help="writes all records as JSON")
    parser.add_argument("--card", metavar="NAME", help="keep the means in the model's card, as results on NAME")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N items")
    options = parser.parse_args(arguments)
    results: list[Record] = []
    try:
        items = list(islice(walk(options.data), options.first))
        for name in options.models:
            model = coding.load(cards.find(name))
            chosen = options.codebook_size
            for size in map(int, chosen.split(",")) if chosen else model.codec.bottleneck.codebook_sizes:
                results.append(_evaluate_all(items, model, model.codec.bottleneck.check_size(size)))
                if options.out:  # after each, so that nothing measured is lost
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                if options.card:
                    _keep(model.card.path, options.card, results[-1])
    except (CodecError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _keep(path: Path, name: str, result: Record) -> None:
    """Writes a summary into a card, which the model's identity does not cover."""
    card = json.loads(path.read_text(encoding="utf-8"))
    summary = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result["summary"].items()}
    timing = ("encode_speed", "decode_speed")  # of this machine, not of the model
    kept = {key: value for key, value in summary.items() if key not in timing}
    card.setdefault("results", {}).setdefault(name, {})[str(result["codebook_size"])] = kept
    partial = path.with_suffix(".json.part")
    partial.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _evaluate_all(items: list[tuple[str, bytes]], model: coding.Model, size: int) -> Record:
    medium = model.card.medium
    records, all_indices, skipped = [], [], []
    for name, content in tqdm(items, desc=f"{model.card.name} K={size}", disable=None):
        try:
            if detect(content[:16]) != medium:
                raise MediaError(f"not {medium}")
            record, indices = evaluate(content, model, size)
        except MediaError as error:
            skipped.append(f"{name}: {error}")
            continue
        records.append({"item": Path(name).name} | record)
        all_indices.append(indices)
    if not records:
        raise MediaError(f"nothing to evaluate: {len(skipped)} files are not {medium}")
    number = model.codec.bottleneck.num_codes(size)
    summary = summarise(medium, records, np.concatenate(all_indices, 1), number)
    unit, pace, per = ("kbit/s", "x real time", 1.0) if medium == "speech" else ("bit/pixel", "megapixel/s", 1e6)
    quality = ", ".join(f"{m} {_number(summary[m])} ({summary[f'{m}_scored']}/{len(records)})" for m in METRICS[medium])
    print(
        f"{model.card.name} K={size} ({number}): {len(records)} items, {summary['rate']:.4g} {unit}, {quality}, "
        f"{summary['bits_per_token']:.2f} bit/token, H0 {summary['H0']:.2f}, CVU {summary['CVU']:.3f}, "
        f"{summary['encode_speed'] / per:.3g} + {summary['decode_speed'] / per:.3g} {pace}",
        flush=True,
    )
    return {"model": model.card.name, "codebook_size": size, "summary": summary, "records": records, "skipped": skipped}


def _number(value: float | None) -> str:
    return "unscored" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
