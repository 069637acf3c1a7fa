"""The coders of integers: round trips, size against the ideal, an independent second encoder, and
garbage.
"""

import math
import random

import numpy as np
import pytest
import torch
from conftest import spoilt
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec.entropy import (
    Tables,
    decode_indices,
    encode_indices,
    fixed,
    max_encoded_size,
    quantise_counts,
    range_coder,
)
from codec.entropy.range_coder import TOTAL
from codec.errors import BitstreamError

Array = NDArray[np.int64]


def random_case(
    seed: int, num_codebooks: int, count: int, num_codes: int, skew: float
) -> tuple[Array, Array]:
    """Indices (G, n) drawn from a random distribution, flatter for larger `skew`, and the table
    that fits it.
    """
    generator = np.random.default_rng(seed)
    weights = generator.gamma(skew, size=(num_codebooks, num_codes)) + 1e-9
    counts = (weights * (1_000_000 / weights.sum(axis=1, keepdims=True))).astype(np.int64)
    table = quantise_counts(counts)
    indices = [generator.choice(num_codes, count, p=row / TOTAL) for row in table]
    return np.array(indices, np.int64).reshape(num_codebooks, count), table


cases = st.builds(
    random_case,
    seed=st.integers(0, 2**32 - 1),
    num_codebooks=st.integers(1, 4),
    count=st.integers(0, 200),
    num_codes=st.one_of(st.integers(1, 70), st.sampled_from([243, 256, 1000, 4375])),
    skew=st.sampled_from([0.01, 0.3, 1.0, 50.0]),
)


def ideal_bytes(indices: Array, table: Array) -> float:
    frequencies = np.take_along_axis(table, indices, axis=1)
    return float(-np.log2(frequencies / TOTAL).sum()) / 8


def encode_with_one_long_number(indices: Array, table: Array) -> bytes:
    """The range coder again, from its definition: one integer of any length for `low`, so no words
    and no carries.
    """
    low, width, num_bits = 0, 2**48, 48
    for row, frequencies in zip(indices.tolist(), table.tolist(), strict=True):
        for index in row:
            step = width // TOTAL
            low += step * sum(frequencies[:index])
            width = step * frequencies[index]
            while width < 2**32:
                low, width, num_bits = low << 16, width << 16, num_bits + 16
    for num_bytes in range((num_bits - 48) // 8, num_bits // 8 + 1):
        unit = 1 << (num_bits - 8 * num_bytes)
        number = -(-low // unit)
        if number * unit < low + width:
            return number.to_bytes(num_bytes, "big")
    raise AssertionError("an interval of 2**32 or more holds a multiple of 2**32")


@given(cases)
@settings(deadline=None, max_examples=60)
def test_indices_survive_and_the_smaller_coder_wins(case: tuple[Array, Array]) -> None:
    indices, table = case
    num_codebooks, count = indices.shape
    num_codes = table.shape[1]
    data = encode_indices(indices, num_codes, Tables(table))
    decoded = decode_indices(data, num_codebooks, count, num_codes, Tables(table))
    assert decoded.dtype == np.int64
    assert np.array_equal(decoded, indices)
    plain = encode_indices(indices, num_codes)
    assert plain[0] == 0
    assert len(plain) == 1 + math.ceil(indices.size * math.ceil(math.log2(num_codes)) / 8)
    assert len(data) == min(len(plain), 1 + len(range_coder.encode(indices, table)))
    assert np.array_equal(decode_indices(plain, num_codebooks, count, num_codes), indices)


@given(cases)
@settings(deadline=None, max_examples=60)
def test_range_coder_agrees_with_the_definition_and_nears_the_ideal(
    case: tuple[Array, Array],
) -> None:
    indices, table = case
    data = range_coder.encode(indices, table)
    assert data == encode_with_one_long_number(indices, table)
    assert np.array_equal(range_coder.decode(data, indices.shape[1], table), indices)
    assert len(data) <= ideal_bytes(indices, table) * 1.001 + 8


@pytest.mark.parametrize(("num_codes", "skew"), [(64, 0.1), (4375, 0.5), (32768, 1.0)])
def test_range_coder_is_near_the_ideal_on_long_messages(num_codes: int, skew: float) -> None:
    indices, table = random_case(7, 2, 8000, num_codes, skew)
    data = range_coder.encode(indices, table)
    assert len(data) <= ideal_bytes(indices, table) * 1.001 + 8
    assert np.array_equal(range_coder.decode(data, 8000, table), indices)


def test_near_certain_indices_cost_nothing() -> None:
    table = np.array([[TOTAL - 1, 1]])
    indices = np.zeros((1, 65536), np.int64)
    assert len(range_coder.encode(indices, table)) <= 1
    indices[0, ::5000] = 1
    data = range_coder.encode(indices, table)
    assert len(data) <= ideal_bytes(indices, table) * 1.001 + 8
    assert np.array_equal(range_coder.decode(data, 65536, table), indices)


def test_a_carry_runs_through_many_words() -> None:
    """An interval that straddles one half: `low` is 0x7FFF FFFF ..., the shortest number in it 0x80
    00 ...
    """
    table = np.array([[300_000, 400_000, TOTAL - 700_000]])
    longest = 0
    for count in range(60, 100):
        for length in range(2, 60, 2):
            data = b"\x80" + bytes(length - 1)
            try:
                indices = range_coder.decode(data, count, table)
            except BitstreamError:
                continue
            below = np.append(indices, [[0, 0]], axis=1)
            # So low is under one half, and only the carry made it 0x80.
            if range_coder.encode(below, table)[0] == 0x7F:
                longest = max(longest, length)
            assert (
                range_coder.encode(indices, table)
                == encode_with_one_long_number(indices, table)
                == data
            )
    assert longest >= 16


@pytest.mark.parametrize("num_codes", [1, 2, 3, 255, 256, 257, 4375, 65537, 2**24 - 1, 2**24])
def test_fixed_width_of_every_size(num_codes: int) -> None:
    values = [0, num_codes - 1, num_codes // 2, num_codes // 3, num_codes - 1]
    indices = np.array([values, values[::-1]], np.int64)
    data = fixed.encode(indices, num_codes)
    bits = "".join(
        f"{value:0{width}b}" for value in indices.ravel() if (width := (num_codes - 1).bit_length())
    )
    assert data == b"".join(
        int(bits[i : i + 8].ljust(8, "0"), 2).to_bytes() for i in range(0, len(bits), 8)
    )
    assert np.array_equal(fixed.decode(data, 2, 5, num_codes), indices)


def test_fixed_width_refuses_what_it_never_writes() -> None:
    data = fixed.encode(np.array([[4, 4, 4]]), 5)  # nine bits: seven pad bits
    for damaged, message in [
        (data[:-1], "take 2 bytes, not 1"),
        (data + b"\0", "take 2 bytes, not 3"),
        (data[:-1] + bytes([data[-1] | 1]), "pad bit"),
        (bytes([data[0] | 0x20, data[1]]), "outside the codebook of 5"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            fixed.decode(damaged, 1, 3, 5)


@pytest.mark.parametrize("bit", range(7))
def test_fixed_width_refuses_each_pad_bit(bit: int) -> None:
    data = fixed.encode(np.array([[4, 4, 4]]), 5)
    with pytest.raises(BitstreamError, match="pad bit"):
        fixed.decode(data[:-1] + bytes([data[-1] | 1 << bit]), 1, 3, 5)


@pytest.mark.parametrize("num_codes", [1, 2, 300, 4375])
def test_garbage_gives_indices_or_a_bitstream_error(num_codes: int) -> None:
    source = random.Random(num_codes)
    _, table = random_case(1, 2, 1, num_codes, 0.2)
    for length in list(range(40)) * 4:
        data = source.randbytes(length)
        if length > 8:
            data = bytes([length % 2]) + data[1:]
        for count in (0, 1, 7, 30):
            try:
                indices = decode_indices(data, 2, count, num_codes, Tables(table))
            except BitstreamError:
                continue
            assert indices.shape == (2, count)
            assert indices.size == 0 or 0 <= indices.min() <= indices.max() < num_codes


def test_range_coder_accepts_only_its_own_bytes() -> None:
    """Every change, cut and extension of a payload is either refused or the exact encoding of other
    indices.
    """
    indices, table = random_case(3, 2, 30, 50, 0.5)
    data = range_coder.encode(indices, table)
    variants = spoilt(data)
    num_refused = 0
    for variant in variants:
        try:
            decoded = range_coder.decode(variant, 30, table)
        except BitstreamError:
            num_refused += 1
        else:
            assert range_coder.encode(decoded, table) == variant
    assert num_refused > len(variants) // 4
    with pytest.raises(BitstreamError):
        range_coder.decode(data + b"\0", 30, table)


def test_errors_say_what_to_do() -> None:
    indices, table = random_case(3, 1, 30, 50, 0.05)
    data = encode_indices(indices, 50, Tables(table))
    assert data[0] == 1
    with pytest.raises(BitstreamError, match="no coder tables"):
        decode_indices(data, 1, 30, 50)
    with pytest.raises(BitstreamError, match="coder 3, which needs a newer version"):
        decode_indices(b"\x03" + data[1:], 1, 30, 50, Tables(table))
    with pytest.raises(BitstreamError, match="missing"):
        decode_indices(b"", 1, 30, 50, Tables(table))


def test_wrong_arguments_are_value_errors() -> None:
    table = quantise_counts(np.ones((1, 4), np.int64))
    with pytest.raises(ValueError, match=r"lie in \[0, 4\)"):
        encode_indices(np.array([[0, 4]]), 4, Tables(table))
    with pytest.raises(ValueError, match=r"lie in \[0, 4\)"):
        encode_indices(np.array([[-1, 0]]), 4, Tables(table))
    with pytest.raises(ValueError, match="integers of shape"):
        encode_indices(np.array([[0.0]]), 4)
    with pytest.raises(ValueError, match="integers of shape"):
        encode_indices(np.array([0]), 4)
    for num_codes in (0, 2**24 + 1):
        with pytest.raises(ValueError, match="num_codes"):
            encode_indices(np.array([[0]]), num_codes)
    data = encode_indices(np.array([[0, 3]]), 4)
    for wrong_k in (4.0, "4", None, True):
        for call in (
            lambda k: encode_indices(np.array([[0, 3]]), k),
            lambda k: decode_indices(data, 1, 2, k),
            lambda k: max_encoded_size(2, k),
        ):
            with pytest.raises(ValueError, match="num_codes is a whole number"):
                call(wrong_k)
    for wrong_n in (-1, 2.0, None):
        with pytest.raises(ValueError, match="num_codebooks is a whole number from 0 on"):
            decode_indices(data, wrong_n, 2, 4)
        with pytest.raises(ValueError, match="count is a whole number from 0 on"):
            decode_indices(data, 1, wrong_n, 4)
        with pytest.raises(ValueError, match="num_indices is a whole number from 0 on"):
            max_encoded_size(wrong_n, 4)
    for no_array in ([[0, 3]], torch.tensor([[0, 3]]), None):
        with pytest.raises(TypeError, match="indices are an array of numpy, not"):
            encode_indices(no_array, 4)
    for wrong in (table[:, :3], table + 1, table * 1.0, np.array([[0, TOTAL, 0, 0]])):
        with pytest.raises(ValueError, match="coder table"):
            encode_indices(np.array([[0]]), 4, Tables(wrong))


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=60), st.integers(0, 2))
@settings(deadline=None)
def test_quantised_counts_are_a_fair_table(row: list[int], num_unused: int) -> None:
    counts = np.array([row + [0] * num_unused], np.int64)
    table = quantise_counts(counts)
    assert table.dtype == np.int64
    assert table.min() >= 1
    assert table.sum() == TOTAL
    order = np.argsort(counts[0], kind="stable")
    assert (np.diff(table[0][order]) >= -1).all()  # equal counts differ by a rounding at most
    if total := counts.sum():
        share = counts * (TOTAL - counts.shape[1]) / total
        assert np.abs(table - 1 - share).max() <= 1


def test_quantised_counts_are_pinned() -> None:
    """Tables are part of a model: another rounding would break every file made with it."""
    table = quantise_counts(np.array([[0, 1, 2, 4, 0, 0, 7], [0] * 7, [5] * 7], np.int64))
    assert table.tolist() == [
        [1, 74899, 149797, 299592, 1, 1, 524285],
        [149797, 149797, 149797, 149797, 149796, 149796, 149796],
        [149797, 149797, 149797, 149797, 149796, 149796, 149796],
    ]


@pytest.mark.parametrize("highest", [1, 2, 3])
def test_what_rounding_leaves_goes_to_the_lower_of_equal_remainders(highest: int) -> None:
    """Of so many counts that a sort which is not stable mixes them."""
    counts = np.random.default_rng(0).integers(1, highest + 1, 1000).tolist()
    shares = [divmod(count * (TOTAL - 1000), sum(counts)) for count in counts]
    table = [1 + share for share, _ in shares]
    for index in sorted(range(1000), key=lambda i: (-shares[i][1], i))[: TOTAL - sum(table)]:
        table[index] += 1
    assert quantise_counts(np.array([counts])).tolist() == [table]


def test_wrong_counts_are_value_errors() -> None:
    for counts in (
        np.array([1, 2]),
        np.array([[-1, 2]]),
        np.array([[2**42]]),
        np.zeros((1, 0), np.int64),
        np.ones((1, 2)),
    ):
        with pytest.raises(ValueError, match="counts must be"):
            quantise_counts(counts)
