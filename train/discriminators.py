"""Discriminators of stage B: nets that tell originals from reconstructions.

    speech   spectra of several window lengths (EnCodec), and the wave folded at prime periods
             (HiFi-GAN)
    image    overlapping patches (pix2pix)

A medium's discriminator is made of one or more, each of which returns its scores and the features
of its layers on the way. The losses below are means over them. (Their attributes are called `judge`
and `judges`, as in the checkpoints.)
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.medium import IMAGE, SPEECH

# Of each discriminator: scores (B, ...), features of its hidden layers.
Outputs = list[tuple[Tensor, list[Tensor]]]

FFT_SIZES = (2048, 512, 128)  # EnCodec has five; these three span them
PERIODS = (2, 3, 5, 7, 11)
PERIOD_WIDTHS = (1, 4, 16, 32, 32)
PATCH_WIDTHS = (4, 8, 16, 32)


class ConvDiscriminator(nn.Module):
    """A stack of convolutions, each but the last with LeakyReLU.

    Args:
        layers: The convolutions, from the first to the one that gives the scores.
        slope: The slope of the LeakyReLU below zero.
    """

    def __init__(self, layers: list[nn.Conv2d], slope: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.slope = slope

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> scores (B, 1, h, w), features."""
        features = []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), self.slope)
            features.append(x)
        return self.layers[-1](x), features


class SpectrumDiscriminator(nn.Module):
    """Scores the complex spectrum at one window length.

    This is the MS-STFT discriminator (Défossez et al. 2022).
    """

    window: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        wide = [
            nn.Conv2d(width, width, (3, 9), (1, 2), (dilation, 4), (dilation, 1))  # time, frequency
            for dilation in (1, 2, 4)
        ]
        layers = [
            nn.Conv2d(2, width, (3, 9), padding=(1, 4)),
            *wide,
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, 1, 3, padding=1),
        ]
        self.judge = ConvDiscriminator(layers, 0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, T), T > size / 2."""
        with torch.autocast(x.device.type, enabled=False):
            padded = F.pad(x.float(), (self.size // 2, self.size // 2), mode="reflect")[:, 0]
            frames = padded.unfold(1, self.size, self.size // 4) * self.window
            # Of the wave's own scale.
            spectrum = torch.view_as_real(torch.fft.rfft(frames, norm="ortho"))
        scored: tuple[Tensor, list[Tensor]] = self.judge(spectrum.permute(0, 3, 1, 2))
        return scored


class PeriodDiscriminator(nn.Module):
    """Scores the wave folded into columns of one period.

    This is the multi-period discriminator (Kong et al. 2020).
    """

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(width * w for w in PERIOD_WIDTHS)]
        layers = [
            nn.Conv2d(a, b, (5, 1), (3 if i < len(PERIOD_WIDTHS) - 1 else 1, 1), (2, 0))
            for i, (a, b) in enumerate(pairwise(widths))
        ]
        self.judge = ConvDiscriminator(
            [*layers, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))], 0.1
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, T)."""
        missing = -x.shape[-1] % self.period
        folded = F.pad(x, (0, missing), mode="reflect").unflatten(-1, (-1, self.period))
        scored: tuple[Tensor, list[Tensor]] = self.judge(folded)
        return scored


class SpeechDiscriminator(nn.Module):
    """The spectrum and period discriminators together.

    Args:
        width: Channels of the narrowest layers; 16 is the size of docs/methods/nets.md for a small
            budget.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [
                *(SpectrumDiscriminator(size, width) for size in FFT_SIZES),
                *(PeriodDiscriminator(period, width) for period in PERIODS),
            ]
        )

    def forward(self, x: Tensor) -> Outputs:
        """(B, 1, T)."""
        return [judge(x) for judge in self.judges]


class ImageDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): each score sees 70 x 70 pixels.

    Weight norm in the place of batch norm: a score depends on its own picture alone, in any batch,
    on any process.

    Args:
        width: A quarter of the first layer's channels; 16 gives the usual 64.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [3, *(width * w for w in PATCH_WIDTHS)]
        layers = [
            nn.Conv2d(a, b, 4, 2 if i < len(PATCH_WIDTHS) - 1 else 1, 1)
            for i, (a, b) in enumerate(pairwise(widths))
        ]
        self.judge = ConvDiscriminator([*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1)], 0.2)

    def forward(self, x: Tensor) -> Outputs:
        """(B, 3, H, W) in [0, 1], at least 32 x 32."""
        return [self.judge(x * 2 - 1)]


DISCRIMINATORS: dict[str, type[nn.Module]] = {
    SPEECH.name: SpeechDiscriminator,
    IMAGE.name: ImageDiscriminator,
}
# Of a crop: samples, since the widest window is reflected at both ends; pixels, since layers halve
# them.
SHORTEST_JUDGED = {SPEECH.name: 1056, IMAGE.name: 32}


def critic_loss(real: Outputs, fake: Outputs) -> Tensor:
    """Hinge: the mean over discriminators of mean relu(1 - D(x)) + mean relu(1 + D(x_hat)).

    It is 2 where originals and reconstructions cannot be told apart, and 0 at best.
    """
    terms = [
        F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean()
        for (r, _), (f, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def fooling_loss(fake: Outputs) -> Tensor:
    """Mean over discriminators of mean relu(1 - D(x_hat))."""
    return torch.stack([F.relu(1 - score.float()).mean() for score, _ in fake]).mean()


def feature_loss(real: Outputs, fake: Outputs) -> Tensor:
    """Mean over all layers of mean |f - f_hat|; the originals' features carry no gradient."""
    terms = [
        (r.detach().float() - f.float()).abs().mean()
        for (_, originals), (_, features) in zip(real, fake, strict=True)
        for r, f in zip(originals, features, strict=True)
    ]
    return torch.stack(terms).mean()
