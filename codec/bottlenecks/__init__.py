"""Discrete bottlenecks, one file per method; usable on their own, without codecs.

`python -m codec.bottlenecks` prints what there is.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from codec.arguments import choice, whole
from codec.bottleneck import Bottleneck, BottleneckOutput
from codec.bottlenecks.codebooks import Affine, Alternating, ByAverage, Restart, unit
from codec.bottlenecks.fsp import FSP
from codec.bottlenecks.fsq import FSQ, NoiseFSQ
from codec.bottlenecks.gmvq import GMVQ
from codec.bottlenecks.grouped import Grouped
from codec.bottlenecks.gumbelvq import GumbelVQ
from codec.bottlenecks.residual import Residual
from codec.bottlenecks.simvq import SimVQ
from codec.bottlenecks.sqvae import SQVAE
from codec.bottlenecks.tokenbridge import TokenBridge
from codec.bottlenecks.vp import VP
from codec.bottlenecks.vq import VQ


def grouped(method: str = "vq", num_groups: int = 2, **options: Any) -> Grouped:
    """Product quantisation (Jégou et al. 2011): `num_groups` times one registered method.

    Each group is made with `options`.
    """
    make = BOTTLENECKS[choice(method, "method", BOTTLENECKS)]
    return Grouped([make(**options) for _ in range(whole(num_groups, "num_groups", 1))])


def residual(
    method: str = "vq",
    num_stages: int = 2,
    codebook_sizes: tuple[int, ...] = (1024,),
    **options: Any,
) -> Residual:
    """Residual quantisation (Zeghidour et al. 2021): `num_stages` times a registered method.

    The method must have a codebook: one that is made for `codebook_sizes`.
    """
    able = [k for k, m in BOTTLENECKS.items() if "codebook_sizes" in signature(m).parameters]
    make = BOTTLENECKS[choice(method, "method with codebooks", able)]
    return Residual(lambda k: make(codebook_sizes=(k,), **options), codebook_sizes, num_stages)


BOTTLENECKS: dict[str, Callable[..., Bottleneck]] = {
    "fsp": FSP,
    "gmvq": GMVQ,
    "vp": VP,
    "vq": VQ,
    "vq-ema": partial(VQ, update=ByAverage),
    "vq-l2": partial(VQ, dim=32, geometry=unit),  # the geometry is for few dimensions
    "vq-replace": partial(VQ, restart=Restart),
    "vq-l2-replace": partial(VQ, dim=32, geometry=unit, restart=Restart),
    "vq-affine": partial(VQ, affine=Affine),
    "vq-opt": partial(VQ, update=Alternating),
    "vq-affine-opt": partial(VQ, update=Alternating, affine=Affine),
    "sqvae": SQVAE,
    "gumbelvq": GumbelVQ,
    "simvq": SimVQ,
    "fsq": FSQ,
    "fsq-noise": NoiseFSQ,
    "tokenbridge": TokenBridge,
    "grouped": grouped,
    "residual": residual,
}

__all__ = [
    "BOTTLENECKS",
    "FSP",
    "FSQ",
    "GMVQ",
    "SQVAE",
    "VP",
    "VQ",
    "Bottleneck",
    "BottleneckOutput",
    "Grouped",
    "GumbelVQ",
    "NoiseFSQ",
    "Residual",
    "SimVQ",
    "TokenBridge",
]
