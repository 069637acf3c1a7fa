"""The papers' experiments, end to end at toy size on synthetic data, and the formulas and figures
inside them.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import tarfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from test_train_step import NoHost

from codec import host
from codec.bottlenecks import BOTTLENECKS, GMVQ, VP, VQ, Bottleneck
from codec.bottlenecks.parts import NotFiniteError
from codec.errors import CodecError, MediaError
from codec.medium import IMAGE
from codec.nets.image import ImageConfig
from codec.nets.kinds import NETS, default
from codec.nets.speech import SpeechConfig
from eval import markdown
from eval.experiments import (
    bias,
    coded,
    gmvq_runs,
    images,
    output,
    rows,
    training,
    usage,
    vpvae,
    vpvae_methods,
    vpvae_runs,
)
from eval.experiments.__main__ import EXPERIMENTS, RESULTS, main
from eval.experiments.nets import SQVAENet
from eval.experiments.runs import Request, aggregate, finished, mean_std, run_once
from train import codebook
from train.budget import Budget
from train.denormals import flushed
from train.hardware import hardware

TOY_NETS = {
    "speech": SpeechConfig(encoder_dim=8, encoder_depth=1, decoder_dim=8, decoder_depth=1),
    "image": ImageConfig((8, 8), (1, 1), (8, 8, 8), (1, 1, 1)),
}


# --- runs, tables


def test_a_finished_run_is_not_repeated_and_a_killed_one_is(tmp_path: Path) -> None:
    calls: list[Path] = []

    def work(scratch: Path) -> dict[str, float]:
        calls.append(scratch)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return {"value": float(len(calls))}

    with pytest.raises(KeyboardInterrupt):
        run_once(tmp_path, "a", {"seed": 0}, work)
    assert not list(tmp_path.iterdir())
    assert run_once(tmp_path, "a", {"seed": 0}, work) == {"value": 2.0}
    assert run_once(tmp_path, "a", {"seed": 0}, work) == {"value": 2.0}
    assert len(calls) == 2
    # One that is damaged is named, and done again when it is gone.
    (kept,) = tmp_path.glob("*.json")
    whole = kept.read_text()
    for damaged in (whole[:40], "[]", '{"settings": {}, "result": 1}'):
        kept.write_text(damaged)
        with pytest.raises(CodecError, match=r"\.json: not a finished run .* remove it"):
            run_once(tmp_path, "a", {"seed": 0}, work)
    kept.write_text(whole)
    # Other settings are another run.
    assert run_once(tmp_path, "a", {"seed": 1}, work) == {"value": 3.0}
    assert calls[0] == calls[1] != calls[2]
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert not list(tmp_path.glob("*.part"))


def test_runs_that_the_project_keeps_are_not_repeated(tmp_path: Path) -> None:
    """Their names hold a hash of all settings, of what they ran on too, in these words."""
    for kept in ("runs-gmvq-table1-cifar10", "runs-vpvae"):
        path = next((RESULTS / kept).glob("*-seed0-*.json"))
        shutil.copy(path, tmp_path)
        record = json.loads(path.read_text())
        settings = record["settings"]
        with mock.patch("torch.get_num_threads", return_value=1):
            assert settings["hardware"] == hardware("cpu")
        assert run_once(tmp_path, record["label"], settings, lambda _: {}) == record["result"]
        other = settings | {"hardware": "CPU, 11 threads"}
        assert run_once(tmp_path, record["label"], other, lambda _: {}) == {}


def test_a_run_that_diverges_is_reported_and_not_repeated(tmp_path: Path) -> None:
    def diverge(scratch: Path) -> dict[str, float]:
        scratch.mkdir()
        (scratch / "checkpoint.pt").touch()
        raise NotFiniteError

    failed = run_once(tmp_path, "a", {}, diverge)
    assert failed["failed"] == 1
    assert "not finite" in failed["reason"]
    assert not list(tmp_path.rglob("checkpoint.pt"))
    assert failed == run_once(tmp_path, "a", {}, diverge)
    runs = {"vq": [failed, {"mse": 0.004}], "gmvq": [failed]}
    lines = gmvq_runs.tables("a", gmvq_runs.Runs(runs, {}), {})[0].splitlines()
    assert "| vq | 1 of 2 | 4.00 |" in lines[4]
    assert "| gmvq | 0 of 1 | - |" in lines[5]
    assert "| vp | 256 | 0 of 1 | - |" in vpvae.tables("image", ("in",), {("vp", 256): [failed]})[0]


def test_an_error_of_the_program_is_no_run_that_diverged(tmp_path: Path) -> None:
    def wrong(_: Path) -> dict[str, float]:
        raise ValueError("want minutes or steps, above 0")

    with pytest.raises(ValueError, match="above 0"):
        run_once(tmp_path, "a", {}, wrong)
    assert not list(tmp_path.iterdir())


def test_means_and_deviations_over_seeds() -> None:
    assert mean_std([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, math.sqrt(5 / 3)))  # n - 1, not n
    assert mean_std([7.0]) == (7.0, None)
    assert mean_std([None, None]) is None
    records = [{"a": 1, "b": None, "c": "text", "d": [1]}, {"a": 3, "b": 5.0}]
    assert aggregate(records) == {"a": (2.0, pytest.approx(math.sqrt(2))), "b": (5.0, None)}
    assert output.cell((0.003114, 0.00002), 2, 1e3) == "3.11 ± 0.02"
    assert output.cell((1.0, None)) == output.cell((1.0, 0.0)) == "1.00"
    assert output.cell(None) == "-"
    assert markdown.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


# --- figures of codebook use


def test_perplexities_against_numbers_by_hand() -> None:
    assert usage.perplexity(torch.tensor([1, 1, 1, 1])) == pytest.approx(4)
    assert usage.perplexity(torch.tensor([5, 0, 0])) == pytest.approx(1)
    # 2^H with H = 1/2 * 1 + 2 * 1/4 * 2 = 1.5 bits
    assert usage.perplexity(torch.tensor([2, 1, 1, 0])) == pytest.approx(2**1.5)
    sharp = torch.eye(4)  # each token sure of another code
    assert usage.soft_perplexity(sharp) == pytest.approx(4)
    posteriors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    assert usage.soft_perplexity(posteriors) == pytest.approx(2**1.5)
    # Negative control: the mean of each token's own perplexity is something else.
    assert np.mean([usage.perplexity(p) for p in posteriors]) == pytest.approx(1.5)


def test_batch_and_global_perplexity_differ() -> None:
    """Two batches of one code each: 1 in each batch, 2 over the whole set."""
    figures = usage.hard_usage(
        [torch.zeros(8, dtype=torch.long), torch.ones(8, dtype=torch.long)], num_codes=8
    )
    assert figures["perplexity_hard_batch"] == pytest.approx(1)
    assert figures["perplexity_hard_global"] == pytest.approx(2)
    assert figures["h0"] == pytest.approx(1)
    assert figures["cvu"] == pytest.approx(2 / 8)
    assert figures["used"] == pytest.approx(2 / 8)


def test_a_short_last_batch_counts_globally_only() -> None:
    full, rest = torch.arange(4), torch.tensor([7])
    figures = usage.hard_usage([full, rest], num_codes=8)
    assert figures["perplexity_hard_batch"] == pytest.approx(4)
    assert figures["perplexity_hard_global"] == pytest.approx(5)


# --- figure 3


def test_the_exact_gradient_is_autograds() -> None:
    values, _ = bias.action_values(bias.make_function(0))
    logits = torch.randn(bias.NUM_ACTIONS, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((logits.softmax(0) * values).sum(), logits)
    exact = bias.exact_gradient(logits.detach(), values)
    assert torch.allclose(exact, gradient, rtol=1e-12, atol=1e-15)
    # Negative control: without the mean value as baseline it is another vector.
    assert not torch.allclose(logits.detach().softmax(0) * values, gradient, rtol=1e-3)


def test_the_estimate_is_the_straight_through_gradient() -> None:
    """Against autograd through onehot + y - sg(y), noise for noise.

    And it differs from the exact gradient.
    """
    function, tau = bias.make_function(1), 0.7
    values, slopes = bias.action_values(function)
    logits = torch.randn(bias.NUM_ACTIONS, dtype=torch.float64, requires_grad=True)
    gumbel = -torch.empty(6, bias.NUM_ACTIONS, dtype=torch.float64).exponential_().log()
    y = ((logits + gumbel) / tau).softmax(1)
    c = torch.nn.functional.one_hot(y.argmax(1), bias.NUM_ACTIONS) + y - y.detach()
    (expected,) = torch.autograd.grad(function(c).mean(), logits)
    estimate = bias.estimated_gradient(logits.detach(), slopes, gumbel, tau)
    assert torch.allclose(estimate, expected, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(estimate, bias.exact_gradient(logits.detach(), values), rtol=1e-2)
    assert not torch.allclose(
        bias.estimated_gradient(logits.detach(), slopes, gumbel, 1.0), expected, rtol=1e-2
    )


@pytest.mark.parametrize("gone", [0, 2])
def test_the_figure_says_of_how_many_seeds_each_row_is(tmp_path: Path, gone: int) -> None:
    """A command that was stopped has fewer of its last row."""
    assert main(["gmvq-fig3", "--seeds", "3", "--out", str(tmp_path)]) == 0
    for path in sorted((tmp_path / bias.FOLDER).glob("draws5000-*"))[:gone]:
        path.unlink()
    assert main(["gmvq-fig3", "--redraw", str(tmp_path), "--out", str(tmp_path / "drawn")]) == 0
    report = (tmp_path / "drawn/gmvq-fig3.md").read_text()
    told = "3 (50 draws) and 1 (5000 draws) seeds of net" if gone else "\n- 3 seeds of net"
    assert told in report


def test_more_draws_measure_less_noise() -> None:
    """The bias of 5000 draws is smoother and not larger than that of 50, which holds Monte Carlo
    error, too.
    """
    few, many = bias.measure(0, 50), bias.measure(0, 2000)
    assert np.mean(many["bias"]) < np.mean(few["bias"])
    assert few["entropy"] == many["entropy"]
    assert max(few["entropy"]) <= math.log(bias.NUM_ACTIONS)


# --- nets and training of the GM-VQ table


def test_the_net_is_sqvaes() -> None:
    net = SQVAENet(VQ(dim=64, codebook_sizes=(16,)))
    count = sum(p.numel() for part in (net.encoder, net.decoder) for p in part.parameters())
    assert 0.30e6 < count < 0.32e6
    x = torch.rand(2, 3, 32, 32)
    assert net.latents(x).shape == (2, 64, 8, 8)
    assert net(x)[0].shape == x.shape
    deep = SQVAENet(GMVQ(dim=64, codebook_sizes=(16,)), stages=3, blocks=1)
    assert deep.latents(torch.rand(2, 3, 64, 64)).shape == (2, 128, 8, 8)
    assert deep(torch.rand(2, 3, 64, 64))[0].shape == (2, 3, 64, 64)
    weights = torch.nn.functional.softplus(deep.head(torch.zeros(1, 64, 1, 1)))  # type: ignore[misc]
    assert torch.allclose(weights, torch.tensor(math.log(2)))  # r = 0 where the features are
    with pytest.raises(ValueError, match="64 wide"):
        SQVAENet(VQ(dim=8, codebook_sizes=(16,)))


def test_the_schedule_is_the_papers() -> None:
    shares = [training.schedule(p) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert shares == pytest.approx([0.2, 0.6, 1.0, 0.5, 0.0])


def test_sqvaes_weights_are_those_of_its_likelihood() -> None:
    """The gradient of mse + 2 (TL/D) mse sg * losses is that of 1/2 log mse + (TL/D) losses, times
    2 mse.
    """
    row = next(row for row in rows.ROWS if row.name == "sqvae")
    x, x_hat = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8, requires_grad=True)
    z_q = torch.zeros(2, 64, 2, 2)
    latent = x_hat.square().mean()
    out = training.BottleneckOutput(z_q, None, {"latent": latent, "kl": latent * 3})
    (ours,) = torch.autograd.grad(
        training.objective(row, x, x_hat, out, row.weights), x_hat, retain_graph=True
    )
    mse = (x_hat - x).square().mean()
    likelihood = 0.5 * mse.log() + z_q.numel() / x.numel() * (latent + 3 * latent / 64)
    (theirs,) = torch.autograd.grad(likelihood, x_hat, retain_graph=True)
    assert torch.allclose(ours, theirs * 2 * mse.detach(), rtol=1e-4)
    constant = replace(row, self_weighted=False)
    (wrong,) = torch.autograd.grad(training.objective(constant, x, x_hat, out, row.weights), x_hat)
    assert not torch.allclose(ours, wrong, rtol=1e-2)


def test_a_loss_without_a_weight_is_an_error() -> None:
    row = rows.gmvq("gmvq", 1.0)
    out = training.BottleneckOutput(torch.zeros(1), None, {"surprise": torch.zeros(())})
    with pytest.raises(KeyError, match="surprise"):
        training.objective(row, torch.zeros(1), torch.zeros(1), out, row.weights)


def test_measuring_changes_nothing_and_agrees_with_the_posterior() -> None:
    torch.manual_seed(0)
    net = SQVAENet(GMVQ(dim=64, codebook_sizes=(16,)))
    pictures = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    record = training.measure(net, pictures, 4, True, "cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    x = pictures[:4].float() / 255
    with torch.no_grad():
        x_hat, _ = net.eval()(x)
        z_hat, weights = net.bottleneck.points(net.latents(x))  # type: ignore[attr-defined,operator]
        square = (weights[:, None] * (z_hat[:, None] - net.bottleneck.codebook()) ** 2).sum(2)  # type: ignore[operator]
        posterior = (-0.5 * square).softmax(1)
    assert record["batches"]["mse"] == [pytest.approx(float((x_hat - x).square().mean()))]
    assert record["perplexity_soft_batch"] == pytest.approx(
        usage.soft_perplexity(posterior), rel=1e-4
    )
    entropy = -torch.xlogy(posterior, posterior).sum(1).mean()
    assert record["entropy"] == pytest.approx(float(entropy), rel=1e-3)
    assert record["log_latent_std"] == pytest.approx(
        math.log(float(z_hat.std(correction=0))), abs=1e-4
    )


# --- data


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy packs of every kind, by the names of the real ones."""
    folder = tmp_path_factory.mktemp("packs")
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 20)):
        tiles = rng.integers(0, 255, (count, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
        canvas = np.zeros((2 * 32, 32 * 32, 3), np.uint8)
        for i, tile in enumerate(tiles):
            top, left = 32 * (i // 32), 32 * (i % 32)
            canvas[top : top + 32, left : left + 32] = tile
        Image.fromarray(canvas).save(folder / f"cifar10-lossless-{part}{count}.webp", lossless=True)
        np.save(folder / f"{part}.npy", tiles)
    smooth = [
        rng.integers(0, 255, 3).astype(np.uint8) * np.ones((32, 32, 1), np.uint8) for _ in range(8)
    ]
    _jpegs(folder / "cifar10-jpeg.npz", {"train": smooth, "test": smooth[:1]})
    faces = [
        rng.integers(0, 255, 3).astype(np.uint8) * np.ones((109, 89, 1), np.uint8)
        for _ in range(10)
    ]
    _jpegs(folder / "celeba.npz", {"train": faces, "test": faces[:4]})
    for name in ("speech-train-00", "speech-test", "speech-ood"):
        _tar(folder / f"{name}.tar", "wav", [_wav(rng) for _ in range(2)])
    for name in ("image-train-00", "image-test-coco", "image-test-imagenet"):
        _tar(folder / f"{name}.tar", "png", [_png(rng) for _ in range(2)])
    return folder


def _jpegs(path: Path, parts: dict[str, list[np.ndarray]]) -> None:
    arrays: dict[str, np.ndarray] = {}
    for name, pictures in parts.items():
        files = []
        for pixels in pictures:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=95)
            files.append(file.getvalue())
        arrays[f"{name}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{name}_off"] = np.cumsum([0, *map(len, files)])
    np.savez(path, **arrays)


def _tar(path: Path, suffix: str, contents: list[bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for i, content in enumerate(contents):
            info = tarfile.TarInfo(f"{i}.{suffix}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _wav(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    time = np.arange(12_000) / 16_000
    signal = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 300) * time) * np.sin(2 * np.pi * 3 * time)
    soundfile.write(file, signal + rng.normal(0, 0.01, len(time)), 16_000, format="WAV")
    return file.getvalue()


def _png(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(
        rng.integers(0, 255, (10, 12, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    ).save(file, "PNG")
    return file.getvalue()


def test_cifar_comes_out_of_its_mosaics_in_order(packs: Path) -> None:
    data = images.cifar10([packs.parent / "nowhere", packs])
    assert data.train.shape == (48, 3, 32, 32)
    for part, name in ((data.train[:40], "train"), (data.test, "test")):
        assert np.array_equal(part.movedim(1, -1).numpy(), np.load(packs / f"{name}.npy"))
    assert "40 exact pictures and 8 JPEG copies" in data.source


def test_faces_are_cut_square_and_said_to_be_small(packs: Path) -> None:
    data = images.celeba([packs], 64)
    assert data.train.shape == (10, 3, 64, 64)
    assert data.test.shape == (4, 3, 64, 64)
    assert "89x109" in data.source
    with pytest.raises(MediaError, match="no CelebA"):
        images.celeba([packs.parent], 64)


def test_true_celeba_is_split_by_its_list(tmp_path: Path) -> None:
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for i, shade in enumerate((10, 100, 200)):
        pixels = np.full((218, 178, 3), shade, np.uint8)
        pixels[:20] = 255  # above the middle square
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=100)
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("0.jpg 0\n1.jpg 1\n2.jpg 2\n")
    data = images.celeba([tmp_path], 32)
    assert data.train.shape == data.test.shape == (1, 3, 32, 32)
    assert data.train.float().mean() == pytest.approx(10, abs=1)
    assert data.test.float().mean() == pytest.approx(200, abs=1)


# --- every experiment, end to end


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small nets, codebooks and k-means, so that a run takes a fraction of a second."""
    for key, dataset in gmvq_runs.TASKS.items():
        small = replace(dataset.small, size=16, batch=8, blocks=1)
        monkeypatch.setitem(gmvq_runs.TASKS, key, replace(dataset, small=small))
    crop = {"speech": [1920], "image": [32, 32]}
    monkeypatch.setattr(vpvae, "SMALL", vpvae_methods.Scale("tiny", (256,), 4, crop, epochs=1))
    monkeypatch.setattr(vpvae, "ABLATION_SIZE", 256)
    for medium, nets in TOY_NETS.items():
        monkeypatch.setitem(NETS[default(medium)].presets, "tiny", nets)
    monkeypatch.setattr(codebook, "FIT_TOKENS", 600)
    monkeypatch.setattr(bias, "TEMPERATURES", torch.logspace(-1, 1, 5, dtype=torch.float64))


def command(name: str, out: Path, packs: Path, *extra: str) -> int:
    data = [] if name == "gmvq-fig3" else ["--data", str(packs)]
    return main([name, "--out", str(out), *data, "--device", "cpu", *extra])


def redraw(name: str, out: Path, *extra: str) -> int:
    return main([name, "--out", str(out), "--device", "cpu", "--redraw", *extra])


@pytest.mark.parametrize("epochs", [None, 2.0, 0.5])
@pytest.mark.usefixtures("toy")
def test_in_an_epoch_every_picture_is_seen_once(
    epochs: float | None, packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """48 pictures in batches of 8."""
    budgets: list[Budget] = []

    def train(_row: object, _data: object, _settings: object, budget: Budget, *_: object) -> None:
        budgets.append(budget)
        raise KeyboardInterrupt

    monkeypatch.setattr(gmvq_runs.training, "train", train)
    words = [] if epochs is None else ["--epochs", str(epochs)]
    assert command("gmvq-table1", tmp_path, packs, "--datasets", "cifar10", *words) == 130
    assert budgets == [Budget(steps=round(6 * (epochs or gmvq_runs.SMALL_EPOCHS)))]


ARGUMENTS = {
    "gmvq-table1": ("--seeds", "1", "--steps", "1"),
    "gmvq-fig3": ("--seeds", "3"),
    "gmvq-fig4": ("--seeds", "2", "--steps", "1", "--methods", "beta=1,beta=4"),
    "gmvq-grid": (
        "--seeds",
        "1",
        "--steps",
        "1",
        "--methods",
        "gamma=0.01 beta=1,gamma=0.01 beta=4",
    ),
    "gmvq-readings": ("--seeds", "1", "--steps", "1"),
    "vpvae-table1": ("--seeds", "1", "--steps", "1"),
    "vpvae-table2": ("--seeds", "1", "--steps", "1", "--methods", "vp,fsp", "--datasets", "image"),
    "vpvae-losses": ("--seeds", "1", "--steps", "1"),
    "vpvae-ablation": ("--seeds", "1", "--steps", "1", "--datasets", "image"),
}


def backbone_of(net: str, folder: Path) -> str:
    """A file with random features of a net: no LPIPS, but it is computed as one."""
    pytest.importorskip("lpips", reason="LPIPS's heads are in the extra [train]")
    from torchvision import models as zoo

    path = folder / f"{net}.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = {"squeeze": zoo.squeezenet1_1, "alex": zoo.alexnet}[net]
        torch.save(kind(weights=None).features.state_dict(), path)
    return str(path)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment(
    name: str, tmp_path: Path, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writes JSON, Markdown and a picture.

    A second call repeats no run and comes to the same table.
    """
    arguments = ARGUMENTS[name]
    if name == "vpvae-losses":
        arguments += ("--lpips-backbone", backbone_of("squeeze", tmp_path))
    assert command(name, tmp_path, packs, *arguments) == 0
    assert "finished before" not in capsys.readouterr().out
    table = (tmp_path / f"{name}.md").read_text()
    assert not any(
        "failed" in json.loads(path.read_text())["result"]
        for path in tmp_path.glob("runs-*/*.json")
    )
    assert json.loads((tmp_path / f"{name}.json").read_text())
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 400
    runs = sorted(tmp_path.glob("runs-*/*.json"))
    times = [path.stat().st_mtime_ns for path in runs]
    assert runs
    assert command(name, tmp_path, packs, *arguments) == 0
    output = capsys.readouterr().out
    assert output.count("finished before") == len(runs)
    assert ": running" not in output
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("runs-*/*.json"))] == times
    assert (tmp_path / f"{name}.md").read_text() == table
    if name != "gmvq-fig3":
        assert "REDUCED SIZE" in table
    assert redraw(name, tmp_path / "drawn", str(tmp_path)) == 0
    assert (tmp_path / "drawn" / f"{name}.md").read_text() == table
    if name in ("gmvq-fig3", "vpvae-table2"):  # a run that is gone is done again, alone
        runs[0].unlink()
        assert command(name, tmp_path, packs, *arguments) == 0
        assert capsys.readouterr().out.count(": running") == 1
    if name == "gmvq-table1":
        assert all(f"| {row.name} |" in table for row in rows.ROWS)
    assert ("LPIPS-squeeze" in table) == (name == "vpvae-losses")


@pytest.mark.parametrize(
    ("name", "runs"), [("gmvq-table1", "runs-gmvq-table1-cifar10"), ("vpvae-table1", "runs-vpvae")]
)
def test_runs_of_a_row_differ_in_their_seed_alone(
    name: str, runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RESULTS / runs, tmp_path / runs)
    first = min([*(tmp_path / runs).glob("vq-seed0-*"), *(tmp_path / runs).glob("image-vq-k256-*")])
    record = json.loads(first.read_text())
    first.with_name("zz.json").write_text(json.dumps(record))
    assert redraw(name, tmp_path / "drawn", str(tmp_path)) == 1
    row = record["label"].split("-seed")[0]
    assert f"two runs of {row} with seed 0; keep one" in capsys.readouterr().err
    key = "tests" if "tests" in record["settings"] else "row"
    record["settings"] |= {"seed": 9, key: "others", "hardware": "another machine"}
    first.with_name("zz.json").write_text(json.dumps(record))
    assert redraw(name, tmp_path / "drawn", str(tmp_path)) == 1
    assert f"runs of {row} differ in {key}; keep those of one" in capsys.readouterr().err


def test_a_redraw_takes_no_option_of_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--seeds", "--steps", "--epochs", "--minutes", "--threads", "--data"):
        assert main(["gmvq-table1", "--out", str(tmp_path), "--redraw", option, "1"]) == 2
        assert f"{option}: --redraw draws runs as they are" in capsys.readouterr().err
    for name, words in (("gmvq-table1", ["--small"]), ("vpvae-losses", ["--lpips-backbone", "x"])):
        assert redraw(name, tmp_path, str(tmp_path), *words) == 2
        assert f"{words[0]}: --redraw draws runs as they are" in capsys.readouterr().err
    for name in ("gmvq-table1", "gmvq-fig3", "vpvae-table1"):
        assert redraw(name, tmp_path, str(tmp_path / "nothing")) == 1
        assert "no finished runs" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["vpvae-table1", "-k", "many"])
    assert "many: want numbers with commas between" in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_runs_with_other_backbones_are_others_where_they_train_with_it(
    tmp_path: Path, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--seeds", "1", "--steps", "1", "--methods", "fsp,fsp L1+LPIPS")
    for net in ("squeeze", "alex"):
        backbone = ("--lpips-backbone", backbone_of(net, tmp_path))
        assert command("vpvae-losses", tmp_path, packs, *words, *backbone) == 0
    assert capsys.readouterr().out.count("finished before") == 1  # fsp, whose loss has no LPIPS
    named = {
        (record["settings"]["name"], record["settings"].get("lpips"))
        for record in map(json.loads, (p.read_text() for p in tmp_path.glob("runs-vpvae/*.json")))
    }
    assert named == {
        ("fsp", None),
        ("fsp L1+LPIPS", "LPIPS-squeeze"),
        ("fsp L1+LPIPS", "LPIPS-alex"),
    }


@pytest.mark.usefixtures("toy")
def test_a_table_says_which_runs_were_not_measured_by_lpips(
    tmp_path: Path, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--steps", "1", "--methods", "fsp", "--datasets", "image")
    backbone = ("--lpips-backbone", backbone_of("squeeze", tmp_path))
    assert command("vpvae-table1", tmp_path, packs, *words, "--seeds", "1") == 0
    assert "not measured by" not in capsys.readouterr().out
    for seeds, of in (("3", " (2 of 3) |"), ("1", None)):
        assert command("vpvae-table1", tmp_path, packs, *words, "--seeds", seeds, *backbone) == 0
        output = capsys.readouterr().out
        assert output.count("  not measured by LPIPS-squeeze: remove its file to do so\n") == 1
        table = output[output.index("## image") :]
        assert ("LPIPS-squeeze" in table) == (of is not None)
        assert table.count(" of 3) |") == (of is not None)
        assert of is None or of in table


@pytest.mark.usefixtures("toy")
def test_packs_of_one_name_are_refused_and_a_folder_named_twice_is_one(
    tmp_path: Path, packs: Path
) -> None:
    """One would be trained on for the other, or be left out of what a run is known by."""
    again = tmp_path / "again"
    again.mkdir()
    request = Request(tmp_path, data=(packs, packs, again))
    once = vpvae_runs._packs(replace(request, data=(packs,)), "image-train-*.tar")
    assert len(once) > 0
    assert vpvae_runs._packs(request, "image-train-*.tar") == once
    shutil.copy(once[0], again)
    with pytest.raises(CodecError, match=f"again/{once[0].name}: .* has this name, too"):
        vpvae_runs._packs(request, "image-train-*.tar")


def test_what_is_missing_of_the_packs_is_told_before_the_training(
    tmp_path: Path, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "some"
    some.mkdir()
    for name in ("speech-train-00.tar", "speech-ood.tar"):
        shutil.copy(packs / name, some)
    words = ("--steps", "1", "--methods", "fsp", "--seeds", "1")
    assert command("vpvae-table1", tmp_path / "out", some, *words) == 1
    error = capsys.readouterr().err
    assert error == "error: nothing to test speech on; want speech-test.tar in --data\n"
    assert not (tmp_path / "out").exists()
    assert command("vpvae-table2", tmp_path / "out", some, *words) == 0
    assert capsys.readouterr().out.startswith("image: skipped, no image-train-*.tar in --data\n")


@pytest.mark.parametrize(
    ("key", "value"), [("data", {"image-train-00.tar": 1}), ("budget", {"steps": 1})]
)
def test_runs_of_a_medium_have_the_same_data_and_budget(
    key: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RESULTS / "runs-vpvae", tmp_path / "runs-vpvae")
    for path in (tmp_path / "runs-vpvae").glob("image-fsp-k1024-*"):
        record = json.loads(path.read_text())
        record["settings"][key] = value
        path.write_text(json.dumps(record))
    assert redraw("vpvae-table1", tmp_path / "out", str(tmp_path)) == 1
    assert f"runs of more than one {key}; keep those of one" in capsys.readouterr().err
    for others in (("--datasets", "speech"), ("-k", "256")):
        assert redraw("vpvae-table1", tmp_path / "out", str(tmp_path), *others) == 0
    for path in (tmp_path / "runs-vpvae").glob("speech-*"):
        path.unlink()
    assert redraw("vpvae-table1", tmp_path / "out", str(tmp_path), "--datasets", "speech") == 1
    assert "no finished runs to redraw" in capsys.readouterr().err


def test_losses_of_pictures_are_the_papers_and_the_shipped_recipes() -> None:
    assert len(vpvae_methods.LOSSES) == 3 * len(vpvae_methods.METHODS)
    small = vpvae_methods.recipes.load("image-fsp-small").losses
    for plain, paper, shipped in zip(*(iter(vpvae_methods.LOSSES),) * 3, strict=True):
        found = [
            vpvae_methods.recipe_of(row, "image", 256, vpvae_methods.SMALL).losses
            for row in (plain, paper, shipped)
        ]
        assert "lpips" not in found[0]
        terms = {key for key in ("l1", "mse", "ssim", "lpips") if found[1][key]}
        assert terms == {"l1", "lpips"}
        assert {k: found[2][k] for k in ("l1", "mse", "ssim", "lpips")} == {
            k: small[k] for k in ("l1", "mse", "ssim", "lpips")
        }
        for weights in found[1:]:  # the bottleneck's own are untouched
            assert {k: weights[k] for k in plain.weights} == plain.weights


@pytest.mark.usefixtures("toy")
def test_losses_without_a_backbone_are_refused_before_anything_is_decoded(
    tmp_path: Path, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("vpvae-losses", tmp_path / "out", packs) == 1
    assert "give --lpips-backbone FILE" in capsys.readouterr().err
    nothing = ("--lpips-backbone", str(tmp_path / "nothing.pth"))
    assert command("vpvae-losses", tmp_path / "out", packs, *nothing) == 3
    error = capsys.readouterr().err
    assert "nothing.pth: no LPIPS backbone (No such file or directory)" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("toy")
def test_tables_one_and_two_share_their_runs(
    tmp_path: Path, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--seeds", "1", "--steps", "1", "--methods", "fsp", "--datasets", "image")
    assert command("vpvae-table1", tmp_path, packs, *arguments) == 0
    capsys.readouterr()
    assert command("vpvae-table2", tmp_path, packs, *arguments) == 0
    assert ": running" not in capsys.readouterr().out
    record = json.loads(next(tmp_path.glob("runs-vpvae/*.json")).read_text())
    assert 0 < record["result"]["in bits"] < 9
    assert record["result"]["num_codes"] == 240
    assert not list(tmp_path.rglob("checkpoint.pt"))


@pytest.mark.usefixtures("toy")
def test_packs_are_decoded_once_for_all_seeds_and_calls(
    tmp_path: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    original = vpvae_runs.prepare
    monkeypatch.setattr(
        vpvae_runs, "prepare", lambda *a, **k: (decoded.append(a[2]), original(*a, **k))
    )
    arguments = ("--seeds", "2", "--steps", "1", "--methods", "fsp", "--datasets", "image")
    for _ in range(2):
        assert command("vpvae-table1", tmp_path, packs, *arguments) == 0
    assert [path.name.split("-")[0] for path in decoded] == ["image"]
    # Other packs with the same --out are other data, and other runs.
    others = tmp_path / "others"
    shutil.copytree(packs, others)
    (others / "image-train-01.tar").write_bytes((packs / "image-train-00.tar").read_bytes())
    before = len(list(tmp_path.glob("runs-vpvae/*.json")))
    assert command("vpvae-table1", tmp_path, others, *arguments) == 0
    assert len(decoded) == 2 == len({path.name for path in decoded})
    assert len(list(tmp_path.glob("runs-vpvae/*.json"))) == 2 * before


@pytest.mark.usefixtures("toy")
def test_an_epoch_of_pictures_is_of_pixels(
    tmp_path: Path, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 pictures of 48 x 40 pixels in crops of 32 x 32, a batch of one: 3 steps (of three colours
    it would be 11).
    """
    with tarfile.open(tmp_path / "image-train-00.tar", "w") as archive:
        for name in "ab":
            file = io.BytesIO()
            Image.fromarray(np.zeros((48, 40, 3), np.uint8)).save(file, "PNG")
            info = tarfile.TarInfo(f"{name}.png")
            info.size = len(file.getvalue())
            archive.addfile(info, io.BytesIO(file.getvalue()))
    shutil.copy(packs / "image-test-coco.tar", tmp_path)
    monkeypatch.setattr(vpvae, "SMALL", replace(vpvae.SMALL, batch=1))
    assert (
        command(
            "vpvae-table1",
            tmp_path,
            tmp_path,
            "--seeds",
            "1",
            "--methods",
            "fsp",
            "--datasets",
            "image",
        )
        == 0
    )
    record = json.loads(next(tmp_path.glob("runs-vpvae/*.json")).read_text())
    assert record["result"]["steps"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("gmvq-table1", "--methods", "vq,nothing"),
            "no methods nothing to run; choose from vq, vq-l2",
        ),
        (
            ("gmvq-table1", "--datasets", "nothing"),
            "no datasets nothing to run; choose from cifar10, celeba",
        ),
        (("vpvae-table1", "--methods", "nothing"), "no methods nothing to run"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    packs: Path,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(arguments[0], tmp_path, packs, *arguments[1:]) == 1
    assert message in capsys.readouterr().err
    assert command(arguments[0], tmp_path, tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no ")
    assert error.count("\n") == 1


def stored(folder: Path, name: str, budget: int, value: float) -> None:
    run_once(folder, name, {"name": name, "budget": budget}, lambda _: {"mse": value})


def test_finished_runs_are_read_back_and_must_be_of_one_budget(tmp_path: Path) -> None:
    stored(tmp_path, "vq", 1, 0.5)
    stored(tmp_path, "gmvq", 1, 0.25)
    stored(tmp_path, "another", 2, 0.125)
    found = finished(tmp_path, ["budget"], ["vq", "gmvq"])
    assert {r["settings"]["name"]: r["result"]["mse"] for r in found} == {"vq": 0.5, "gmvq": 0.25}
    with pytest.raises(CodecError, match="more than one budget"):
        finished(tmp_path, ["budget"], ["vq", "another"])
    with pytest.raises(CodecError, match="no finished runs"):
        finished(tmp_path, ["budget"], ["nothing"])
    (tmp_path / "cut.json").write_text("{")
    with pytest.raises(CodecError, match=r"cut\.json: not a finished run"):
        finished(tmp_path, ["budget"], ["vq"])


def test_what_is_held_out_is_not_trained_on() -> None:
    numbers = torch.arange(10)[:, None, None, None].expand(10, 3, 4, 4).to(torch.uint8)
    whole = images.ImageSet(numbers[:8], numbers[8:], "numbers")
    part = whole.held_out(2)
    assert part.train[:, 0, 0, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert part.test[:, 0, 0, 0].tolist() == [0, 1]
    assert "2 of those to train" in part.source
    assert len(whole.held_out(100).train) == 6  # three quarters are left


def test_coded_bits_are_few_where_indices_follow_from_their_neighbours() -> None:
    bottleneck = VQ(dim=2, codebook_sizes=(16,))
    generator = np.random.default_rng(0)
    rows = np.repeat(generator.integers(0, 16, (4000, 1)), 8, 1)
    noise = generator.integers(0, 16, (4000, 8))

    def bits(grid: np.ndarray) -> float:
        tables = coded.tables_of([grid[:3500]], bottleneck, 16, IMAGE, 4)
        return coded.bits(grid[3500:], 16, tables, 32) / grid[3500:].size

    assert bits(rows) < 2.5
    assert 3.8 < bits(noise) < 4.3


def test_a_net_trains_in_bfloat16_and_is_measured_in_float32() -> None:
    net = SQVAENet(VQ(dim=64, codebook_sizes=(16,)))
    found: list[torch.dtype] = []
    net.encoder[0][0].register_forward_hook(lambda *a: found.append(a[2].dtype))  # type: ignore[union-attr,operator]
    for training_mode in (True, False):
        z = net.train(training_mode).latents(torch.rand(2, 3, 32, 32))
        assert z.dtype == net.reconstruct(z).dtype == torch.float32
    assert found == [torch.bfloat16, torch.float32]


def test_denormals_are_zero_inside_and_numbers_again_afterwards() -> None:
    def survives() -> bool:
        return bool(torch.tensor(1e-39) * 1 != 0)

    assert survives()
    with flushed(), flushed():
        assert not survives()
    assert survives()
    with pytest.raises(KeyError), flushed():
        raise KeyError
    assert survives()


# --- the tables' data against the methods


def test_gumbels_kl_rises_as_published_and_the_others_weights_stand() -> None:
    """From 0 to 5e-4 along half a cosine in 5000 of the 150 000 updates in which the temperature
    falls.
    """
    for row in rows.ROWS:
        starts, middle, end = (row.weights_at(p) for p in (0.0, 2500 / 150_000, 5000 / 150_000))
        if row.name == "gumbelvq":
            assert starts["kl"] == 0
            assert middle["kl"] == pytest.approx(row.weights["kl"] / 2)
            assert end["kl"] == row.weights_at(1.0)["kl"] == row.weights["kl"]
        else:
            assert starts == middle == end == row.weights
    row = next(row for row in rows.ROWS if row.name == "gumbelvq")
    out = training.build(row, training.Settings(2, 1, 1e-3, size=16)).bottleneck.train()(
        torch.randn(2, 64, 4, 4)
    )
    x, x_hat = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    error = float((x - x_hat).square().mean())
    assert training.objective(row, x, x_hat, out, row.weights_at(0.0)).item() == pytest.approx(
        error
    )
    assert training.objective(row, x, x_hat, out, row.weights_at(1.0)).item() > error


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_a_step_leaves_nothing_to_the_host(row: rows.Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it can be one CUDA graph; but for methods that replace codes, and they say so."""
    monkeypatch.setattr(host, "HOSTS", ())
    torch.manual_seed(0)
    learning = training.Learning(
        row, training.Settings(2, 1, 1e-2, size=16), torch.Size((4, 3, 16, 16)), "cpu"
    )
    settled = learning.net.bottleneck.settled
    assert settled == (not row.name.endswith("replace"))
    before = {name: value.clone() for name, value in learning.net.named_parameters()}
    step = learning._step

    def watched() -> dict[str, torch.Tensor]:
        with NoHost() if settled else nullcontext():
            return step()

    monkeypatch.setattr(learning, "_step", watched)
    x = torch.rand(4, 3, 16, 16)
    assert not learning.learn(x, 0.5)
    assert all(
        not torch.equal(value, before[name])
        for name, value in learning.net.encoder.named_parameters(prefix="encoder")
    )
    if settled:
        assert learning.learn(x * torch.nan, 0.5)  # passed over
    else:
        with pytest.raises(ValueError, match="not finite"):
            learning.learn(x * torch.nan, 0.5)
    assert all(value.isfinite().all() for value in learning.net.parameters())


def test_a_step_follows_the_schedule() -> None:
    """Its learning rate and its weights are those of the progress that it is given."""
    row = next(row for row in rows.ROWS if row.name == "gumbelvq")
    moved = []
    for progress in (0.0, 0.05, 1.0):
        torch.manual_seed(0)
        learning = training.Learning(
            row, training.Settings(2, 1, 1e-2, size=16), torch.Size((4, 3, 16, 16)), "cpu"
        )
        before = [value.detach().clone() for value in learning.net.parameters()]
        learning.learn(torch.rand(4, 3, 16, 16), progress)
        assert float(learning.weights["kl"]) == pytest.approx(row.weights_at(progress)["kl"])
        after = [value.detach() for value in learning.net.parameters()]
        steps = [float((a - b).abs().max()) for a, b in zip(before, after, strict=True)]
        moved.append(max(steps))
    # Of AdamW, whose first step is as long as the rate.
    assert moved[0] == pytest.approx(0.2e-2, rel=0.01)
    assert moved[1] == pytest.approx(0.6e-2, rel=0.01)
    assert moved[2] == 0


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_rows_weigh_exactly_the_losses_that_there_are(row: rows.Row) -> None:
    settings = training.Settings(2, 1, 1e-3, size=16)
    net = training.build(row, settings)
    out = net.bottleneck.train()(torch.randn(2, net.bottleneck.in_dim, 4, 4))
    assert set(row.weights) == set(out.losses)
    assert row.posterior == (row.bottleneck in ("gmvq", "sqvae", "gumbelvq"))


@pytest.mark.parametrize(
    "variant", [*vpvae_methods.METHODS, *vpvae_methods.ABLATION], ids=lambda variant: variant.name
)
def test_variants_weigh_exactly_the_losses_that_there_are(variant: vpvae_methods.Variant) -> None:
    for size in vpvae_methods.FULL.sizes:
        recipe = vpvae_methods.recipe_of(variant, "image", size, vpvae_methods.SMALL)
        options = recipe.codec.options
        kind = BOTTLENECKS[variant.bottleneck]
        bottleneck: Bottleneck = kind(**options)
        assert 0.9 * size <= bottleneck.num_codes(size) <= 1.1 * size
        if size == 256:
            out = bottleneck.train()(torch.randn(2, bottleneck.in_dim, 4, 4))
            assert set(variant.weights) == set(out.losses)


def test_without_accept_every_step_is_taken() -> None:
    torch.manual_seed(0)
    options = {"dim": 3, "codebook_sizes": (16,)}
    plain, bare = VP(**options).train(), vpvae_methods.VPWithoutAccept(**options).train()
    z = torch.randn(1, 3, 512)
    for bottleneck in (plain, bare):
        bottleneck(z)  # fills the queue
    refused = [
        float((bottleneck(z).z_q == z).all(1).double().mean()) for bottleneck in (plain, bare)
    ]
    assert refused[0] > 0.05
    assert refused[1] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vpvae-table1", "--learning-rate", "1e-3"], "--learning-rate: vpvae-table1 has nothing"),
        (["gmvq-readings", "--datasets", "cifar10"], "--datasets: gmvq-readings has nothing"),
        (["vpvae-losses", "--datasets", "image"], "--datasets: vpvae-losses has nothing"),
        (["gmvq-grid", "--lpips-backbone", "x"], "--lpips-backbone: gmvq-grid has nothing"),
        (["gmvq-fig3", "--steps", "5"], "--steps: gmvq-fig3 has nothing"),
        (["gmvq-fig3", "--data", "x"], "--data: gmvq-fig3 has nothing"),
        (["gmvq-table1", "--methods", ""], "--methods: '' names nothing"),
        (["gmvq-table1", "--datasets", " ,"], "--datasets: ' ,' names nothing"),
        (["vpvae-table1", "-k", ","], "-k/--codebook-size: ',' names nothing"),
        (["gmvq-fig3", "--small"], "--small: gmvq-fig3 has nothing"),
        (["gmvq-table1", "--epochs", "0"], "must be above 0"),
        (["gmvq-table1", "--seeds", "-1"], "must be above 0"),
        (["gmvq-table1", "--seeds", "two"], "invalid int value"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([*words, "--out", str(tmp_path / "out")])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
