"""Each metric against a second implementation, on real media where they lie.

Also what no metric can score.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gradient, tones
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
import pystoi

from codec.media import load_audio, load_image, save_image
from codec.quiet import no_warnings
from eval.lpips_metric import LPIPS, backbones, modules
from eval.metrics import (
    METRICS,
    MORE_METRICS,
    SAMPLE_RATE,
    STFT_SIZES,
    estoi,
    measure,
    mel_distance,
    ms_ssim,
    pesq_wb,
    psnr,
    score,
    si_sdr,
    ssim,
    ssimulacra2,
    stft_distance,
    stoi,
)
from train.lpips_net import read_features, tell_net

Real = Callable[[str, int], bytes]
Pair = tuple[NDArray[np.generic], NDArray[np.generic]]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def rng_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test draws does not depend on the tests before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


BACKBONE = "squeezenet1_1-features-fp16.pth"


def noisy(x: NDArray[np.uint8], size: float = 15) -> NDArray[np.uint8]:
    return np.clip(x + RNG.normal(0, size, x.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=["noise", "jpeg", "blur"])
def pictures(request: pytest.FixtureRequest, real: Real) -> Pair:
    x = load_image(io.BytesIO(real("image-test-coco.tar", 5)))
    if request.param == "noise":
        return x, noisy(x)
    if request.param == "blur":
        return x, np.asarray(
            (x[:, :, :].astype(float) + np.roll(x, 3, 0) + np.roll(x, 3, 1)) / 3, np.uint8
        )
    file = io.BytesIO()
    save_image(file, x, "jpg")
    return x, load_image(file)


@pytest.fixture(scope="module", params=[0.003, 0.03])
def clips(request: pytest.FixtureRequest, real: Real) -> Pair:
    x = load_audio(io.BytesIO(real("speech-test.tar", 2)), SAMPLE_RATE)[0][:80_000, 0]
    return x, (x + RNG.normal(0, request.param, x.shape)).astype(np.float32)


def batch(*pictures: NDArray[np.generic]) -> list[torch.Tensor]:
    return [torch.tensor(picture).movedim(2, 0)[None].float() for picture in pictures]


def test_psnr(pictures: Pair) -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    x, y = pictures
    assert psnr(x, y) == pytest.approx(
        float(peak_signal_noise_ratio(*batch(y, x), data_range=255.0)), abs=1e-4
    )
    assert psnr(x, y) == pytest.approx(10 * np.log10(255**2 / ((x.astype(float) - y) ** 2).mean()))
    # The range.
    assert psnr(x, y) != pytest.approx(
        10 * np.log10(1 / ((x.astype(float) - y) ** 2).mean()), abs=1
    )
    assert psnr(x, x) is None


def test_ssim(pictures: Pair) -> None:
    """Against pytorch-msssim. torchmetrics counts mirrored borders in, .005 away on noise: not the
    same quantity.
    """
    from pytorch_msssim import ssim as second

    x, y = pictures
    assert ssim(x, y) == pytest.approx(float(second(*batch(y, x), data_range=255)), abs=1e-4)
    # The range.
    assert ssim(x, y) != pytest.approx(float(second(*batch(y, x), data_range=1)), abs=1e-4)
    assert ssim(x, x) == pytest.approx(1)
    assert ssim(x[:10], y[:10]) is None


def test_ms_ssim(pictures: Pair) -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    x, y = pictures
    second = float(multiscale_structural_similarity_index_measure(*batch(y, x), data_range=255.0))
    assert ms_ssim(x, y) == pytest.approx(second, abs=5e-4)
    assert abs(ms_ssim(x, y) - ssim(x, y)) > 2e-3  # type: ignore[operator]
    assert ms_ssim(x[:160], y[:160]) is None


def test_ssimulacra2_is_on_the_scale_of_its_author() -> None:
    """He gives 50 for libjpeg-turbo at quality 35, 4:2:0, and 10 at quality 14, on average.

    These are cuts of four.
    """
    from skimage import data

    photographs = [
        getattr(data, name)()[:256, 100:356]
        for name in ("astronaut", "coffee", "chelsea", "rocket")
    ]
    means = []
    for quality in (14, 35, 90):
        scores = []
        for x in photographs:
            file = io.BytesIO()
            Image.fromarray(x).save(file, "JPEG", quality=quality, subsampling=2)
            scores.append(ssimulacra2(x, np.asarray(Image.open(file))))
        means.append(np.mean(scores))  # type: ignore[arg-type]
    assert means == pytest.approx([10, 50, 85], abs=12)


def test_ssimulacra2_without_a_loss_and_where_it_has_no_value() -> None:
    x = gradient(240, 232)
    y = noisy(x)
    assert ssimulacra2(x, x) == 100
    # The original comes first.
    assert ssimulacra2(x, y) != pytest.approx(ssimulacra2(y, x), abs=0.1)
    assert ssimulacra2(x[:225, :225], y[:225, :225]) is not None
    assert measure(ssimulacra2, x[:224], y[:224]) == (None, "below 225 x 225 pixels")


@pytest.fixture(scope="module")
def backbone(root) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    path = root.parent / "shared/weights" / BACKBONE
    if not path.is_file():
        pytest.skip(f"the backbone is not here: {BACKBONE}")
    return read_features(path)


def test_lpips(pictures: Pair, backbone: dict[str, torch.Tensor]) -> None:
    """Against torchmetrics' own network, which is given the same backbone."""
    from torchmetrics.functional.image.lpips import _LPIPS

    assert tell_net(backbone) == "squeeze"
    x, y = pictures
    ours = LPIPS("squeeze", backbone)
    second = _LPIPS(pretrained=True, net="squeeze", pnet_rand=True).eval()
    parts = modules(ours).net.state_dict().values()
    second.net.load_state_dict(dict(zip(second.net.state_dict(), parts, strict=True)))
    scaled = [p / 127.5 - 1 for p in batch(x, y)]
    with torch.inference_mode():
        assert ours(x, y) == pytest.approx(float(second(*scaled)), abs=1e-5)
    assert ours(x, x) == pytest.approx(0, abs=1e-6)
    assert ours(x, noisy(x, 60)) > ours(x, noisy(x, 5))


def test_lpips_without_a_backbone_says_which_file_is_missing(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found, notices = backbones([], [])
    assert found == []
    assert [n.split(":")[0] for n in notices] == ["LPIPS-alex", "LPIPS-vgg", "LPIPS-squeeze"]
    assert "vgg16-397923af.pth" in notices[1]
    # As where HOME is that of another user.
    monkeypatch.setattr(Path, "stat", _refused)
    assert backbones([], []) == (found, notices)


def _refused(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_is_no_backbone_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from codec.errors import ModelError

    bad, half = tmp_path / "bad.pth", tmp_path / "half.pth"
    bad.write_bytes(b"nothing")
    torch.save({"0.weight": torch.zeros(64, 3, 3, 3)}, half)
    for path, reason in (
        (bad, "no LPIPS backbone"),
        (half, "the backbone has no"),
        (tmp_path / "no.pth", "No such"),
    ):
        with pytest.raises(ModelError, match=reason):
            backbones([], [path])


def test_pesq(clips: Pair) -> None:
    """torchmetrics calls the same C code, so this holds sampling rate and order of arguments.

    And it orders noise.
    """
    from torchmetrics.functional.audio import perceptual_evaluation_speech_quality as second

    x, y = clips
    assert pesq_wb(x, y) == pytest.approx(
        float(second(torch.tensor(y), torch.tensor(x), SAMPLE_RATE, "wb")), abs=1e-4
    )
    assert pesq_wb(x, y) != pytest.approx(
        float(second(torch.tensor(x), torch.tensor(y), SAMPLE_RATE, "wb")), abs=1e-3
    )
    assert pesq_wb(x, x) == pytest.approx(4.644, abs=1e-3)  # the best that P.862.2 gives


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch_stoi calls torchaudio the old way
@pytest.mark.parametrize("extended", [False, True])
def test_stoi(clips: Pair, extended: bool) -> None:
    torch_stoi = pytest.importorskip("torch_stoi")
    x, y = clips
    second = torch_stoi.NegSTOILoss(SAMPLE_RATE, use_vad=True, extended=extended, do_resample=True)
    value = -float(second(torch.tensor(y)[None], torch.tensor(x)[None]))
    assert (estoi if extended else stoi)(x, y) == pytest.approx(value, abs=5e-3)
    assert abs(stoi(x, y) - estoi(x, y)) > 5e-3  # type: ignore[operator]


def test_si_sdr(clips: Pair) -> None:
    x, y = (signal.astype(np.float64) for signal in clips)
    target = (y @ x) / (x @ x) * x
    assert si_sdr(x, y) == pytest.approx(
        10 * np.log10((target @ target) / ((y - target) @ (y - target))), abs=1e-3
    )
    assert si_sdr(x, 3 * y) == pytest.approx(si_sdr(x, y), abs=1e-3)  # the scale does not matter
    assert si_sdr(x, np.roll(y, 40)) < si_sdr(x, y) - 3  # type: ignore[operator]


def test_stft_distance(clips: Pair) -> None:
    """Against auraloss with the window lengths of Yamamoto et al. 2020."""
    auraloss = pytest.importorskip("auraloss")
    x, y = clips
    second = auraloss.freq.MultiResolutionSTFTLoss(
        [512, 1024, 2048], [50, 120, 240], [240, 600, 1200], eps=1e-7
    )
    value = float(
        second(torch.tensor(y)[None, None].double(), torch.tensor(x)[None, None].double())
    )
    assert stft_distance(x, y) == pytest.approx(value, abs=1e-3)
    assert stft_distance(x, x) == 0


def test_mel_distance(clips: Pair) -> None:
    """Against SciPy's STFT and triangles on the HTK mel scale, written down here."""
    from scipy.signal import stft

    def log_mel(signal: NDArray[np.generic]) -> NDArray[np.float64]:
        padded = np.pad(signal.astype(np.float64), 512, mode="reflect")
        spectrum = (
            np.abs(
                stft(
                    padded, window="hann", nperseg=1024, noverlap=768, boundary=None, padded=False
                )[2]
            )
            * 512
        )
        edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82) / 2595) - 1)
        bins = np.linspace(0, 8000, 513)
        up = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
        down = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
        return np.log10(np.maximum(np.maximum(np.minimum(up, down), 0) @ spectrum, 1e-5))

    x, y = clips
    assert mel_distance(x, y) == pytest.approx(
        float(np.abs(log_mel(x) - log_mel(y)).mean()), abs=1e-4
    )
    assert mel_distance(x, x) == 0


def test_every_metric_orders_little_and_much_noise() -> None:
    from eval.metrics import LOWER_IS_BETTER

    x, s = gradient(240, 232), tones(48_000)[:, 0]
    for medium, little, much in (
        ("image", (x, noisy(x, 3)), (x, noisy(x, 40))),
        (
            "speech",
            (s, s + 0.001 * RNG.normal(size=s.shape)),
            (s, s + 0.1 * RNG.normal(size=s.shape)),
        ),
    ):
        for name, metric in (METRICS[medium] | MORE_METRICS[medium]).items():
            better, worse = metric(*little), metric(*much)
            assert better is not None, name
            assert worse is not None, name
            assert (better < worse) == (name in LOWER_IS_BETTER), name


@pytest.mark.parametrize("seconds", [0, 1 / 16_000, 0.2])
def test_what_is_too_short_is_not_scored(seconds: float) -> None:
    x = RNG.normal(0, 0.1, int(seconds * SAMPLE_RATE))
    assert score("speech", x, x) == {"PESQ": None, "STOI": None}
    for metric in (METRICS["speech"] | MORE_METRICS["speech"]).values():
        value, reason = measure(metric, x, x + 0.01)
        assert (value is None) == (reason is not None)


def test_the_shortest_clips_that_are_scored() -> None:
    for metric, least in ((pesq_wb, SAMPLE_RATE // 4), (stft_distance, STFT_SIZES[-1][0] // 2 + 1)):
        x = tones(least)[:, 0]
        assert metric(x, x + 0.01) is not None
        assert metric(x[1:], x[1:] + 0.01) is None


def test_silence_is_not_scored() -> None:
    silence = np.zeros(32_000)
    for metric in (pesq_wb, stoi, estoi, si_sdr, stft_distance):
        assert measure(metric, silence, silence) == (None, "silence")
        assert measure(metric, silence + 0.1, silence) == (None, "silence")


def test_signals_of_different_shapes_are_a_fault() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        measure(psnr, gradient(32, 32), gradient(32, 40))


def test_estoi_repeats_and_leaves_the_global_generator_alone() -> None:
    x = tones(32_000)[:, 0]
    np.random.seed(7)
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    assert estoi(x, x + 0.01) == estoi(x, x + 0.01)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_what_another_thread_does_with_warnings_decides_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture begins to be read while STOI is at work, and ends after it."""
    before, other = warnings.filters[:], no_warnings()

    def meanwhile(*given: Any, **options: Any) -> float:
        other.__enter__()
        return float(pystoi.stoi(*given, **options))

    monkeypatch.setattr("eval.metrics._stoi", meanwhile)
    short = RNG.normal(0, 0.1, 4000)
    assert measure(stoi, short, short + 0.01) == (None, "fewer than 30 frames of speech")
    other.__exit__(None, None, None)
    assert warnings.filters == before


def test_threads_take_turns_at_the_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: Any, **__: Any) -> float:
        first = np.random.standard_normal()
        time.sleep(0.02)
        return float(first + np.random.standard_normal())

    monkeypatch.setattr("eval.metrics._stoi", drawn)
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    x = tones(8000)[:, 0]
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(estoi, [x] * 8, [x] * 8))) == 1
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_what_a_metric_is_not_for_is_no_figure() -> None:
    """PSNR of numbers in [0, 1] was 48 dB above that of the pixels, and STOI of (T, 1) another."""
    x, s = gradient(240, 232), tones(48_000)[:, 0]
    y, r = noisy(x, 20), s + 0.01
    wrong: dict[str, list[tuple[Any, Any]]] = {
        "image": [
            (x / 255, y / 255),
            (x, y / 255),
            (x.astype(np.uint16) * 257, y.astype(np.uint16) * 257),
            (x[..., 0], y[..., 0]),
            (x.transpose(2, 0, 1), y.transpose(2, 0, 1)),
            (x[None], y[None]),
        ],
        "speech": [
            (s[:, None], r[:, None]),
            (s[None], r[None]),
            ((s * 32767).astype(np.int16), (r * 32767).astype(np.int16)),
        ],
    }
    for medium, pairs in wrong.items():
        for metric in (METRICS[medium] | MORE_METRICS[medium]).values():
            for pair in pairs:
                with pytest.raises(ValueError, match=r"want (a picture|speech) .* of .*, not"):
                    metric(*pair)
            for no_array in (list, torch.from_numpy):
                with pytest.raises(TypeError, match="signals are arrays of numpy, not"):
                    metric(*map(no_array, (x, y)))
