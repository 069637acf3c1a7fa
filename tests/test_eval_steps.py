"""VP's steps beside its codebooks' errors: the ratio grows with eta, and is what other code
measures.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codec.bottlenecks import VP
from eval import steps
from eval.steps import main


def model(eta: float = 1.15) -> VP:
    return VP(2, (16, 64), eta, rows_per_code=32, reference_size=16)


def test_longer_steps_for_a_larger_eta_and_shorter_ones_for_a_larger_codebook() -> None:
    torch.manual_seed(0)
    latents = torch.randn(4096, 2)
    short, often = steps.steps(model(), latents, 16, 0.5)
    long, seldom = steps.steps(model(), latents, 16, 2.0)
    fine, _ = steps.steps(model(), latents, 64, 2.0)
    assert short.shape == (2048, 2)
    assert 2 * short.square().mean() < long.square().mean()
    assert often > seldom > 0.05
    assert fine.square().mean() < 0.7 * long.square().mean()
    assert float((short == 0).all(1).float().mean()) == pytest.approx(1 - often, abs=1e-3)


def test_one_line_for_what_is_no_vp_model_and_no_eta(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speech-fsp", "--train", str(tmp_path / "none")]) != 0
    assert "speech-fsp is no VP model; name one" in capsys.readouterr().err
    for wrong in ("much", "0", "-1", "nan"):
        assert main(["speech-vp", "--train", str(tmp_path / "none"), f"--eta={wrong}"]) != 0
        assert (
            capsys.readouterr()
            .err.splitlines()[-1]
            .startswith(f"error: --eta {wrong}: want numbers")
        )
    assert main(["speech-vp", "--train", str(tmp_path / "none")]) != 0
    assert "nor data that python -m train.prepare wrote" in capsys.readouterr().err
