"""Statistics against second implementations and cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from eval.curves import bd_rate, bd_rates, curves_of, monotone
from eval.summary import statistic, total_rate, use

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def rng_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test draws does not depend on the tests before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def test_a_statistic_is_of_what_was_scored() -> None:
    found = statistic([1.0, None, 3.0, 5.0])
    assert (found["mean"], found["scored"], found["of"]) == (3.0, 3, 4)
    assert found["se"] == pytest.approx(2 / 3**0.5)
    assert statistic([None, None])["mean"] is None
    assert statistic([2.0])["low"] is None  # one item tells nothing of its spread
    assert (statistic([2.0, 2.0])["low"], statistic([2.0, 2.0])["high"]) == (2.0, 2.0)


def test_a_rate_is_of_the_set_and_not_of_its_items() -> None:
    """One clip of one sample, nearly all container, beside two real ones: sums, with an interval
    over items.
    """
    found = total_rate([1400.0, 2800.0, 40.0], [1.0, 2.0, 1 / 16_000])
    assert found["mean"] == pytest.approx(4240 / (3 + 1 / 16_000))
    assert found["low"] <= found["mean"] <= found["high"]
    assert (found["scored"], found["of"]) == (3, 3)
    alone = total_rate([40.0], [0.5])
    assert (alone["mean"], alone["se"], alone["low"], alone["high"]) == (80.0, None, None, None)


def test_a_rate_of_equal_units_is_the_mean_of_the_items() -> None:
    bits = RNG.normal(9000, 500, 30)
    ours, plain = total_rate(bits.tolist(), [4.0] * 30, "a"), statistic((bits / 4).tolist(), "a")
    assert ours == pytest.approx(plain)


def test_the_interval_of_a_rate_covers_the_true_rate_as_often_as_it_says() -> None:
    """Clips of unequal length, whose bits are 1000 + 1500 a second and noise: the rate is 1500 +
    1000 / 5.25.
    """
    hits, spread, errors = 0, [], []
    for i in range(300):
        seconds = RNG.uniform(0.5, 10, 40)
        bits = 1000 + 1500 * seconds + RNG.normal(0, 400, 40)
        found = total_rate(bits.tolist(), seconds.tolist(), str(i))
        hits += found["low"] <= 1500 + 1000 / 5.25 <= found["high"]
        spread.append(found["mean"])
        errors.append(found["se"])
    assert 0.89 <= hits / 300 <= 0.98
    assert np.mean(errors) == pytest.approx(np.std(spread), rel=0.15)


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    """Of 300 samples of 40 skewed values, about 95 %; a bootstrap of so few covers a bit less."""
    hits = 0
    for i in range(300):
        found = statistic(RNG.exponential(2, 40).tolist(), str(i))
        hits += found["low"] <= 2 <= found["high"]
    assert 0.89 <= hits / 300 <= 0.98
    half = sum(s["mean"] - s["se"] / 2 <= 2 <= s["mean"] + s["se"] / 2 for s in (
        statistic(RNG.exponential(2, 40).tolist(), str(i)) for i in range(100)
    ))  # fmt: skip
    assert half / 100 < 0.6  # an interval that is too narrow would be seen


def test_the_interval_is_between_percentiles_of_resampled_means() -> None:
    """Of skewed values its upper side is the longer."""
    values = RNG.exponential(2, 40) ** 2
    found = statistic(values.tolist())
    means = RNG.choice(values, (20_000, 40)).mean(1)
    assert [found["low"], found["high"]] == pytest.approx(
        np.percentile(means, [2.5, 97.5]), rel=0.05
    )


def test_the_interval_repeats_and_depends_on_its_seed() -> None:
    values = RNG.normal(size=30).tolist()
    assert statistic(values, "a") == statistic(values, "a")
    assert statistic(values, "a") != statistic(values, "b")


def test_codebook_use_against_scipy() -> None:
    tokens = [RNG.zipf(1.5, (2, 500)) % 64 for _ in range(5)]
    found = use(tokens, 64, payload_bits=20_000)
    streams = np.concatenate(tokens, 1)
    counts = [np.bincount(stream, minlength=64) for stream in streams]
    assert found["H0"] == pytest.approx(np.mean([entropy(c, base=2) for c in counts]))
    assert found["perplexity_hard_global"] == pytest.approx(
        np.mean([np.exp(entropy(c)) for c in counts])
    )
    assert found["CVU"] == pytest.approx(found["perplexity_hard_global"] / 64)
    assert found["used"] == pytest.approx(np.mean([(c > 0).mean() for c in counts]))
    assert found["bits_per_token"] == 20_000 / 5000
    assert found["tokens"] == 5000


def test_perplexity_by_batch_is_of_equal_batches() -> None:
    """Batches of 16384 tokens; the rest is left out: fewer tokens have a smaller perplexity."""
    tokens = RNG.integers(0, 4096, (1, 16_384 * 2 + 100))
    found = use([tokens], 4096, 1)
    whole = [
        np.exp(entropy(np.bincount(part, minlength=4096)))
        for part in (tokens[0, :16_384], tokens[0, 16_384:32_768])
    ]
    assert found["perplexity_hard_batch"] == pytest.approx(np.mean(whole))
    assert found["batch_tokens"] == 16_384
    assert found["perplexity_hard_batch"] < found["perplexity_hard_global"]


def curve(scale: float = 1.0) -> list[tuple[float, float]]:
    return [(scale * rate, 10 * np.log10(1 + 40 * rate)) for rate in (0.1, 0.2, 0.4, 0.8, 1.6)]


def test_bd_rate_of_curves_whose_answer_is_known() -> None:
    assert bd_rate(curve(), curve()) == pytest.approx(0)
    assert bd_rate(curve(), curve(0.8)) == pytest.approx(-20, abs=1e-6)
    assert bd_rate(curve(), curve(1.5)) == pytest.approx(50, abs=1e-6)
    assert bd_rate(curve(0.8), curve()) == pytest.approx(25, abs=1e-6)


def test_bd_rate_against_the_bjontegaard_package() -> None:
    bjontegaard = pytest.importorskip("bjontegaard")
    anchor = [(0.11, 24.2), (0.19, 26.1), (0.36, 28.4), (0.7, 30.9)]
    test = [(0.1, 24.0), (0.22, 27.0), (0.33, 28.2), (0.66, 31.5)]
    (r1, q1), (r2, q2) = np.array(anchor).T, np.array(test).T
    second = bjontegaard.bd_rate(
        r1, q1, r2, q2, method="pchip", require_matching_points=False, min_overlap=0
    )
    assert bd_rate(anchor, test) == pytest.approx(second, abs=1e-6)


def test_bd_rate_without_a_common_quality_is_none() -> None:
    assert bd_rate(curve(), [(rate, quality + 100) for rate, quality in curve()]) is None
    assert bd_rate([(1, 1.0), (2, 2.0)], [(1, 2.0), (2, 3.0)]) is None, "they touch in a point"
    assert bd_rate(curve(), curve()[:1]) is None
    assert bd_rate([], curve()) is None


def test_bd_rate_over_the_end_of_a_curve_is_none() -> None:
    """A mean over a sliver of quality says nothing about the rest."""
    anchor = [(1, 0.0), (2, 10.0), (4, 20.0)]
    for start, known in ((17.9, True), (18.1, False)):
        above = [(rate, start + quality) for rate, quality in anchor]
        assert (bd_rate(anchor, above) is not None) is known
        assert (bd_rate(above, anchor) is not None) is known
    inside = [(2.0, 9.9), (2.1, 10.1)]  # a short curve, all of whose qualities are shared
    assert bd_rate(anchor, inside) is not None


def test_a_setting_that_costs_more_than_a_better_one_is_no_part_of_a_curve() -> None:
    assert bd_rate([*curve(), (5.0, 3.0)], curve()) == pytest.approx(0)


def test_of_points_of_equal_quality_the_cheapest_is_kept() -> None:
    assert monotone([(2, 0.5), (1, 0.5), (3, 0.9)]) == [(1, 0.5), (3, 0.9)]
    best = curve()[-1]
    assert bd_rate(curve(), [*curve(), (2 * best[0], best[1])]) == pytest.approx(0)


def scored(system: str, rate: float, psnr: float | None, item: str = "1") -> dict[str, object]:
    return {
        "set": "s",
        "medium": "image",
        "item": item,
        "system": system,
        "setting": f"{rate:.4f}",
        "bytes": 1000 * rate,
        "units": 8000,
        "PSNR": psnr,
        "LPIPS-vgg": psnr and 1 / psnr,
    }


def test_lower_is_better_where_it_is() -> None:
    records = [scored("a", *point) for point in curve()]
    records += [scored("b", *point) for point in curve(0.8)]
    for metric in ("PSNR", "LPIPS-vgg"):
        assert bd_rates(records, "s", "a", metric)["b"] == pytest.approx(-20, abs=0.5)


def test_curves_are_of_the_items_that_all_settings_scored() -> None:
    """Two equal systems; one did not score the hard item."""
    records = [
        scored(system, rate, None if hard and system == "b" else quality - 9 * hard, str(hard))
        for system in "ab"
        for rate, quality in curve()
        for hard in (0, 1)
    ]
    one, other = curves_of(records, "s", ("a", "b"), "PSNR")
    assert one == other
    assert [quality for _, quality in one.values()] == [quality for _, quality in curve()]
    assert bd_rates(records, "s", "a", "PSNR") == {"b": pytest.approx(0)}
    rest = [r for r in records if r["system"] == "a"]
    assert curves_of(rest, "s", ("a", "b"), "PSNR")[1] == {}
    alone = curves_of(rest, "s", ("a", "a"), "PSNR")[0]
    assert all(q < one[setting][1] for setting, (_, q) in alone.items())  # with the hard item


def test_files_at_matched_bytes_are_no_part_of_a_curve() -> None:
    records = [scored("a", *point) for point in curve()]
    records += [scored("b", *point) for point in curve(0.8)]
    matched = scored("b", 0.05, 17.0) | {"matched_to": "a 0.1000", "setting": "@ a 0.1000"}
    assert curves_of([*records, matched], "s", ("a", "b"), "PSNR") == curves_of(
        records, "s", ("a", "b"), "PSNR"
    )
