"""python -m eval.coder_bench over a folder of models: all figures of a row are of the same data."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import gradient

from codec.coding import Model
from codec.errors import MediaError
from codec.layers import survey
from eval import coder_bench, coder_table


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


def test_the_first_items_alone_are_read(
    models: Path,  # noqa: ARG001
    media_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coder_bench, "first_use", lambda *_: "first use: not now")
    monkeypatch.setattr(coder_bench, "REPEATS", 1)
    out = tmp_path / "coder.json"
    arguments = ["image-fsp", "speech-fsp", "--data", str(media_folder), "-k", "256"]
    assert coder_bench.main([*arguments, "--first", "1", "--out", str(out)]) == 0
    assert sum(row["items"] for row in json.loads(out.read_text())["rows"]) == 1


@pytest.mark.parametrize("error", [MediaError("no sound"), OSError(5, "Input/output error")])
def test_an_item_that_cannot_be_read_is_named(error: Exception) -> None:
    def read() -> bytes:
        raise error

    test_set: Any = SimpleNamespace(items=[SimpleNamespace(name="a.wav", read=read)])
    with pytest.raises(MediaError, match=r"^a\.wav: .*(sound|error).*; leave it out$"):
        coder_table.items_of(test_set, "speech")


def test_pixels_are_compressed_with_layers_where_these_are_wanted(image_model: Model) -> None:
    (single,), (layered,) = (
        coder_table.compressed([gradient(40, 56)], image_model, 1024, layers=layers)
        for layers in (False, True)
    )
    assert not survey(io.BytesIO(single)).layers
    assert len(survey(io.BytesIO(layered)).layers) == 1


def test_a_table_is_saved_over_an_older_one_with_all_that_is_given(tmp_path: Path) -> None:
    table = coder_table.Table({"model": ("model", "")})
    for note in ("one", "two"):
        table.save(tmp_path / "table.json", note=note)
    assert json.loads((tmp_path / "table.json").read_text())["note"] == "two"


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
