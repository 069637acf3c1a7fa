"""VP with nested codebooks: a tree of codes, the command that plants it, files with layers of it,
and its tuning.
"""

from __future__ import annotations

import io
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tones, wav
from torch import Tensor

import codec
from codec import cards, coding
from codec.bottlenecks import VP
from codec.bottlenecks._kmeans import halved, split_cells
from codec.bottlenecks._search import nearest, nearest_child
from codec.layers import ladder
from codec.model import CodecConfig, build
from codec.nets.kinds import NETS, default
from train import digits, nested, recipes
from train.__main__ import main as train_main
from train.data import prepare
from train.export import count_tables, export, load_run

SIZES = (8, 32, 64)


def latents(count: int = 6000, dim: int = 3) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [3.0, 1.0, 0.5]
    )


def tree(sizes: tuple[int, ...] = SIZES) -> VP:
    method = VP(3, sizes, reference_size=8, rows_per_code=4, neighbours=2, nested=True).eval()
    method.fit(latents())
    return method


def test_an_index_tells_that_of_every_smaller_size() -> None:
    method = tree()
    z = 2 * torch.randn(2, 3, 500, generator=torch.Generator().manual_seed(1))
    for size in SIZES:
        for coarser in (k for k in SIZES if k < size):
            parents = method.parents(size, coarser)
            assert parents is not None
            assert parents.tolist() == [code * coarser // size for code in range(size)]
            assert torch.equal(parents[method.encode(z, size)], method.encode(z, coarser))
    assert method.parents(8, 32) is None
    flat = VP(3, SIZES, reference_size=8, rows_per_code=4, neighbours=2)
    assert flat.parents(32, 8) is None
    assert not flat.nested
    flat.fit(latents())
    flat = flat.eval()
    assert not torch.equal(flat.encode(z, 32) // 4, flat.encode(z, 8))  # negative control


def test_each_size_halves_the_error_as_a_codebook_does() -> None:
    """The smallest is that of a flat fit in another order.

    The others lose to flat ones, but not much.
    """
    method, data = tree(), latents(4000).T[None]
    flat = VP(3, SIZES, reference_size=8, rows_per_code=4, neighbours=2).eval()
    flat.fit(latents())
    own, theirs = (
        [float((m(data, size).z_q - data).square().mean()) for size in SIZES]
        for m in (method, flat)
    )
    assert own[0] == theirs[0]
    assert sorted(method.codebook(8).tolist()) == sorted(flat.codebook(8).tolist())
    assert own[0] > 1.5 * own[1] > 1.5 * 1.2 * own[2]
    for mine, other in zip(own[1:], theirs[1:], strict=True):
        assert other < mine < 1.35 * other


def test_the_same_latents_give_the_same_tree() -> None:
    assert all(torch.equal(tree().codebook(size), tree().codebook(size)) for size in SIZES)
    for size in SIZES:
        book = tree().codebook(size)
        assert torch.equal(book, book.half().float())


def test_latents_of_another_type_give_the_same_tree() -> None:
    method = tree()
    expected = [method.codebook(size).clone() for size in SIZES]
    method.fit(latents().double())
    for size, codes in zip(SIZES, expected, strict=True):
        assert torch.equal(method.codebook(size), codes)


def test_a_child_is_searched_among_its_siblings_alone() -> None:
    random = torch.Generator().manual_seed(2)
    codes, tokens = torch.randn(12, 4, generator=random), torch.randn(50, 4, generator=random)
    parents = torch.arange(50) % 4
    weights = torch.rand(50, 4, generator=random) + 0.1
    for w in (None, weights):
        found = nearest_child(tokens, codes, parents, 3, w)
        for i in range(50):
            family = codes[3 * parents[i] : 3 * parents[i] + 3]
            scale = None if w is None else w[i : i + 1]
            assert int(found[i]) == 3 * int(parents[i]) + int(
                nearest(tokens[i : i + 1], family, scale)
            )
    same = torch.zeros(8, 4)
    # Ties: the lowest.
    assert nearest_child(tokens, same, torch.ones(50, dtype=torch.int64), 4).tolist() == [4] * 50


def test_cells_are_cut_by_the_data_inside_them() -> None:
    """Two cells of two clumps each: every clump gets its code; an empty cell keeps its centre."""
    clumps = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]])
    data = clumps.repeat_interleave(20, 0) + 0.01 * torch.randn(
        80, 2, generator=torch.Generator().manual_seed(0)
    )
    centres = torch.tensor([[0.0, 0.5], [9.0, 0.5], [50.0, 50.0]])
    codes = split_cells(data, nearest(data, centres), centres, 2, 0, 10)
    assert torch.equal(codes[4:], centres[2].expand(2, 2))
    for cell in (0, 1):
        pair = codes[2 * cell : 2 * cell + 2]
        assert torch.allclose(
            pair[pair[:, 1].argsort()], clumps[2 * cell : 2 * cell + 2], atol=0.02
        )
    single = split_cells(data[:1], torch.zeros(1, dtype=torch.int64), centres[:1], 4, 0, 5)
    assert (single == data[0]).all(1).sum() == 1
    assert (single == centres[0]).all(1).sum() == 3


def test_halves_are_sides_of_a_cut() -> None:
    codes = torch.randn(5, 16, 3, generator=torch.Generator().manual_seed(0))
    ordered = halved(codes)
    for before, after in zip(codes, ordered, strict=True):
        assert sorted(before.tolist()) == sorted(after.tolist())
        axis = int(before.var(0).argmax())
        assert after[:8, axis].max() <= after[8:, axis].min()
    assert halved(torch.randn(2, 7, 3)).shape == (2, 7, 3)


def test_codes_and_their_children_stand_in_the_order_of_cuts() -> None:
    """The coder asks of an index in which half it is; so has a layer's, of a parent's children."""
    method = tree()
    for coarse, fine in ((1, 8), (8, 32), (32, 64)):
        families = method.codebook(fine).view(coarse, fine // coarse, 3)
        assert torch.equal(halved(families), families)
    mixed = method.codebook(8)[torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    assert not torch.equal(halved(mixed[None])[0], mixed)


def test_sizes_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        VP(3, (8, 20), nested=True)
    VP(3, (8, 20))


# --------------------------------------------------------------------------------------------------
# a model, its files, its tuning

OPTIONS = {"codebook_sizes": [16, 64], "rows_per_code": 4, "neighbours": 2, "reference_size": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "wav").mkdir()
    for number in range(3):
        (folder / f"wav/{number}.wav").write_bytes(wav(tones(24_000 + number)))
    prepare("speech", [folder / "wav"], folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def flat(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a finished model whose codebooks are flat."""
    folder = tmp_path_factory.mktemp("flat")
    options = json.dumps(OPTIONS).replace(":", " =").replace('"', "")
    arguments = [
        "speech-vp", "--data", str(data), "--out", str(folder / "run"), "--steps", "4",
        "--threads", "1", "--set", f"codec.options={options}", "--set", "data.crop=[1920]",
        "--set", "data.batch=2",
    ]  # fmt: skip
    assert train_main(arguments) == 0
    return export(load_run(folder / "run", data), "speech-vp", folder, {})


@pytest.fixture(scope="module")
def planted(flat: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m train.nested` makes of it."""
    folder = tmp_path_factory.mktemp("nested")
    arguments = [
        str(flat),
        "--data",
        str(data),
        "--out",
        str(folder),
        "--steps",
        "3",
        "--device",
        "cpu",
    ]
    assert nested.main(arguments) == 0
    return folder / "speech-vp.json"


def test_the_command_changes_codebooks_and_keeps_nets(flat: Path, planted: Path) -> None:
    before, after = cards.read_card(flat), cards.read_card(planted)
    assert after.model_id != before.model_id
    assert after.config["options"] == OPTIONS | {"nested": True}
    assert after.data["training"]["recipe"]["codec"]["options"]["nested"] is True
    assert after.data["training"]["nested_from"] == f"speech-vp {before.model_id.hex()}"
    assert "results" not in after.data
    old, new = before.read(), after.read()
    for name in old:
        if name.startswith(("encoder.", "decoder.")):
            assert np.array_equal(old[name], new[name])
            assert old[name].dtype == new[name].dtype
    assert not np.array_equal(old["bottleneck.codebook_64"], new["bottleneck.codebook_64"])
    model = coding.load(after)
    assert ladder(model.tables, 64) == [16, 64]
    assert model.codec.bottleneck.nested
    sample = codec.compress(wav(tones(3000)), 64, flat)
    with pytest.raises(codec.CodecError):
        codec.decompress(sample, planted)


def test_its_files_have_layers(planted: Path) -> None:
    media = wav(tones(9000))
    whole = codec.compress(media, 64, planted, layers=True)
    assert list(codec.info(whole)["layers"]) == [16, 64]
    assert codec.truncate(whole, 16) == codec.compress(media, 16, planted)
    for size in (16, 64):
        single = codec.compress(media, size, planted)
        assert codec.decompress(codec.truncate(whole, size), planted) == codec.decompress(
            single, planted
        )


def test_an_effort_still_chooses_among_codes(planted: Path) -> None:
    """A tree need not end at the nearest code; with an effort the encoder weighs all of them."""
    model = coding.load(cards.read_card(planted))
    samples, found = tones(96 * 300), {}
    for effort in (0, 9):
        file = io.BytesIO()
        coding.compress_speech([samples], 16000, 1, file, model, 64, effort)
        found[effort] = coding.read_indices(file.getvalue(), model)[1]
        assert codec.decompress(file.getvalue(), planted)
    assert not np.array_equal(found[0], found[9])


def test_stage_c_tunes_the_decoder_on_nested_codes(
    planted: Path, data: Path, tmp_path: Path
) -> None:
    options = json.dumps(OPTIONS | {"nested": True}).replace(":", " =").replace('"', "")
    arguments = [
        "speech-vp-nested", "--init", str(planted), "--data", str(data),
        "--out", str(tmp_path / "run"), "--steps", "3", "--threads", "1",
        "--set", "codec.preset=tiny", "--set", f"codec.options={options}",
        "--set", "data.crop=[1920]", "--set", "data.batch=2",
    ]  # fmt: skip
    assert train_main(arguments) == 0
    target = export(load_run(tmp_path / "run", data), "speech-vp", tmp_path, {})
    before, after = cards.read_card(planted).read(), cards.read_card(target).read()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    media = wav(tones(5000))
    ours, theirs = (coding.load(cards.read_card(card)) for card in (target, planted))
    mine, other = (codec.compress(media, 64, model, layers=True) for model in (ours, theirs))
    assert np.array_equal(coding.read_indices(mine, ours)[1], coding.read_indices(other, theirs)[1])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("itself", "another --out"),
        ("again", "already"),
        ("fsp", "no codebooks of VP"),
        ("bare", "recipe"),
    ],
)
def test_what_cannot_be_nested_is_one_line(
    case: str,
    words: str,
    flat: Path,
    planted: Path,
    data: Path,
    model_folder: Path,
    tmp_path: Path,
    capsys,
) -> None:
    card = {"again": planted, "fsp": model_folder / "speech-fsp.json"}.get(case, flat)
    out = tmp_path
    if case == "itself":
        out = flat.parent
    if case == "bare":
        for path in flat.parent.glob("speech-vp.*"):
            shutil.copy(path, tmp_path)
        card, out = tmp_path / "speech-vp.json", tmp_path / "out"
        kept = json.loads(card.read_text())
        del kept["training"]["recipe"]
        card.write_text(json.dumps(kept))
    before = {path: path.read_bytes() for path in card.parent.glob("*.json")}
    refused = 1 if case == "itself" else 3
    assert (
        nested.main([str(card), "--data", str(data), "--out", str(out), "--device", "cpu"])
        == refused
    )
    message = capsys.readouterr().err
    assert words in message
    assert len(message.strip().splitlines()) == 1
    assert all(path.read_bytes() == content for path, content in before.items())


def test_it_says_how_to_tune_a_model_of_other_options(planted: Path) -> None:
    """A recipe whose options are others would take the nets alone, and refuse to tune them."""
    recipe = recipes.load("speech-vp-nested")
    assert nested.tuning(recipe, Path("a.json")) == "speech-vp-nested --init a.json"
    own = recipes.from_dict(cards.read_card(planted).data["training"]["recipe"])
    words = nested.tuning(own, planted)
    change = words.split("--set ")[1].strip("'")
    assert (
        recipes.load("speech-vp-nested", [change]).codec.options
        == own.codec.options
        == OPTIONS | {"nested": True}
    )


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_the_recipe_is_the_tuned_one_with_a_tree(medium: str) -> None:
    recipe = recipes.load(f"{medium}-vp-nested")
    assert recipe.tunes
    assert recipe.codec.options == recipes.load(f"{medium}-vp-small").codec.options | {
        "nested": True
    }
    assert build(recipe.config()).bottleneck.nested


def test_priors_of_a_tree_ask_digits_of_its_branches() -> None:
    """No table says where an index stands: it stands at its own number, and a parent's digits come
    first.
    """
    config = CodecConfig(
        "speech",
        NETS[default("speech")].presets["tiny"],
        "vp",
        {"codebook_sizes": (16, 64, 2048, 8192), "nested": True},
    )
    model = build(config).eval()
    model.bottleneck.fit(torch.randn(3000, 5, generator=torch.Generator().manual_seed(0)))
    sizes = model.bottleneck.codebook_sizes
    for size in sizes:
        single = digits.layout(model.bottleneck, size)
        assert int(single.levels.prod()) == size
        assert not single.order.size
        assert single.vectors.shape == (size, 5)
    for below, size in pairwise(sizes):
        found = digits.refined_layout(model.bottleneck, size, below)
        assert found is not None
        assert not found.order.size
        parents = int(found.levels[: found.given].prod())
        assert (parents, int(found.levels.prod())) == (below, size)
        assert max(found.levels) <= digits.MOST_NODES
    assert count_tables(model, torch.randn(500, 5))["tables.16"].sum() == 2**20
