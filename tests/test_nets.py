"""Nets and the codec around them: exact transforms, any size in and out, the condition, the
presets' limits.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_codec

from codec.errors import ModelError
from codec.model import Codec, CodecConfig, build
from codec.nets.blocks import HIDDEN_AT_ONCE, ConvNeXt, SizeEmbedding, linear, run, stream
from codec.nets.image import ImageConfig
from codec.nets.kinds import NETS, default
from codec.nets.speech import STFT, SpeechConfig, reflect_index

TINY = {
    "speech": SpeechConfig(encoder_dim=16, encoder_depth=1, decoder_dim=16, decoder_depth=1),
    "image": ImageConfig((8, 8), (1, 1), (8, 8, 8), (1, 1, 1)),
}


def tiny(medium: str) -> Codec:
    torch.manual_seed(0)
    return build(CodecConfig(medium, TINY[medium], "fsp")).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("n_fft", "hop"), [(384, 96), (640, 160), (64, 32), (300, 75), (6, 1)])
def test_the_stft_gives_the_signal_back_to_its_very_edges(n_fft: int, hop: int) -> None:
    if n_fft % (2 * hop):
        with pytest.raises(ValueError, match="multiple"):
            STFT(n_fft, hop)
        return
    stft = STFT(n_fft, hop)
    x = torch.randn(2, 10 * hop, generator=torch.Generator().manual_seed(0))
    spectrum = stft.analyse(x)
    assert all(part.shape == (2, 10, n_fft // 2 + 1) for part in spectrum)
    assert torch.allclose(stft.synthesise(*spectrum), x, atol=1e-4)
    stft.margin -= 1  # negative control: a trim that is one sample off
    assert not torch.allclose(stft.synthesise(*spectrum), x, atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_reflection_of_any_length(length: int) -> None:
    index = reflect_index(length, 7, 9, torch.device("cpu"))
    walk = list(range(length)) + list(range(length - 2, 0, -1))  # 0 1 2 1 0 1 2 ...
    expected = [walk[i % len(walk)] for i in range(-7, length + 9)]
    assert index.tolist() == expected


@pytest.mark.parametrize("samples", [1, 95, 96, 97, 1000])
def test_any_length_of_speech(samples: int) -> None:
    codec, x = tiny("speech"), torch.randn(2, 1, samples)
    indices = codec.encode(x, 1024)
    assert indices.shape == (2, 1, -(-samples // 96))
    x_hat = codec.decode(indices, (samples,), 1024)
    assert x_hat.shape == x.shape
    assert torch.equal(x_hat, codec(x, 1024).x_hat)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (8, 8), (17, 31)])
def test_any_size_of_picture(size: tuple[int, int]) -> None:
    codec, x = tiny("image"), torch.rand(2, 3, *size)
    indices = codec.encode(x, 256)
    assert indices.shape == (2, 1, -(-size[0] // 8), -(-size[1] // 8))
    x_hat = codec.decode(indices, size, 256)
    assert x_hat.shape == x.shape
    assert torch.equal(x_hat, codec(x, 256).x_hat)


@pytest.mark.parametrize("preset", NETS["convnext-image"].presets)
def test_a_picture_in_strips_is_the_whole_and_needs_all_that_its_layers_reach(preset: str) -> None:
    """Strips of one latent row and of three.

    With a layer's reach cut by one row (negative control) the seams show.
    """
    torch.manual_seed(0)
    codec = build(CodecConfig("image", NETS["convnext-image"].presets[preset], "fsp")).eval()
    for module in codec.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    rows = 7
    with torch.inference_mode():
        cases = [
            (codec.encoder.layers(), torch.rand(8 * rows, 16, 3), 8),
            (codec.decoder.layers(1024, 1), torch.randn(rows, 2, codec.bottleneck.dim), 1),
        ]
        for layers, x, stride in cases:
            whole = run(layers, x[None])[0]
            for strip in (stride, 3 * stride):
                found = torch.cat(list(stream(layers, x.split(strip))))
                assert torch.allclose(found, whole, atol=1e-5, rtol=1e-5)
            for number, layer in enumerate(layers):
                if layer.reach:
                    short = [
                        *layers[:number],
                        dataclasses.replace(layer, reach=layer.reach - 1),
                        *layers[number + 1 :],
                    ]
                    found = torch.cat(list(stream(short, x.split(stride))))
                    assert not torch.allclose(found, whole, atol=1e-5, rtol=1e-5)
        sizes = NETS["convnext-image"].presets[preset]
        count = 1 + sum(sizes.encoder_depths) + 2 + sum(sizes.decoder_depths)
        assert sum(layer.reach > 0 for layers, _, _ in cases for layer in layers) == count
        assert list(stream(cases[0][0], [])) == []


@pytest.mark.parametrize("width", [24, 160, 256])
def test_one_pass_of_a_linear_layer_and_its_gelu_is_the_two_whatever_the_rows_and_threads(
    width: int,
) -> None:
    layer = torch.nn.Linear(width, 3 * width)
    x = torch.randn(1030, width, generator=torch.Generator().manual_seed(0))
    plain = F.gelu(layer(x))
    count = torch.get_num_threads()
    with torch.inference_mode():
        fused = linear(layer, x, gelu=True)
        assert torch.allclose(fused, plain, atol=1e-5)
        assert torch.allclose(linear(layer, x), layer(x), atol=1e-5)
        # Negative control.
        assert not torch.allclose(F.gelu(layer(x), approximate="tanh"), plain, atol=1e-5)
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                for rows in (2, 3, 31, 200, 1024):
                    assert torch.equal(linear(layer, x[:rows], gelu=True), fused[:rows])
        finally:
            torch.set_num_threads(count)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, HIDDEN_AT_ONCE // 24 + 3), (2, 41, 30)])
def test_a_block_without_gradients_is_the_block_and_leaves_its_input_alone(
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    block = ConvNeXt(8, (7, 7), 0.5, conditioned=True)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, condition = torch.randn(*shape, 8), torch.randn(shape[0], 64)
    before = x.clone()
    for rows in (slice(None), slice(1, 30)):
        expected = block(x, condition, rows)
        with torch.inference_mode():
            assert torch.allclose(block(x, condition, rows), expected, atol=1e-4)
            assert (
                not torch.allclose(block(x, -condition, rows), expected, atol=1e-4)
                or not expected.numel()
            )
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(1, 2, 100), (1, 1, 0), (1, 100)])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"B, 1, T"):
        tiny("speech").encode(torch.zeros(shape))


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_a_new_decoder_ignores_the_condition_and_a_trained_one_does_not(medium: str) -> None:
    codec = tiny(medium)
    z_q = torch.randn(1, 5, *((6,) if medium == "speech" else (2, 3)))
    assert torch.equal(codec.decoder(z_q, 256), codec.decoder(z_q, 16384))
    for name, parameter in codec.decoder.named_parameters():
        if "film" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert not torch.equal(codec.decoder(z_q, 256), codec.decoder(z_q, 16384))
    mixed = codec.decoder(z_q.repeat(2, *[1] * (z_q.dim() - 1)), torch.tensor([256, 16384]))
    assert torch.allclose(mixed[:1], codec.decoder(z_q, 256), atol=1e-5)
    assert torch.allclose(mixed[1:], codec.decoder(z_q, 16384), atol=1e-5)


def test_the_condition_spans_about_one_unit_to_either_side() -> None:
    embedding = SizeEmbedding()
    embedding.layer.weight.data.fill_(1.0)
    embedding.layer.bias.data.fill_(10.0)  # far up, gelu is the identity
    kappa = embedding(torch.tensor([256, 2048, 16384]), 3)[:, 0] - 10
    assert torch.allclose(kappa, torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4)


@pytest.mark.parametrize(
    ("medium", "preset", "millions"), [("speech", "small", 3.5), ("image", "small", 2.5)]
)
def test_presets_stay_within_their_size(medium: str, preset: str, millions: float) -> None:
    codec = build(CodecConfig(medium, NETS[default(medium)].presets[preset], "vp"))
    assert sum(p.numel() for p in codec.parameters()) <= millions * 1e6
    assert codec.token_rate_hz == (pytest.approx(166.67, abs=0.01) if medium == "speech" else None)


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_a_configuration_survives_json(medium: str) -> None:
    import json

    config = CodecConfig(
        medium, NETS[default(medium)].presets["tiny"], "fsp", {"levels": {16: (4, 4)}}
    )
    back = CodecConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert build(back).bottleneck.codebook_sizes == (16,)
    assert back.nets == config.nets
    with pytest.raises(ValueError, match=r"unknown bottleneck .*; or name the module .* --import"):
        build(CodecConfig(medium, NETS[default(medium)].presets["tiny"], "nothing"))


WRONG_SIZES = {
    "speech": [(), (481,), (384,), (-3,), (400.0,), (10, 10), "480"],
    "image": [(), (25, 24), (16, 24), (24,), (24, 24, 2), (-3, 24), (24.0, 24)],
}


@pytest.mark.parametrize(
    ("medium", "size"), [(medium, size) for medium, sizes in WRONG_SIZES.items() for size in sizes]
)
def test_a_signal_that_does_not_fill_the_grid_of_its_indices_is_refused(
    medium: str, size: tuple[int, ...]
) -> None:
    codec = tiny_codec(medium).eval()
    shape = {"speech": (5,), "image": (3, 3)}[medium]
    indices = torch.zeros(1, 1, *shape, dtype=torch.int64)
    fits = tuple(length * codec.stride - 1 for length in shape)
    assert codec.decode(indices, fits).shape[2:] == fits
    with pytest.raises(ValueError, match=r"want non-empty indices|a length of the signal"):
        codec.decode(indices, size)
    for wrong in (indices[..., None], indices[:0]):
        with pytest.raises(ValueError, match="want non-empty indices"):
            codec.decode(wrong, fits)


@pytest.mark.parametrize("net", ["encoder", "decoder"])
def test_nets_that_do_not_keep_their_stride_are_refused_at_once(net: str) -> None:
    """What they made could be trained, and its files not be decoded."""
    codec = tiny_codec("image").eval()
    x = torch.rand(1, 3, 32, 40)
    whole = getattr(codec, net)

    class Halved(torch.nn.Module):
        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            return whole(*given)[..., ::2]

    codec(x, 256)
    indices = codec.encode(x, 256)
    setattr(codec, net, Halved())
    for use in (lambda: codec(x, 256), lambda: codec.train()(x, 256)):
        with pytest.raises(ModelError, match=f"the {net} gives .*with a stride of 8 it must be"):
            use()
    with pytest.raises(ModelError, match=f"the {net} gives"):
        codec.eval().encode(x, 256) if net == "encoder" else codec.decode(indices, (32, 40), 256)


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_what_is_no_tensor_is_refused_with_advice(medium: str) -> None:
    """`codec.read_tokens` gives arrays, which `Codec.decode` is tempted with."""
    codec = tiny_codec(medium).eval()
    x = torch.zeros(1, *{"speech": (1, 480), "image": (3, 24, 24)}[medium])
    indices = codec.encode(x, 256)
    for make in (torch.Tensor.numpy, torch.Tensor.tolist, lambda _: None):
        for call in (codec.encode, codec.forward, codec.latents):
            with pytest.raises(TypeError, match=r"want a signal as a tensor, .*torch\.as_tensor"):
                call(make(x))
        with pytest.raises(TypeError, match=r"want indices as a tensor, .*torch\.as_tensor"):
            codec.decode(make(indices), tuple(x.shape[2:]), 256)


def test_one_length_may_stand_for_its_tuple() -> None:
    codec = tiny_codec("speech").eval()
    indices = codec.encode(torch.zeros(1, 1, 1000), 256)
    with torch.no_grad():
        assert torch.equal(codec.decode(indices, 1000, 256), codec.decode(indices, (1000,), 256))
    with pytest.raises((TypeError, ValueError), match="a length of the signal"):
        codec.decode(indices, None, 256)  # type: ignore[arg-type]
