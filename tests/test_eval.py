"""The benchmark from the command line: real files, records, reports, interruption, and every kind
of bad input.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav
from numpy.typing import NDArray

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec import cards
from codec.api import decompress
from eval import report, worker
from eval.__main__ import main
from eval.journal import open_journal, pack_tokens, unpack_tokens
from eval.paths import file_path, flat_name
from eval.systems import ModelSystem
from eval.worker import Worker

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, a clip, a silence, a damaged picture, a text."""
    folder = tmp_path_factory.mktemp("media")
    for i in range(3):
        (folder / f"{i}.png").write_bytes(picture(gradient(40 + 8 * i, 64)))
    (folder / "speech.wav").write_bytes(wav(tones(16_000)))
    (folder / "silence.wav").write_bytes(wav(0 * tones(8_000)))
    (folder / "damaged.png").write_bytes(picture(gradient(40, 64))[:200])
    (folder / "notes.txt").write_text("hello")
    return folder


def evaluate(media: Path, out: Path, *extra: str) -> int:
    words = [
        "image-fsp",
        "speech-fsp",
        "--data",
        str(media),
        "-k",
        "256,1024",
        "--workers",
        "1",
        "--out",
        str(out),
    ]
    return main([*words, "--baselines", "jpeg,opus", "--match-rate", *extra])


@pytest.fixture(scope="module")
def finished(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the shipped models."""
    out = tmp_path_factory.mktemp("run") / "out"
    if os.environ.get("CI") != "true":
        pytest.importorskip("av")
    assert evaluate(media, out) == 0
    return out


def results_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "results.json").read_text())
    return content


def test_there_is_a_record_for_each_item_and_setting(finished: Path) -> None:
    results = results_of(finished)
    pictures = [r for r in results["records"] if r["system"] == "image-fsp"]
    assert [(r["item"], r["setting"]) for r in pictures] == [
        (f"{i}.png", k) for i in range(3) for k in ("256", "1024")
    ]
    assert all(r["bytes"] > r["payload_bytes"] > 0 for r in pictures)
    silence = next(
        r for r in results["records"] if r["item"] == "silence.wav" and r["system"] == "speech-fsp"
    )
    assert silence["PESQ"] is None
    assert silence["unscored"]["PESQ"] == "silence"
    assert {s["item"] for s in results["skipped"]} == {"damaged.png", "notes.txt"}


def test_the_summary_counts_what_was_scored(finished: Path) -> None:
    summary = {(e["system"], e["setting"]): e for e in results_of(finished)["summary"]}
    ours = summary["speech-fsp", "1024"]
    assert (ours["metrics"]["PESQ"]["scored"], ours["metrics"]["PESQ"]["of"]) == (1, 2)
    assert ours["unscored"]["PESQ"] == {"silence": 1}
    image = summary["image-fsp", "256"]
    assert (
        image["metrics"]["PSNR"]["low"]
        <= image["metrics"]["PSNR"]["mean"]
        <= image["metrics"]["PSNR"]["high"]
    )
    assert image["use"]["num_codes"] == cards.find("image-fsp").num_codes[256]
    assert image["use"]["bits_per_token"] * image["use"]["tokens"] == pytest.approx(
        8
        * sum(
            r["payload_bytes"]
            for r in results_of(finished)["records"]
            if (r["system"], r["setting"]) == ("image-fsp", "256")
        )
    )
    matched = summary["jpeg", "@ image-fsp 256"]
    assert matched["matched_to"] == "image-fsp 256"
    assert matched["items"] == 3


def test_the_files_are_real(finished: Path) -> None:
    results = results_of(finished)
    (name,) = results["plan"]["sets"]
    record = next(r for r in results["records"] if r["system"] == "image-fsp")
    data = file_path(finished, "image-fsp", record["setting"], name, record["item"]).read_bytes()
    assert len(data) == record["bytes"]
    assert decompress(data)[:4] == b"\x89PNG"


def test_the_report_has_its_tables_and_pictures(finished: Path) -> None:
    text = (finished / "report.md").read_text()
    for words in (
        "At the bytes of each model",
        "Codebook use",
        "Bjontegaard",
        "Pictures at equal bytes",
        "Speed",
    ):
        assert words in text, words
    assert "damaged.png: damaged picture" in text
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    # What was measured of each medium; neither skipped items nor those of the other.
    assert [head.split(": ")[1] for head in heads] == ["2 clips", "3 pictures"]
    assert "- PESQ, 1 x silence: speech-fsp 256" in text
    linked = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(linked) == 6  # curves, codebook use, and a sheet or spectrograms, for each medium
    assert all((finished / name).stat().st_size > 5000 for name in linked)
    assert report.main([str(finished)]) == 0
    assert (finished / "report.md").read_text() == text


@pytest.mark.parametrize("share", [0.03, 0.31, 0.62, 0.97])
def test_a_run_cut_anywhere_ends_in_the_same_bytes(
    share: float, finished: Path, media: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    journal = (out / "journal.jsonl").read_bytes()
    (out / "journal.jsonl").write_bytes(journal[: int(share * len(journal))])
    (out / "results.json").unlink()
    assert evaluate(media, out) == 0
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()


def test_finished_items_are_not_measured_again(
    finished: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (finished / "results.json").read_bytes()
    monkeypatch.setattr("eval.run.Worker", None)  # there is no worker to measure with
    assert evaluate(media, finished) == 0
    assert (finished / "results.json").read_bytes() == before


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with (
        pytest.raises(OSError, match="No space left") as caught,
        open_journal(tmp_path, {"plan": 1}) as opened,
        Path("/dev/full").open("w") as opened.file,
    ):
        opened.append({"set": "s", "item": "i"})
    assert caught.value.filename == str(journal)


@pytest.mark.parametrize("line", ["[1, 2]", "7", "{}", '"text"'])
def test_a_damaged_journal_is_one_line(
    line: str, finished: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    with (out / "journal.jsonl").open("a") as file:
        file.write(line + "\n")
    assert evaluate(media, out) == 1
    assert "damaged journal" in capsys.readouterr().err
    (out / "journal.jsonl").write_bytes(b"\xff\xfe\n")
    assert evaluate(media, out) == 1
    assert "damaged journal" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{}", "[]", "7", "none", '{"plan": {}, "records": []}'])
def test_a_report_of_something_else_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(content)
    for more in ([], ["--beside", "image-fsp"]):
        assert report.main([str(tmp_path), *more]) == 1
        error = capsys.readouterr().err
        assert "no finished run" in error
        assert error.count("\n") == 1


def test_fresh_begins_with_an_empty_folder(tmp_path: Path) -> None:
    folder, out = tmp_path / "media", tmp_path / "out"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(gradient(40, 64)))
    (out / "files/mine").mkdir(parents=True)
    words = ["image-fsp", "--data", str(folder), "-k", "256", "--quick", "--workers", "1"]
    words += ["--out", str(out), "--fresh"]
    assert main([*words, "--baselines", "jpeg", "--match-rate"]) == 0
    made = {path.name for path in (out / "files").iterdir()}
    assert made == {"mine", "image-fsp", "jpeg"}  # no run was here: nothing is taken for one's
    assert main(words) == 0
    assert {path.name for path in (out / "files").iterdir()} == {"image-fsp"}


def test_a_system_without_an_item_of_its_medium_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(picture(gradient(40, 64)))
    words = ["--data", str(tmp_path), "-k", "256", "--quick", "--workers", "1"]
    said = "notice: speech-vp: no readable item of speech in the test sets"
    assert main(["image-fsp", "speech-vp", *words]) == 0
    printed = capsys.readouterr()
    assert "image-fsp K=256" in printed.out
    assert [line for line in printed.err.splitlines() if "notice" in line] == [said]
    assert main(["image-fsp", *words, "--baselines", "mp3,jpeg"]) == 0
    said = "notice: mp3: no readable item of speech in the test sets"
    assert [line for line in capsys.readouterr().err.splitlines() if "notice" in line] == [said]
    assert main(["image-fsp", *words, "--baselines", "all"]) == 0
    assert "notice" not in capsys.readouterr().err


def test_names_may_hold_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xe9.png")).write_bytes(picture(gradient(40, 64)))
    (folder / os.fsdecode(b"\xe8.png")).write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    words = ["image-fsp", "--data", str(folder), "-k", "256", "--quick", "--workers", "1"]
    assert main([*words, "--out", str(out)]) == 0
    results = results_of(out)
    assert [record["item"] for record in results["records"]] == ["\\xe9.png"]
    assert [record["set"] for record in results["records"]] == ["caf\\xe9"]
    assert [skipped["item"] for skipped in results["skipped"]] == ["\\xe8.png"]


def test_changed_files_have_no_figures_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As uncompressed recordings of one length always have one size."""
    folder, out = tmp_path / "media", tmp_path / "out"
    folder.mkdir()
    path = folder / "a.wav"
    words = ["speech-fsp", "--data", str(folder), "-k", "256", "--quick", "--workers", "1"]
    for samples, code in ((tones(8000), 0), (tones(8000), 0), (tones(8000) / 2, 1)):
        path.write_bytes(wav(samples))
        assert main([*words, "--out", str(out)]) == code
    assert "holds a run of another plan (sets differ)" in capsys.readouterr().err
    assert main([*words, "--out", str(out), "--fresh"]) == 0


@pytest.mark.slow
def test_a_killed_run_with_two_workers_goes_on(
    finished: Path, media: Path, tmp_path: Path, root: Path
) -> None:
    """SIGKILL to the whole run after its first finished item."""
    out = tmp_path / "out"
    words = [
        "image-fsp",
        "speech-fsp",
        "--data",
        str(media),
        "-k",
        "256,1024",
        "--baselines",
        "jpeg,opus",
        "--match-rate",
    ]
    command = [sys.executable, "-m", "eval", *words, "--workers", "2", "--out", str(out)]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=root,
            stderr=errors,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    journal = out / "journal.jsonl"
    while process.poll() is None and not (
        journal.is_file() and journal.read_bytes().count(b"\n") > 1
    ):
        time.sleep(0.05)
    assert process.poll() is None, (tmp_path / "errors").read_text()[-2000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert evaluate(media, out) == 0
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()


def test_two_runs_into_one_folder_and_another_plan_are_refused(
    finished: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = json.loads((finished / "journal.jsonl").read_text().splitlines()[0])
    with open_journal(finished, header):
        assert evaluate(media, finished) == 1
    assert "another run is writing there" in capsys.readouterr().err
    assert evaluate(media, finished, "--quick") == 1
    assert "holds a run of another plan (quick differ)" in capsys.readouterr().err


def test_a_worker_that_cannot_start_says_why(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in (".json", ".safetensors"):
        source = cards.find("image-fsp").path.with_suffix(suffix)
        content = bytearray(source.read_bytes())
        if suffix == ".safetensors":
            content[-1] ^= 1
        (tmp_path / f"broken{suffix}").write_bytes(content)
    words = [str(tmp_path / "broken.json"), "--data", str(media), "-k", "1024", "--quick"]
    for workers in ("1", "2"):
        assert main([*words, "--workers", workers]) == 3
        error = capsys.readouterr().err.splitlines()
        assert "the weights are not those of the card" in error[-1]
        assert not any("Traceback" in line for line in error)


def test_the_first_call_of_a_model_is_not_timed(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles and prepares, and would be the first setting's."""
    compress, clock, seen = ModelSystem.compress, [0.0], set()

    def slow_at_first(self: ModelSystem, signal: NDArray[Any]) -> bytes:
        clock[0] += 1 if self.setting in seen else 100
        seen.add(self.setting)
        return compress(self, signal)

    monkeypatch.setattr(ModelSystem, "compress", slow_at_first)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    words = ["image-fsp", "--data", str(media), "-k", "256,1024", "--quick", "--workers", "1"]
    assert main([*words, "--first", "2", "--out", str(tmp_path)]) == 0
    assert seen == {"256", "1024"}
    times = json.loads((tmp_path / "timing.json").read_text())
    assert [row["encode_s"] for row in times if row["system"] == "image-fsp"] == [2, 2]


def test_a_run_that_measures_anew_leaves_no_older_results(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["image-fsp", "--data", str(media), "-k", "256", "--quick", "--workers", "1"]
    words += ["--first", "2", "--out", str(out)]
    assert main(words) == 0
    made = [out / name for name in ("results.json", "timing.json", "report.md")]
    assert all(path.is_file() for path in made)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "measure", stopped)
    assert main(words) == 0, "all is measured"
    assert all(path.is_file() for path in made)
    assert main([*words, "--fresh"]) == 130
    assert not any(path.exists() for path in made)
    assert report.main([str(out)]) == 1


def test_a_card_keeps_the_means(media: Path, tmp_path: Path) -> None:
    for suffix in (".json", ".safetensors"):
        shutil.copy(cards.find("image-fsp").path.with_suffix(suffix), tmp_path / f"mine{suffix}")
    words = [
        str(tmp_path / "mine.json"),
        "--data",
        str(media),
        "-k",
        "256",
        "--quick",
        "--workers",
        "1",
    ]
    assert main([*words, "--card", "three pictures", "--first", "3"]) == 0
    kept = cards.read_card(tmp_path / "mine.json").data["results"]["three pictures"]["256"]
    assert kept["PSNR_scored"] == kept["items"]
    assert {"rate", "bits_per_token", "H0", "CVU", "PSNR", "SSIM"} <= kept.keys()


def test_an_effort_and_a_search_are_measured_and_named(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    psnr, rate = {}, {}
    for options in ([], ["--search", "3"], ["--effort", "9"]):
        out = tmp_path / "-".join(["out", *options])
        words = ["image-vp", "--data", str(media), "-k", "256", "--quick", "--workers", "1"]
        assert main([*words, "--first", "1", "--out", str(out), *options]) == 0
        results = json.loads((out / "results.json").read_text())
        (entry,) = results["summary"]
        psnr[entry["system"]] = entry["metrics"]["PSNR"]["mean"]
        rate[entry["system"]] = entry["rate"]["mean"]
        assert results["plan"]["search"] == (3 if "--search" in options else 0)
        assert results["plan"]["effort"] == (9 if "--effort" in options else 0)
    assert list(psnr) == ["image-vp", "image-vp+search3", "image-vp+effort9"]
    assert rate["image-vp+effort9"] < rate["image-vp"]
    assert psnr["image-vp+search3"] > psnr["image-vp"] > psnr["image-vp+effort9"]
    assert "image-vp+search3 K=256" in capsys.readouterr().out


def test_a_clip_of_one_sample_weighs_one_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own rate is hundreds of kbit/s.

    The set's, wherever it is shown, is total bits over total seconds.
    """
    for suffix in (".json", ".safetensors"):
        shutil.copy(cards.find("speech-fsp").path.with_suffix(suffix), tmp_path / f"mine{suffix}")
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "long.wav").write_bytes(wav(tones(32_000)))
    (folder / "short.wav").write_bytes(wav(tones(1)))
    out = tmp_path / "out"
    words = [
        str(tmp_path / "mine.json"),
        "--data",
        str(folder),
        "-k",
        "1024",
        "--quick",
        "--workers",
        "1",
    ]
    extra = [
        "--out",
        str(out),
        "--card",
        "two clips",
        "--baselines",
        "opus",
        "--match-rate",
        "--no-curves",
    ]
    assert main([*words, *extra]) == 0
    results = results_of(out)
    ours = [r for r in results["records"] if r["system"] == "speech-fsp"]
    seconds = 2 + 1 / 16_000
    rate = 8 * sum(r["bytes"] for r in ours) / seconds / 1000
    # What a mean over items would show.
    assert max(8 * r["bytes"] / r["units"] / 1000 for r in ours) > 100 * rate
    by_system = {e["system"]: e for e in results["summary"]}
    entry = by_system["speech-fsp"]
    assert entry["rate"]["mean"] == pytest.approx(rate)
    payload = 8 * sum(r["payload_bytes"] for r in ours)
    assert entry["payload_rate"]["mean"] == pytest.approx(payload / seconds / 1000)
    assert entry["use"]["bits_per_token"] == pytest.approx(payload / entry["use"]["tokens"])
    sizes = {
        s: sum(r["bytes"] for r in results["records"] if r["system"] == s)
        for s in ("opus", "speech-fsp")
    }
    assert by_system["opus"]["bytes_off"]["mean"] == pytest.approx(
        100 * (sizes["opus"] / sizes["speech-fsp"] - 1)
    )
    assert f"2 items, {rate:.4g} kbit/s" in capsys.readouterr().out
    assert f"| speech-fsp | 1024 | {rate:.3f} |" in (out / "report.md").read_text()
    kept = cards.read_card(tmp_path / "mine.json").data["results"]["two clips"]["1024"]
    assert kept["rate"] == pytest.approx(rate, rel=1e-3)


def test_a_model_that_is_named_twice_is_measured_once(models: Path, tmp_path: Path) -> None:
    """By its name and by its card, here and in a copy: each clip counts once."""
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "a.wav").write_bytes(wav(tones(8_000)))
    shutil.copytree(models, tmp_path / "copy")
    cards_of = [str(folder / "speech-fsp.json") for folder in (models, tmp_path / "copy")]
    words = ["--data", str(clips), "-k", "256", "--quick", "--workers", "1", "--out"]
    once, often = tmp_path / "once", tmp_path / "often"
    assert main(["speech-fsp", *words, str(once)]) == 0
    assert main(["speech-fsp", *cards_of, *words, str(often)]) == 0
    assert (once / "results.json").read_bytes() == (often / "results.json").read_bytes()


def test_mistakes_are_one_line_and_the_right_code(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(media)]
    text = tmp_path / "texts"
    text.mkdir()
    (text / "a.txt").write_text("hello")
    (tmp_path / "file").write_text("")
    for code, message, words in (
        (3, "no model nothing", ["nothing", *data]),
        (1, "no such file or folder", ["image-fsp", "--data", str(tmp_path / "no")]),
        (1, "no data set", ["image-fsp", "--data", "fashion"]),
        (2, "offers 256, 1024", ["image-fsp", *data, "-k", "999"]),
        (2, "want numbers", ["image-fsp", *data, "-k", "many"]),
        (2, "name a MODEL", data),
        (2, "two sets are called", ["image-fsp", *data, str(media)]),
        (2, "give one --data", ["image-fsp", *data, str(text), "--card", "x"]),
        (2, "is a file", ["image-fsp", *data, "--out", str(tmp_path / "file")]),
        (
            2,
            "is not in this run",
            ["image-fsp", *data, "--anchor", "webp", "--out", str(tmp_path / "out")],
        ),
        (2, "no baseline bpg", ["image-fsp", *data, "--baselines", "bpg"]),
        *(
            (2, f"{option} is of speech", ["image-fsp", *data, option, *values])
            for option, *values in (["--mos"], ["--level-dbfs", "-20"])
        ),
        *(
            (2, f"{option} is of image", ["speech-fsp", *data, option, value])
            for option, value in (
                ("--crop", "64"),
                ("--lpips", "alex"),
                ("--lpips-backbone", str(tmp_path / "file")),
            )
        ),
        (3, "no LPIPS backbone", ["image-fsp", *data, "--lpips-backbone", str(tmp_path / "file")]),
        (
            3,
            "is no folder of weights",
            ["--neighbour", "encodec:nowhere", "--data", str(text), "--workers", "1"],
        ),
        (
            1,
            "nothing to evaluate: 1 skipped",
            ["image-fsp", "--data", str(text), "--quick", "--workers", "1"],
        ),
    ):
        assert main(words) == code, words
        error = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")
        ]
        assert len(error) == 1, words
        assert message in error[0]


def test_an_option_that_no_item_heeds_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run may have codecs of both media, and items of one."""
    (tmp_path / "a.wav").write_bytes(wav(tones(8_000)))
    words = ["--data", str(tmp_path), "-k", "256", "--workers", "1", "--quick", "--crop", "64"]
    assert main(["speech-fsp", "--baselines", "all", "--no-curves", "--match-rate", *words]) == 0
    told = "notice: --crop: no readable item of image in the test sets\n"
    assert capsys.readouterr().err.count(told) == 1
    (tmp_path / "a.png").write_bytes(picture(gradient(40, 64)))
    assert main(["speech-fsp", "image-fsp", *words]) == 0
    assert told not in capsys.readouterr().err


def test_tokens_go_through_text() -> None:
    indices = RNG.integers(0, 2**20, (2, 77))
    assert np.array_equal(unpack_tokens(pack_tokens(indices)), indices)
    assert unpack_tokens(pack_tokens(np.empty((1, 0), np.int64))).shape == (1, 0)


def test_every_name_is_one_part_of_a_path() -> None:
    names = [
        "a/b.png",
        "../x",
        "..",
        ".",
        "",
        "ü" * 300,
        "ü" * 299 + "u",
        "a b",
        "a_b",
        "a",
        ".a",
        "%2Ea",
    ]
    flat = [flat_name(name) for name in names]
    assert len(set(flat)) == len(names)
    assert all(
        part and "/" not in part and len(part) < 255 and part not in (".", "..") for part in flat
    )


@pytest.mark.skipif(
    os.environ.get("CI") != "true", reason="only CI must have every extra that tests need"
)
def test_ci_has_what_other_tests_skip_without() -> None:
    for package in ("av", "distillmos", "pyarrow", "ray", "auraloss", "torch_stoi", "bjontegaard"):
        assert find_spec(package), f"{package} is missing; .ci/run installs them"


@pytest.mark.parametrize(
    "module", ["eval", "eval.demo", "eval.experiments", "eval.compare", "eval.bulk"]
)
def test_without_the_extra_one_line_says_so(module: str, tmp_path: Path) -> None:
    """A bare install has no pesq; a module of that name that is not found stands for it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pesq'] = None\n")
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    # pesq, or pyarrow where the extra [cluster] is missing, too.
    assert result.stderr.startswith("error: p")
    assert result.stderr.count("\n") == 1


def test_a_full_disk_under_stdout_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        encoding = "utf-8"

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_bytes(picture(gradient(40, 64)))
    words = ["image-fsp", "--data", str(tmp_path), "-k", "256", "--quick", "--workers", "1"]
    monkeypatch.setattr(sys, "stdout", Full())
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    assert "error: stdout: No space left on device" in capsys.readouterr().err
    assert len(results_of(tmp_path / "out")["records"]) == 1
    assert (tmp_path / "out/report.md").is_file()


@pytest.mark.slow
def test_ctrl_c_while_workers_start_is_one_line(tmp_path: Path, root: Path) -> None:
    """A terminal sends it to the workers, too, which import for seconds."""
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(picture(gradient(40, 64)))
    words = ["eval", "image-fsp", "--data", str(tmp_path), "-k", "256", "--quick", "--workers", "2"]
    run = subprocess.Popen(
        [sys.executable, "-m", *words, "--out", str(tmp_path / "out")],
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while run.poll() is None and len(children.read_text().split()) < 2:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[1].decode()
    lines = [line for line in said.replace("\r", "\n").splitlines() if "item" not in line]
    assert run.returncode == 130
    assert [line for line in lines if line.strip()] == [
        f"error: interrupted; the same command goes on from what is in {tmp_path / 'out'}"
    ]
