"""eval.bench.path: stages add up, media have the sizes they are named by."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from conftest import gradient, picture, tones, wav
from PIL import Image

from codec import cards
from codec.coding import Model
from codec.errors import CodecError
from eval.bench import commands, material, measured
from eval.bench import path as bench_path


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_stages_add_up_to_the_whole(medium: str, speech_model: Model, image_model: Model) -> None:
    model = speech_model if medium == "speech" else image_model
    data = wav(tones(4000)) if medium == "speech" else picture(gradient(40, 64))
    spent: dict[str, float] = {}
    found = measured.once(model, data, spent)
    assert found["units"] == (0.25 if medium == "speech" else 40 * 64)
    for way in ("compress", "decompress"):
        assert sum(found[way]["stages"].values()) == pytest.approx(found[way]["cpu_s"])
    assert found["bitstream"] == measured.once(model, data, spent)["bitstream"]
    other = wav(tones(4100)) if medium == "speech" else picture(gradient(41, 64))
    assert found["bitstream"] != measured.once(model, other, spent)["bitstream"]


def test_a_watched_method_is_counted_whether_it_returns_or_yields() -> None:
    class Work:
        def value(self) -> int:
            return sum(range(200_000))

        def values(self) -> Iterator[int]:
            for _ in range(2):
                yield sum(range(200_000))

    spent: dict[str, float] = {}
    work = Work()
    measured.watch(work, "value", spent, "a")
    measured.watch(work, "values", spent, "b")
    assert list(work.values()) == [work.value()] * 2
    assert spent["a"] > 0
    assert spent["b"] > 0


def test_media_have_the_lengths_they_are_named_by(tmp_path: Path, root: Path) -> None:
    data = root.parent / "shared/data"
    if not data.is_dir():
        pytest.skip("real media are not here")
    made = material.make_media(data, tmp_path, (0.5, 400), (0.1, 1))
    assert [soundfile.info(made[name]).frames for name in ("0.5 s", "400 s")] == [8000, 400 * 16000]
    for name in ("0.1 MP", "1 MP"):
        width, height = Image.open(io.BytesIO(made[name].read_bytes())).size
        assert width * height / 1e6 == pytest.approx(float(name.split()[0]), rel=0.01)


def test_a_command_is_measured_alone(tmp_path: Path) -> None:
    small, large = (
        commands.spend(
            ["-c", f"x = bytearray({size}); x[::4096] = x[1::4096]"], tmp_path, tmp_path, 1
        )
        for size in (1 << 12, 1 << 27)
    )
    assert 120 < large.peak_mib - small.peak_mib < 140
    assert large.cpu_s > 0
    with pytest.raises(CodecError, match="exit code 3"):
        commands.spend(["-c", "raise SystemExit(3)"], tmp_path, tmp_path, 1)


@pytest.mark.parametrize("against", [False, True])
def test_growth_is_of_what_is_above_the_smallest_file(
    against: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Commands of 2 CPU seconds and 3 a megapixel, and of another checkout of twice that: both are
    measured, file by file.
    """
    other = tmp_path / "other"
    (other / "codec").mkdir(parents=True)
    asked: list[tuple[str, Path]] = []
    sizes = {"0.1 MP": 0.1, "1 MP": 1.0, "12 MP": 12.0}

    def made(_data: Path, folder: Path, *_: object) -> dict[str, Path]:
        return {label: folder / f"{size}.bmp" for label, size in sizes.items()}

    def spend(arguments: tuple[object, ...], _: Path, tree: Path, __: int) -> commands.Spent:
        if arguments[1] == "codec.compress":
            asked.append((str(arguments[3]), tree))
        size, factor = float(Path(asked[-1][0]).stem), 2 if tree == other else 1
        return commands.Spent(factor * (2 + 3 * size), 1.0, factor * 100.0)

    monkeypatch.setattr(commands, "make_media", made)
    monkeypatch.setattr(commands, "spend", spend)
    out = tmp_path / "out.json"
    words = ["scaling", "--data", str(tmp_path), "--models", "image-fsp", "--out", str(out)]
    assert bench_path.main([*words, *(["--against", str(other)] if against else [])]) == 0
    trees = [bench_path.ROOT, other] if against else [bench_path.ROOT]
    assert [tree for _, tree in asked] == 3 * trees
    rows = json.loads(out.read_text())["scaling"]
    for way in ("compress", "decompress"):
        found = [rows[f"image-fsp {label}"][way] for label in sizes]
        assert [row["cpu_s_per_unit"] for row in found] == [
            None,
            pytest.approx(3),
            pytest.approx(3),
        ]
        if against:
            assert [row["other_cpu"] for row in found] == [2, 2, 2]
            assert [row["other_peak"] for row in found] == [2, 2, 2]
            assert found[2]["other"]["cpu_s_per_unit"] == pytest.approx(6)
    printed = capsys.readouterr().out
    assert "compress 3.000 CPU s a megapixel in 100 MiB" in printed
    assert ("the other takes 2.00 x the CPU time" in printed) == against


def test_what_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["--data", str(tmp_path)]
    for code, words, message in (
        (3, ["--models", "typo"], "no model typo"),
        (2, ["--against", str(tmp_path)], "is no checkout"),
        (1, [], "speech-test.tar: no such file"),
    ):
        assert bench_path.main(["speed", *data, *words]) == code
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ")
        assert message in line
    monkeypatch.setattr(bench_path.sys, "executable", "/bin/false")
    with pytest.raises(CodecError, match="the measured process failed"):
        bench_path.Worker(tmp_path, "speech-fsp", "shipped", 1)


def test_a_model_measures_files_of_its_card_s_medium(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model is called."""
    monkeypatch.setattr(cards, "find", lambda name: SimpleNamespace(medium=name.split("-")[1]))
    assert material.fits("speechless-image", "0.4 MP")
    assert not material.fits("speechless-image", "10 s")
    assert material.fits("picture-speech", "10 s")
    assert not material.fits("picture-speech", "0.4 MP")
