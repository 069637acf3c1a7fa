"""Where the figures of the papers' tables come from: which pictures, weights and domain."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gradient, picture, tiny_codec
from scipy.stats import entropy
from test_experiments import command, packs, toy  # noqa: F401  fixtures

from codec.entropy import NO_TABLES, encode_indices
from codec.model import build
from eval.experiments import (
    coded,
    gmvq,
    images,
    rows,
    training,
    vpvae,
    vpvae_methods,
    vpvae_runs,
)
from eval.experiments.runs import Request
from train.budget import Budget

# --- weights


def test_weights_are_those_that_were_published() -> None:
    """Numbers, since a ratio upside down trains as well and ranks the methods otherwise."""
    assert vpvae_methods.MOMENTS == {"mean": 0.1, "variance": 0.07}  # VP-VAE, lambda_1, lambda_2
    # The encoder feels a quarter of what the codes do (van den Oord et al. 2017; VQGAN).
    for weights in (rows.VQ_WEIGHTS, vpvae_methods.COUPLED):
        assert weights["commitment"] == 0.25 * weights["codebook"]
    by_name = {row.name: row for row in rows.ROWS}
    assert by_name["gumbelvq"].weights["kl"] == pytest.approx(5e-4 * 2 * rows.CIFAR_VARIANCE)
    assert by_name["sqvae"].weights == {"latent": 1.0, "kl": 1 / 64}
    for beta in (0.0, 1.0, rows.BETA):  # mse + g' (latent + (beta / L) kl), of GMVQ
        weights = rows.gmvq("a", beta, gamma=0.01).weights
        assert weights == {"latent": 0.01, "kl": pytest.approx(0.01 * beta / 64)}
    assert [row.weights["kl"] for row in gmvq.SWEEP] == pytest.approx(
        [rows.GAMMA * beta / 64 for beta in gmvq.BETAS]
    )


def test_a_variant_keeps_the_recipes_distances_and_has_one_stage() -> None:
    for medium, distances in (("image", ("l1", "mse", "ssim")), ("speech", ("mel", "stft"))):
        shipped = vpvae_methods.recipes.load(f"{medium}-fsp")
        for variant in vpvae_methods.METHODS:
            recipe = vpvae_methods.recipe_of(variant, medium, 1024, vpvae_methods.SMALL)
            for name in distances:
                assert recipe.losses[name] == shipped.losses[name] > 0
            assert recipe.share("A") == 1
            dims = build(recipe.config()).bottleneck.dim
            assert dims == (5 if variant.bottleneck == "tokenbridge" else 4)  # d of [8, 5, 5, 5]


# --- GM-VQ: what is trained on, and what is measured


def noise(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_a_row_is_measured_on_the_test_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the coder's tables are learnt from the others."""
    seen: dict[str, Any] = {}

    def tables_of(grids: list[np.ndarray], *_: Any) -> Any:
        seen["learnt"] = sum(grid.size for grid in grids)
        return NO_TABLES

    def bits(grid: np.ndarray, *_: Any) -> int:
        seen["coded"] = grid.size
        return 3 * grid.size

    measure = training.measure

    def measured(net: Any, pictures: torch.Tensor, *rest: Any) -> dict[str, Any]:
        seen["measured"] = pictures
        return measure(net, pictures, *rest)

    monkeypatch.setattr(coded, "tables_of", tables_of)
    monkeypatch.setattr(coded, "bits", bits)
    monkeypatch.setattr(training, "measure", measured)
    data = images.ImageSet(noise(24, 0), noise(8, 1), "noise")
    settings = training.Settings(2, 1, 1e-3, size=16, batch=8)
    row = next(row for row in rows.ROWS if row.name == "vq")
    record = training.train(row, data, settings, Budget(steps=1), 0, "cpu")
    assert torch.equal(seen["measured"], data.test)
    assert (seen["learnt"], seen["coded"]) == (24 * 64, 8 * 64)  # tokens of 4 x 4 pixels
    assert record["coded_bits"] == 3


def test_an_epoch_has_every_picture_once() -> None:
    pictures = torch.arange(24)[:, None, None, None].expand(24, 3, 4, 4).to(torch.uint8)
    batches = training.endless(pictures, 8, "cpu")
    epochs = [
        [round(float(v) * 255) for _ in range(3) for v in next(batches)[:, 0, 0, 0]]
        for _ in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]  # in a new order


# --- VP-VAE: one test pack


def test_figures_of_a_pack_are_over_all_its_items(tmp_path: Path) -> None:
    """Pictures of unequal size, against sums written down here."""
    from eval.metrics import psnr

    codec = tiny_codec("image")
    size = 256
    contents = [gradient(40, 48), gradient(64, 32)[::-1].copy()]
    pack = tmp_path / "pack.tar"
    with tarfile.open(pack, "w") as archive:
        for number, pixels in enumerate(contents):
            data = picture(pixels)
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    more = {"darkest": lambda _, x_hat: float(x_hat.min()), "unscored": lambda *_: None}
    found = vpvae_runs.test(codec, size, NO_TABLES, pack, more)
    tokens, bits, quality, darkest = [], 0, [], []
    for pixels in contents:
        x = torch.from_numpy(pixels).movedim(-1, 0)[None] / 255
        with torch.no_grad():
            index = codec.encode(x, size)
            x_hat = codec.decode(index, tuple(x.shape[2:]), size)[0]
        decoded = np.rint(x_hat.clamp(0, 1).numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
        quality.append(psnr(pixels, decoded))
        darkest.append(decoded.min())
        flat = index[0].flatten(1).numpy()
        tokens.append(flat.ravel())
        bits += 8 * len(encode_indices(flat, 256, NO_TABLES, pixels.shape[1]))
    together = np.concatenate(tokens)
    counts = np.bincount(together, minlength=256)
    assert found["items"] == 2
    assert found["PSNR"] == pytest.approx(np.mean(quality), abs=1e-6)
    assert found["darkest"] == np.mean(darkest)
    assert found["unscored"] is None
    assert found["unscored scored"] == 0
    assert found["bits"] == pytest.approx(bits / len(together))
    assert found["H0"] == pytest.approx(entropy(counts, base=2))
    assert found["CVU"] == pytest.approx(np.exp(entropy(counts)) / 256)


@pytest.mark.usefixtures("toy")
def test_what_is_tested_is_the_average_with_the_variants_bottleneck(
    tmp_path: Path,
    packs: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each domain on its own pack."""
    runs: list[vpvae_runs.Trainer] = []
    tested: list[Any] = []

    class Watched(vpvae_runs.Trainer):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            runs.append(self)

    def test(codec: Any, *rest: Any) -> dict[str, Any]:
        tested.append((codec, rest[2].name))
        return {"items": 1, "PSNR": float(len(tested)), "SSIM": 0.5, "CVU": 0.5, "H0": 1, "bits": 2}

    monkeypatch.setattr(vpvae_runs, "Trainer", Watched)
    monkeypatch.setattr(vpvae_runs, "test", test)
    arguments = ("--seeds", "1", "--steps", "1", "--datasets", "image")
    words = (*arguments, "--methods", "vp without MH step")
    assert command("vpvae-ablation", tmp_path, packs, *words) == 0
    (run,) = runs
    assert [codec is run.average for codec, _ in tested] == [True, True]
    assert [name for _, name in tested] == ["image-test-coco.tar", "image-test-imagenet.tar"]
    assert type(run.average.bottleneck) is vpvae_methods.VPWithoutAccept
    record = json.loads(next(tmp_path.glob("runs-vpvae/*.json")).read_text())["result"]
    assert (record["in PSNR"], record["out PSNR"]) == (1, 2)


def test_each_table_is_of_its_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {
        f"{domain} {key}": value
        for domain, values in (
            ("in", (20.5, 0.25, 0.5, 7.5, 6.4)),
            ("out", (10.5, 0.125, 0.75, 3.5, 3.2)),
        )
        for key, value in zip(("PSNR", "SSIM", "CVU", "H0", "bits"), values, strict=True)
    }
    record |= {"num_codes": 240, "steps": 1, "preset": "tiny", "batch": 4, "hardware": "a CPU"}
    results = {"image": {("fsp", 256): [record]}}
    monkeypatch.setattr(vpvae, "collect", lambda *_: results)
    for table in (vpvae.table1, vpvae.table2):
        table(Request(tmp_path, small=True))
    one, two = ((tmp_path / f"vpvae-table{n}.md").read_text() for n in (1, 2))
    # log2 of the 240 codes there are, and bits over the 8 x 8 pixels of a token.
    assert "| fsp | 256 | 1 | 20.50 | 0.250 | 0.500 | 7.50 | 7.91 | 6.40 | 0.100 |" in one
    assert "| fsp | 256 | 1 | 10.50 | 0.125 | 0.750 | 3.50 | 7.91 | 3.20 | 0.050 |" in two


def test_rates_of_the_tables_are_those_of_the_nets() -> None:
    for medium, unit in (("image", 1.0), ("speech", 16_000 / 1000)):
        recipe = vpvae_methods.recipe_of(vpvae_methods.METHODS[0], medium, 256, vpvae_methods.SMALL)
        codec = build(recipe.config())
        runs = {("vp", 256): [{"in bits": 6.4}]}
        cells = vpvae.tables(medium, ("in",), runs)[0].splitlines()[-1].split(" | ")
        assert float(cells[9]) == pytest.approx(6.4 * unit / codec.stride**codec.axes, abs=1e-3)
