"""Equal bytes whatever stands around: autocast, default dtype, switches of products, inference
mode, other threads.
"""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from conftest import NETS, gradient, picture, tiny_codec, tones, wav
from test_contract import REDUCED, SURROUNDINGS

import codec
from codec import cards, coding
from codec.bottlenecks import BOTTLENECKS
from codec.bottlenecks.fsp import ACTIVATIONS
from codec.coding import Model
from codec.model import CodecConfig, build
from codec.precision import exact_float32, exactly

CPU = torch.device("cpu")
MEDIA = {"speech": wav(tones(30_000, 22_050), 22_050), "image": picture(gradient(70, 90))}


def there_and_back(medium: str, model: Model, effort: int = 0) -> tuple[bytes, bytes]:
    data = codec.compress(MEDIA[medium], 1024, model, effort=effort)
    return data, codec.decompress(data, model)


@pytest.fixture(params=sorted(MEDIA))
def medium(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(medium: str, speech_model: Model, image_model: Model) -> Model:
    return speech_model if medium == "speech" else image_model


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_change_no_byte(medium: str, model: Model, name: str) -> None:
    """Of a model loaded outside and of one loaded inside, which then serves outside."""
    expected = [there_and_back(medium, model, effort) for effort in (0, 4)]
    with SURROUNDINGS[name]():
        assert [there_and_back(medium, model, effort) for effort in (0, 4)] == expected
        loaded = coding.load(model.card)
        assert there_and_back(medium, loaded) == expected[0]
    assert there_and_back(medium, loaded) == expected[0]
    assert all(
        value.dtype in (torch.float32, torch.int64) for value in loaded.codec.state_dict().values()
    )


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_shipped_models_too(name: str) -> None:
    """Where the tiny nets' small products would go another way through the libraries."""
    for medium in MEDIA:
        shipped = coding.load(cards.find(medium=medium))
        expected = there_and_back(medium, shipped)
        with SURROUNDINGS[name]():
            assert there_and_back(medium, shipped) == expected


def test_tensors_too(medium: str, model: Model) -> None:
    """What `codec.load(...).codec` does with tensors."""
    x = torch.rand(2, *((1, 5000) if medium == "speech" else (3, 40, 50)))
    size = tuple(x.shape[2:])
    indices = model.codec.encode(x, 1024)
    x_hat = model.codec.decode(indices, size, 1024)
    for enter in SURROUNDINGS.values():
        with enter():
            found = model.codec.encode(x, 1024)
            assert torch.equal(found, indices)
            # With gradients linear layers go another way, in grad mode as outside.
            with torch.no_grad():
                same_mode = model.codec.decode(indices, size, 1024)
        assert same_mode.dtype == torch.float32
        assert torch.allclose(same_mode, x_hat, atol=1e-4)


def test_threads_with_other_surroundings_at_once(speech_model: Model, image_model: Model) -> None:
    """Each in its own autocast or inference mode; the process turns the switches of products."""
    models = {"speech": speech_model, "image": image_model}
    expected = {medium: there_and_back(medium, model) for medium, model in models.items()}
    start = threading.Barrier(4)

    def work(number: int) -> bool:
        medium = sorted(MEDIA)[number % 2]
        start.wait()
        with (SURROUNDINGS["autocast"], SURROUNDINGS["inference mode"])[number // 2]():
            return all(there_and_back(medium, models[medium]) == expected[medium] for _ in range(3))

    with SURROUNDINGS["reduced products"](), ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_the_switches_are_held_while_any_thread_needs_them() -> None:
    """The first to leave must not turn them back under the others, nor the last one leave them
    turned.
    """
    matmul: Any = torch.backends.mkldnn.matmul
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with exact_float32(CPU):
            inside.set()
            leave.wait()

    torch.set_float32_matmul_precision("medium")
    try:
        before = matmul.fp32_precision
        assert before == "bf16"
        with exact_float32(CPU):
            thread = threading.Thread(target=other)
            thread.start()
            inside.wait()
        assert matmul.fp32_precision == "ieee"
        leave.set()
        thread.join()
        assert matmul.fp32_precision == before
    finally:
        leave.set()
        torch.set_float32_matmul_precision("highest")


def test_a_general_switch_stays_in_charge() -> None:
    backends: Any = torch.backends
    before = backends.mkldnn.matmul.fp32_precision
    try:
        backends.mkldnn.matmul.fp32_precision = "none"
        backends.fp32_precision = "tf32"
        with exact_float32(CPU):
            assert backends.mkldnn.matmul.fp32_precision == "ieee"
        assert backends.mkldnn.matmul.fp32_precision == "tf32"
        backends.fp32_precision = "none"
        assert backends.mkldnn.matmul.fp32_precision == "none"
    finally:
        backends.fp32_precision = "none"
        backends.mkldnn.matmul.fp32_precision = before


def test_autocast_inside_is_turned_off_too() -> None:
    a = torch.randn(4, 4)
    with exact_float32(CPU), torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with exact_float32(CPU):
            assert (a @ a).dtype == torch.float32


def test_a_generator_is_exact_and_its_consumer_is_not() -> None:
    a = torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        for product in exactly((a @ a for _ in range(3)), CPU):
            assert product.dtype == torch.float32
            assert product.is_inference()
            assert (a @ a).dtype == torch.bfloat16
            assert not torch.is_inference_mode_enabled()


# -- whole codecs in lower precision: they stay float32, and a training step passes


@pytest.mark.parametrize("dtype", REDUCED, ids=str)
def test_a_codec_stays_float32_and_trains(medium: str, dtype: torch.dtype) -> None:
    net = tiny_codec(medium)
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(2, *((1, 5000) if medium == "speech" else (3, 40, 50)))
    indices = net.encode(x, 256)
    for convert in (net.to, net.type, net.encoder.to):
        convert(dtype)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert all(value.dtype == before[name].dtype for name, value in net.state_dict().items())
    assert torch.equal(net.encode(x.to(dtype).float(), 256), net.encode(x.to(dtype), 256))
    assert torch.equal(net.encode(x, 256), indices)
    net.load_state_dict(
        {k: v.to(dtype) if v.is_floating_point() else v for k, v in before.items()}, assign=True
    )
    assert all(value.dtype == before[name].dtype for name, value in net.state_dict().items())
    net.load_state_dict(before, assign=True)
    optimiser = torch.optim.SGD(net.train().parameters(), 0.01)
    out = net(x.to(dtype), 256)
    assert out.x_hat.dtype == torch.float32
    sum(out.bottleneck.losses.values(), out.x_hat.square().mean()).backward()
    optimiser.step()
    assert all(value.isfinite().all() for value in net.state_dict().values())
    with pytest.raises(ValueError, match="want floats"):
        net(x.to(torch.uint8))


def test_training_still_runs_nets_under_autocast(medium: str) -> None:
    """The guard is where files are made.

    A training step's products are bfloat16, the bottleneck's are not.
    """
    net = tiny_codec(medium).train()
    seen: list[torch.dtype] = []
    net.decoder.stem.register_forward_hook(
        lambda _, __, out: seen.append(out.dtype)
    ) if medium == "image" else (
        net.decoder.project.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    )
    with torch.autocast("cpu", torch.bfloat16):
        out = net(torch.rand(2, *((1, 960) if medium == "speech" else (3, 16, 16))), 256)
    assert seen == [torch.bfloat16]
    assert out.bottleneck.z_q.dtype == torch.float32


@pytest.mark.parametrize("dtype", REDUCED, ids=str)
@pytest.mark.parametrize("name", ["fsp", "vp", "gmvq", "gumbelvq", "simvq"])
def test_a_codec_built_under_another_default_dtype(
    medium: str, name: str, dtype: torch.dtype
) -> None:
    torch.set_default_dtype(dtype)
    try:
        net = build(CodecConfig(medium, NETS[medium], name)).train()
        x = torch.rand(2, *((1, 960) if medium == "speech" else (3, 16, 16)))
        out = net(x)
        sum(out.bottleneck.losses.values(), out.x_hat.square().mean()).backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert out.x_hat.dtype == torch.float32


def test_models_and_codecs_are_pickled(medium: str, model: Model) -> None:
    other = pickle.loads(pickle.dumps(model))
    assert there_and_back(medium, other) == there_and_back(medium, model)
    file = io.BytesIO()
    torch.save(model.codec, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert all(
        torch.equal(value, model.codec.state_dict()[name])
        for name, value in loaded.state_dict().items()
    )


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_is_pickled(activation: str) -> None:
    make: Callable[..., Any] = BOTTLENECKS["fsp"]
    method = pickle.loads(pickle.dumps(make(activation=activation))).eval()
    z = torch.randn(1, 5, 20)
    assert torch.equal(method.encode(z), make(activation=activation).encode(z))
