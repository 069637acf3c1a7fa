"""Parts of VQ, FSP, VP and GM-VQ, and the search that they share, that only other values than the
usual ones, more codes, or more than one dimension show.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codec import host
from codec.bottleneck import to_tokens
from codec.bottlenecks import _search, _start
from codec.bottlenecks._knn import Neighbours, radii_by_blocks
from codec.bottlenecks._mixture import factors
from codec.bottlenecks._search import NotFiniteError, nearest
from codec.bottlenecks._start import kmeans_start
from codec.bottlenecks.codebooks import (
    Affine,
    Alternating,
    ByAverage,
    ByGradient,
    Codebook,
    Restart,
    plain,
    unit,
)
from codec.bottlenecks.fsp import FSP, UNIFORM_STD
from codec.bottlenecks.gmvq import GMVQ
from codec.bottlenecks.vp import VP
from codec.bottlenecks.vq import VQ


def latents(seed: int = 1, channels: int = 4, count: int = 200) -> Tensor:
    return torch.randn(1, channels, count, generator=torch.Generator().manual_seed(seed))


# -- the search


def by_differences(tokens: Tensor, codes: Tensor, weights: Tensor | None = None) -> Tensor:
    """The nearest codes, by all differences in float64; of equal ones the first."""
    squared = (tokens.double()[:, None] - codes.double()).square()
    scale = torch.ones_like(tokens) if weights is None else weights
    terms = (squared * scale.double()[:, None]).unbind(2)
    total = torch.zeros_like(terms[0])
    for term in terms:
        total = total + term
    return total.argmin(1)


@pytest.fixture(params=["products", "tree"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of the search, whichever would be faster."""
    monkeypatch.setattr(_search, "TREE_PAIRS", 0 if request.param == "tree" else 2**62)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.usefixtures("way")
def test_the_nearest_of_thousands_of_codes_is_the_first_of_the_nearest(weighted: bool) -> None:
    """More than a tile of products and many leaves of a tree; a third of all codes are twins."""
    random = torch.Generator().manual_seed(0)
    codes = torch.randn(2500, 3, generator=random)
    codes[1000:1800] = codes[torch.randperm(800, generator=random)]
    tokens = torch.cat([torch.randn(300, 3, generator=random), codes[::10], codes[-3:]])
    weights = 4 * torch.rand(len(tokens), 3, generator=random) + 0.01 if weighted else None
    expected = by_differences(tokens, codes, weights)
    assert torch.equal(nearest(tokens, codes, weights), expected)
    assert torch.equal(nearest(tokens, codes, weights, chunk=7), expected)
    assert len(expected.div(1024, rounding_mode="floor").unique()) == 3
    scale = None if weights is None else weights[:5]
    assert nearest(codes[:5], codes[:5].repeat(500, 1), scale).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_tree_may_be_searched_in_parts(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As several threads do."""
    random = torch.Generator().manual_seed(0)
    tokens, codes = (torch.randn(n, 3, generator=random) for n in (50, 400))
    weights = 4 * torch.rand(50, 3, generator=random) + 0.01 if weighted else None
    monkeypatch.setattr(_search, "TREE_PAIRS", 0)
    monkeypatch.setattr(
        _search, "in_threads", lambda n, work: [work(slice(i, i + 7)) for i in range(0, n, 7)]
    )
    assert torch.equal(nearest(tokens, codes, weights), by_differences(tokens, codes, weights))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.usefixtures("way")
def test_codes_as_near_as_float32_can_tell_are_told_apart(weighted: bool) -> None:
    """All codes lie on a sphere, or ellipsoid, around the token, but for rounding."""
    random = torch.Generator().manual_seed(0)
    for scale in (1.0, 1000.0):
        tokens = torch.randn(20, 4, generator=random)
        weights = torch.rand(20, 4, generator=random) + 0.1 if weighted else None
        for i in range(20):
            token, weight = tokens[i : i + 1], None if weights is None else weights[i : i + 1]
            around = F.normalize(torch.randn(200, 4, generator=random).double(), dim=1)
            codes = (token + scale * (around if weight is None else around / weight.sqrt())).float()
            expected = by_differences(token, codes, weight)
            assert torch.equal(nearest(token, codes, weight), expected)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["tokens", "codebook", "weights"])
@pytest.mark.usefixtures("way")
def test_the_search_refuses_what_is_not_finite(place: str, wrong: float) -> None:
    random = torch.Generator().manual_seed(0)
    given = {
        "tokens": torch.randn(20, 3, generator=random),
        "codebook": torch.randn(40, 3, generator=random),
        "weights": torch.rand(20, 3, generator=random) + 0.1,
    }
    given[place][7, 1] = wrong
    with pytest.raises(NotFiniteError):
        nearest(**given)


@pytest.mark.usefixtures("way")
def test_tokens_that_nobody_may_read_have_any_code() -> None:
    random = torch.Generator().manual_seed(0)
    tokens, codes = (torch.randn(n, 3, generator=random) for n in (20, 40))
    expected = nearest(tokens, codes)
    tokens[7, 1], tokens[9, 0] = torch.nan, torch.inf
    with host.unread():
        found = nearest(tokens, codes)
    assert set(torch.nonzero(found != expected)[:, 0].tolist()) <= {7, 9}
    assert 0 <= int(found.min()) <= int(found.max()) < 40


def test_the_search_is_exact_under_autocast() -> None:
    random = torch.Generator().manual_seed(0)
    tokens, codes = (torch.randn(n, 12, generator=random) for n in (300, 500))
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest(tokens, codes)
    assert torch.equal(found, by_differences(tokens, codes))


def test_neighbours_are_those_of_all_distances_in_any_order_of_ranks() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(1000, 3, generator=random)
    rows[500:520] = rows[0]
    queries = torch.cat([torch.randn(50, 3, generator=random), rows[:20]])
    queries[3, 1] = torch.nan
    found = Neighbours(rows).radii(queries, (300, 1, 8, 1))
    exact = torch.cdist(queries.double(), rows.double()).sort(1).values[:, [299, 0, 7, 0]].T
    exact[:, 3] = torch.nan
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-6, equal_nan=True)
    rows[7, 0] = torch.nan  # a tree has no place for it
    again = Neighbours(rows).radii(queries[4:], (1, 8))
    assert torch.equal(again, radii_by_blocks(queries[4:], rows, (1, 8)))


@pytest.mark.parametrize("ranks", [(), (0, 1), (1, 11)])
def test_neighbours_that_there_are_not(ranks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not exist among 10 rows"):
        Neighbours(torch.randn(10, 2)).radii(torch.randn(3, 2), ranks)


# -- VQ


def test_inner_steps_are_as_many_as_asked_for() -> None:
    """Three are three of SGD with momentum on one choice of codes."""

    def after(steps: int) -> Tensor:
        torch.manual_seed(0)
        method = VQ(4, (12,), update=partial(Alternating, steps=steps)).train()
        book = method.books["12"]
        assert isinstance(book, Codebook)
        book.start(torch.randn(12, 4))
        table = book.table.clone().requires_grad_()
        optimiser = torch.optim.SGD([table], 50 / 64 * 4, momentum=0.9)
        chosen = method.encode(latents()).flatten()
        method(latents())
        for _ in range(3):
            optimiser.zero_grad()
            (table[chosen] - to_tokens(latents())).square().mean().backward()
            optimiser.step()
        return (book.table - table.detach()).abs().max()

    assert float(after(3)) < 1e-5
    assert float(after(1)) > 1e-2  # negative control


def test_averages_are_smoothed_and_keep_their_total() -> None:
    """A code is its sum over (n + e) N / (N + K e), whose total stays N."""
    torch.manual_seed(0)
    method = VQ(4, (12,), update=partial(ByAverage, decay=0.5, epsilon=3.0)).train()
    book = method.books["12"]
    assert isinstance(book, Codebook)
    update = book.update
    assert isinstance(update, ByAverage)
    book.start(torch.randn(12, 4))
    method(latents())
    total = update.counts.sum()
    smooth = (update.counts + 3) * total / (total + 12 * 3)
    assert torch.allclose(book.table, update.sums / smooth[:, None], atol=1e-6)


def test_codes_that_start_anew_have_no_velocity() -> None:
    torch.manual_seed(0)
    method = VQ(4, (12,), update=Alternating, affine=Affine).train()
    book = method.books["12"]
    assert isinstance(book, Codebook)
    assert isinstance(book.update, Alternating)
    method(latents())
    assert float(book.update.velocity.abs().max()) > 0
    assert float(book.update.affine_velocity.abs().max()) > 0
    book.start(torch.randn(12, 4))
    assert float(book.update.velocity.abs().max()) == 0
    assert float(book.update.affine_velocity.abs().max()) == 0


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_noise_of_a_new_code_is_a_share_of_its_point(scale: float) -> None:
    torch.manual_seed(0)
    book = Codebook(torch.randn(500, 4), plain, ByGradient(500, 4), None)
    points = scale * F.normalize(torch.randn(1, 4), dim=1)
    replaced = Restart(500, patience=1, noise=0.01).step(book, points, torch.tensor([7]))
    assert float(replaced) == 499
    new = torch.cat([book.table[:7], book.table[8:]]).detach()
    assert float((new - points).std()) == pytest.approx(0.01 * scale, rel=0.1)


def test_k_means_sees_rows_enough_for_all_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_start, "kmeans", lambda data, *_: data)
    points = torch.randn(50_000, 1)
    assert [len(kmeans_start(points, size)) for size in (10, 2000, 4000)] == [
        20_000,
        40_000,
        50_000,
    ]


def test_k_means_starts_codes_where_points_are_compared() -> None:
    """On the sphere: latents of one direction are one cluster, however long they are."""
    torch.manual_seed(0)
    directions = F.normalize(torch.randn(8, 4), dim=1).repeat(50, 1)
    long = directions * (0.1 + 20 * torch.rand(400, 1) ** 4)
    method = VQ(4, (8,), geometry=unit)
    method.fit(long)

    def error(codes: Tensor) -> float:
        return float(torch.cdist(directions, codes).min(1).values.max())

    assert error(method.codebook().detach()) < 1e-3
    raw = VQ(4, (8,))
    raw.fit(long)  # negative control: clusters of raw points split the long and join the short
    assert error(unit(raw.codebook().detach())) > 0.1


# -- FSP


def test_a_token_is_quantised_in_all_dimensions_or_in_none() -> None:
    """Eq. 18 is of a token: a mask for each element would give mixed ones, half of all at d = 2."""
    torch.manual_seed(7)
    z_q = FSP({64: (4, 4, 4)}).train()(latents(channels=3, count=4000)).z_q
    cells = (z_q * UNIFORM_STD + 0.5) * 4 - 0.5
    on_grid = ((cells - cells.round()).abs() < 1e-4)[0].sum(0)
    assert float((on_grid == 3).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(((on_grid > 0) & (on_grid < 3)).float().mean()) < 0.02


@pytest.mark.parametrize("accept", ["element", "vector"])
def test_noise_is_refused_by_element_or_by_token(accept: str) -> None:
    """At the border of two dimensions of three: "vector" then moves all or nothing."""
    torch.manual_seed(7)
    fsp = FSP({64: (4, 4, 4)}, quantise_probability=0.0, accept=accept).train()  # type: ignore[arg-type]
    z = torch.atanh(2 * torch.tensor([0.02, 0.98, 0.5]) - 1)[None, :, None].expand(1, 3, 4000)
    moved = ((fsp(z).z_q - fsp.target(z)).abs() > 1e-6)[0].sum(0)
    shares = [float((moved == count).float().mean()) for count in range(4)]
    # Noise is half a cell, .125, to either side: .02 from the border it stays inside with .58.
    inside = (0.125 + 0.02) / 0.25
    if accept == "vector":
        assert shares == pytest.approx([1 - inside**2, 0, 0, inside**2], abs=0.03)
    else:
        assert shares[3] == pytest.approx(inside**2, abs=0.03)
        assert shares[2] == pytest.approx(2 * inside * (1 - inside), abs=0.03)
        assert shares[0] < 0.01


# -- VP


def test_the_rows_of_the_queue_are_a_random_part_of_the_batch() -> None:
    """Not its first tokens, which are all of one sample."""
    torch.manual_seed(0)
    method = VP(1, (8,), reference_size=8, rows_per_code=8, neighbours=2, refresh_steps=4).train()
    method.queue_count.fill_(64)
    z = torch.arange(4096.0).view(16, 1, 256)
    method(z)
    written = method.queue[: int(method.queue_position), 0]
    assert len(written) == 16
    assert len((written // 256).unique()) > 6  # samples; 10 are expected
    assert len(written.unique()) == 16


# -- GM-VQ


def test_gradients_of_the_noise_reach_point_and_code() -> None:
    """z_q = mu_j + sigma eps, and sigma = |z^ - mu_j| / sqrt(L 2 sigma^2) moves with both (eq. 18):
    where no draw depends on the weights, its slope along z^ is that of a finite difference.
    """
    torch.manual_seed(0)
    method = GMVQ(2, (1,)).train()
    code = method.codebook()
    z = torch.randn(1, 4, 1, requires_grad=True)

    def value() -> Tensor:
        torch.manual_seed(3)
        return method(z).z_q.sum()

    to_z, to_code = torch.autograd.grad(value(), [z, code])
    with torch.no_grad():
        for tensor, gradient in ((z, to_z[0, :2, 0]), (code, to_code[0])):
            for i in range(2):
                where = (0, i, 0) if tensor is z else (0, i)
                before = float(tensor[where])
                ends = []
                for step in (1e-3, -1e-3):
                    tensor[where] = before + step
                    ends.append(float(value()))
                tensor[where] = before
                assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / 2e-3, abs=5e-3)
    assert float(to_z[0, :2].abs().max()) > 0.05


def test_the_literal_reading_is_of_the_noisy_point_and_the_mean_posterior() -> None:
    """Eq. 14 as it is written: z ~ q(z|x) and c ~ q_B, independent."""
    torch.manual_seed(0)
    method = GMVQ(3, (8,), two_sigma2=0.25, latent_term="literal").train()
    z = torch.randn(1, 6, 4000)
    out = method(z)
    z_hat, weights = method.points(z)
    codebook = method.codebook().detach()
    features, table = factors(z_hat, weights, codebook)
    q = (features @ table).softmax(1).mean(0)

    def reading(points: Tensor) -> float:
        squared = torch.cdist(points, codebook).square()
        return float((squared @ q).mean()) / 3

    found = float(out.losses["latent"].detach())
    assert found == pytest.approx(reading(to_tokens(out.z_q.detach())), rel=1e-3)
    assert found != pytest.approx(reading(z_hat), rel=1e-2)  # without the noise
