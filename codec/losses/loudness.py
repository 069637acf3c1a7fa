"""A training loss that says how loud an error sounds.

It follows the model of PESQ (ITU-T P.862, section 10.2).

    x, x_hat ─level─> power in Bark bands ─threshold, power law─> loudness
    loudness ─what masking leaves of the difference─> number

The model is built from published formulas and not from the tables of the recommendation: half-Bark
bands (Traunmueller 1990), the threshold of hearing (Terhardt 1979), loudness (Zwicker and Fastl).
Unlike PESQ it aligns no delays, since a codec of this project has none. `tests/test_loudness.py`
compares it with the pesq package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE, HOP = 512, 256  # samples: 32 ms, half overlapping
SPEECH_HZ = (350.0, 3250.0)  # the band that the level is measured in
LEVEL_DB = 85.0  # at which speech is heard, dB SPL in the scale of the thresholds
BARK = 0.5  # width of a band
EXPONENT = 0.23  # of Zwicker's law
SONE = 0.187  # P.862's scale of loudness
WINDOW = 20  # frames, a third of a second: within, the worst frames decide
FLOOR = 1e-7  # mean square below which a clip counts as silence, -70 dBFS


class LoudnessLoss(nn.Module):
    """The loudness of what is wrong with x_hat.

    It has about the units of PESQ's "disturbance": 0 is perfect, 3 is poor.

    Differences of overall level count little: both signals are set to the same level first, as PESQ
    does.
    """

    bands: Tensor
    threshold: Tensor
    exponent: Tensor
    window: Tensor
    speech: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        hertz = torch.arange(SIZE // 2 + 1, dtype=torch.float32) * (sample_rate / SIZE)
        self.total = 26.81 * sample_rate / (3920 + sample_rate) - 0.53  # Bark
        bark = 26.81 * hertz / (1960 + hertz) - 0.53
        place = (bark / BARK).floor().long()
        bands = torch.nn.functional.one_hot(place.clamp(min=0)).float()
        bands[place < 0] = 0  # below 20 Hz or so
        centre = (bands.T @ hertz) / bands.sum(0) / 1000  # kHz
        decibels = (
            3.64 * centre**-0.8 - 6.5 * torch.exp(-0.6 * (centre - 3.3) ** 2) + 1e-3 * centre**4
        )
        # Below half a kilohertz loudness grows faster with level (as in P.862).
        steeper = (6 / (bark.clamp(min=0) + 2)).clamp(1, 2) ** 0.15
        window = torch.hann_window(SIZE, dtype=torch.float32)
        for name, value in {
            "bands": bands,
            "threshold": 10 ** (decibels.clamp(max=70) / 10),
            "exponent": EXPONENT * (bands.T @ steeper) / bands.sum(0),
            "window": window / window.square().sum().sqrt(),
            "speech": ((hertz > SPEECH_HZ[0]) & (hertz < SPEECH_HZ[1])).float(),
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Returns the loudness of the error between two (B, 1, T) signals of at least 32 ms, (B,).

        The gradient reaches x_hat. The loss is 0 where x is silent.
        """
        power, heard = self._power(x), self._power(x_hat)
        # Slow changes of timbre and fast ones of level disturb less than their size says: most of
        # both is taken out.
        audible = (power > 100 * self.threshold).float()
        timbre = ((heard * audible).mean(1, keepdim=True) + 1e3) / (
            (power * audible).mean(1, keepdim=True) + 1e3
        )
        power = power * timbre.clamp(0.01, 100)
        level = (self._audible(power) + 5e3) / (self._audible(heard) + 5e3)
        level = torch.cat([level[:, :1], 0.8 * level[:, 1:] + 0.2 * level[:, :-1]], 1)
        heard = heard * level.clamp(3e-4, 5.0)[..., None]

        loud, loud_hat = self._loudness(power), self._loudness(heard)
        error = loud_hat - loud
        # The rest is masked.
        error = error.sign() * (error.abs() - 0.25 * torch.minimum(loud, loud_hat)).clamp(min=0)
        # What was added disturbs more than what is missing.
        added = ((heard + 50) / (power + 50)) ** 1.2
        added = torch.where(added < 3, 0.0, added.clamp(max=12))
        weight = ((self._audible(power) + 1e5) / 1e7) ** -0.04
        symmetric = (self.total * (BARK * error).square().sum(-1) + 1e-9).sqrt() * weight
        asymmetric = (BARK * error * added).abs().sum(-1) * weight
        disturbance = 0.1 * _over_time(symmetric.clamp(max=45)) + 0.0309 * _over_time(
            asymmetric.clamp(max=45)
        )
        return torch.where(x.flatten(1).square().mean(1) > FLOOR, disturbance, 0.0)

    def _power(self, x: Tensor) -> Tensor:
        """Returns the power of a (B, 1, T) signal, (B, frames, bands); 1 is 0 dB SPL."""
        frames = x[:, 0].float().unfold(1, SIZE, HOP) * self.window
        power = 2 * torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1) / SIZE
        level = (power @ self.speech).mean(1)[:, None, None]
        return power @ self.bands * (10 ** (LEVEL_DB / 10) / (level + 1e-9))

    def _audible(self, power: Tensor) -> Tensor:
        """Sums the power (B, frames, bands) that is above the threshold of hearing, (B, frames)."""
        return (power * (power > self.threshold)).sum(-1)

    def _loudness(self, power: Tensor) -> Tensor:
        """Returns the loudness of a power (B, frames, bands), in sone in each band."""
        sone = (2 * self.threshold) ** self.exponent * (
            (0.5 + 0.5 * power / self.threshold) ** self.exponent - 1
        )
        return SONE * torch.where(power > self.threshold, sone, 0.0)


def _over_time(frames: Tensor) -> Tensor:
    """Averages (B, frames) to (B,) as PESQ does.

    That is the sixth norm in windows that half overlap, and the second over them.
    """
    size = min(WINDOW, frames.shape[1])
    windows = frames.unfold(1, size, max(1, size // 2))
    return ((windows.pow(6).mean(-1) + 1e-12).pow(1 / 6).square().mean(1) + 1e-12).sqrt()
