"""The benchmarks run, and what they compare is the same work."""

import json
from pathlib import Path

import pytest
import torch

from eval import bench


def test_both_sides_do_the_same_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("vector_quantize_pytorch", reason="the other side is in the extra [dev]")
    out = tmp_path / "bench.json"
    assert bench.main(["bottlenecks", "--tokens", "64", "--turns", "1", "--out", str(out)]) == 0
    figures = json.loads(out.read_text())["bottlenecks"]
    rows = {name: row for name, row in figures.items() if isinstance(row, dict)}
    assert set(rows) == {"vq", "vq-ema", "simvq", "fsq", "fsp"}
    assert all(row["ours_s"] > 0 and row["theirs_s"] > 0 for row in rows.values())
    assert "ours / theirs" in capsys.readouterr().out


def test_a_step_trains_the_latents_and_the_codebook() -> None:
    """What is timed reaches both: a benchmark that skipped the backward pass would look fast."""
    library = pytest.importorskip("vector_quantize_pytorch")
    from codec.bottlenecks import VQ

    rows = torch.randn(8, 4, 3)
    for side, module in (
        (bench.ours, VQ(3, (16,))),
        (bench.theirs, library.VectorQuantize(3, 16, learnable_codebook=True, ema_update=False)),
    ):
        side(module, rows)()
        gradients = [p.grad for p in module.parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), side


def test_a_ratio_is_of_neighbours_in_time() -> None:
    calls: list[str] = []
    first, second, ratio = bench.compare(lambda: calls.append("a"), lambda: calls.append("b"), 4, "cpu")
    assert calls == ["a", "b"] * 7
    assert min(first, second, ratio) > 0
