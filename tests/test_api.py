"""The public functions on bytes: what they return is what the commands write."""

from __future__ import annotations

import io
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import export, gradient, picture, tiny_codec, tones, wav
from PIL import Image

import codec
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.coding import Model
from codec.container import scan
from codec.container.limits import Limits
from codec.errors import BitstreamError, CodecError, MediaError, ModelError, reason_of

pytestmark = pytest.mark.usefixtures("models")


@pytest.mark.parametrize("suffix", [None, "flac", ".FLAC", ".wav"])
def test_a_recording_there_and_back(suffix: str | None) -> None:
    data = codec.compress(wav(tones(5000, 44100, 2), 44100))
    info = soundfile.info(io.BytesIO(codec.decompress(data, suffix=suffix)))
    assert (info.samplerate, info.channels, info.frames) == (44100, 2, 5000)
    assert info.format == (suffix or "wav").upper().lstrip(".")


@pytest.mark.parametrize("suffix", [None, "jpg", ".jpg"])
def test_a_picture_there_and_back(suffix: str | None) -> None:
    data = codec.compress(picture(gradient(13, 40), "WEBP"), 256)
    assert scan(io.BytesIO(data)).header.codebook_size == 256
    with Image.open(io.BytesIO(codec.decompress(data, suffix=suffix))) as image:
        assert (image.size, image.format) == ((40, 13), "JPEG" if suffix else "PNG")


@pytest.mark.parametrize(
    "make", [lambda: wav(tones(3000, 22050), 22050), lambda: picture(gradient(20, 20))]
)
def test_functions_and_commands_write_the_same_bytes(
    make: types.FunctionType, tmp_path: Path
) -> None:
    source, packed, back = tmp_path / "in", tmp_path / "in.bin", tmp_path / "back"
    source.write_bytes(make())
    assert compress_main([str(source), str(packed), "-q"]) == 0
    assert decompress_main([str(packed), str(back), "-q"]) == 0
    assert codec.compress(make()) == packed.read_bytes()
    assert codec.decompress(packed.read_bytes()) == back.read_bytes()


@pytest.mark.parametrize("make", [lambda: wav(tones(30_000)), lambda: picture(gradient(60, 60))])
def test_what_is_left_of_a_damaged_file(
    make: types.FunctionType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(codec.compress(make()))
    whole = codec.decompress(bytes(data), partial=True)
    assert whole == codec.decompress(bytes(data))
    assert not caplog.messages
    data[-25] ^= 0xFF  # in the data chunk
    with pytest.raises(BitstreamError):
        codec.decompress(bytes(data))
    (tmp_path / "in.bin").write_bytes(data)
    words = [str(tmp_path / "in.bin"), str(tmp_path / "back"), "-q", "--partial"]
    assert decompress_main(words) == 0
    caplog.clear()
    found = codec.decompress(bytes(data), partial=True)
    assert found == (tmp_path / "back").read_bytes()
    assert found != whole
    assert [line.split()[0] for line in caplog.messages] == ["lost"]
    with pytest.raises(TypeError, match="partial"):
        codec.decompress(bytes(data), partial="yes")  # type: ignore[arg-type]


def test_models_and_load() -> None:
    assert codec.models() == ["image-fsp", "speech-fsp"]
    assert codec.load("image-fsp").card.medium == "image"
    assert codec.load(medium="speech").card.name == "speech-fsp"
    with pytest.raises(ModelError, match="here are image-fsp, speech-fsp"):
        codec.load("nonesuch")


def test_mono() -> None:
    data = codec.compress(wav(tones(500, channels=2)), mono=True)
    assert soundfile.info(io.BytesIO(codec.decompress(data))).channels == 1


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    mine = codec.load(str(export(tmp_path, "mine", tiny_codec("speech", seed=7))))
    data = codec.compress(wav(tones(500)), model=mine)
    assert codec.decompress(data, mine)
    with pytest.raises(ModelError, match=mine.card.model_id.hex()):
        codec.decompress(data)
    with pytest.raises(ModelError, match=r"here are mine"):
        codec.decompress(codec.compress(wav(tones(500))), mine)


def test_a_model_may_be_loaded_or_named_or_a_path(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, loaded = wav(tones(500)), codec.load("speech-fsp")
    card = models / "speech-fsp.json"
    monkeypatch.chdir(models)
    data = codec.compress(recording, 256, loaded)
    back = codec.decompress(data)
    for model in ("speech-fsp", str(card), card, Path("speech-fsp.json"), Path("speech-fsp")):
        assert codec.compress(recording, 256, model) == data
        assert codec.decompress(data, model) == back
        assert codec.load(model).card == loaded.card
    assert codec.load(loaded) is loaded
    for function in (codec.compress, codec.decompress):
        with pytest.raises(TypeError, match="a name or the path of a card, not int"):
            function(recording if function is codec.compress else data, model=5)
        with pytest.raises(ModelError, match="no model nonesuch"):
            function(recording if function is codec.compress else data, model="nonesuch")
    with pytest.raises(ModelError, match="image-fsp codes image, not speech"):
        codec.compress(recording, model="image-fsp")
    with pytest.raises(ModelError, match=r"needs model .* here are image-fsp"):
        codec.decompress(data, model="image-fsp")


def test_wrong_arguments(speech_model: Model) -> None:
    with pytest.raises(ModelError, match="codes speech, not image"):
        codec.compress(picture(gradient(4, 4)), model=speech_model)
    with pytest.raises(ValueError, match="choose from"):
        codec.compress(wav(tones(10)), 300)
    with pytest.raises(MediaError, match="xyz"):
        codec.decompress(codec.compress(wav(tones(10))), suffix="xyz")


def test_limits() -> None:
    speech, image = codec.compress(wav(tones(17000))), codec.compress(picture(gradient(20, 20)))
    with pytest.raises(BitstreamError, match="--max-seconds"):
        codec.decompress(speech, limits=Limits(max_seconds=1))
    with pytest.raises(BitstreamError, match="--max-pixels"):
        codec.decompress(image, limits=Limits(max_pixels=399))


def test_data_may_be_a_path_a_file_or_bytes(tmp_path: Path) -> None:
    for name, content in (
        ("in.wav", wav(tones(3000, 22050), 22050)),
        ("in.png", picture(gradient(20, 20))),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        packed = codec.compress(content)
        for given in (
            str(path),
            path,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
        ):
            assert codec.compress(given) == packed
        with path.open("rb") as file:
            assert codec.compress(file) == packed
        path.write_bytes(packed)
        back = codec.decompress(packed)
        for given in (str(path), path, bytearray(packed), memoryview(packed), io.BytesIO(packed)):
            assert codec.decompress(given) == back
        with path.open("rb") as file:
            assert codec.decompress(file) == back


def test_other_data_are_a_type_error_that_says_what_to_do(tmp_path: Path) -> None:
    for function in (codec.compress, codec.decompress):
        for bad in (tones(100), gradient(4, 4), torch.zeros(3), [1, 2], None, 5):
            with pytest.raises(
                TypeError, match=f"not {type(bad).__name__}; write samples to a .wav"
            ):
                function(bad)
        with pytest.raises(TypeError, match="binary mode"):
            function(io.StringIO("text"))
        (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff")  # no text
        with (tmp_path / "picture.jpg").open() as file, pytest.raises(TypeError, match="binary"):
            function(file)
        for missing in (tmp_path / "nothing.wav", str(tmp_path), "a\0b"):
            with pytest.raises(MediaError, match="cannot read this file"):
                function(missing)


@pytest.mark.parametrize("effort", [-1, 10, 100, 3.5, 3.0, "3", None])
def test_an_effort_that_there_is_not(effort: object) -> None:
    for data in (wav(tones(500)), picture(gradient(20, 20))):
        with pytest.raises(ValueError, match="effort is a whole number"):
            codec.compress(data, effort=effort)  # type: ignore[arg-type]


def test_an_effort_may_be_of_numpy() -> None:
    data = wav(tones(3000))
    assert codec.compress(data, effort=np.int64(2)) == codec.compress(data, effort=2)


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "nonsense", "meta"])
def test_a_device_that_is_not_here(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if device.startswith("cuda") and torch.cuda.device_count() > 7:
        pytest.skip("there are many")
    with pytest.raises(
        CodecError, match=f"device '{device}' cannot be used here .*; use 'cpu'"
    ) as error:
        codec.load("speech-fsp", device=device)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"nonsense" * 10, b"\x89PNG\r\n\x1a\n"])
def test_every_deliberate_error_is_a_codec_error(data: bytes) -> None:
    for function in (codec.compress, codec.decompress):
        with pytest.raises(CodecError) as error:
            function(data)
        assert "\n" not in str(error.value)


def test_compress_stays_a_function() -> None:
    """`codec.compress` is also a command's file; importing that would hide the function."""
    for name in ("compress", "decompress", "load", "models"):
        assert isinstance(getattr(codec, name), types.FunctionType)
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = codec.nonesuch


def test_silence_stays_finite() -> None:
    decoded, _ = soundfile.read(
        io.BytesIO(codec.decompress(codec.compress(wav(np.zeros((700, 1), np.float32)))))
    )
    assert decoded.shape == (700,)


def test_arguments_of_another_kind_are_refused_in_a_line() -> None:
    sound = wav(tones(1600))
    data = codec.compress(sound)
    for wrong in ("no", 1, None, [True]):
        with pytest.raises(TypeError, match="mono is True or False, not"):
            codec.compress(sound, mono=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="layers is True or False, not"):
            codec.compress(sound, layers=wrong)  # type: ignore[arg-type]
    for wrong in (True, 1.5, "2"):
        with pytest.raises(ValueError, match="effort is a whole number, not"):
            codec.compress(sound, effort=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="limits is a Limits, not 5"):
        codec.decompress(data, limits=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="suffix is a str, not 5"):
        codec.decompress(data, suffix=5)  # type: ignore[arg-type]
    for number in (True, -1, 1.5):
        with pytest.raises(ValueError, match=f"max_bytes is a whole number from 0.*not {number}"):
            codec.truncate(data, max_bytes=number)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="medium is a str, not 3"):
        codec.load(medium=3)  # type: ignore[arg-type]
    assert codec.compress(sound, mono=np.bool_(True), effort=np.int64(0)) == data


def test_what_is_compressed_already_is_said_to_be() -> None:
    with pytest.raises(MediaError, match=r"this is a \.bin already"):
        codec.compress(codec.compress(wav(tones(1600))))


def test_a_loaded_model_is_of_the_medium_that_is_asked_for(speech_model: Model) -> None:
    assert codec.load(speech_model, "speech") is speech_model
    with pytest.raises(ModelError, match="is no image model"):
        codec.load(speech_model, "image")


def test_a_device_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (None, 1.5):
        with pytest.raises(TypeError, match="device is a str, not"):
            codec.load("speech-fsp", device=wrong)  # type: ignore[arg-type]

    def no_module(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'habana_frameworks'.")

    monkeypatch.setattr(torch, "empty", no_module)
    with pytest.raises(CodecError, match=r"cannot be used here \(No module named 'habana_fr"):
        codec.load("speech-fsp", device="hpu")


@pytest.mark.parametrize("name", ["max_pixels", "max_seconds", "max_bytes", "max_width"])
def test_limits_are_whole_numbers(name: str) -> None:
    for wrong in ("x", 1.5, -1, True):
        with pytest.raises(ValueError, match=f"{name} is a whole number from 0 on, not"):
            Limits(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), "ValueError"),
        (ValueError("  \n so it is.\nmore"), "so it is"),
        (RuntimeError("Wrong shapes:\n\tof x.\n\tMore"), "Wrong shapes: of x"),
    ],
)
def test_a_reason_is_a_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_the_functions_are_there_beside_the_commands_of_their_names(root: Path) -> None:
    """`import codec.info` puts the command's module in the place of the function."""
    script = """
import sys, codec.compress, codec.decompress, codec.info, codec.truncate
assert "torch" not in sys.modules
for name, more in (("compress", ()), ("decompress", ()), ("info", ()), ("truncate", (256,))):
    module = getattr(codec, name)
    assert callable(module.main)
    try:
        module(b"RIFF", *more)
    except codec.CodecError as error:
        print(name, type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split("\n")[:-1] == [
        "compress MediaError",
        "decompress BitstreamError",
        "info BitstreamError",
        "truncate BitstreamError",
    ]
