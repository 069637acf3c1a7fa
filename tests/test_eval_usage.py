"""Commands of eval with arguments that make no sense: one line and exit code 2, before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec import cards
from codec.cli.frame import UsageError
from eval import coder_bench
from eval.__main__ import _sizes, main
from eval.bench import timing

DATA = ["--data", "nowhere"]
MODULES = {
    "__main__": ["image-fsp", *DATA],
    "bulk": ["image-fsp", *DATA, "--out", "out"],
    "phases": ["speech-vp", *DATA],
    "nested": ["speech-vp", "--train", "nowhere"],
    "coder_bench": DATA,
    "layers": DATA,
    "bench.__main__": ["bottlenecks"],
    "bench.path": DATA,
}


def refused(module: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must not begin; returns the last line of what it says."""
    if module == "bulk":
        pytest.importorskip("pyarrow", reason="bulk work is in the extra [cluster]")
    command = import_module(f"eval.{module}").main
    with pytest.raises(SystemExit) as stop:
        command([*MODULES[module], *words])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("__main__", "--first --crop --workers"),
        ("bulk", "--first --shard"),
        ("phases", "--every -k"),
        ("nested", "--first --tokens"),
        ("coder_bench", "--first"),
        ("layers", "--first"),
        ("bench.__main__", "--tokens --dim -k --turns --threads"),
        ("bench.path", "--turns --threads"),
    ],
)
def test_counts_are_at_least_one(
    module: str, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--first -1 would drop the last item, and --every 0 is none."""
    for option in options.split():
        for number in ("0", "-1", "x", "1.5"):
            said = refused(module, [f"{option}={number}"], capsys)
            whole = number in ("0", "-1")
            assert ("must be above 0" if whole else f"invalid int value: '{number}'") in said
            assert option in said


@pytest.mark.parametrize(
    "module", ["nested", "coder_bench", "layers", "bench.__main__", "bench.path"]
)
def test_an_output_that_cannot_be_a_file_is_refused_before_the_work(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is a folder" in refused(module, ["--out", str(tmp_path)], capsys)
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(module, ["--out", str(tmp_path / "file/a/b.json")], capsys)
    assert "it is empty" in refused(module, ["--out", ""], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["image-fsp", "--quick", "--lpips", "squeeze"], "--lpips is no part of --quick"),
        (["image-fsp", "--quick", "--lpips-backbone", "x"], "--lpips-backbone is no part"),
        (["image-fsp", "--match-rate"], "name --baselines"),
        (["--baselines", "jpeg", "--match-rate"], "name a MODEL or a --neighbour"),
        (["--baselines", "opus", "--no-curves"], "nothing but --match-rate"),
        (["image-fsp", "--anchor", "image-fsp"], "name --out"),
        (["image-fsp", "--fresh"], "name it"),
        (["--baselines", "jpeg", "--card", "x"], "name a MODEL"),
        (["--baselines", "jpeg", "-k", "256"], "name a MODEL"),
        (["--baselines", "jpeg", "--search", "2"], "name a MODEL"),
        (["--baselines", "jpeg", "--effort", "2"], "name a MODEL"),
        (["image-fsp", "--search", "2", "--card", "x"], "without --search"),
        (["image-fsp", "--effort", "2", "--card", "x"], "without --effort"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *DATA]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_each_model_takes_those_of_the_sizes_that_it_offers() -> None:
    few, many = (
        replace(cards.find("image-fsp"), name=name, num_codes={size: size for size in sizes})
        for name, sizes in (("few", (256, 1024)), ("many", (1024, 4096)))
    )
    assert _sizes([few, many], "256,1024,256") == [(256, 1024), (1024,)]
    assert _sizes([few, many], None) == [(256, 1024), (1024, 4096)]
    offers = "few offers 256, 1024; many offers 1024, 4096"
    for chosen, message in (
        ("1024,7", f"--codebook-size 7: {offers}"),
        ("256", "--codebook-size 256: many offers 1024, 4096; add one of these"),
    ):
        with pytest.raises(UsageError) as refusal:
            _sizes([few, many], chosen)
        assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("bottlenecks", ["-k", "256", "1024"], "one --dim and one --codebook-size"),
        ("bottlenecks", ["--dim", "5", "8"], "one --dim and one --codebook-size"),
        ("bottlenecks", ["--tokens", "7"], "wants at least 8"),
        ("kmeans", ["--tokens", "10", "-k", "16"], "wants at least K, 16"),
        ("share", ["-k", "7"], "speech-vp-small: --codebook-size 7: "),
    ],
)
def test_what_a_benchmark_cannot_do_is_one_line(
    name: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval.bench.__main__ import main as bench

    if name == "kmeans":
        for package in ("faiss", "sklearn"):
            pytest.importorskip(package, reason="the other side is in the extra [bench]")
    assert bench([name, *words, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_size_that_a_model_has_not_is_refused_before_its_phases_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from eval.phases import main as phases

    assert phases(["speech-vp", *DATA, "-k", "7"]) == 2
    assert "--codebook-size 7: " in capsys.readouterr().err.splitlines()[-1]


def test_one_file_has_no_order_1_and_json_no_nan(tmp_path: Path) -> None:
    """Which is counted on half of the files and measured on the other."""
    value = coder_bench.order_1([coder_bench.np.arange(9)], 16)
    assert value != value
    timing.save(tmp_path / "a.json", {"rows": [{"order_1": value, "coded": 2.5}], "n": (1,)})
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == {"rows": [{"order_1": None, "coded": 2.5}], "n": [1]}
