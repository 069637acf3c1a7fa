"""Classic codecs: real files, aligned signals of the same shape, and the search for a file of so
many bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import gradient, tones
from numpy.typing import NDArray

from codec.errors import MediaError
from codec.media import load_audio, load_image
from codec.medium import SAMPLE_RATE
from eval.baselines import BASELINES, Baseline, find, match_bytes

Real = Callable[[str, int], bytes]


def signal(medium: str) -> NDArray[np.generic]:
    return gradient(64, 88) if medium == "image" else tones(SAMPLE_RATE + 77)


def usable(name: str) -> Baseline:
    if BASELINES[name].missing:
        pytest.skip(str(BASELINES[name].missing))
    return BASELINES[name]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_keeps_shape_and_grows_with_its_setting(name: str) -> None:
    baseline = usable(name)
    x = signal(baseline.medium)
    sizes = []
    for setting in (baseline.curve[0], baseline.curve[-1]):
        data = baseline.encode(x, setting)
        x_hat = baseline.decode(data, len(x))
        assert x_hat.shape == x.shape
        assert x_hat.dtype == x.dtype
        assert 0 < baseline.payload(data) <= len(data)
        sizes.append(len(data))
    assert sizes[0] < sizes[1]
    assert set(baseline.curve) <= set(baseline.settings)
    assert len(set(baseline.settings)) == len(baseline.settings)


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_decoded_lies_where_the_signal_does(name: str, real: Real) -> None:
    """Of all shifts the best is none, or one sample for Opus, whose resampler delays by a fraction
    of one.
    """
    baseline = usable(name)
    if name == "codec2":
        pytest.skip("a vocoder keeps no waveform")
    if baseline.medium == "image":
        x = load_image(io.BytesIO(real("image-test-coco.tar", 3)))
    else:
        x = load_audio(io.BytesIO(real("speech-test.tar", 3)), SAMPLE_RATE)[0]
    x_hat = baseline.decode(baseline.encode(x, baseline.curve[-1]), len(x)).astype(float)
    errors = {
        n: float(np.square(np.roll(x_hat, n, 0)[16:-16] - x[16:-16]).mean()) for n in range(-16, 17)
    }
    assert abs(min(errors, key=errors.__getitem__)) <= (name == "opus")
    assert errors[0] < min(errors[-16], errors[16]) / 3


def test_what_is_decoded_depends_on_the_file_alone() -> None:
    """Codec2 draws phases from a generator of the process, as its own decoder here shows."""
    baseline, x = usable("codec2"), signal("speech")
    pycodec2 = pytest.importorskip("pycodec2")
    data = baseline.encode(x, 1200)
    first, second = (baseline.decode(data, len(x)) for _ in range(2))
    baseline.decode(baseline.encode(x, 3200), len(x))
    assert np.array_equal(first, second)
    assert np.array_equal(first, baseline.decode(data, len(x)))

    def here() -> NDArray[np.int16]:
        coder = pycodec2.Codec2(1200)
        size = coder.bytes_per_frame()
        parts = [coder.decode(data[at : at + size]) for at in range(1, len(data), size)]
        return np.concatenate(parts)

    assert not np.array_equal(here(), here())


def test_a_file_that_codec2_cannot_decode_is_an_error() -> None:
    """And the next one is decoded all the same."""
    baseline, x = usable("codec2"), signal("speech")
    data = baseline.encode(x, 1200)
    with pytest.raises(RuntimeError, match="Codec2 could not decode 0 bytes of mode 1200"):
        baseline.decode(data[:1], len(x))
    assert baseline.decode(data, len(x)).shape == x.shape


def test_the_boxes_of_heic_are_no_payload() -> None:
    """They take as much in a large file as in a small one."""
    baseline, x = usable("heic"), signal("image")
    files = [baseline.encode(x, setting) for setting in (0, 40)]
    small, large = (len(data) - baseline.payload(data) for data in files)
    assert 100 < small < 1000
    assert abs(large - small) < 10 < len(files[1]) - len(files[0])


def test_the_nearest_file_is_found() -> None:
    """Against trying every setting, for a codec whose files grow but for a few bytes."""
    sizes = {setting: 100 + 10 * setting + (7 * setting) % 13 for setting in range(40)}
    stub = replace(
        BASELINES["jpeg"], settings=tuple(sizes), encode=lambda _, setting: bytes(sizes[setting])
    )
    for target in range(50, 700, 7):
        match = match_bytes(stub, np.empty(0), target)
        assert abs(len(match.data) - target) == min(abs(size - target) for size in sizes.values())


def test_the_search_reads_what_was_tried() -> None:
    calls: list[int] = []

    def encode(_: NDArray[np.generic], setting: int) -> bytes:
        calls.append(setting)
        return bytes(setting)

    stub, tried = replace(BASELINES["jpeg"], encode=encode), {}
    match_bytes(stub, np.empty(0), 40, tried)
    before = len(calls)
    assert match_bytes(stub, np.empty(0), 40, tried).setting == 40
    assert len(calls) == before <= 9


def test_baselines_are_named_and_what_is_missing_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [b.name for b in find(["webp", "opus"])] == ["webp", "opus"]
    assert {b.medium for b in find(["all"], "image")} == {"image"}
    with pytest.raises(MediaError, match="no baseline bpg; there are jpeg"):
        find(["bpg"])
    monkeypatch.setitem(
        BASELINES, "codec2", replace(BASELINES["codec2"], missing="not installed; pip install it")
    )
    with pytest.raises(MediaError, match="baseline codec2: not installed; pip install it"):
        find(["codec2"])
    assert "codec2" not in [b.name for b in find(["all"])]


@pytest.mark.parametrize(
    ("name", "setting", "bits_per_pixel", "psnr_db", "ssim_mean"),
    [("jpeg", 5, 0.216, 22.8, 0.631), ("webp", 0, 0.158, 24.1, 0.664)],
)
def test_the_figures_are_those_measured_before(
    name: str, setting: int, bits_per_pixel: float, psnr_db: float, ssim_mean: float, root: Path
) -> None:
    """Every second picture of COCO 256 x 256, against another program's figures."""
    pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
    from eval.datasets import find as find_set
    from eval.datasets import load_signal
    from eval.metrics import psnr, ssim

    data = root.parent / "shared/data"
    if not (data / "image-test-coco.tar").is_file():
        pytest.skip("real media are not here: image-test-coco.tar")
    rows = []
    for item in find_set("image-test-coco", data).items[::2]:
        x = load_signal(item)[1]
        file = BASELINES[name].encode(x, setting)
        x_hat = BASELINES[name].decode(file)
        rows.append((8 * len(file) / x[..., 0].size, psnr(x, x_hat), ssim(x, x_hat)))
    found = np.mean(rows, 0)
    assert found[0] == pytest.approx(bits_per_pixel, abs=0.001)
    assert found[1] == pytest.approx(psnr_db, abs=0.1)
    assert found[2] == pytest.approx(ssim_mean, abs=0.002)
