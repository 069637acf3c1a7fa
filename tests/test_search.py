"""Analysis by synthesis: what the encoder's search finds, and that it changes nothing else."""

from __future__ import annotations

import io
import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

import codec
from codec import cards, coding
from codec.bottlenecks import BOTTLENECKS
from codec.coding import Model, tiles
from codec.coding import search as searching
from codec.coding.search import Search
from codec.coding.tiles import CONTEXT, TILE, searched_rows
from codec.container import Reader
from codec.media import Picture
from codec.model import CodecConfig, build
from tests.conftest import NETS, gradient, picture, tiny_codec, tones

SIZE = 1024
STEPS = 20


def photograph(height: int = 96, width: int = 96) -> NDArray[np.uint8]:
    """Part of a photograph that a package brings."""
    return np.ascontiguousarray(data.astronaut()[40 : 40 + height, 160 : 160 + width])


def coded(signal: NDArray[Any], model: Model, search: int = 0, **options: Any) -> bytes:
    """A picture (H, W, 3) or samples (n, 1) at 16 kHz, as the bytes of a file."""
    file = io.BytesIO()
    if model.card.medium == "image":
        coding.compress_image(signal, file, model, SIZE, search=search, **options)
    else:
        coding.compress_speech([signal], 16000, 1, file, model, SIZE, search=search, **options)
    return file.getvalue()


def squared_error(pixels: NDArray[np.uint8], file: bytes, model: Model) -> float:
    decoded = coding.decompress_image(Reader(io.BytesIO(file)), model)
    return float(((pixels.astype(float) - decoded) ** 2).mean())


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255


# what it finds


def test_a_picture_comes_back_nearer() -> None:
    model, pixels = codec.load("image-vp"), photograph()
    without, searched = (squared_error(pixels, coded(pixels, model, n), model) for n in (0, STEPS))
    assert searched < 0.95 * without


def test_speech_comes_back_nearer(real: Any) -> None:
    import soundfile
    from pystoi import stoi

    samples = soundfile.read(io.BytesIO(real("speech-test.tar", 3)), dtype="float32")[0][:48_000]
    model, found = codec.load("speech-vp"), []
    for steps in (0, 10):
        file = coded(samples[:, None], model, steps)
        blocks = list(coding.decompress_speech(Reader(io.BytesIO(file)), model))
        found.append(stoi(samples, np.concatenate(blocks)[:, 0], 16_000))
    assert found[1] > found[0] + 0.002


def test_steps_that_lead_away_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of both tests above: uphill nothing is found, and the encoder's latents stay."""
    monkeypatch.setattr(searching, "STEP", -5.0)
    model, pixels = codec.load("image-vp"), photograph(64, 64)
    assert coded(pixels, model, 3) == coded(pixels, model)


def test_whoever_waits_sees_the_rows_pass() -> None:
    model, pixels = codec.load("image-vp"), photograph(300, 40)
    stride, rows, asked = model.codec.stride, [0.0], []

    def watch(blocks: Any, rate: float, unit: str = "", total: float | None = None) -> Any:
        asked.append((unit, total))
        for block in blocks:
            yield block
            rows.append(rows[-1] + len(block) / rate)

    assert coded(pixels, model, 1, watch=watch) == coded(pixels, model, 1)
    assert asked == [(" rows", 300)]
    assert 300 <= rows[-1] < 300 + stride
    assert len(rows) > 2  # not all of them at the end


@pytest.mark.parametrize("name", sorted(BOTTLENECKS))
def test_every_bottleneck_is_searched(name: str) -> None:
    torch.manual_seed(0)
    nets = build(CodecConfig("image", NETS["image"], name)).eval()
    bottleneck = nets.bottleneck
    bottleneck.fit(torch.randn(4000, bottleneck.in_dim))  # those that learn theirs ignore it
    card = SimpleNamespace(medium="image")
    model = cast(Model, SimpleNamespace(codec=nets, card=card, device=torch.device("cpu")))
    x, size = to_tensor(photograph(32, 32)), bottleneck.default_size
    search = Search(model, size, 40)
    with torch.inference_mode():
        z = nets.latents(x)
        near = search(x, z)
    assert near.shape == z.shape
    assert near.isfinite().all()

    def loss(latents: Tensor) -> float:
        with torch.no_grad():
            x_hat = nets.decoder(bottleneck(latents, size).z_q, size)
            terms = search._loss(x, x_hat)
            return float(sum(search._aim.weights[key] * term for key, term in terms.items()))

    assert loss(near) < loss(z) * 0.999


@pytest.mark.parametrize("medium", searching.AIMS)
def test_the_aim_is_what_shipped_models_were_trained_on_but_for_lpips(medium: str) -> None:
    """And but for what a bottleneck adds of its own."""
    models = [card for card in cards.list_cards() if card.medium == medium]
    assert models
    for card in models:
        own = set(BOTTLENECKS[card.config["bottleneck"]].loss_names)
        losses = card.data["training"]["recipe"]["losses"]
        expected = {name: losses[name] for name in losses.keys() - own - {"lpips"}}
        assert searching.AIMS[medium].weights == expected, card.name


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_search_decodes_once_more_than_it_steps(steps: int) -> None:
    nets, calls = tiny_codec("image"), []
    card = SimpleNamespace(medium="image")
    model = cast(Model, SimpleNamespace(codec=nets, card=card, device=torch.device("cpu")))
    x = to_tensor(photograph(32, 32))
    with torch.no_grad():
        z = nets.latents(x)
    nets.decoder.register_forward_hook(lambda *_: calls.append(1))
    Search(model, SIZE, steps)(x, z)
    assert len(calls) == (steps + 1 if steps else 0)


@pytest.mark.parametrize("spoilt", ["gradient", "answer"])
def test_a_decoder_that_breaks_down_ends_the_search(spoilt: str) -> None:
    nets = tiny_codec("image")
    model = cast(
        Model,
        SimpleNamespace(
            codec=nets, card=SimpleNamespace(medium="image"), device=torch.device("cpu")
        ),
    )

    def broken(_: torch.nn.Module, __: Any, x_hat: Tensor) -> Tensor:
        # The root of 0 has a gradient that is not finite; 0 / 0 is no answer.
        return x_hat + 0 * (x_hat - x_hat).sqrt() if spoilt == "gradient" else x_hat / 0

    nets.decoder.register_forward_hook(broken)
    x = to_tensor(photograph(32, 32))
    with torch.no_grad():
        z = nets.latents(x)
    torch.testing.assert_close(Search(model, SIZE, 3)(x, z), z, rtol=0, atol=0)


# that it changes nothing else


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("medium", ["image", "speech"])
def test_a_search_under_another_default_dtype(medium: str, dtype: torch.dtype) -> None:
    model = codec.load(f"{medium}-fsp")  # its losses are made in the search
    signal = photograph() if medium == "image" else tones(8000)
    expected = coded(signal, codec.load(f"{medium}-fsp"), 8)
    torch.set_default_dtype(dtype)
    try:
        found = coded(signal, model, 8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected
    assert found != coded(signal, model)


@pytest.mark.parametrize("inside", ["load", "search", "both"])
def test_a_search_of_a_model_that_was_loaded_for_inference(inside: str) -> None:
    expected = coded(photograph(), codec.load("image-fsp"), 2)
    with torch.inference_mode(inside != "search"):
        model = codec.load("image-fsp")
    with torch.inference_mode(inside != "load"):
        assert coded(photograph(), model, 2) == expected


def test_no_steps_are_no_search(image_model: Model, speech_model: Model) -> None:
    for model, signal in ((image_model, gradient(40, 56)), (speech_model, tones(9000))):
        size = {"codebook_size": SIZE}
        file = io.BytesIO()
        if model.card.medium == "image":
            coding.compress_image(signal, file, model, **size)
        else:
            coding.compress_speech([signal], 16000, 1, file, model, **size)
        assert coded(signal, model) == file.getvalue()


def test_twice_the_same_bytes(image_model: Model, speech_model: Model) -> None:
    for model, signal in ((image_model, gradient(40, 56)), (speech_model, tones(9000))):
        once = coded(signal, model, STEPS)
        assert once == coded(signal, model, STEPS) != coded(signal, model)


def test_blocks_and_strips_do_not_matter(
    image_model: Model, speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, whole = tones(9000), io.BytesIO()
    blocks = [samples[:100], samples[100:5000], samples[5000:]]
    coding.compress_speech(blocks, 16000, 1, whole, speech_model, SIZE, search=2)
    assert whole.getvalue() == coded(samples, speech_model, 2)

    pixels = gradient(200, 40)
    monkeypatch.setattr("codec.media.pictures.STRIP_PIXELS", 7 * 40)
    in_strips = Picture(io.BytesIO(picture(pixels)))
    assert [len(strip) for strip in in_strips.strips()][:2] == [7, 7]
    parts = io.BytesIO()
    coding.compress_image(in_strips, parts, image_model, SIZE, search=2)
    assert parts.getvalue() == coded(pixels, image_model, 2)


@pytest.mark.parametrize("shape", [(1, 1), (3, TILE + 1), (90, 2), (2 * TILE, 40)])
def test_tiles_are_cut_and_joined_in_place(
    shape: tuple[int, int], image_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that gives the mean of what lies at each latent: nothing is shifted or lost."""
    nets, stride, (height, width) = image_model.codec, 8, shape
    pixels = torch.rand(height * stride, width * stride, 3)
    seen: list[int] = []

    def means(x: Tensor, z: Tensor) -> Tensor:
        seen.append(max(z.shape[2:]))
        assert tuple(x.shape[2:]) == (stride * z.shape[2], stride * z.shape[3])
        return torch.nn.functional.avg_pool2d(x, stride)

    expected = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 0)[None], stride)[0]
    for context in (CONTEXT, 0):
        monkeypatch.setattr(tiles, "CONTEXT", context)
        found = list(searched_rows(cast(Search, means), nets, pixels.split(3 * stride)))
        torch.testing.assert_close(torch.cat(found).movedim(-1, 0), expected)
        # What lies around is seen, where there is something, and no more than that.
        assert max(seen) <= TILE + 2 * context
        assert (max(seen) > TILE) == (context > 0 and max(shape) > TILE)
        seen.clear()


@pytest.mark.parametrize("length", [1, 95, 1000, 1057])
def test_signals_too_short_for_the_losses(
    length: int, speech_model: Model, image_model: Model
) -> None:
    file = coded(tones(length), speech_model, 2)
    assert (
        len(np.concatenate(list(coding.decompress_speech(Reader(io.BytesIO(file)), speech_model))))
        == length
    )
    side = max(length // 60, 1)
    pixels = gradient(side, 17)
    file = coded(pixels, image_model, 2)
    assert coding.decompress_image(Reader(io.BytesIO(file)), image_model).shape == pixels.shape


def test_the_caller_s_modes_and_gradients_stay(image_model: Model) -> None:
    pixels = gradient(32, 32)
    expected = coded(pixels, image_model, STEPS)
    with torch.no_grad():
        assert coded(pixels, image_model, STEPS) == expected
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert coded(pixels, image_model, STEPS) == expected
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert all(parameter.grad is None for parameter in image_model.codec.parameters())


def test_threads_share_a_model(image_model: Model) -> None:
    pictures = [gradient(32, 32), photograph(40, 32)]
    expected = [coded(pixels, image_model, 2) for pixels in pictures]
    found: list[bytes] = [b"", b""]

    def run(i: int) -> None:
        found[i] = coded(pictures[i], image_model, 2)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_it_goes_with_layers_effort_and_silence(image_model: Model, speech_model: Model) -> None:
    pixels = gradient(40, 40)
    layered = coded(pixels, image_model, 2, layers=True)
    smaller = codec.truncate(layered, 256)
    for file in (layered, smaller, coded(pixels, image_model, 2, effort=4)):
        assert coding.decompress_image(Reader(io.BytesIO(file)), image_model).shape == pixels.shape
    silence = np.zeros((5000, 1), np.float32)
    assert len(coded(silence, speech_model, 2)) > 0


@pytest.mark.parametrize("steps", [-1, 1001, 2.5, "3", None, True])
def test_a_search_that_there_is_not(steps: Any) -> None:
    with pytest.raises(ValueError, match="search is a whole number"):
        codec.compress(picture(gradient(16, 16)), search=steps)
