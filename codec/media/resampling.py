"""Sample rates and channels: a recording resampled, and mixed to other channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from codec.media.kinds import Samples

# Phases times step of a resampling filter bank; 11025 Hz has the largest common one, 282240.
MAX_KERNEL = 10**6
# A long filter with Hann's window: flat up to 9/10 of what the lower rate can hold, and 70 dB down
# where that ends. torchaudio's own width of 6 lets a tone at 9.2 kHz through to 16 kHz with a
# tenth. Its other window, Kaiser's, would follow torch's default dtype.
FILTER: dict[str, Any] = {"lowpass_filter_width": 64, "rolloff": 0.95}
# Whole seconds hold whole numbers of samples at every rate, so windows line up.
RESAMPLE_SECONDS = 10
# Of all channels, that resampling works on; fewer seconds where they are more.
MAX_SAMPLES_AT_ONCE = 1 << 22


def resample(samples: Samples, rate: int, target: int) -> Samples:
    """Resamples by windowed-sinc interpolation.

    (T, C) at `rate` Hz -> (ceil(T * target / rate), C) at `target` Hz.
    """
    import torch
    from torchaudio.functional import resample as sinc_resample

    from codec.precision import exact_float32

    if rate == target:
        return samples
    signal = torch.from_numpy(np.ascontiguousarray(samples.T))
    length = -(-len(samples) * target // rate)
    if rate * target // math.gcd(rate, target) ** 2 <= MAX_KERNEL:
        # torchaudio rounds the length in the default dtype, in float32 one sample short now and
        # then: zeros leave room.
        room = rate // math.gcd(rate, target) + len(samples) // 64
        with exact_float32(signal.device):
            padded = torch.nn.functional.pad(signal, (0, room))
            out = sinc_resample(padded, rate, target, **FILTER)[:, :length]
    else:
        # The filter bank has a row for each phase, and rates without a common factor (44101 Hz)
        # would need gigabytes: those go through the spectrum of whole seconds, a second of silence
        # at the end.
        seconds = -(-len(samples) // rate) + 1
        spectrum = torch.fft.rfft(signal, seconds * rate)
        out = torch.fft.irfft(spectrum, seconds * target)[:, :length] * (target / rate)
    return np.ascontiguousarray(out.numpy().T)


def at_rate(blocks: Iterable[Samples], rate: int, target: int, channels: int) -> Iterator[Samples]:
    """Resamples a stream; T samples become ceil(T * target / rate).

    The memory that it takes is bounded whatever the rate and the number of channels, which is what
    these are for.
    """
    if rate == target:
        yield from blocks
        return
    from codec.windows import windows

    densest = max(rate, target)
    seconds = min(max(MAX_SAMPLES_AT_ONCE // (densest * channels), 1), RESAMPLE_SECONDS)
    # Channels; the context is a second on either side.
    few = max(MAX_SAMPLES_AT_ONCE // (densest * (seconds + 2)), 1)
    rows = max(MAX_SAMPLES_AT_ONCE // channels, 1)
    for window, left, core in windows(blocks, seconds * rate, rate):
        # The context is whole seconds.
        first, length = left // rate * target, -(-core * target // rate)
        block = np.empty((length, window.shape[1]), np.float32)
        for at in range(0, window.shape[1], few):
            block[:, at : at + few] = resample(window[:, at : at + few], rate, target)[
                first : first + length
            ]
        for at in range(0, length, rows):
            yield block[at : at + rows]


def with_channels(blocks: Iterable[Samples], channels: int) -> Iterator[Samples]:
    """Gives each block as many channels: one becomes all of them.

    Of several, each gets the mean.
    """
    for block in blocks:
        if block.shape[1] != channels:
            block = block.mean(1, keepdims=True, dtype=np.float32).repeat(channels, 1)
        yield block
