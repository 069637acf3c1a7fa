"""Discrete bottlenecks, one file per method; usable on their own, without codecs."""

from codec.bottleneck import Bottleneck
from codec.bottlenecks.fsp import FSP

BOTTLENECKS: dict[str, type[Bottleneck]] = {"fsp": FSP}

__all__ = ["BOTTLENECKS", "FSP", "Bottleneck"]
