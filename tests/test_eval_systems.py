"""One protocol for models, classic codecs and neighbours: a stub neighbour through real files, and
a whole run.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav
from numpy.typing import NDArray

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec import coding
from codec.errors import BitstreamError, MediaError, ModelError
from eval.__main__ import main
from eval.systems import (
    ModelSystem,
    Neighbour,
    NeighbourSystem,
    check_shape,
    load_neighbour,
    neighbour_hash,
)

Signal = NDArray[np.generic]


def stub(num_codes: int = 250, shift: int = 0) -> Neighbour:
    """Companded samples, two streams in turn: no network, but a codec."""

    def encode(signal: Signal) -> Signal:
        values = np.pad(signal[:, 0], (0, len(signal) % 2))
        return (
            (np.round((values + 1) / 2 * (num_codes - 1)).astype(np.int64) + shift).reshape(-1, 2).T
        )

    def decode(tokens: NDArray[np.int64], length: int) -> Signal:  # noqa: ARG001
        return tokens.T.ravel() / (num_codes - 1) * 2 - 1

    return Neighbour("stub", "8 bit", "speech", num_codes, encode, decode)


@pytest.mark.parametrize("length", [1, 2, 777])
def test_a_neighbour_goes_through_a_real_file(length: int) -> None:
    system, x = NeighbourSystem(stub()), tones(length)
    data = system.compress(x)
    assert system.payload(data) == length + length % 2  # ceil(log2 250) is 8 bits
    assert np.array_equal(system.indices(data), stub().encode(x))  # type: ignore[arg-type]
    x_hat = check_shape(system, x, system.decompress(data, length))
    assert np.abs(x_hat - x).max() < 1 / 249


@pytest.mark.parametrize("num_codes", [1, 2, 3, 1000, 2**17])
def test_tokens_of_every_width_come_back(num_codes: int) -> None:
    tokens = np.random.default_rng(0).integers(0, num_codes, (3, 41))
    system = NeighbourSystem(
        Neighbour("n", "", "speech", num_codes, lambda _: tokens, lambda t, _: t)
    )
    assert np.array_equal(system.indices(system.compress(tones(10))), tokens)  # type: ignore[arg-type]


def test_a_neighbours_mistakes_are_named() -> None:
    x = tones(8)
    with pytest.raises(ModelError, match=r"outside 0\.\.249"):
        NeighbourSystem(stub(shift=250)).compress(x)
    with pytest.raises(ModelError, match="want integers"):
        NeighbourSystem(Neighbour("n", "", "speech", 4, lambda s: s, lambda t, _: t)).compress(x)
    data = NeighbourSystem(stub()).compress(x)
    for bad in (b"", b"x" * 40, data[:-1]):
        with pytest.raises(BitstreamError):
            NeighbourSystem(stub()).indices(bad)
    with pytest.raises(MediaError, match="gave back"):
        check_shape(NeighbourSystem(stub()), x, x[:4])


def test_a_word_names_a_function_that_returns_a_neighbour(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("mine")
    module.vqgan, module.wrong = stub, lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    assert load_neighbour("mine:vqgan").name == "stub"
    for word, reason in (
        ("mine:wrong", "gave a int"),
        ("mine:nothing", "no attribute"),
        ("nowhere:f", "nowhere is not installed"),
        (f"dac:{tmp_path}/no", "no folder of weights"),
    ):
        with pytest.raises(ModelError, match=reason):
            load_neighbour(word)
    media = tmp_path / "media"
    media.mkdir()
    (media / "a.wav").write_bytes(wav(tones(8000)))
    words = [
        "--neighbour",
        "mine:vqgan",
        "--data",
        str(media),
        "--quick",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 0
    (entry,) = json.loads((tmp_path / "o/results.json").read_text())["summary"]
    assert entry["system"] == "stub"
    assert entry["use"]["num_codes"] == 250
    assert entry["rate"]["mean"] > entry["payload_rate"]["mean"] == 8 * 16
    assert main([*words, "--fresh", "--neighbour", "mine:vqgan"]) == 3  # a second of that name
    assert "two systems of this run are called stub" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "p"), "--anchor", "stub"]) == 0
    assert main([*words[:-1], str(tmp_path / "q"), "--anchor", "stab"]) == 2
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("medium", ["image", "speech"])
def test_models_keep_shape_and_hold_their_tokens(
    medium: str, image_model: coding.Model, speech_model: coding.Model
) -> None:
    system = ModelSystem(image_model if medium == "image" else speech_model, 256)
    x = gradient(33, 47) if medium == "image" else tones(1234)
    data = system.compress(x)
    assert system.decompress(data, len(x)).shape == x.shape
    indices = system.indices(data)
    assert indices is not None
    assert 0 <= indices.min() <= indices.max() < system.num_codes
    assert 0 < system.payload(data) < len(data)
    assert system.soft_perplexity(x) is None  # FSP has no posterior


def test_soft_perplexity_of_a_method_with_posteriors() -> None:
    """Between 1 and K, with the state as it was."""
    from conftest import NETS

    from codec.model import CodecConfig, build

    codec = build(CodecConfig("image", NETS["image"], "gmvq", {"codebook_sizes": (64,)})).eval()
    model = coding.Model(type("Card", (), {"name": "image-gmvq", "medium": "image"})(), codec, {})  # type: ignore[arg-type]
    value = ModelSystem(model, 64).soft_perplexity(gradient(40, 40))
    assert value is not None
    assert 1 <= value <= 64
    assert not codec.bottleneck.training


def test_what_an_encoder_cannot_take_is_counted_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from eval import baselines

    def fail(pixels: Signal, setting: int) -> bytes:
        if pixels.shape[1] == 40:
            raise OSError("encoder error -2")
        return baselines.BASELINES["webp"].encode(pixels, setting)

    monkeypatch.setitem(
        baselines.BASELINES, "jpeg", replace(baselines.BASELINES["jpeg"], encode=fail)
    )
    for width in (40, 48):
        (tmp_path / f"{width}.png").write_bytes(picture(gradient(40, width)))
    words = [
        "image-fsp",
        "-k",
        "256",
        "--data",
        str(tmp_path),
        "--baselines",
        "jpeg",
        "--match-rate",
        "--no-curves",
    ]
    assert main([*words, "--quick", "--workers", "1", "--out", str(tmp_path / ".out")]) == 0
    results = json.loads((tmp_path / ".out/results.json").read_text())
    matched = next(e for e in results["summary"] if e["system"] == "jpeg")
    assert (matched["items"], matched["failed"]) == (1, 1)
    assert "encoder error -2" in results["failed"][0]["reason"]
    assert "JPEG (1/2)" in (tmp_path / ".out/report.md").read_text()


def test_a_neighbour_that_was_changed_has_no_figures_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module of one's own, and a folder of weights: figures of the one before are not taken."""
    monkeypatch.syspath_prepend(tmp_path)
    source = Path(__file__).with_name("test_eval_systems.py").read_text(encoding="utf-8")
    (tmp_path / "my_stub.py").write_text(source)
    (tmp_path / "a.wav").write_bytes(wav(tones(8000)))
    words = ["--neighbour", "my_stub:stub", "--data", str(tmp_path / "a.wav"), "--quick"]
    words += ["--workers", "1", "--out", str(tmp_path / "out")]
    assert main(words) == main(words) == 0
    (tmp_path / "my_stub.py").write_text(source + "# better\n")
    capsys.readouterr()
    assert main(words) == 1
    assert "another plan (neighbours differ)" in capsys.readouterr().err
    weights = tmp_path / "weights"
    before = neighbour_hash(f"dac:{weights}@4")
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"1")
    found = neighbour_hash(f"dac:{weights}@4")
    (weights / "model.safetensors").write_bytes(b"2")
    assert len({before, found, neighbour_hash(f"dac:{weights}@4")}) == 3
    assert neighbour_hash("nowhere:f") == neighbour_hash("nothing") == before
