"""Every input that the fuzzer started from or stumbled over, and what hypothesis makes of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy import mixing

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


def test_the_corpus_reaches_every_reader() -> None:
    assert {path.read_bytes()[0] % len(fuzz.KINDS) for path in CORPUS} == set(
        range(len(fuzz.KINDS))
    )


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_is_harmless(path: Path) -> None:
    data = path.read_bytes()
    mixing._coder()  # numba itself would count as memory of the first input that needs it
    fuzz.run_one(data)
    tracemalloc.start()
    try:
        fuzz.run_one(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_spoilt_seeds_are_harmless(data: st.DataObject) -> None:
    """A seed with bytes changed, cut out, doubled, or with a piece of another seed in it."""
    spoilt = bytearray(data.draw(st.sampled_from(CORPUS)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(spoilt) - 1, 0)))
        piece = data.draw(st.one_of(st.binary(max_size=4), st.just(bytes(spoilt[at : at + 9]))))
        spoilt[at : at + data.draw(st.integers(0, 4))] = piece
    fuzz.run_one(bytes(spoilt))


def test_a_reader_that_breaks_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without its check of the length, the fixed-width coder fails the corpus."""
    from codec.entropy import fixed

    monkeypatch.setattr(fixed, "packed_size", lambda *_: 30)
    failed = 0
    for path in CORPUS:
        try:
            fuzz.run_one(path.read_bytes())
        except Exception:
            failed += 1
    assert failed
