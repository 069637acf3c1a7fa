"""LPIPS as a loss of pictures: against the lpips package, where it has a gradient, and what trains
without it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lpips", reason="LPIPS's heads are in the extra [train]")
from test_train import data, media, medium  # noqa: F401  fixtures
from torchvision import models as zoo

from codec.errors import CodecError
from train import losses, recipes
from train.__main__ import main
from train.budget import Budget
from train.export import load_run
from train.fleet import main as fleet_main
from train.loop import Trainer
from train.lpips_net import LPIPSNet, load, read_features
from train.speed import main as speed_main
from train.store import Store

NETS = {"squeeze": zoo.squeezenet1_1, "alex": zoo.alexnet, "vgg": zoo.vgg16}
CUT = [
    "data.batch=2",
    "data.crop=[32, 32]",
    "data.zoom=1.0",
    "codec.preset=tiny",
    "adversary.width=1",
]
VP = "codec.options={codebook_sizes=[16, 64], rows_per_code=4, neighbours=2, reference_size=16}"
only_pictures = pytest.mark.parametrize("medium", ["image"], indirect=True)


def random_features(net: str) -> dict[str, torch.Tensor]:
    """A backbone's tensors, random: no LPIPS, but the same sums."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETS[net](weights=None).features.state_dict()


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    path = tmp_path / "backbone.pth"
    torch.save(random_features("squeeze"), path)
    return path


def pair(side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, 3, side, side, generator=generator)
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def agrees(net: LPIPSNet, size: int = 48) -> None:
    """The lpips package called as its users call it, and torchmetrics' network with the same
    layers.
    """
    from torchmetrics.functional.image.lpips import _LPIPS

    second = _LPIPS(pretrained=True, net=net.net, pnet_rand=True).eval()
    second.net.load_state_dict(
        dict(zip(second.net.state_dict(), net.package.net.state_dict().values(), strict=True))
    )
    x, x_hat = pair(size)
    x_hat.requires_grad_()
    ours = net(x, x_hat)
    assert ours.shape == (3,)
    (gradient,) = torch.autograd.grad(ours.sum(), x_hat)
    assert float(gradient.abs().max()) > 0
    for theirs in (
        net.package(2 * x - 1, 2 * x_hat - 1).flatten(),
        second(2 * x - 1, 2 * x_hat - 1).flatten(),
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
        (expected,) = torch.autograd.grad(theirs.sum(), x_hat)
        assert torch.allclose(
            gradient, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max())
        )


@pytest.mark.parametrize("net", ["squeeze", "alex"])
def test_it_is_the_packages_with_any_backbone(net: str) -> None:
    agrees(LPIPSNet(net, random_features(net)))


def test_it_is_the_packages_with_the_real_backbone(root: Path) -> None:
    path = root.parent / "shared/weights/squeezenet1_1-features-fp16.pth"
    if not path.is_file():
        pytest.skip(f"the backbone is not here: {path.name}")
    net = load(path)
    assert net.net == "squeeze"
    agrees(net, 128)


def test_it_is_per_sample_zero_for_equals_and_nothing_of_it_learns() -> None:
    net = LPIPSNet("squeeze", random_features("squeeze"))
    x, x_hat = pair()
    assert float(net(x, x).abs().max()) == 0
    assert torch.allclose(net(x[1:2], x_hat[1:2]), net(x, x_hat)[1:2], atol=1e-6)
    assert not any(p.requires_grad for p in net.parameters())


def test_pictures_without_features_have_a_finite_gradient() -> None:
    """The root of a sum of zeros has none, but no layer passes it on."""
    features = random_features("squeeze")
    features["0.bias"] = features["0.bias"] - 100  # no feature of the first layer is ever above 0
    net = LPIPSNet("squeeze", features)
    x, x_hat = pair()
    x_hat.requires_grad_()
    assert torch.isfinite(torch.autograd.grad(net(x, x_hat).sum(), x_hat)[0]).all()


@only_pictures
def test_a_recipe_that_weighs_it_without_a_backbone_is_refused_before_anything_starts(
    tmp_path: Path,
    media: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    out = tmp_path / "out"
    run = [
        "image-vp-small",
        "--data",
        str(media),
        "--out",
        str(out),
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    plan = tmp_path / "plan.toml"
    plan.write_text('[a]\nrecipe = "image-vp-small"\n')
    fleet = [
        str(plan),
        "--data",
        f"image={media}",
        "--work",
        str(out),
        "--out",
        str(out),
        "--steps",
        "1",
    ]
    for command, arguments in ((main, run), (fleet_main, fleet)):
        assert command(arguments) == 1
        error = capsys.readouterr().err
        assert (
            "losses.lpips = 0.4 needs a backbone: give --lpips-backbone FILE (squeezenet1_1-"
            in error
        )
        assert error.count("\n") == 1
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"nothing")
    plan.write_text('[a]\nrecipe = "image-vp"\n')
    timed = ["image-vp", "--data", str(media)]
    for command, arguments in (
        (main, [*run, "--set", "losses.lpips=0"]),
        (fleet_main, fleet),
        (speed_main, timed),
    ):
        assert command([*arguments, "--lpips-backbone", str(bad)]) == 2
        assert "--lpips-backbone is of losses.lpips, which no" in capsys.readouterr().err
    assert main([*run, "--lpips-backbone", str(bad)]) == 3
    error = capsys.readouterr().err
    assert "no LPIPS backbone" in error
    assert error.count("\n") == 1
    assert not out.exists()


@only_pictures
def test_the_small_recipe_trains_with_it_goes_on_and_exports_without(
    tmp_path: Path,
    data: Path,  # noqa: F811
    backbone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [
        "image-vp-small",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--log-steps",
        "1",
    ]
    arguments += ["--lpips-backbone", str(backbone), "--device", "cpu", "--steps"]
    changes = [part for change in [*CUT, VP] for part in ("--set", change)]
    assert main([*arguments, "2", *changes]) == 0
    assert main([*arguments, "3", *changes, "--resume"]) == 0
    records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert all(record["lpips"] > 0 for record in records)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    trainer = load_run(tmp_path / "run", data)  # an export knows no backbone
    assert trainer.recipe.losses["lpips"] == 0.4


@only_pictures
def test_a_resumed_run_with_it_takes_the_same_steps(
    tmp_path: Path,
    data: Path,  # noqa: F811
    backbone: Path,
) -> None:
    """Its network is made anew, and draws weights that the backbone's take the place of: that moves
    no other random number, such as the steps that VP takes.
    """
    recipe = recipes.load("image-vp", [*CUT, VP.replace("=4", "=1"), "losses.lpips=0.4"])
    store = Store(data, "image", (32, 32))

    def begin(seed: int) -> Trainer:
        return Trainer(recipe, store, Budget(steps=99), tmp_path, seed, "cpu", backbone=backbone)

    whole = begin(3)
    for step in range(6):
        if step == 4:
            whole.save()
        record = whole.train_step()
    assert 0 < record["accept_rate"] < 1  # its queue is full, and so it draws
    parts = begin(4)
    parts.resume()
    for _ in range(2):
        parts.train_step()
    ours, theirs = whole.codec.state_dict(), parts.codec.state_dict()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


@only_pictures
def test_a_weight_of_zero_trains_as_no_weight(
    tmp_path: Path,
    data: Path,  # noqa: F811
    backbone: Path,
) -> None:
    weights = []
    for name, change, file in (("without", [], None), ("zero", ["losses.lpips=0"], backbone)):
        recipe = recipes.load("image-fsp", [*CUT, *change])
        run = Trainer(
            recipe,
            Store(data, "image", (32, 32)),
            Budget(steps=9),
            tmp_path / name,
            3,
            "cpu",
            backbone=file,
        )
        logged = [run.train_step() for _ in range(3)]
        assert "lpips" not in logged[0]
        weights.append(run.codec.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_it_weighs_what_the_recipe_says() -> None:
    net = LPIPSNet("squeeze", random_features("squeeze"))
    x, x_hat = pair()
    terms = losses.ImageLoss(net)(x, x_hat)
    assert set(terms) == {*losses.LOSSES["image"].required, *losses.optional("image")}
    assert torch.equal(terms["lpips"], net(x, x_hat))
    assert "lpips" not in losses.build("image", {"lpips": 0.0})(x, x_hat)


def test_crops_that_it_cannot_see_are_refused() -> None:
    with pytest.raises(CodecError, match="at least 32"):
        recipes.load("image-fsp", ["data.crop=[16, 16]", "losses.lpips=0.1"])
    recipes.load("image-fsp", ["data.crop=[16, 16]"])


def test_recipes_without_it_import_nothing_of_it() -> None:
    program = (
        "import sys; import train.__main__; from train import losses; losses.build('image', {'l1': "
        "1.0});assert not {'lpips', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_backbone_files_may_name_torchvisions_features(backbone: Path, tmp_path: Path) -> None:
    named = {f"features.{name}": tensor for name, tensor in read_features(backbone).items()}
    torch.save(named, tmp_path / "whole.pth")
    assert load(tmp_path / "whole.pth").net == "squeeze"
