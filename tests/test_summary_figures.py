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


def matched(record: dict[str, Any], num_bytes: int) -> dict[str, Any]:
    """A classic codec's record beside that of the model."""
    return record | {
        "system": "webp", "setting": "@ m 4", "matched_to": "m 4", "bytes": num_bytes,
    }  # fmt: skip


def test_what_is_said_of_two_sets_stays_apart() -> None:
    lines = [
        line("a", 2.0, 20.0, 3.0, 100),
        line("b", 2.0, 20.0, 3.0, 100),
        line("a", 3.0, 30.0, 5.0, 300),
    ]
    lines[2] |= {"set": "t", "failed": [{"system": "m", "setting": "4", "reason": "no"}]}
    lines[2]["tokens"]["m 4"]["indices"] = pack_tokens(np.array([[2, 2, 2, 2, 2, 2]]))
    lines[2]["records"][0]["bytes"] = 80
    for one, num_bytes in zip(lines, (50, 70, 100), strict=True):
        one["records"].insert(0, matched(one["records"][0], num_bytes))
    header = {"models": [["m", "00", [4]]], "sets": {name: {"duplicates": []} for name in "st"}}
    found = summarise(Journal(header, {(one["set"], one["item"]): one for one in lines}))
    names = [(entry["set"], entry["system"]) for entry in found["summary"]]
    assert names == [("s", "m"), ("s", "webp"), ("t", "m"), ("t", "webp")], "models first"
    of = dict(zip(names, found["summary"], strict=True))
    assert (of["s", "m"]["failed"], of["t", "m"]["failed"]) == (0, 1)
    assert (of["s", "m"]["use"]["tokens"], of["t", "m"]["use"]["tokens"]) == (8, 6)
    assert of["s", "webp"]["bytes_off"]["mean"] == pytest.approx(0)  # -10 and +10 bytes of 120
    assert of["t", "webp"]["bytes_off"]["mean"] == pytest.approx(100 * 20 / 80)


def test_the_peak_is_that_of_the_largest_in_any_order() -> None:
    for units in ((100, 300), (300, 100)):
        lines = [line(item, 2.0, 20.0, 3.0, size) for item, size in zip("ab", units, strict=True)]
        (found,) = speeds(Journal({}, {(one["set"], one["item"]): one for one in lines}))
        assert found["worker_peak_bytes"] == 30_000
