"""train.priors and train.add_priors: what is trained is what the coder computes, and a model gets
nothing else new.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_codec, tones, wav
from torch import Tensor

from codec import api, cards, coding
from codec.bottlenecks import VQ
from codec.bottlenecks.fsp import FSP
from codec.entropy import Prior, mixing
from codec.medium import MEDIA
from train import add_priors, digits, prior_net, priors
from train.data import prepare
from train.model_files import write_model


def grids(medium: str, count: int = 6) -> list[np.ndarray]:
    """Indices of 1024 whose five base-4 digits walk slowly."""
    random = np.random.default_rng(0)
    shape = (1, 400) if medium == "speech" else (20, 20)
    steps = random.normal(size=(count, 5, *shape)).cumsum(-1)
    digits = np.clip(np.round(steps) % 8 - 2, 0, 3).astype(np.int64)
    return [sum(plane * 4**i for i, plane in enumerate(sample)) for sample in digits]


def drawn_layout(*levels: int, given: int = 0) -> digits.Layout:
    vectors = np.random.default_rng(0).normal(size=(int(np.prod(levels)), 3))
    return digits.Layout(np.array(levels), np.empty(0, np.int64), vectors, given)


def test_bisecting_makes_regions_of_the_tree() -> None:
    vectors = np.random.default_rng(0).normal(size=(64, 3))
    places = digits.bisect(vectors)
    assert sorted(places.tolist()) == list(range(64))
    within = vectors[np.argsort(places)].reshape(8, 8, 3).var(1).mean()
    assert within < 0.4 * vectors.var(0).mean()
    assert sorted(digits.bisect(vectors[:50]).tolist()) == list(range(50))


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_indices_are_those_of_random_items_in_the_coders_chunks(
    medium: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priors, "FRAMES_PER_WINDOW", 30)
    monkeypatch.setattr("codec.coding.pictures.FEWEST_ROWS", 1)
    monkeypatch.setattr("codec.coding.pictures.POSITIONS_PER_CHUNK", 30)  # 3 rows of 10
    codec, size = tiny_codec(medium), 1024
    shape = (1, 1, 71 * codec.stride) if medium == "speech" else (1, 3, 7 * codec.stride, 80)
    random = torch.Generator().manual_seed(0)
    items = [torch.rand(shape, generator=random) for _ in range(10)]
    store: Any = SimpleNamespace(shapes=items, whole=items.__getitem__)
    found = priors.index_grids(codec, store, 200)
    assert set(found) == set(codec.bottleneck.codebook_sizes)
    # Of 71 or 70 positions each.
    wanted = np.random.default_rng(0).permutation(10)[:3].tolist()
    assert wanted != [0, 1, 2]
    with torch.inference_mode():
        whole = [codec.bottleneck.encode(codec.latents(items[i]), size)[0, 0] for i in wanted]
    if medium == "speech":
        parts = [part[None] for one in whole for part in one.split(30)]
    else:
        parts = [part for one in whole for part in one.split(3)]
    assert [part.tolist() for part in found[size]] == [part.tolist() for part in parts]


class Parented(VQ):
    """A codebook at random, and parents that are given."""

    told: Tensor | None = None

    def parents(self, codebook_size: int, coarser: int) -> Tensor | None:  # noqa: ARG002
        return self.told


def parented(sizes: tuple[int, ...], told: Tensor | None = None) -> Parented:
    torch.manual_seed(0)
    method = Parented(2, sizes)
    method.fit(torch.randn(50, 2))
    method.told = told
    return method.eval()


def test_codes_are_centred_and_may_all_be_one() -> None:
    method = parented((16,))
    with torch.no_grad():
        method.books["16"].table.copy_(torch.randn(16, 2) * 5 + torch.tensor([100.0, -7.0]))
    vectors = digits.code_vectors(method, 16)
    assert np.abs(vectors.mean(0)).max() < 1e-5
    assert vectors.std() == pytest.approx(1)
    with torch.no_grad():
        method.books["16"].table.fill_(3.0)
    assert not digits.code_vectors(method, 16).any()


@pytest.mark.parametrize(
    ("number", "levels"), [(1024, [1024]), (1500, [1500]), (2048, [1024, 2]), (3072, [1024, 3])]
)
def test_large_codebooks_have_two_digits_where_they_divide(number: int, levels: list[int]) -> None:
    found = digits.layout(parented((number,)), number)
    assert found.levels.tolist() == levels
    assert sorted(found.order.tolist()) == list(range(number))
    assert found.vectors.shape == (number, 2)


def test_a_dimension_of_one_level_is_no_digit() -> None:
    found = digits.layout(FSP({24: (2, 1, 3, 4)}), 24)
    assert found.levels.tolist() == [4, 3, 2]  # the most significant first
    assert not found.order.size
    assert found.vectors.shape == (24, 4)


def test_a_layer_is_of_parents_with_as_many_children_each() -> None:
    assert digits.refined_layout(parented((2, 4), torch.tensor([0, 1, 1, 1])), 4, 2) is None
    assert digits.refined_layout(parented((4, 6), torch.arange(6) % 4), 6, 4) is None
    found = digits.refined_layout(parented((2, 4), torch.tensor([0, 1, 1, 0])), 4, 2)
    assert found is not None
    assert found.levels.tolist() == [2, 2]
    assert found.order.tolist() == [0, 2, 3, 1]
    assert found.given == 1


def test_a_parent_of_a_codebook_in_another_order_is_one_digit() -> None:
    """Its two digits would be those of its place, and what is known of it is its number."""
    found = digits.refined_layout(parented((2048, 4096), torch.arange(4096) // 2), 4096, 2048)
    assert found is not None
    assert found.levels.tolist() == [2048, 2]
    assert found.given == 1


def test_odd_numbers_are_halved_as_the_coder_halves_them() -> None:
    """The smaller half comes first: one code left of two, which the other axis orders."""
    vectors = np.array([[0.0, 0.0], [10.0, 5.0], [11.0, -5.0]])
    assert digits.bisect(vectors).tolist() == [0, 2, 1]


NESTED = {16: (2, 2, 4), 64: (4, 4, 4)}


def test_a_neighbour_that_comes_later_is_known_by_its_parent_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Tensor, int]] = []
    forward = prior_net.PriorNet.forward

    def watched(net: prior_net.PriorNet, *given: Tensor) -> Tensor:
        seen.append((given[-1], net.given))
        return forward(net, *given)

    monkeypatch.setattr(prior_net.PriorNet, "forward", watched)
    chunks = [np.random.default_rng(0).integers(0, 64, (6, 5))]
    assert priors.fit_prior(chunks, FSP(NESTED), 64, MEDIA["image"], 8, 5, below=16) is not None
    ((visible, given),) = seen  # few data: one step
    for known, (up, right) in zip(visible, priors.REFINED_OFFSETS["image"], strict=True):
        before = up > 0 or (up == 0 and right < 0)
        assert known.tolist() == [1.0] * given + [float(before)] * (len(known) - given)


def test_what_the_net_may_see_of_digits() -> None:
    torch.manual_seed(0)
    layout = drawn_layout(2, 3, 4, given=1)
    net = prior_net.PriorNet(layout, 4, prior_net.Size(4, 0, 2, 1))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    near, rows = torch.tensor([[[0, 2, 5], [1, 3, 6]]]), torch.tensor([[1, 4, 8]])
    missing, trends = torch.zeros(1, 2, dtype=torch.bool), torch.randn(1, 8)
    visible = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])

    def bits(near: Tensor, rows: Tensor = rows) -> float:
        return float(net(near, missing, trends, rows, visible).detach())

    assert bits(near) == bits(torch.tensor([[[0, 2, 5], [1, 4, 8]]]))  # hidden
    assert bits(near) != bits(torch.tensor([[[0, 2, 5], [0, 3, 6]]]))  # its parent
    assert bits(near) != bits(torch.tensor([[[0, 3, 5], [1, 3, 6]]]))  # one before
    assert bits(near) != bits(near, torch.tensor([[0, 4, 8]]))  # the own parent


def test_weights_stay_within_their_integers() -> None:
    layout = drawn_layout(4, 8)
    net = prior_net.PriorNet(layout, 3, priors.SMALL["image"])
    torch.nn.init.normal_(net.embedding, std=10)

    def embedding() -> np.ndarray:
        offsets = np.array([(0, -1)])
        return prior_net.rounded(net, layout, offsets, 8).embedding

    wild = embedding()
    assert int(wild.max()) == -int(wild.min()) == 127  # none wraps around
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=1e5)
    net.clamp()
    for tensor, scale, kind in net.scaled().values():
        assert float((tensor.detach() * scale).abs().max()) <= np.iinfo(kind).max


def test_a_fit_is_the_same_again_and_leaves_random_numbers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(priors, "BATCH", 16)
    chunks = [np.random.default_rng(0).integers(0, 64, (6, 5))]

    def fit(seed: int) -> dict[str, np.ndarray]:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        prior = priors.fit_prior(chunks, FSP(NESTED), 64, MEDIA["image"], 8, 3)
        assert torch.equal(torch.get_rng_state(), before)
        assert prior is not None
        return prior.to_tensors()

    one, other = fit(1), fit(2)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("steps", "done"), [(5, 5), (1000, 22)])
def test_few_data_are_passed_over_a_dozen_times_at_most(
    steps: int, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And trends follow the embedding that learns."""
    calls = {"trends": 0, "steps": 0}
    trends, forward = priors._trends, prior_net.PriorNet.forward

    def counted_trends(*given: Any) -> Tensor:
        calls["trends"] += 1
        return trends(*given)

    def counted(net: prior_net.PriorNet, *given: Tensor) -> Tensor:
        calls["steps"] += 1
        return forward(net, *given)

    monkeypatch.setattr(priors, "BATCH", 16)
    monkeypatch.setattr(priors, "_trends", counted_trends)
    monkeypatch.setattr(prior_net.PriorNet, "forward", counted)
    chunks = [np.random.default_rng(0).integers(0, 64, (6, 5))]  # 30 positions
    size = prior_net.Size(8, 0, neighbours=4, refresh=2)
    priors.fit_prior(chunks, FSP(NESTED), 64, MEDIA["image"], 8, steps, prior_size=size)
    assert calls == {"trends": -(-done // 2), "steps": done}


def test_a_digit_begins_at_the_mean_of_its_codes() -> None:
    layout = digits.layout(FSP({24: (2, 3, 4)}), 24)
    of_codes = np.stack(np.unravel_index(np.arange(24), layout.levels), 1)
    expected = [
        layout.vectors[of_codes[:, place] == value].mean(0)
        for place, level in enumerate(layout.levels)
        for value in range(level)
    ]
    assert np.allclose(layout.row_vectors(), expected, atol=1e-5)
    net = prior_net.PriorNet(layout, 3, prior_net.Size(256, 0, 1, 1))
    begun = net.embedding.detach().numpy()[:-1, :3]
    assert np.corrcoef(begun.ravel(), np.ravel(expected))[0, 1] > 0.9
    assert not net.embedding[-1].any()  # of a neighbour that is missing


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_training_pays(medium: str) -> None:
    codec = tiny_codec(medium)
    train, test = grids(medium, 12)[:9], grids(medium, 12)[9:]

    def bits(prior: Prior) -> float:
        sizes = [len(mixing.encode(g.ravel(), prior, g.shape[1], 10**6) or b"") for g in test]
        return 8 * sum(sizes) / sum(g.size for g in test)

    def fit(steps: int) -> Prior:
        found = priors.fit_prior(train, codec.bottleneck, 1024, MEDIA[medium], codec.stride, steps)
        assert found is not None
        return found

    untrained, trained = (bits(fit(steps)) for steps in (1, 60))
    assert trained < untrained - 0.5


def test_trends_are_those_of_each_chunk() -> None:
    torch.manual_seed(0)
    size = priors.SMALL["speech"]
    net = prior_net.PriorNet(drawn_layout(30), 1, size)
    lengths = [7, 40, 1, 23]
    rows = torch.randint(30, (sum(lengths), 1))
    together = priors._trends(net, rows, lengths).split(lengths)
    for part, found in zip(rows.split(lengths), together, strict=True):
        trend = torch.zeros(len(prior_net.SPEEDS), size.features)
        for here, row in zip(found, part, strict=True):
            assert torch.allclose(here, trend.flatten(), atol=1e-6)
            for number, speed in enumerate(prior_net.SPEEDS):
                trend[number] += (net.embed(row) - trend[number]) * 2.0**-speed
    one_chunk = priors._trends(net, rows, [sum(lengths)])  # negative control
    assert not torch.allclose(one_chunk, torch.cat(together), atol=1e-3)


@pytest.mark.parametrize("sizes", [priors.LARGE, priors.SMALL])
@pytest.mark.parametrize("medium", ["speech", "image"])
def test_the_net_is_the_coder_before_it_learns(
    medium: str, sizes: dict[str, prior_net.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The net's bits are the coder's if its mixer stands still, within what rounding costs."""
    codec, size = tiny_codec(medium), sizes[medium]
    layout = digits.layout(codec.bottleneck, 1024)
    offsets = np.array(priors.OFFSETS[medium][: size.neighbours])
    torch.manual_seed(1)
    net = prior_net.PriorNet(layout, len(offsets) + len(prior_net.SPEEDS), size)
    torch.nn.init.normal_(net.embedding, std=0.6)
    torch.nn.init.normal_(net.nodes, std=0.08)
    torch.nn.init.normal_(net.digits, std=0.2)
    torch.nn.init.normal_(net.hidden.weight, std=0.5)
    prior = prior_net.rounded(net, layout, offsets, 8 if medium == "image" else 0)
    grid = grids(medium, 1)[0]
    near = torch.from_numpy(priors._neighbours(grid, offsets, 1024))
    starts = np.cumsum(layout.levels) - layout.levels
    rows = torch.from_numpy(
        np.stack(np.unravel_index(np.arange(1025) % 1024, tuple(layout.levels)), 1) + starts
    )
    indices = torch.from_numpy(grid.ravel())
    trends = priors._trends(net, rows[indices], [grid.size])
    with torch.no_grad():
        expected = net(rows[near], near == 1024, trends, rows[indices]).cumsum(0).numpy()
        wrong = net(rows[near].roll(1, 1), near == 1024, trends, rows[indices]).cumsum(0).numpy()
    monkeypatch.setattr(mixing, "RATE_SHIFT", 40)
    monkeypatch.setattr(mixing, "_coder", lambda: mixing.code)
    lengths = np.arange(20, 401, 20)
    data = [
        mixing.encode(grid.ravel()[:length], prior, grid.shape[1], 10**6) or b""
        for length in lengths
    ]
    sizes = 8 * np.array([len(part) for part in data])
    assert np.abs(sizes - expected[lengths - 1]).max() < 0.003 * expected[-1] + 8
    spread, control = np.std(sizes - expected[lengths - 1]), np.std(sizes - wrong[lengths - 1])
    assert spread < 4  # whole bytes
    assert control > 6  # neighbours in another order


def test_a_model_gets_priors_and_still_reads_older_files(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = cards.read_card(model_folder / "speech-fsp.json")
    bare = {k: v for k, v in card.read().items() if not k.startswith((cards.PRIOR, cards.LAYER))}
    data = {key: value for key, value in card.data.items() if key != "layers_id"}
    data |= cards.identities(dict(card.config), bare)
    data["results"] = {"a set": {"1024": {"STOI": 0.9, "bits_per_token": 8.0}}}
    card = cards.read_card(write_model(tmp_path, "speech-fsp", data, bare))
    old = api.compress(wav(tones(8000)), 1024, card.path)
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.wav").write_bytes(wav(tones(40000)))
    prepare("speech", [tmp_path / "media"], tmp_path / "store")
    arguments = [
        str(card.path),
        "--data",
        str(tmp_path / "store"),
        "--steps",
        "2",
        "--tokens",
        "300",
    ]
    sound = api.decompress(old, card.path)
    layers = [*arguments, "--layers", "--out", str(tmp_path / "layers")]
    assert add_priors.main(layers) == 0
    assert cards.read_card(tmp_path / "layers/speech-fsp.json").data["results"] == data["results"]
    assert add_priors.main([*arguments, "--device", "cpu"]) == 0
    after = cards.read_card(card.path)
    assert "results" not in after.data, "its files have other bytes now"
    assert after.base_id == card.base_id == card.model_id
    assert after.model_id != card.model_id
    assert api.decompress(old, after.path) == sound
    # Files with these priors would be lost with them.
    new = api.compress(wav(tones(8000)), 1024, after.path)
    before = {path: path.read_bytes() for path in tmp_path.glob("speech-fsp.*")}
    capsys.readouterr()
    assert add_priors.main([*arguments, "--out", str(tmp_path / "media" / "..")]) == 1
    assert "give another folder with --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert api.decompress(new, after.path) == sound
    assert add_priors.main([*arguments, "--steps", "1", "--out", str(tmp_path / "new")]) == 0
    other = cards.read_card(tmp_path / "new" / "speech-fsp.json")
    assert other.answers_to(card.model_id)
    assert not other.answers_to(after.model_id), "files with another prior are another model's"
    model = coding.load(after)
    assert all(model.tables[size].prior is not None for size in model.card.num_codes)
    assert json.loads(card.path.read_text())["name"] == "speech-fsp"
    assert add_priors.main([*arguments[:2], str(tmp_path / "nothing")]) == 1
