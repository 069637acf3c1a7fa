"""The container: round trips, golden files, every truncation and flipped byte, hostile sizes, and
FORMAT.md itself.

Running this file as a script writes golden files that do not exist yet. Those that exist are frozen
for ever.
"""

import dataclasses
import io
import json
import random
import re
import tracemalloc
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec import container
from codec.container import Header, Reader, Writer, pack, scan, unpack
from codec.container.limits import DEFAULT_LIMITS, SAMPLES_PER_SECOND, Limits
from codec.entropy import NO_TABLES, Prior, Tables, quantise_counts
from codec.errors import BitstreamError

Array = NDArray[np.int64]
ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "assets" / "golden"
# Frozen with the format: 1.0 and, by context, 1.1.
GOLDEN_NAMES = ["speech-mono", "speech-stereo", "image-colour", "image-grey"]
GOLDEN_NAMES += ["mixing-mono", "mixing-stereo", "mixing-image", "wide-mono", "wide-image"]
MODEL_ID = bytes(range(16))
SPEECH = Header("speech", MODEL_ID, 64, 50, sample_rate=16000)
IMAGE = Header("image", MODEL_ID, 4096, 4375, channels=3, height=64, width=96)


class Pipe(io.RawIOBase):
    """A stream that cannot seek or tell, and hands out a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes) -> None:
        self._rest = data
        self._source = random.Random(len(data))

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert 0 < size <= container.PIECE_BYTES
        size = min(size, self._source.randint(1, 9))
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def skewed(shape: tuple[int, ...], num_codes: int, state: int) -> Array:
    """Indices from a linear congruential generator, small ones more often.

    The same on every machine for ever.
    """
    values = []
    for _ in range(int(np.prod(shape))):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        fraction = state >> 33  # 31 bits
        values.append(fraction * fraction * num_codes >> 62)
    return np.array(values, np.int64).reshape(shape)


def counted(num_codebooks: int, num_codes: int, state: int) -> Tables:
    """Frequencies (G, K) from skewed counts."""
    draws = skewed((num_codebooks, 40 * num_codes), num_codes, state)
    return Tables(
        quantise_counts(np.array([np.bincount(row, minlength=num_codes) for row in draws]))
    )


def drawn(shape: tuple[int, ...], most: int, state: int) -> Array:
    """Whole numbers from -most to most, as `skewed` draws them, the small ones more often."""
    signs = 1 - 2 * skewed(shape, 2, state + 1)
    return skewed(shape, most + 1, state) * signs


def drawn_prior(
    levels: tuple[int, ...],
    offsets: list[tuple[int, int]],
    stride: int,
    state: int,
    num_wide: int = 0,
) -> Prior:
    """A prior that is the same on every machine for ever, and whose every table matters."""
    num_rows, num_features, speeds, units = sum(levels), 2, [3], 8
    num_codes = int(np.prod(levels))
    num_inputs = (len(offsets) + len(speeds)) * num_features
    outer = drawn((num_inputs, num_wide or units), 4000, state + 3)
    order = (
        np.argsort(drawn((num_codes,), 10**6, state), kind="stable")
        if state % 2
        else np.empty(0, np.int64)
    )
    return Prior(
        levels=np.array(levels),
        order=order,
        offsets=np.array(offsets),
        embedding=drawn((num_rows + 1, num_features), 60, state + 2),
        hidden=drawn((num_wide, units), 400, state + 7) if num_wide else outer,
        bias=drawn((units,), 300_000, state + 4),
        speeds=np.array(speeds),
        digits=drawn((num_rows - levels[-1], units), 4000, state + 5),
        nodes=drawn((num_rows - len(levels), units), 300, state + 6),
        stride=stride,
        wide=outer if num_wide else np.empty((0, 0), np.int64),
        wide_bias=drawn((num_wide,), 300_000, state + 8),
    )


def write_in_splits(
    header: Header, indices: Array, num_samples: int, tables: Tables, ends: list[int]
) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, header, tables)
    for piece in np.split(indices, ends, axis=2):
        writer.write(piece)
    writer.finish(num_samples)
    assert writer.total_bytes == len(file.getvalue())
    assert scan(io.BytesIO(file.getvalue())).payload_bytes == writer.payload_bytes
    return file.getvalue()


def write_golden() -> None:
    """Writes the golden files that are missing."""
    cases: dict[str, tuple[Header, Array, int, Tables, list[int]]] = {
        "speech-mono": (
            Header("speech", MODEL_ID, 64, 48, sample_rate=24000),
            skewed((1, 1, 150), 48, 1),
            47_777,
            counted(1, 48, 2),
            [75],
        ),
        "speech-stereo": (
            Header(
                "speech", MODEL_ID[::-1], 32, 37, num_codebooks=2, channels=2, sample_rate=44100
            ),
            skewed((2, 2, 66), 37, 3),
            38_000,
            NO_TABLES,
            [40, 65],
        ),
        "image-colour": (IMAGE, skewed((1, 1, 96), 4375, 4), 0, NO_TABLES, [50]),
        "image-grey": (
            Header("image", MODEL_ID, 16, 16, num_codebooks=3, channels=1, height=79, width=53),
            skewed((1, 3, 70), 16, 5),
            0,
            counted(3, 16, 6),
            [10, 11],
        ),
        "mixing-mono": (
            Header("speech", MODEL_ID, 64, 60, sample_rate=16000),
            skewed((1, 1, 260), 60, 7) // 6,
            25_000,
            Tables(counted(1, 60, 8).frequencies, drawn_prior((5, 4, 3), [(0, -1), (0, -2)], 0, 9)),
            [150],
        ),
        "mixing-stereo": (
            Header("speech", MODEL_ID, 16, 16, channels=2, sample_rate=48000),
            skewed((2, 1, 150), 16, 10) // 4,
            43_000,
            Tables(None, drawn_prior((16,), [(0, -1)], 0, 12)),
            [50, 100],
        ),
        "mixing-image": (
            Header("image", MODEL_ID, 32, 28, channels=3, height=90, width=99),
            skewed((1, 1, 156), 28, 13) // 4,
            0,
            Tables(None, drawn_prior((7, 4), [(0, -1), (1, 0), (1, 1), (2, -1)], 8, 15)),
            [104],
        ),
        "wide-mono": (
            Header("speech", MODEL_ID, 64, 60, sample_rate=16000),
            skewed((1, 1, 260), 60, 17) // 6,
            25_000,
            Tables(None, drawn_prior((5, 4, 3), [(0, -1), (0, -2)], 0, 19, num_wide=16)),
            [150],
        ),
        "wide-image": (
            Header("image", MODEL_ID, 32, 28, channels=3, height=90, width=99),
            skewed((1, 1, 156), 28, 23) // 4,
            0,
            Tables(None, drawn_prior((28,), [(0, -1), (1, 0), (1, 1)], 8, 26, num_wide=8)),
            [104],
        ),
    }
    for name, (header, indices, num_samples, tables, ends) in cases.items():
        path = GOLDEN / f"{name}.bin"
        if path.exists():
            continue
        path.write_bytes(write_in_splits(header, indices, num_samples, tables, ends))
        expected = {
            "header": dataclasses.asdict(header) | {"model_id": header.model_id.hex()},
            "num_samples": num_samples,
            "tables": None if tables.frequencies is None else tables.frequencies.tolist(),
            "prior": None if tables.prior is None else as_lists(tables.prior),
            "indices": indices.tolist(),
        }
        path.with_suffix(".json").write_text(json.dumps(expected) + "\n")


def as_lists(prior: Prior) -> dict[str, Any]:
    return {name: table.tolist() for name, table in prior.to_tensors().items()}


def load_golden(name: str) -> tuple[bytes, Header, Array, int, Tables]:
    expected: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    header = Header(
        **(expected["header"] | {"model_id": bytes.fromhex(expected["header"]["model_id"])})
    )
    frequencies = None if expected["tables"] is None else np.array(expected["tables"])
    prior = None
    if expected.get("prior"):
        lists = {name: np.array(table, np.int64) for name, table in expected["prior"].items()}
        # An empty list has no shape.
        lists["digits"] = lists["digits"].reshape(-1, len(lists["bias"]))
        prior = Prior.from_tensors(lists)
    tables = Tables(frequencies, prior)
    data = (GOLDEN / f"{name}.bin").read_bytes()
    return data, header, np.array(expected["indices"]), expected["num_samples"], tables


def varint(value: int) -> bytes:
    low, rest = value % 128, value // 128
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def seal(kind: bytes, payload: bytes) -> bytes:
    body = kind + varint(len(payload)) + payload
    return body + zlib.crc32(body).to_bytes(4, "big")


def split_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """A second parser, for undamaged files: the type and payload of every chunk."""
    chunks, at = [], 10
    while at < len(data):
        kind, at, length, shift = data[at : at + 1], at + 1, 0, 0
        while True:
            length, shift, at = length | (data[at] & 127) << shift, shift + 7, at + 1
            if data[at - 1] < 128:
                break
        chunks.append((kind, data[at : at + length]))
        at += length + 4
    return chunks


def join_chunks(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return PREFIX + b"".join(seal(kind, payload) for kind, payload in chunks)


def refuses(
    data: bytes, message: str, tables: Tables = NO_TABLES, limits: Limits = DEFAULT_LIMITS
) -> None:
    with pytest.raises(BitstreamError, match=message) as caught:
        unpack(data, tables, limits)
    assert "\n" not in str(caught.value)
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= len(data)


@st.composite
def files(draw: st.DrawFn) -> tuple[Header, Array, int, Tables, list[int]]:
    num_codes = draw(st.one_of(st.integers(1, 40), st.sampled_from([256, 4375, 2**24])))
    num_codebooks = draw(st.integers(1, 4))
    seed = draw(st.integers(0, 2**63))
    size = {"codebook_size": num_codes, "num_codes": num_codes, "num_codebooks": num_codebooks}
    if draw(st.booleans()):
        rate = draw(st.integers(1000, 768_000))
        header = Header(
            "speech", MODEL_ID, channels=draw(st.integers(1, 3)), sample_rate=rate, **size
        )
        most = min(rate, SAMPLES_PER_SECOND // header.channels)  # of each channel, in a second
        num_samples = draw(st.integers(0, 24 * 3600 * most))
    else:
        height, width = draw(st.integers(1, 2**13)), draw(st.integers(1, 2**13))
        header = Header(
            "image",
            MODEL_ID,
            channels=draw(st.sampled_from([1, 3])),
            height=height,
            width=width,
            **size,
        )
        num_samples = 0
    count = draw(st.integers(0, 120))
    indices = skewed((header.num_streams, num_codebooks, count), num_codes, seed)
    tables = (
        counted(num_codebooks, num_codes, seed + 1)
        if num_codes <= 256 and draw(st.booleans())
        else NO_TABLES
    )
    return (
        header,
        indices,
        num_samples,
        tables,
        sorted(draw(st.lists(st.integers(0, count), max_size=4))),
    )


@given(files())
@settings(deadline=None, max_examples=80)
def test_files_survive_however_they_are_split(
    case: tuple[Header, Array, int, Tables, list[int]],
) -> None:
    header, indices, num_samples, tables, ends = case
    whole = pack(header, indices, num_samples, tables)
    parts = write_in_splits(header, indices, num_samples, tables, ends)
    for data in (whole, parts):
        found, decoded, found_samples = unpack(data, tables)
        assert (found, found_samples) == (header, num_samples)
        assert decoded.dtype == np.int64
        assert np.array_equal(decoded, indices)
    reader = Reader(Pipe(parts))  # type: ignore[arg-type]
    lengths = [chunk.shape[2] for chunk in reader.chunks(tables)]
    assert lengths == [n for n in np.diff([0, *ends, indices.shape[2]]) if n]
    assert (reader.num_samples, reader.num_positions) == (num_samples, indices.shape[2])
    summary = scan(Pipe(parts))  # type: ignore[arg-type]
    assert summary.header == header
    assert summary.version == (1, 0)
    assert (summary.num_chunks, summary.num_positions) == (len(lengths), indices.shape[2])
    assert (summary.num_samples, summary.file_bytes) == (num_samples, len(parts))


@pytest.mark.parametrize("num_codebooks", [1, 64])
def test_long_writes_are_split_into_chunks(num_codebooks: int) -> None:
    header = dataclasses.replace(SPEECH, num_codebooks=num_codebooks, num_codes=2, channels=2)
    limit = min(65536, 2**20 // (2 * num_codebooks))
    indices = skewed((2, num_codebooks, limit + 1), 2, 1)
    data = pack(header, indices, 5)
    assert scan(io.BytesIO(data)).num_chunks == 2
    assert np.array_equal(unpack(data)[1], indices)


def test_container_costs_little() -> None:
    """An hour of speech at 75 positions per second, written in chunks of ten seconds."""
    file = io.BytesIO()
    writer = Writer(file, dataclasses.replace(SPEECH, num_codes=4375))
    for _ in range(36):
        writer.write(np.zeros((1, 1, 7500), np.int64))
    writer.finish(57_600_000)
    assert writer.total_bytes - writer.payload_bytes < 36 * 13 + 80
    assert len(pack(IMAGE, skewed((1, 1, 96), 4375, 1), 0)) - 157 < 65


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_files_decode_for_ever(name: str) -> None:
    data, header, indices, num_samples, tables = load_golden(name)
    assert len(data) <= 2048
    found, decoded, found_samples = unpack(data, tables)
    assert (found, found_samples) == (header, num_samples)
    assert np.array_equal(decoded, indices)
    assert join_chunks(split_chunks(data))[10:] == data[10:]
    coders = {
        payload[3 if payload[0] > 127 else 2]
        for kind, payload in split_chunks(data)
        if kind == b"D"
    }
    expected = 2 if tables.prior is not None else 0 if tables.frequencies is None else 1
    assert expected in coders
    assert data[9] == (tables.prior is not None)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_every_truncation_is_refused(name: str) -> None:
    data, _, _, _, tables = load_golden(name)
    for length in range(len(data)):
        refuses(data[:length], "cut short" if length else "empty", tables)
        with pytest.raises(BitstreamError):
            scan(io.BytesIO(data[:length]))


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_every_flipped_byte_is_refused(name: str) -> None:
    """But for byte 9, the minor version: a reader of version 1.0 reads every 1.x."""
    data, _, indices, _, tables = load_golden(name)
    for at in range(len(data)):
        for flip in (0xFF, 1 << at % 8, 0x20):
            damaged = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            if at == 9:
                assert np.array_equal(unpack(damaged, tables)[1], indices)
                assert scan(io.BytesIO(damaged)).version == (1, damaged[9])
            else:
                refuses(damaged, ".", tables)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_resealed_damage_is_refused(name: str) -> None:
    """Damage below a CRC-32 that is right again: only fields that no checksum can know, such as the
    sample rate.
    """
    data, header, indices, _, tables = load_golden(name)
    chunks = split_chunks(data)
    for number, (kind, payload) in enumerate(chunks):
        for at in range(len(payload)):
            for flip in (1, 0x80, 0xFF):
                damaged = payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :]
                altered = join_chunks([*chunks[:number], (kind, damaged), *chunks[number + 1 :]])
                try:
                    found, decoded, _ = unpack(altered, tables)
                except BitstreamError:
                    continue
                assert np.array_equal(decoded, indices)
                assert kind == b"E" or (kind == b"H" and found != header)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_swapped_repeated_and_missing_chunks_are_refused(name: str) -> None:
    data, _, _, _, tables = load_golden(name)
    head, *body, end = split_chunks(data)
    refuses(join_chunks([head, body[1], body[0], *body[2:], end]), "index checksum", tables)
    refuses(join_chunks([head, *body[1:], end]), "positions but should hold", tables)
    refuses(join_chunks([head, *body, body[0], end]), "positions but should hold", tables)
    refuses(join_chunks([*body, end]), "type D stands where the header belongs", tables)
    refuses(
        join_chunks([head, head, *body, end]),
        "type H stands where a data or end chunk belongs",
        tables,
    )
    refuses(join_chunks([head, *body]), "ends inside the list of chunks; it was cut short", tables)
    refuses(data + b"\0", "bytes follow the end chunk", tables)
    refuses(data + data, "bytes follow the end chunk", tables)


def test_the_wrong_tables_are_caught() -> None:
    """The coder itself notices most wrong tables; what passes it, the index checksum catches."""
    indices = np.zeros((1, 1, 40), np.int64)
    tables = Tables(np.array([[2**20 - 30, 10, 10, 10]]))
    data = pack(dataclasses.replace(SPEECH, num_codes=4), indices, 0, tables)
    messages = []
    for shift in (1, 2, 3):
        with pytest.raises(BitstreamError) as caught:
            unpack(data, Tables(np.roll(tables.frequencies, shift)))
        messages.append(str(caught.value))
    short = pack(
        dataclasses.replace(SPEECH, num_codes=4),
        np.array([[[1] * 8]]),
        0,
        Tables(np.array([[1, 2**20 - 3, 1, 1]])),
    )
    for wrong in ([[1, 1, 2**20 - 3, 1]], [[1, 1, 1, 2**20 - 3]], [[2**20 - 3, 1, 1, 1]]):
        with pytest.raises(BitstreamError) as caught:
            unpack(short, Tables(np.array(wrong)))
        messages.append(str(caught.value))
    assert any("index checksum" in message for message in messages)


def test_a_header_that_does_not_fit_the_tables_is_the_fault_of_the_file() -> None:
    data = pack(dataclasses.replace(SPEECH, num_codes=4), np.zeros((1, 1, 40), np.int64), 0)
    refuses(data, r"codebooks \(1, 4\) are not the model's", counted(1, 5, 1))


def test_optional_chunks_are_skipped_and_critical_ones_refused() -> None:
    data, header, indices, num_samples, tables = load_golden("speech-mono")
    chunks = split_chunks(data)
    extra = [
        chunk for pair in [(known, (b"t", b"a title")) for known in chunks[:-1]] for chunk in pair
    ] + [chunks[-1]]
    found, decoded, found_samples = unpack(join_chunks(extra), tables)
    assert (found, found_samples) == (header, num_samples)
    assert np.array_equal(decoded, indices)
    refuses(
        join_chunks([chunks[0], (b"X", b""), *chunks[1:]]),
        "type X needs a newer version of codec",
        tables,
    )
    refuses(join_chunks([(b"t", b""), *chunks]), "a chunk stands before the header", tables)
    refuses(join_chunks([(b"X", b""), *chunks]), "type X needs a newer version of codec", tables)
    refuses(join_chunks([chunks[0], (b"?", b""), *chunks[1:]]), "not a chunk type", tables)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"Once upon a time\n", "not a file made by codec"),
        (b"\x89PNG\r\n\x1a\n", "not a file made by codec"),
        (b"\x8dCDC\n\x1a\n\1\0", "text-mode transfer"),
        (b"\x8dCDC\r\r\n\x1a\r\n\1\0", "text-mode transfer"),
        (b"\x0cCDC\r\n\x1a\n\1\0", "text-mode transfer"),
        ("\x8dCDC\r\n\x1a\n\1\0".encode(), "text-mode transfer"),
        (container.MAGIC + b"\2\0", "version 2 was made by a newer codec"),
    ],
)
def test_other_files_are_named(data: bytes, message: str) -> None:
    refuses(data, message)


def header_payload(medium: bytes, *fields: int) -> bytes:
    return medium + MODEL_ID + b"".join(map(varint, fields))


PREFIX = container.MAGIC + b"\1\0"
GOOD_SPEECH = seal(b"H", header_payload(b"S", 64, 50, 1, 1, 16000))
END = seal(b"E", varint(0) + varint(0) + bytes(4))


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            seal(b"H", header_payload(b"I", 1, 1, 1, 3, 2**60, 2**60)),
            "height of image must be in 1 to 131072",
        ),
        (seal(b"H", header_payload(b"I", 1, 1, 1, 3, 2**17, 2**17)), "raise --max-pixels"),
        (seal(b"H", header_payload(b"I", 1, 1, 1, 2, 8, 8)), "channels of image must be 1 or 3"),
        (seal(b"H", header_payload(b"S", 2**60, 1, 1, 1, 8000)), "codebook_size"),
        (seal(b"H", header_payload(b"S", 1, 2**60, 1, 1, 8000)), "num_codes"),
        (seal(b"H", header_payload(b"S", 1, 1, 2**60, 1, 8000)), "num_codebooks"),
        (seal(b"H", header_payload(b"S", 1, 1, 1, 2**60, 8000)), "channels"),
        (seal(b"H", header_payload(b"S", 1, 1, 1, 1, 2**60)), "sample_rate"),
        (seal(b"H", header_payload(b"S", 1, 1, 1, 1, 0)), "sample_rate"),
        (
            seal(b"H", header_payload(b"S", 1, 1, 1, 1, 999)),
            "sample_rate of speech must be in 1000 to 768000",
        ),
        (
            seal(b"H", header_payload(b"S", 1, 1, 1, 1, 768_001)),
            "sample_rate of speech must be in 1000 to 768000",
        ),
        (seal(b"H", header_payload(b"V", 1, 1, 1, 1, 8000)), "medium 0x56 needs a newer version"),
        (seal(b"H", header_payload(b"S", 1, 1, 1, 1, 8000, 1)), "bytes follow the header fields"),
        (seal(b"H", header_payload(b"S", 1, 1, 1, 1)), "the chunk ends inside sample_rate"),
        (b"H" + varint(2**60), "declares 1152921504606846976 bytes"),
        (b"H" + varint(2**22), "ends inside a chunk of type H"),
        (b"H\x80\x00", "not a valid varint"),
        (b"H" + b"\xff" * 9 + b"\x02", "not a valid varint"),
        (b"H" + b"\xff" * 9 + b"\x01", "declares 18446744073709551615 bytes"),
        (b"H" + b"\xff" * 10, "not a valid varint"),
        (GOOD_SPEECH + b"D" + varint(200_000_000), "declares 200000000 bytes"),
        (GOOD_SPEECH + b"x" + varint(2**22), "ends inside a chunk of type x"),
        (GOOD_SPEECH + seal(b"D", varint(2**60)), "not 1 to 65536"),
        (GOOD_SPEECH + seal(b"D", varint(0) + b"\1\0"), "not 1 to 65536"),
        (
            GOOD_SPEECH + seal(b"D", varint(65536) + varint(2**60)),
            "bytes of encoded indices, not 1 to 49153",
        ),
        (
            GOOD_SPEECH + seal(b"D", varint(65536) + varint(9)),
            "the chunk ends inside encoded indices",
        ),
        (GOOD_SPEECH + seal(b"D", varint(65536) + b"\2\0\0"), "take 49152 bytes, not 1"),
        (GOOD_SPEECH + seal(b"D", varint(1) + b"\2\1\0"), "no coder tables"),
        (GOOD_SPEECH + seal(b"D", varint(1) + b"\2\7\0"), "coder 7, which needs a newer version"),
        (GOOD_SPEECH + seal(b"D", varint(1) + b"\2\0\0\0"), "bytes follow the encoded indices"),
        (GOOD_SPEECH + seal(b"E", varint(2**60) + varint(0) + bytes(4)), "raise --max-seconds"),
        (
            GOOD_SPEECH + seal(b"E", varint(0) + varint(2**60) + bytes(4)),
            "should hold 1152921504606846976",
        ),
        (
            GOOD_SPEECH + seal(b"E", varint(0) + varint(0) + bytes(5)),
            "bytes follow the index checksum",
        ),
        (
            seal(b"H", header_payload(b"I", 1, 1, 1, 3, 8, 8)) + seal(b"E", b"\1\0" + bytes(4)),
            "1 audio samples",
        ),
    ],
)
def test_hostile_sizes_are_refused_before_they_are_allocated(rest: bytes, message: str) -> None:
    tracemalloc.start()
    try:
        refuses(PREFIX + rest, message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def test_the_longest_chunk_is_read_and_no_longer_one() -> None:
    for length, beyond in ((1 << 22, False), ((1 << 22) + 1, True)):
        data = PREFIX + GOOD_SPEECH + seal(b"x", bytes(length)) + END
        if beyond:
            refuses(data, f"declares {length} bytes, over the limit of {1 << 22}")
        else:
            assert unpack(data)[1].size == 0


def test_limits_name_their_option() -> None:
    image = pack(IMAGE, np.zeros((1, 1, 96), np.int64), 0)
    refuses(
        image,
        "96 x 64 pixels, over the limit of 6143: raise --max-pixels",
        limits=Limits(max_pixels=6143),
    )
    assert unpack(image, NO_TABLES, Limits(max_pixels=6144))[0] == IMAGE
    many = pack(dataclasses.replace(IMAGE, height=1, width=1), np.zeros((1, 1, 96), np.int64), 0)
    refuses(many, "more than 95 positions: raise --max-pixels", limits=Limits(max_pixels=95))
    speech = pack(SPEECH, np.zeros((1, 1, 2001), np.int64), 32_000)
    refuses(
        speech, "more positions than 2 s hold: raise --max-seconds", limits=Limits(max_seconds=2)
    )
    speech = pack(SPEECH, np.zeros((1, 1, 2000), np.int64), 32_001)
    refuses(
        speech,
        "lasts 2 s, over the limit of 2 s: raise --max-seconds",
        limits=Limits(max_seconds=2),
    )
    assert scan(io.BytesIO(speech)).num_samples == 32_001


def test_reading_and_writing_take_one_chunk_of_memory() -> None:
    class Sink(io.RawIOBase):
        """Forgets what is written to it."""

        def write(self, data: Any) -> int:
            return len(data)

    chunk = skewed((1, 1, 2000), 50, 1)

    def peak_of(num_chunks: int) -> int:
        tracemalloc.start()
        try:
            writer = Writer(Sink(), SPEECH)  # type: ignore[arg-type]
            for _ in range(num_chunks):
                writer.write(chunk)
            writer.finish(0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def read_peak_of(num_chunks: int) -> int:
        data = write_in_splits(
            SPEECH,
            np.tile(chunk, num_chunks),
            0,
            NO_TABLES,
            list(range(2000, 2000 * num_chunks, 2000)),
        )
        file: BinaryIO = io.BytesIO(data)
        tracemalloc.start()
        try:
            assert sum(indices.shape[2] for indices in Reader(file).chunks()) == 2000 * num_chunks
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(2), read_peak_of(2)  # one-time allocations
    assert peak_of(40) < peak_of(2) * 1.5
    assert read_peak_of(40) < read_peak_of(2) * 1.5


def test_misuse_is_a_value_error() -> None:
    writer = Writer(io.BytesIO(), SPEECH)
    for wrong in (
        np.zeros((1, 3), np.int64),
        np.zeros((2, 1, 3), np.int64),
        np.zeros((1, 2, 3), np.int64),
    ):
        with pytest.raises(ValueError, match="must have shape"):
            writer.write(wrong)
    with pytest.raises(ValueError, match="lie in"):
        writer.write(np.full((1, 1, 3), 50))
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match="varint"):
            writer.finish(number)
    writer.finish(0)
    with pytest.raises(ValueError, match="finished"):
        writer.write(np.zeros((1, 1, 3), np.int64))
    with pytest.raises(ValueError, match="finished"):
        writer.finish(0)
    with pytest.raises(ValueError, match="picture must be 0"):
        pack(IMAGE, np.zeros((1, 1, 1), np.int64), 7)
    reader = Reader(io.BytesIO(pack(SPEECH, np.zeros((1, 1, 1), np.int64), 7)))
    with pytest.raises(ValueError, match="exhaust"):
        _ = reader.num_samples
    assert len(list(reader.chunks())) == 1
    assert reader.num_samples == 7
    with pytest.raises(ValueError, match="only once"):
        list(reader.chunks())


@pytest.mark.parametrize(
    "change",
    [
        {"medium": "video"},
        {"model_id": b"short"},
        {"codebook_size": 0},
        {"num_codes": 2**24 + 1},
        {"num_codebooks": 65},
        {"channels": 0},
        {"channels": 65},
        {"sample_rate": 0},
        {"sample_rate": 768_001},
        {"height": 1},
    ],
)
def test_headers_are_validated(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(SPEECH, **change)


def test_format_document_shows_a_real_file() -> None:
    """The worked example of FORMAT.md: the bytes that are listed are the bytes that are written."""
    text = (ROOT / "FORMAT.md").read_text()
    listing = re.search(r"```hex\n(.*?)```", text, re.DOTALL)
    assert listing is not None
    rows = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} )+)", listing[1], re.MULTILINE)
    shown = b""
    for offset, octets in rows:
        assert int(offset, 16) == len(shown)
        shown += bytes.fromhex(octets)
    header = Header("speech", MODEL_ID, codebook_size=4, num_codes=4, sample_rate=16000)
    indices = np.array([[[0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3, 0, 0]]])
    tables = Tables(np.array([[786432, 131072, 65536, 65536]]))
    assert f"[{', '.join(map(str, indices.ravel().tolist()))}]" in text
    assert str(tables.frequencies[0].tolist()) in text
    assert pack(header, indices, 6400, tables) == shown
    assert np.array_equal(unpack(shown, tables)[1], indices)


if __name__ == "__main__":
    write_golden()
