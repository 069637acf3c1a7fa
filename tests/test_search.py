"""Analysis by synthesis: what the encoder's search finds, and that it changes nothing else."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
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
from codec.bottlenecks import BOTTLENECKS, FSQ, VQ
from codec.coding import Model, tiles
from codec.coding import search as searching
from codec.coding.near import CodeVectors
from codec.coding.search import Search
from codec.coding.tiles import CONTEXT, TILE, searched_rows
from codec.container import Reader
from codec.entropy import mixing
from codec.errors import ModelError
from codec.media import Picture
from codec.model import Codec, CodecConfig, build
from tests.conftest import NETS, gradient, picture, tiny_codec, tones

SIZE = 1024
STEPS = 20


def photograph(height: int = 96, width: int = 96) -> NDArray[np.uint8]:
    """Part of a photograph that a package brings."""
    return np.ascontiguousarray(data.astronaut()[40 : 40 + height, 160 : 160 + width])


def coded(signal: NDArray[Any], model: Model, search: int = 0, **options: Any) -> bytes:
    """A picture (H, W, 3) or samples (n, C) at 16 kHz, as the bytes of a file."""
    file = io.BytesIO()
    if model.card.medium == "image":
        coding.compress_image(signal, file, model, SIZE, search=search, **options)
    else:
        coding.compress_speech(
            [signal], 16000, signal.shape[1], file, model, SIZE, search=search, **options
        )
    return file.getvalue()


def squared_error(pixels: NDArray[np.uint8], file: bytes, model: Model) -> float:
    decoded = coding.decompress_image(Reader(io.BytesIO(file)), model)
    return float(((pixels.astype(float) - decoded) ** 2).mean())


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0)[None].float() / 255


def without_tables(nets: Codec) -> Model:
    card = SimpleNamespace(medium="image", name="mine")
    return cast(
        Model, SimpleNamespace(codec=nets, card=card, device=torch.device("cpu"), tables={})
    )


# what it finds


@pytest.mark.parametrize("method", ["fsp", "gmvq", "vp"])
def test_a_picture_comes_back_nearer_with_hardly_more_bytes(method: str) -> None:
    model, pixels = codec.load(f"image-{method}"), photograph(192, 192)
    files = [coded(pixels, model, steps) for steps in (0, 10)]
    without, searched = (squared_error(pixels, file, model) for file in files)
    assert searched < 0.88 * without
    assert len(files[1]) < 1.04 * len(files[0])


def test_an_effort_spends_less_and_no_bits_counted_spends_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, pixels = codec.load("image-gmvq"), photograph(192, 192)
    files = [coded(pixels, model, 5, effort=effort) for effort in (0, 4, 9)]
    assert len(files[0]) > 1.03 * len(files[1]) > 1.03 * len(files[2])
    errors = [squared_error(pixels, file, model) for file in files]
    assert errors == sorted(errors)
    aim = replace(searching.AIMS["image"], bit=0.0)
    monkeypatch.setitem(searching.AIMS, "image", aim)
    assert len(coded(pixels, model, 5)) > 1.03 * len(files[0])


def test_an_effort_needs_a_prior(image_model: Model) -> None:
    blind = replace(image_model, tables={})
    assert coded(gradient(32, 32), blind, 1)
    with pytest.raises(ModelError, match="cannot choose among codes; leave --effort out"):
        coded(gradient(32, 32), blind, 1, effort=1)


def test_speech_comes_back_nearer(real: Any) -> None:
    import soundfile
    from pystoi import stoi

    samples = soundfile.read(io.BytesIO(real("speech-test.tar", 3)), dtype="float32")[0][:48_000]
    model, found = codec.load("speech-vp"), []
    for steps in (0, 10):
        file = coded(samples[:, None], model, steps)
        blocks = list(coding.decompress_speech(Reader(io.BytesIO(file)), model))
        found.append(stoi(samples, np.concatenate(blocks)[:, 0], 16_000))
    assert found[1] > found[0] + 0.01


def test_steps_that_lead_away_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above: uphill nothing is found, and the encoder's codes stay."""
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
    model, x, size = without_tables(nets), to_tensor(photograph(32, 32)), bottleneck.default_size
    search = Search(model, size, 40)
    with torch.inference_mode():
        z = nets.latents(x)
        found, encoded = search(x, z), bottleneck.encode(z, size)
    assert found.shape == encoded.shape
    assert found.dtype == torch.int64

    def loss(indices: Tensor) -> float:
        with torch.no_grad():
            x_hat = nets.decoder(bottleneck.decode(indices, size), size)
            terms = search._loss(x, x_hat)
            return float(sum(search._aim.weights[key] * term for key, term in terms.items()))

    assert loss(found) < loss(encoded) * 0.999


@pytest.mark.parametrize("name", sorted(BOTTLENECKS))
def test_codes_are_vectors_that_add_up(name: str) -> None:
    torch.manual_seed(0)
    bottleneck = build(CodecConfig("image", NETS["image"], name)).eval().bottleneck
    bottleneck.fit(torch.randn(4000, bottleneck.in_dim))
    size = bottleneck.default_size
    vectors = CodeVectors(bottleneck, size, torch.device("cpu"))
    z = torch.randn(2, bottleneck.in_dim, 5, 3)
    indices = bottleneck.encode(z, size)
    z_q = bottleneck.decode(indices, size)
    torch.testing.assert_close(vectors[indices].sum(1).movedim(-1, 1), z_q)
    others = (indices + 1) % bottleneck.num_codes(size)
    assert not torch.allclose(vectors[others].sum(1).movedim(-1, 1), z_q)

    codes, squares = vectors.near(z, 4)
    assert codes.shape == squares.shape == (2, bottleneck.num_codebooks, 4, 5, 3)
    assert (squares.diff(dim=2) >= 0).all()
    # The first of the codebooks' near codes, one at a time in the place of the encoder's.
    z_before = bottleneck.unquantised(z, size)
    for book in range(bottleneck.num_codebooks):
        for rank in range(4):
            changed = indices.clone()
            changed[:, book] = codes[:, book, rank]
            distance = (bottleneck.decode(changed, size) - z_before).square().sum(1)
            torch.testing.assert_close(squares[:, book, rank], distance, rtol=1e-3, atol=1e-4)
    if bottleneck.target(z) is not None:
        assert torch.equal(codes[:, :, 0], indices)
        torch.testing.assert_close(bottleneck.target(z), z_before)
    if name == "residual":  # of stages that take latents as they are
        torch.testing.assert_close(z_before, z)
        assert torch.equal(codes[:, -1, 0], indices[:, -1])


class Product(VQ):
    """Two indices whose codes are multiplied, and so do not add up."""

    num_codebooks = 2

    def _encode(self, z: Tensor, size: int) -> Tensor:
        return super()._encode(z, size).repeat(1, 2, 1, 1)

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        first, second = (super(Product, self)._decode(part, size) for part in indices.split(1, 1))
        return first * second


def test_it_is_never_worse_whatever_the_codes_make_together() -> None:
    for seed in range(8):
        torch.manual_seed(seed)
        nets = build(CodecConfig("image", NETS["image"], "vp")).eval()
        nets.bottleneck = bottleneck = Product(5, (16,)).eval()
        search = Search(without_tables(nets), 16, 8)
        x, z = to_tensor(photograph(32, 32)), torch.randn(1, 5, 4, 4)
        with torch.no_grad():
            losses = [
                sum(search._aim.weights[name] * float(term) for name, term in terms.items())
                for terms in (
                    search._loss(x, nets.decoder(bottleneck.decode(indices, 16), 16))
                    for indices in (search(x, z), bottleneck.encode(z, 16))
                )
            ]
        assert losses[0] <= losses[1]


def test_it_is_never_worse_by_losses_and_bits() -> None:
    model, size = codec.load("image-gmvq"), 256
    x, prior, won = to_tensor(photograph(64, 64)), model.tables[size].prior, 0
    assert prior is not None
    with torch.no_grad():
        z = model.codec.latents(x)
        encoded = model.codec.bottleneck.encode(z, size)

    def cost(indices: Tensor, effort: int) -> float:
        with torch.no_grad():
            terms = search._loss(x, model.codec.decode(indices, (64, 64), size))
        bits = 8 * len(mixing.encode(indices.flatten().numpy(), prior, 8, 10**6) or b"")
        aim = searching.AIMS["image"]
        loss = sum(aim.weights[name] * float(terms[name]) for name in terms)
        return loss + aim.bit * (1 + effort / 2) * bits / indices.numel()

    for steps, effort in ((1, 0), (2, 0), (3, 0), (1, 9), (2, 9), (3, 9), (10, 9)):
        search = Search(model, size, steps, effort)
        found, least = cost(search(x, z), effort), cost(encoded, effort)
        assert found <= least + 0.001
        won += found < least - 0.001
    assert won >= 5


def test_bits_are_those_among_the_codes_that_are_best_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, asked, bits = (
        codec.load("image-gmvq"),
        to_tensor(photograph(64, 64)),
        [],
        Search._bits,
    )

    def spied(search: Search, codes: Tensor) -> Tensor:
        asked.append(codes)
        return bits(search, codes)

    monkeypatch.setattr(Search, "_bits", spied)
    with torch.no_grad():
        z = model.codec.latents(x)
    Search(model, 256, 10)(x, z)
    first, last, found = asked[0], asked[9], asked[10]
    assert torch.equal(first[:, :, 0], first[:, :, 1])  # the nearest
    assert (
        (last[:, :, :1] == found).float().mean() > 0.75 > (first[:, :, :1] == found).float().mean()
    )


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
def test_a_search_decodes_twice_more_than_it_steps(steps: int) -> None:
    nets, calls = tiny_codec("image"), []
    model, x = without_tables(nets), to_tensor(photograph(32, 32))
    with torch.no_grad():
        z = nets.latents(x)
    nets.decoder.register_forward_hook(lambda *_: calls.append(1))
    Search(model, SIZE, steps)(x, z)
    assert len(calls) == (steps + 2 if steps else 0)


@pytest.mark.parametrize("spoilt", ["gradient", "answer"])
def test_a_decoder_that_breaks_down_ends_the_search(spoilt: str) -> None:
    nets = tiny_codec("image")
    model = without_tables(nets)

    def broken(_: torch.nn.Module, __: Any, x_hat: Tensor) -> Tensor:
        # The root of 0 has a gradient that is not finite; 0 / 0 is no answer.
        return x_hat + 0 * (x_hat - x_hat).sqrt() if spoilt == "gradient" else x_hat / 0

    nets.decoder.register_forward_hook(broken)
    x = to_tensor(photograph(32, 32))
    with torch.no_grad():
        z = nets.latents(x)
    assert torch.equal(Search(model, SIZE, 3)(x, z), nets.bottleneck.encode(z, SIZE))


def test_what_was_found_before_the_decoder_breaks_down_stays() -> None:
    nets, calls = tiny_codec("image"), []
    x = to_tensor(photograph(32, 32))

    def broken(_: torch.nn.Module, __: Any, x_hat: Tensor) -> Tensor:
        calls.append(1)
        return x_hat + 0 * (x_hat - x_hat).sqrt() if len(calls) == 31 else x_hat

    nets.decoder.register_forward_hook(broken)
    with torch.no_grad():
        z = nets.latents(x)
    found = Search(without_tables(nets), SIZE, 40)(x, z)
    assert len(calls) == 31 + 2
    assert not torch.equal(found, nets.bottleneck.encode(z, SIZE))


def test_the_distances_that_are_held_do_not_grow_with_the_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size, held, distances = 1 << 18, [0], torch.cdist

    def counted(*points: Tensor) -> Tensor:
        found = distances(*points)
        held.append(found.numel())
        return found

    bottleneck = FSQ({size: (8,) * 6}).eval()
    monkeypatch.setattr(torch, "cdist", counted)
    z = torch.randn(1, 6, 4, 8)
    codes, _ = CodeVectors(bottleneck, size, z.device).near(z, 4)
    assert max(held) <= 1 << 22
    assert (codes == bottleneck.encode(z, size)[:, :, None]).any(2).all()


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


@pytest.mark.parametrize("options", [{}, {"effort": 4}])
@pytest.mark.parametrize("steps", [0, 2])
def test_another_default_device(image_model: Model, steps: int, options: dict[str, int]) -> None:
    expected = coded(gradient(32, 32), image_model, steps, **options)
    with torch.device("meta"):
        assert coded(gradient(32, 32), image_model, steps, **options) == expected


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


def test_windows_are_cut_and_joined_in_place(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that finds what the encoder chooses: nothing is shifted, lost or there twice."""
    monkeypatch.setattr("codec.coding.speech.FRAMES_PER_WINDOW", 20)
    samples, bottleneck = tones(9000), speech_model.codec.bottleneck
    expected = coded(samples, speech_model)
    monkeypatch.setattr(Search, "__call__", lambda self, _, z: bottleneck.encode(z, self._size))
    assert coded(samples, speech_model, 2) == expected


@pytest.mark.parametrize("shape", [(1, 1), (3, TILE + 1), (90, 2), (2 * TILE, 40)])
def test_tiles_are_cut_and_joined_in_place(
    shape: tuple[int, int], image_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that gives the mean of what lies at each position: nothing is shifted or lost."""
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


def test_an_effort_also_counts_for_what_is_too_short_for_the_losses() -> None:
    strip, stereo = photograph(8, 300), tones(1000, channels=2)
    for name, signal in (("image-fsp", strip), ("speech-vp", stereo)):
        model = codec.load(name)
        alone = coded(signal, model, effort=9)
        assert len(alone) < len(coded(signal, model))
        assert coded(signal, model, 2, effort=9) == alone
    for name, signal in (("image-gmvq", strip), ("speech-gmvq", stereo)):
        model = codec.load(name)  # which has no effort without a search
        assert coded(signal, model, 2, effort=9) == coded(signal, model)


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
