"""Reconstruction losses, one value per sample so that samples at different codebook sizes can be weighted apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codec.nets.speech import SAMPLE_RATE


class SpeechLoss(nn.Module):
    """Multi-scale mel, compressed complex STFT and waveform distances (docs/methods/nets.md, stage A).

    Args:
        mel_scales: FFT size -> number of mel bands; hop a quarter of the size. DAC has seven scales; these three span
            them at a third of the cost, without bands too narrow to hold an FFT bin.
        complex_size: The FFT size, one of the scales, whose complex spectrum is compared too.
    """

    def __init__(self, mel_scales: dict[int, int] | None = None, complex_size: int = 512) -> None:
        super().__init__()
        self.scales = mel_scales or {128: 16, 512: 64, 2048: 128}
        self.complex_size = complex_size
        for size, bands in self.scales.items():
            banks = melscale_fbanks(size // 2 + 1, 0, SAMPLE_RATE / 2, bands, SAMPLE_RATE)
            self.register_buffer(f"banks_{size}", banks, persistent=False)
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def forward(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Two (B, 1, T) signals -> named (B,) distances: "mel" (log10, summed over scales), "stft", "wave"."""
        x, x_hat = x.float(), x_hat.float()
        mel, stft = x.new_zeros(len(x)), x.new_zeros(len(x))
        for size in self.scales:
            with torch.no_grad():
                log_mel, compressed = self._features(x, size)
            log_mel_hat, compressed_hat = self._features(x_hat, size)
            mel = mel + _per_sample_l1(log_mel, log_mel_hat)
            if compressed is not None and compressed_hat is not None:
                stft = stft + _per_sample_l1(compressed, compressed_hat)
        return {"mel": mel, "stft": stft, "wave": _per_sample_l1(x, x_hat)}

    def _features(self, x: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        """(B, 1, T) -> log10 mel magnitudes (B, frames, bands); at `complex_size`, |X|^.3 e^{i phase} too, (..., 2)."""
        frames = F.pad(x, (size // 2, size // 2), mode="reflect")[:, 0].unfold(1, size, size // 4)
        spectrum = torch.view_as_real(torch.fft.rfft(frames * self.get_buffer(f"window_{size}")))
        power = spectrum.square().sum(-1) + 1e-6  # bounds the gradients of both roots at silence
        log_mel = (power.sqrt() @ self.get_buffer(f"banks_{size}")).clamp(min=1e-5).log10()
        if size != self.complex_size:
            return log_mel, None
        return log_mel, spectrum * power.pow(-0.35)[..., None]


class ImageLoss(nn.Module):
    """L1, squared error and 1 - SSIM."""

    def forward(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Two (B, 3, H, W) pictures -> named (B,) distances: "l1", "mse", "ssim" (1 - SSIM)."""
        x, x_hat = x.float(), x_hat.float()
        return {
            "l1": _per_sample_l1(x, x_hat),
            "mse": (x - x_hat).square().mean((1, 2, 3)),
            "ssim": 1 - ssim(x, x_hat),
        }


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """(B,) mean structural similarity of pictures in [0, 1] (Wang et al. 2004): Gaussian window 11, sigma 1.5.

    For training: differentiable, and blurred by two matrix products, ten times faster on a CPU than by convolution.
    The figures of the eval suite come from scikit-image.
    """
    with torch.no_grad():
        mx, xx = _blur(x), _blur(x * x)
    my, yy, xy = _blur(y), _blur(y * y), _blur(x * y)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return values.mean((1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H - 10, W - 10)."""
    rows, columns = _band(x.shape[2], x.device), _band(x.shape[3], x.device)
    return rows.T @ (x @ columns)


def _band(length: int, device: torch.device) -> Tensor:
    """(length, length - 10): the Gaussian window in each column, one step lower each time."""
    offset = torch.arange(length, device=device)[:, None] - torch.arange(length - 10, device=device) - 5
    window = torch.exp(-offset.square() / (2 * 1.5**2)) * (offset.abs() <= 5)
    return window / window.sum(0)


def _per_sample_l1(a: Tensor, b: Tensor) -> Tensor:
    return F.l1_loss(a, b, reduction="none").flatten(1).mean(1)


LOSSES: dict[str, type[nn.Module]] = {"speech": SpeechLoss, "image": ImageLoss}
