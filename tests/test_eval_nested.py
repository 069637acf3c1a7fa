"""python -m eval.nested: codebooks nested in three ways, each measured by its own rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import gradient, picture, tones, wav
from torch import Tensor

from codec import cards
from codec.bottlenecks._search import nearest
from eval import nested
from train.__main__ import main as train_main
from train.data import prepare
from train.export import export, load_run

OPTIONS = {
    "vp": "{codebook_sizes=[4, 16], rows_per_code=4, neighbours=2, reference_size=4}",
    "gmvq": "{dim=4, codebook_sizes=[4, 16]}",
}


def points() -> tuple[Tensor, dict[int, Tensor]]:
    random = torch.Generator().manual_seed(0)
    data = torch.randn(3000, 3, generator=random)
    return data, {4: data[:4].clone(), 16: data[100:116].clone()}


@pytest.mark.parametrize("weighted", [False, True])
def test_every_way_is_a_tree(weighted: bool) -> None:
    data, flat = points()
    weights = (
        torch.rand(data.shape, generator=torch.Generator().manual_seed(1)) + 0.1
        if weighted
        else None
    )
    tokens = data, weights
    parted, merged = nested.split_codebooks(tokens, flat), nested.merged_codebooks(tokens, flat)
    assert torch.equal(parted[4], flat[4])
    assert sorted(merged[16].tolist()) == sorted(flat[16].tolist())
    parents = nearest(data, merged[16], weights) // 4
    for parent, code in enumerate(merged[4]):
        assert torch.allclose(code, data[parents == parent].mean(0), atol=1e-5)
    for books, choose in (
        (parted, nested.descend),
        (parted, nested.ascend),
        (merged, nested.ascend),
    ):
        indices = choose(tokens, books)
        assert torch.equal(indices[16] // 4, indices[4])
    down, up, free = (
        rule(tokens, parted) for rule in (nested.descend, nested.ascend, nested.flat_indices)
    )
    assert torch.equal(down[4], free[4])
    assert torch.equal(up[16], free[16])
    assert not torch.equal(free[16] // 4, free[4])  # negative control: flat search is no tree
    assert torch.equal(free[16], nearest(data, parted[16], weights))


@pytest.mark.parametrize("method", OPTIONS)
def test_the_command(
    method: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "wav").mkdir()
    for number in range(2):
        (tmp_path / f"wav/{number}.wav").write_bytes(wav(tones(16_000 + number)))
    store = tmp_path / "store"
    prepare("speech", [tmp_path / "wav"], store)
    arguments = [
        f"speech-{method}",
        "--data",
        str(store),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "2",
    ]
    for change in (f"codec.options={OPTIONS[method]}", "data.crop=[1920]", "data.batch=2"):
        arguments += ["--set", change]
    assert train_main([*arguments, "--threads", "1", "--device", "cpu"]) == 0
    card = export(load_run(tmp_path / "run", store), "speech-mine", tmp_path, {})
    capsys.readouterr()
    out = tmp_path / "figures.json"
    given = [
        str(card),
        "--train",
        str(store),
        "--data",
        str(tmp_path / "wav"),
        "--tokens",
        "500",
        "--first",
        "1",
    ]
    assert nested.main([*given, "--out", str(out)]) == 0
    ways = json.loads(out.read_text())["ways"]
    assert set(ways) == set(nested.WAYS)
    for way, rows in ways.items():
        assert list(rows) == ["4", "16"]
        assert all(row["mse"] > 0 for row in rows.values()), way
    assert ways["split"]["4"] == ways["flat"]["4"]
    assert ways["merge"]["16"]["mse"] == pytest.approx(ways["flat"]["16"]["mse"])
    assert len(capsys.readouterr().out.strip().splitlines()) == 4
    # Means that are subtracted are of the same clips: the first was not scored in one way.
    scores = iter([1.0, 1.0, None, *[1.0] * 5, *[2.0] * 8])
    out.unlink()
    with monkeypatch.context() as changed:
        changed.setattr(nested, "METRICS", {"speech": {"PESQ": lambda *_: next(scores)}})
        assert nested.main([*given[:-1], "2", "--out", str(out)]) == 0
    ways = json.loads(out.read_text())["ways"]
    assert {size: {ways[w][size]["quality"] for w in ways} for size in ("4", "16")} == {
        "4": {2.0},
        "16": {1.5},
    }
    (tmp_path / "wav/2.png").write_bytes(picture(gradient(16, 16)))
    assert nested.main(given) == 1
    assert "2.png: this is image, and speech is measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"), [("fsp", "no codebooks of"), ("nested", "already"), ("sizes", "by 4")]
)
def test_other_models_are_refused(
    change: str,
    words: str,
    tmp_path: Path,
    model_folder: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bottleneck:
        nested = change == "nested"
        codebook_sizes = (4, 12) if change == "sizes" else (4, 16)

    class Model:
        class codec:  # noqa: N801
            bottleneck = Bottleneck

    name = (
        model_folder / "speech-fsp.json" if change == "fsp" else Path(cards.find("speech-vp").path)
    )
    load: Callable[..., type[Model]] = lambda *_: Model  # noqa: E731
    monkeypatch.setattr(nested.coding, "load", load)
    assert nested.main([str(name), "--train", str(tmp_path / "none")]) == 3
    message = capsys.readouterr().err
    assert words in message
    assert len(message.strip().splitlines()) == 1
