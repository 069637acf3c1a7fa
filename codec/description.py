"""What a file says of itself, from its bytes alone: `codec.info`. No model is loaded, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codec import cards
from codec.container import Summary
from codec.files import Source, opened
from codec.layers import Survey, survey
from codec.medium import MEDIA


def info(data: Source) -> dict[str, Any]:
    """What `codec.info` says of a file: its format, medium, model, sizes and layers.

    Args:
        data: The file: its path, an open binary file, or its bytes.

    Returns:
        The record that `python -m codec.info --json` prints, without the file's name.

    Raises:
        BitstreamError: Damaged, or not one of ours. Damage in layers alone is told in the record.
        MediaError: It cannot be read.
        TypeError: `data` is something else.
    """
    with opened(data) as file:
        return describe_all(survey(file), model_names())


def model_names() -> dict[bytes, str]:
    return {key: card.name for card in cards.list_cards() for key in (card.base_id, card.model_id)}


def describe_all(found: Survey, names: Mapping[bytes, str]) -> dict[str, Any]:
    """As `describe`, and of a file with layers the whole: figures are those of its last layer.

    "layers" has, for every codebook size, the bytes of the file when it is cut there; "damage" says
    why there are no more.
    """
    record = describe(found.summary, names)
    if not found.layers and found.damage is None:
        return record
    header, payload = found.summary.header, found.summary.payload_bytes
    units = header.kind.units(header, found.summary.num_samples)
    layers: dict[int, dict[str, Any]] = {}
    for size, stop in found.stops.items():
        payload += sum(layer.payload_bytes for layer in found.layers if layer.codebook_size == size)
        layers[size] = {
            "bytes": stop,
            "payload_bytes": payload,
            "rate": header.kind.rate_text(stop, units),
            header.kind.rate_key: header.kind.rate(stop, units),
        }
    record |= layers[size] | {
        "codebook_size": size,
        "num_codes": found.layers[-1].num_codes if found.layers else record["num_codes"],
        "bits_per_token": 8 * payload / max(record["tokens"], 1),
        "layers": layers,
    }
    return record if found.damage is None else record | {"damage": str(found.damage)}


def describe(summary: Summary, names: Mapping[bytes, str]) -> dict[str, Any]:
    """What `codec.info` says of a file, in its order.

    `names` are those of the models that are known, by their ids.
    """
    header = summary.header
    record: dict[str, Any] = {
        "format": f"{summary.version[0]}.{summary.version[1]}",
        "medium": header.medium,
        "model": names.get(header.model_id),
        "model_id": header.model_id.hex(),
        "codebook_size": header.codebook_size,
        "num_codes": header.num_codes,
        "codebooks": header.num_codebooks,
        "channels": header.channels,
    }
    units = header.kind.units(header, summary.num_samples)
    tokens = summary.num_positions * header.num_streams * header.num_codebooks
    return record | {
        # Width before height.
        **{name: getattr(header, name) for name in reversed([*header.kind.size_fields])},
        **({"duration_s": units} if header.kind.timed else {}),
        "chunks": summary.num_chunks,
        "tokens": tokens,
        "bytes": summary.file_bytes,
        "payload_bytes": summary.payload_bytes,
        "bits_per_token": 8 * summary.payload_bytes / max(tokens, 1),
        "rate": header.kind.rate_text(summary.file_bytes, units),
        header.kind.rate_key: header.kind.rate(summary.file_bytes, units),
    }


def in_words(record: Mapping[str, Any]) -> dict[str, str]:
    """What `codec.info` prints of a record: names and values as text, without its layers."""
    number = MEDIA[record["medium"]].rate_key  # "rate" says it
    shown = {k: v for k, v in record.items() if k not in (number, "layers")}
    shown["model"] = record["model"] or "not among the installed models"
    return {
        key.replace("_", " "): f"{value:.6g}" if isinstance(value, float) else str(value)
        for key, value in shown.items()
    }
