"""The GPU's search for neighbours: in Triton's interpreter against all distances, and compiled,
which needs no GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codec.bottlenecks._knn import Neighbours, radii_by_blocks

pytest.importorskip("triton", reason="triton comes with the builds of torch for GPUs")

WITHIN = 4e-4  # of a radius: what VP may be off by on a GPU
INTERPRETED = """
import sys, torch
from unittest import mock
from codec.bottlenecks._radii_kernel import radii
rows, queries = torch.load(sys.argv[1])
with mock.patch.object(torch.cuda, "device_of", wraps=torch.cuda.device_of) as device_of:
    torch.save(radii(queries, rows, (1, 8, 69, 70)), sys.argv[2])
assert device_of.call_args.args[0] is rows  # which chooses among several GPUs, and minds no CPU
"""


def by_bisection(queries: Tensor, rows: Tensor, rank: int, num_bits: int) -> Tensor:
    """What the kernel does, in torch: (N,) radii, from the leading bits of their squares."""
    squared = torch.zeros(len(queries), len(rows))
    for x, y in zip(queries.T, rows.T, strict=True):
        squared += (x[:, None] - y) ** 2
    infinity = 0x7F800000
    bits = torch.zeros(len(queries), dtype=torch.int32)
    for place in range(num_bits):
        step = 1 << (30 - place)
        limit = (bits + (step - 1)).clamp(max=infinity).view(torch.float32)
        bits = torch.where((squared <= limit[:, None]).sum(1) < rank, bits + step, bits)
    inner = (bits > 0) & (bits < infinity)
    return torch.where(inner, bits + ((1 << (31 - num_bits)) >> 1), bits).view(torch.float32).sqrt()


def test_the_kernel_finds_what_all_distances_show(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, queries = torch.randn(70, 3, generator=generator), torch.randn(35, 3, generator=generator)
    queries[3], queries[4:8], queries[9, 2], queries[11] = rows[5], rows[6], torch.nan, 1e30
    rows[7] = torch.nan
    given, found = f"{tmp_path}/given.pt", f"{tmp_path}/found.pt"
    torch.save((rows, queries), given)
    # Read when the kernel is defined: a process of its own.
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED, given, found],
        env=environment,
        check=True,
    )
    kernel, expected = torch.load(found), radii_by_blocks(queries, rows, (1, 8, 69, 70))
    torch.testing.assert_close(kernel, expected, rtol=WITHIN, atol=0.0, equal_nan=True)
    assert kernel[0, 3] == 0
    assert kernel[0, 11] == torch.inf
    assert kernel[2].isfinite().sum() == 33
    assert kernel[3].isnan().all()  # of 70 rows one is NaN away
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            kernel, radii_by_blocks(queries, rows, (2, 7, 68, 70)), equal_nan=True
        )
    by_hand = torch.stack([by_bisection(queries, rows, rank, 18) for rank in (1, 8, 69)])
    torch.testing.assert_close(kernel[:3], by_hand, rtol=1e-6, atol=0.0, equal_nan=True)


def test_eighteen_bits_are_enough_and_sixteen_are_not() -> None:
    """Against the tree, which is exact: 2^-12 is .024 %, whatever the scale."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(2000, 5, generator=generator)
    queries = torch.randn(500, 5, generator=generator)
    rows *= torch.logspace(-6, 3, 2000)[:, None]
    queries *= torch.logspace(-6, 3, 500)[:, None]
    exact = Neighbours(rows).radii(queries, (8,))[0]
    error = {
        bits: ((by_bisection(queries, rows, 8, bits) - exact) / exact).abs().max()
        for bits in (16, 18, 31)
    }
    assert error[18] < 2.0**-12 + 1e-6 < WITHIN
    assert error[16] > WITHIN
    assert error[31] < 1e-6


@pytest.mark.parametrize("dim", [5, 16])
def test_the_kernel_compiles_for_a_gpu(dim: int) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from codec.bottlenecks import _radii_kernel as kernel

    types = dict.fromkeys(("queries", "rows", "found"), "*fp32") | dict.fromkeys(
        ("rank", "num_rows", "stride"), "i32"
    )
    source = ASTSource(kernel._radii, types | {"dim": "constexpr"}, {"dim": dim})
    assert compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def test_a_kernel_that_fails_is_named_and_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from codec.bottlenecks import _radii_kernel as kernel

    monkeypatch.setattr(kernel, "works", kernel.works.__wrapped__)
    monkeypatch.setattr(kernel, "radii", lambda queries, _, ks: torch.zeros(len(ks), len(queries)))
    with pytest.warns(UserWarning, match="without its Triton kernel: Tensor-likes are not close"):
        assert not kernel.works(torch.device("cpu"))
    monkeypatch.setattr(kernel, "radii", radii_by_blocks)
    assert kernel.works(torch.device("cpu"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n\nat 3:4:\n  no such intrinsic.\nmore", "at 3:4: no such intrinsic"),
        ("  \n", "RuntimeError"),
        ("", "RuntimeError"),
    ],
)
def test_a_compiler_error_of_several_lines_is_told_in_one(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codec.bottlenecks import _radii_kernel as kernel

    def fails(*_: object) -> Tensor:
        raise RuntimeError(text)

    monkeypatch.setattr(kernel, "radii", fails)
    with pytest.warns(UserWarning, match=f"without its Triton kernel: {told}$"):
        assert not kernel.works.__wrapped__(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_kernel_on_a_gpu() -> None:
    rows, queries = torch.randn(8192, 5, device="cuda"), torch.randn(5000, 5, device="cuda")
    for ks in ((8, 32), (8, 8)):
        expected = radii_by_blocks(queries, rows, ks)
        torch.testing.assert_close(
            Neighbours(rows).radii(queries, ks), expected, rtol=WITHIN, atol=0.0
        )
