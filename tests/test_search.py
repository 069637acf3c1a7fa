"""Nearest codes and neighbour radii against float64 brute force, near ties and all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from codec import host
from codec.bottlenecks import _search
from codec.bottlenecks._knn import Neighbours, radii_by_blocks
from codec.bottlenecks._search import _by_tree, nearest
from codec.precision import exact_float32

Search = Callable[[Tensor, Tensor], Tensor]


def brute(tokens: Tensor, codebook: Tensor, weights: Tensor | None = None) -> Tensor:
    """The lowest index among exact float64 minima, summed in a fixed order."""
    total = torch.zeros(len(tokens), len(codebook), dtype=torch.float64)
    for i in range(tokens.shape[1]):
        difference = tokens[:, None, i].double() - codebook[None, :, i].double()
        total += (
            difference * difference * (1.0 if weights is None else weights[:, i, None].double())
        )
    return (total == total.amin(1, keepdim=True)).int().argmax(1)


def near_ties(dim: int, offset: float) -> tuple[Tensor, Tensor]:
    """Tokens at the midpoints of codes, one float apart from a tie, and duplicate codes."""
    generator = torch.Generator().manual_seed(dim)
    codebook = torch.randn(100, dim, generator=generator) + offset
    codebook[50:60] = codebook[:10]
    middle = (codebook[:40] + codebook[40:80]) / 2
    tokens = torch.cat([middle, torch.nextafter(middle, torch.tensor(torch.inf)), codebook])
    return tokens, codebook


def agrees_everywhere(search: Search) -> bool:
    cases = [near_ties(dim, offset) for dim in (1, 5, 64) for offset in (0.0, 30.0)]
    return all(torch.equal(search(*case), brute(*case)) for case in cases)


def matmul_search(tokens: Tensor, codebook: Tensor) -> Tensor:
    return (codebook.square().sum(1) - 2 * tokens @ codebook.T).argmin(1)


def test_nearest_is_exact_even_at_near_ties() -> None:
    assert agrees_everywhere(nearest)
    assert not agrees_everywhere(matmul_search)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_unread_on_a_gpu_it_is_nearest_as_far_as_float32_tells(
    monkeypatch: pytest.MonkeyPatch, weighted: bool, offset: float
) -> None:
    """No token finds a code that is farther than the nearest by more than rounding.

    Few find another at all.
    """
    monkeypatch.setattr(host, "HOSTS", ())
    monkeypatch.setattr(_search, "chunk_rows", lambda *_: 300)
    tokens, codebook = torch.randn(1000, 5) + offset, torch.randn(400, 5) + offset
    weights = torch.rand(1000, 5) + 0.1 if weighted else None
    with host.unread():
        found = nearest(tokens, codebook, weights)
        assert nearest(tokens[:0], codebook, None if weights is None else weights[:0]).shape == (0,)
    scale = torch.ones_like(tokens) if weights is None else weights

    def distance(index: Tensor) -> Tensor:
        return (scale.double() * (tokens.double() - codebook[index].double()).square()).sum(1)

    least = distance(brute(tokens, codebook, weights))
    assert ((distance(found) - least) <= 1e-4 * (1 + least)).all()
    assert (found != brute(tokens, codebook, weights)).float().mean() < 0.01
    if offset and not weighted:
        naive = matmul_search(tokens, codebook)  # it cancels
        assert ((distance(naive) - least) > 1e-4 * (1 + least)).any()


@pytest.mark.parametrize("num_codes", [1, 2, 31, 32, 33, 1000])
def test_any_number_of_codes(num_codes: int) -> None:
    tokens, codebook = torch.randn(50, 3), torch.randn(num_codes, 3)
    assert torch.equal(nearest(tokens, codebook), brute(tokens, codebook))


@pytest.mark.parametrize("num_codes", [33, 64, 100])
def test_codes_in_tiles_and_candidates_in_pieces(
    num_codes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_search, "TILE", 32)
    monkeypatch.setattr(_search, "CANDIDATES", 7)
    tokens, codebook = torch.randn(50, 3), torch.randn(num_codes, 3)
    codebook[20:30], codebook[-1] = codebook[0], codebook[1]
    tokens[:20] = codebook[:20]
    assert torch.equal(nearest(tokens, codebook), brute(tokens, codebook))
    monkeypatch.setattr(_search, "BLOCK", 1)
    assert torch.equal(
        nearest(tokens, codebook, tokens.square() + 1), brute(tokens, codebook, tokens.square() + 1)
    )


@pytest.mark.parametrize("dim", [3, 64])
def test_weighted_nearest(dim: int) -> None:
    tokens = torch.randn(200, dim)
    codebook = torch.randn(77, dim)
    weights = torch.rand(200, dim) * 5 + 0.01
    found = nearest(tokens, codebook, weights)
    assert torch.equal(found, brute(tokens, codebook, weights))
    assert not torch.equal(found, brute(tokens, codebook))


def test_ties_go_to_the_lowest_index() -> None:
    codebook = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    assert nearest(torch.tensor([[0.0], [2.0], [-2.0]]), codebook).tolist() == [0, 0, 1]
    assert nearest(torch.randn(9, 4), torch.ones(70, 4)).tolist() == [0] * 9


def test_chunks_and_batches_change_nothing() -> None:
    tokens, codebook = near_ties(5, 3.0)
    whole = nearest(tokens, codebook)
    for chunk in (1, 7, 8, 64):
        assert torch.equal(nearest(tokens, codebook, chunk=chunk), whole)
    assert torch.equal(torch.cat([nearest(row[None], codebook) for row in tokens]), whole)


def test_no_tokens_and_bad_tokens() -> None:
    codebook = torch.randn(8, 2)
    assert nearest(torch.zeros(0, 2), codebook).shape == (0,)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="finite"):
            nearest(torch.tensor([[0.0, 0.0], [bad, 0.0]]), codebook)


def test_autocast_changes_nothing() -> None:
    tokens, codebook = near_ties(5, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(tokens, codebook), brute(tokens, codebook))
        with exact_float32(tokens.device):
            assert (tokens @ codebook.T).dtype == torch.float32
        assert (tokens @ codebook.T).dtype == torch.bfloat16


def test_matmul_precision_changes_nothing_and_is_restored() -> None:
    """By the old and the new switch, which PyTorch refuses to see mixed in some orders."""
    matmuls = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [matmul.fp32_precision for matmul in matmuls]
    tokens, codebook = near_ties(5, 1.0)
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(nearest(tokens, codebook), brute(tokens, codebook))
        assert [matmul.fp32_precision for matmul in matmuls] == ["tf32", "bf16"]
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        for matmul, kind in zip(matmuls, ("cuda", "cpu"), strict=True):
            with exact_float32(torch.device(kind)):
                assert matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision


def test_the_tree_is_exact_even_at_near_ties() -> None:
    assert agrees_everywhere(lambda tokens, codebook: _by_tree(tokens, codebook, None))


@pytest.mark.parametrize("dim", [1, 4, 8])
@pytest.mark.parametrize("num_codes", [1, 127, 128, 129, 3000])
def test_the_tree_among_many_ties(num_codes: int, dim: int) -> None:
    """Codes and tokens on a grid, or half-way between its points: nearly every answer is a tie."""
    generator = torch.Generator().manual_seed(4)
    codebook = torch.randint(4, (num_codes, dim), generator=generator).float()
    tokens = torch.randint(-1, 10, (400, dim), generator=generator) / 2
    weights = torch.randint(1, 3, (400, dim), generator=generator).float()
    assert torch.equal(_by_tree(tokens, codebook, None), brute(tokens, codebook))
    weighted = brute(tokens, codebook, weights)
    assert torch.equal(_by_tree(tokens, codebook, weights), weighted)
    assert torch.equal(_by_tree(tokens[:1], codebook, weights[:1]), weighted[:1])
    if num_codes > 1 and dim == 8:  # the whole grid is not covered
        assert not torch.equal(_by_tree(tokens, codebook, None), weighted)
        last = num_codes - 1 - brute(tokens, codebook.flip(0))  # the highest of equals
        assert not torch.equal(_by_tree(tokens, codebook, None), last)


def test_where_the_tree_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(_search, "_by_tree", lambda tokens, *_: used.append(tokens))
    for dim, num_tokens, chunk in (
        (5, 3000, None),
        (12, 3000, None),
        (5, 30, None),
        (5, 3000, 100),
    ):
        nearest(torch.randn(num_tokens, dim), torch.randn(2000, dim), chunk=chunk)
    assert [tuple(tokens.shape) for tokens in used] == [(3000, 5)]
    monkeypatch.undo()
    tokens, codebook = torch.randn(3000, 5), torch.randn(2000, 5)
    assert torch.equal(nearest(tokens, codebook), nearest(tokens, codebook, chunk=500))
    tokens[7, 2] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        nearest(tokens, codebook)


def radii_are_exact(radii: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Against float64, to a relative 1e-5, on a cloud with a far offset and tight clusters."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(500, 4, generator=generator) + 20
    rows[:50] = rows[:1] + 1e-4 * torch.randn(50, 4, generator=generator)
    queries = torch.cat([rows[:100], torch.randn(60, 4, generator=generator) + 20])
    truth = torch.cdist(queries.double(), rows.double()).sort(1).values[:, [0, 7, 15]].T
    found = radii(queries, rows).double()
    return bool(((found - truth).abs() <= 1e-5 * truth + 1e-12).all())


def test_neighbour_radii() -> None:
    assert radii_are_exact(lambda queries, rows: Neighbours(rows).radii(queries, (1, 8, 16)))

    def expanded(queries: Tensor, rows: Tensor) -> Tensor:
        return (
            torch.cdist(queries, rows, compute_mode="use_mm_for_euclid_dist")
            .sort(1)
            .values[:, [0, 7, 15]]
            .T
        )

    assert not radii_are_exact(expanded)


def clouds() -> dict[str, tuple[Tensor, Tensor]]:
    """Queries and rows of what training meets, and worse."""
    generator = torch.Generator().manual_seed(3)

    def draw(count: int, dim: int) -> Tensor:
        return torch.randn(count, dim, generator=generator)

    rows = draw(3000, 5)
    spread = torch.cat([draw(2000, 3), 1e-3 * draw(1500, 3) + 50, 1e4 * draw(7, 3)])
    grid = torch.randint(3, (1000, 4), generator=generator).float()
    bad = torch.cat(
        [draw(3, 5), torch.full((1, 5), torch.nan), torch.full((1, 5), torch.inf), draw(2, 5)]
    )
    bad[5, 1], bad[6, 2] = torch.nan, -torch.inf
    return {
        "cloud": (draw(700, 5), rows),
        "rows themselves": (rows[:700], rows),
        "clusters": (torch.cat([spread[::9], draw(100, 3)]), spread),
        "duplicates": (draw(300, 4), grid),
        "on duplicates": (grid[:100], grid),
        "silence": (torch.cat([torch.zeros(20, 5), draw(20, 5)]), torch.zeros(500, 5)),
        "one dimension": (draw(300, 1), draw(2000, 1)),
        "many dimensions": (draw(50, 40), draw(600, 40)),
        "barely enough rows": (draw(50, 5), rows[:16]),
        "a leaf": (draw(50, 5), rows[:128]),
        "a leaf and one": (draw(50, 5), rows[:129]),
        "bad queries": (bad, rows),
        "a bad row": (draw(50, 5), torch.cat([rows[:200], bad])),
        "no queries": (draw(0, 5), rows),
        "strided": (draw(5, 50).T, draw(5, 900).T),
        "half precision": (draw(50, 5).half(), rows.half()),
    }


@pytest.mark.parametrize("name", clouds())
def test_the_tree_sees_what_all_distances_show(name: str) -> None:
    queries, rows = clouds()[name]
    ks = (8, 16, 1, 8)
    expected = (
        radii_by_blocks(queries.float(), rows.float(), ks) if len(queries) else torch.zeros(4, 0)
    )
    found = Neighbours(rows).radii(queries, ks)
    assert torch.allclose(found, expected, rtol=1e-6, atol=0, equal_nan=True)
    wrong = Neighbours(rows[::2] if len(rows) > 16 else rows + 1).radii(queries, ks)
    alike = name in ("silence", "no queries")  # where half of the rows make no difference
    assert torch.allclose(wrong, expected, rtol=1e-6, atol=0, equal_nan=True) == alike


def test_threads_change_no_radius() -> None:
    queries, rows = torch.randn(3000, 5), torch.randn(5000, 5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = Neighbours(rows).radii(queries, (8, 16))
        torch.set_num_threads(3)
        assert torch.equal(Neighbours(rows).radii(queries, (8, 16)), expected)
    finally:
        torch.set_num_threads(threads)


def test_neighbours_that_do_not_exist() -> None:
    near = Neighbours(torch.randn(5, 2))
    assert near.radii(torch.zeros(3, 2), (5,)).shape == (1, 3)
    for ks in ((6,), (0, 1)):
        with pytest.raises(ValueError, match="do not exist"):
            near.radii(torch.zeros(3, 2), ks)


def test_neighbours_of_nothing_and_no_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to find neighbours among"):
        Neighbours(torch.empty(0, 5))
    rows = torch.randn(20, 5, requires_grad=True)  # a gradient does not hinder
    found = Neighbours(rows).radii(rows.detach(), (1,))
    assert torch.equal(found, torch.zeros(1, 20))
    with pytest.raises(ValueError, match=r"neighbours .* do not exist"):
        Neighbours(rows).radii(rows.detach(), ())
