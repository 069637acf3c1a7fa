"""The benchmarks run, and what they compare is the same work."""

import json
import sys
from pathlib import Path

import pytest
import torch

from codec.bottlenecks import VP, VQ, _mixture
from eval.bench import __main__ as command
from eval.bench import density, libraries, mixture, timing


def test_both_sides_do_the_same_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("vector_quantize_pytorch", reason="the other side is in the extra [bench]")
    out = tmp_path / "bench.json"
    assert command.main(["bottlenecks", "--tokens", "64", "--turns", "1", "--out", str(out)]) == 0
    figures = json.loads(out.read_text())["bottlenecks"]
    rows = {name: row for name, row in figures.items() if isinstance(row, dict)}
    assert set(rows) == {"vq", "vq-ema", "simvq", "fsq", "fsp"}
    assert all(row["ours_s"] > 0 and row["theirs_s"] > 0 for row in rows.values())
    assert "ours / theirs" in capsys.readouterr().out


def test_a_step_trains_the_latents_and_the_codebook() -> None:
    """What is timed reaches both: a benchmark that skipped the backward pass would look fast."""
    library = pytest.importorskip("vector_quantize_pytorch")
    rows = torch.randn(8, 4, 3)
    for side, module in (
        (libraries.ours, VQ(3, (16,))),
        (
            libraries.theirs,
            library.VectorQuantize(3, 16, learnable_codebook=True, ema_update=False),
        ),
    ):
        side(module, rows)()
        gradients = [p.grad for p in module.parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), side


def test_a_ratio_is_of_neighbours_in_time() -> None:
    calls: list[str] = []
    first, second, ratio = timing.compare(
        lambda: calls.append("a"), lambda: calls.append("b"), 4, "cpu"
    )
    assert calls == ["a", "b"] * 7
    assert min(first, second, ratio) > 0


SMALL = {
    "vp": ("-k", "8", "--dim", "2", "--tokens", "300"),
    "gmvq": ("-k", "8", "--dim", "2", "--tokens", "300"),
    "nearest": ("-k", "64", "--dim", "3", "--tokens", "500"),
    "kmeans": ("-k", "16", "--dim", "3", "--tokens", "2000"),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_benchmark_runs_and_is_compared_with_its_last_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("nearest", "kmeans"):
        for package in ("faiss", "sklearn"):
            pytest.importorskip(package, reason="the other side is in the extra [bench]")
    monkeypatch.setattr(density, "DRAWS", 1)
    out = tmp_path / "bench.json"
    arguments = [name, *SMALL[name], "--turns", "1", "--device", "cpu"]
    assert command.main([*arguments, "--out", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["machine"]["threads"] >= 1
    rows = figures[name]
    assert rows
    assert all(row["ratio"] > 0 for row in rows.values())
    if name == "nearest":
        assert all(row["same_share"] > 0.99 for row in rows.values())
    for row in rows.values():
        row["ratio"] *= 1e6
    out.write_text(json.dumps(figures))
    capsys.readouterr()
    assert command.main([*arguments, "--against", str(out)]) == 0
    assert "ratio: " in capsys.readouterr().out


def test_an_earlier_run_that_is_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    for content in (None, "{"):
        if content is not None:
            bad.write_text(content)
        assert command.main(["vp", "--against", str(bad)]) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_a_missing_library_is_named_with_the_extra_of_benchmarks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    assert command.main(["bottlenecks", "--tokens", "64", "--turns", "1"]) == 1
    assert capsys.readouterr().err.endswith("pip install '.[bench]'\n")


def test_the_published_way_takes_our_steps() -> None:
    """With the same queue and the same draws."""
    torch.manual_seed(0)
    method = density.filled(3, 64, "cpu", rows_per_code=12)
    z = torch.randn(1, 3, 500)
    torch.manual_seed(1)
    ours = method.eval().train()._perturb(z[0].T, 1.0)[0]
    torch.manual_seed(1)
    assert torch.allclose(
        z[0].T + ours, density.published(z[0].T, method.queue, 12, method.eta), atol=1e-5
    )
    torch.manual_seed(1)
    assert not torch.allclose(
        z[0].T + ours, density.published(z[0].T, method.queue, 13, method.eta), atol=1e-5
    )
    assert isinstance(method, VP)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_plain_form_of_gmvq_has_our_gradients(
    monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    def no_noise(like: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.zeros_like(like)

    monkeypatch.setattr(_mixture, "gumbel", no_noise)
    monkeypatch.setattr(mixture, "gumbel", no_noise)
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, 0.5))
    found = []
    real = mixture.GMVQ
    monkeypatch.setattr(mixture, "GMVQ", lambda *a, **k: found.append(real(*a, **k)) or found[-1])
    ours, theirs, part = mixture.steps(4, 32, 200, "cpu")
    assert part == 1
    (method,) = found
    ours()
    first = method.codebook().grad.clone()
    method.zero_grad()
    if wrong:
        method.tau.mul_(2)
    theirs()
    assert torch.allclose(method.codebook().grad, first, rtol=1e-4, atol=1e-7) != wrong


def test_peak_memory_sees_what_a_step_holds() -> None:
    def step() -> None:
        torch.ones(2**24).mul_(2)  # 64 MiB

    peak = timing.peak_bytes(step, "cpu")
    assert peak == peak or sys.platform != "linux"
    assert peak != peak or 2**25 < peak < 2**28  # NaN where nobody counts
    assert peak != peak or timing.peak_bytes(lambda: None, "cpu") < 2**24
