"""Quality metrics, each from its established package.

They measure what a user has: decoded samples and pixels.

Pictures are (H, W, 3) uint8; speech is (T,) float at 16 kHz. What cannot be scored is None, never a
sentinel, and `measure` says why: silence, too short, too small, no difference, a signal that the
metric's model finds no speech in.

`METRICS` are the two that every table has; `MORE_METRICS` cost more or ask for more. LPIPS is in
`eval.lpips_metric` and DistillMOS in `eval.mos`, since they need weights.
"""

from __future__ import annotations

import inspect
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pesq import NoUtterancesError, PesqError, pesq
from PIL import Image
from pystoi import stoi as _stoi
from pytorch_msssim import ms_ssim as _ms_ssim
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from ssimulacra2 import compute_ssimulacra2
from torchaudio.transforms import MelSpectrogram
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from codec.medium import SAMPLE_RATE
from codec.quiet import no_warnings

NO_DIFFERENCE = "no difference"  # why a ratio to the error, which is 0, has no value
MIN_PESQ_SECONDS = 0.25
MIN_MS_SSIM = 161  # pixels: five scales under a window of 11
# Pixels: halved five times, rounding up, they are 8, the least that its six scales take.
MIN_SSIMULACRA2 = 225
# FFT, hop, window: Yamamoto et al. 2020.
STFT_SIZES = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
TOO_FEW_FRAMES = 1e-5  # what pystoi returns, with a warning, where it cannot score
MEL = {"n_fft": 1024, "hop_length": 256, "n_mels": 80, "power": 1.0}
MAGNITUDE_FLOOR, MEL_FLOOR = 1e-7, 1e-5  # the least power, and the least mel magnitude

_generator = threading.Lock()

Pixels = NDArray[np.uint8]
Signal = NDArray[np.floating[Any]]
Metric = Callable[[NDArray[Any], NDArray[Any]], "float | None"]


class Unscored(ValueError):  # noqa: N818  a finding, not a fault
    """A metric has no value for this pair; the message is the reason."""


def optional(metric: Callable[[NDArray[Any], NDArray[Any]], float]) -> Metric:
    """Makes a metric return None where it raises Unscored."""

    @wraps(metric)
    def scored(x: NDArray[Any], x_hat: NDArray[Any]) -> float | None:
        return measure(metric, x, x_hat)[0]

    return scored


def measure(
    metric: Metric, x: NDArray[Any], x_hat: NDArray[Any]
) -> tuple[float | None, str | None]:
    """Returns a metric's value, or None and the reason why there is none.

    Raises:
        TypeError: A signal is no array.
        ValueError: The signals differ in shape, or are of another shape or type than the metric
            takes.
    """
    for signal in (x, x_hat):
        if not isinstance(signal, np.ndarray):
            raise TypeError(f"signals are arrays of numpy, not {type(signal).__name__}")
    if x.shape != x_hat.shape:
        raise ValueError(
            f"signals of different shapes, {x.shape} and {x_hat.shape}; align them first"
        )
    try:
        value = inspect.unwrap(metric)(x, x_hat)
    except Unscored as reason:
        return None, str(reason)
    if value is None or not np.isfinite(value):
        return None, "not finite"
    return float(value), None


# ----------------------------------------------------------------------------------------- pictures


def _need_pixels(*pictures: Pixels) -> None:
    """Raises ValueError for what is not (H, W, 3) uint8: another scale would be another figure."""
    for x in pictures:
        if x.ndim != 3 or x.shape[2] != 3 or x.dtype != np.uint8:
            raise ValueError(
                f"want a picture (H, W, 3) of uint8, not {x.shape} of {x.dtype}; of numbers in "
                "[0, 1], (255 * x).round().astype('uint8')"
            )


@optional
def psnr(x: Pixels, x_hat: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels of (H, W, 3) uint8.

    None for equal pictures, where it is infinite.
    """
    _need_pixels(x, x_hat)
    if np.array_equal(x, x_hat):
        raise Unscored(NO_DIFFERENCE)
    return float(peak_signal_noise_ratio(x, x_hat, data_range=255))


@optional
def ssim(x: Pixels, x_hat: Pixels) -> float:
    """Structural similarity in [-1, 1] with the Gaussian window of Wang et al.

    Of (H, W, 3) uint8; None below 11 x 11 pixels.
    """
    _need_pixels(x, x_hat)
    if min(x.shape[:2]) < 11:
        raise Unscored("below 11 x 11 pixels")
    return float(
        structural_similarity(
            x,
            x_hat,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


@optional
def ms_ssim(x: Pixels, x_hat: Pixels) -> float:
    """SSIM over five scales (Wang et al. 2003), 0 to 1.

    Of (H, W, 3) uint8; None below 161 x 161 pixels.
    """
    _need_pixels(x, x_hat)
    if min(x.shape[:2]) < MIN_MS_SSIM:
        raise Unscored(f"below {MIN_MS_SSIM} x {MIN_MS_SSIM} pixels")
    pair = [torch.tensor(p).movedim(2, 0)[None].float() for p in (x_hat, x)]
    return float(_ms_ssim(*pair, data_range=255))


@optional
def ssimulacra2(x: Pixels, x_hat: Pixels) -> float:
    """SSIMULACRA 2.1 (Sneyers 2023, Cloudinary), by a package of that name.

    It is 100 for equal pictures, below 0 for very bad ones.

    30 is low quality, 50 medium, 70 high, 90 visually lossless, as its author calibrated it on
    people's opinions of compressed pictures. It costs about 2 seconds a megapixel.

    Raises:
        Unscored: Below 225 x 225 pixels. The package drops scales that a picture is too small for,
            and then gives the weights of one scale to another: a figure of another kind.
    """
    _need_pixels(x, x_hat)
    if min(x.shape[:2]) < MIN_SSIMULACRA2:
        raise Unscored(f"below {MIN_SSIMULACRA2} x {MIN_SSIMULACRA2} pixels")
    return float(compute_ssimulacra2(*map(_as_file, (x, x_hat))))


def _as_file(x: Pixels) -> io.BytesIO:
    """Turns a picture into what the package takes: a file, here one in memory and without loss."""
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PPM")
    file.seek(0)
    return file


# ------------------------------------------------------------------------------------------- speech


def _need_speech(*signals: Signal) -> None:
    """Raises ValueError for what is not (T,) floats."""
    for x in signals:
        if x.ndim != 1 or x.dtype.kind != "f":
            raise ValueError(
                f"want speech (T,) of floats, not {x.shape} of {x.dtype}; "
                "x[:, 0] is the first channel of (T, C)"
            )


def _need_sound(x: Signal, x_hat: Signal) -> None:
    if not len(x):
        raise Unscored("no samples")
    if not np.any(x) or not np.any(x_hat):
        raise Unscored("silence")


@optional
def pesq_wb(x: Signal, x_hat: Signal) -> float:
    """Wideband PESQ, 1.04 to 4.64, of (T,) floats at 16 kHz.

    None for silence and below a quarter of a second.
    """
    _need_speech(x, x_hat)
    if len(x) < MIN_PESQ_SECONDS * SAMPLE_RATE:
        raise Unscored(f"below {MIN_PESQ_SECONDS} s")
    _need_sound(x, x_hat)
    try:
        return float(pesq(SAMPLE_RATE, x, x_hat, "wb"))
    except NoUtterancesError:
        raise Unscored("no utterance found") from None
    except PesqError as error:
        raise Unscored(str(error) or "PESQ failed") from None


@optional
def stoi(x: Signal, x_hat: Signal) -> float:
    """Short-time objective intelligibility, up to 1, of (T,) floats at 16 kHz.

    None for silence and where fewer than 30 frames hold speech.
    """
    return _intelligibility(x, x_hat, extended=False)


@optional
def estoi(x: Signal, x_hat: Signal) -> float:
    """Extended STOI (Jensen and Taal 2016), up to 1; None as for `stoi`."""
    return _intelligibility(x, x_hat, extended=True)


def _intelligibility(x: Signal, x_hat: Signal, extended: bool) -> float:
    _need_speech(x, x_hat)
    _need_sound(x, x_hat)
    try:
        with no_warnings(), _seeded():
            value = float(_stoi(x, x_hat, SAMPLE_RATE, extended=extended))
    except ValueError:  # not one whole frame
        value = TOO_FEW_FRAMES
    if value == TOO_FEW_FRAMES:
        raise Unscored("fewer than 30 frames of speech")
    return value


@contextmanager
def _seeded() -> Iterator[None]:
    """Seeds NumPy's generator, which pystoi draws from, and puts it back as it was.

    It belongs to the whole process, so one thread at a time may.
    """
    with _generator:
        state = np.random.get_state()
        np.random.seed(0)
        try:
            yield
        finally:
            np.random.set_state(state)


@optional
def si_sdr(x: Signal, x_hat: Signal) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019).

    The mean is not taken off.
    """
    _need_speech(x, x_hat)
    _need_sound(x, x_hat)
    if np.array_equal(x, x_hat):
        raise Unscored(NO_DIFFERENCE)
    return float(scale_invariant_signal_distortion_ratio(_double(x_hat), _double(x)))


@optional
def stft_distance(x: Signal, x_hat: Signal) -> float:
    """Multi-resolution STFT distance (Yamamoto et al. 2020), lower is better.

    It is of magnitudes and of their logarithms.

    The mean over three resolutions of |S - S_hat|_F / |S|_F + mean |ln S - ln S_hat|.
    """
    _need_speech(x, x_hat)
    _need_sound(x, x_hat)
    if len(x) <= STFT_SIZES[-1][0] // 2:
        raise Unscored(f"no longer than {STFT_SIZES[-1][0] // 2} samples")
    total = 0.0
    for size, hop, window in STFT_SIZES:
        s, s_hat = (
            torch.stft(
                signal,
                size,
                hop,
                window,
                torch.hann_window(window, dtype=torch.float64),
                return_complex=True,
            )
            .abs()
            .square()
            .clamp(min=MAGNITUDE_FLOOR)
            .sqrt()
            for signal in (_double(x), _double(x_hat))
        )
        total += float((s - s_hat).norm() / s.norm() + (s.log() - s_hat.log()).abs().mean())
    return total / len(STFT_SIZES)


@optional
def mel_distance(x: Signal, x_hat: Signal) -> float:
    """Mean absolute difference of log10 mel magnitudes, lower is better.

    There are 80 bands, of 1024 samples each 256.
    """
    _need_speech(x, x_hat)
    if len(x) <= MEL["n_fft"] // 2:
        raise Unscored(f"no longer than {int(MEL['n_fft']) // 2} samples")
    with torch.inference_mode():
        m, m_hat = (_mel()(_double(signal)).clamp(min=MEL_FLOOR).log10() for signal in (x, x_hat))
    return float((m - m_hat).abs().mean())


@lru_cache(1)
def _mel() -> MelSpectrogram:
    return MelSpectrogram(SAMPLE_RATE, **MEL).double()


def _double(x: Signal) -> torch.Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float64)


# -------------------------------------------------------------------------------------------- table

METRICS: dict[str, dict[str, Metric]] = {
    "image": {"PSNR": psnr, "SSIM": ssim},
    "speech": {"PESQ": pesq_wb, "STOI": stoi},
}
MORE_METRICS: dict[str, dict[str, Metric]] = {
    "image": {"MS-SSIM": ms_ssim, "SSIMULACRA2": ssimulacra2},
    "speech": {"ESTOI": estoi, "SI-SDR": si_sdr, "STFT": stft_distance, "mel": mel_distance},
}
LOWER_IS_BETTER = {"STFT", "mel", "LPIPS-alex", "LPIPS-vgg", "LPIPS-squeeze"}
DECIMALS = {"PSNR": 2, "SSIMULACRA2": 1, "SI-SDR": 2, "PESQ": 2, "DistillMOS": 2}  # all others: 3


def score(medium: str, x: NDArray[Any], x_hat: NDArray[Any]) -> dict[str, float | None]:
    """Returns the metrics of a medium that every table has."""
    return {name: metric(x, x_hat) for name, metric in METRICS[medium].items()}
