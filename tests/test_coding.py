"""codec.coding: windows are invisible.

Whatever the blocks and wherever the cuts, a long signal is coded as one.
"""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import gradient, picture, tones
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from codec import coding
from codec.coding import Model, effort, pictures, speech
from codec.container import Reader, scan, unpack
from codec.container.limits import Limits
from codec.errors import BitstreamError, MediaError, ModelError
from codec.media import Picture, at_rate, load_audio, load_image, resample
from codec.model import Codec, CodecConfig, build
from codec.nets import NETS, blocks
from codec.windows import windows

SIZE = 1024
FRAMES, ROWS, STRIP = 40, 8, 3  # shrunken windows, chunks and strips


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "FRAMES_PER_WINDOW", FRAMES)
    monkeypatch.setattr(pictures, "ROWS_PER_CHUNK", ROWS)
    monkeypatch.setattr(pictures, "rows_per_strip", lambda *_: STRIP)


@pytest.fixture
def no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Codec, "context", 0)
    monkeypatch.setattr(blocks, "windows", lambda strips, core, _: windows(strips, core, 0))


def encode_speech(
    samples: NDArray[np.float32], model: Model, block: int = 1000, rate: int = 16000
) -> bytes:
    file = io.BytesIO()
    blocks = (samples[i : i + block] for i in range(0, len(samples), block))
    coding.compress_speech(blocks, rate, samples.shape[1], file, model, SIZE)
    return file.getvalue()


def decode_speech(data: bytes, model: Model) -> NDArray[np.float32]:
    return np.concatenate(list(coding.decompress_speech(Reader(io.BytesIO(data)), model)))


def whole_indices(samples: NDArray[np.float32], model: Model) -> NDArray[np.int64]:
    with torch.inference_mode():
        return model.codec.encode(torch.from_numpy(samples.T.copy())[:, None], SIZE).numpy()


# --------------------------------------------------------------------------------------------------
# windows


@settings(deadline=None, max_examples=200)
@given(
    length=st.integers(0, 60),
    core=st.integers(1, 17),
    context=st.integers(0, 23),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
def test_windows_tile_the_stream_whatever_the_blocks(
    length: int, core: int, context: int, cuts: list[int]
) -> None:
    """Cores are the stream itself, contexts are as long as can be, and blocks (empty ones, too)
    change nothing.
    """
    stream = np.arange(length)
    found = list(windows(np.split(stream, sorted(min(cut, length) for cut in cuts)), core, context))
    assert len(found) == -(-length // core)
    for number, (window, left, n) in enumerate(found):
        start = number * core
        stop = min(start + core, length)
        assert n == stop - start
        assert left == min(context, start)
        assert (
            window.tolist() == stream[start - left : min(start + core + context, length)].tolist()
        )


@pytest.mark.parametrize("preset", NETS["convnext-speech"].presets)
def test_the_context_covers_the_nets_reach(preset: str) -> None:
    """One latent position is disturbed.

    What changes, in encoder and decoder, is within the context and near it.
    """
    torch.manual_seed(0)
    codec = build(CodecConfig("speech", NETS["convnext-speech"].presets[preset], "fsp")).eval()
    for module in codec.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=2 * module.weight[0].numel() ** -0.5)
    context, stride = codec.context, codec.stride
    middle, length = context + 3, 2 * context + 7
    x = torch.rand(1, codec.channels, length * stride) - 0.5
    z = torch.randn(1, codec.bottleneck.dim, length)

    def reach(net: Callable[[Tensor], Tensor], signal: Tensor, cell: int, out_cell: int) -> int:
        disturbed = signal.clone()
        disturbed[:, :, middle * cell : (middle + 1) * cell] += 1
        with torch.inference_mode():
            changed = (net(disturbed) != net(signal)).movedim(2, 0).flatten(1).any(1)
        places = changed.nonzero()[:, 0] // out_cell
        return int((places - middle).abs().max())

    found = (
        reach(codec.encoder, x, stride, 1),
        reach(lambda value: codec.decoder(value, SIZE), z, 1, stride),
    )
    assert max(found) <= context
    assert max(found) >= context - 2, "more context than is needed costs time"


# --------------------------------------------------------------------------------------------------
# speech


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize(
    "length", [FRAMES * 96 * 4 + 1234, FRAMES * 96 * 3, FRAMES * 96 * 3 + 1, 96 * 5 + 1, 96, 1]
)
def test_speech_in_windows_is_the_whole_bit_for_bit(speech_model: Model, length: int) -> None:
    samples = tones(length, channels=2)
    data = encode_speech(samples, speech_model)
    _, indices, num_samples = unpack(data, speech_model.tables[SIZE])
    expected = whole_indices(samples, speech_model)
    assert num_samples == length
    assert np.array_equal(indices, expected)
    assert len(np.unique(expected)) > min(50, expected.size // 4), "the nets must not be constant"
    assert encode_speech(samples, speech_model, block=77) == data
    with torch.inference_mode():
        whole = (
            speech_model.codec.decode(torch.from_numpy(expected), (length,), SIZE)[:, 0].numpy().T
        )
    assert np.abs(decode_speech(data, speech_model) - whole).max() < 1e-4


@pytest.mark.usefixtures("small_windows", "no_context")
def test_without_context_the_seams_show(speech_model: Model) -> None:
    """Negative control of the test above, in both directions."""
    samples = tones(FRAMES * 96 * 4)
    data = encode_speech(samples, speech_model)
    expected = whole_indices(samples, speech_model)
    assert not np.array_equal(unpack(data, speech_model.tables[SIZE])[1], expected)
    indices = torch.from_numpy(unpack(data, speech_model.tables[SIZE])[1])
    with torch.inference_mode():
        whole = speech_model.codec.decode(indices, (len(samples),), SIZE)[:, 0].numpy().T
    assert np.abs(decode_speech(data, speech_model) - whole).max() > 1e-2


def test_channels_do_not_touch_each_other(speech_model: Model) -> None:
    samples = tones(5000, channels=3)
    together = unpack(encode_speech(samples, speech_model), speech_model.tables[SIZE])[1]
    for channel in range(3):
        alone = encode_speech(samples[:, channel : channel + 1], speech_model)
        assert np.array_equal(unpack(alone, speech_model.tables[SIZE])[1][0], together[channel])


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000, 44101])
def test_resampling_in_windows_has_no_seams(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.media.resampling.RESAMPLE_SECONDS", 1)
    samples = tones(4 * rate + 321, rate)
    blocks = np.array_split(samples, 7)
    for source, target in ((rate, 16000), (16000, rate)):
        found = np.concatenate(list(at_rate(iter(blocks), source, target, 1)))
        expected = resample(samples, source, target)
        assert found.shape == expected.shape
        assert np.abs(found - expected)[:-100].max() < 1e-3


@pytest.mark.parametrize(
    ("rate", "channels", "length"),
    [
        (8000, 1, 2401),
        (11025, 2, 5000),
        (16000, 6, 1601),
        (22050, 1, 9999),
        (44100, 2, 22051),
        (48000, 1, 1),
        (96000, 1, 12345),
        (44101, 2, 30011),
        (768000, 1, 7),
        (1000, 1, 3),
        (16000, 64, 97),
    ],
)
def test_rate_channels_and_length_are_restored(
    speech_model: Model, rate: int, channels: int, length: int
) -> None:
    data = encode_speech(tones(length, rate, channels), speech_model, rate=rate)
    header = scan(io.BytesIO(data)).header
    assert (header.sample_rate, header.channels) == (rate, channels)
    decoded = decode_speech(data, speech_model)
    assert decoded.shape == (length, channels)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    ("rate", "lost"), [(8000, False), (11025, False), (16000, False), (22050, True), (96000, True)]
)
def test_a_notice_is_given_only_where_bandwidth_is_lost(
    speech_model: Model, rate: int, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    encode_speech(tones(500, rate), speech_model, rate=rate)
    assert ["above 8 kHz are lost" in message for message in caplog.messages] == [True] * lost


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-30])
def test_silence_and_extremes_are_coded(speech_model: Model, value: float) -> None:
    assert np.isfinite(
        decode_speech(
            encode_speech(np.full((3000, 1), value, np.float32), speech_model), speech_model
        )
    ).all()


def test_more_channels_than_the_format_has_are_refused(speech_model: Model) -> None:
    with pytest.raises(MediaError, match="channels of speech must be in 1 to 64"):
        encode_speech(tones(10, channels=65), speech_model)


@pytest.mark.parametrize("claimed", [1, 96, 193, 10**9])
def test_a_length_that_does_not_fit_is_refused(speech_model: Model, claimed: int) -> None:
    """The end chunk says another number of samples than the positions hold, its CRC true."""
    from codec.container import pack

    header, indices, _ = unpack(encode_speech(tones(150), speech_model), speech_model.tables[SIZE])
    with pytest.raises(BitstreamError, match=r"do not fit|over the limit"):
        decode_speech(pack(header, indices, claimed), speech_model)


# --------------------------------------------------------------------------------------------------
# pictures


def encode_image(pixels: NDArray[np.uint8], model: Model) -> bytes:
    file = io.BytesIO()
    coding.compress_image(pixels, file, model, SIZE)
    return file.getvalue()


def image_indices(pixels: NDArray[np.uint8], model: Model) -> NDArray[np.int64]:
    with torch.inference_mode():
        x = torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255
        return model.codec.encode(x, SIZE).flatten(2).numpy()


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize(
    "size", [(8 * ROWS * 5 + 3, 37), (8 * ROWS * 3, 16), (200, 1), (1, 200), (1, 1)]
)
def test_a_picture_in_strips_is_the_whole(image_model: Model, size: tuple[int, int]) -> None:
    pixels = gradient(*size)
    data = encode_image(pixels, image_model)
    indices = unpack(data, image_model.tables[SIZE])[1]
    assert np.array_equal(indices, image_indices(pixels, image_model))
    decoded = coding.decompress_image(Reader(io.BytesIO(data)), image_model)
    grid = torch.from_numpy(indices).reshape(1, 1, *image_model.codec.grid(size))
    with torch.inference_mode():
        whole = (
            image_model.codec.decode(grid, size, SIZE)[0]
            .movedim(0, -1)
            .mul(255)
            .round()
            .clamp(0, 255)
        )
    assert decoded.shape == pixels.shape
    difference = np.abs(decoded - whole.numpy())
    assert difference.max() <= 1  # a last float bit may round the other way
    assert (difference > 0).mean() < 0.01


@pytest.mark.usefixtures("small_windows", "no_context")
def test_without_context_the_strips_show(image_model: Model) -> None:
    pixels = gradient(8 * ROWS * 5, 40)
    indices = unpack(encode_image(pixels, image_model), image_model.tables[SIZE])[1]
    assert not np.array_equal(indices, image_indices(pixels, image_model))


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("size", [(203, 99), (64, 200), (7, 9)])
def test_a_file_read_in_any_strips_gives_the_same_bytes(
    image_model: Model, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = gradient(*size)
    expected = encode_image(pixels, image_model)
    for rows in (1, 5, 64):
        monkeypatch.setattr("codec.media.pictures.STRIP_PIXELS", rows * size[1])
        out = io.BytesIO()
        coding.compress_image(Picture(io.BytesIO(picture(pixels))), out, image_model, SIZE)
        assert out.getvalue() == expected
    strips = list(coding.image_strips(Reader(io.BytesIO(expected)), image_model))
    whole = coding.decompress_image(Reader(io.BytesIO(expected)), image_model)
    assert np.array_equal(np.concatenate(strips), whole)
    assert len(strips) > 1 or size[0] < 64


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 9)])
def test_extreme_shapes_are_restored(image_model: Model, size: tuple[int, int]) -> None:
    data = encode_image(gradient(*size), image_model)
    assert coding.decompress_image(Reader(io.BytesIO(data)), image_model).shape == (*size, 3)


def test_pixels_that_may_not_be_written_to_are_coded(image_model: Model) -> None:
    """torch warns of them, and the suite takes a warning for an error."""
    files = [io.BytesIO(), io.BytesIO()]
    for file, writable in zip(files, (True, False), strict=True):
        pixels = gradient(30, 20)
        pixels.flags.writeable = writable
        coding.compress_image(pixels, file, image_model, SIZE)
    assert files[0].getvalue() == files[1].getvalue()


def test_a_side_that_the_format_cannot_hold_is_refused(image_model: Model) -> None:
    with pytest.raises(MediaError, match="width of image must be in 1 to 131072"):
        encode_image(np.zeros((1, 131073, 3), np.uint8), image_model)


def test_a_picture_above_the_readers_limit_is_refused_at_its_header(image_model: Model) -> None:
    data = encode_image(gradient(20, 20), image_model)
    with pytest.raises(BitstreamError, match="--max-pixels"):
        Reader(io.BytesIO(data), Limits(max_pixels=399))


def test_a_model_of_the_other_medium_is_refused(speech_model: Model, image_model: Model) -> None:
    with pytest.raises(ModelError, match="codes speech, not image"):
        encode_image(gradient(4, 4), speech_model)
    with pytest.raises(ModelError, match="codes image, not speech"):
        encode_speech(tones(10), image_model)
    with pytest.raises(ModelError, match="codes image, not speech"):
        coding.read_indices(encode_speech(tones(3200), speech_model), image_model)


BLOCK = tones(3200)


@pytest.mark.parametrize(
    "block",
    [BLOCK[:, 0], BLOCK.repeat(2, 1), BLOCK.T, (BLOCK * 32767).astype(np.int16), BLOCK > 0, "abc"],
)
def test_blocks_of_another_shape_or_type_are_refused(speech_model: Model, block: Any) -> None:
    with pytest.raises(ValueError, match=r"want blocks \(n, 1\) of floats in \[-1, 1\], not \("):
        coding.compress_speech([block], 16000, 1, io.BytesIO(), speech_model, SIZE)


def test_blocks_may_be_whatever_makes_an_array(speech_model: Model) -> None:
    expected = encode_speech(BLOCK, speech_model)
    for block in (BLOCK.astype(np.float64), BLOCK.tolist(), torch.from_numpy(BLOCK)):
        file = io.BytesIO()
        coding.compress_speech([BLOCK[:0], block], 16000, 1, file, speech_model, SIZE)  # type: ignore[list-item]
        assert file.getvalue() == expected


PIXELS = gradient(20, 24)


@pytest.mark.parametrize(
    "pixels",
    [
        (PIXELS / 255).astype(np.float32),  # it came back black
        PIXELS.astype(np.uint16) * 257,
        PIXELS > 100,
        PIXELS[:, :, 0],
        PIXELS[:, :, :1],
        PIXELS.transpose(2, 0, 1),
        None,
    ],
)
def test_pixels_of_another_shape_or_type_are_refused(image_model: Model, pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"want a picture \(H, W, 3\) of uint8, not"):
        coding.compress_image(pixels, io.BytesIO(), image_model, SIZE)


def test_arguments_that_streams_refuse(speech_model: Model) -> None:
    """Before a byte is written."""
    file = io.BytesIO()
    good: dict[str, Any] = {"sample_rate": 16000, "channels": 1, "codebook_size": SIZE}
    for name, values, kind in (
        ("sample_rate", [16000.0, None, "16000"], ValueError),
        ("channels", [1.0, None, True], ValueError),
        ("codebook_size", [256.0, "256", 257], ValueError),
        ("layers", [1, None, "no"], TypeError),
    ):
        for value in values:
            with pytest.raises(kind, match=name.replace("_", ".")):
                coding.compress_speech(
                    [BLOCK], file=file, model=speech_model, **good | {name: value}
                )
    for no_model in ("speech-fsp", None, speech_model.codec):
        with pytest.raises(TypeError, match=r"want a loaded model, not .*; codec\.load gives one"):
            coding.compress_speech([BLOCK], 16000, 1, file, no_model, SIZE)
        with pytest.raises(TypeError, match=r"want a loaded model, not .*; codec\.load gives one"):
            coding.compress_image(PIXELS, file, no_model, SIZE)
    assert not file.getvalue()


@pytest.mark.parametrize("read", [Reader, scan])
def test_what_is_no_file_is_told_how_to_be_one(read: Callable[[Any], object]) -> None:
    for wrong in (b"COD", "a.bin", Path("a.bin"), None):
        with pytest.raises(TypeError, match=r"want an open binary file, not .*io\.BytesIO"):
            read(wrong)


# --------------------------------------------------------------------------------------------------
# the real thing


@pytest.fixture(scope="session")
def shipped(root: Path) -> Callable[[str], Model]:
    def load(name: str) -> Model:
        from codec import cards

        if not (root / f"assets/models/{name}.json").is_file():
            pytest.skip(f"{name} is not shipped yet")
        return coding.load(cards.read_card(root / f"assets/models/{name}.json"))

    return load


def test_real_speech_in_windows_is_the_whole_and_keeps_its_level(
    real: Callable[[str, int], bytes],
    shipped: Callable[[str], Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speech, "FRAMES_PER_WINDOW", 150)
    model = shipped("speech-fsp")
    samples, _ = load_audio(io.BytesIO(real("speech-test.tar", 0)), 16000)
    samples = samples[: 5 * 16000 + 11]
    data = encode_speech(samples, model)
    assert np.array_equal(unpack(data, model.tables[SIZE])[1], whole_indices(samples, model))
    decoded = decode_speech(data, model)
    assert abs(20 * np.log10(decoded.std() / samples.std())) < 3, (
        "dB; small nets are a little timid"
    )


@pytest.mark.usefixtures("small_windows")
def test_a_real_photograph_in_strips_is_the_whole(
    real: Callable[[str, int], bytes], shipped: Callable[[str], Model]
) -> None:
    model = shipped("image-fsp")
    pixels = load_image(io.BytesIO(real("image-kodak-00.tar", 0)))[:330, :220]
    data = encode_image(pixels, model)
    assert np.array_equal(unpack(data, model.tables[SIZE])[1], image_indices(pixels, model))
    decoded = coding.decompress_image(Reader(io.BytesIO(data)), model)
    assert np.square(decoded.astype(float) - pixels).mean() < 255**2 / 100, "below 20 dB"


MEMORY = """
import io, resource, sys, tempfile
from pathlib import Path
import numpy as np
from codec import cards, coding
from codec.container import Reader

model = coding.load(cards.read_card(Path(sys.argv[1])))

def run(minutes):
    noise = np.random.default_rng(0).standard_normal((44100 // 2, 1)).astype(np.float32) * 0.1
    with tempfile.TemporaryFile() as file:
        blocks = (noise for _ in range(2 * 60 * minutes))
        coding.compress_speech(blocks, 44100, 1, file, model, 1024)
        file.seek(0)
        samples = sum(len(block) for block in coding.decompress_speech(Reader(file), model))
    assert samples == 44100 * 60 * minutes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

short, long = run(1), run(6)
print(long - short)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_length(model_folder: Path, root: Path) -> None:
    """Six minutes at 44.1 kHz are 60 MB of float32.

    Both directions together must stay well below.
    """
    command = [sys.executable, "-c", MEMORY, str(model_folder / "speech-fsp.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert float(done.stdout) < 25  # MiB


@pytest.mark.usefixtures("small_windows")
def test_blocks_are_asked_for_one_at_a_time(speech_model: Model) -> None:
    """The cheap half of the test above: output begins long before the input ends."""
    file = io.BytesIO()
    sizes = []

    def blocks() -> Iterator[NDArray[np.float32]]:
        for _ in range(40):
            sizes.append(file.tell())
            yield tones(FRAMES * 96)

    coding.compress_speech(blocks(), 16000, 1, file, speech_model, SIZE)
    assert sizes[5] > sizes[0]
    assert sizes[-1] > 0.9 * file.tell()


@pytest.mark.usefixtures("small_windows")
def test_whoever_listens_gets_each_chunk_at_once(speech_model: Model) -> None:
    """However much the file in between would hold back."""
    pipe = io.BytesIO()
    file = io.BufferedWriter(cast(Any, pipe), 1 << 20)
    sizes = []

    def blocks() -> Iterator[NDArray[np.float32]]:
        for _ in range(20):
            sizes.append(len(pipe.getvalue()))
            yield tones(FRAMES * 96)

    coding.compress_speech(blocks(), 16000, 1, file, speech_model, SIZE)
    assert 0 < sizes[5] < sizes[10] < sizes[-1]


@pytest.mark.parametrize(
    ("width", "rows"), [(1, 64), (4096, 64), (8192, 32), (16384, 16), (131072, 8)]
)
def test_chunks_of_wide_pictures_have_fewer_rows(width: int, rows: int) -> None:
    assert pictures.rows_per_chunk(width, 8) == rows


# --------------------------------------------------------------------------------------------------
# effort


def test_an_effort_gives_nearness_for_bits(speech_model: Model, image_model: Model) -> None:
    """Fewer bytes the higher it is, indices whose codes are farther, and a file that any reader
    decodes.
    """
    samples, pixels = tones(96 * 700), gradient(120, 160)
    for model in (speech_model, image_model):
        sizes, errors = [], []
        for level in (0, 3, 9):
            file = io.BytesIO()
            if model is speech_model:
                coding.compress_speech([samples], 16000, 1, file, model, SIZE, level)
                x = torch.from_numpy(samples.T.copy())[:, None]
            else:
                coding.compress_image(pixels, file, model, SIZE, level)
                x = torch.from_numpy(pixels.copy()).movedim(-1, 0)[None].float() / 255
            _, indices, _ = unpack(file.getvalue(), model.tables[SIZE])
            z = model.codec.encoder(model.codec.pad(x))
            target = model.codec.bottleneck.target(z)
            assert target is not None
            grid = torch.from_numpy(indices).reshape(1, 1, *z.shape[2:])
            errors.append(
                float((model.codec.bottleneck.decode(grid, SIZE) - target).square().mean())
            )
            sizes.append(len(file.getvalue()))
        assert sizes[0] > sizes[2]
        assert errors[0] < min(errors[1:])


@pytest.mark.parametrize(("medium", "shape"), [("speech", (40,)), ("image", (5, 8))])
def test_an_effort_weighs_the_sixteen_nearest_codes_by_its_formula(
    medium: str,
    shape: tuple[int, ...],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Options in the order of nearness, and 256 squares in units of lambda: 2 ln 2 / D times the
    mean distortion, at an effort of 16.
    """
    seen: dict[str, NDArray[np.int64]] = {}

    def spy(
        options: NDArray[np.int64], penalties: NDArray[np.int64], *_: object
    ) -> NDArray[np.int64]:
        seen.update(options=options, penalties=penalties)
        return options[:, 0]

    monkeypatch.setattr(effort, "choose", spy)
    model: Model = request.getfixturevalue(f"{medium}_model")
    bottleneck = model.codec.bottleneck
    torch.manual_seed(0)
    z = torch.randn(1, bottleneck.in_dim, *shape)
    with torch.inference_mode():
        effort.Chooser(model, SIZE, 4, shape[-1])(z)
        target = bottleneck.target(z)
        assert target is not None
        codes = bottleneck.decode(torch.arange(bottleneck.num_codes(SIZE))[None, None], SIZE)[0].T
    squares = (target[0].flatten(1).T[:, None] - codes).double().square().sum(-1)
    nearest = squares.sort(1).values[:, :16]
    assert torch.allclose(squares.gather(1, torch.from_numpy(seen["options"])), nearest, rtol=1e-4)
    price = 2 * np.log(2) / codes.shape[1] * 4 / 16 * float(nearest[:, 0].mean())
    assert np.allclose(seen["penalties"], 256 * nearest.numpy() / price, rtol=1e-3, atol=1)


def test_an_effort_without_a_prior_is_a_model_error(speech_model: Model) -> None:
    bare = dataclasses.replace(speech_model, tables={})
    with pytest.raises(ModelError, match="leave --effort out"):
        coding.compress_speech([tones(2000)], 16000, 1, io.BytesIO(), bare, SIZE, 3)
