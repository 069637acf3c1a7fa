"""What an error costs in intelligibility: 1 - STOI as a training loss.

Taal et al. 2011, "An algorithm for intelligibility prediction of time-frequency weighted noisy
speech".

    x, x_hat ─frames of 25.6 ms─> magnitudes in third-octave bands
    magnitudes ─segments of 30 frames─> correlation ─mean─> number

STOI is defined at 10 kHz and leaves silent frames out before it cuts segments. This loss works at
any rate on the same bands, and weighs segments by what part of them is not silent, since a tensor
of fixed shape can leave nothing out. `tests/test_stoi.py` compares it with the pystoi package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FRAME_S, OVERLAP = 0.0256, 2
BANDS, LOWEST_HZ = 15, 150.0  # third octaves, and the centre of the first
SEGMENT = 30  # frames, 384 ms
# Frames from a segment to the next; STOI takes every one, neighbours say nearly the same.
STRIDE = 2
CLIP = 1 + 10 ** (15 / 20)  # an error beyond -15 dB signal-to-distortion counts no more
SILENT_DB = 40.0  # below the loudest frame


class STOILoss(nn.Module):
    """1 - STOI of each pair of signals.

    0 is perfect, .1 is what a codec at 1.5 kbit/s has, 1 is unintelligible.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.hop = round(FRAME_S * sample_rate / OVERLAP)
        self.size = OVERLAP * self.hop
        self.fft = 1 << (self.size - 1).bit_length()
        hertz = torch.arange(self.fft // 2 + 1, dtype=torch.float32) * (sample_rate / self.fft)
        centre = LOWEST_HZ * 2 ** (torch.arange(BANDS, dtype=torch.float32) / 3)
        inside = (hertz[:, None] >= centre * 2 ** (-1 / 6)) & (
            hertz[:, None] < centre * 2 ** (1 / 6)
        )
        window = torch.hann_window(self.size, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("bands", inside.float(), persistent=False)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Two (B, 1, T) signals of at least a frame -> (B,), a gradient to x_hat.

        0 for a silent x.
        """
        with torch.no_grad():
            ours, energy = self._segments(x)
            loudest = energy.amax(1, keepdim=True)
            sounding = (energy > loudest * 10 ** (-SILENT_DB / 10)) & (loudest > 1e-6)
            weight = _segmented(sounding.float()).mean(-1)  # (B, segments)
        theirs, _ = self._segments(x_hat)
        scale = (ours.square().sum(-1, keepdim=True) + 1e-10).sqrt()
        scale = scale / (theirs.square().sum(-1, keepdim=True) + 1e-10).sqrt()
        theirs = torch.minimum(theirs * scale, ours * CLIP)
        likeness = (_centred(ours) * _centred(theirs)).sum(-1).mean(-1)  # (B, segments)
        return ((1 - likeness) * weight).sum(1) / weight.sum(1).clamp(min=1e-6)

    def _segments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes magnitudes (B, segments, bands, frames of one) of (B, 1, T).

        Also the energies of frames, (B, frames).
        """
        frames = x[:, 0].float().unfold(1, self.size, self.hop) * self.window
        power = torch.view_as_real(torch.fft.rfft(frames, self.fft)).square().sum(-1)
        magnitudes = (power @ self.bands + 1e-8).sqrt()
        return _segmented(magnitudes), frames.square().sum(-1)


def _segmented(frames: Tensor) -> Tensor:
    """(B, frames, ...) -> (B, segments, ..., frames of one).

    A clip shorter than a segment is one.
    """
    return frames.unfold(1, min(SEGMENT, frames.shape[1]), STRIDE)


def _centred(segments: Tensor) -> Tensor:
    """Without its mean over time, and of length 1."""
    segments = segments - segments.mean(-1, keepdim=True)
    return segments / (segments.square().sum(-1, keepdim=True) + 1e-8).sqrt()
