"""A model beside classic codecs at equal quality."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval import report
from eval.baselines import BASELINES
from eval.beside import rate_at, table

ITEMS = 24


def entry(system: str, setting: str, rate: float, quality: float, **more: object) -> dict[str, Any]:
    metrics = {"PSNR": 20 + 10 * quality, "SSIM": quality}
    return {
        "set": "kodak", "system": system, "setting": setting, "medium": "image", "items": ITEMS,
        "rate": {"mean": rate},
        "metrics": {key: {"mean": value, "scored": ITEMS} for key, value in metrics.items()},
        **more,
    }  # fmt: skip


SUMMARY: list[dict[str, Any]] = [
    entry("image-fsp", "256", 0.1, 0.6, use={}),
    entry("image-fsp", "1024", 0.15, 0.9, use={}),
    entry("webp", "1", 0.2, 0.5),
    entry("webp", "5", 0.4, 0.7),
    entry("webp", "9", 0.8, 0.8),
    entry("webp", "3", 0.9, 0.9, matched_to="image-fsp 256"),
]


def results(summary: list[dict[str, Any]] = SUMMARY) -> dict[str, Any]:
    """A run in which all items are alike."""
    records = [
        {key: e[key] for key in ("set", "system", "setting", "medium", "matched_to") if key in e}
        | {"item": str(item), "bytes": 1000 * e["rate"]["mean"], "units": 8000}
        | {key: value["mean"] for key, value in e["metrics"].items()}
        for e in summary
        for item in range(ITEMS)
    ]
    plan = {"trained_on": {"image-fsp": {"SSIM": 0.2}}}
    return {"plan": plan, "summary": summary, "records": records}


def test_rates_are_interpolated_in_their_logarithm() -> None:
    curve = [(10 ** (2 * q), q) for q in np.linspace(0.1, 0.9, 9)]
    assert rate_at(curve, 0.55) == pytest.approx(10**1.1)
    assert rate_at(curve, 0.3) == pytest.approx(10**0.6)
    assert rate_at([*curve, (1e6, 0.5)], 0.3) == pytest.approx(10**0.6), (
        "a point that costs more than a better one"
    )


def test_the_ends_of_a_curve_are_reached() -> None:
    curve = [(1, 0.1), (2, 0.5), (3, 0.9)]
    assert [rate_at(curve, quality) for quality in (0.1, 0.9)] == pytest.approx([1, 3])


@pytest.mark.parametrize("quality", [0.05, 0.95])
def test_nothing_is_extrapolated(quality: float) -> None:
    assert rate_at([(1, 0.1), (2, 0.5), (3, 0.9)], quality) is None
    assert rate_at([(1, quality)], quality) is None


def test_table() -> None:
    lines = table(results(), "image-fsp").splitlines()
    assert lines[0].startswith("`image-fsp` on 24 pictures of kodak.")
    assert lines[2] == "| K | bits per pixel | PSNR | SSIM | WebP at equal SSIM |"
    small, large = (line.split(" | ") for line in lines[4:6])
    assert small[:4] == ["| 256", "0.100", "26.00", "0.600†"]
    assert "SSIM (image-fsp)" in lines[7]
    assert 0.2 < float(small[4].rstrip(" |")) < 0.4
    assert large[4] == "– |", "files at matched bytes are no part of the curve"


def test_a_metric_where_lower_is_better_has_the_rates_of_its_mirror_image() -> None:
    summary = copy.deepcopy(SUMMARY)
    for one in summary:
        mirrored = {"mean": 1 - one["metrics"]["SSIM"]["mean"], "scored": ITEMS}
        one["metrics"]["LPIPS-alex"] = mirrored
    ssim, lpips = (
        table(results(summary), "image-fsp", metric).splitlines()[4]
        for metric in ("SSIM", "LPIPS-alex")
    )
    assert ssim.split(" | ")[-1] == lpips.split(" | ")[-1]


def test_other_sets_and_codecs_at_matched_bytes_alone_change_nothing() -> None:
    elsewhere = [one | {"set": "coco", "items": 3} for one in SUMMARY]
    matched = entry("jxl", "@ image-fsp 256", 0.1, 0.7, matched_to="image-fsp 256")
    for more in (elsewhere, [matched]):
        assert table(results([*SUMMARY, *more]), "image-fsp") == table(results(), "image-fsp")


def test_codecs_stand_beside_each_other_over_what_both_scored() -> None:
    """WebP did not score an item on which it is bad, at one setting; the model scored all."""
    whole = results()
    before = table(whole, "image-fsp")
    for record in whole["records"]:
        if record["item"] == "0":
            record["SSIM"] -= 0.4
            if (record["system"], record["setting"]) == ("webp", "5"):
                record["SSIM"] = None
    for found in whole["summary"][:2]:
        found = found["metrics"]["SSIM"]
        found["mean"] -= 0.4 / ITEMS
    head, *rows = table(whole, "image-fsp").splitlines()
    assert head == before.splitlines()[0]
    for row, was in zip(rows[3:5], before.splitlines()[4:6], strict=True):
        assert row.split(" | ")[4] == was.split(" | ")[4]
    summary = copy.deepcopy(SUMMARY)
    summary[1]["metrics"]["PSNR"]["scored"] = 20
    assert "Scored: PSNR of 20 of them." in table(results(summary), "image-fsp").splitlines()[0]


def test_columns_have_the_titles_of_reports() -> None:
    summary = [e | {"system": str(e["system"]).replace("webp", "jxl")} for e in SUMMARY]
    head = table(results(summary), "image-fsp").splitlines()[2]
    assert head.endswith(f"| {BASELINES['jxl'].title} at equal SSIM |")
    assert BASELINES["jxl"].title != "jxl"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results()))
    assert report.main([str(tmp_path), "--beside", "image-fsp", "--metric", "PSNR"]) == 0
    assert "WebP at equal PSNR" in capsys.readouterr().out
    for arguments, code, message in (
        ([str(tmp_path), "--beside", "image-vp"], 1, "there are image-fsp, webp"),
        ([str(tmp_path), "--beside", "image-fsp", "--metric", "PESQ"], 1, "PESQ was not measured"),
        ([str(tmp_path / "none"), "--beside", "image-fsp"], 1, "no finished run"),
        (["--beside", "image-fsp"], 2, "name its DIR"),
    ):
        assert report.main(arguments) == code
        assert message in capsys.readouterr().err
