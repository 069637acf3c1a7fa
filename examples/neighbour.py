"""A codec of one's own in the evaluation suite, beside ours: two functions and a name.

    python -m eval speech-fsp --data recordings --neighbour examples.neighbour:mu_law --out report

This one is mu-law, ITU-T G.711, at half the sample rate: eight bits a sample, 64 kbit/s, which is
what telephones had. Put your network in the place of the two functions. Both see speech as (n, 1)
float32 at 16 kHz, or a picture as (H, W, 3) uint8; tokens are integers (G, n) in [0, K), G streams
of n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.media import resample
from eval.systems import Neighbour

RATE = 16_000  # Hz, at which speech is scored
HALF = 8_000
LEVELS = 256
MU = LEVELS - 1


def encode(signal: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n, 1) samples -> (1, n / 2) tokens."""
    x = resample(signal, RATE, HALF)[:, 0].clip(-1, 1)
    squeezed = np.sign(x) * np.log1p(MU * np.abs(x)) / np.log1p(MU)
    return np.round((squeezed + 1) / 2 * MU).astype(np.int64)[None]


def decode(tokens: NDArray[np.int64], length: int) -> NDArray[np.float32]:
    """(1, n / 2) tokens -> (length, 1) samples."""
    squeezed = tokens[0] / MU * 2 - 1
    x = np.sign(squeezed) * np.expm1(np.abs(squeezed) * np.log1p(MU)) / MU
    return resample(x.astype(np.float32)[:, None], HALF, RATE)[:length]


def mu_law() -> Neighbour:
    """What --neighbour calls."""
    return Neighbour("mu-law", "8 kHz", "speech", LEVELS, encode, decode)
