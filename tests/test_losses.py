"""Training losses against their definitions and against scikit-image."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchaudio")
from codec.losses import ImageLoss, SpeechLoss
from codec.losses.image import ssim


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
