"""nearest and kmeans: against torch.cdist, faiss and scikit-learn, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.bottlenecks.parts import kmeans as our_kmeans
from codec.bottlenecks.parts import nearest as our_nearest
from codec.cli.frame import UsageError
from codec.errors import CodecError, not_installed
from eval.bench.timing import Figures, Options, compare, timed

BLOCK = 4096  # tokens whose distances torch.cdist holds at once
ITERATIONS = 10


def library(name: str) -> Any:
    """Imports a package of the extra [bench].

    Raises:
        CodecError: It is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise CodecError(not_installed(name, "bench")) from None


def searches(tokens: Tensor, codebook: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Yields the name and the search of each library."""
    faiss, metrics = library("faiss"), library("sklearn.metrics")
    faiss.omp_set_num_threads(torch.get_num_threads())
    yield (
        "torch.cdist",
        lambda: torch.cat([torch.cdist(t, codebook).argmin(1) for t in tokens.split(BLOCK)]),
    )
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.cpu().numpy())
    yield "faiss", lambda: torch.from_numpy(index.search(tokens.cpu().numpy(), 1)[1][:, 0])
    x, y = tokens.cpu().numpy(), codebook.cpu().numpy()
    yield "sklearn", lambda: torch.from_numpy(metrics.pairwise_distances_argmin(x, y))


def nearest(options: Options) -> Figures:
    rows: Figures = {}
    print(
        f"{'d':>2} {'K':>6} {'other':12} {'ours, ms':>9} {'other, ms':>10} {'faster':>7} "
        f"{'same indices':>13}"
    )
    for dim in options.dims:
        for size in options.sizes:
            torch.manual_seed(0)
            tokens = torch.randn(options.tokens, dim, device=options.device)
            codebook = torch.randn(size, dim, device=options.device)
            ours = partial(our_nearest, tokens, codebook)
            for name, search in searches(tokens, codebook):
                share = float((search().cpu() == ours().cpu()).double().mean())
                a, b, ratio = compare(search, ours, options.turns, options.device, warm=1)
                rows[f"d={dim} K={size} {name}"] = {
                    "ours_s": b,
                    "other_s": a,
                    "ratio": ratio,
                    "same_share": share,
                }
                print(
                    f"{dim:2} {size:6} {name:12} {1e3 * b:9.1f} {1e3 * a:10.1f} {ratio:7.2f} "
                    f"{share:13.4%}",
                    flush=True,
                )
    return rows


def kmeans(options: Options) -> Figures:
    """Times k-means.

    Ours runs to convergence or for ten iterations, faiss for as many, and scikit-learn's
    mini-batches until they improve no more.

    Raises:
        UsageError: There are fewer rows than codes.
    """
    if options.tokens < max(options.sizes):
        raise UsageError(
            f"--tokens {options.tokens}: kmeans wants at least K, {max(options.sizes)}"
        )
    faiss, cluster = library("faiss"), library("sklearn.cluster")
    faiss.omp_set_num_threads(torch.get_num_threads())
    rows: Figures = {}
    print(
        f"{'d':>2} {'K':>6} {'method':10} {'seconds':>8} {'inertia / N':>12} "
        f"{'other / ours, time':>19} {'inertia':>8}"
    )
    for dim in options.dims:
        for size in options.sizes:
            torch.manual_seed(0)
            data = torch.randn(options.tokens, dim, device=options.device)
            array = data.cpu().numpy()

            def by_faiss(array: np.ndarray = array, dim: int = dim, size: int = size) -> Tensor:
                run = faiss.Kmeans(
                    dim, size, niter=ITERATIONS, seed=0, max_points_per_centroid=len(array)
                )
                run.train(array)
                return torch.from_numpy(run.centroids)

            def by_sklearn(array: np.ndarray = array, size: int = size) -> Tensor:
                run = cluster.MiniBatchKMeans(
                    size, batch_size=max(4096, 4 * size), n_init=1, random_state=0
                )
                return torch.from_numpy(run.fit(array).cluster_centers_)

            methods: dict[str, Callable[[], Tensor]] = {
                "ours": partial(our_kmeans, data, size, 0, ITERATIONS),
                "faiss": by_faiss,
                "sklearn": by_sklearn,
            }
            our_kmeans(data[: 4 * size], size, 0, 1)  # loads what is compiled
            first: tuple[float, float] | None = None
            for name, method in methods.items():
                near, time = timed(method, options.device)
                near = near.to(data)
                inertia = float(
                    (data - near[our_nearest(data, near)]).double().square().sum() / len(data)
                )
                first = first or (time, inertia)
                figures = {"seconds": time, "inertia": inertia}
                figures |= {"ratio": time / first[0], "inertia_ratio": inertia / first[1]}
                rows[f"d={dim} K={size} {name}"] = figures
                print(f"{dim:2} {size:6} {name:10} {time:8.2f} {inertia:12.5f}", end="")
                print(f" {time / first[0]:19.2f} {inertia / first[1]:8.4f}", flush=True)
    return rows
