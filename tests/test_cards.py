"""codec.cards: a model is found by name, path or identity, and never used if it is not what its
card says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import export, tiny_codec

from codec import cards, coding
from codec.cards import identities
from codec.errors import ModelError

pytestmark = pytest.mark.usefixtures("models")
CONFIG = {"medium": "speech", "nets": {"hop": 96, "n_fft": 384}, "bottleneck": "fsp", "options": {}}
TENSORS = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.ones(4, np.int32)}


@pytest.fixture
def copied(model_folder: Path, tmp_path: Path) -> Path:
    """A folder of models that may be spoilt."""
    return Path(shutil.copytree(model_folder, tmp_path / "models"))


def test_the_identity_knows_no_order() -> None:
    turned = {key: CONFIG[key] for key in reversed(CONFIG)}
    assert cards.identity(turned, dict(reversed(TENSORS.items()))) == cards.identity(
        CONFIG, TENSORS
    )
    assert cards.identity(
        CONFIG, {**TENSORS, "a": np.asfortranarray(TENSORS["a"])}
    ) == cards.identity(CONFIG, TENSORS)
    assert cards.identity(CONFIG, {**TENSORS, "b": TENSORS["b"].astype(">i4")}) == cards.identity(
        CONFIG, TENSORS
    )


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        ({**CONFIG, "bottleneck": "vp"}, TENSORS),
        ({**CONFIG, "nets": {"hop": 96, "n_fft": 768}}, TENSORS),
        ({**CONFIG, "options": {"eta": 0.5}}, TENSORS),
        (CONFIG, {**TENSORS, "a": TENSORS["a"] + 1}),
        (CONFIG, {**TENSORS, "a": TENSORS["a"].reshape(3, 2)}),
        (CONFIG, {**TENSORS, "a": TENSORS["a"].view(np.int16)}),
        (CONFIG, {"a": TENSORS["a"], "c": TENSORS["b"]}),
        (CONFIG, {"a": TENSORS["a"]}),
        (CONFIG, {**TENSORS, "c": np.empty(0)}),
    ],
)
def test_the_identity_changes_with_anything(config: dict[str, Any], tensors: cards.Tensors) -> None:
    assert cards.identity(config, tensors) != cards.identity(CONFIG, TENSORS)


def test_every_tensor_of_a_model_counts() -> None:
    card = cards.find("speech-fsp")
    tensors = card.read()
    for name, tensor in tensors.items():
        changed = {
            **tensors,
            name: np.where(np.arange(tensor.size).reshape(tensor.shape) == 0, tensor + 1, tensor),
        }
        assert not tensor.size or cards.identity(card.config, changed) != card.model_id, name


@pytest.mark.parametrize("card", cards.list_cards(), ids=lambda card: str(card.name))
def test_identities_are_those_that_the_format_describes(card: cards.Card) -> None:
    """Written down from FORMAT.md, "The model"."""
    text = json.dumps(dict(card.config), sort_keys=True, separators=(",", ":"))
    data = text.encode()
    for name, tensor in sorted(card.read().items()):
        if name.startswith("layer."):
            continue
        axes = tensor.shape or (1,)  # a tensor without axes counts as one axis of length 1
        data += b"\0" + name.encode() + b"\0" + tensor.dtype.name.encode()
        data += b"".join(n.to_bytes(8, "little") for n in (len(axes), *axes))
        data += tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
    assert hashlib.sha256(data).digest()[:16] == card.model_id


def test_models_are_listed_by_name(models: Path) -> None:
    assert [card.name for card in cards.list_cards()] == ["image-fsp", "speech-fsp"]
    assert cards.list_cards(models / "nowhere") == []


def test_a_model_is_found_by_name_medium_path_and_identity(models: Path) -> None:
    card = cards.find("speech-fsp")
    assert cards.find(medium="speech") == card
    assert cards.find(model_id=card.model_id) == card
    for name in ("speech-fsp.json", "speech-fsp.safetensors", "speech-fsp"):
        assert cards.find(str(models / name)) == card
        assert cards.find(str(models / name), model_id=card.model_id) == card


def test_a_path_may_have_dots_and_another_name_than_the_card(models: Path, tmp_path: Path) -> None:
    for suffix in ("json", "safetensors"):
        shutil.copy(models / f"speech-fsp.{suffix}", tmp_path / f"my best.v1.{suffix}")
    card = cards.find(str(tmp_path / "my best.v1"))
    assert card.name == "speech-fsp"
    assert card.read()


def test_the_preferred_bottleneck_wins(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "MODELS_FOLDER", copied)
    data = json.loads((copied / "speech-fsp.json").read_text())
    for bottleneck in ("gmvq", "vp", "aaa"):
        data["name"], data["config"]["bottleneck"] = f"speech-{bottleneck}", bottleneck
        (copied / f"speech-{bottleneck}.json").write_text(json.dumps(data))
    assert cards.find(medium="speech").name == "speech-vp"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "speech-xyz"}, r"no model speech-xyz; here are image-fsp, speech-fsp"),
        (
            {"name": "speech-xyz", "model_id": bytes(16)},
            r"no model speech-xyz; here are image-fsp, speech-fsp",
        ),
        ({"name": "image-fsp", "medium": "speech"}, r"no speech model image-fsp; here are"),
        ({"model_id": bytes(16)}, r"needs model 0{32}; here are image-fsp \(\w{8}\), speech-fsp"),
        ({"name": "/no/where.json"}, r"/no/where.json: cannot read .*No such file"),
    ],
)
def test_what_is_not_there_is_said_with_what_there_is(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        cards.find(**arguments)


def test_a_single_model_is_not_taken_for_another(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "image-fsp.json").unlink()
    monkeypatch.setattr(cards, "MODELS_FOLDER", copied)
    with pytest.raises(ModelError, match="no model speech-xyz"):
        cards.find("speech-xyz")


def spoil_card(key: str, value: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "speech-fsp.json"
        data = json.loads(path.read_text())
        data[key] = value
        path.write_text(json.dumps(data))

    return spoil


def flip_byte(folder: Path) -> None:
    path = folder / "speech-fsp.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (
        lambda folder: (folder / "speech-fsp.safetensors").unlink(),
        "cannot read the weights",
    ),
    "empty weights": (
        lambda folder: (folder / "speech-fsp.safetensors").write_bytes(b""),
        "cannot read the weights",
    ),
    "cut weights": (
        lambda folder: (folder / "speech-fsp.safetensors").write_bytes(
            (folder / "speech-fsp.safetensors").read_bytes()[:5000]
        ),
        "cannot read the weights",
    ),
    "a flipped bit": (flip_byte, "not those of the card"),
    "another's weights": (
        lambda folder: (folder / "speech-fsp.safetensors").write_bytes(
            (folder / "image-fsp.safetensors").read_bytes()
        ),
        "not those of the card",
    ),
    "no JSON": (
        lambda folder: (folder / "speech-fsp.json").write_text("hello"),
        "not a model card",
    ),
    "no text": (
        lambda folder: (folder / "speech-fsp.json").write_bytes(b"\xff\xfe"),
        "not a model card",
    ),
    "a list": (lambda folder: (folder / "speech-fsp.json").write_text("[]"), "not a model card"),
    "no hex": (spoil_card("model_id", "xyz"), "not a model card"),
    "no sizes": (spoil_card("num_codes", 5), "not a model card"),
    "an empty list of sizes": (spoil_card("num_codes", {}), "no codebook sizes"),
    "a size of 0": (spoil_card("num_codes", {"0": 256}), "one below 1"),
    "no codes of a size": (spoil_card("num_codes", {"256": 0}), "one below 1"),
    "no tokens": (spoil_card("tokens_per_unit", 0), "not above 0"),
    "endless tokens": (spoil_card("tokens_per_unit", float("inf")), "not above 0"),
    "no configuration": (spoil_card("config", "xyz"), "not a model card"),
    "an empty configuration": (spoil_card("config", {}), "not a model card"),
    "no figures": (
        spoil_card("results", {"set": {"1024": {"STOI": "good"}}}),
        "results are not readable",
    ),
    "other sizes": (spoil_card("num_codes", {"512": 512}), "other codebook sizes"),
}


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_a_damaged_model_is_refused_by_its_path(copied: Path, name: str) -> None:
    spoil, message = DAMAGE[name]
    spoil(copied)
    with pytest.raises(ModelError, match=message) as error:
        coding.load(cards.find(str(copied / "speech-fsp.json")))
    assert str(error.value).startswith(str(copied / "speech-fsp"))


@pytest.mark.parametrize(
    "name", ["no JSON", "no text", "a list", "no hex", "no sizes", "no configuration", "no figures"]
)
def test_a_damaged_card_is_named_once_and_the_others_work(
    copied: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cards, "MODELS_FOLDER", copied)
    image = cards.find("image-fsp")
    spoil, message = DAMAGE[name]
    spoil(copied)
    for _ in range(2):
        assert [card.name for card in cards.list_cards()] == ["image-fsp"]
        assert (
            cards.find(medium="image")
            == cards.find("image-fsp")
            == cards.find(model_id=image.model_id)
            == image
        )
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text
    assert str(copied / "speech-fsp.json") in caplog.text
    with pytest.raises(ModelError, match=message):
        cards.find("speech-fsp")
    with pytest.raises(ModelError, match="no speech model; here are image-fsp"):
        cards.find(medium="speech")


@pytest.mark.parametrize(
    "change", [{"bottleneck": "nonesuch"}, {"options": {"nonesuch": 1}}, {"medium": "video"}]
)
def test_a_model_of_a_later_version_is_refused(copied: Path, change: dict[str, Any]) -> None:
    """A true card, whose identity fits, that this version cannot build."""
    path = copied / "speech-fsp.json"
    data = json.loads(path.read_text())
    data["config"] |= change
    data |= identities(data["config"], cards.find(str(path)).read())
    path.write_text(json.dumps(data))
    with pytest.raises(ModelError, match="may need another version of codec"):
        coding.load(cards.find(str(path)))


def test_loading_gives_the_nets_that_were_exported(tmp_path: Path) -> None:
    codec = tiny_codec("image", seed=3)
    model = coding.load(cards.read_card(export(tmp_path, "image-fsp", codec)))
    state = model.codec.state_dict()
    assert not model.codec.training
    assert sorted(model.tables) == [256, 1024, 4096, 16384]
    for name, value in codec.state_dict().items():
        assert state[name].equal(value.half().float()), name


def test_the_shipped_models_are_whole(root: Path) -> None:
    found = cards.list_cards(root / "assets/models")
    if not found:
        pytest.skip("no models are shipped yet")
    for card in found:
        assert card.path.stem == card.name
        assert card.read()


def test_a_rate_is_that_of_files_where_it_was_measured(
    speech_model: coding.Model, root: Path
) -> None:
    """The command's -b goes by it."""
    assert speech_model.card.bits_per_token[1024] == 10  # of which nothing was measured
    card = cards.read_card(root / "assets/models/speech-vp.json")
    first = next(iter(card.data["results"].values()))
    assert card.bits_per_token == {int(size): row["bits_per_token"] for size, row in first.items()}
    assert all(bits < np.log2(size) for size, bits in card.bits_per_token.items())


def test_the_best_model_is_the_one_that_measured_best(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure at K = 1024 decides, and a missing one counts as nothing."""
    monkeypatch.setattr(cards, "MODELS_FOLDER", copied)
    data = json.loads((copied / "image-fsp.json").read_text())
    for name, ssim in (("image-aa", 0.7), ("image-bb", 0.6), ("image-zz", None)):
        results = {"set": {"1024": {"SSIM": ssim, "PSNR": 20.0}, "256": {"SSIM": 0.99}}}
        if name == "image-bb":
            results["an easier set that only this one saw"] = {"1024": {"SSIM": 0.95}}
        (copied / f"{name}.json").write_text(json.dumps(data | {"name": name, "results": results}))
    assert {card.name: card.quality for card in cards.list_cards()}["image-zz"] == {}
    assert cards.find(medium="image").name == "image-aa"
