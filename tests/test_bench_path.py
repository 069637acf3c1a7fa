"""eval.bench.path: stages add up, media have the sizes they are named by."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from conftest import gradient, picture, tones, wav
from PIL import Image

from codec.coding import Model
from eval.bench import path as bench_path


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_stages_add_up_to_the_whole(medium: str, speech_model: Model, image_model: Model) -> None:
    model = speech_model if medium == "speech" else image_model
    data = wav(tones(4000)) if medium == "speech" else picture(gradient(40, 64))
    spent: dict[str, float] = {}
    found = bench_path.once(model, data, spent)
    assert found["units"] == (0.25 if medium == "speech" else 40 * 64)
    for way in ("compress", "decompress"):
        assert sum(found[way]["stages"].values()) == pytest.approx(found[way]["cpu_s"])
    assert found["bitstream"] == bench_path.once(model, data, spent)["bitstream"]
    other = wav(tones(4100)) if medium == "speech" else picture(gradient(41, 64))
    assert found["bitstream"] != bench_path.once(model, other, spent)["bitstream"]


def test_a_watched_method_is_counted_whether_it_returns_or_yields() -> None:
    class Work:
        def value(self) -> int:
            return sum(range(200_000))

        def values(self) -> Iterator[int]:
            for _ in range(2):
                yield sum(range(200_000))

    spent: dict[str, float] = {}
    work = Work()
    bench_path.watch(work, "value", spent, "a")
    bench_path.watch(work, "values", spent, "b")
    assert list(work.values()) == [work.value()] * 2
    assert spent["a"] > 0
    assert spent["b"] > 0


def test_media_have_the_lengths_they_are_named_by(tmp_path: Path, root: Path) -> None:
    data = root.parent / "shared/data"
    if not data.is_dir():
        pytest.skip("real media are not here")
    made = bench_path.make_media(data, tmp_path, (0.5, 400), (0.1, 1))
    assert [soundfile.info(made[name]).frames for name in ("0.5 s", "400 s")] == [8000, 400 * 16000]
    for name in ("0.1 MP", "1 MP"):
        width, height = Image.open(io.BytesIO(made[name].read_bytes())).size
        assert width * height / 1e6 == pytest.approx(float(name.split()[0]), rel=0.01)


def test_a_command_is_measured_alone(tmp_path: Path) -> None:
    small, large = (
        bench_path.spend(
            ["-c", f"x = bytearray({size}); x[::4096] = x[1::4096]"], tmp_path, tmp_path, 1
        )
        for size in (1 << 12, 1 << 27)
    )
    assert 120 < large.peak_mib - small.peak_mib < 140
    assert large.cpu_s > 0
    with pytest.raises(subprocess.CalledProcessError):
        bench_path.spend(["-c", "raise SystemExit(3)"], tmp_path, tmp_path, 1)
