"""Training losses against their definitions and against scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchaudio")
from codec.losses import ImageLoss, SpeechLoss
from codec.losses.image import ssim

MAKE: dict[str, Callable[..., ImageLoss | SpeechLoss]] = {
    "speech": SpeechLoss,
    "image": ImageLoss,
}
EACH = pytest.mark.parametrize("medium", MAKE)


def pair(medium: str) -> tuple[Tensor, Tensor]:
    shape = {"speech": (2, 1, 4000), "image": (2, 3, 32, 24)}[medium]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator)
    return x, x + 0.01 * torch.randn(shape, generator=generator)


def test_ssim_is_scikit_images() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="the oracle is in the extra [eval]")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 48, 40, generator=generator)
    y = (x + 0.3 * torch.rand(2, 3, 48, 40, generator=generator)).clamp(0, 1)
    for a, b, value in zip(x, y, ssim(x, y), strict=True):
        _, full = metrics.structural_similarity(
            a.numpy(), b.numpy(), data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        assert float(value) == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-4)
        # Negative control: an even window.
        even = metrics.structural_similarity(a.numpy(), b.numpy(), data_range=1, channel_axis=0)
        assert float(value) != pytest.approx(even, abs=1e-4)
    assert torch.allclose(ssim(x, x), torch.ones(2))


def test_image_losses_are_per_sample() -> None:
    x, y = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    losses = ImageLoss()(x, y)
    assert losses["mse"].tolist() == pytest.approx(
        [(x[i] - y[i]).square().mean().item() for i in range(3)]
    )
    assert losses["l1"].tolist() == pytest.approx(
        [(x[i] - y[i]).abs().mean().item() for i in range(3)]
    )
    assert torch.allclose(losses["ssim"], 1 - ssim(x, y))
    alone = ImageLoss()(x[1:2], y[1:2])
    assert {name: value[1].item() for name, value in losses.items()} == pytest.approx(
        {name: value.item() for name, value in alone.items()}, rel=1e-4
    )


def test_speech_losses_see_level_and_phase_and_are_zero_for_equals() -> None:
    loss = SpeechLoss()
    x = 0.1 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    assert all(float(v.abs().max()) < 1e-6 for v in loss(x, x).values())
    louder, flipped = loss(x, 2 * x), loss(x, -x)
    # log10 of 2 at each of three scales.
    assert float(louder["mel"][0]) == pytest.approx(3 * 0.30103, rel=0.01)
    assert float(flipped["mel"][0]) == pytest.approx(0, abs=1e-6)  # magnitudes do not see polarity
    assert float(flipped["stft"][0]) > 0.1  # the complex distance does


def test_silence_has_finite_gradients() -> None:
    x_hat = torch.zeros(1, 1, 8000, requires_grad=True)
    total = sum(v.sum() for v in SpeechLoss()(torch.zeros(1, 1, 8000), x_hat).values())
    (gradient,) = torch.autograd.grad(total, x_hat)
    assert torch.isfinite(gradient).all()


@EACH
def test_distances_are_float32_whatever_stands_around(medium: str) -> None:
    """SSIM's variances are differences of squares, of which bfloat16 leaves nothing."""
    x, x_hat = pair(medium)
    expected = MAKE[medium]()(x, x_hat)
    with torch.autocast("cpu", torch.bfloat16):
        found = MAKE[medium]()(x, x_hat)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        net = torch.nn.ModuleDict({"loss": MAKE[medium]()}).to(dtype)
        for name, value in net["loss"](x, x_hat).items():
            assert torch.equal(value, expected[name])
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name])


@EACH
def test_pairs_that_are_none_are_refused_in_one_line(medium: str) -> None:
    x, x_hat = pair(medium)
    loss = MAKE[medium]()
    wrong: list[tuple[Any, Any]] = [
        (x, x_hat[..., :-1]),
        (x, x_hat[:1]),
        (x[0], x_hat[0]),
        (x[:0], x_hat[:0]),
        (x[:, :0], x_hat[:, :0]),
        (x[..., :10], x_hat[..., :10]),
        ((255 * x).byte(), (255 * x_hat).byte()),
        (x, x_hat > 0),
    ]
    if medium == "speech":
        wrong.append((x.repeat(1, 2, 1), x_hat.repeat(1, 2, 1)))
    for pair_ in wrong:
        with pytest.raises(ValueError, match="want a signal and its reconstruction") as caught:
            loss(*pair_)
        assert "\n" not in str(caught.value)
    for bad in (x.numpy(), x.tolist(), None):
        with pytest.raises(TypeError, match="want a signal as a tensor"):
            loss(bad, x_hat)
        with pytest.raises(TypeError, match="want a reconstruction as a tensor"):
            loss(x, bad)


def test_the_shortest_signals_have_all_terms() -> None:
    """One sample less is refused, of a loss with fewer windows later."""
    for loss, shortest in (
        (SpeechLoss(), 1025),
        (SpeechLoss({128: 16, 512: 64}), 257),
        (SpeechLoss(extra=("loudness", "stoi")), SpeechLoss.shortest),
    ):
        x, x_hat = (one[..., :shortest] for one in pair("speech"))
        assert all(value.isfinite().all() for value in loss(x, x_hat).values())
        with pytest.raises(ValueError, match=f"of at least {shortest}, not"):
            loss(x[..., 1:], x_hat[..., 1:])
    picture, worse = (one[..., :11, :11] for one in pair("image"))
    assert all(value.isfinite().all() for value in ImageLoss()(picture, worse).values())
    with pytest.raises(ValueError, match="of at least 11 x 11, not"):
        ImageLoss()(picture[..., 1:], worse[..., 1:])
