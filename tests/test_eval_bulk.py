"""Bulk work: Parquet and .bin, resumption, a killed Ray worker."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
pytest.importorskip("pyarrow", reason="bulk work is in the extra [cluster]")
pytest.importorskip("ray", reason="Ray is in the extra [cluster]")
from codec.api import compress, load
from codec.coding import read_indices
from codec.errors import MediaError
from eval import bulk, shards
from eval.bulk import main, read_parts
from eval.systems import ModelSystem


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for i in range(10):
        (folder / f"{i:02d}.png").write_bytes(picture(gradient(32 + 8 * i, 40)))
    (folder / "10.wav").write_bytes(wav(tones(1600)))
    return folder


def logged(out: Path) -> Counter[str]:
    """How often each item was really computed."""
    return Counter(
        json.loads(line)["item"]
        for file in out.glob("log/*")
        for line in file.read_text().splitlines()
    )


def test_the_rows_are_what_the_api_writes(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["image-fsp", "--data", str(media), "--out", str(out), "-k", "256", "--workers", "0"]
    assert main([*words, "--shard", "4", "--score"]) == 0
    rows = list(read_parts(out))
    assert [row["item"] for row in rows] == [*(f"{i:02d}.png" for i in range(10)), "10.wav"]
    model = load("image-fsp")
    for row in rows[:10]:
        data = compress((media / row["item"]).read_bytes(), 256, model)
        indices = read_indices(data, model)[1]
        assert np.array_equal(np.reshape(row["indices"], row["shape"]), indices[0])
        assert row["bytes"] == len(data)
        assert row["PSNR"] > 5
    assert "speech, which image-fsp does not code" in rows[10]["skipped"]
    assert "11 items, 1 skipped" in capsys.readouterr().out
    assert len(list(out.glob("part-*"))) == 3
    assert not (out / "staging").exists()


def test_bin_files_are_bitstreams(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [
        "image-fsp",
        "--data",
        str(media),
        "--out",
        str(out),
        "--workers",
        "0",
        "--format",
        "bin",
        "--first",
        "2",
    ]
    assert main(words) == 0
    files = sorted(out.glob("files/*/*.bin"))
    assert [file.read_bytes() for file in files] == [
        compress((media / f"{i:02d}.png").read_bytes(), model="image-fsp") for i in range(2)
    ]
    assert "indices" not in next(read_parts(out))


def test_an_interrupted_job_repeats_no_finished_item(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["image-fsp", "--data", str(media), "--out", str(out), "--workers", "0", "--shard", "4"]
    real, calls = shards.load_signal, []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "load_signal", interrupted)
    assert main(words) == 130
    monkeypatch.setattr(shards, "load_signal", real)
    assert len(logged(out)) == 6
    assert main(words) == 0
    assert main(words) == 0  # nothing left to do
    assert set(logged(out).values()) == {1}
    assert len(list(read_parts(out))) == 11


def test_a_row_that_a_power_failure_tore_is_computed_again(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["image-fsp", "--data", str(media), "--out", str(out), "--workers", "0", "--first", "3"]
    monkeypatch.setattr(shards.ShardWorker, "_write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(words)
    staged = sorted((out / "staging/00000").iterdir())
    assert [file.suffix for file in staged] == [".json"] * 3
    staged[0].write_bytes(b"")
    staged[1].write_text(staged[1].read_text()[:-9])
    monkeypatch.undo()
    assert main(words) == 0
    assert logged(out) == {"00.png": 2, "01.png": 2, "02.png": 1}
    assert main([*words[:4], str(tmp_path / "again"), *words[5:]]) == 0
    assert list(read_parts(out)) == list(read_parts(tmp_path / "again"))


def test_a_single_shard_is_not_worth_a_cluster(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(bulk, "_through_ray", lambda _, todo, *__: asked.append(todo) or iter(()))
    words = ["image-fsp", "--data", str(media), "--workers", "2", "--out"]
    assert main([*words, str(tmp_path / "one"), "--shard", "11"]) == 0
    assert len(list(read_parts(tmp_path / "one"))) == 11
    assert not asked
    main([*words, str(tmp_path / "two"), "--shard", "6"])
    main([*words, str(tmp_path / "far"), "--shard", "11", "--address", "host:1"])
    assert asked == [[0, 1], [0]]


def test_two_jobs_and_another_job_in_one_folder_are_refused(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "image-fsp",
        "--data",
        str(media),
        "--out",
        str(tmp_path),
        "--workers",
        "0",
        "--first",
        "1",
    ]
    assert main(words) == 0
    fingerprint = json.loads((tmp_path / "job.json").read_text())
    with bulk._locked(tmp_path, fingerprint):
        assert main(words) == 1
    assert "another run is writing there" in capsys.readouterr().err
    assert main([*words, "-k", "256"]) == 1
    assert "holds another job (model differ)" in capsys.readouterr().err
    assert main([*words, "--search", "2"]) == 1
    assert "holds another job (search differ)" in capsys.readouterr().err
    item = min(path for path in media.rglob("*") if path.is_file())
    was = item.stat()
    os.utime(item, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    assert main(words) == 1
    assert "holds another job (items differ)" in capsys.readouterr().err
    os.utime(item, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert main(words) == 0
    searched = [*words[:4], str(tmp_path / "searched"), *words[5:], "--search", "2", "-k", "256"]
    assert main(searched) == 0
    (row,) = read_parts(tmp_path / "searched")
    found = compress((media / row["item"]).read_bytes(), 256, load("image-fsp"), search=2)
    assert row["bytes"] == len(found)
    assert np.array_equal(row["indices"], read_indices(found, load("image-fsp"))[1][0].ravel())
    assert main(searched[:-4]) == 1
    assert "holds another job (model, search differ)" in capsys.readouterr().err


def test_damaged_output_is_one_line(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["image-fsp", "--data", str(media), "--out", str(out), "--workers", "0", "--first", "1"]
    assert main(words) == 0
    (part,) = out.glob("part-*.parquet")
    whole, job = part.read_bytes(), (out / "job.json").read_bytes()
    part.write_bytes(whole[:40])
    with pytest.raises(MediaError, match="parquet: damaged"):
        list(read_parts(out))
    part.write_bytes(whole)
    for damaged in (b"garbage\n", b"[1]\n", b"\xff\xfe\n", b"7\n"):
        (out / "job.json").write_bytes(damaged)
        assert main(words) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "job.json: not the description of a job" in error
    (out / "job.json").write_bytes(job)
    assert main(words) == 0


def test_mistakes_are_one_line(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--workers", "0"]
    for code, words in (
        (3, ["nothing", "--data", str(media)]),
        (2, ["image-fsp", "--data", str(media), "-k", "7"]),
        (1, ["image-fsp", "--data", str(tmp_path / "no")]),
        (1, ["speech-fsp", "--data", str(media / "00.png")]),
    ):
        assert main([*words, *out]) == code, words
        assert sum(line.startswith("error: ") for line in capsys.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("models")
def test_a_second_item_of_a_name_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a tar may have it: there is one row of that name, and the other is not lost in silence."""
    with tarfile.open(tmp_path / "clips.tar", "w") as archive:
        for length in (8_000, 8_001):
            content = wav(tones(length))
            info = tarfile.TarInfo("a.wav")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    words = ["--data", str(tmp_path / "clips.tar"), "--out", str(tmp_path / "out")]
    assert main(["speech-fsp", *words, "--workers", "0"]) == 0
    told = capsys.readouterr()
    assert told.err == "left out clips.tar/a.wav: a second item of this name\n"
    assert told.out.startswith("1 items, 0 skipped")


def test_a_notice_names_its_item(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "cut\n.wav").write_bytes(wav(tones(8_000))[:-4_000])
    (folder / "whole.wav").write_bytes(wav(tones(8_000)))
    words = ["speech-fsp", "--data", str(folder), "--out", str(tmp_path / "out"), "--workers", "0"]
    for _ in range(2):  # the second call computes nothing
        assert main(words) == 0
        told = "clips/cut\\n.wav: the recording is cut short: coded as far as it goes\n"
        assert capfd.readouterr().err == told
    cut, whole = read_parts(tmp_path / "out")
    assert cut["notices"] == ["the recording is cut short: coded as far as it goes"]
    assert whole["notices"] == []


def test_a_full_disk_names_the_file(
    media: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", **words: Any) -> IO[Any]:
        if path.parent.name == "log" and "a" in mode:
            return real(Path("/dev/full"), "w", **words)
        return real(path, mode, **words)

    monkeypatch.setattr(Path, "open", full)
    words = ["--data", str(media), "--out", str(tmp_path / "out"), "--workers", "0"]
    assert main(["image-fsp", *words]) == 1
    assert f"error: {tmp_path / 'out/log'}/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--workers", "0", "--address", "host:1"], "leave --address out"),
        (["--lpips-backbone", "weights.pth"], "add --score"),
        (["--out", __file__], "is a file; give a folder"),
    ],
)
def test_what_would_be_ignored_is_refused(
    words: list[str], advice: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["image-fsp", "--data", str(media), "--out", str(out), *words]) == 2
    assert advice in capsys.readouterr().err
    assert not out.exists()


def test_the_count_of_what_was_skipped_reads_no_indices(
    media: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are the most of a large set, and do not all fit into memory."""
    rows = [
        {"set": "s", "item": str(n), "skipped": None if n % 2 else "why", "indices": [1] * 9}
        for n in range(50)
    ]
    bulk.pq.write_table(bulk.pa.Table.from_pylist(rows), tmp_path / "part-00000.parquet")
    real, asked = bulk.pq.read_table, []

    def spied(path: Path, columns: list[str] | None = None) -> object:
        asked.append(columns)
        return real(path, columns=columns)

    monkeypatch.setattr(bulk.pq, "read_table", spied)
    monkeypatch.setattr(bulk, "run_job", lambda *_: None)
    assert main(["image-fsp", "--data", str(media), "--out", str(tmp_path)]) == 0
    assert asked == [["set", "item", "skipped"]]  # rows of an earlier version have no notices
    printed = capsys.readouterr()
    assert "50 items, 25 skipped" in printed.out
    assert printed.err.splitlines() == [f"skipped s/{n}: why" for n in range(0, 40, 2)]


@pytest.mark.slow
def test_a_killed_ray_worker_loses_nothing_and_repeats_nothing(
    media: Path, tmp_path: Path, root: Path
) -> None:
    """Two workers, one of which gets SIGKILL after a few items.

    The rows are the same as without Ray.
    """
    out, plain = tmp_path / "out", tmp_path / "plain"
    words = ["image-fsp", "--data", str(media), "--shard", "2"]
    command = [sys.executable, "-m", "eval.bulk", *words, "--out", str(out), "--workers", "2"]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=root, stderr=errors, stdout=subprocess.DEVNULL)
        victim = None
        while process.poll() is None and victim is None:
            victim = next(
                (f for f in out.glob("log/*.jsonl") if f.read_text().count("\n") >= 1), None
            )
            time.sleep(0.02)
        assert victim is not None, (tmp_path / "errors").read_text()[-2000:]
        os.kill(int(victim.stem.rsplit("-", 1)[1]), signal.SIGKILL)
        assert process.wait(timeout=600) == 0, (tmp_path / "errors").read_text()[-2000:]
    assert main([*words, "--out", str(plain), "--workers", "0"]) == 0
    assert list(read_parts(out)) == list(read_parts(plain))
    assert set(logged(out).values()) == {1}


@pytest.mark.slow
def test_sigterm_ends_a_job_through_ray_in_order(media: Path, tmp_path: Path, root: Path) -> None:
    words = ["image-fsp", "--data", str(media), "--out", str(tmp_path / "out"), "--shard", "2"]
    command = [sys.executable, "-m", "eval.bulk", *words, "--workers", "1"]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=root, stderr=errors, stdout=subprocess.DEVNULL)
        while process.poll() is None and not list((tmp_path / "out").glob("log/*.jsonl")):
            time.sleep(0.02)
        process.terminate()
        code = process.wait(timeout=600)
    said = (tmp_path / "errors").read_text()
    assert (code, said.splitlines()[-1].startswith("error: interrupted")) == (130, True), said


@pytest.mark.parametrize("keep", ["parquet", "bin"])
@pytest.mark.parametrize("stage", ["compress", "payload", "decompress"])
def test_an_item_that_cannot_be_coded_does_not_end_the_job(
    keep: str, stage: str, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(ModelSystem, stage), []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise MediaError("too wide for the format")
        if len(calls) == 3:
            raise IndexError("a fault of ours")
        return real(*arguments)

    monkeypatch.setattr(ModelSystem, stage, failing)
    words = [
        "image-fsp",
        "--data",
        str(media),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "0",
        "--first",
        "5",
    ]
    assert main([*words, "--score", "--format", keep]) == 0
    reasons = [row["skipped"] for row in read_parts(tmp_path / "out")]
    assert reasons == [None, "too wide for the format", "IndexError: a fault of ours", None, None]
    assert len(list((tmp_path / "out").glob("files/*/*.bin"))) == (3 if keep == "bin" else 0)


def test_a_full_disk_ends_the_job(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ModelSystem, "compress", full)
    words = [
        "image-fsp",
        "--data",
        str(media),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "0",
        "--first",
        "2",
    ]
    assert main(words) == 1
    assert not list(read_parts(tmp_path / "out"))
