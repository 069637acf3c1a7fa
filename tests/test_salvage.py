"""Damaged files: what is outside the damage comes back exactly, in its place.

What is inside is silence or grey.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import gradient, tones
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_bitstream import (
    GOLDEN_NAMES,
    MODEL_ID,
    SPEECH,
    join_chunks,
    load_golden,
    skewed,
    split_chunks,
    write_in_splits,
)

from codec import coding
from codec.coding import Model, pictures
from codec.container import Header, Reader, unpack
from codec.container.limits import Limits
from codec.container.payloads import Data
from codec.container.pieces import Piece, fill
from codec.container.salvage import Salvage
from codec.entropy import NO_TABLES, Tables, quantise_counts
from codec.errors import BitstreamError

Array = NDArray[np.int64]
# Index 7 costs next to nothing.
PAUSES = Tables(quantise_counts(np.where(np.arange(50) == 7, 10_000, 1)[None]))


def salvage(
    data: bytes, tables: Tables = NO_TABLES, total: int | None = None
) -> tuple[Array, Salvage]:
    found = Salvage(io.BytesIO(data), num_positions=total)
    header = found.header
    nothing = np.empty((header.num_streams, header.num_codebooks, 0), np.int64)
    return np.concatenate([nothing, *found.chunks(tables)], 2), found


def lost(found: Salvage) -> list[int]:
    return [position for start, stop in found.gaps for position in range(start, stop)]


def chunked(count: int = 1000, size: int = 100) -> tuple[bytes, Array]:
    indices = skewed((1, 1, count), 50, 3)
    return write_in_splits(
        SPEECH, indices, 16 * count, NO_TABLES, list(range(size, count, size))
    ), indices


def places(data: bytes) -> list[tuple[int, int]]:
    """First byte and one after the last of every chunk."""
    found, at = [], 10
    for _, payload in split_chunks(data):
        size = 1 + (1 if len(payload) < 128 else 2) + len(payload) + 4
        found.append((at, at + size))
        at += size
    return found


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_a_sound_file_comes_back_whole(name: str) -> None:
    data, header, indices, num_samples, tables = load_golden(name)
    decoded, found = salvage(data, tables)
    assert np.array_equal(decoded, indices)
    assert (found.header, found.num_samples, found.gaps, found.complete) == (
        header,
        num_samples,
        [],
        True,
    )


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_any_flipped_byte_costs_its_chunk_and_no_more(name: str) -> None:
    """All 255 values would take minutes here; three of them, everywhere."""
    data, _, indices, _, tables = load_golden(name)
    chunks = places(data)
    counts = [payload for kind, payload in split_chunks(data) if kind == b"D"]
    for at in range(chunks[1][0], len(data)):
        for flip in (0xFF, 1 << at % 8, 0x20):
            damaged = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            decoded, found = salvage(damaged, tables)
            hit = next(i for i, (start, stop) in enumerate(chunks) if start <= at < stop) - 1
            gone = lost(found)
            if hit == len(counts):  # the end chunk: nothing of the indices is lost
                assert not found.complete
                good = decoded[..., : indices.shape[2]]
                assert np.array_equal(good, indices[..., : good.shape[2]])
                continue
            assert decoded.shape == indices.shape
            assert gone
            kept = np.setdiff1d(np.arange(indices.shape[2]), gone)
            assert np.array_equal(decoded[..., kept], indices[..., kept])


@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(20, 130),
)
@settings(deadline=None, max_examples=60)
def test_several_damages(hits: list[tuple[int, int]], size: int) -> None:
    """Chunks without a hit come back; with a sound end chunk the length is right."""
    data, indices = chunked(1000, size)
    chunks = places(data)
    first, spoilt = chunks[1][0], bytearray(data)
    for at, value in hits:
        spoilt[first + at % (chunks[-1][0] - first)] ^= value
    decoded = salvage(bytes(spoilt))[0]
    assert decoded.shape == indices.shape
    touched = {i - 1 for i, (a, b) in enumerate(chunks) if data[a:b] != spoilt[a:b]}
    for number in range(-(-1000 // size)):
        part = slice(number * size, (number + 1) * size)
        if number not in touched and (
            not touched or number < min(touched) or number > max(touched)
        ):
            assert np.array_equal(decoded[..., part], indices[..., part])


def repeated(data: bytes, first: int, count: int = 1, times: int = 1) -> bytes:
    """With some data chunks in a row there again, right behind themselves."""
    chunks = places(data)[1:-1]
    start, stop = chunks[first][0], chunks[first + count - 1][1]
    return data[:stop] + data[start:stop] * times + data[stop:]


@pytest.mark.parametrize(
    ("first", "count", "times"), [(0, 1, 1), (4, 1, 1), (9, 1, 1), (3, 2, 1), (0, 5, 1), (2, 1, 3)]
)
def test_a_chunk_that_is_there_twice_counts_once(
    first: int, count: int, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    data, indices = chunked(950, 100)
    decoded, found = salvage(repeated(data, first, count, times))
    assert np.array_equal(decoded, indices)
    assert (found.gaps, found.complete) == ([], True)
    assert "there twice" in caplog.text
    with pytest.raises(BitstreamError, match="should hold 950"):
        unpack(repeated(data, first, count, times))


def test_silence_repeats_itself_honestly(caplog: pytest.LogCaptureFixture) -> None:
    """Equal chunks of a sound file stay; one too many among them goes.

    And what could be in two places is refused.
    """
    indices = skewed((1, 1, 1000), 50, 3)
    indices[..., 200:500] = 7
    data = write_in_splits(SPEECH, indices, 16000, NO_TABLES, list(range(100, 1000, 100)))
    assert np.array_equal(salvage(data)[0], indices)
    assert not caplog.records
    assert np.array_equal(salvage(repeated(data, 3))[0], indices)
    with pytest.raises(BitstreamError, match="index checksum does not match"):
        salvage(repeated(data, 8))


def test_a_foreign_chunk_is_no_repeat() -> None:
    """Negative control: as many positions too many, of another content."""
    data, indices = chunked()
    other = write_in_splits(
        SPEECH, (indices + 1) % 50, 16000, NO_TABLES, list(range(100, 1000, 100))
    )
    start, stop = places(other)[3]
    at = places(data)[5][0]
    with pytest.raises(BitstreamError, match="index checksum does not match"):
        salvage(data[:at] + other[start:stop] + data[at:])


def uneven() -> tuple[bytes, Array]:
    """Chunks of very unequal bytes, as of pauses and speech: their bytes do not tell how long they
    are.
    """
    indices = skewed((1, 1, 1000), 50, 3)
    indices[..., 200:500] = 7
    return write_in_splits(SPEECH, indices, 16000, PAUSES, list(range(100, 1000, 100))), indices


@given(st.sets(st.integers(0, 9), min_size=2), st.integers(1, 255))
@settings(deadline=None, max_examples=60)
def test_damaged_payloads_leave_all_other_chunks_in_their_places(
    numbers: set[int], flip: int
) -> None:
    data, indices = uneven()
    decoded, found = salvage(spoilt(data, numbers, flip), PAUSES)
    assert lost(found) == [100 * number + i for number in sorted(numbers) for i in range(100)]
    kept = np.setdiff1d(np.arange(1000), lost(found))
    assert np.array_equal(decoded[..., kept], indices[..., kept])


def spoilt(data: bytes, numbers: set[int], flip: int) -> bytes:
    """With the last byte before the CRC-32 of these data chunks changed."""
    damaged = bytearray(data)
    for number in numbers:
        damaged[places(data)[number + 1][1] - 5] ^= flip
    return bytes(damaged)


def test_by_their_bytes_alone_some_would_come_to_lie_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Negative control of the test above."""
    data, indices = uneven()
    damaged, tables = spoilt(data, {2, 3, 4, 9}, 1), PAUSES
    assert np.array_equal(salvage(damaged, tables)[0][..., 500:900], indices[..., 500:900])
    monkeypatch.setattr("codec.container.salvage._claimed", lambda *_: ())
    assert not np.array_equal(salvage(damaged, tables)[0][..., 500:900], indices[..., 500:900])


def test_a_chunk_that_its_coder_refuses_joins_the_gaps_in_order() -> None:
    """Its CRC-32 matches, and so nothing is told before it is decoded."""
    indices = np.where(np.arange(1000) % 10 > 0, 7, skewed((1, 1, 1000), 50, 3))
    data = write_in_splits(SPEECH, indices, 16000, PAUSES, list(range(100, 1000, 100)))
    chunks = split_chunks(data)
    kind, payload = chunks[3]
    count, length = payload[:2]
    chunks[3] = kind, bytes([count, length + 1]) + payload[2:] + b"\0"
    resealed = join_chunks(chunks)
    decoded, found = salvage(resealed, PAUSES)
    assert found.gaps == [(200, 300)]
    assert found.complete
    kept = np.setdiff1d(np.arange(1000), lost(found))
    assert np.array_equal(decoded[..., kept], indices[..., kept])
    decoded, found = salvage(spoilt(resealed, {6}, 1), PAUSES)
    assert found.gaps == [(200, 300), (600, 700)]
    assert decoded.shape == indices.shape


def test_what_is_lost_repeats_the_index_before_it_however_long_it_is() -> None:
    data, indices = chunked()
    cut = data[: places(data)[4][0]]
    decoded, found = salvage(cut, total=200_000)
    assert found.gaps == [(300, 200_000)]
    assert decoded.shape == (1, 1, 200_000)
    assert np.array_equal(decoded[..., :300], indices[..., :300])
    assert (decoded[..., 300:] == indices[..., 299]).all()
    assert indices[0, 0, 200] != indices[0, 0, 299]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(60, 700))
def test_damage_shares_out_what_is_missing_and_no_more(sizes: list[int], total: int) -> None:
    sound = Piece(60, Data(60, [(0, bytes(60))]))
    pieces = [sound, *(Piece(0, None, size) for size in sizes)]
    counts = [piece.count for piece in fill(pieces, total)]
    assert min(counts) >= 0
    assert sum(counts) == total


def test_a_count_that_is_damaged_is_not_believed() -> None:
    """One chunk says that it holds 115 positions and not 100, another is damaged inside: the total
    tells them apart.
    """
    data, indices = uneven()
    start = places(data)[3][0]
    assert data[start + 2] == 100  # after the type and a length of one byte
    damaged = bytearray(spoilt(data, {7}, 1))
    damaged[start + 2] ^= 16 | 1 | 2
    decoded, found = salvage(bytes(damaged), PAUSES)
    assert found.gaps == [(200, 300), (700, 800)]
    assert np.array_equal(decoded[..., 300:700], indices[..., 300:700])


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_any_truncation_gives_what_is_before_it(name: str) -> None:
    data, _, indices, _, tables = load_golden(name)
    chunks = places(data)
    counts = [chunk.shape[2] for chunk in Reader(io.BytesIO(data)).chunks(tables)]
    for length in range(len(data)):
        if length < chunks[0][1]:
            with pytest.raises(BitstreamError):
                salvage(data[:length], tables)
            continue
        decoded, found = salvage(data[:length], tables)
        count = sum(n for n, (_, stop) in zip(counts, chunks[1:-1], strict=True) if stop <= length)
        assert np.array_equal(decoded[..., :count], indices[..., :count])
        assert lost(found) == list(range(count, decoded.shape[2]))
        assert not found.complete


@pytest.mark.parametrize("cut", [1, 5, 300, 700])
def test_a_cut_file_gives_what_is_before_the_cut(cut: int) -> None:
    data, indices = chunked()
    decoded, found = salvage(data[:-cut])
    assert not found.length_known
    sound = [i for i, (_, stop) in enumerate(places(data)[1:-1]) if stop <= len(data) - cut]
    count = 100 * len(sound)
    assert np.array_equal(decoded[..., :count], indices[..., :count])
    assert lost(found) == list(range(count, decoded.shape[2]))


def test_a_picture_has_its_size_from_the_header() -> None:
    header = Header("image", MODEL_ID, 50, 50, channels=3, height=80, width=80)
    indices = skewed((1, 1, 100), 50, 3)
    data = write_in_splits(header, indices, 0, NO_TABLES, [40, 80])
    decoded, found = salvage(data[: places(data)[2][0]], total=100)
    assert decoded.shape == indices.shape
    assert np.array_equal(decoded[..., :40], indices[..., :40])
    assert found.gaps == [(40, 100)]


def test_inserted_bytes_are_skipped() -> None:
    data, indices = chunked()
    start = places(data)[4][0]
    decoded, found = salvage(data[:start] + b"DDDD\x05EE" * 9 + data[start:])
    assert np.array_equal(decoded, indices)
    assert (found.gaps, found.complete) == ([], False)


def test_the_header_must_be_sound() -> None:
    data, _ = chunked()
    for at in range(10, places(data)[0][1]):
        with pytest.raises(BitstreamError):
            salvage(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_swapped_chunks_are_told_even_so() -> None:
    data, _ = chunked()
    head, *body, end = split_chunks(data)
    with pytest.raises(BitstreamError, match="out of order"):
        salvage(join_chunks([head, body[1], body[0], *body[2:], end]))


def test_limits_hold() -> None:
    data, _ = chunked()
    chunks = split_chunks(data)
    claimed = chunks[-1][1][:2] + b"\xff\xff\xff\xff\x7f" + chunks[-1][1][-4:]
    body = b"E" + bytes([len(claimed)]) + claimed
    start = places(data)[-1][0]
    with pytest.raises(BitstreamError, match="over the limit"):
        Salvage(
            io.BytesIO(data[:start] + body + zlib.crc32(body).to_bytes(4, "big")),
            Limits(max_seconds=5),
        )


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_all_two_chunk_swaps_are_refused(name: str) -> None:
    """By the strict reader; this one refuses, too, or says that all that is not in its place is
    lost.
    """
    data, _, indices, _, tables = load_golden(name)
    chunks = split_chunks(data)
    assert len(chunks) >= 4
    for one, other in itertools.combinations(range(len(chunks)), 2):
        swapped = list(chunks)
        swapped[one], swapped[other] = chunks[other], chunks[one]
        with pytest.raises(BitstreamError):
            unpack(join_chunks(swapped), tables)
        try:
            decoded, found = salvage(join_chunks(swapped), tables)
        except BitstreamError:
            continue
        assert found.gaps
        kept = np.setdiff1d(np.arange(indices.shape[2]), lost(found))
        assert np.array_equal(decoded[..., kept], indices[..., kept])


def speech_file(model: Model, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, NDArray[np.float32]]:
    monkeypatch.setattr("codec.coding.speech.FRAMES_PER_WINDOW", 50)
    samples = tones(96 * 50 * 6 + 13, channels=2)
    file = io.BytesIO()
    coding.compress_speech([samples], 16000, 2, file, model, 1024)
    return file.getvalue(), samples


def decoded(reader: Reader | Salvage, model: Model) -> NDArray[np.float32]:
    return np.concatenate(list(coding.decompress_speech(reader, model)))


def test_lost_speech_is_silence_and_the_rest_as_it_was(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, samples = speech_file(speech_model, monkeypatch)
    whole = decoded(Reader(io.BytesIO(data)), speech_model)
    start = places(data)[3][0] + 9
    found = Salvage(io.BytesIO(data[:start] + b"?" + data[start + 1 :]))
    partial = decoded(found, speech_model)
    assert partial.shape == whole.shape == samples.shape
    assert found.gaps == [(100, 150)]
    assert not partial[9600:14400].any()
    reach = speech_model.codec.context * 96
    assert np.array_equal(partial[: 9600 - reach], whole[: 9600 - reach])
    assert np.array_equal(partial[14400 + reach :], whole[14400 + reach :])
    assert np.abs(whole[9600:14400]).max() > 0.01


def test_windows_longer_and_shorter_than_what_is_lost_are_silent_there_alone(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = speech_file(speech_model, monkeypatch)
    start = places(data)[3][0] + 9
    damaged = data[:start] + b"?" + data[start + 1 :]
    expected = decoded(Salvage(io.BytesIO(damaged)), speech_model)
    assert expected[9600 - 96 : 9600].any()
    assert expected[14400 : 14400 + 96].any()
    for frames in (20, 35, 130, 400):
        monkeypatch.setattr("codec.coding.speech.FRAMES_PER_WINDOW", frames)
        found = decoded(Salvage(io.BytesIO(damaged)), speech_model)
        assert np.array_equal(found == 0, expected == 0)
        assert np.allclose(found, expected, atol=1e-5)


def test_lost_pixels_are_grey(image_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.coding.pictures.ROWS_PER_CHUNK", 8)
    monkeypatch.setattr("codec.coding.pictures.FEWEST_ROWS", 8)
    pixels, file = gradient(203, 99), io.BytesIO()
    coding.compress_image(pixels, file, image_model, 1024)
    data = file.getvalue()
    whole = coding.decompress_image(Reader(io.BytesIO(data)), image_model)
    start = places(data)[2][0] + 9
    header = Reader(io.BytesIO(data)).header
    total = coding.num_positions(header, image_model)
    assert total == 26 * 13
    found = Salvage(io.BytesIO(data[:start] + b"?" + data[start + 1 :]), num_positions=total)
    partial = coding.decompress_image(found, image_model)
    assert partial.shape == whole.shape
    assert (partial[64:128] == pictures.GREY).all()
    # Pixels: the stem, then a block of each scale, the head with the last.
    reach = 8 * (1 + 3 + 2 + 1)
    assert np.array_equal(partial[128 + reach :], whole[128 + reach :])
    assert not (whole[64:128] == pictures.GREY).all()
    # In strips of one row of latents.
    monkeypatch.setattr("codec.coding.pictures.POSITIONS_PER_STRIP", {"cpu": 1, "cuda": 1})
    found = Salvage(io.BytesIO(data[:start] + b"?" + data[start + 1 :]), num_positions=total)
    again = coding.decompress_image(found, image_model)
    assert np.abs(again.astype(int) - partial).max() <= 1
    assert (again[64:128] == pictures.GREY).all()


def test_a_file_that_says_nothing_of_its_length(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, _ = speech_file(speech_model, monkeypatch)
    found = Salvage(io.BytesIO(data[: places(data)[4][0]]))
    partial = decoded(found, speech_model)
    assert len(partial) == 150 * 96
    assert not found.length_known
    assert coding.lost(found, speech_model) == []
    missing = "the end of the file is missing: the length is that of what was found"
    assert caplog.messages == [missing]
    whole = Salvage(io.BytesIO(data))
    decoded(whole, speech_model)
    assert coding.lost(whole, speech_model) == []
    assert caplog.messages == [missing]
    file = io.BytesIO()
    coding.compress_speech([tones(96 * 600)], 32000, 1, file, speech_model, 1024)
    data = file.getvalue()
    found = Salvage(io.BytesIO(data[: places(data)[4][0]]))
    assert len(decoded(found, speech_model)) == 150 * 192  # at the rate of the original


def test_older_files_are_read_without_the_prior(speech_model: Model) -> None:
    """A file that names the base id is this model's, but not its prior's."""
    card = speech_model.card
    assert card.base_id != card.model_id
    indices = torch.randint(0, 1024, (1, 1, 40)).numpy()
    header = Header("speech", card.base_id, 1024, 1024, sample_rate=16000)
    old = write_in_splits(
        header, indices, 40 * 96, Tables(speech_model.tables[1024].frequencies), []
    )
    assert len(decoded(Reader(io.BytesIO(old)), speech_model)) == 40 * 96
    constant = np.zeros((1, 1, 400), np.int64)
    forged = write_in_splits(header, constant, 400 * 96, speech_model.tables[1024], [])
    with pytest.raises(BitstreamError, match="no prior"):
        decoded(Reader(io.BytesIO(forged)), speech_model)
    honest = write_in_splits(
        dataclasses.replace(header, model_id=card.model_id),
        constant,
        400 * 96,
        speech_model.tables[1024],
        [],
    )
    assert len(decoded(Reader(io.BytesIO(honest)), speech_model)) == 400 * 96


def test_real_speech_survives_damage(
    real: Callable[[str, int], bytes], speech_model: Model
) -> None:
    from codec import api

    data = bytearray(api.compress(real("speech-test.tar", 0), 1024, speech_model))
    data[len(data) // 2] ^= 0xFF
    found = Salvage(io.BytesIO(bytes(data)))
    assert len(decoded(found, speech_model)) == found.num_samples
    assert found.gaps
