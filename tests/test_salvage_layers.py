"""Layers of a file whose base is damaged: what the base lost stays lost, the rest is as fine as its
layers are.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav
from numpy.typing import NDArray
from test_bitstream import join_chunks, split_chunks
from test_layers import cases, written

import codec
from codec import coding
from codec.cli.decompress import decompress_main
from codec.container import Reader, Salvage
from codec.entropy import Tables
from codec.errors import BitstreamError
from codec.layers import refine, survey

Array = NDArray[np.int64]
Case = tuple[bytes, dict[int, Tables], dict[int, Array], list[tuple[int, int]]]
COUNT, CHUNK = 90, 20


def many_chunks() -> Case:
    """A recording in five chunks: the file, tables, true indices by size, where the data chunks lie
    in it.
    """
    header, indices, samples, tables, _ = cases()["layers-speech"]
    data = written(header, indices, samples, tables, list(range(CHUNK, COUNT, CHUNK)))
    truth = {header.codebook_size: indices}
    for size in (128, 64):
        prior = tables[size].layer
        assert prior is not None
        coarser = size // prior.num_refined
        places = prior.to_places(truth[size].ravel()) // prior.num_refined
        truth[coarser] = places.reshape(indices.shape)
    places_of, at = [], 10
    for kind, payload in split_chunks(data[: survey(io.BytesIO(data)).summary.file_bytes]):
        size = 1 + (1 if len(payload) < 128 else 2) + len(payload) + 4
        if kind == b"D":
            places_of.append((at, at + size))
        at += size
    return data, tables, truth, places_of


def salvaged(
    data: bytes, tables: dict[int, Tables], size: int | None = None
) -> tuple[int, Array, Salvage, BitstreamError | None]:
    found = Salvage(io.BytesIO(data))
    damage = refine(found, tables, size)
    return found.header.codebook_size, np.concatenate(list(found.chunks()), axis=2), found, damage


def flipped(data: bytes, *places: int) -> bytes:
    spoilt = bytearray(data)
    for at in places:
        spoilt[at] ^= 0x55
    return bytes(spoilt)


@pytest.mark.parametrize("lost", [(0,), (2,), (4,), (1, 2), (0, 3), (1, 4), (0, 1, 2, 3)])
def test_what_the_base_lost_stays_lost_and_the_rest_is_fine(lost: tuple[int, ...]) -> None:
    data, tables, truth, chunks = many_chunks()
    spoilt = flipped(data, *(chunks[number][0] + 9 for number in lost))
    kept = [p for p in range(COUNT) if p // CHUNK not in lost]
    for size in (None, 128, 64, 16):
        top, indices, found, damage = salvaged(spoilt, tables, size)
        assert top == (size or 128)
        assert indices.shape == truth[top].shape
        assert np.array_equal(indices[:, :, kept], truth[top][:, :, kept])
        assert [p for start, stop in found.gaps for p in range(start, stop)] == sorted(
            set(range(COUNT)) - set(kept)
        )
        assert damage is None
        assert found.header.num_codes == (96, 48, 12)[(128, 64, 16).index(top)]


def test_damage_in_a_layer_too_leaves_those_below() -> None:
    data, tables, truth, chunks = many_chunks()
    spots = [
        piece.offset + 4 for layer in survey(io.BytesIO(data)).layers for piece in layer.pieces
    ]
    for number, (spot, expected) in enumerate(zip(spots, [16] * 5 + [64] * 5, strict=True)):
        spoilt = flipped(data, chunks[1][0] + 9, spot)
        top, indices, _, damage = salvaged(spoilt, tables)
        assert top == expected, number
        assert damage is not None
        keep = [p for p in range(COUNT) if p // CHUNK != 1]
        assert np.array_equal(indices[:, :, keep], truth[top][:, :, keep])
    cut = flipped(data, chunks[1][0] + 9)[:-3]
    assert salvaged(cut, tables)[0] == 64


def test_without_the_end_chunk_there_are_no_layers() -> None:
    data, tables, truth, _ = many_chunks()
    stop = survey(io.BytesIO(data)).summary.file_bytes
    top, indices, _, damage = salvaged(flipped(data, stop - 6), tables)
    assert (top, indices.shape) == (16, truth[16].shape)
    assert np.array_equal(indices, truth[16])
    assert "end of the base is lost" in str(damage)
    with pytest.raises(ValueError, match="choose from 16"):
        salvaged(flipped(data[:stop], 60), tables, 64)


def test_chunks_of_another_length_than_thought_end_the_layers() -> None:
    """The lost chunk is twice the usual one; its layers cannot be found, and are not guessed."""
    header, indices, samples, tables, _ = cases()["layers-speech"]
    data = written(header, indices, samples, tables, [20, 40, 80])
    at = 10
    for number, (_, payload) in enumerate(
        split_chunks(data[: survey(io.BytesIO(data)).summary.file_bytes])
    ):
        if number == 3:
            break
        at += 1 + (1 if len(payload) < 128 else 2) + len(payload) + 4
    gone = data[:at] + bytes(5) + data[at + 8 :]  # not even what it said of its length is left
    top, found_indices, _, damage = salvaged(gone, tables)
    assert top == 16
    assert damage is not None
    assert found_indices.shape[2] == COUNT


def test_every_flipped_byte_gives_true_indices_or_a_gap() -> None:
    data, tables, truth, _ = many_chunks()
    start = 10 + 1 + 1 + split_lengths(data)[0] + 4
    for at in range(start, len(data)):
        top, indices, found, _ = salvaged(flipped(data, at), tables)
        gone = {p for first, last in found.gaps for p in range(first, last)}
        kept = [p for p in range(COUNT) if p not in gone]
        if indices.shape[2] == COUNT:
            assert np.array_equal(indices[:, :, kept], truth[top][:, :, kept])
        assert len(gone) <= CHUNK


def split_lengths(data: bytes) -> list[int]:
    return [
        len(payload)
        for _, payload in split_chunks(data[: survey(io.BytesIO(data)).summary.file_bytes])
    ]


def test_foreign_layers_are_left_out() -> None:
    """Layers of another file, sealed for its own base, go with no other base, damaged or not."""
    data, tables, _, chunks = many_chunks()
    header, indices, samples, _, _ = cases()["layers-speech"]
    other = written(
        header, np.roll(indices, 1, 2), samples, tables, list(range(CHUNK, COUNT, CHUNK))
    )
    stops = [survey(io.BytesIO(file)).summary.file_bytes for file in (data, other)]
    grafted = flipped(data, chunks[2][0] + 9)[: stops[0]] + other[stops[1] :]
    top, _, _, damage = salvaged(grafted, tables)
    assert top == 16
    assert damage is not None


# --------------------------------------------------------------------------------------------------
# commands


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("medium", ["speech", "image"])
def test_the_command_reads_the_layers_of_what_is_left(
    medium: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys,
) -> None:
    monkeypatch.setattr("codec.coding.speech.FRAMES_PER_WINDOW", 60)
    monkeypatch.setattr("codec.coding.pictures.ROWS_PER_CHUNK", 4)
    monkeypatch.setattr("codec.coding.pictures.FEWEST_ROWS", 4)
    media = wav(tones(30_000)) if medium == "speech" else picture(gradient(160, 64))
    data = codec.compress(media, 1024, layers=True)
    chunks = [kind for kind, _ in split_chunks(data[: survey(io.BytesIO(data)).summary.file_bytes])]
    assert chunks.count(b"D") >= 4
    at = 10 + sum(
        5 + (1 if len(p) < 128 else 2) + len(p) for _, p in split_chunks(base_of(data))[:2]
    )
    path, out = tmp_path / "a.bin", tmp_path / ("a.wav" if medium == "speech" else "a.png")
    path.write_bytes(flipped(data, at + 12))
    assert decompress_main([str(path), str(out), "-q"]) == 4
    assert decompress_main([str(path), str(out), "--partial", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["codebook_size"] == 1024
    assert len(report["lost"]) == 1
    fine = out.read_bytes()
    model = codec.load(medium=medium)
    found = coding.salvaged(
        Salvage(io.BytesIO(path.read_bytes()), num_positions=total(data, model)), model
    )
    truth = coding.read_indices(data, model)[1]
    indices = np.concatenate(list(found.chunks()), axis=2)
    ((start, stop),) = found.gaps
    kept = [p for p in range(truth.shape[2]) if not start <= p < stop]
    assert np.array_equal(indices[:, :, kept], truth[:, :, kept])
    assert decompress_main([str(path), str(out), "--partial", "-k", "256", "-f", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["codebook_size"] == 256
    assert out.read_bytes() != fine
    caplog.clear()
    path.write_bytes(flipped(data, at + 12)[:-3])  # and the last layer is cut short
    assert decompress_main([str(path), str(out), "--partial", "-f"]) == 0
    assert (
        "decoded at K = 256, for the layers above it are lost"
        in caplog.text + capsys.readouterr().err
    )
    assert decompress_main([str(path), str(out), "--partial", "-k", "4096", "-f"]) in (0, 1)


def base_of(data: bytes) -> bytes:
    return data[: survey(io.BytesIO(data)).summary.file_bytes]


def total(data: bytes, model: coding.Model) -> int | None:
    return coding.num_positions(Reader(io.BytesIO(data)).header, model)


def test_helpers_agree() -> None:
    """The chunks that these tests split are those that a file is joined from."""
    data, _, _, chunks = many_chunks()
    whole = base_of(data)
    assert join_chunks(split_chunks(whole))[10:] == whole[10:]
    assert len(chunks) == 5
