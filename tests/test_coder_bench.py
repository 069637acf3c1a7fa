"""python -m eval.coder_bench over a folder of models: all figures of a row are of the same data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval import coder_bench


def test_one_command_measures_all_models(
    models: Path,  # noqa: ARG001
    media_folder: Path,
    tmp_path: Path,
    monkeypatch,
    capsys,
) -> None:
    monkeypatch.setattr(coder_bench, "first_use", lambda *_: "first use: not now")
    monkeypatch.setattr(coder_bench, "REPEATS", 1)
    out = tmp_path / "coder.json"
    assert coder_bench.main(["--data", str(media_folder), "-k", "256,1024", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["model"], row["codebook_size"]) for row in rows] == [
        (name, size) for name in ("image-fsp", "speech-fsp") for size in (256, 1024)
    ]
    for row in rows:
        assert row["items"] == 2
        assert row["coded"] < row["whole"]
        assert row["coded"] <= row["fixed"]
        assert row["order_0"] <= row["log2_codes"]
        # The promise: a chunk is never longer than fixed width and 2 bytes.
        assert row["over_fixed"] <= 2
    table = out.with_suffix(".md").read_text()
    assert table in capsys.readouterr().out
    assert len(table.splitlines()) == 2 + len(rows)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-k", "17"], 2, "--codebook-size 17"),
        (["--data", "nowhere"], 1, "nowhere"),
        (["none"], 3, "none"),
    ],
)
def test_wrong_arguments_are_one_line(
    models: Path,  # noqa: ARG001
    media_folder: Path,
    arguments: list[str],
    code: int,
    message: str,
    capsys,
) -> None:
    data = [] if "--data" in arguments else ["--data", str(media_folder)]
    assert coder_bench.main([*arguments, *data]) == code
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
