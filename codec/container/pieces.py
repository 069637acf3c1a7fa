"""The pieces of a damaged file, and how many positions each is.

A file that lost some bytes still has its other chunks, and often says how many positions it had in
all. What lies between follows from that.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import isqrt

from codec.container.payloads import Data

log = logging.getLogger("codec")

# Of hashes that tell equal runs of chunks.
HASH_PRIME, HASH_BASE = (1 << 61) - 1, 0x9E3779B97F4A7C1


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of positions: a data chunk, or `num_bytes` of damage.

    Damage says that it is `count` positions, or 0 where it does not say.

    `parts` are the positions of the chunks that the damage says it was.
    """

    count: int
    data: Data | None = None
    num_bytes: int = 0
    parts: tuple[int, ...] = ()


def without_repeat(pieces: list[Piece], num_positions: int) -> list[Piece]:
    """Drops a chunk, or several in a row, that follow themselves.

    A transfer that was resumed too early leaves them.

    Equal neighbours alone prove nothing, since silence has them, too: it takes positions beyond the
    total, as many as the repeat has, and one place only where it can be. The index checksum then
    proves the rest, when all is decoded.
    """
    ends = list(accumulate((piece.count for piece in pieces), initial=0))
    excess = ends[-1] - num_positions
    same = _equal_runs(pieces)
    found, stop = None, 0
    for start in range(len(pieces) if excess > 0 else 0):
        while stop < len(pieces) and ends[stop] - ends[start] < excess:
            stop += 1
        size = stop - start
        if ends[stop] - ends[start] == excess and any(
            same(start, start + period, size) for period in _divisors(size)
        ):
            if found is None:
                found = start, stop
            elif found[1] - found[0] != size or not same(found[0], found[1], start - found[0]):
                return pieces  # what is left would be another recording
    if found is None:
        return pieces
    log.warning(
        "%d positions were there twice, one after the other: the repeat is left out", excess
    )
    return pieces[: found[0]] + pieces[found[1] :]


def _equal_runs(pieces: list[Piece]) -> Callable[[int, int, int], bool]:
    """Tells at once whether so many pieces from one on are equal to those from another on.

    By polynomial hashes of all that is before a piece.
    """
    numbers: dict[tuple[int, tuple[bytes, ...]], int] = {}
    hashes, powers = [0], [1]
    for piece in pieces:
        streams = piece.data.streams if piece.data else []
        content = piece.count, tuple(encoded for _, encoded in streams)
        number = numbers.setdefault(content, len(numbers) + 1)
        hashes.append((hashes[-1] * HASH_BASE + number) % HASH_PRIME)
        powers.append(powers[-1] * HASH_BASE % HASH_PRIME)

    def run(start: int, size: int) -> int:
        return (hashes[start + size] - hashes[start] * powers[size]) % HASH_PRIME

    def same(one: int, other: int, size: int) -> bool:
        return max(one, other) + size <= len(pieces) and run(one, size) == run(other, size)

    return same


@lru_cache
def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def fill(pieces: list[Piece], num_positions: int | None) -> list[Piece]:
    """Gives every damaged stretch its number of positions.

    A stretch is as long as it says where the total is known and all such claims fit into it; claims
    other than of usual chunks are the first to be doubted. What is missing then, if the total is
    known, is shared out among the other stretches by their bytes, in units of the usual chunk; if
    not, they are as many positions as their bytes usually hold.
    """
    good = [piece for piece in pieces if piece.data]
    held = sum(piece.count for piece in good)
    usual = Counter(piece.count for piece in good).most_common(1)[0][0] if good else 1
    size = sum(piece.data.num_bytes for piece in good if piece.data) / max(held, 1) * usual
    left = None if num_positions is None else max(num_positions - held, 0)
    if left and len(good) == len(pieces):
        # Whole chunks are gone without a trace: say, at the end.
        pieces = [*pieces, Piece(0, None, 1)]
    doubts = (lambda _: False, lambda count: count % usual, lambda _: True)
    for doubted in doubts if left is not None else doubts[1:]:
        claims = [0 if piece.data or doubted(piece.count) else piece.count for piece in pieces]
        others = [
            piece.num_bytes
            for piece, claim in zip(pieces, claims, strict=True)
            if not piece.data and not claim
        ]
        if left is None or sum(claims) == left or (sum(claims) < left and others):
            break
    left, bytes_left = None if left is None else left - sum(claims), sum(others)
    result = []
    for piece, claim in zip(pieces, claims, strict=True):
        if piece.data:
            result.append(piece)
            continue
        count = claim
        if not claim:
            if left is None:
                count = round(piece.num_bytes / size) * usual if size else 0
            elif piece.num_bytes == bytes_left:
                count = left
            else:
                count = min(left, round(left * piece.num_bytes / bytes_left / usual) * usual)
            bytes_left -= piece.num_bytes
            left = None if left is None else left - count
        result.append(Piece(count, None, 0, piece.parts if claim else ()))
    return result
