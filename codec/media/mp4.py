"""The numbers of samples and pictures that an MPEG-4 or QuickTime file tells, against its size.

FFmpeg makes an entry of its index for each before it reads any, so that a few bytes could ask for
all memory there is.

Format: ISO/IEC 14496-12 and 23008-12; Apple, QuickTime File Format.
"""

from __future__ import annotations

from collections.abc import Iterator

from codec.errors import MediaError
from codec.media.window import Window

FIRST = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"pnot", b"meta")
PASSED = 64  # boxes of unknown names that may come first
HOLDING = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"udta")
PICTURES = (b"meta", b"iprp")  # these hold others, too; the first behind four bytes of its own
PER_BYTE = 16  # samples: QuickTime counts those of the wave, of which old codecs packed 6 in a byte
DEPTH = 8
TABLE_BYTES = 1 << 24  # of a table of chunks that is looked at


def is_mp4(window: Window) -> bool:
    """Whether FFmpeg may take a file for one: it passes over first boxes of unknown names."""
    at = 0
    for _ in range(PASSED):
        head = window.read(at, 8)
        if head[4:8] in FIRST:
            return True
        size = int.from_bytes(head[:4], "big")
        if size < 8:
            break
        at += size
    return False


def check_counts(window: Window) -> None:
    """Refuses a file that tells of more samples or pictures than its bytes can be.

    Raises:
        MediaError: It does.
    """
    runs, chunks = _Runs([(1, 0)]), 0
    for name, body, end in _boxes(window, 0, window.size, DEPTH):
        count = 0
        if name == b"trun":
            count = PER_BYTE * _number(window, body + 4)  # each is a packet
        elif name == b"stsz":
            count = _number(window, body + 8) * max(_number(window, body + 4), 1)
        elif name == b"stsc":
            runs = _runs(window, body, end)
        elif name in (b"stco", b"co64"):
            chunks = min(_number(window, body + 4), window.size)
        if name in (b"stsc", b"stco", b"co64"):
            count = runs.samples(chunks)
        if count > PER_BYTE * window.size or _pictures(window, name, body) > window.size:
            raise MediaError("damaged recording: it tells of more samples than its bytes can be")


class _Runs:
    """How many samples the chunks of a track have.

    Args:
        table: Of each run of chunks, the number of the first and the samples in each.
    """

    def __init__(self, table: list[tuple[int, int]]) -> None:
        stops = [first for first, _ in table[1:]]
        pairs = zip(table[:-1], stops, strict=True)
        self._before = sum(max(stop - first, 0) * each for (first, each), stop in pairs)
        self._last = table[-1]

    def samples(self, chunks: int) -> int:
        """Returns the samples of the first so many chunks, of which the last run has the rest."""
        first, each = self._last
        return self._before + max(chunks + 1 - first, 0) * each


def _pictures(window: Window, name: bytes, body: int) -> int:
    """The entries of a table of pictures; 0 of other boxes."""
    version = window.read(body, 1)
    if name == b"ipma":
        return _number(window, body + 4)
    if name in (b"iinf", b"iloc"):
        at, long = (body + 4, version > b"\0") if name == b"iinf" else (body + 6, version > b"\1")
        return int.from_bytes(window.read(at, 4 if long else 2), "big")
    return 0


def _boxes(window: Window, start: int, stop: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of what each box holds; of those that hold others, these."""
    while start + 8 <= stop:
        head = window.read(start, 16)
        size, name, body = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:], "big"), start + 16
        end = min(start + size, stop) if size else stop
        if end < body:
            return
        if name in HOLDING + PICTURES and depth:
            own = 4 if name == b"meta" else 0
            yield from _boxes(window, body + own, end, depth - 1)
        else:
            yield name, body, end
        start = end


def _runs(window: Window, body: int, end: int) -> _Runs:
    rows = min(_number(window, body + 4), (min(end, window.size) - body - 8) // 12)
    table = window.read(body + 8, min(12 * rows, TABLE_BYTES))
    numbers = [int.from_bytes(table[at : at + 4], "big") for at in range(0, len(table) // 4 * 4, 4)]
    return _Runs(list(zip(numbers[::3], numbers[1::3], strict=False)) or [(1, 0)])


def _number(window: Window, at: int) -> int:
    return int.from_bytes(window.read(at, 4), "big")
