"""The terms of SpeechLoss against torch.stft and torchaudio's mel scale."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.transforms import MelScale

from codec.losses import SpeechLoss
from codec.medium import SAMPLE_RATE

SCALES = {128: 16, 512: 64, 2048: 128}  # FFT size -> mel bands, docs/methods/nets.md
FLOOR = 1e-6  # of the power


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(2, 1, 8192, generator=generator).cumsum(-1) / 10
    return x, x + 0.05 * torch.randn(2, 1, 8192, generator=generator)


def spectrum(x: Tensor, size: int, hops: int) -> Tensor:
    window = torch.hann_window(size)
    return torch.stft(x[:, 0], size, size // hops, window=window, return_complex=True)


def mel_term(x: Tensor, y: Tensor, hops: int = 4, power: float = 0.5) -> Tensor:
    """Mean |log10 mel - log10 mel_hat| of each scale, summed; (B,)."""
    total = torch.zeros(len(x))
    for size, bands in SCALES.items():
        scale = MelScale(bands, SAMPLE_RATE, n_stft=size // 2 + 1)
        a, b = (
            scale((spectrum(s, size, hops).abs().square() + FLOOR) ** power).clamp(min=1e-5).log10()
            for s in (x, y)
        )
        total += (a - b).abs().mean((1, 2))
    return total


def stft_term(x: Tensor, y: Tensor, hops: int = 4, power: float = 0.3) -> Tensor:
    """Mean over real and imaginary parts of |X|^0.3 e^{i phase}; (B,)."""
    a, b = (spectrum(s, 512, hops) for s in (x, y))
    a, b = (s * (s.abs().square() + FLOOR) ** ((power - 1) / 2) for s in (a, b))
    return torch.view_as_real(a - b).abs().mean((1, 2, 3))


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=5e-4)


def test_the_terms_are_their_definitions() -> None:
    x, y = pair()
    found = SpeechLoss()(x, y)
    assert close(found["mel"], mel_term(x, y))
    assert not close(found["mel"], mel_term(x, y, power=1.0))
    assert not close(found["mel"], mel_term(x, y, hops=2))
    assert close(found["stft"], stft_term(x, y))
    assert not close(found["stft"], stft_term(x, y, power=0.5))
    assert not close(found["stft"], stft_term(x, y, hops=2))
    assert torch.allclose(found["wave"], (x - y).abs().mean((1, 2)))
