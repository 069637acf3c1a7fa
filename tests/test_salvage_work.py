"""How much work a damaged or forged file may cause: bytes and sums are counted, not seconds."""

from __future__ import annotations

import io
import itertools
import random
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_salvage import chunked, places, salvage

from codec.container import varint
from codec.container.payloads import Data
from codec.container.pieces import Piece, without_repeat
from codec.container.salvage import CHECKS, Salvage


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of everything that a CRC-32 was taken of."""
    lengths: list[int] = []

    def crc32(data: bytes, value: int = 0) -> int:
        lengths.append(len(data))
        return real(data, value)

    real = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", crc32)
    return lengths


LONG = 1 << 14
FORGED = {
    "length alone": b"D" + varint(LONG),
    "end": b"E" + varint(LONG),
    "head": b"D" + varint(LONG) + varint(1) + varint(LONG - 3),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_heads_of_chunks_are_not_checked_for_ever(name: str, checked: list[int]) -> None:
    data, indices = chunked()
    at = places(data)[3][0]
    data = data[:at] + FORGED[name] * 3000 + bytes(LONG)
    found = Salvage(io.BytesIO(data))
    assert sum(checked) <= (CHECKS + 1) * len(data)
    assert np.array_equal(next(iter(found.chunks())), indices[..., :100])


def test_noise_costs_next_to_nothing_and_hides_no_chunk(checked: list[int]) -> None:
    data, indices = chunked()
    at = places(data)[4][0]
    data = data[:at] + random.Random(0).randbytes(1 << 18) + data[at:]
    assert np.array_equal(salvage(data)[0], indices)
    assert sum(checked) < len(data)


def pieces_of(chunks: list[tuple[int, int]]) -> list[Piece]:
    return [Piece(count, Data(count, [(0, bytes([content]))])) for count, content in chunks]


def rests(pieces: list[Piece], excess: int) -> list[list[Piece]]:
    """What is left without a repeat, by the definition, each once."""
    found: list[list[Piece]] = []
    for start, stop in itertools.combinations(range(len(pieces) + 1), 2):
        run, size = pieces[start:stop], stop - start
        if sum(piece.count for piece in run) == excess and any(
            pieces[start + period : stop + period] == run
            for period in range(1, size + 1)
            if size % period == 0
        ):
            rest = pieces[:start] + pieces[stop:]
            found += [rest] if rest not in found else []
    return found


@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 1)), min_size=1, max_size=12),
    st.integers(-1, 12),
)
@settings(deadline=None, max_examples=300)
def test_a_repeat_is_dropped_where_there_is_one_way_to(
    chunks: list[tuple[int, int]], excess: int
) -> None:
    pieces = pieces_of(chunks)
    expected = rests(pieces, excess) if excess > 0 else []
    result = without_repeat(pieces, sum(count for count, _ in chunks) - excess)
    assert result == (expected[0] if len(expected) == 1 else pieces)


def test_a_repeat_is_looked_for_in_one_pass() -> None:
    steps = 0

    def counted(name: str) -> Any:
        def act(*values: int) -> Any:
            nonlocal steps
            steps += 1
            return getattr(int, name)(*values)

        return act

    names = ("__add__", "__radd__", "__sub__", "__rsub__", "__eq__")
    methods = {name: counted(name) for name in names} | {"__hash__": int.__hash__}
    count_type = type("Count", (int,), methods)
    generator = random.Random(0)
    pieces = [Piece(count_type(1), Data(1, [(0, generator.randbytes(1))])) for _ in range(400)]
    assert without_repeat(pieces, 200) == pieces
    assert steps < 10 * len(pieces)
