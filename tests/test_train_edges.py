"""Trainings at their edges: odd crops, a bottleneck without state, more codes than a file holds."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from test_train import SMALL_GMVQ, SMALL_VP, data, media, medium, trainer  # noqa: F401  fixtures
from torch import Tensor

from codec import cards, coding
from codec.bottleneck import Bottleneck, BottleneckOutput, straight_through
from codec.bottlenecks import BOTTLENECKS
from codec.entropy import prior, range_coder
from codec.errors import CodecError
from train import recipes
from train.export import export, load_run


class Rounding(Bottleneck):
    """Sixteen levels in [-1, 1], with neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__(dim=1, codebook_sizes=(16,))

    def _training_forward(self, z: Tensor, codebook_size: int | None) -> BottleneckOutput:
        assert codebook_size == 16
        indices = self._encode(z, 16)
        return BottleneckOutput(straight_through(self._decode(indices, 16), z), indices)

    def _encode(self, z: Tensor, size: int) -> Tensor:
        assert size == 16
        return ((z.clamp(-1, 1) + 1) * 7.5).round().long()

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        assert size == 16
        return indices.float() / 7.5 - 1


@pytest.mark.parametrize("medium", ["image"], indirect=True)
def test_a_bottleneck_without_state_is_trained_and_exported(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BOTTLENECKS, "rounding", Rounding)
    changes = ("codec.bottleneck=rounding", "codec.options={}")
    changes += ("losses={l1=1.0, mse=20.0, ssim=0.2}",)
    trainer(medium, data, tmp_path / "run", 2, extra=changes).run()
    path = export(load_run(tmp_path / "run", data), "image-rounding", tmp_path / "models", {})
    model = coding.load(cards.read_card(path))
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(model.codec(x).x_hat, model.codec.decode(model.codec.encode(x), (16, 24)))


@pytest.mark.parametrize(("bottleneck", "options"), [("vp", SMALL_VP), ("gmvq", SMALL_GMVQ)])
def test_a_crop_need_not_be_a_multiple_of_the_stride(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    bottleneck: str,
    options: str,
) -> None:
    """Latents that a codebook is built from are those of padded crops, as in a step."""
    crop = {"speech": "data.crop=[2001]", "image": "data.crop=[33, 39]"}[medium]
    run = trainer(medium, data, tmp_path / "run", 2, bottleneck, (options, crop))
    assert run.run()
    assert run.stage == "C"


def test_more_or_fewer_codes_than_a_model_file_holds_are_refused_before_the_training() -> None:
    most = prior.MAX_CODES
    recipes.load("image-vp", [f"codec.options={{dim=5, codebook_sizes=[256, {most}]}}"])
    with pytest.raises(CodecError, match=f"at K = 131072: 131072; .* holds 2 to {most}"):
        recipes.load("image-vp", [f"codec.options={{dim=5, codebook_sizes=[{2 * most}]}}"])
    with pytest.raises(CodecError, match="at K = 1: 1; a model file holds 2"):
        recipes.load("image-vp", ["codec.options={dim=5, codebook_sizes=[1, 256]}"])
    several = "codec.options={{method='vq-ema', dim=4, num_groups=2, codebook_sizes=[{}]}}"
    changes = ["codec.bottleneck=grouped", "losses={l1=1.0, mse=1.0, ssim=1.0, commitment=1.0}"]
    recipes.load("image-vp", [*changes, several.format(2 * most)])
    with pytest.raises(CodecError, match=f"holds 1 to {range_coder.TOTAL}"):
        recipes.load("image-vp", [*changes, several.format(2 * range_coder.TOTAL)])


def test_a_preview_of_an_odd_crop_is_decoded(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
) -> None:
    """What TensorBoard shows at each checkpoint."""
    pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")
    crop = {"speech": "data.crop=[2001]", "image": "data.crop=[33, 39]"}[medium]
    run = trainer(medium, data, tmp_path / "run", 1, extra=(crop,))
    assert run.run(tensorboard=True)


class Terminal(io.StringIO):
    """What a terminal would show."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("medium", ["image"], indirect=True)
def test_a_terminal_shows_stage_step_loss_and_speed_first(
    tmp_path: Path,
    medium: str,  # noqa: F811
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bar is cut at the right where a terminal is narrow; elsewhere there is none."""
    trainer(medium, data, tmp_path / "quiet", 2).run(log_steps=1)
    assert capsys.readouterr().err == ""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    trainer(medium, data, tmp_path / "run", 2).run(log_steps=1)
    last = shown.getvalue().split("\r")[-1]
    assert re.match(r"run: 100%.*, [ABC] step 2 loss [\d.]+ steps_per_s [\d.]+ ", last)
