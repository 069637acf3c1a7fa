"""The tables of the cards, and the mark of what was trained on LPIPS in every table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture
from skimage import data

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec import cards
from codec.cards import Card, read_card
from eval import model_tables, report, run_report
from eval.__main__ import main
from eval.model_tables import table
from eval.trained import MARK, mark, note, trained_on


def card(name: str, losses: Any, results: dict[str, dict[str, dict[str, Any]]]) -> Card:
    medium = name.split("-")[0]
    content = {"training": {"recipe": {"losses": losses}}, "results": results}
    return Card(
        Path(name), name, bytes(16), bytes(16), bytes(16), {"medium": medium}, {}, 1.0, content
    )


def result(**figures: float | None) -> dict[str, Any]:
    return {"items": 3, "rate": 0.125, "bits_per_token": 8.0, "H0": 9.0, "CVU": 0.5} | figures


def test_the_weight_of_a_loss_comes_from_the_card() -> None:
    for losses, known in (
        ({"l1": 1.0, "mse": 20.0, "lpips": 0.4}, {"PSNR": 20.0, "LPIPS": 0.4}),
        ({"wave": 5.0, "loudness": 1.2, "stoi": 3.0}, {"PESQ": 1.2, "STOI": 3.0}),
        ({"l1": 1.0, "lpips": 0.0}, {}),
        ({}, None),
        (None, None),
        ("x", None),
    ):
        assert trained_on(card("image-a", losses, {})) == known
    searched = trained_on(card("image-a", {"lpips": 0.4}, {}), searched=True)
    assert searched is not None
    assert set(searched) == {"PSNR", "SSIM", "LPIPS"}
    assert trained_on(card("image-a", {}, {}), searched=True) is None
    ours = {"LPIPS": 0.4, "STOI": 3.0}
    marked = [
        metric
        for metric in ("LPIPS-vgg", "PSNR", "STOI", "ESTOI", "PESQ", "DistillMOS")
        if mark(metric, ours)
    ]
    assert marked == ["LPIPS-vgg", "STOI", "ESTOI"]
    assert mark("MS-SSIM", {"SSIM": 0.2}) == MARK
    assert not mark("SSIMULACRA2", {"SSIM": 0.2})
    assert mark("LPIPS-vgg", {}) == mark("LPIPS-vgg", None) == ""
    assert mark("LPIPS-vgg", ours) == MARK


def test_the_note_says_it_of_every_model() -> None:
    models = {"image-a": {"LPIPS": 0.4}, "image-b": {}, "image-c": None}
    assert note(models, ["PSNR", "LPIPS-alex", "LPIPS-vgg"]) == (
        f"{MARK} The model was trained on this metric or on a loss that follows it, which flatters:"
        " LPIPS-alex, LPIPS-vgg (image-a). To judge, see SSIMULACRA2 of python -m eval. "
        "Not trained on LPIPS-alex, LPIPS-vgg (image-b). What was trained on is not known "
        "of image-c."
    )
    # Every marked metric is named, and no model of another medium.
    mixed = {"image-a": {"SSIM": 0.2}, "speech-a": {"STOI": 3.0}}
    text = note(mixed, ["SSIM", "MS-SSIM", "SSIMULACRA2", "STOI"])
    assert "flatters: SSIM, MS-SSIM (image-a), STOI (speech-a)." in text
    assert "Not trained" not in text
    assert note({}, ["LPIPS-vgg"]) == note(models, ["DistillMOS"]) == ""
    assert "LPIPS" not in note({"image-b": {}}, ["LPIPS-vgg"])
    table = ["STOI", "ESTOI", "PESQ", "DistillMOS"]
    text = note({"speech-a": {"PESQ": 1.2}, "speech-b": {"STOI": 3.0}}, table)
    assert "flatters: STOI, ESTOI (speech-b), PESQ (speech-a). Judge by DistillMOS." in text
    assert "Not trained on STOI, ESTOI (speech-a), PESQ (speech-b)." in text


def test_the_table_of_pictures_has_the_measured_metrics_and_the_mark() -> None:
    first = result(PSNR=24.21, SSIM=0.711) | {
        "MS-SSIM": 0.9,
        "SSIMULACRA2": -4.6,
        "LPIPS-squeeze": 0.169,
    }
    second = result(PSNR=23.0, SSIM=0.6) | {"LPIPS-squeeze": 0.3, "SSIMULACRA2": None}
    models = [
        card(
            "image-a", {"lpips": 0.4}, {"coco": {"256": result(PSNR=24.5, SSIM=0.7), "1024": first}}
        ),
        card("image-b", {"l1": 1.0}, {"coco": {"1024": second}}),
    ]
    lines = table("image", models).splitlines()
    names = "PSNR | SSIM | MS-SSIM | SSIMULACRA2 | LPIPS-squeeze"
    assert (
        lines[0]
        == f"| test set | K | model | bits per pixel | {names} | coded bits/token | H0 | CVU |"
    )
    rows = {tuple(line.split(" | ")[1:3]): line for line in lines[2:5]}
    assert f"| 24.21 | 0.711 | 0.900 | -4.6 | 0.169{MARK} |" in rows["1024", "image-a"]
    assert "| 23.00 | 0.600 | - | - | 0.300 |" in rows["1024", "image-b"]
    assert f"- | - | -{MARK}" not in rows["256", "image-a"]
    assert "Not trained on LPIPS-squeeze (image-b)." in lines[6]
    assert lines[8] == (
        "PSNR grows with K on every test set, but for image-a on coco from 256 to 1024 "
        "(24.5 to 24.21)."
    )


def test_the_table_of_speech_tells_what_originals_score() -> None:
    plain = [
        card(
            "speech-a",
            {},
            {"libri": {"256": result(STOI=0.8, PESQ=1.5), "1024": result(STOI=0.9, PESQ=1.9)}},
        )
    ]
    assert "DistillMOS" not in table("speech", plain)
    assert table("speech", plain).endswith("PESQ grows with K on every test set.")
    judged = result(STOI=0.9, PESQ=1.9, DistillMOS=3.1, DistillMOS_originals=4.05)
    text = table("speech", [card("speech-a", {}, {"libri": {"1024": judged}})])
    assert "| 0.900 | 1.90 | 3.10 |" in text
    assert "DistillMOS needs no original; the originals score 4.05 on libri." in text


def test_no_cards_make_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_tables, "list_cards", list)
    assert "| test set | K | model |" in model_tables.tables()


def entry(system: str, rate: float, psnr: float) -> dict[str, Any]:
    spread = {"low": None, "high": None, "scored": 3, "of": 3}
    return {
        "system": system, "setting": "1024", "items": 3, "failed": 0, "use": {},
        "rate": {"mean": rate}, "payload_rate": {"mean": rate},
        "metrics": {"PSNR": {"mean": psnr} | spread},
    }  # fmt: skip


def test_bold_is_among_files_of_equal_bytes() -> None:
    """A model with twice the bytes is better, and no winner; none of these was matched."""
    models = [entry("a", 0.100, 24), entry("b", 0.109, 25), entry("c", 0.200, 30)]
    text = run_report._quality(run_report._groups(models), "image", {})
    assert [line.split(" | ")[4] for line in text.splitlines()[2:]] == [
        "24.00 |",
        "**25.00** |",
        "30.00 |",
    ]
    for rate in (0.111, 0.050):
        unequal = [entry("a", 0.100, 24), entry("c", rate, 30)]
        assert "**" not in run_report._quality(run_report._groups(unequal), "image", {})


def test_the_best_is_the_least_where_lower_is_better() -> None:
    low, high = {"mean": 0.1, "scored": 3}, {"mean": 0.2, "scored": 3}
    found = [high, low, {"mean": None, "scored": 0}, None]
    assert run_report._best(found, "LPIPS-vgg") == low
    assert run_report._best(found, "PSNR") == high
    assert run_report._best([None], "PSNR") is None


def test_a_mean_over_fewer_items_is_no_winner() -> None:
    """What a codec could not decode is often what is hard for all."""
    models = [entry("a", 0.100, 24), entry("b", 0.100, 26)]
    for psnr, scored, winner in ((26, 3, "b"), (26, 2, "a"), (24, 2, "a")):
        models[1]["metrics"]["PSNR"] |= {"mean": psnr, "scored": scored}
        text = run_report._quality(run_report._groups(models), "image", {})
        assert [line for line in text.splitlines() if "**" in line] == [
            line for line in text.splitlines() if line.startswith(f"| {winner} ")
        ]


def test_a_cell_says_what_is_missing_and_marks_the_best() -> None:
    found = {"mean": 24.0, "low": None, "high": None, "scored": 2, "of": 3}
    assert run_report._cell(found, "PSNR", None) == "24.00 2/3"
    whole = found | {"scored": 3}
    assert run_report._cell(whole, "PSNR", whole) == "**24.00**"
    assert run_report._cell(whole, "PSNR", whole | {"mean": 25.0}) == "24.00"
    assert run_report._cell(whole | {"low": 23.0, "high": 25.5}, "PSNR", None) == (
        "24.00 [23.00, 25.50]"
    )


def test_speeds_are_in_units_of_the_medium_with_the_largest_peak() -> None:
    row = {
        "set": "s", "medium": "image", "setting": "1", "encode_speed": 2e6, "decode_speed": 5e6,
        "worker_peak_bytes": 2**20,
    }  # fmt: skip
    text = run_report._speed([
        row | {"system": "webp"},
        row | {"system": "jpeg", "worker_peak_bytes": 2**21},
        row | {"system": "jxl", "setting": "@ m 4"},
    ])  # fmt: skip
    assert "at most 2 MiB" in text
    assert "| WebP | 1 | 2 | 5 |" in text
    assert "XL" not in text, "a search for the setting is no speed"


def test_the_share_of_codes_used_is_in_per_cent() -> None:
    assert run_report.USE["used"][1](0.255) == "25.5 %"


def test_options_of_a_report_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"models": [], "packages": {}, "baselines": ["jpeg", "webp"], "lpips": [1], "sets": {}}
    content = {"plan": plan, "summary": [], "skipped": [], "failed": [], "records": []}
    (tmp_path / "results.json").write_text(json.dumps(content))
    (tmp_path / "timing.json").write_text("[]")
    folder = str(tmp_path)
    for words, message in (
        ([folder, "--anchor", "typo"], "--anchor typo is not in this run; it has jpeg, webp"),
        (["--anchor", "jpeg"], "--anchor is of a run; name its DIR"),
        (["--metric", "PSNR"], "--metric is of a run; name its DIR"),
        ([folder, "--metric", "PSNR"], "--metric is of --beside"),
        ([folder, "--beside", "image-fsp", "--anchor", "jpeg"], "leave --anchor out"),
    ):
        assert report.main(words) == 2, words
        assert message in capsys.readouterr().err
    assert report.main([folder, "--anchor", "jpeg"]) == 0


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """Of SqueezeNet's shape and without its knowledge: the figures mean nothing, the tables are the
    same.
    """
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    path = tmp_path / "squeeze.pth"
    torch.save(squeezenet1_1().features.state_dict(), path)
    return path


def test_a_run_marks_the_model_that_was_trained_on_lpips(
    tmp_path: Path, backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In what is printed, in both tables of the report and in the card."""
    for name, losses in (("image-with", {"l1": 1.0, "lpips": 0.4}), ("image-without", {"l1": 1.0})):
        shipped = cards.find("image-fsp").path
        shutil.copy(shipped.with_suffix(".safetensors"), tmp_path / f"{name}.safetensors")
        content = json.loads(shipped.read_text())
        content["name"], content["training"]["recipe"]["losses"] = name, losses
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "set").mkdir()
    for i in range(2):
        (tmp_path / f"set/{i}.png").write_bytes(
            picture(np.ascontiguousarray(data.astronaut()[:232, i * 90 :][:, :232]))
        )
    models = [str(tmp_path / f"{name}.json") for name in ("image-with", "image-without")]
    words = [
        *models,
        "--data",
        str(tmp_path / "set"),
        "-k",
        "256,1024",
        "--lpips-backbone",
        str(backbone),
    ]
    extra = ["--baselines", "jpeg", "--anchor", "image-without", "--workers", "1", "--card", "two"]
    assert main([*words, *extra, "--out", str(tmp_path / "out")]) == 0
    printed = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("image-with")
    ]
    assert [MARK in line.split("LPIPS-squeeze ")[1].split()[0] for line in printed] == [
        True,
        True,
        False,
        False,
    ]
    text = (tmp_path / "out/report.md").read_text()
    assert text.count("which flatters: LPIPS-squeeze (image-with). Judge by SSIMULACRA2.") == 1
    of = {name: [row for row in text.splitlines() if row.startswith(f"| {name} |")] for name in (
        "image-with", "image-without", "JPEG",
    )}  # fmt: skip
    # A row for each size; the anchor is its equal.
    assert sum(MARK in row for row in of["image-with"]) >= 2
    assert not any(MARK in row for row in of["image-without"] + of["JPEG"])
    # Nothing was matched in bytes, so that no heading says so.
    assert "### Models\n" in text
    assert "### Pictures\n" in text
    assert "equal bytes" not in text.split("## ", 1)[1]
    results = read_card(tmp_path / "image-with.json").data["results"]["two"]["1024"]
    assert {
        "PSNR",
        "SSIM",
        "MS-SSIM",
        "SSIMULACRA2",
        "LPIPS-squeeze",
        "SSIMULACRA2_scored",
    } <= results.keys()
    assert "| SSIMULACRA2 |" in next(
        line for line in text.splitlines() if line.startswith("| system | PSNR")
    )
