"""Nested codebooks and the tables that models get for them: what is trained, what is stored, what
stays the same.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_codec, tones, wav

from codec import api, cards, coding
from codec.bottlenecks import BOTTLENECKS
from codec.bottlenecks.fsp import FSP
from codec.cards import LAYER
from codec.entropy import mixing, refinement
from codec.errors import ModelError
from codec.layers import ladder
from codec.medium import MEDIA
from train import add_priors, digits, priors
from train.data import prepare

NESTED = {
    256: (4, 4, 4, 2, 2),
    1024: (4, 4, 4, 4, 4),
    4096: (8, 8, 4, 4, 4),
    16384: (8, 8, 8, 8, 4),
}


@pytest.mark.parametrize("activation", ["tanh", "normal"])
def test_a_parent_is_what_the_coarser_size_gives(activation: str) -> None:
    bottleneck = FSP(NESTED, activation)
    z = 2 * torch.randn(3, 5, 4000, generator=torch.Generator().manual_seed(0))
    for size in (1024, 4096, 16384):
        for coarser in (k for k in NESTED if k < size):
            parents = bottleneck.parents(size, coarser)
            assert parents is not None
            assert torch.equal(parents[bottleneck.encode(z, size)], bottleneck.encode(z, coarser))


def test_sizes_that_are_not_nested_have_no_parents() -> None:
    assert FSP().parents(4096, 1024) is None  # 7 and 5 levels
    thirds = FSP({4: (2, 2), 36: (6, 6)})
    assert thirds.parents(36, 4) is None  # thirds of a level need not round as the level does
    assert FSP(NESTED).parents(256, 1024) is None
    assert BOTTLENECKS["vp"](5, (4, 16)).parents(16, 4) is None


def test_a_prior_of_a_layer_learns_what_parents_tell() -> None:
    """Children that are the parity of the next parent: half a bit of the two goes away, and the
    coder gets it.
    """
    codec = tiny_codec("speech")
    parents = codec.bottleneck.parents(1024, 256)
    found = digits.refined_layout(codec.bottleneck, 1024, 256)
    assert parents is not None
    assert found is not None
    assert found.levels.tolist() == [2, 2, 4, 4, 4, 2, 2]
    assert found.given == 5
    assert np.array_equal(found.order // 4, parents.numpy())
    assert sorted(found.order.tolist()) == list(range(1024))
    random, inverse = np.random.default_rng(0), np.argsort(found.order)
    grids = []
    for _ in range(30):
        coarse = random.integers(0, 256, 400)
        child = 2 * (np.roll(coarse, -1) >= 128) + random.integers(0, 2, 400)
        grids.append(inverse[coarse * 4 + child][None])
    prior = priors.fit_prior(
        grids[:-1],
        codec.bottleneck,
        1024,
        MEDIA[codec.config.medium],
        codec.stride,
        steps=300,
        below=256,
    )
    assert prior is not None
    assert prior.given == 5
    assert len(mixing.encode(grids[-1][0], prior, 400, 10**6) or b"") < 0.65 * 100
    assert np.array_equal(
        refinement.decode(
            refinement.encode(grids[-1][0], prior, 0), parents.numpy()[grids[-1][0]], prior, 0
        ),
        grids[-1][0],
    )
    assert (
        priors.fit_prior(
            grids,
            codec.bottleneck,
            4096,
            MEDIA[codec.config.medium],
            codec.stride,
            steps=1,
            below=1024,
        )
        is None
    )


def test_a_model_gets_layers_and_stays_what_it_is(
    tmp_path: Path, model_folder: Path, capsys
) -> None:
    for path in model_folder.glob("speech-fsp.*"):
        shutil.copy(path, tmp_path)
    card = cards.read_card(tmp_path / "speech-fsp.json")
    (tmp_path / "wav").mkdir()
    for number in range(3):
        (tmp_path / f"wav/{number}.wav").write_bytes(wav(tones(16000 + number)))
    prepare("speech", [tmp_path / "wav"], tmp_path / "store")
    before = card.read()
    media = wav(tones(8000))
    single = api.compress(media, 1024, card.path)
    old = api.compress(media, 1024, card.path, layers=True)
    arguments = [str(card.path), "--data", str(tmp_path / "store"), "--steps", "5", "--layers"]
    assert add_priors.main(arguments) == 1, "it has layers, which its files need"
    assert add_priors.main([*arguments, "--out", str(tmp_path / "new")]) == 0
    after = cards.read_card(tmp_path / "new" / "speech-fsp.json")
    assert (after.model_id, after.base_id) == (card.model_id, card.base_id)
    assert after.layers_id != card.layers_id
    changed = {
        name for name, table in after.read().items() if not np.array_equal(table, before[name])
    }
    assert changed
    assert all(name.startswith(f"{LAYER}1024.") for name in changed)
    model = coding.load(after)
    assert ladder(model.tables, 1024) == [256, 1024]
    assert api.compress(media, 1024, model) == single
    assert api.decompress(api.compress(media, 1024, model, layers=True), model) == api.decompress(
        single, model
    )
    # A file with layers by the old tables decodes at its base, or where its layer happens to be in
    # fixed width.
    assert api.decompress(old, model) in [
        api.decompress(api.compress(media, k, model), model) for k in (256, 1024)
    ]
    tensors = after.path.with_suffix(".safetensors")
    data = bytearray(tensors.read_bytes())
    data[data.index(b"layer.1024.nodes") + 7] ^= 1  # its name: layer.1034, say
    tensors.write_bytes(data)
    with pytest.raises(ModelError, match="weights"):
        after.read()
    capsys.readouterr()


def test_a_model_whose_codebooks_are_not_nested_gets_none(
    model_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(add_priors, "Store", lambda *_, **__: None)
    monkeypatch.setattr(add_priors, "prior_tensors", lambda *_: {})
    arguments = [
        str(model_folder / "image-fsp.json"),
        "--data",
        str(tmp_path),
        "--layers",
        "--out",
        str(tmp_path),
    ]
    assert add_priors.main(arguments) == 3
    assert not list(tmp_path.glob("*.json"))
