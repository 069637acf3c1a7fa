"""The second decoder, written from FORMAT.md, agrees with the first on every golden file and on
what is refused.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import second_decoder
from second_decoder import RefusedError, decode_file

GOLDEN = Path(__file__).parent.parent / "assets/golden"
# For those see tests/test_layers.py.
FILES = sorted(set(GOLDEN.glob("*.bin")) - set(GOLDEN.glob("layers-*.bin")))


def expected(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


def test_it_knows_nothing_of_the_first() -> None:
    tree = ast.parse(Path(second_decoder.__file__).read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"json", "sys", "functools", "itertools", "pathlib"}


def test_there_is_a_golden_file_for_every_coder() -> None:
    assert len(FILES) >= 9


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_decodes_the_golden_files(path: Path) -> None:
    golden = expected(path)
    header, samples, indices = decode_file(path.read_bytes(), golden)
    assert indices == golden["indices"]
    assert samples == golden["num_samples"]
    known = {name: value for name, value in golden["header"].items() if value}
    assert {name: header[name] for name in known} == known


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_refuses_truncations_and_flipped_bytes(path: Path) -> None:
    data, golden = path.read_bytes(), expected(path)
    for length in range(0, len(data), 3):
        with pytest.raises(RefusedError):
            decode_file(data[:length], golden)
    for at in range(0, len(data), 5):
        if at != 9:
            with pytest.raises(RefusedError):
                decode_file(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :], golden)


TABLES = ["nodes", "hidden", "embedding", "bias", "offsets", "speeds", "order", "digits"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *(("mixing-mono", name) for name in TABLES),
        *(("wide-mono", name) for name in [*TABLES, "wide", "wide_bias"]),
    ],
)
def test_every_table_of_a_prior_matters(file: str, name: str) -> None:
    """Negative control: with another prior the golden file is refused, never decoded to other
    indices.
    """
    path = GOLDEN / f"{file}.bin"
    golden = expected(path)
    table = golden["prior"][name]
    if name == "offsets":
        table[0] = [0, -3]
    elif name == "speeds":
        table[0] += 1
    elif name == "order":
        table[0], table[1] = table[1], table[0]
    elif name.endswith("bias"):
        table[:] = [value + 20_000 for value in table]
    else:
        table[:] = [[value + 40 for value in row] for row in table]
    with pytest.raises(RefusedError):
        decode_file(path.read_bytes(), golden)
