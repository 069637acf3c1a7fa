"""Magnitudes and phases exchanged: what is right stays right, and what is random does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import tones, wav
from test_speech_losses import voice
from torch import Tensor

from codec.nets.speech import STFT
from eval.phases import QUIET, griffin_lim, main, variants


def test_right_magnitudes_find_their_phases_again() -> None:
    stft, x = STFT(384, 96), voice(0, 0.96)[:, 0]
    spectrum = torch.complex(*stft.analyse(x))
    assert torch.allclose(griffin_lim(spectrum.abs(), spectrum, stft, 0), x, atol=1e-5)
    noise = torch.polar(
        spectrum.abs(),
        6.28 * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(0)),
    )

    def error(iterations: int) -> float:
        found = torch.complex(*stft.analyse(griffin_lim(spectrum.abs(), noise, stft, iterations)))
        return float((found.abs() - spectrum.abs()).norm() / spectrum.norm())

    assert error(0) > 2 * error(16)


@pytest.mark.parametrize("bottleneck", ["fsp", "vp", "gmvq"])
def test_without_quantisation_the_decoder_gets_what_is_quantised(bottleneck: str) -> None:
    model = pytest.importorskip("codec").load(f"speech-{bottleneck}").codec
    x = voice(0, 0.5)
    z = model.encoder(model.pad(x))[:, : model.bottleneck.dim]
    moved = torch.cat([z, torch.zeros(1, model.bottleneck.in_dim - z.shape[1], z.shape[2])], 1)
    model.encoder.forward = lambda _: moved  # what is behind it has no part in this
    found = dict(variants(model, x, 1024))
    with torch.no_grad():
        whole = model.decoder(z, 1024)[..., : x.shape[-1]].clamp(-1, 1)
    assert torch.allclose(found["no quantisation"], whole, atol=1e-5)
    assert not torch.allclose(found["decoded"], whole, atol=1e-3)


def test_phases_of_the_original_help_and_the_decoder_alone_is_the_codec() -> None:
    model = pytest.importorskip("codec").load("speech-vp").codec
    x = voice(0, 1.0)
    found = dict(variants(model, x, 1024))
    with torch.no_grad():
        indices = model.encode(x, 1024)
        decoded = model.decode(indices, (x.shape[-1],), 1024)
        whole = model.decoder(model.bottleneck.decode(indices, 1024), 1024)
    assert torch.equal(found["decoded"], decoded.clamp(-1, 1))
    assert all(signal.shape == x.shape for signal in found.values())

    def error(name: str) -> float:
        return float((found[name] - x).norm() / x.norm())

    assert error("phases of the original") < error("decoded")
    stft = model.decoder.stft
    assert isinstance(stft, STFT)

    def spectrum(signal: Tensor) -> Tensor:
        return torch.complex(*stft.analyse(signal[:, 0]))

    theirs = spectrum(model.pad(x))
    magnitudes = {
        name: float((spectrum(model.pad(signal)).abs() - theirs.abs()).norm())
        for name, signal in found.items()
    }
    for phases in ("decoded", "random"):
        name = f"magnitudes of the original, {phases} phases"
        assert magnitudes[name] < 0.5 * magnitudes["decoded"], name
        assert error(name) > 2 * error("phases of the original"), name
    between = ((spectrum(whole).abs() + QUIET) * (theirs.abs() + QUIET)).sqrt()
    half = griffin_lim(between, theirs, stft, 0)[None, :, : x.shape[-1]].clamp(-1, 1)
    assert torch.allclose(
        found["half the error of magnitudes, phases of the original"], half, atol=1e-5
    )


@pytest.mark.usefixtures("models")
def test_a_mean_says_how_many_clips_it_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Silence has no figure, and is in no mean."""
    pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
    (tmp_path / "voice.wav").write_bytes(wav(tones(8_000)))
    assert main(["speech-fsp", "--data", str(tmp_path)]) == 0
    alone = capsys.readouterr().out.splitlines()[2].split("|")
    (tmp_path / "silence.wav").write_bytes(wav(0 * tones(8_000)))
    assert main(["speech-fsp", "--data", str(tmp_path)]) == 0
    both = capsys.readouterr().out.splitlines()[2].split("|")
    assert both[2:4] == [f"{cell}1/2 " for cell in alone[2:4]]


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tones(0)))
    assert main(["speech-fsp", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: a.wav: the recording has no samples\n"


def test_a_picture_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image-vp", "--data", "nowhere"]) == 3
    assert "a picture has no phases" in capsys.readouterr().err
