"""Paired comparison of two runs: a doctored regression is found, chance and small changes not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from eval.compare import main
from eval.differences import MARGINS, Finding, compare, unlike


def results(model: str = "image-a", items: int = 20, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    records = [
        {
            "set": "s", "item": f"{i:02d}", "medium": "image", "system": model, "setting": "1024",
            "bytes": 1000, "payload_bytes": 950, "units": 65536, "PSNR": float(rng.normal(24, 3)),
            "SSIM": float(rng.uniform(0.5, 1)), "LPIPS-squeeze": float(rng.uniform(0.2, 0.4)),
            "perplexity_soft": None,
        }
        for i in range(items)
    ]  # fmt: skip
    return {"plan": {"models": [[model, "00", [1024]]]}, "records": records}


def changed(content: dict[str, Any], metric: str, by: float, noise: float = 0.0) -> dict[str, Any]:
    rng, new = np.random.default_rng(1), copy.deepcopy(content)
    for record in new["records"]:
        record[metric] += by + noise * rng.normal()
    return new


def run(tmp_path: Path, a: dict[str, Any], b: dict[str, Any], *extra: str) -> int:
    paths = [tmp_path / name for name in ("a.json", "b.json")]
    for path, content in zip(paths, (a, b), strict=True):
        path.write_text(json.dumps(content))
    return main([*map(str, paths), *extra])


def findings(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Finding]:
    """Of runs with one setting, by metric."""
    return {finding.metric: finding for finding in compare(a, b, {}, MARGINS)}


def test_equal_runs_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, results(), results()) == 0
    assert "s image-a 1024 PSNR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metric", "by"), [("PSNR", -0.3), ("SSIM", -0.02), ("LPIPS-squeeze", 0.02), ("bytes", 30)]
)
def test_a_doctored_regression_is_found_and_an_improvement_is_none(
    metric: str, by: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = results()
    assert run(tmp_path, a, changed(a, metric, by)) == 1
    printed = capsys.readouterr()
    assert printed.out.count("REGRESSED") == 1
    assert printed.err.startswith("error: 1 of 4 regressed")
    assert run(tmp_path, a, changed(a, metric, -by)) == 0


def test_the_last_line_says_how_many_have_regressed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = results()
    b = changed(changed(a, "PSNR", -0.3), "SSIM", -0.02)
    assert run(tmp_path, a, b) == 1
    assert capsys.readouterr().err == "error: 2 of 4 regressed: s image-a 1024 PSNR and 1 more\n"
    assert run(tmp_path, a, changed(a, "SSIM", -0.02)) == 1
    assert capsys.readouterr().err == "error: 1 of 4 regressed: s image-a 1024 SSIM\n"


def test_margins_and_chance(tmp_path: Path) -> None:
    a = results()
    assert run(tmp_path, a, changed(a, "PSNR", -0.05)) == 0  # below the margin
    assert run(tmp_path, a, changed(a, "PSNR", -0.05), "--margin", "PSNR=0.01") == 1
    assert run(tmp_path, a, changed(a, "PSNR", -0.3), "--margin", "PSNR=0.5") == 0
    # The mean may have fallen by chance.
    assert run(tmp_path, a, changed(a, "PSNR", -0.3, noise=5)) == 0
    few = results(items=3)
    # No test can tell: the margin decides.
    assert run(tmp_path, few, changed(few, "PSNR", -0.3)) == 1


def test_of_six_that_differ_the_test_decides_and_of_five_the_margin() -> None:
    """All but one fall, whose rise leaves the mean below the margin: chance may do that."""
    a = results(items=6)
    fallen = changed(a, "PSNR", -1)
    assert findings(a, fallen)["PSNR"].p == pytest.approx(2 / 2**6)
    assert findings(a, fallen)["PSNR"].regressed
    for differ, regressed in ((6, False), (5, True)):
        b = copy.deepcopy(a)
        for number, record in enumerate(b["records"][:differ]):
            record["PSNR"] += 2 if number == 0 else -1 - number / 10
        assert findings(a, b)["PSNR"].regressed == regressed


def test_a_margin_of_zero(tmp_path: Path) -> None:
    a = results()
    assert run(tmp_path, a, changed(a, "PSNR", -0.001), "--margin", "PSNR=0") == 1
    assert run(tmp_path, a, a, "--margin", "PSNR=0") == 0


def test_what_is_no_longer_scored_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = results(), results()
    b["records"][3]["PSNR"] = None
    assert run(tmp_path, a, b) == 1
    assert "1 items no longer scored" in capsys.readouterr().out
    assert run(tmp_path, b, a) == 0  # the other way round more is scored
    del b["records"][3]
    assert run(tmp_path, a, b) == 1


def test_two_models_are_paired_by_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = results("image-a"), changed(results("image-b"), "PSNR", -1)
    assert run(tmp_path, a, b) == 1  # the only model of each
    assert run(tmp_path, a, b, "--as", "image-a=image-b", "--json") == 1
    findings = json.loads(capsys.readouterr().out.split("[\n", 1)[1].join(["[\n", ""]))
    assert [f["metric"] for f in findings if f["regressed"]] == ["PSNR"]
    assert findings[1]["p"] < 0.001


def test_a_model_with_the_name_of_anothers_partner_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A has both, and B's second is held against A's first: A's second is none of it."""
    a, b = results("image-a"), results("image-b")
    other = changed(results("image-b"), "PSNR", -5)
    a["records"] += other["records"]
    a["plan"]["models"] += other["plan"]["models"]
    b = changed(b, "PSNR", -1)
    assert run(tmp_path, a, b, "--as", "image-a=image-b", "--json") == 1
    output = capsys.readouterr()
    (psnr,) = [f for f in json.loads(output.out) if f["metric"] == "PSNR"]
    assert psnr["b"] - psnr["a"] == pytest.approx(-1)
    assert psnr["items"] == 20
    for second in ("image-b=image-b", "image-a=image-b"):
        assert run(tmp_path, a, b, "--as", "image-a=image-b", "--as", second) == 2
        assert "has another partner already" in capsys.readouterr().err


def test_of_several_models_none_is_paired_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = results("image-a"), results("image-b")
    for content, another in ((a, "image-c"), (b, "image-d")):
        content["records"] += [{**record, "system": another} for record in content["records"]]
        content["plan"]["models"].append([another, "00", [1024]])
    assert run(tmp_path, a, b) == 1
    assert "nothing to compare" in capsys.readouterr().err


def test_models_of_two_media_are_no_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else neither is compared, and the check passes by the others."""
    a = results("image-a")
    spoken = [
        {**record, "set": "t", "medium": "speech", "system": "speech-a"} for record in a["records"]
    ]
    classic = [{**record, "system": "webp", "setting": "50"} for record in a["records"]]
    a["records"] += spoken + classic
    assert run(tmp_path, a, a, "--as", "image-a=speech-a") == 2
    told = capsys.readouterr().err
    assert "image-a codes image, and speech-a codes speech; pair models of one medium" in told


def test_what_b_has_not_measured_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = results("image-a")
    a["records"] += [{**record, "system": "webp", "setting": "50"} for record in a["records"]]
    a["records"] += [{**record, "set": "t"} for record in a["records"]]
    b = copy.deepcopy(a)
    b["records"] = [
        record
        for record in b["records"]
        if (record["set"], record["system"]) in {("s", "webp"), ("t", "image-a")}
    ]
    assert run(tmp_path, a, b) == 0
    told = capsys.readouterr().err.splitlines()
    advice = "B has none of it, so it is not compared; pair models by --as A=B"
    assert told == [f"notice: {name}: {advice}" for name in ("image-a on s", "webp on t")]
    assert run(tmp_path, a, a) == 0
    assert capsys.readouterr().err == ""


def test_a_classic_codec_at_the_bytes_of_a_better_model_is_no_regression(tmp_path: Path) -> None:
    a = results()
    matched = [{**record, "system": "webp", "setting": "@ image-a 1024"} for record in a["records"]]
    for record in matched:
        record["matched_to"] = "image-a 1024"
    a["records"] += matched
    b = copy.deepcopy(a)
    for record in b["records"]:
        if "matched_to" in record:
            record["PSNR"] -= 1
    assert run(tmp_path, a, b) == 0
    for record in (*a["records"], *b["records"]):
        record.pop("matched_to", None)
    assert run(tmp_path, a, b) == 1


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, other = results(), results()
    for record in other["records"]:
        record["set"] = "t"
    assert run(tmp_path, a, other) == 1
    assert "nothing to compare" in capsys.readouterr().err
    assert main([str(tmp_path / "no.json"), str(tmp_path / "a.json")]) == 1
    (tmp_path / "bad.json").write_text("[]")
    assert main([str(tmp_path / "bad.json"), str(tmp_path / "a.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert run(tmp_path, a, a, "--margin", "PSNR") == 2
    assert run(tmp_path, a, a, "--as", "x") == 2
    capsys.readouterr()
    assert run(tmp_path, a, a, "--margin", "psnr=0.5") == 2
    assert "the runs have LPIPS-squeeze, PSNR, SSIM, rate" in capsys.readouterr().err
    assert run(tmp_path, a, a, "--as", "image-a=image-b") == 2
    assert "B has image-a, and no image-b" in capsys.readouterr().err
    assert run(tmp_path, a, a, "--as", "image-b=image-a") == 2
    assert "A has image-a, and no image-b" in capsys.readouterr().err


def test_one_item_that_falls_far_is_named_and_proves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all others got better, a test of both directions would call it no accident."""
    a = results(items=21)
    b = changed(a, "PSNR", 0.2)
    assert run(tmp_path, a, b) == 0
    assert "worst" not in capsys.readouterr().out
    b["records"][7]["PSNR"] = a["records"][7]["PSNR"] - 15
    assert run(tmp_path, a, b) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " PSNR:" in line)
    assert "p 1, 21 items, worst 07 -15.000" in line
    # The same fall of the mean, of all items.
    assert run(tmp_path, a, changed(a, "PSNR", -14.6 / 21)) == 1


def test_the_worst_item_is_the_one_that_fell_by_most() -> None:
    a = results()
    b = copy.deepcopy(a)
    b["records"][2]["PSNR"] += 20
    b["records"][7]["PSNR"] -= 5
    b["records"][8]["PSNR"] -= 4
    found = findings(a, b)["PSNR"]
    assert found.worst == "07"
    assert found.worst_by == pytest.approx(-5)
    near = changed(a, "PSNR", -0.9)  # below ten margins
    assert findings(a, near)["PSNR"].worst is None


def test_runs_on_unlike_data_are_refused_or_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = results()
    one = {"crop": None, "level_dbfs": None, "listing": "aa"}
    a["plan"] |= {"sets": {"s": one}, "packages": {"codec": "1", "pesq": "0.0.4"}}
    b = copy.deepcopy(a)
    b["plan"]["packages"]["codec"] = "2"
    assert run(tmp_path, a, b) == 0
    assert capsys.readouterr().err == ""
    b["plan"]["packages"]["pesq"] = "0.0.3"
    b["plan"]["sets"]["s"]["listing"] = "bb"
    assert run(tmp_path, a, b) == 0
    assert capsys.readouterr().err.splitlines() == [
        "notice: s: A and B are of other items, or of files that were changed",
        "notice: A and B were measured with pesq 0.0.4 and 0.0.3",
    ]
    b["plan"]["sets"]["s"]["crop"] = 256
    assert run(tmp_path, a, b) == 1
    assert "s: A has crop None and B 256" in capsys.readouterr().err
    b["plan"]["sets"]["s"] |= {"crop": None, "level_dbfs": -40.0}
    assert run(tmp_path, a, b) == 1
    assert "s: A has level_dbfs None and B -40.0" in capsys.readouterr().err


def test_a_run_that_names_no_packages_gets_no_notice_of_them() -> None:
    a, b = results(), results()
    a["plan"]["packages"] = {"pesq": "0.0.4"}
    assert unlike(a, b) == []


def test_a_quality_is_the_mean_over_items_whatever_their_size() -> None:
    a = results()
    a["records"][0]["units"] = 10**7
    mean = np.mean([record["PSNR"] for record in a["records"]])
    assert findings(a, a)["PSNR"].a == pytest.approx(mean)


def test_the_rate_that_is_compared_is_of_the_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An item of one pixel, with 9 bytes more in B: 1 % of the set's bits, whatever that does to
    its own rate.
    """
    a = results()
    a["records"][0] |= {"units": 1, "bytes": 40}
    b = copy.deepcopy(a)
    b["records"][0]["bytes"] += 9
    assert run(tmp_path, a, b) == 0
    rate = 8 * (19 * 1000 + 40) / (19 * 65536 + 1)
    assert f"rate: {rate:.4f} -> {rate + 72 / (19 * 65536 + 1):.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["a size", "a model", "the only model", "another name"])
def test_what_b_lost_is_a_regression(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A size that B has no longer, or a model that fails on every item and leaves no record."""
    a = results()
    more = [{**record, "setting": "256"} for record in a["records"]]
    classic = [{**record, "system": "webp", "setting": "50"} for record in a["records"]]
    a["records"] += more + ([] if how == "the only model" else classic)
    b = copy.deepcopy(a)
    ours = [r for r in b["records"] if r["system"] == "image-a"]
    lost = [r for r in ours if how != "a size" or r["setting"] == "256"]
    b["records"] = [r for r in b["records"] if r not in lost]
    if how != "a size":
        name = "image-b" if how == "another name" else "image-a"
        names = ("set", "item", "setting")
        b["failed"] = [{n: r[n] for n in names} | {"system": name, "reason": "no"} for r in lost]
        b["plan"]["models"][0][0] = name
    assert run(tmp_path, a, b) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if "REGRESSED" in line]
    sizes = {"a size": ["256"]}.get(how, ["1024", "256"])
    assert [line.split()[2] for line in told] == sizes
    assert all(
        "rate: 0.1221 -> nothing, 0 items, 20 items no longer scored" in line for line in told
    )
    assert run(tmp_path, b, b) == (how == "the only model")  # which has nothing to compare


def test_the_rate_of_a_lost_setting_is_of_the_set() -> None:
    a = results()
    b = copy.deepcopy(a)
    a["records"] += [{**record, "setting": "256"} for record in a["records"]]
    a["records"][-1] |= {"units": 1, "bytes": 40}
    (lost,) = (finding for finding in compare(a, b, {}, MARGINS) if finding.b is None)
    assert lost.a == pytest.approx(8 * (19 * 1000 + 40) / (19 * 65536 + 1))


def test_what_b_did_not_measure_is_no_loss(tmp_path: Path) -> None:
    """Other systems, and the curve of a codec that B has at matched bytes alone."""
    a = results()
    a["records"] += [{**r, "system": "webp", "setting": "50"} for r in a["records"]]
    b = results()
    b["failed"] = [
        {"set": "s", "item": "00", "system": "webp", "setting": "@ image-a 1024", "reason": "no"}
    ]
    assert run(tmp_path, a, b) == 0


def test_items_that_are_alike_do_not_hide_those_that_are_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test leaves out differences of 0: four are too few for it, however many stay the same."""
    a = results(items=100)
    b = copy.deepcopy(a)
    for number, record in enumerate(b["records"][:4]):
        record["PSNR"] -= 10 + number
    assert run(tmp_path, a, b) == 1
    assert "PSNR" in capsys.readouterr().err
    for number, record in enumerate(b["records"][4:20]):
        record["PSNR"] += 3 * (1 if number % 2 else -1)  # twenty differ, in both directions
    assert run(tmp_path, a, b) == 0


def test_what_b_scored_nowhere_is_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = results(), results()
    for record in b["records"]:
        record["PSNR"] = None
    assert run(tmp_path, a, b) == 1
    assert "PSNR: 24.056 -> nothing, 0 items" in capsys.readouterr().out
    assert run(tmp_path, a, b, "--json") == 1
    printed = capsys.readouterr().out
    assert "NaN" not in printed
    assert {f["metric"]: f["b"] for f in json.loads(printed)}["PSNR"] is None


def test_a_metric_that_b_did_not_measure_is_told_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with --quick in B alone. One that it could not give a value is lost all the same."""
    a = results()
    b = copy.deepcopy(a)
    for record in b["records"]:
        del record["LPIPS-squeeze"]
    assert run(tmp_path, a, b) == 0
    told = "notice: LPIPS-squeeze: B did not measure this, so it is not compared\n"
    assert capsys.readouterr().err == told
    assert run(tmp_path, b, a) == 0
    assert capsys.readouterr().err == ""
    for record in b["records"]:
        record["LPIPS-squeeze"] = None
    assert run(tmp_path, a, b) == 1


def test_an_item_without_a_difference_is_no_loss_and_one_that_has_some_again_is() -> None:
    a = results(items=4)
    b = copy.deepcopy(a)
    b["records"][0] |= {"PSNR": None, "unscored": {"PSNR": "no difference"}}
    better, worse = findings(a, b)["PSNR"], findings(b, a)["PSNR"]
    assert (better.lost, better.items, better.regressed) == (0, 3, False)
    assert (worse.lost, worse.items, worse.regressed) == (1, 3, True)
    assert findings(b, b)["PSNR"].lost == 0
    b["records"][0]["unscored"]["PSNR"] = "below 11 x 11 pixels"
    assert findings(a, b)["PSNR"].lost == 1
    for record in b["records"]:
        record |= {"PSNR": None, "unscored": {"PSNR": "no difference"}}
    assert "PSNR" not in findings(a, b)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("PSNR", float("nan"), "NaN is no figure"),
        ("PSNR", float("inf"), "Infinity is no figure"),
        ("PSNR", "25", "a record without its figures"),
        ("units", 0, "a record without its figures"),
    ],
)
def test_figures_that_are_none_are_one_line(
    key: str, value: object, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = results()
    b = copy.deepcopy(a)
    b["records"][0][key] = value
    assert run(tmp_path, a, b) == 1
    line = f"error: {tmp_path / 'b.json'}: no results.json of python -m eval ({told})\n"
    assert capsys.readouterr().err == line
