"""The mixing coder: both twins write the same bytes, whatever the prior.

And each part of the model earns its bits.
"""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
from conftest import spoilt
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec import api, cards, coding
from codec.container import scan
from codec.entropy import (
    MIXING,
    NO_TABLES,
    RANGE,
    Prior,
    Tables,
    decode_indices,
    encode_indices,
    max_encoded_size,
    mixing,
    range_coder,
)
from codec.entropy.prior import squash
from codec.errors import BitstreamError

Array = NDArray[np.int64]
PLAIN = mixing.code
LEVELS = [(2,), (7, 5, 5), (4, 4, 4, 2, 2), (3, 2), (50,), (16, 4), (1000,)]
SPEECH_OFFSETS = [(0, -1), (0, -2), (0, -3)]
IMAGE_OFFSETS = [(0, -1), (1, 0), (1, -1), (1, 1), (2, 3), (0, -5)]


def random_prior(
    seed: int, levels: tuple[int, ...], image: bool, units: int = 16, strength: float = 1.0
) -> Prior:
    """A prior of random weights; `strength` 1 takes logits over their whole range."""
    random = np.random.default_rng(seed)
    num_rows = sum(levels)
    num_features = int(random.integers(1, 6))
    speeds = [3, 6][: int(random.integers(0, 3))]
    offsets = np.array(IMAGE_OFFSETS if image else SPEECH_OFFSETS)
    offsets = offsets[:0] if seed % 5 == 4 else offsets  # none is allowed
    num_inputs = (len(offsets) + len(speeds)) * num_features
    num_wide = seed % 3 * 16
    num_codes = int(np.prod(levels))

    def draw(most: float, *shape: int) -> Array:
        return (
            (random.normal(size=shape) * most * strength)
            .round()
            .clip(-most * 3, most * 3)
            .astype(np.int64)
        )

    return Prior(
        levels=np.array(levels),
        order=random.permutation(num_codes) if seed % 2 else np.empty(0, np.int64),
        offsets=offsets,
        embedding=draw(40, num_rows + 1, num_features),
        hidden=draw(300, num_wide, units) if num_wide else draw(1500, num_inputs, units),
        bias=draw(100_000, units),
        speeds=np.array(speeds, np.int64),
        digits=draw(3000, num_rows - levels[-1], units),
        nodes=draw(4000, num_rows - len(levels), units),
        stride=8 if image else 0,
        wide=draw(1500, num_inputs, num_wide) if num_wide else np.empty((0, 0), np.int64),
        wide_bias=draw(100_000, num_wide),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Prior, Array, int]:
    """A prior, (n,) indices and the picture's width."""
    seed, image = draw(st.integers(0, 2**32 - 1)), draw(st.booleans())
    prior = random_prior(
        seed, draw(st.sampled_from(LEVELS)), image, draw(st.sampled_from([8, 16, 64]))
    )
    random = np.random.default_rng(seed + 1)
    count, kind = draw(st.integers(0, 90)), draw(st.sampled_from(["uniform", "constant", "walk"]))
    indices = random.integers(0, prior.num_codes, count)
    if kind == "constant":
        indices[:] = indices[:1]
    elif kind == "walk":
        indices = np.abs(np.cumsum(random.integers(-1, 2, count))) % prior.num_codes
    return prior, indices, draw(st.integers(1, 200)) if image else 0


@contextmanager
def plain() -> Iterator[None]:
    """With the plain twin in the place of the compiled one."""
    before = mixing._coder
    mixing._coder = lambda: mixing.code  # type: ignore[assignment]
    try:
        yield
    finally:
        mixing._coder = before


def encode(indices: Array, prior: Prior, columns: int) -> bytes:
    data = mixing.encode(indices, prior, columns, 10**6)
    assert data is not None
    return data


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """The compiled twin, which a new process does without at first."""
    mixing._coder()


def test_a_process_begins_with_the_plain_twin_and_soon_leaves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("numba")
    prior, indices = random_prior(1, (7, 5, 5), False), np.arange(300) * 7 % 175
    expected, used = encode(indices, prior, 300), []
    monkeypatch.setattr(mixing, "code", lambda *words: used.append("plain") or PLAIN(*words))
    monkeypatch.setattr(
        mixing, "_coder", lambda: lambda *words: used.append("compiled") or PLAIN(*words)
    )
    monkeypatch.setattr(mixing, "_coded_plainly", 0)
    encode(indices, prior, 300)
    assert used == ["compiled"]  # it is loaded already
    monkeypatch.setattr(mixing, "COMPILED", "nonesuch")
    monkeypatch.setattr(mixing, "PLAIN_POSITIONS", 800)
    assert encode(indices, prior, 300) == expected
    assert np.array_equal(mixing.decode(expected, 300, prior, 300), indices)
    assert encode(indices, prior, 300) == expected
    assert used == ["compiled", "plain", "plain", "compiled"]


def test_the_compiled_twin_is_the_one_in_use() -> None:
    """Or the tests below would compare the plain one with itself."""
    pytest.importorskip("numba")
    assert mixing._coder() is not mixing.code


@given(cases())
@settings(deadline=None, max_examples=80)
def test_both_twins_write_the_same_bytes_and_read_them(case: tuple[Prior, Array, int]) -> None:
    prior, indices, width = case
    columns = mixing.columns_of(prior, width, len(indices))
    data = encode(indices, prior, columns)
    with plain():
        assert encode(indices, prior, columns) == data
        assert np.array_equal(mixing.decode(data, len(indices), prior, columns), indices)
    decoded = mixing.decode(data, len(indices), prior, columns)
    assert decoded.dtype == np.int64
    assert np.array_equal(decoded, indices)


@given(cases())
@settings(deadline=None, max_examples=60)
def test_never_longer_than_fixed_width(case: tuple[Prior, Array, int]) -> None:
    prior, indices, width = case
    data = encode_indices(indices[None], prior.num_codes, Tables(prior=prior), width)
    assert len(data) <= max_encoded_size(len(indices), prior.num_codes)
    assert len(data) <= len(encode_indices(indices[None], prior.num_codes))
    back = decode_indices(data, 1, len(indices), prior.num_codes, Tables(prior=prior), width)
    assert np.array_equal(back[0], indices)


@given(cases(), st.binary(max_size=60))
@settings(deadline=None, max_examples=150)
def test_garbage_is_refused_or_is_what_the_encoder_writes(
    case: tuple[Prior, Array, int], data: bytes
) -> None:
    """And both twins agree on which."""
    prior, indices, width = case
    columns = mixing.columns_of(prior, width, len(indices))
    verdicts = []
    for twin in (plain, _as_it_is):
        with twin():
            try:
                decoded = mixing.decode(data, len(indices), prior, columns)
            except BitstreamError as error:
                verdicts.append(str(error))
            else:
                assert encode(decoded, prior, columns) == data
                verdicts.append(decoded.tolist())
    assert verdicts[0] == verdicts[1]


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def test_every_cut_flip_and_extension_is_refused_or_canonical() -> None:
    prior = random_prior(5, (4, 4, 4), image=True, strength=0.2)
    indices = np.random.default_rng(0).integers(0, 64, 60)
    data = encode(indices, prior, 8)
    variants = spoilt(data)
    refused = 0
    for variant in variants:
        try:
            decoded = mixing.decode(variant, 60, prior, 8)
        except BitstreamError:
            refused += 1
        else:
            assert encode(decoded, prior, 8) == variant
    assert refused > len(variants) // 4


def test_extreme_weights_stay_within_32_bits() -> None:
    """The mixer is driven to its limits: the same in 64 bits (plain) and in 32 (compiled)."""
    prior = random_prior(0, (4, 4, 4, 4, 4), image=False, units=64)
    prior = dataclasses.replace(prior, nodes=np.sign(prior.nodes) * 32767, bias=np.full(64, 2**24))
    for indices in (np.zeros(700, np.int64), np.full(700, 1023), np.arange(700) * 617 % 1024):
        data = encode(indices, prior, 700)
        with plain():
            assert encode(indices, prior, 700) == data
            assert np.array_equal(mixing.decode(data, 700, prior, 700), indices)


@given(cases(), st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_both_twins_choose_the_same(case: tuple[Prior, Array, int], num_options: int) -> None:
    prior, indices, width = case
    random = np.random.default_rng(len(indices))
    columns = mixing.columns_of(prior, width, len(indices))
    options = random.integers(0, prior.num_codes, (len(indices), num_options))
    penalties = random.integers(0, 3000, options.shape)
    kept = penalties.copy()
    chosen = mixing.choose(options, penalties, prior, columns)
    with plain():
        assert np.array_equal(mixing.choose(options, penalties, prior, columns), chosen)
    assert np.array_equal(penalties, kept)
    assert (options == chosen[:, None]).any(1).all()


def test_choosing_saves_bits_as_far_as_penalties_allow() -> None:
    """Free choice costs fewer bits than the first options.

    Heavy penalties leave those alone (control).
    """
    prior = flat_prior()
    first = ar1(3000)
    options = np.stack([first, np.roll(first, 1), np.full(3000, 21)], 1)
    size = len(encode(first, prior, 3000))
    sizes = []
    for weight in (0, 400, 10**6):
        penalties = np.array([[0, weight, weight]]).repeat(3000, 0)
        chosen = mixing.choose(options, penalties, prior, 3000)
        sizes.append(len(encode(chosen, prior, 3000)))
    assert sizes[0] < sizes[1] < sizes[2] == size
    assert np.array_equal(chosen, first)


@given(cases(), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_the_bits_of_options_are_those_that_the_coder_spends(
    case: tuple[Prior, Array, int], num_options: int
) -> None:
    prior, indices, width = case
    random, columns = np.random.default_rng(0), mixing.columns_of(prior, width, len(indices))
    others = random.integers(prior.num_codes, size=(len(indices), num_options - 1))
    options = np.concatenate([indices[:, None], others], 1)
    found = mixing.bits_of(options, prior, columns)
    with plain():
        np.testing.assert_array_equal(mixing.bits_of(options, prior, columns), found)
    data = encode(indices, prior, columns)
    assert abs(8 * len(data) - found[:, 0].sum()) < 24 + 0.02 * found[:, 0].sum()
    for option in range(num_options):  # the last position's, as if it took that one
        changed = np.append(indices[:-1], options[-1:, option])
        ended = mixing.bits_of(changed[:, None], prior, columns)
        assert ended[-1:].sum() == pytest.approx(found[-1:, option].sum())


def test_of_equally_dear_options_both_twins_take_the_first() -> None:
    """Nets of zeros: every index costs the same bits, and the order of the options decides."""
    prior = random_prior(0, (4, 4), image=False, strength=0)
    options = np.array([[9, 2, 5], [5, 2, 9], [3, 3, 0]])
    penalties = np.array([[0, 0, 0], [7, 0, 0], [0, 0, 0]])
    for twin in (plain, nullcontext):
        with twin():
            assert mixing.choose(options, penalties, prior, 3).tolist() == [9, 2, 3]
            assert mixing.choose(options[:, ::-1], penalties, prior, 3).tolist() == [5, 2, 0]


def test_prices_are_bits() -> None:
    assert np.allclose(mixing.prices() / 256, -np.log2(squash() / 65536), atol=0.002)


def test_the_squash_is_the_logistic_function() -> None:
    table = squash()
    x = np.arange(-2047, 2048)
    assert np.abs(table - 65536 / (1 + np.exp(-x / 256))).max() <= 1
    assert (np.diff(table) >= 0).all()
    assert (table + table[::-1] == 65536).all()
    # An answer narrows the interval by less than 2**12, so by one word at most.
    assert table.min() >= 16
    assert hash(tuple(table.tolist())) == hash(tuple(squash.__wrapped__().tolist()))


def ar1(count: int, seed: int = 0, levels: int = 4, rho: float = 0.9) -> Array:
    """Three ordinal digits that follow first-order processes of their own, as one index each."""
    random = np.random.default_rng(seed)
    state, rows = np.zeros(3), []
    for _ in range(count):
        state = rho * state + np.sqrt(1 - rho**2) * random.normal(size=3)
        rows.append(np.searchsorted([-0.67, 0, 0.67], state))
    return np.array(rows) @ levels ** np.arange(3)


def flat_prior(levels: tuple[int, ...] = (4, 4, 4), **changes: Any) -> Prior:
    """A prior that knows nothing, but whose hidden units see the last index's digits."""
    num_rows = sum(levels)
    embedding = np.zeros((num_rows + 1, len(levels)), np.int64)
    starts = np.cumsum((0, *levels))
    for digit, count in enumerate(levels):
        embedding[starts[digit] : starts[digit] + count, digit] = np.arange(count) * 40 - 60
    hidden = np.zeros((len(levels), 8), np.int64)
    hidden[np.arange(len(levels)), np.arange(len(levels))] = 8000
    hidden[np.arange(len(levels)), np.arange(len(levels)) + len(levels)] = -8000
    bias = np.zeros(8, np.int64)
    bias[6] = 1 << 20
    tables = {
        "levels": np.array(levels),
        "order": np.empty(0, np.int64),
        "offsets": np.array([(0, -1)]),
        "embedding": embedding,
        "hidden": hidden,
        "bias": bias,
        "speeds": np.empty(0, np.int64),
        "digits": np.zeros((num_rows - levels[-1], 8), np.int64),
        "nodes": np.zeros((num_rows - len(levels), 8), np.int64),
        "stride": 0,
    }
    return Prior(**(tables | changes))


def test_the_mixer_learns_within_a_chunk() -> None:
    """From nothing to well under the six bits of fixed width.

    Indices without order teach it nothing (control).
    """
    indices = ar1(6000)
    size = len(encode(indices, flat_prior(), len(indices)))
    shuffled = np.random.default_rng(1).permutation(indices)
    control = len(encode(shuffled, flat_prior(), len(indices)))
    assert 8 * size / len(indices) < 5
    assert 8 * control / len(indices) > 5.9


def test_a_picture_is_seen_in_rows() -> None:
    """Columns that differ from row to row cost little if the neighbour above is the context, and
    much if it is not.
    """
    prior = flat_prior(offsets=np.array([(1, 0)]), stride=8)
    rows = np.stack([ar1(200, seed) for seed in range(30)], 1)
    right, wrong = (len(encode(rows.ravel(), prior, columns)) for columns in (30, 29))
    assert right < 0.85 * wrong


def test_the_geometry_comes_from_the_width() -> None:
    prior = random_prior(3, (4, 4), image=True, strength=0.3)
    assert [mixing.columns_of(prior, width, 99) for width in (1, 8, 9, 256)] == [1, 1, 2, 32]
    assert mixing.columns_of(random_prior(3, (4, 4), image=False), 0, 99) == 99
    indices = np.random.default_rng(0).integers(0, 4, (1, 99))
    data = encode_indices(
        indices, 16, Tables(prior=flat_prior((4, 4), stride=8, offsets=np.array([(1, 0)]))), 64
    )
    assert data[0] == 2


def test_errors_say_what_to_do() -> None:
    indices, tables = np.zeros((1, 300), np.int64), Tables(prior=flat_prior())
    data = encode_indices(indices, 64, tables)
    assert data[0] == 2
    with pytest.raises(BitstreamError, match="this model has no prior"):
        decode_indices(data, 1, 300, 64)
    with pytest.raises(ValueError, match="not for 1 codebooks of 65"):
        encode_indices(indices, 65, tables)
    with pytest.raises(ValueError, match="not for 2 codebooks"):
        encode_indices(np.zeros((2, 3), np.int64), 64, tables)


HIGH = np.full(8, 2**31 - 1 - 2**20)
# Nothing is seen but what is no neighbour.
OUTSIDE = np.concatenate([np.zeros((12, 3), np.int64), np.full((1, 3), 127)])
WIDE = {
    "wide": np.zeros((3, 8), np.int64),
    "wide_bias": np.zeros(8, np.int64),
    "hidden": np.ones((8, 8), np.int64),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": np.array([4, 4, 1])}, "must be|levels"),
        ({"nodes": np.zeros((9, 8))}, "integers"),
        ({"order": np.zeros(64, np.int64)}, "order"),
        ({"order": np.arange(63)}, "order"),
        ({"offsets": np.array([(0, 0)])}, "offsets"),
        ({"offsets": np.array([(0, 1)])}, "offsets"),
        ({"offsets": np.array([(-1, 0)])}, "offsets"),
        ({"offsets": np.array([(0, -1), (0, -2)])}, "hidden"),
        ({"offsets": np.array([(200, 0)])}, "offsets"),
        ({"embedding": np.full((13, 3), 128)}, "embedding"),
        ({"embedding": np.zeros((12, 3), np.int64)}, "embedding"),
        ({"hidden": np.full((3, 8), 1 << 15)}, "weights"),
        ({"bias": np.full(8, 2**31 - 1)}, "sums"),
        ({"bias": HIGH, "digits": np.full((8, 8), 32767)}, "sums"),
        ({"bias": HIGH, "embedding": OUTSIDE, "hidden": np.full((3, 8), 32767)}, "sums"),
        ({"bias": np.zeros(9, np.int64)}, "must be"),
        ({"speeds": np.array([9])}, "must be|speeds"),
        ({"digits": np.zeros((12, 8), np.int64)}, "digits"),
        ({"nodes": np.full((9, 8), 32768)}, "nodes"),
        ({"stride": -1}, "stride"),
        ({"wide": np.zeros((3, 8), np.int64)}, "wide"),
        ({"wide_bias": np.zeros(8, np.int64)}, "wide"),
        ({**WIDE, "wide": np.zeros((3, 12), np.int64)}, "wide"),
        ({**WIDE, "wide": np.full((3, 8), 1 << 15)}, "weights"),
        ({**WIDE, "wide": np.ones((3, 8), np.int64), "wide_bias": np.full(8, 2**31 - 1)}, "sums"),
        ({**WIDE, "bias": np.full(8, 2**31 - 1)}, "sums"),
        (
            {
                "wide": np.zeros((3, 4), np.int64),
                "wide_bias": np.zeros(4, np.int64),
                "hidden": np.zeros((4, 8), np.int64),
            },
            "units of the wide",
        ),
        (
            {
                "wide": np.zeros((3, 72), np.int64),
                "wide_bias": np.zeros(72, np.int64),
                "hidden": np.full((72, 8), 32_767),
            },
            "sums",
        ),
    ],
)
def test_impossible_priors_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flat_prior(**change)


def test_a_high_bias_alone_is_possible() -> None:
    """Negative control of the sums above."""
    flat_prior(bias=HIGH)


def test_a_prior_survives_its_tensors() -> None:
    prior = random_prior(1, (7, 5, 5), image=True)
    back = Prior.from_tensors(prior.to_tensors())
    indices = np.random.default_rng(0).integers(0, 175, 50)
    assert encode(indices, back, 7) == encode(indices, prior, 7)
    with pytest.raises(ValueError, match="stride"):
        Prior.from_tensors({**prior.to_tensors(), "stride": np.zeros(2, np.int64)})


def test_without_numba_the_bytes_are_the_same() -> None:
    """In a process where numba cannot be imported."""
    script = (
        f"import sys; sys.modules['numba'] = None; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "from test_mixing import random_prior, encode, mixing; import numpy as np\n"
        "assert mixing._coder() is mixing.code\n"
        "print(encode(np.arange(40) * 7 % 175, random_prior(2, (7, 5, 5), True), 6).hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert (
        done.stdout.strip()
        == encode(np.arange(40) * 7 % 175, random_prior(2, (7, 5, 5), True), 6).hex()
    )


def test_no_tables_is_fixed_width() -> None:
    assert encode_indices(np.zeros((1, 9), np.int64), 64, NO_TABLES)[0] == 0


@pytest.mark.parametrize("name", [card.name for card in cards.list_cards()])
def test_real_media_cost_less(name: str, real: Callable[[str, int], bytes]) -> None:
    """A shipped model with priors, on an item that it was not trained on."""
    model = coding.load(cards.find(name))
    pack = {"speech": "speech-test.tar", "image": "image-test-coco.tar"}[model.card.medium]
    data = api.compress(real(pack, 3), 1024, model)
    bare = dataclasses.replace(
        model, tables={k: dataclasses.replace(t, prior=None) for k, t in model.tables.items()}
    )
    summary, without = (
        scan(io.BytesIO(d)) for d in (data, api.compress(real(pack, 3), 1024, bare))
    )
    # Of 10 at fixed width, and of what frequencies alone give.
    assert 8 * summary.payload_bytes / summary.num_positions < 9.2
    assert summary.payload_bytes < 0.95 * without.payload_bytes


def test_the_range_coder_is_taken_where_it_is_shorter() -> None:
    """Indices without neighbourhood, of which the prior knows nothing."""
    tables = coding.load(cards.find("speech-fsp")).tables[1024]
    assert tables.frequencies is not None
    weights = tables.frequencies[0].astype(float) ** 3
    random = np.random.default_rng(0)
    indices = random.choice(len(weights), (1, 1500), p=weights / weights.sum())
    data = encode_indices(indices, len(weights), tables)
    mixed = encode_indices(indices, len(weights), Tables(prior=tables.prior))
    ranged = encode_indices(indices, len(weights), Tables(tables.frequencies))
    assert (mixed[0], ranged[0]) == (MIXING, RANGE)
    assert data == ranged
    assert len(ranged) < len(mixed)
    assert 0 <= len(ranged) - range_coder.ideal_bytes(indices, tables.frequencies) < 4
    decoded = decode_indices(data, 1, 1500, len(weights), tables)
    assert np.array_equal(decoded, indices)
