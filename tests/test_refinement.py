"""The mixing coder where the first digits are known: both twins agree, and what it sees is what it
says it sees.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_mixing import plain

from codec.entropy import Prior, fixed, mixing, refinement
from codec.errors import BitstreamError

Array = NDArray[np.int64]
LEVELS = [((4, 3), (2, 2)), ((6,), (3,)), ((2, 2, 5), (2,)), ((40,), (5, 2))]
OFFSETS = {
    False: [(0, -1), (0, -3), (0, 1), (0, 2)],
    True: [(0, -1), (1, 0), (1, 1), (0, 1), (-1, 0), (-2, -3)],
}


def random_prior(
    seed: int, coarse: tuple[int, ...], own: tuple[int, ...], image: bool, units: int = 16
) -> Prior:
    """A prior of random weights for a refinement."""
    random = np.random.default_rng(seed)
    levels, offsets = np.array([*coarse, *own]), np.array(OFFSETS[image])
    num_rows, num_features, speeds = int(levels.sum()), 3, [3][: int(random.integers(0, 2))]
    num_inputs, num_wide = (len(offsets) + len(speeds)) * num_features, seed % 2 * 16

    def draw(most: float, *shape: int) -> Array:
        return (random.normal(size=shape) * most).round().clip(-most * 3, most * 3).astype(np.int64)

    return Prior(
        levels=levels,
        order=random.permutation(int(levels.prod())) if seed % 2 else np.empty(0, np.int64),
        offsets=offsets,
        embedding=draw(40, num_rows + 1, num_features),
        hidden=draw(300, num_wide, units) if num_wide else draw(1500, num_inputs, units),
        bias=draw(100_000, units),
        speeds=np.array(speeds, np.int64),
        digits=draw(3000, num_rows - own[-1], units),
        nodes=draw(4000, sum(own) - len(own), units),
        stride=8 if image else 0,
        given=len(coarse),
        wide=draw(1500, num_inputs, num_wide) if num_wide else np.empty((0, 0), np.int64),
        wide_bias=draw(100_000, num_wide),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Prior, Array, int]:
    """A prior, (n,) indices and the picture's width."""
    seed, image = draw(st.integers(0, 2**32 - 1)), draw(st.booleans())
    prior = random_prior(
        seed, *draw(st.sampled_from(LEVELS)), image, draw(st.sampled_from([8, 64]))
    )
    count = draw(st.integers(1, 70))
    indices = np.random.default_rng(seed + 1).integers(0, prior.num_codes, count)
    if draw(st.booleans()):  # children that are all the first, which mixing soon learns
        places = prior.to_places(indices)
        indices = prior.from_places(places - places % prior.num_refined)
    return prior, indices, draw(st.integers(1, 200)) if image else 0


@given(cases())
@settings(deadline=None, max_examples=80)
def test_both_twins_write_the_same_bytes_and_read_them(case: tuple[Prior, Array, int]) -> None:
    mixing._coder()
    prior, indices, width = case
    coarse = refinement.parents(indices, prior)
    columns = mixing.columns_of(prior, width, len(indices))
    data = mixing.encode(indices, prior, columns, 10**6)
    assert data is not None
    assert np.array_equal(mixing.decode(data, len(indices), prior, columns, coarse), indices)
    packed = refinement.encode(indices, prior, width)
    assert len(packed) <= refinement.longest(len(indices), prior.num_refined)
    with plain():
        assert mixing.encode(indices, prior, columns, 10**6) == data
        assert np.array_equal(mixing.decode(data, len(indices), prior, columns, coarse), indices)
        assert refinement.encode(indices, prior, width) == packed
    assert np.array_equal(refinement.decode(packed, coarse, prior, width), indices)


@given(cases(), st.binary(max_size=30))
@settings(deadline=None, max_examples=100)
def test_garbage_is_refused_or_refines_what_it_should(
    case: tuple[Prior, Array, int], data: bytes
) -> None:
    prior, indices, width = case
    coarse = refinement.parents(indices, prior)
    try:
        found = refinement.decode(data, coarse, prior, width)
    except BitstreamError:
        return
    assert np.array_equal(refinement.parents(found, prior), coarse)
    assert found.min() >= 0
    assert found.max() < prior.num_codes
    assert len(refinement.encode(found, prior, width)) <= len(data)


def test_a_refinement_leaves_no_choice() -> None:
    prior, options = random_prior(1, (4, 3), (2, 2), False), np.array([[1, 2], [3, 4]])
    for call in (
        lambda: mixing.bits_of(options, prior, 2),
        lambda: mixing.choose(options, 0 * options, prior, 2),
    ):
        with pytest.raises(ValueError, match="digits that are given"):
            call()


def test_a_length_names_the_coder() -> None:
    prior = random_prior(1, (4, 3), (2, 2), False)
    weak = {"nodes": 0 * prior.nodes, "hidden": 0 * prior.hidden, "bias": np.full(16, 256 << 10)}
    prior = dataclasses.replace(prior, **weak)
    random = np.random.default_rng(0)
    noise = random.integers(0, 48, 300)
    packed = refinement.encode(noise, prior, 0)
    assert len(packed) == 75
    assert packed == fixed.encode(prior.to_places(noise)[None] % 4, 4)
    regular = prior.from_places(random.integers(0, 12, 300) * 4)
    assert len(refinement.encode(regular, prior, 0)) < 40


def test_what_comes_later_is_seen() -> None:
    """A child that is a question about the next parent costs less where that is a neighbour."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 12, 900)
    indices = coarse * 2 + (np.append(coarse[1:], 0) >= 6)
    sizes = []
    for offset in ((0, 1), (0, -1)):
        embedding = np.zeros((15, 1), np.int64)
        embedding[:12, 0] = np.where(np.arange(12) >= 6, 32, -32)
        hidden = np.zeros((1, 8), np.int64)
        hidden[0] = [8000] * 4 + [-8000] * 4
        prior = Prior(
            levels=np.array([12, 2]),
            order=np.empty(0, np.int64),
            offsets=np.array([offset]),
            embedding=embedding,
            hidden=hidden,
            bias=np.full(8, 256 << 10),
            speeds=np.empty(0, np.int64),
            digits=np.zeros((12, 8), np.int64),
            nodes=np.zeros((1, 8), np.int64),
            stride=0,
            given=1,
        )
        data = mixing.encode(indices, prior, 900, 10**6)
        assert data is not None
        assert np.array_equal(mixing.decode(data, 900, prior, 900, coarse), indices)
        sizes.append(len(data))
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"given": 3}, "nodes"),
        ({"given": 4}, "shape|given|nodes"),
        ({"given": -1}, "given|nodes"),
        ({"given": 0}, "nodes"),
        ({"offsets": np.array([[0, 0], [0, -1], [0, 1], [0, 2]])}, "offsets"),
    ],
)
def test_impossible_priors_are_refused(change: dict[str, object], message: str) -> None:
    prior = random_prior(0, (4, 3), (2, 2), False)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(prior, **change)


def test_a_prior_survives_its_tensors() -> None:
    prior = random_prior(3, (4, 3), (2, 2), True)
    tensors = prior.to_tensors()
    again = Prior.from_tensors(tensors)
    assert again.given == 2
    assert all(np.array_equal(table, tensors[name]) for name, table in again.to_tensors().items())
    assert (
        "given"
        not in dataclasses.replace(
            prior, given=0, nodes=np.zeros((7, 16), np.int64), offsets=np.array([[0, -1]] * 6)
        ).to_tensors()
    )
