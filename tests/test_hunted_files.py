"""Files that led a reader or a writer astray: it hung, failed with a traceback, or lost sound."""

from __future__ import annotations

import io
import json
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import tones, wav

import codec
from codec import BitstreamError, MediaError, ModelError, coding
from codec.bottlenecks import VP
from codec.cards import read_card
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.cli.truncate import truncate_main
from codec.coding import Model
from codec.container.limits import Limits
from codec.files import MOST_KEPT_BYTES, Pipe, writing
from codec.media import AudioWriter, load_audio
from codec.media.mp4 import check_counts
from codec.media.window import Window
from train.log import Log

AU = b".snd" + bytes(28)  # neither a header nor sound
SPHERE = b"NIST_1A\n   0\nsample_count -i 0\nchannel_count -i 1\nsample_n_bytes -i 2\nend_head\n"


@pytest.mark.parametrize("data", [AU, SPHERE, AU + AU, b".snd" + struct.pack(">I", 24) + bytes(24)])
def test_a_header_that_ends_where_it_begins_is_no_recording(data: bytes) -> None:
    with pytest.raises(MediaError):
        load_audio(io.BytesIO(data))


def test_an_aiff_or_caf_may_end_anywhere() -> None:
    for name, sound in (("AIFF", b"SSND"), ("CAF", b"data")):
        file = io.BytesIO()
        soundfile.write(file, tones(800), 16000, format=name)
        whole = file.getvalue()
        for end in range(whole.index(sound) - 2, whole.index(sound) + 30):
            with suppress(MediaError):  # and nothing else
                load_audio(io.BytesIO(whole[:end]))


def test_a_folder_goes_on_behind_a_cut_aiff(speech_model: Model, tmp_path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, tones(800), 16000, format="AIFF")
    (tmp_path / "in").mkdir()
    cut = file.getvalue().index(b"SSND") + 6
    (tmp_path / "in/a.aiff").write_bytes(file.getvalue()[:cut])
    (tmp_path / "in/b.wav").write_bytes(wav(tones(3200)))
    model = ["-m", str(speech_model.card.path)]
    assert compress_main([str(tmp_path / "in"), str(tmp_path / "out"), *model]) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.wav.bin"]


def test_an_empty_wav_does_not_swallow_the_next_header() -> None:
    sound = wav(tones(3200))
    empty = bytearray(sound[:44])
    empty[40:44] = bytes(4)
    alone, _ = load_audio(io.BytesIO(sound))
    assert np.array_equal(load_audio(io.BytesIO(bytes(empty) + sound))[0], alone)
    twice, _ = load_audio(io.BytesIO(sound + bytes(empty) + sound))
    assert np.array_equal(twice, np.concatenate([alone, alone]))


@pytest.mark.filterwarnings("error")
def test_a_sample_beyond_float32_is_infinite_and_no_warning() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.array([0.0, 1e300]), 16000, format="WAV", subtype="DOUBLE")
    file.seek(0)
    with pytest.raises(MediaError, match="sample 1 is not a number or infinite"):
        load_audio(file)


@pytest.mark.parametrize("rate", [200_001, 384_000, 768_000])
def test_vorbis_holds_no_more_than_200_khz(rate: int) -> None:
    with pytest.raises(MediaError, match=f"at most 200000 Hz, not {rate}; write a .flac"):
        AudioWriter(io.BytesIO(), rate, 1, "ogg")
    file = io.BytesIO()
    writer = AudioWriter(file, 200_000, 1, "ogg")
    writer.write(tones(200_000))  # more than libsndfile takes at once
    writer.close()
    assert soundfile.info(io.BytesIO(file.getvalue())).frames == 200_000


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8) + name + body


def test_the_runs_of_a_track_are_walked_once_for_all_its_tables_of_chunks() -> None:
    """Chunks are few, and so would the sum over runs be; work that grows with both is not."""
    runs = [(first, 1) for first in range(1, 20_001)]
    table = box(
        b"stsc",
        struct.pack(">II", 0, len(runs)),
        *(struct.pack(">III", *run, 1) for run in runs),
    )
    chunks = box(b"stco", struct.pack(">II", 0, 0)) * 20_000
    film = box(b"ftyp", b"isom") + box(b"moov", box(b"stbl", table, chunks))
    check_counts(Window(io.BytesIO(film)))  # minutes, if it walked them for each
    many = box(b"stco", struct.pack(">II", 0, 2**31))
    film = box(b"moov", box(b"stbl", box(b"stsc", struct.pack(">5I", 0, 1, 1, 2**20, 1)), many))
    with pytest.raises(MediaError, match="more samples than its bytes can be"):
        check_counts(Window(io.BytesIO(film)))


@pytest.mark.parametrize(
    "change",
    [
        {"num_codes": {}},
        {"num_codes": {"1024": 0}},
        {"num_codes": {"0": 4}},
        {"tokens_per_unit": "nan"},
        {"tokens_per_unit": 0},
        {"name": 5},
    ],
)
def test_a_card_with_numbers_that_cannot_be_is_refused(
    speech_model: Model, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(dict(speech_model.card.data) | change))
    with pytest.raises(ModelError, match=r"not a model card .*; install the model again"):
        read_card(path)


def test_no_code_is_a_negative_zero() -> None:
    """The zero of a gradient's path would make a positive one of it: not the code, bit for bit."""
    method = VP(3, (8,))
    points = torch.randn(500, 3)
    points[:, 0] = -1e-9 * points[:, 0].abs()
    method.fit(points)
    codes = method.decode(torch.arange(8)[None, None], 8)
    assert (codes == 0).any(), "none was rounded to zero"
    assert not (torch.signbit(codes) & (codes == 0)).any()


# --------------------------------------------------------------------------------------------------
# .bin files


@pytest.fixture
def layered(models: Path) -> bytes:
    (card,) = [c for c in map(read_card, sorted(models.glob("speech*.json"))) if c.layered][:1]
    return codec.compress(io.BytesIO(wav(tones(3200))), model=card.path, layers=True)


def test_indices_of_layers_in_memory_are_bounded(layered: bytes, models: Path) -> None:
    (card,) = [c for c in map(read_card, sorted(models.glob("speech*.json"))) if c.layered][:1]
    model = coding.load(card)
    size = coding.read_indices(layered, model)[1].nbytes
    assert coding.read_indices(layered, model, Limits(max_bytes=size))[1].nbytes == size
    with pytest.raises(MediaError, match=f"{size} bytes or more, and there is room for {size - 1}"):
        coding.read_indices(layered, model, Limits(max_bytes=size - 1))


def test_another_file_behind_layers_is_named(
    layered: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "damage" not in codec.info(layered)
    said = codec.info(layered + layered)["damage"]
    assert "another file follows" in said
    (tmp_path / "two.bin").write_bytes(layered + layered)
    base = str(min(codec.info(layered)["layers"]))
    assert truncate_main([str(tmp_path / "two.bin"), str(tmp_path / "one.bin"), "-k", base]) == 0
    assert "another file follows" in capsys.readouterr().err


def test_partial_minds_the_codebook_size_and_says_what_follows(
    speech_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = speech_model.codec.bottleneck.codebook_sizes
    plain = codec.compress(io.BytesIO(wav(tones(3200))), sizes[-1], speech_model)
    (tmp_path / "in.bin").write_bytes(plain + plain)
    arguments = [str(tmp_path / "in.bin"), str(tmp_path / "out.wav"), "--partial", "-f"]
    arguments += ["-m", str(speech_model.card.path)]
    assert decompress_main([*arguments, "-k", str(sizes[0])]) == 1
    assert f"it holds K = {sizes[-1]} and not {sizes[0]}" in capsys.readouterr().err
    assert decompress_main(arguments) == 0
    assert f"bytes follow the end of the file, from byte {len(plain)}" in capsys.readouterr().err
    with pytest.raises(BitstreamError, match="bytes follow"):
        codec.decompress(plain + plain, speech_model)


# --------------------------------------------------------------------------------------------------
# writing, and streams


def test_a_file_that_is_replaced_keeps_who_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_bytes(b"old")
    path.chmod(0o600)
    with writing(str(path), force=True) as file:
        file.write(b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


def test_what_a_stream_keeps_for_later_goes_to_a_disk_where_it_is_much() -> None:
    data = bytes(range(256)) * (MOST_KEPT_BYTES // 128)
    pipe = Pipe(io.BytesIO(data))
    pipe.read(len(data) - 10)
    assert pipe._taken is not None
    assert not isinstance(pipe._taken._file, io.BytesIO)  # type: ignore[attr-defined]
    assert pipe.spooled(io.BytesIO()).read() == data


def test_a_stream_gives_and_counts_what_was_seen_with_what_comes() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(3 if size is None or size > 3 else size)

    pipe = Pipe(Slow(bytes(range(20))))
    assert pipe.peek(5) == bytes(range(5))
    assert pipe.total == 0
    assert pipe.read(2) + pipe.read(6) == bytes(range(8))
    assert pipe.peek(2) == bytes(range(8, 10))
    assert pipe.read(100) == bytes(range(8, 20))
    assert (pipe.read(1), pipe.total) == (b"", 20)


def test_a_log_of_a_training_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    log = Log(tmp_path)
    with pytest.raises(OSError, match="No space left") as caught:
        log.write(1, 0.1, "A", {"loss": 1.0})
    log.close()
    assert caught.value.filename == str(tmp_path / "log.jsonl")
