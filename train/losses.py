"""Reconstruction losses, one value per sample.

So samples at different codebook sizes can be weighted apart.

LPIPS, alone among them, needs a network from elsewhere (`train.lpips_net`); a recipe that does not
weigh it trains without one, and nothing of it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codec.errors import CodecError, not_installed
from codec.medium import IMAGE, SAMPLE_RATE, SPEECH
from train.loudness import LoudnessLoss
from train.stoi import STOILoss

OPTIONAL = ("lpips", "loudness", "stoi")  # a recipe may leave them out, which is a weight of 0
LPIPS_SMALLEST = 32  # pixels of a crop; below, the pooling of LPIPS's nets leaves nothing
# The net that is looked for in torch hub's folder: that of the shipped models, and the fastest.
HUB_NET = "squeeze"

# Of speech, by sample rate.
EXTRA: dict[str, Callable[[int], nn.Module]] = {"loudness": LoudnessLoss, "stoi": STOILoss}


class SpeechLoss(nn.Module):
    """Multi-scale mel, compressed complex STFT and waveform distances.

    docs/methods/nets.md, stage A, has the reasons.

    Args:
        mel_scales: The number of mel bands at each FFT size; the hop is a quarter of the size. DAC
            has seven scales; the three of the default span them at a third of the cost, without
            bands too narrow to hold an FFT bin.
        complex_size: The FFT size, one of the scales, whose complex spectrum is compared too.
        extra: Names of the terms to add: "loudness", how loud the error sounds (`train.loudness`),
            and "stoi", what it costs in intelligibility (`train.stoi`). Each takes about a tenth of
            a step's time.
    """

    def __init__(
        self,
        mel_scales: dict[int, int] | None = None,
        complex_size: int = 512,
        extra: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.extra = nn.ModuleDict({name: EXTRA[name](SAMPLE_RATE) for name in sorted(extra)})
        self.scales = mel_scales or {128: 16, 512: 64, 2048: 128}
        self.complex_size = complex_size
        for size, bands in self.scales.items():
            banks = melscale_fbanks(size // 2 + 1, 0, SAMPLE_RATE / 2, bands, SAMPLE_RATE)
            self.register_buffer(f"banks_{size}", banks, persistent=False)
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def forward(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Returns named (B,) distances of two (B, 1, T) signals.

        They are "mel" (of log10, over all scales), "stft", "wave", and the extra ones.
        """
        x, x_hat = x.float(), x_hat.float()
        mel, stft = x.new_zeros(len(x)), x.new_zeros(len(x))
        for size in self.scales:
            with torch.no_grad():
                log_mel, compressed = self._features(x, size)
            log_mel_hat, compressed_hat = self._features(x_hat, size)
            mel = mel + _per_sample_l1(log_mel, log_mel_hat)
            if compressed is not None and compressed_hat is not None:
                stft = stft + _per_sample_l1(compressed, compressed_hat)
        terms = {"mel": mel, "stft": stft, "wave": _per_sample_l1(x, x_hat)}
        return terms | {name: term(x, x_hat) for name, term in self.extra.items()}

    def _features(self, x: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        """Returns the log10 mel magnitudes of a (B, 1, T) signal, (B, frames, bands).

        At `complex_size` there is also its compressed spectrum, |X|^.3 e^{i phase}, (..., 2).
        """
        frames = F.pad(x, (size // 2, size // 2), mode="reflect")[:, 0].unfold(1, size, size // 4)
        spectrum = torch.view_as_real(torch.fft.rfft(frames * self.get_buffer(f"window_{size}")))
        power = spectrum.square().sum(-1) + 1e-6  # bounds the gradients of both roots at silence
        log_mel = (power.sqrt() @ self.get_buffer(f"banks_{size}")).clamp(min=1e-5).log10()
        if size != self.complex_size:
            return log_mel, None
        return log_mel, spectrum * power.pow(-0.35)[..., None]


class ImageLoss(nn.Module):
    """L1, squared error, 1 - SSIM and, where its net is given, LPIPS.

    Args:
        lpips: Maps two (B, 3, H, W) pictures to (B,) distances, as `train.lpips_net.LPIPSNet` does;
            None leaves the term out.
    """

    def __init__(self, lpips: nn.Module | None = None) -> None:
        super().__init__()
        self.lpips = lpips

    def forward(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Returns named (B,) distances of two (B, 3, H, W) pictures.

        The names are "l1", "mse", "ssim" (1 - SSIM) and, where it is asked for, "lpips".
        """
        x, x_hat = x.float(), x_hat.float()
        terms = {
            "l1": _per_sample_l1(x, x_hat),
            "mse": (x - x_hat).square().mean((1, 2, 3)),
            "ssim": 1 - ssim(x, x_hat),
        }
        return terms if self.lpips is None else terms | {"lpips": self.lpips(x, x_hat)}


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean structural similarity (Wang et al. 2004) of pictures in [0, 1], (B,).

    The window is Gaussian, 11 pixels wide, with sigma 1.5. This one is for training: it is
    differentiable, and blurs by two matrix products, ten times faster on a CPU than a convolution.
    The figures of `eval` come from scikit-image.
    """
    with torch.no_grad():
        mx, xx = _blur(x), _blur(x * x)
    my, yy, xy = _blur(y), _blur(y * y), _blur(x * y)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return values.mean((1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Blurs (B, C, H, W) to (B, C, H - 10, W - 10)."""
    rows, columns = _band(x.shape[2], x.device), _band(x.shape[3], x.device)
    return rows.T @ (x @ columns)


def _band(length: int, device: torch.device) -> Tensor:
    """Returns a matrix (length, length - 10) with the Gaussian window in each column.

    Each column has it one step lower than the one before.
    """
    offset = (
        torch.arange(length, device=device)[:, None] - torch.arange(length - 10, device=device) - 5
    )
    window = torch.exp(-offset.square() / (2 * 1.5**2)) * (offset.abs() <= 5)
    return window / window.sum(0)


def _per_sample_l1(a: Tensor, b: Tensor) -> Tensor:
    return F.l1_loss(a, b, reduction="none").flatten(1).mean(1)


def build(medium: str, weights: Mapping[str, float], backbone: Path | None = None) -> nn.Module:
    """Builds the distances that a recipe weighs.

    Args:
        medium: A name in `LOSSES`.
        weights: The recipe's weights; only which of the optional terms have one matters here.
        backbone: A file with LPIPS's backbone; None looks for SqueezeNet's in torch hub's folder.

    Raises:
        CodecError: The recipe weighs LPIPS and there is no backbone, or the file is none.
    """
    return LOSSES[medium].build(weights, backbone)


def _of_speech(weights: Mapping[str, float], _: Path | None) -> nn.Module:
    return SpeechLoss(extra=[name for name in EXTRA if weights.get(name)])


def _of_pictures(weights: Mapping[str, float], backbone: Path | None) -> nn.Module:
    if not weights.get("lpips"):
        return ImageLoss()
    try:
        from train import lpips_net  # takes seconds
    except ImportError as error:
        raise CodecError(
            f"losses.lpips: {not_installed(error.name, 'train')}, or --set losses.lpips=0"
        ) from None
    file = backbone or lpips_net.hub_file(HUB_NET)
    if backbone is None and not file.is_file():
        raise CodecError(
            f"losses.lpips = {weights['lpips']:g} needs a backbone: "
            f"give --lpips-backbone FILE ({file.name} is not in "
            f"{file.parent}), or train without: --set losses.lpips=0"
        )
    return ImageLoss(lpips_net.load(file))


@dataclass(frozen=True, slots=True)
class Distances:
    """What a recipe weighs between a signal and its reconstruction.

    Attributes:
        names: Of the distances.
        shortest_crop: Samples or pixels that the largest window of them needs.
        build: (weights, LPIPS backbone) -> a module that gives them, by name.
    """

    names: tuple[str, ...]
    shortest_crop: int
    build: Callable[[Mapping[str, float], Path | None], nn.Module]


LOSSES = {
    SPEECH.name: Distances(("mel", "stft", "wave", "loudness", "stoi"), 1056, _of_speech),
    IMAGE.name: Distances(("l1", "mse", "ssim", "lpips"), 16, _of_pictures),
}
