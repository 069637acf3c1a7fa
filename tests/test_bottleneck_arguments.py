"""What a bottleneck cannot be made of is refused in one line that names the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from codec import arguments
from codec.bottlenecks import BOTTLENECKS, Grouped, Residual
from codec.bottlenecks.codebooks import Affine, Alternating, ByAverage, Restart
from codec.bottlenecks.fsq import MOST, bound
from codec.bottlenecks.tokenbridge import MOST as MOST_VALUES
from codec.bottlenecks.tokenbridge import cell_means

NO_SIZES = [0, 1024, (), (0,), (-3,), (2.5,), ("a",), (True,), (1024, 256), (8, 8), None]
NO_LEVELS = [3, "x", {}, {8: 3}, {8: ["a"]}, {8: [2.5, 3]}, {"a": [2, 2]}, {0: [2]}, {8: []}]
NO_LEVELS += [{256.9: [4, 4]}, {True: [1]}, {8: [2**25]}, {8: [2**22] * 3}, {8: [4], "8": [8]}]
NO_WHOLE = [0, -1, 2.5, math.nan, "x", [3], True]
NO_SHARE = [-0.1, 1.5, math.nan, "x", None, [0.5]]
NO_NUMBER = [math.nan, math.inf, "1", None, [1.0], True]
OF_LEVELS = ("fsp", "fsq", "fsq-noise", "tokenbridge")

REFUSED: list[tuple[str, str, list[Any]]] = [
    *((name, "levels", NO_LEVELS) for name in OF_LEVELS),
    *((name, "codebook_sizes", NO_SIZES) for name in BOTTLENECKS if name not in OF_LEVELS),
    *((name, "dim", [*NO_WHOLE, None]) for name in ("vp", "gmvq", "vq", "simvq", "sqvae")),
    ("gumbelvq", "in_dim", NO_WHOLE),
    ("gumbelvq", "hard", [None, 1, "no"]),
    ("grouped", "num_groups", [*NO_WHOLE, None]),
    ("residual", "num_stages", [*NO_WHOLE, None]),
    ("grouped", "method", ["vqq", None, 3, ["vq"]]),
    ("residual", "method", ["vqq", None, 3, ["vq"], "fsp"]),
    ("fsp", "activation", ["cosine", None, ["tanh"]]),
    ("fsp", "accept", ["all", None, ["element"]]),
    ("fsp", "eta", [*NO_NUMBER, -1.0]),
    ("fsp", "quantise_probability", NO_SHARE),
    ("fsq-noise", "quantise_probability", NO_SHARE),
    ("vp", "eta", [*NO_NUMBER, -1.0]),
    *(("vp", name, NO_WHOLE) for name in ("rows_per_code", "neighbours", "refresh_steps")),
    ("vp", "reference_size", NO_WHOLE),
    ("vp", "nested", [None, 1, "no"]),
    ("gmvq", "latent_term", ["mean", None, ["sampled"]]),
    ("gmvq", "two_sigma2", [*NO_NUMBER, 0.0, -1.0]),
    ("gmvq", "max_weight", [*NO_NUMBER, 0.0, -1.0]),
    ("gmvq", "weight_offset", NO_NUMBER),
    ("tokenbridge", "latent_range", [*NO_NUMBER, 0.0, -1.0]),
]
CASES = [(name, key, value) for name, key, values in REFUSED for value in values]


@pytest.mark.parametrize(("name", "key", "value"), CASES)
def test_refused_in_one_line(name: str, key: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        BOTTLENECKS[name](**{key: value})
    message = str(caught.value)
    words = key.replace("latent_term", "latent term")
    assert words in message
    assert repr(value) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_what_is_whole_is_taken_as_python_s_own(name: str) -> None:
    """Numbers of NumPy, and lists for tuples: as they come out of configurations."""
    if name in OF_LEVELS:
        made = BOTTLENECKS[name](levels={"8": np.array([2, 4])})
    else:
        made = BOTTLENECKS[name](codebook_sizes=[np.int64(8)])
    assert made.codebook_sizes == (8,)
    assert type(made.codebook_sizes[0]) is int
    assert made.num_codes(8) == 8


@pytest.mark.parametrize(
    ("value", "low", "high", "message"),
    [
        (2, 0, 1, "x is a number from 0 to 1, not 2"),
        (-1, 0, math.inf, "x is a finite number from 0 on, not -1"),
        (math.inf, -math.inf, math.inf, "x is a finite number, not inf"),
        (10**400, -math.inf, math.inf, "x is a finite number, not 1"),
    ],
)
def test_the_range_is_told(value: float, low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments.real(value, "x", low, high)


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert arguments.real(0, "x", 0, 1) == 0.0
    assert arguments.real(np.float32(1), "x", 0, 1) == 1.0
    assert arguments.whole(3, "x", 3) == 3
    with pytest.raises(ValueError, match="x is a whole number from 3 on, not 2"):
        arguments.whole(2, "x", 3)


PARTS: dict[str, Callable[..., Any]] = {
    "Affine": lambda **options: Affine(3, **options),
    "ByAverage": lambda **options: ByAverage(8, 3, **options),
    "Alternating": lambda **options: Alternating(8, 3, **options),
    "Restart": lambda **options: Restart(8, **options),
}


@pytest.mark.parametrize(
    ("part", "key", "values"),
    [
        ("Affine", "scale", [*NO_NUMBER, -1, 0]),
        ("ByAverage", "decay", NO_SHARE),
        ("ByAverage", "epsilon", [*NO_NUMBER, -1, 0]),
        ("Alternating", "rate", [*NO_NUMBER, -1]),
        ("Alternating", "momentum", NO_SHARE),
        ("Alternating", "steps", NO_WHOLE),
        ("Restart", "patience", NO_WHOLE),
        ("Restart", "noise", [*NO_NUMBER, -1]),
    ],
)
def test_the_parts_of_vq_are_checked_too(part: str, key: str, values: list[Any]) -> None:
    PARTS[part]()
    for value in values:
        with pytest.raises(ValueError, match=rf"{key} is a .*number.*, not "):
            PARTS[part](**{key: value})


def test_parts_are_bottlenecks_in_any_sequence() -> None:
    make = BOTTLENECKS["vq"]
    assert Grouped(make(dim=4) for _ in range(2)).dim == 8  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parts are bottlenecks, not 'vq'"):
        Grouped(["vq"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="parts are bottlenecks, not None"):
        Residual(lambda _: None, (8,))  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="want a function of K"):
        Residual(make(dim=4), (8,), 2)  # type: ignore[arg-type]


def test_the_most_levels_are_all_reached_and_one_more_is_not() -> None:
    """FSQ's eps, and TokenBridge's cut, leave nothing of the outermost cells beyond them."""
    ends = torch.tensor([[[-50.0], [50.0]]]).transpose(0, 2)
    for levels, reached in ((MOST, True), (MOST + 10, False)):
        half = levels // 2
        digits = bound(ends, torch.tensor(levels)).round().flatten() + half
        assert (digits.tolist() == [0, levels - 1]) == reached
    assert cell_means(MOST_VALUES).isfinite().all()
    assert not cell_means(MOST_VALUES + 1).isfinite().all()
    for name, most in (("fsq", MOST), ("tokenbridge", MOST_VALUES)):
        BOTTLENECKS[name](levels={8: [most]})
        with pytest.raises(ValueError, match=f"to {most}, by codebook size"):
            BOTTLENECKS[name](levels={8: [most + 1]})
