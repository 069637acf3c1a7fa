"""What sets speech apart from its reconstruction: mel, STFT, waveform, loudness, STOI."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.losses.loudness import LoudnessLoss
from codec.losses.stoi import STOILoss
from codec.medium import SAMPLE_RATE
from codec.precision import Float32
from codec.tensors import check_pair

SPEECH_EXTRA: dict[str, Callable[[], nn.Module]] = {
    "loudness": partial(LoudnessLoss, SAMPLE_RATE),
    "stoi": partial(STOILoss, SAMPLE_RATE),
}


class SpeechLoss(Float32):
    """Multi-scale mel, compressed complex STFT and waveform distances.

    docs/methods/nets.md, stage A, has the reasons.

    Args:
        mel_scales: The number of mel bands at each FFT size; the hop is a quarter of the size. DAC
            has seven scales; the three of the default span them at a third of the cost, without
            bands too narrow to hold an FFT bin.
        complex_size: The FFT size, one of the scales, whose complex spectrum is compared too.
        extra: Names in `SPEECH_EXTRA` of the terms to add: "loudness", how loud the error sounds,
            "stoi", what it costs in intelligibility, or what a package has added. The first two
            take about a tenth of a training step's time each.

    Attributes:
        shortest: Samples that all terms can be had of.
    """

    shortest = 1056

    def __init__(
        self,
        mel_scales: dict[int, int] | None = None,
        complex_size: int = 512,
        extra: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.extra = nn.ModuleDict({name: SPEECH_EXTRA[name]() for name in sorted(extra)})
        self.scales = mel_scales or {128: 16, 512: 64, 2048: 128}
        self.complex_size = complex_size
        for size, bands in self.scales.items():
            window = torch.hann_window(size, dtype=torch.float32)
            self.register_buffer(f"banks_{size}", mel_banks(size, bands), persistent=False)
            self.register_buffer(f"window_{size}", window, persistent=False)

    def forward(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Returns named (B,) distances of two (B, 1, T) signals.

        They are "mel" (of log10, over all scales), "stft", "wave", and the extra ones, in float32,
        under autocast, too.

        Raises:
            TypeError: One is no tensor.
            ValueError: They are no floats, differ in shape, are empty or have more channels, or are
                shorter than half of the largest window and, with extra terms, than `shortest`.
        """
        window = max(self.scales) // 2 + 1  # whose half is reflected
        x, x_hat = check_pair(
            x, x_hat, channels=1, axes=1, shortest=self.shortest if self.extra else window
        )
        with torch.autocast(x.device.type, enabled=False):
            return self._terms(x, x_hat)

    def _terms(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
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


def _per_sample_l1(a: Tensor, b: Tensor) -> Tensor:
    return F.l1_loss(a, b, reduction="none").flatten(1).mean(1)


def mel_banks(size: int, bands: int) -> Tensor:
    """Returns triangles of height 1, evenly spaced on the mel scale (HTK's), (size / 2 + 1, bands).

    They are those of torchaudio's melscale_fbanks, whose precision follows torch's default dtype.
    """
    hertz = np.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), bands + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)
    places = [np.interp(hertz, corners[i : i + 3], [0, 1, 0]) for i in range(bands)]
    return torch.from_numpy(np.stack(places, 1)).to(torch.float32)
