"""Evaluation: metrics, benchmarks through real files, and the demonstration of `make demo`."""

from codec.streams import quiet_imports

quiet_imports(__name__)
