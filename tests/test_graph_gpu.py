"""On a GPU: steps as a CUDA graph have the losses of the same steps without one.

It needs no media, nor the libraries that read them: python -m pytest --noconftest
tests/test_graph_gpu.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from train import recipes
from train.budget import Budget
from train.loop import Trainer
from train.store import Store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

STEPS = 60  # a third of them in each stage
OPTIONS = {
    "fsp": (),
    "vp": ("codec.options={codebook_sizes=[16, 64], rows_per_code=8, reference_size=16}",),
    "gmvq": ("codec.options={dim=8, codebook_sizes=[16, 64], weight_offset=100}",),
}
CHANGES = {
    "speech": ("data.crop=[6400]", "data.zoom=1.1"),
    "image": ("data.crop=[64, 64]", "losses={l1=1.0, mse=20.0, ssim=0.2, %s}"),
}
PULLS = {
    "fsp": "mean=0.1, variance=0.07",
    "vp": "mean=0.1, variance=0.07",
    "gmvq": "latent=0.01, kl=0.001",
}


def write_data(medium: str, path: Path) -> None:
    """Two items of smooth noise, as train.prepare lays them out."""
    rng = np.random.default_rng(0)
    if medium == "speech":
        shapes = [[30_000], [50_000]]
        steps = rng.normal(0, 300, 80_000).cumsum() * 0.98 ** np.arange(80_000).clip(0, 1)
        flat = np.clip(steps - steps.mean(), -30_000, 30_000).astype(np.int16)
    else:
        shapes = [[96, 120, 3], [120, 96, 3]]
        flat = (127 + 127 * np.sin(rng.normal(0, 0.1, 2 * 96 * 120 * 3).cumsum())).astype(np.uint8)
    path.with_suffix(".raw").write_bytes(flat.tobytes())
    path.with_suffix(".json").write_text(
        json.dumps({"medium": medium, "shapes": shapes, "skipped": []})
    )


def losses(
    medium: str, method: str, data: Path, recorded: bool, device: str = "cuda"
) -> list[float]:
    """Of each step through stages A, B and C."""
    changes = [change % PULLS[method] if "%" in change else change for change in CHANGES[medium]]
    changes += [
        "data.batch=8",
        "adversary.width=2",
        "adversary.warmup_steps=5",
        "optimiser.warmup_steps=5",
    ]
    changes += ["stages={A=0.34, B=0.33, C=0.33}", *OPTIONS[method]]
    recipe = recipes.load(f"{medium}-{method}", changes)
    store = Store(data, medium, tuple(recipe.data.crop), recipe.data.zoom).to(device)
    run = Trainer(recipe, store, Budget(steps=STEPS), data.parent / "run", 3, device)
    run.graphs.enabled = recorded
    found, stages = [], set()
    while run.progress < 1:
        run.enter(run.recipe.stage_at(run.progress))
        found.append(float(run.train_step()["loss"]))
        stages |= {run.stage} if run.graphs._recorded else set()
    # Each stage was recorded, and no recording failed.
    assert stages == (set("ABC") if recorded else set())
    assert run.graphs.enabled == recorded
    return found


@pytest.mark.parametrize("medium", ["speech", "image"])
@pytest.mark.parametrize("method", list(OPTIONS))
def test_a_graph_takes_the_steps_of_the_eager_run(tmp_path: Path, medium: str, method: str) -> None:
    """Within what bf16 and sums in another order make of it, which grows from step to step."""
    write_data(medium, tmp_path / "data")
    eager, recorded = (
        losses(medium, method, tmp_path / "data", recorded) for recorded in (False, True)
    )
    apart = max(abs(a / b - 1) for a, b in zip(recorded, eager, strict=True))
    print(f"{medium}, {method}: steps differ by up to {apart:.2%}")
    assert recorded[:20] == pytest.approx(eager[:20], rel=0.05)
    assert recorded[1:20] != pytest.approx(eager[:19], rel=0.05)  # steps differ by more than that
    for start in range(0, STEPS, 20):
        assert np.mean(recorded[start : start + 20]) == pytest.approx(
            np.mean(eager[start : start + 20]), rel=0.05
        )
