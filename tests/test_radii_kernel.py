"""The GPU's search for neighbours: in Triton's interpreter against all distances, and compiled, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codec.bottlenecks._knn import Neighbours, radii_by_blocks

pytest.importorskip("triton", reason="triton comes with the builds of torch for GPUs")

INTERPRETED = """
import sys, torch
from codec.bottlenecks._radii_kernel import radii
rows, queries = torch.load(sys.argv[1])
torch.save(radii(queries, rows, (1, 8, 69, 70)), sys.argv[2])
"""


def test_the_kernel_finds_what_all_distances_show(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, queries = torch.randn(70, 3, generator=generator), torch.randn(35, 3, generator=generator)
    queries[3], queries[4:8], queries[9, 2], queries[11] = rows[5], rows[6], torch.nan, 1e30
    rows[7] = torch.nan
    given, found = f"{tmp_path}/given.pt", f"{tmp_path}/found.pt"
    torch.save((rows, queries), given)
    environment = os.environ | {"TRITON_INTERPRET": "1"}  # read when the kernel is defined: a process of its own
    subprocess.run([sys.executable, "-W", "ignore", "-c", INTERPRETED, given, found], env=environment, check=True)
    kernel, expected = torch.load(found), radii_by_blocks(queries, rows, (1, 8, 69, 70))
    torch.testing.assert_close(kernel, expected, equal_nan=True)
    assert kernel[0, 3] == 0
    assert kernel[2].isfinite().sum() == 33
    assert kernel[3].isnan().all()  # of 70 rows one is NaN away
    with pytest.raises(AssertionError):
        torch.testing.assert_close(kernel, radii_by_blocks(queries, rows, (2, 7, 68, 70)), equal_nan=True)


@pytest.mark.parametrize("dim", [5, 16])
def test_the_kernel_compiles_for_a_gpu(dim: int) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from codec.bottlenecks import _radii_kernel as kernel

    types = dict.fromkeys(("queries", "rows", "found"), "*fp32") | {"ranks": "*i32"}
    types |= {"num_rows": "i32", "stride": "i32", "dim": "constexpr"}
    compiled = compile(ASTSource(kernel._radii, types, {"dim": dim}), target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]


def test_a_kernel_that_fails_is_named_and_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from codec.bottlenecks import _radii_kernel as kernel

    monkeypatch.setattr(kernel, "works", kernel.works.__wrapped__)
    monkeypatch.setattr(kernel, "radii", lambda queries, _, ks: torch.zeros(len(ks), len(queries)))
    with pytest.warns(UserWarning, match="without its Triton kernel: Tensor-likes are not close"):
        assert not kernel.works(torch.device("cpu"))
    monkeypatch.setattr(kernel, "radii", radii_by_blocks)
    assert kernel.works(torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_kernel_on_a_gpu() -> None:
    rows, queries = torch.randn(8192, 5, device="cuda"), torch.randn(5000, 5, device="cuda")
    expected = radii_by_blocks(queries, rows, (8, 32))
    torch.testing.assert_close(Neighbours(rows).radii(queries, (8, 32)), expected, rtol=1e-5, atol=1e-6)
