"""The tables of docs/papers.md are those that the kept runs give, without training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.experiments.__main__ import RESULTS, main

pytest.importorskip("matplotlib")
ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/papers.md").read_text()
KEPT = {  # experiment -> the folder of its runs
    "gmvq-table1": "runs-gmvq-table1-cifar10",
    "gmvq-fig3": "runs-gmvq-fig3",
    "gmvq-fig4": "runs-gmvq-fig4-cifar10",
    "gmvq-grid": "runs-gmvq-grid-cifar10",
    "gmvq-readings": "runs-gmvq-table1-cifar10",
    "vpvae-table1": "runs-vpvae",
    "vpvae-table2": "runs-vpvae",
    "vpvae-losses": "runs-vpvae",
    "vpvae-ablation": "runs-vpvae",
}


@pytest.mark.parametrize(
    "name", [name for name, folder in KEPT.items() if (RESULTS / folder).is_dir()]
)
def test_a_table_is_that_of_the_kept_runs(name: str, tmp_path: Path) -> None:
    assert main([name, "--redraw", "--out", str(tmp_path)]) == 0
    report = (tmp_path / f"{name}.md").read_text()
    lines = [line for line in report.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    assert f"python -m eval.experiments {name} --redraw" in PAGE
    missing = [line for line in lines if line not in PAGE]
    assert not missing, "run the command again and paste its tables"


def test_longer_runs_are_those_of_the_page(tmp_path: Path) -> None:
    folder = RESULTS / "30-epochs"
    assert main(["gmvq-table1", "--redraw", str(folder), "--out", str(tmp_path)]) == 0
    report = (tmp_path / "gmvq-table1.md").read_text()
    lines = [line for line in report.splitlines() if line.startswith("|")]
    assert len(lines) > 8
    assert "python -m eval.experiments gmvq-table1 --redraw eval/results/30-epochs" in PAGE
    assert not [line for line in lines if line not in PAGE]


def test_kept_runs_are_small_and_whole() -> None:
    files = sorted(RESULTS.rglob("*.json"))
    assert files
    for path in files:
        assert path.stat().st_size < 50_000
        record = json.loads(path.read_text())
        assert {"label", "settings", "minutes", "result"} == set(record)
        assert path.name.startswith(record["label"])
