"""Files with layers: golden ones cut and flipped at every byte, the library, the commands,
and FORMAT.md.

Running this file as a script writes golden files that do not exist yet. Those that exist are frozen
for ever.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav
from numpy.typing import NDArray
from second_decoder import decode_file
from test_bitstream import GOLDEN, MODEL_ID, as_lists, drawn, skewed

import codec
from codec import cards, coding
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.cli.info import info_main
from codec.cli.truncate import truncate_main
from codec.container import Header, Limits, Reader, Writer, pack, unpack, varint
from codec.container.salvage import Salvage
from codec.entropy import NO_TABLES, Prior, Tables, refinement
from codec.errors import BitstreamError, MediaError, ModelError
from codec.layers import Layer, Layered, LayerWriter, cut, ladder, survey
from codec.layers.decoding import wanted
from codec.truncation import truncate

Array = NDArray[np.int64]
NAMES = ["layers-speech", "layers-image"]


def drawn_layer(
    levels: tuple[int, ...], given: int, offsets: list[tuple[int, int]], stride: int, state: int
) -> Prior:
    """A prior for a refinement that is the same on every machine for ever, and whose every table
    matters.
    """
    num_rows, units, own = sum(levels), 8, levels[given:]
    return Prior(
        levels=np.array(levels),
        order=np.argsort(drawn((int(np.prod(levels)),), 10**6, state), kind="stable"),
        offsets=np.array(offsets),
        embedding=drawn((num_rows + 1, 2), 60, state + 2),
        hidden=drawn(((len(offsets) + 1) * 2, units), 4000, state + 3),
        bias=drawn((units,), 300_000, state + 4),
        speeds=np.array([3]),
        digits=drawn((num_rows - levels[-1], units), 4000, state + 5),
        nodes=drawn((sum(own) - len(own), units), 300, state + 6),
        stride=stride,
        given=given,
    )


def drawn_base(
    levels: tuple[int, ...], offsets: list[tuple[int, int]], stride: int, state: int
) -> Prior:
    layer = drawn_layer((*levels, 2), len(levels), offsets, stride, state)
    return Prior(
        levels=np.array(levels),
        order=np.empty(0, np.int64),
        offsets=layer.offsets,
        embedding=layer.embedding[2:],
        hidden=layer.hidden,
        bias=layer.bias,
        speeds=layer.speeds,
        digits=layer.digits[levels[-1] :],
        nodes=drawn((sum(levels) - len(levels), 8), 300, state + 7),
        stride=stride,
    )


def grown(base: Array, steps: list[Prior], state: int) -> Array:
    """Indices of the finest codebook above (A, 1, n) of the coarsest.

    The last step's children are noise.
    """
    indices = base
    for number, prior in enumerate(steps):
        children = skewed(base.shape, prior.num_refined, state + number)
        if number < len(steps) - 1:
            children = children // 2
        indices = prior.from_places(indices * prior.num_refined + children)
    return indices


def cases() -> dict[str, tuple[Header, Array, int, dict[int, Tables], list[int]]]:
    """Name -> header of the finest codebook, its indices, samples, tables by codebook size, where
    chunks end.
    """
    before, around = [(0, -1), (0, -2)], [(0, -1), (0, 1), (0, 2)]
    speech = {
        16: Tables(prior=drawn_base((4, 3), before, 0, 100)),
        64: Tables(layer=drawn_layer((4, 3, 2, 2), 2, around, 0, 200)),
        128: Tables(layer=drawn_layer((48, 2), 1, around, 0, 300)),
    }
    near = [(0, -1), (1, 0), (1, 1), (0, 1), (-1, 0), (-2, -1)]
    image = {
        20: Tables(prior=drawn_base((5, 4), [(0, -1), (1, 0), (1, 1)], 8, 400)),
        60: Tables(layer=drawn_layer((5, 4, 3), 2, near, 8, 500)),
        240: Tables(layer=drawn_layer((60, 4), 1, near, 8, 600)),
    }
    speech_steps = [tables.layer for tables in speech.values() if tables.layer]
    image_steps = [tables.layer for tables in image.values() if tables.layer]
    return {
        "layers-speech": (
            Header("speech", MODEL_ID, 128, 96, channels=2, sample_rate=24000),
            grown(skewed((2, 1, 90), 12, 21) // 3, speech_steps, 22),
            25_900,
            speech,
            [50],
        ),
        "layers-image": (
            Header("image", MODEL_ID, 240, 240, channels=3, height=81, width=99),
            grown(skewed((1, 1, 143), 20, 31) // 3, image_steps, 32),
            0,
            image,
            [78],
        ),
    }


def written(
    header: Header, indices: Array, samples: int, tables: dict[int, Tables], ends: list[int]
) -> bytes:
    file = io.BytesIO()
    writer = LayerWriter(file, header, tables)
    for piece in np.split(indices, ends, axis=2):
        writer.write(piece)
    writer.finish(samples)
    assert writer.total_bytes == len(file.getvalue())
    found = survey(io.BytesIO(file.getvalue()))
    payload = found.summary.payload_bytes + sum(layer.payload_bytes for layer in found.layers)
    assert writer.payload_bytes == payload
    return file.getvalue()


def write_golden() -> None:
    """Writes the golden files that are missing."""
    for name, (header, indices, samples, tables, ends) in cases().items():
        path = GOLDEN / f"{name}.bin"
        if path.exists():
            continue
        path.write_bytes(written(header, indices, samples, tables, ends))
        base, *finer = ladder(tables, header.codebook_size)
        rows, found = [], indices
        for size in reversed(finer):
            layer = tables[size].layer
            assert layer is not None
            rows.insert(
                0, {"codebook_size": size, "prior": as_lists(layer), "indices": found.tolist()}
            )
            found = np.stack([refinement.parents(stream[0], layer)[None] for stream in found])
        prior = tables[base].prior
        assert prior is not None
        base_header = dataclasses.replace(header, codebook_size=base, num_codes=prior.num_codes)
        expected = {
            "header": dataclasses.asdict(base_header) | {"model_id": header.model_id.hex()},
            "num_samples": samples,
            "tables": None,
            "prior": as_lists(prior),
            "indices": found.tolist(),
            "layers": rows,
        }
        path.with_suffix(".json").write_text(json.dumps(expected) + "\n")


def arrays(lists: dict[str, Any]) -> Prior:
    tables = {name: np.array(table, np.int64) for name, table in lists.items()}
    return Prior.from_tensors(
        tables | {"digits": tables["digits"].reshape(-1, len(tables["bias"]))}
    )


def load(name: str) -> tuple[bytes, dict[str, Any], dict[int, Tables], dict[int, Array]]:
    """The file, what is known of it, the tables and the indices by codebook size."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    base = golden["header"]["codebook_size"]
    tables = {base: Tables(prior=arrays(golden["prior"]))}
    tables |= {row["codebook_size"]: Tables(layer=arrays(row["prior"])) for row in golden["layers"]}
    indices = {base: np.array(golden["indices"])}
    indices |= {row["codebook_size"]: np.array(row["indices"]) for row in golden["layers"]}
    return (GOLDEN / f"{name}.bin").read_bytes(), golden, tables, indices


def decoded(
    data: bytes, tables: dict[int, Tables], size: int | None = None
) -> tuple[int, Array, Layered]:
    reader = Layered(Reader(io.BytesIO(data)), tables, size)
    nothing = np.empty((reader.header.num_streams, 1, 0), np.int64)
    return reader.header.codebook_size, np.concatenate([nothing, *reader.chunks()], axis=2), reader


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_decode_for_ever(name: str) -> None:
    data, golden, tables, indices = load(name)
    assert data[9] == 2
    assert len(data) < 2048
    found = survey(io.BytesIO(data))
    assert found.damage is None
    assert list(found.stops) == list(indices)
    assert found.stops[max(indices)] == len(data)
    sizes = {
        len(stream) for layer in found.layers for piece in layer.pieces for stream in piece.streams
    }
    assert len(sizes) > 1
    for size, expected in indices.items():
        top, values, reader = decoded(data, tables, size)
        assert top == size
        assert np.array_equal(values, expected)
        assert reader.damage is None
        assert (reader.num_samples, reader.num_positions) == (
            golden["num_samples"],
            expected.shape[2],
        )
        assert reader.header.num_codes > expected.max()
    assert decoded(data, tables)[0] == max(indices)
    assert cases()[name][1].tolist() == indices[max(indices)].tolist()
    assert written(*cases()[name]) == data


@pytest.mark.parametrize("name", NAMES)
def test_the_second_decoder_reads_every_layer(name: str) -> None:
    data, golden, _, indices = load(name)
    for size, expected in indices.items():
        header, samples, streams = decode_file(data, golden, size)
        assert (header["codebook_size"], samples) == (size, golden["num_samples"])
        assert streams == expected.tolist()
    assert decode_file(data, golden)[0]["codebook_size"] == max(indices)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_anywhere_decodes_at_the_highest_whole_layer_or_is_refused(name: str) -> None:
    data, golden, tables, indices = load(name)
    stops = survey(io.BytesIO(data)).stops
    for length in range(len(data)):
        whole = [size for size, stop in stops.items() if stop <= length]
        if not whole:
            with pytest.raises(BitstreamError):
                decoded(data[:length], tables)
            continue
        size, values, reader = decoded(data[:length], tables)
        assert size == whole[-1]
        assert np.array_equal(values, indices[size])
        assert (reader.damage is None) == (length in stops.values())
        if length % 5 == 0:
            assert decode_file(data[:length], golden)[2] == values.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_byte_loses_its_layer_and_those_above(name: str) -> None:
    data, golden, tables, indices = load(name)
    stops = survey(io.BytesIO(data)).stops
    for at in range(len(data)):
        for flip in (0xFF, 1 << at % 8):
            spoilt = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            whole = [size for size, stop in stops.items() if stop <= at]
            if at == 9 and spoilt[9] >= 2:
                assert np.array_equal(decoded(spoilt, tables)[1], indices[max(indices)])
            elif not whole:  # a version that has no layers is among these
                with pytest.raises(BitstreamError):
                    decoded(spoilt, tables)
            else:
                size, values, reader = decoded(spoilt, tables)
                assert size == whole[-1]
                assert np.array_equal(values, indices[size])
                assert reader.damage is not None
                assert decoded(spoilt, tables, size)[2].damage is None
                if at % 7 == 0:
                    assert decode_file(spoilt, golden)[2] == values.tolist()


def pieces_of(data: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Where `E` ends, and (start, stop) of every piece behind it.

    M belongs to the first of a layer.
    """
    found = survey(io.BytesIO(data))
    stops = [
        stop
        for layer in found.layers
        for stop in [*(piece.offset for piece in layer.pieces[1:]), layer.stop]
    ]
    starts = [found.summary.file_bytes, *stops[:-1]]
    return starts[0], list(zip(starts, stops, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_resealed_damage_is_found_or_harmless(name: str) -> None:
    """With every CRC-32 right again, as only a forger makes it, 8 bits that check the indices find
    most of it.
    """
    data, golden, tables, indices = load(name)
    stop, pieces = pieces_of(data)
    tried = missed = 0
    for number, (start, end) in enumerate(pieces):
        for at in range(start, end - 4):
            spoilt = bytearray(data)
            spoilt[at] ^= 1 << at % 8
            seal = spoilt[(pieces[number - 1][1] if number else stop) - 4 :][:4]
            for first, last in pieces[number:]:
                seal = zlib.crc32(seal + spoilt[first : last - 4]).to_bytes(4, "big")
                spoilt[last - 4 : last] = seal
            size, values, reader = decoded(bytes(spoilt), tables)
            tried += 1
            if at % 9 == 0:
                assert decode_file(bytes(spoilt), golden)[2] == values.tolist()
            if not np.array_equal(values, indices[size]):
                missed += 1
                continue
            assert reader.damage is not None
    assert tried > 50
    assert missed <= 0.02 * tried


@pytest.mark.parametrize("name", NAMES)
def test_swapped_repeated_and_foreign_layers_are_left_out(name: str) -> None:
    data, _, tables, indices = load(name)
    stop, pieces = pieces_of(data)
    parts = [data[start:end] for start, end in pieces]
    base = min(indices)
    for order in ([1, 0, 2, 3], [2, 3], [0, 0, 1], [3]):
        size, values, reader = decoded(data[:stop] + b"".join(parts[i] for i in order), tables)
        assert reader.damage is not None
        assert size == base
        assert np.array_equal(values, indices[base])
    size, _, reader = decoded(data + parts[0], tables)
    assert size == max(indices)
    assert reader.damage is not None
    # Layers of a file with other positions do not go with this one.
    header, fine, samples, _, ends = cases()[name]
    other = written(header, np.roll(fine, 1, 2), samples, tables, ends)
    grafted = data[:stop] + other[pieces_of(other)[0] :]
    assert decoded(grafted, tables)[0] == base


def test_what_layers_may_not_be() -> None:
    data, _, tables, _ = load("layers-speech")
    stop, _ = pieces_of(data)
    seal = data[stop - 4 : stop]

    def with_body(body: bytes) -> bytes:
        return data[:stop] + body + zlib.crc32(seal + body).to_bytes(4, "big")

    # 50 positions of two streams: 25 bytes each in fixed width, of 4 children 13.
    for body, message in [
        (b"\x00", "children"),
        (b"\x01", "children"),
        (varint(1 << 17), "children"),
        (b"\x80\x00", "varint"),
        (b"\x04\0", "ends inside"),
        (b"\x04\x0e\0", "shorter than the 13"),
        (b"\x04\0\x0e", "shorter than the 13"),
        (b"\x04\x0d\x0d\0" + bytes(1), "ends inside"),
        (b"\x04\x0d\x0d", "ends inside"),
    ]:
        damage = decoded(
            with_body(body)[:-4] if message == "ends inside" else with_body(body), tables
        )[2].damage
        assert message in str(damage)
        assert "\n" not in str(damage)
    several = pack(
        Header("image", MODEL_ID, 4, 4, num_codebooks=2, height=8, width=8),
        np.zeros((1, 2, 1), np.int64),
    )
    several = several[:9] + b"\2" + several[10:]
    assert survey(io.BytesIO(several)).damage is None
    assert "2 codebooks" in str(survey(io.BytesIO(several + b"\4")).damage)


def test_a_layer_has_no_more_codes_than_a_codebook_may() -> None:
    wide = Header("image", MODEL_ID, 1 << 16, 1 << 16, height=8, width=8)
    data = pack(wide, np.zeros((1, 1, 1), np.int64))
    body = varint(512) + b"\0" + bytes(3)
    data = data[:9] + b"\2" + data[10:] + body + zlib.crc32(data[-4:] + body).to_bytes(4, "big")
    assert "more than" in str(survey(io.BytesIO(data)).damage)


def test_tables_that_are_not_the_encoders_are_noticed() -> None:
    data, _, tables, indices = load("layers-image")
    for size, name, changed in [
        (60, "order", 60),
        (60, "nodes", None),
        (240, "embedding", None),
        (240, None, None),
    ]:
        layer = tables[size].layer
        assert layer is not None
        if name is None:
            wrong = NO_TABLES
        elif name == "order":
            wrong = Tables(layer=dataclasses.replace(layer, order=np.arange(changed)))
        else:
            wrong = Tables(
                layer=dataclasses.replace(layer, **{name: getattr(layer, name)[::-1].copy()})
            )
        top, values, reader = decoded(data, tables | {size: wrong})
        assert top < size
        assert np.array_equal(values, indices[top])
        assert reader.damage is not None


@pytest.mark.parametrize("name", NAMES)
def test_cutting(name: str) -> None:
    data, golden, tables, indices = load(name)
    for size, expected in indices.items():
        shorter = truncate(data, size)
        assert decoded(shorter, tables)[0] == size
        assert np.array_equal(decoded(shorter, tables)[1], expected)
        assert truncate(shorter, size) == shorter
        assert truncate(data, max_bytes=len(shorter)) == shorter
        assert truncate(data, max_bytes=len(shorter) + 1) == shorter
        if size > min(indices):
            assert truncate(data[: len(shorter) + 1], size) == shorter
            with pytest.raises(BitstreamError):
                truncate(data[: len(shorter) - 1], size)
            with pytest.raises(ValueError, match="choose from"):
                truncate(truncate(data, min(indices)), size)
    base = min(indices)
    header = Header(**(golden["header"] | {"model_id": MODEL_ID}))
    single = io.BytesIO()
    writer = Writer(single, header, tables[base])
    for piece in np.split(indices[base], cases()[name][4], axis=2):
        writer.write(piece)
    writer.finish(golden["num_samples"])
    assert truncate(data, base) == single.getvalue()  # not a trace is left
    assert truncate(data, max_bytes=1) == single.getvalue()
    assert np.array_equal(unpack(data, tables[base])[1], indices[base])
    for wrong in ({"codebook_size": 5}, {}, {"codebook_size": base, "max_bytes": 4}):
        with pytest.raises(ValueError, match=r"choose from|give"):
            truncate(data, **wrong)
    with pytest.raises(BitstreamError):
        truncate(data[:20], base)


@pytest.mark.parametrize("finer", [None, 64])
def test_a_layer_that_is_not_there_is_damage_only_where_it_may_be_lost(finer: int | None) -> None:
    header = Header("speech", MODEL_ID, 16, 16, sample_rate=16000)
    layers = [] if finer is None else [Layer(finer, finer, [], 100, 50)]
    lost = BitstreamError("lost")
    assert wanted(header, layers, lost, 128) == (layers, lost)
    assert wanted(header, layers, lost, 16) == ([], None)
    with pytest.raises(ValueError, match="no layer K = 8;"):
        wanted(header, layers, lost, 8)
    with pytest.raises(ValueError, match="no layer K = 128;"):
        wanted(header, layers, None, 128)


def test_cutting_a_file_without_layers_to_its_own_size_is_no_change() -> None:
    header = Header("speech", MODEL_ID, 16, 16, sample_rate=16000)
    data = pack(header, skewed((1, 1, 50), 16, 1), 800)
    assert truncate(data, 16) == data


def test_a_layer_coarser_than_the_damage_was_never_there() -> None:
    data, *_ = load("layers-speech")
    found = survey(io.BytesIO(data[:-1]))
    assert found.damage is not None
    with pytest.raises(ValueError, match="no layer K = 32;"):
        cut(data, found, 32)
    with pytest.raises(BitstreamError):
        cut(data, found, 128)


def test_a_ladder_ends_where_a_model_has_no_tables_for_the_size_below() -> None:
    _, _, _, tables, _ = cases()["layers-speech"]
    assert ladder(tables, 128) == [16, 64, 128]
    assert ladder({size: tables[size] for size in (64, 128)}, 128) == [64, 128]
    assert ladder({16: tables[16], 65: tables[64]}, 65) == [65]  # not four times as many
    assert ladder({16: tables[16], 67: tables[64]}, 67) == [67]


def test_several_codebooks_have_no_layers() -> None:
    header, _, _, tables, _ = cases()["layers-speech"]
    with pytest.raises(ValueError, match="refines no other"):
        LayerWriter(io.BytesIO(), dataclasses.replace(header, num_codebooks=2), tables)


def test_codes_beyond_16_bits_stay_what_they_are() -> None:
    header = Header("speech", MODEL_ID, 70_000, 70_000, sample_rate=16000)
    indices = np.array([[[69_999, 3, 65_536]]])
    data = pack(header, indices, 100)
    data = data[:9] + b"\2" + data[10:]  # it may have layers
    assert np.array_equal(next(iter(Layered(Reader(io.BytesIO(data)), {}).chunks())), indices)
    ((count, chunk),) = Salvage(io.BytesIO(data)).in_chunks(NO_TABLES)
    assert (count, chunk is not None and chunk.tolist()) == (3, indices.tolist())


@pytest.mark.parametrize(
    ("stride", "width", "sizes"), [(8, 800, [65_500, 4500]), (1, 100_000, [65_536, 4464])]
)
def test_chunks_of_a_picture_are_whole_rows_where_a_prior_looks_up(
    stride: int, width: int, sizes: list[int]
) -> None:
    """But for rows that are longer than a chunk may be."""
    prior = drawn_base((5, 4), [(0, -1), (1, 0)], stride, 400)
    header = Header("image", MODEL_ID, 20, 20, channels=3, height=8, width=width)
    writer = Writer(io.BytesIO(), header, Tables(prior=prior))
    pieces = writer.pieces(np.zeros((1, 1, 70_000), np.int64))
    assert [piece.shape[2] for piece in pieces] == sizes


def test_an_empty_recording_has_empty_layers() -> None:
    header, indices, _, tables, _ = cases()["layers-speech"]
    data = written(header, indices[:, :, :0], 0, tables, [])
    assert survey(io.BytesIO(data)).layers == []
    assert decoded(data, tables)[1].shape == (2, 1, 0)


def test_limits_hold() -> None:
    header, _, _, tables, _ = cases()["layers-image"]
    data, *_ = load("layers-image")
    with pytest.raises(BitstreamError, match="max-pixels"):
        Layered(Reader(io.BytesIO(data), Limits(max_pixels=8000)), tables)
    with pytest.raises(ValueError, match="refines no other"):
        LayerWriter(
            io.BytesIO(), dataclasses.replace(header, codebook_size=20, num_codes=20), tables
        )
    writer = LayerWriter(io.BytesIO(), header, tables)
    for wrong in (np.full((1, 1, 3), 240), np.zeros((2, 1, 3), np.int64)):
        with pytest.raises(ValueError, match="indices must"):
            writer.write(wrong)


# --------------------------------------------------------------------------------------------------
# models, functions, commands

MEDIA: dict[str, Callable[[], bytes]] = {
    "speech": lambda: wav(tones(30_000, 22050, 2), 22050),
    "image": lambda: picture(gradient(150, 700)),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("medium", MEDIA)
def test_a_file_with_layers_holds_every_file(medium: str) -> None:
    """The tiny models' K = 1024 refines 256.

    What is cut or stopped there is what compressing there gives.
    """
    media = MEDIA[medium]()
    data = codec.compress(media, 1024, layers=True)
    small, large = codec.compress(media, 256), codec.compress(media, 1024)
    assert codec.truncate(data, 256) == small
    assert codec.decompress(data) == codec.decompress(large)
    assert codec.decompress(data, codebook_size=256) == codec.decompress(small)
    record = codec.info(data)
    assert (record["format"], record["codebook_size"], record["bytes"]) == ("1.2", 1024, len(data))
    assert list(record["layers"]) == [256, 1024]
    assert record["layers"][256]["bytes"] == len(small)
    assert codec.info(small)["format"] == "1.1"
    assert "layers" not in codec.info(small)
    assert codec.compress(media, 1024) == large  # and nothing else has changed
    model = codec.load(medium=medium)
    for k, file in ((256, small), (1024, large)):
        cut = codec.truncate(data, k)
        assert np.array_equal(
            coding.read_indices(cut, model)[1], coding.read_indices(file, model)[1]
        )
    with pytest.raises(MediaError, match="choose from 256, 1024"):
        codec.decompress(data, codebook_size=4096)
    with pytest.raises(MediaError, match="no layers"):
        codec.decompress(large, codebook_size=256)
    with pytest.raises(ModelError, match="no layers at K"):
        codec.compress(media, 256, layers=True)


@pytest.mark.usefixtures("models")
def test_damage_above_is_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    media = MEDIA["speech"]()
    data = codec.compress(media, 1024, layers=True)
    small = codec.compress(media, 256)
    for spoilt in (data[:-1], data[: len(small) + 5], data[:-9] + b"x" + data[-8:]):
        caplog.clear()
        assert codec.decompress(spoilt) == codec.decompress(small)
        assert "decoded at K = 256, for the layers above it are lost" in caplog.text
        assert codec.info(spoilt)["damage"]
        assert list(codec.info(spoilt)["layers"]) == [256]
    caplog.clear()
    assert codec.decompress(data[: len(small)]) == codec.decompress(small)
    assert not caplog.text
    with pytest.raises(BitstreamError):
        codec.decompress(data[: len(small) - 1])


@pytest.fixture
def layered(tmp_path: Path, models: Path) -> Path:  # noqa: ARG001
    (tmp_path / "a.wav").write_bytes(MEDIA["speech"]())
    path = tmp_path / "a.bin"
    assert (
        compress_main([str(tmp_path / "a.wav"), str(path), "-k", "1024", "--layers", "-q", "-t"])
        == 0
    )
    return path


def test_the_commands(layered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = layered.parent
    data, small = layered.read_bytes(), codec.compress(MEDIA["speech"](), 256)
    assert data == codec.compress(MEDIA["speech"](), 1024, layers=True)
    assert truncate_main([str(layered), str(folder / "s.bin"), "-k", "256"]) == 0
    assert (folder / "s.bin").read_bytes() == small
    assert f"{len(data)} -> {len(small)} bytes, K = 256" in capsys.readouterr().out
    assert decompress_main([str(layered), str(folder / "s.wav"), "-k", "256", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["codebook_size"] == 256
    assert (folder / "s.wav").read_bytes() == codec.decompress(small)
    assert info_main([str(layered)]) == 0
    told = capsys.readouterr().out
    assert f"{len(small)} bytes" in told
    assert len({re.match(r"\S+(?: \S+)*  +", line).end() for line in told.splitlines()}) == 1  # type: ignore[union-attr]
    assert info_main([str(layered), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"]["256"]["bytes"] == len(small)
    rate = 8 * len(small) / (30_000 / 22050) / 1000
    for given, expected in ((rate + 0.001, small), (99.0, data), (0.1, small)):
        assert (
            truncate_main([str(layered), str(folder / "r.bin"), "-b", str(given), "-f", "--json"])
            == 0
        )
        assert (folder / "r.bin").read_bytes() == expected
        assert json.loads(capsys.readouterr().out)["bytes_out"] == len(expected)
    for arguments, code, message in [
        (["-k", "4096"], 1, "choose from 256, 1024"),
        (["-k", "256", "-b", "1"], 2, "--codebook-size or --bitrate"),
        ([], 2, "--codebook-size or --bitrate"),
        (["-b", "-1"], 2, "above 0"),
    ]:
        assert truncate_main([str(layered), str(folder / "none.bin"), *arguments]) == code
        assert message in capsys.readouterr().err
    assert truncate_main([str(layered), str(layered), "-k", "256"]) == 2
    assert truncate_main([str(folder / "a.wav"), str(folder / "none.bin"), "-k", "256"]) == 4
    assert not (folder / "none.bin").exists()


def test_a_folder_and_pipes(
    layered: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    source, target = layered.parent / "many", layered.parent / "less"
    (source / "deep").mkdir(parents=True)
    data = layered.read_bytes()
    for name in ("a.bin", "deep/b.bin"):
        (source / name).write_bytes(data)
    (source / "notes.txt").write_text("no")
    assert truncate_main([str(source), str(target), "-k", "256", "-q"]) == 0
    assert sorted(p.name for p in target.rglob("*") if p.is_file()) == ["a.bin", "b.bin"]
    assert (target / "deep/b.bin").read_bytes() == codec.truncate(data, 256)
    assert truncate_main([str(source), "-", "-k", "256"]) == 2
    stdin = type("In", (), {"buffer": io.BytesIO(data)})
    monkeypatch.setattr("sys.stdin", stdin)
    capfdbinary.readouterr()
    assert truncate_main(["-", "-", "-k", "256", "-q"]) == 0
    assert capfdbinary.readouterr().out == codec.truncate(data, 256)


def test_verifying_finds_damage_in_a_layer(
    layered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = layered.read_bytes()
    assert decompress_main([str(layered), "-t", "-q"]) == 0
    layered.write_bytes(data[:-3])
    assert decompress_main([str(layered), "-t"]) == 4
    assert "ends inside" in capsys.readouterr().err
    out = str(layered.with_suffix(".wav2.wav"))
    assert decompress_main([str(layered), out]) == 0
    assert "decoded at K = 256" in capsys.readouterr().err
    assert decompress_main([str(layered), out, "-f", "--partial", "-q"]) == 0
    assert Path(out).read_bytes() == codec.decompress(codec.truncate(data, 256))
    layered.write_bytes(data[:150] + b"?" + data[151:])
    assert decompress_main([str(layered), out, "-f"]) == 4
    assert decompress_main([str(layered), out, "-f", "--partial", "-q"]) == 0


def test_a_model_without_tables_for_a_layer_says_so(image_model: coding.Model) -> None:
    media = MEDIA["image"]()
    data = codec.compress(media, 1024, image_model, layers=True)
    tables = {
        size: dataclasses.replace(found, layer=None) for size, found in image_model.tables.items()
    }
    without = dataclasses.replace(image_model, tables=tables)
    assert codec.decompress(data, without) == codec.decompress(
        codec.truncate(data, 256), image_model
    )
    with pytest.raises(ModelError, match="do not refine each other"):
        codec.compress(media, 1024, without, layers=True)


def test_truncating_needs_no_torch(root: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys, codec\n"
        "from codec.cli.truncate import truncate_main\n"
        "codec.truncate, codec.info\n"
        "assert 'torch' not in sys.modules and 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=root, check=True)


@pytest.mark.parametrize("name", ["speech-fsp", "image-fsp"])
def test_a_shipped_model_cut_is_the_model_at_that_size(
    name: str, real: Callable[[str, int], bytes]
) -> None:
    pack_name = {"speech-fsp": "speech-test.tar", "image-fsp": "image-test-coco.tar"}[name]
    model = codec.load(cards.find(name).path)
    if len(ladder(model.tables, 16384)) < 4:
        pytest.skip("this model has no layers")
    for number in range(3):
        media = real(pack_name, number)
        data = codec.compress(media, 16384, model, layers=True)
        for size in (256, 1024, 4096, 16384):
            single = codec.compress(media, size, model)
            cut = codec.truncate(data, size)
            mine, theirs = (coding.read_indices(file, model) for file in (cut, single))
            assert np.array_equal(mine[1], theirs[1])
            assert mine[0] == theirs[0]
            assert len(cut) < 1.06 * len(single)


def test_format_document_shows_a_layer() -> None:
    """The worked example of FORMAT.md: the layer that is listed is the one that is written."""
    import re

    text = (GOLDEN.parent.parent / "FORMAT.md").read_text()
    listing = re.findall(r"```hex\n(.*?)```", text, re.DOTALL)[1]
    rows = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} )+)", listing, re.MULTILINE)
    header = Header("speech", MODEL_ID, codebook_size=4, num_codes=4, sample_rate=16000)
    indices = np.array([[[0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3, 0, 0]]])
    tables = Tables(np.array([[786432, 131072, 65536, 65536]]))
    base = bytearray(pack(header, indices, 6400, tables))
    base[9] = 2
    children = np.arange(20) % 2
    layer = layers_prior()
    fine = {4: tables, 8: Tables(layer=layer)}
    file = io.BytesIO()
    writer = LayerWriter(file, dataclasses.replace(header, codebook_size=8, num_codes=8), fine)
    writer.write(indices * 2 + children)
    writer.finish(6400)
    data = file.getvalue()
    assert data[: len(base)] == base
    shown = b"".join(bytes.fromhex(octets) for _, octets in rows)
    assert int(rows[0][0], 16) == len(base)
    assert shown == data[len(base) :]


def layers_prior() -> Prior:
    """One that knows nothing."""
    return Prior(
        levels=np.array([4, 2]),
        order=np.empty(0, np.int64),
        offsets=np.array([[0, -1]]),
        embedding=np.zeros((7, 1), np.int64),
        hidden=np.zeros((1, 8), np.int64),
        bias=np.zeros(8, np.int64),
        speeds=np.empty(0, np.int64),
        digits=np.zeros((4, 8), np.int64),
        nodes=np.zeros((1, 8), np.int64),
        stride=0,
        given=1,
    )


if __name__ == "__main__":
    write_golden()
