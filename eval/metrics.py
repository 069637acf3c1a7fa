"""Quality metrics, each from its established package, on what a user has: decoded samples and pixels.

Pictures are (H, W, 3) uint8; speech is (T,) float at 16 kHz. What cannot be scored is None, never a sentinel.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from pesq import PesqError, pesq
from pystoi import stoi as _stoi
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

SAMPLE_RATE = 16_000  # Hz
MIN_PESQ_SECONDS = 0.25

Pixels = NDArray[np.uint8]
Signal = NDArray[np.floating]


def psnr(x: Pixels, x_hat: Pixels) -> float | None:
    """Peak signal-to-noise ratio in dB over all pixels and channels; None for equal pictures, where it is infinite."""
    return None if np.array_equal(x, x_hat) else float(peak_signal_noise_ratio(x, x_hat, data_range=255))


def ssim(x: Pixels, x_hat: Pixels) -> float | None:
    """Structural similarity in [-1, 1] with the Gaussian window of Wang et al.; None below 11 x 11 pixels."""
    if min(x.shape[:2]) < 11:
        return None
    return float(
        structural_similarity(
            x, x_hat, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def pesq_wb(x: Signal, x_hat: Signal) -> float | None:
    """Wideband PESQ, 1.04 to 4.64; None for silence and below a quarter of a second."""
    if len(x) < MIN_PESQ_SECONDS * SAMPLE_RATE or not np.any(x) or not np.any(x_hat):
        return None
    try:
        return float(pesq(SAMPLE_RATE, x, x_hat, "wb"))
    except PesqError:
        return None  # no utterance was found


def stoi(x: Signal, x_hat: Signal) -> float | None:
    """Short-time objective intelligibility, 0 to 1; None for silence and where fewer than 30 frames hold speech."""
    if not np.any(x) or not np.any(x_hat):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns and returns 1e-5 where it cannot score
        try:
            return float(_stoi(x, x_hat, SAMPLE_RATE))
        except (RuntimeWarning, ValueError):
            return None


METRICS = {"image": {"PSNR": psnr, "SSIM": ssim}, "speech": {"PESQ": pesq_wb, "STOI": stoi}}


def score(medium: str, x: NDArray, x_hat: NDArray) -> dict[str, float | None]:
    """All metrics of a medium."""
    return {name: metric(x, x_hat) for name, metric in METRICS[medium].items()}
