"""ONNX files in onnxruntime against PyTorch: the same indices and signals, of real media, in any
batch and size.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec import cards, coding, onnx
from codec.bottlenecks._search import _in_one_product, nearest
from codec.coding import Model
from codec.errors import MediaError, ModelError, not_installed
from codec.media import load_audio, load_image
from codec.nets.speech import STFT
from codec.onnx import PlainSTFT, main

PACKS = {"speech": "speech-test.tar", "image": "image-test-coco.tar"}
TOLERANCE = 1e-5  # of a signal in [-1, 1] or [0, 1]
NAMES = ("speech-vp", "speech-fsp", "image-gmvq")  # a search, none, and one with weights

Run = Callable[..., NDArray[Any]]


def session(path: Path) -> Run:
    """(output, **inputs) -> that output, nothing else computed; on one thread."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra [onnx]")
    options, only = runtime.SessionOptions(), runtime.RunOptions()
    options.intra_op_num_threads = 1
    only.only_execute_path_to_fetches = True
    graph = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(output: str, **inputs: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = graph.run([output], inputs, only)[0]
        return found

    return run


@pytest.fixture(scope="module", params=NAMES)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Run, Run]:
    pytest.importorskip("onnxscript", reason="onnxscript is in the extra [onnx]")
    folder = tmp_path_factory.mktemp("onnx")
    assert main([request.param, "--out", str(folder)]) == 0
    encoder, decoder = (
        session(folder / f"{request.param}.{name}.onnx") for name in ("encoder", "decoder")
    )
    return coding.load(cards.find(request.param)), encoder, decoder


def signals(model: Model, real: Callable[[str, int], bytes]) -> list[Tensor]:
    """Whole real media, (1, C, *N), padded; a batch of pieces; the shortest there is.

    And nothing but zeros.
    """
    pack, codec = PACKS[model.card.medium], model.codec
    if model.card.medium == "image":
        found = [
            torch.from_numpy(load_image(io.BytesIO(real(pack, n)))).movedim(-1, 0)[None] / 255
            for n in range(2)
        ]
        batch = torch.cat([x[..., :72, :120] for x in found])
    else:
        waves = [load_audio(io.BytesIO(real(pack, n)), 16000)[0].mean(1) for n in range(3)]
        found = [torch.from_numpy(np.ascontiguousarray(wave))[None, None] for wave in waves]
        batch = torch.cat([x[..., 4800:24000] for x in found])
    least = torch.full((1, codec.channels, *[codec.stride] * codec.axes), 0.25)
    return [codec.pad(x) for x in [*found, batch, least, torch.zeros_like(batch)]]


@pytest.mark.slow
def test_indices_are_equal_and_signals_within_the_tolerance(
    exported: tuple[Model, Run, Run], real: Callable[[str, int], bytes]
) -> None:
    model, encoder, decoder = exported
    codec, sizes = model.codec, model.codec.bottleneck.codebook_sizes
    for x in signals(model, real):
        for size in sizes:
            with torch.inference_mode():
                indices = codec.encode(x, size)
                x_hat = codec.decode(indices, tuple(x.shape[2:]), size)
            assert np.array_equal(encoder(f"indices_{size}", x=x.numpy()), indices.numpy())
            found = decoder("x_hat", indices=indices.numpy(), codebook_size=np.full(len(x), size))
            assert np.allclose(found, x_hat, atol=TOLERANCE)
    x = signals(model, real)[0]
    # Negative controls: another signal, another size.
    halved = encoder(f"indices_{size}", x=x.numpy() / 2)
    assert not np.array_equal(halved, codec.encode(x, size).numpy())
    if len(sizes) > 1:
        few = codec.encode(x, sizes[0]).numpy()
        one, other = (
            decoder("x_hat", indices=few, codebook_size=np.array([size])) for size in sizes[:2]
        )
        assert not np.allclose(one, other, atol=TOLERANCE)
        both = decoder(
            "x_hat", indices=np.concatenate([few, few]), codebook_size=np.array(sizes[:2])
        )
        assert np.allclose(both, np.concatenate([one, other]), atol=TOLERANCE)


@pytest.mark.parametrize("weighted", [False, True])
def test_one_product_in_float64_finds_the_nearest_and_one_in_float32_does_not(
    weighted: bool,
) -> None:
    torch.manual_seed(0)
    tokens, codebook = 100 + torch.randn(500, 6), 100 + torch.randn(300, 6)
    weights = torch.rand(500, 6) + 0.1 if weighted else None
    expected = nearest(tokens, codebook, weights)
    assert torch.equal(_in_one_product(tokens, codebook, weights), expected)
    scale = torch.ones_like(tokens) if weights is None else weights
    rounded = scale @ codebook.square().T - 2 * (scale * tokens) @ codebook.T
    assert not torch.equal(rounded.argmin(1), expected)


def test_convolutions_make_the_same_stft_and_its_inverse() -> None:
    stft = STFT(384, 96)
    plain = PlainSTFT(stft)
    for frames in (1, 2, 30):
        x = torch.randn(2, 96 * frames, generator=torch.Generator().manual_seed(0))
        spectrum = stft.analyse(x)
        for found, expected in zip(plain.analyse(x), spectrum, strict=True):
            assert torch.allclose(found, expected, atol=1e-4)
        noise = [torch.randn_like(part) for part in spectrum]  # which is the STFT of no signal
        assert torch.allclose(plain.synthesise(*noise), stft.synthesise(*noise), atol=1e-4)
        assert not torch.allclose(
            plain.synthesise(noise[0], -noise[1]), stft.synthesise(*noise), atol=1e-4
        )


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["speech-fsp", "--out", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err == f"error: {not_installed('onnxscript', 'onnx')}\n"
    assert not (tmp_path / "new").exists()


def test_what_is_there_is_kept_and_unknown_models_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "speech-fsp.encoder.onnx").write_text("mine")
    assert main(["speech-fsp", "--out", str(tmp_path)]) == 1
    assert (tmp_path / "speech-fsp.encoder.onnx").read_text() == "mine"
    assert main(["speech-nothing", "--out", str(tmp_path)]) == 3
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "--force" in errors[0]
    assert "speech-nothing" in errors[1]


class Program:
    """Stands in for what torch exports."""

    class model:  # noqa: N801
        graph = ()
        metadata_props: ClassVar[dict[str, str]] = {}

    class model_proto:  # noqa: N801
        @staticmethod
        def SerializeToString() -> bytes:  # noqa: N802
            return b"a graph"


def test_a_decoder_that_is_there_is_kept_and_no_encoder_is_put_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "_trace", lambda *_: Program)
    model = coding.load(cards.find("speech-fsp"))
    (tmp_path / "speech-fsp.decoder.onnx").write_text("mine")
    with pytest.raises(MediaError, match=r"decoder\.onnx exists"):
        onnx.export(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["speech-fsp.decoder.onnx"]
    onnx.export(model, tmp_path, force=True)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"a graph"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failure_in_the_second_graph_leaves_no_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace(graph: torch.nn.Module, *_: object) -> type[Program]:
        if isinstance(graph, onnx.Decoder):
            raise ModelError("no decoder")
        return Program

    monkeypatch.setattr(onnx, "_trace", trace)
    with pytest.raises(ModelError, match="no decoder"):
        onnx.export(coding.load(cards.find("speech-fsp")), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_on_a_gpu_is_exported_from_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed: the nets are only asked where they are to go."""
    moved: list[torch.nn.Module] = []
    traced: list[torch.nn.Module] = []

    def cpu(net: torch.nn.Module) -> torch.nn.Module:
        moved.append(net)
        return net

    def trace(graph: torch.nn.Module, *_: object) -> type[Program]:
        assert moved
        traced.append(graph)
        return Program

    model = coding.load(cards.find("speech-fsp"))
    monkeypatch.setattr(torch.nn.Module, "cpu", cpu)
    monkeypatch.setattr(onnx, "_trace", trace)
    onnx.export(model, tmp_path)
    assert len(traced) == 2
    assert model.codec not in moved  # the caller's stays where it is
