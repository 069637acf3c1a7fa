"""A version: what a model or a classic codec made of an original, with its files and figures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from codec.medium import MEDIA
from eval.trained import Trained, followed

UNIT = {name: medium.rate_unit for name, medium in MEDIA.items()}


@dataclass(frozen=True, slots=True)
class Version:
    """One coded version of an original, or a file that was decoded.

    Attributes:
        label: What the page calls it.
        family: The model or the classic codec; a line of a plot joins those of one family.
        kind: "codec" or "classic".
        medium: "speech" or "image".
        file: The coded file, a real .bin (or .opus, .webp ...).
        media: The decoded .wav or .png.
        num_bytes: The size of the coded file.
        rate: The rate of the whole file, in the medium's unit.
        ratio: How many times smaller it is than the signal uncompressed.
        encode_s, decode_s: The seconds that coding and decoding took.
        samples: The signal that the metrics saw: (T,) at 16 kHz or (H, W, 3).
        scores: The figure of each metric; None where it cannot be scored.
        model: The name of the model; empty for classic codecs.
        search: The steps of the encoder's search, see `codec.compress`; 0 for none.
        codebook_size: The nominal codebook size K; None for classic codecs.
        num_codes: The number of codes that the codebook really has.
        used_codes: The number of codes that occur in the file.
        trained: The metrics that the model was trained on, which flatter it; none for classic
            codecs, None where nobody knows.
        notices: Remarks for the user.
    """

    label: str
    family: str
    kind: str
    medium: str
    file: Path
    media: Path
    num_bytes: int
    rate: float
    ratio: float
    encode_s: float
    decode_s: float
    samples: NDArray[Any]
    scores: dict[str, float | None] = field(default_factory=dict)
    model: str = ""
    search: int = 0
    codebook_size: int | None = None
    num_codes: int | None = None
    used_codes: int | None = None
    trained: Trained = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Returns plain data, which tables, CSV files and the API show."""
        known: dict[str, Any] = {
            "version": self.label,
            "kind": self.kind,
            "model": self.model,
            "codebook_size": self.codebook_size,
            "search": self.search,
            "num_codes": self.num_codes,
            "used_codes": self.used_codes,
            "bytes": self.num_bytes,
            UNIT[self.medium].replace(" ", "_"): round(self.rate, 5),
            "ratio": round(self.ratio, 2),
            "encode_s": round(self.encode_s, 4),
            "decode_s": round(self.decode_s, 4),
        }
        scores = {
            name: None if value is None else round(value, 4) for name, value in self.scores.items()
        }
        if any(map(followed, scores)):
            known["trained_on"] = None if self.trained is None else ", ".join(self.trained)
        return known | scores


def rate_of(medium: str, num_bytes: int, units: float) -> float:
    """Returns a rate in the medium's unit."""
    return MEDIA[medium].rate(num_bytes, units)


def write_csv(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Writes records as a table, a line for each, and returns its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(key for record in records for key in record))
        )
        writer.writeheader()
        writer.writerows(records)
    return path
