"""What `summarise` and `speeds` make of a journal, on numbers that can be added up by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from eval.journal import Journal, pack_tokens
from eval.summary import speeds, summarise


def line(item: str, soft: float, psnr: float | None, mos: float, units: int) -> dict[str, Any]:
    record = {
        "system": "m",
        "setting": "4",
        "bytes": 60,
        "payload_bytes": 40,
        "units": units,
        "PSNR": psnr,
        "unscored": {} if psnr is not None else {"PSNR": "no difference"},
        "perplexity_soft": soft,
    }
    timing = {"system": "m", "setting": "4", "units": units, "encode_s": 2.0, "decode_s": 0.5}
    return {
        "set": "s",
        "item": item,
        "medium": "image",
        "records": [record],
        "tokens": {"m 4": {"indices": pack_tokens(np.array([[0, 1, 1, 3]])), "num_codes": 4}},
        "original": {"MOS": mos},
        "timing": {"peak_bytes": 100 * units, "systems": [timing]},
    }


@pytest.fixture
def journal() -> Journal:
    lines = [line("a", 2.0, 20.0, 3.0, 100), line("b", 3.0, None, 5.0, 300)]
    header = {"models": [["m", "00", [4]]], "sets": {"s": {"duplicates": []}}}
    return Journal(header, {(one["set"], one["item"]): one for one in lines})


def test_speeds_are_units_over_seconds_of_coding_and_of_decoding(journal: Journal) -> None:
    (found,) = speeds(journal)
    assert (found["encode_speed"], found["decode_speed"]) == (400 / 4, 400 / 1)
    assert (found["encode_s"], found["decode_s"]) == (4, 1)
    assert found["worker_peak_bytes"] == 30_000  # of the largest


def test_a_summary_is_of_all_items(journal: Journal) -> None:
    result = summarise(journal)
    (entry,) = result["summary"]
    assert entry["rate"]["mean"] == pytest.approx(8 * 120 / 400)
    assert entry["payload_rate"]["mean"] == pytest.approx(8 * 80 / 400)
    assert (entry["metrics"]["PSNR"]["mean"], entry["metrics"]["PSNR"]["scored"]) == (20, 1)
    assert entry["unscored"] == {"PSNR": {"no difference": 1}}
    assert entry["use"]["bits_per_token"] == 8 * 80 / 8
    assert entry["use"]["H0"] == pytest.approx(1.5)  # counts 2, 4, 0, 2
    assert entry["use"]["perplexity_soft_batch"] == 2.5
    (original,) = result["originals"]
    assert (original["metric"], original["mean"], original["of"]) == ("MOS", 4, 2)
