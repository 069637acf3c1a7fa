"""Files of a few hundred bytes that claim or hold far more: refused before memory or disk is taken
for it.
"""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import picture, tones
from PIL import Image

import codec
from app.__main__ import DEMO_MODE
from app.service import Service
from codec import coding
from codec.cli.decompress import decompress_main
from codec.coding import Model
from codec.container import Header, Reader, Writer, unpack
from codec.container.limits import SAMPLES_PER_SECOND, Budget, Limits
from codec.container.salvage import Salvage
from codec.errors import BitstreamError, CodecError, MediaError
from codec.files import Pipe, room_for
from codec.media import resampling
from codec.medium import MAX_RATE_HZ

SIZE = 1024
MIB = 1 << 20


def bomb(
    model: Model, channels: int = 4, positions: int = 8000, rate: int = 400_000, samples: int = 1
) -> bytes:
    """A recording of one token, again and again, whose end chunk claims `samples`."""
    codes = model.codec.bottleneck.num_codes(SIZE)
    header = Header("speech", model.card.model_id, SIZE, codes, 1, channels, rate)
    file = io.BytesIO()
    writer = Writer(file, header, model.tables[SIZE])
    writer.write(np.zeros((channels, 1, positions), np.int64))
    writer.finish(samples)
    return file.getvalue()


def empty_picture(model: Model, height: int = 8192, width: int = 8192) -> bytes:
    """A header of 64 megapixels, and no more."""
    codes = model.codec.bottleneck.num_codes(SIZE)
    file = io.BytesIO()
    Writer(file, Header("image", model.card.model_id, SIZE, codes, 1, 3, 0, height, width)).finish()
    return file.getvalue()


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The calls of a function of a module from now on."""
    module, _, attribute = name.rpartition(".")
    calls: list[Any] = []
    original = getattr(sys.modules[module], attribute)
    monkeypatch.setattr(name, lambda *given: (calls.append(given), original(*given))[1])
    return calls


# --------------------------------------------------------------------------------------------------
# a lying end chunk


@pytest.mark.parametrize("samples", [0, 1, 10**6, 19_200_001])
def test_positions_that_do_not_fit_the_samples_are_refused_before_any_is_decoded(
    samples: int, speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bomb(speech_model, samples=samples)
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    with pytest.raises(BitstreamError, match=f"{samples} samples do not fit 8000 positions"):
        codec.decompress(data, speech_model)
    with pytest.raises(BitstreamError, match=f"{samples} samples do not fit 8000 positions"):
        next(coding.decompress_speech(Salvage(io.BytesIO(data)), speech_model))
    with pytest.raises(BitstreamError, match=f"{samples} samples do not fit 8000 positions"):
        coding.read_indices(data, speech_model)
    assert not calls


def test_chunks_beyond_what_the_end_declares_are_not_decoded(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end chunk is consistent in itself, and more stands before it."""
    short = bomb(speech_model, 1, 100, 16_000, 9600)
    long = bomb(speech_model, 1, 8000, 16_000, 768_000)
    lying = long[: long.rindex(b"E")] + short[short.rindex(b"E") :]
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    with pytest.raises(BitstreamError, match="holds 8000 or more positions but should hold 100"):
        codec.decompress(lying, speech_model)
    with pytest.raises(BitstreamError, match="holds 8000 or more positions but should hold 100"):
        unpack(lying, speech_model.tables[SIZE])
    assert not calls


def test_one_position_beyond_what_the_end_declares_is_too_many(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = bomb(speech_model, 1, 100, 16_000, 9600)
    long = bomb(speech_model, 1, 101, 16_000, 9600)
    lying = long[: long.rindex(b"E")] + short[short.rindex(b"E") :]
    assert codec.decompress(short, speech_model)
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    with pytest.raises(BitstreamError, match="holds 101 or more positions but should hold 100"):
        codec.decompress(lying, speech_model)
    assert not calls


def test_what_does_not_seek_is_refused_at_its_end(speech_model: Model) -> None:
    """The end chunk comes last through a pipe: until then only the limits bound the decoding."""
    data = bomb(speech_model, 1, 8000, 16_000)
    for file in (Unseekable(data), Pipe(io.BytesIO(data))):
        reader = Reader(file)
        assert reader.foresee() is None
        with pytest.raises(BitstreamError, match="1 samples do not fit 8000 positions"):
            list(coding.decompress_speech(reader, speech_model))


@pytest.mark.parametrize("seconds", [1, 20, 47])
def test_positions_are_bounded_by_the_models_token_rate(
    seconds: int, speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8000 positions are 48 s of this model; of a model that is not known they might be 8."""
    data = bomb(speech_model, 1, 8000, 16_000, 768_000)
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    with pytest.raises(
        BitstreamError, match=f"positions than {seconds} s hold: raise --max-seconds"
    ):
        list(
            coding.decompress_speech(
                Reader(Unseekable(data), Limits(max_seconds=seconds)), speech_model
            )
        )
    assert not calls
    blocks = coding.decompress_speech(
        Reader(Unseekable(data), Limits(max_seconds=48)), speech_model
    )
    assert sum(map(len, blocks)) == 768_000


def test_a_budget_is_of_all_that_was_spent() -> None:
    header = Header("speech", bytes(16), 256, 256, sample_rate=1000)
    budget = Budget(Limits(max_seconds=2), header)
    budget.token_rate_hz = 50
    budget.spend_positions(60)
    budget.spend_positions(40)
    with pytest.raises(BitstreamError, match="more positions than 2 s hold"):
        budget.spend_positions(1)
    budget.spend_samples(1200)
    budget.spend_samples(800)
    with pytest.raises(BitstreamError, match="over the limit of 2 s"):
        budget.spend_samples(1)


@pytest.mark.parametrize("name", ["max_pixels", "max_seconds", "max_width", "max_bytes"])
def test_a_limit_is_a_whole_number(name: str) -> None:
    for wrong in (-1, 1.5, "7"):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: wrong})  # type: ignore[arg-type]


def test_samples_of_all_channels_together_are_bounded(speech_model: Model) -> None:
    limits = Limits(max_seconds=2)
    rate, channels = MAX_RATE_HZ, 2 * SAMPLES_PER_SECOND // MAX_RATE_HZ + 1
    data = bomb(speech_model, channels, 167, rate, rate)
    for file in (io.BytesIO(data), Unseekable(data)):
        with pytest.raises(
            BitstreamError, match=f"{channels} channels of .* samples are over the limit of"
        ):
            list(coding.decompress_speech(Reader(file, limits), speech_model))
    fewer = bomb(speech_model, 1, 167, rate, rate)
    assert (
        sum(map(len, coding.decompress_speech(Reader(io.BytesIO(fewer), limits), speech_model)))
        == rate
    )


# --------------------------------------------------------------------------------------------------
# a lying header


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg"])
def test_no_canvas_is_made_for_a_header_alone(
    suffix: str, image_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = empty_picture(image_model)
    made = counted(monkeypatch, "codec.media.ImageWriter")
    with pytest.raises(BitstreamError, match="8192 x 8192 pixels do not fit 0 positions"):
        codec.decompress(data, image_model, suffix=suffix)
    assert not made


def test_the_app_takes_no_picture_of_one_endless_row(model_folder: Path, tmp_path: Path) -> None:
    """What the nets hold grows with a picture's width: 521 bytes of 131072 x 15 pixels took
    0.7 GiB.
    """
    service = Service(replace(DEMO_MODE, models=model_folder), tmp_path / "app")
    image_model = service.models.get("image-fsp")
    for width, message in (
        (16_385, "16385 pixels wide, over the limit of 16384"),
        (16_384, "do not fit 0 positions"),
    ):
        (tmp_path / "a.bin").write_bytes(empty_picture(image_model, 15, width))
        with pytest.raises(BitstreamError, match=message):
            service.decode(tmp_path / "a.bin")
    for size in ((16_385, 2), (2, 16_385)):
        (tmp_path / "a.png").write_bytes(picture(Image.new("RGB", size)))
        with pytest.raises(MediaError, match="at most 16,384 a side"):
            service.open(tmp_path / "a.png")


def test_codebooks_that_the_model_does_not_have_are_refused(image_model: Model) -> None:
    codes = image_model.codec.bottleneck.num_codes(SIZE)
    file = io.BytesIO()
    writer = Writer(file, Header("image", image_model.card.model_id, SIZE, codes, 2, 3, 0, 8, 8))
    writer.write(np.zeros((1, 2, 1), np.int64))
    writer.finish()
    with pytest.raises(BitstreamError, match="2 codebooks, and the model has 1"):
        codec.decompress(file.getvalue(), image_model)


def test_a_damaged_file_of_countless_chunks_is_not_recovered(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    codes = speech_model.codec.bottleneck.num_codes(SIZE)
    writer = Writer(file, Header("speech", speech_model.card.model_id, SIZE, codes, 1, 4, 16_000))
    for _ in range(10):
        writer.write(np.zeros((4, 1, 1), np.int64))
    monkeypatch.setattr("codec.container.salvage.MAX_STREAMS", 40)
    assert Salvage(io.BytesIO(file.getvalue())).num_positions == 10
    monkeypatch.setattr("codec.container.salvage.MAX_STREAMS", 39)
    with pytest.raises(BitstreamError, match="up to 39 encoded streams"):
        Salvage(io.BytesIO(file.getvalue()))


# --------------------------------------------------------------------------------------------------
# bytes of an output


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_an_output_in_memory_is_bounded(
    suffix: str, speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bomb(speech_model, 1, 8000, 16_000, 768_000)
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    with pytest.raises(MediaError, match="there is room for 100000"):
        codec.decompress(data, speech_model, Limits(max_bytes=100_000), suffix)
    assert bool(calls) == (suffix == "flac"), (
        "what is not compressed is refused before it is decoded"
    )
    assert codec.decompress(data, speech_model, Limits(max_bytes=2 * 768_000 + 100), suffix)


def test_what_is_compressed_counts_as_it_is_written(speech_model: Model) -> None:
    data = bomb(speech_model, 1, 8000, 16_000, 768_000)
    written = codec.decompress(data, speech_model, suffix="mp3")
    assert 2 * len(written) < 2 * 768_000
    assert codec.decompress(data, speech_model, Limits(max_bytes=len(written)), "mp3") == written
    with pytest.raises(MediaError, match=f"there is room for {len(written) - 1}"):
        codec.decompress(data, speech_model, Limits(max_bytes=len(written) - 1), "mp3")


def test_indices_in_memory_are_bounded(speech_model: Model) -> None:
    data = bomb(speech_model, 1, 8000, 16_000, 768_000)
    with pytest.raises(MediaError, match="64000 bytes or more, and there is room for 63999"):
        unpack(data, speech_model.tables[SIZE], Limits(max_bytes=63_999))
    assert unpack(data, speech_model.tables[SIZE], Limits(max_bytes=64_000))[1].size == 8000


def test_a_wav_above_its_format_is_refused_before_it_is_written(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codec.coding.checks.MAX_RIFF_BYTES", 10**6)
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    with pytest.raises(MediaError, match=r"write a \.flac"):
        codec.decompress(bomb(speech_model, 1, 8000, 16_000, 768_000), speech_model)
    assert not calls


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("name", "early"), [("a.wav", True), ("a.flac", False), ("new/a.aiff", True)]
)
def test_the_command_refuses_before_the_disk_is_full(
    name: str,
    early: bool,
    speech_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.bin").write_bytes(bomb(speech_model, 1, 8000, 16_000, 768_000))
    asked = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(total=10**6, used=0, free=200_000)

    monkeypatch.setattr("shutil.disk_usage", usage)
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    assert decompress_main([str(tmp_path / "a.bin"), str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'a.bin'}: the output has ")
    assert "there is room for 180000" in error
    assert asked == [tmp_path]
    assert bool(calls) != early
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_disk_that_says_nothing_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (room_for(str(tmp_path / "a")) or 0) > 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=0, used=0, free=0))
    assert room_for(str(tmp_path / "a")) is None


# --------------------------------------------------------------------------------------------------
# honest, and large


def test_many_channels_at_high_rates_come_in_smaller_blocks(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever bounds memory changes no more than a float's last bit."""
    samples = tones(16_000 * 7, 16_000, 11)
    file = io.BytesIO()
    coding.compress_speech(iter([samples]), 44_100, 11, file, speech_model, SIZE)
    whole = np.concatenate(
        list(coding.decompress_speech(Reader(io.BytesIO(file.getvalue())), speech_model))
    )
    monkeypatch.setattr(resampling, "MAX_SAMPLES_AT_ONCE", 300_000)
    monkeypatch.setattr("codec.coding.speech.CHANNELS_AT_ONCE", 3)
    blocks = list(coding.decompress_speech(Reader(io.BytesIO(file.getvalue())), speech_model))
    assert max(block.size for block in blocks) <= 300_000
    assert np.abs(np.concatenate(blocks) - whole).max() < 1e-5
    assert whole.shape == samples.shape


# --------------------------------------------------------------------------------------------------
# the app


def test_the_demo_refuses_the_bomb_at_once(
    model_folder: Path, speech_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(replace(DEMO_MODE, models=model_folder), tmp_path / "app")
    path = tmp_path / "bomb.bin"
    calls = counted(monkeypatch, "codec.container.reader.decode_data")
    for data in (
        bomb(speech_model),
        bomb(speech_model, 64, 20_000, MAX_RATE_HZ, 20 * MAX_RATE_HZ),
        bomb(speech_model, 64, 3334, MAX_RATE_HZ, 20 * MAX_RATE_HZ),
        bomb(speech_model, 1, 16_667, 16_000, 100 * 16_000),
    ):
        path.write_bytes(data)
        with pytest.raises(CodecError, match=r"do not fit|over the limit"):
            service.decode(path)
    assert not calls
    assert not (tmp_path / "app/files").exists()


WATCHED = """
import io, resource, sys, tempfile
from dataclasses import replace
from pathlib import Path
from test_limits import SIZE, bomb, empty_picture
from app.__main__ import DEMO_MODE
from app.service import Service
from codec import api, cards, coding
from codec.cli.decompress import decompress_main
from codec.container import Reader
from codec.errors import CodecError
from codec.files import Pipe
from codec.container.limits import Limits
from codec.container.salvage import Salvage

cards.MODELS_FOLDER = Path(sys.argv[1])
folder = Path(tempfile.mkdtemp(dir=sys.argv[2]))
speech, image = api.load("speech-fsp"), api.load("image-fsp")
end, picture = bomb(speech), empty_picture(image)
service = Service(replace(DEMO_MODE, models=cards.MODELS_FOLDER), folder / "app")
for card in service.models.cards:
    service.models.get(card)
for name, data in (("end", end), ("picture", picture)):
    (folder / f"{name}.bin").write_bytes(data)
reader = Reader(io.BytesIO(bomb(speech, 1, 167, 48000, 48000)))
for block in coding.decompress_speech(reader, speech):
    pass  # what the nets and the resampler need in any case

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def command(name, target, *options):
    arguments = [*options, "-q", str(folder / name), str(folder / target)]
    assert decompress_main(arguments) == 4
    assert not (folder / target).exists()

def streamed():
    blocks = coding.decompress_speech(Reader(Pipe(io.BytesIO(end))), speech)
    longest = 0
    for block in blocks:
        longest = max(longest, block.size)

WAYS = {
    "api, end": lambda: api.decompress(end, speech),
    "api, header": lambda: api.decompress(picture, image, suffix="bmp"),
    "app, end": lambda: service.decode(folder / "end.bin"),
    "command, end": lambda: command("end.bin", "a.wav"),
    "command, header": lambda: command("picture.bin", "a.bmp"),
    "command, partial": lambda: command("end.bin", "a.wav", "--partial"),
    "pipe, end": streamed,
}
for name, way in WAYS.items():
    before = peak()
    try:
        way()
    except CodecError:
        pass
    print(f"{name}|{peak() - before}")
"""


@pytest.mark.slow
def test_memory_stays_where_it_was(root: Path, model_folder: Path, tmp_path: Path) -> None:
    """The peak of a process, after each file, in MiB: the 468 bytes that took 539 take next to
    nothing.
    """
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(model_folder), str(tmp_path)],
        cwd=root,
        env={
            "PYTHONPATH": f"{root}:{root / 'tests'}",
            "OMP_NUM_THREADS": "1",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    grown = dict(line.split("|") for line in done.stdout.splitlines() if "|" in line)
    assert len(grown) == 7
    assert {
        name: int(mib) for name, mib in grown.items() if int(mib) > (200 if "pipe" in name else 40)
    } == {}
