"""How much work a media file may cause, whatever stands in it: bytes are counted, not seconds."""

from __future__ import annotations

import io
import random

import pytest

from codec.media import flac, mpeg, ogg
from codec.media import window as windows
from codec.media.window import Window

TAG = b"ID3\4\0\0\0\0\0\0"
FRAME = b"\xff\xe5\xe8\0"  # the header of a frame of 2880 bytes: none but one is longer
AT_ONCE = 1 << 14


class Counted(io.BytesIO):
    """Counts the bytes that are read."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "AT_ONCE", AT_ONCE)
    monkeypatch.setattr(windows, "BEHIND", AT_ONCE // 4)


def test_a_window_gives_what_the_file_holds() -> None:
    generator = random.Random(0)
    data = generator.randbytes(3 * AT_ONCE)
    window = Window(io.BytesIO(data))
    for _ in range(200):
        at, size = generator.randrange(len(data)), generator.randrange(1, 2 * AT_ONCE)
        assert window.read(at, size) == data[at : at + size]
        pattern = data[(place := generator.randrange(len(data) - 3)) : place + 3]
        assert window.find(pattern, at) == data.find(pattern, at)
    assert window.find(b"none of it", 0) == -1
    assert window.find(data[-2:] + b"?", len(data) - 2) == -1
    assert window.find(data[AT_ONCE - 2 : AT_ONCE + 2], 0) == AT_ONCE - 2


@pytest.mark.parametrize(
    "rest",
    [
        random.Random(0).randbytes(4 * AT_ONCE),
        b"\xff" * (4 * AT_ONCE),
        (FRAME + bytes(3)) * (4 * AT_ONCE // 7),
    ],
    ids=["noise", "ones", "heads that no frame follows"],
)
def test_a_stream_without_frames_is_read_a_few_times_over(rest: bytes) -> None:
    """Each byte that could begin a frame is a place to look at, and what it claims another."""
    file = Counted(TAG + rest)
    assert mpeg.frame_bytes(FRAME) == 2880
    mpeg.survey(Window(file))
    assert file.total < 3 * len(file.getvalue())


def ogg_page(number: int, lengths: bytes, body: bytes) -> bytes:
    head = b"OggS\0\0" + bytes(8) + b"\7\0\0\0" + number.to_bytes(4, "little") + bytes(4)
    page = head + bytes([len(lengths)]) + lengths + body
    return page[:22] + ogg.checksum(page) + page[26:]


HONEST = [ogg_page(n, b"\xff\xff\2", random.Random(n).randbytes(512)) for n in range(500)]


@pytest.mark.parametrize(
    "data",
    [
        b"OggS" * (1 << 16),
        (b"OggS" + bytes(22) + b"\xff" + b"\xff" * 255) * 900,
        b"".join(page[:26] + b"\xff" * 4 + page[30:] for page in HONEST),
    ],
    ids=["heads of nothing else", "the longest pages", "every table of lengths damaged"],
)
def test_an_ogg_of_false_pages_is_checked_a_few_times_over(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = 0
    honest = ogg.checksum

    def counted(page: bytes) -> bytes:
        nonlocal checked
        checked += len(page)
        return honest(page)

    file = Counted(data)
    monkeypatch.setattr(ogg, "checksum", counted)
    ogg.survey(Window(file))
    assert checked < 70 * len(data)
    assert file.total < 140 * len(data)  # a window here is a quarter of the longest page


def test_whole_pages_between_damaged_ones_are_all_found() -> None:
    """Every second page has lost its lengths, or is another's bytes under a right head."""
    start = ogg_page(0, b"\x08", b"OpusHead").replace(b"OggS\0\0", b"OggS\0\2")
    start = start[:22] + ogg.checksum(start) + start[26:]
    for spoilt in (
        lambda page: page[:26] + b"\xff" * 4 + page[30:],
        lambda page: page[:100] + b"?" + page[101:],
        lambda page: page[:90],
    ):
        pieces = [start, *(spoilt(p) if n % 2 else p for n, p in enumerate(HONEST[:-1]))]
        found = ogg.survey(Window(io.BytesIO(b"".join(pieces))))
        (part,) = found.parts
        whole = sum(map(len, [start, *HONEST[:-1:2]]))
        assert sum(length for _, length in part.segments) == whole


def with_crc16(body: bytes) -> bytes:
    """A FLAC frame by its definition: polynomial 0x8005, bit by bit."""
    crc = 0
    for byte in body:
        crc ^= byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x18005 if crc >> 15 else 0)
    return body + crc.to_bytes(2, "big")


@pytest.mark.parametrize("whole", [True, False])
def test_the_end_of_a_flac_is_walked_once(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tail is full of heads that are right by their CRC-8."""
    steps = 0

    class Table(dict[int, int]):
        def __getitem__(self, key: int) -> int:
            nonlocal steps
            steps += 1
            return super().__getitem__(key)

    monkeypatch.setattr(flac, "CRC16_BACK", Table(flac.CRC16_BACK))
    header = b"\xff\xf8\xc9\x18\x00\xc2"
    body = header * 1000 + b"\1"
    start = b"fLaC" + flac.FIRST_BLOCK[1] + bytes(34)
    data = start + (with_crc16(body) if whole else body + b"??")
    assert flac.end_of_frames(Window(io.BytesIO(data)), 0, len(data)) == (
        len(data) if whole else None
    )
    assert steps <= len(data)
