"""Speech encoder and decoder at frame rate, after Vocos.

They have an STFT in, an inverse STFT out, and ConvNeXt blocks between.

    x (B, 1, T) ─STFT, |X|^.3 compressed─> (B, 1, F, 386) ─blocks─> z (B, D, F)
    z_q (B, D, F) ─blocks, told K─> log magnitude, phase ─inverse STFT─> x_hat (B, 1, T)

F = T / hop; 16 kHz, hop 96: 166.67 tokens a second, the rate of the VP-VAE paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nets.blocks import SizeEmbedding, Stack
from codec.precision import Float32

KERNEL = (1, 7)


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """Sizes of a speech codec's nets; `n_fft` must be a multiple of twice the hop."""

    encoder_dim: int = 128
    encoder_depth: int = 4
    decoder_dim: int = 192
    decoder_depth: int = 6
    hop: int = 96
    n_fft: int = 384

    @property
    def stride(self) -> int:
        """Samples per frame."""
        return self.hop

    @property
    def context(self) -> int:
        """Frames on either side that a frame depends on.

        Those of the STFT, and three more for each block and for the decoder's stem.
        """
        return -(-self.n_fft // (2 * self.hop)) + 3 * max(
            self.encoder_depth, self.decoder_depth + 1
        )


class STFT(nn.Module):
    """Frames that tile the signal: T samples give T / hop frames.

    Each is centred on its hop ("same" padding).

    Hann window both ways; the inverse divides by the overlap-added squared window, so that it is
    exact at the edges.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        if n_fft % (2 * hop):
            raise ValueError(f"n_fft must be a multiple of twice the hop, got {n_fft} and {hop}")
        self.n_fft, self.hop = n_fft, hop
        self.margin = (n_fft - hop) // 2
        self.after = n_fft - hop - self.margin
        self.register_buffer(
            "window", torch.hann_window(n_fft, dtype=torch.float32), persistent=False
        )

    def analyse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) -> real and imaginary part, each (B, F, n_fft / 2 + 1).

        T is a multiple of the hop.
        """
        padded = x[:, reflect_index(x.shape[1], self.margin, self.after, x.device)]
        spectrum = torch.fft.rfft(padded.unfold(1, self.n_fft, self.hop) * self.window)
        return spectrum.real, spectrum.imag

    def synthesise(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Two (B, F, n_fft / 2 + 1) -> (B, F * hop)."""
        frames = torch.fft.irfft(torch.complex(real, imaginary), self.n_fft) * self.window
        weight = self.window.square().expand(1, frames.shape[1], -1)
        length = frames.shape[1] * self.hop
        signal, envelope = self._overlap_add(frames), self._overlap_add(weight)
        keep = slice(self.margin, self.margin + length)
        return signal[:, keep] / envelope[:, keep]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        batch, count, _ = frames.shape
        overlap = self.n_fft // self.hop
        pieces = frames.reshape(batch, count, overlap, self.hop)
        total = frames.new_zeros(batch, count + overlap - 1, self.hop)
        for k in range(overlap):
            total[:, k : k + count] += pieces[:, :, k]
        return total.reshape(batch, -1)


def reflect_index(length: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices that pad by reflection, as often as needed.

    Any padding of any length >= 1 is possible, where F.pad refuses.
    """
    position = torch.arange(-before, length + after, device=device)
    period = max(2 * (length - 1), 1)
    # A tensor: ONNX takes no symbolic number here.
    position = position.remainder(torch.full_like(position, period))
    return torch.minimum(position, period - position) if length > 1 else torch.zeros_like(position)


class SpeechEncoder(Float32):
    """(B, 1, T), T a multiple of the hop -> (B, out_dim, T / hop)."""

    def __init__(self, config: SpeechConfig, out_dim: int) -> None:
        super().__init__()
        self.stft = STFT(config.n_fft, config.hop)
        self.project = nn.Linear(config.n_fft + 2, config.encoder_dim)
        self.norm_in = nn.LayerNorm(config.encoder_dim)
        self.blocks = Stack(config.encoder_dim, config.encoder_depth, KERNEL)
        self.norm_out = nn.LayerNorm(config.encoder_dim)
        self.head = nn.Linear(config.encoder_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            real, imaginary = self.stft.analyse(x[:, 0].float())
            # |X|^-0.7, which leaves |X|^0.3.
            gain = (real.square() + imaginary.square() + 1e-8).pow(-0.35)
            features = torch.cat([real * gain, imaginary * gain], -1)
        h = self.norm_in(self.project(features))[:, None]
        h = self.norm_out(self.blocks(h)[:, 0])
        # The latent is what gets quantised: float32.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(h.float(), self.head.weight, self.head.bias).transpose(1, 2)


class SpeechDecoder(Float32):
    """(B, in_dim, F) and the codebook size -> (B, 1, F * hop)."""

    def __init__(self, config: SpeechConfig, in_dim: int) -> None:
        super().__init__()
        self.size = SizeEmbedding()
        self.project = nn.Conv2d(in_dim, config.decoder_dim, KERNEL, padding=(0, KERNEL[1] // 2))
        self.norm_in = nn.LayerNorm(config.decoder_dim)
        self.blocks = Stack(config.decoder_dim, config.decoder_depth, KERNEL, conditioned=True)
        self.norm_out = nn.LayerNorm(config.decoder_dim)
        self.head = nn.Linear(config.decoder_dim, config.n_fft + 2)
        self.stft = STFT(config.n_fft, config.hop)

    def forward(self, z_q: Tensor, codebook_size: int | Tensor) -> Tensor:
        condition = self.size(codebook_size, z_q.shape[0])
        h = self.norm_in(self.project(z_q[:, :, None]).permute(0, 2, 3, 1))
        h = self.head(self.norm_out(self.blocks(h, condition)[:, 0]))
        with torch.autocast(z_q.device.type, enabled=False):
            log_magnitude, phase = h.float().chunk(2, -1)
            magnitude = torch.exp(log_magnitude).clamp(max=1e2)
            return self.stft.synthesise(magnitude * phase.cos(), magnitude * phase.sin())[:, None]
