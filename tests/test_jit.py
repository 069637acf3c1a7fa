"""The cache of machine code is a convenience: damaged, unwritable or full, it is a miss and never
an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, tones, wav

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from numba.core.caching import IndexDataCacheFile
if sys.argv[2] == "full":
    def full(self, path):
        raise OSError(28, "No space left on device")
    IndexDataCacheFile._open_for_write = full
import numpy as np
import jitted
print(jitted.total(np.arange(5)), jitted.total(np.arange(5.0)), len(jitted.total.stats.cache_hits))
"""
SOURCE = """
from codec.jit import machine_code

@machine_code
def total(values):
    result = values[0]
    for value in values:
        result += value
    return result
"""


def run(folder: Path, how: str = "", **variables: str) -> list[str]:
    """What the program prints: two sums, and how many signatures came from the cache."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder), how]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jitted.py").write_text(SOURCE)
    return tmp_path


def damaged(path: Path) -> list[bytes]:
    """Half of a file, and all of it with one bit flipped."""
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x10
    return [data[: len(data) // 2], bytes(flipped)]


def test_a_damaged_cache_is_a_miss(folder: Path) -> None:
    cache = folder / "__pycache__"
    for pattern, hits in (("*.nbc", "1"), ("*.nbi", "0")):
        assert run(folder) == ["10", "10.0", "0"]
        path = sorted(cache.glob(pattern))[0]
        for data in damaged(path):
            path.write_bytes(data)
            found = run(folder)
            assert found[:2] == ["10", "10.0"]
            # The flipped bit of an index may be one that does not count.
            assert found[2] == hits or pattern == "*.nbi"
        assert run(folder) == ["10", "10.0", "2"]  # and what is new is there again
        shutil.rmtree(cache)


def test_code_of_another_signature_is_a_miss(folder: Path) -> None:
    run(folder)
    first, second = sorted((folder / "__pycache__").glob("*.nbc"))
    shutil.copy(first, second)
    assert run(folder) == ["10", "10.0", "1"]


def test_an_unwritable_cache_is_none(folder: Path) -> None:
    assert run(folder, "full") == ["10", "10.0", "0"]
    assert not list((folder / "__pycache__").glob("*.nb?"))
    (folder / "file").write_text("")
    assert run(folder, NUMBA_CACHE_DIR=str(folder / "file")) == ["10", "10.0", "0"]
    shutil.rmtree(folder / "__pycache__")
    (folder / "__pycache__").write_text("a file where the folder should be")
    assert run(
        folder, NUMBA_CACHE_DIR="", HOME=str(folder / "file"), XDG_CACHE_HOME=str(folder / "file")
    ) == [
        "10",
        "10.0",
        "0",
    ]


def command(source: Path, limit_kib: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from codec.cli.compress import compress_main; "
        "sys.exit(compress_main(sys.argv[1:]))"
    )
    if limit_kib:
        limit = f"resource.setrlimit(resource.RLIMIT_AS, ({limit_kib << 10},) * 2)"
        code = f"import resource; {limit}; {code}"
    arguments = [
        sys.executable,
        "-c",
        code,
        str(source),
        str(source.with_suffix(".bin")),
        "-q",
        "-d",
        "cpu",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "in.wav"
    path.write_bytes(wav(tones(16_000 * 14)))  # more than the plain coder takes
    return path


@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_variable_that_numba_cannot_use_is_named(recording: Path, value: str) -> None:
    result = command(recording, NUMBA_NUM_THREADS=value)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"unset NUMBA_NUM_THREADS={value}" in result.stderr
    assert not recording.with_suffix(".bin").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux has them")
@pytest.mark.parametrize("limit_kib", [1_000_000, 600_000])
def test_too_little_memory_for_the_libraries_is_one_line(recording: Path, limit_kib: int) -> None:
    result = command(recording, limit_kib)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert "not enough memory to load what is needed" in result.stderr
    assert not recording.with_suffix(".bin").exists()
