"""Discrete bottlenecks, one file per method; usable on their own, without codecs."""

from codec.bottleneck import Bottleneck, BottleneckOutput
from codec.bottlenecks.fsp import FSP
from codec.bottlenecks.gmvq import GMVQ
from codec.bottlenecks.vp import VP

BOTTLENECKS: dict[str, type[Bottleneck]] = {"fsp": FSP, "gmvq": GMVQ, "vp": VP}

__all__ = ["BOTTLENECKS", "FSP", "GMVQ", "VP", "Bottleneck", "BottleneckOutput"]
