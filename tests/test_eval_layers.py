"""python -m eval.layers over a folder of models: every prefix beside the file made at its size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import gradient, picture

from eval import layers


def test_one_command_measures_all_models(
    models: Path,  # noqa: ARG001
    media_folder: Path,
    tmp_path: Path,
    capsys,
) -> None:
    out = tmp_path / "layers.json"
    assert layers.main(["--data", str(media_folder), "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["model"], row["codebook_size"]) for row in rows] == [
        (name, size) for name in ("image-fsp", "speech-fsp") for size in (256, 1024)
    ]
    for row in rows:
        assert row["items"] == 2
        assert row["excess"] == row["layered"] / row["single"] - 1
        assert (row["excess"] == 0) == (row["codebook_size"] == 256)
        assert row["units_per_second"] > 0
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out


def test_a_prefix_with_other_indices_would_be_found(
    models: Path,  # noqa: ARG001
    media_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control: a cut that stops a layer too early."""
    monkeypatch.setattr(layers, "cut", lambda data, found, _: data[: min(found.stops.values())])
    with pytest.raises(RuntimeError, match="cut to K = 1024"):
        layers.main(["image-fsp", "--data", str(media_folder)])


@pytest.mark.parametrize(("arguments", "code"), [(["none"], 3), (["--data", "nowhere"], 1)])
def test_wrong_arguments_are_one_line(
    models: Path,  # noqa: ARG001
    media_folder: Path,
    arguments: list[str],
    code: int,
    capsys,
) -> None:
    data = [] if "--data" in arguments else ["--data", str(media_folder)]
    assert layers.main([*arguments, *data]) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_model_without_layers_is_refused_before_the_table(
    models: Path,  # noqa: ARG001
    media_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(layers, "ladder", lambda _, size: [size])
    assert layers.main(["image-fsp", "--data", str(media_folder)]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "error: image-fsp has no layers; name another model\n"


def test_what_cannot_be_read_is_named(
    models: Path,  # noqa: ARG001
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.png").write_bytes(picture(gradient(24, 32))[:60])
    assert layers.main(["image-fsp", "--data", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: a.png: damaged picture")
    assert error.endswith("; leave it out\n")
