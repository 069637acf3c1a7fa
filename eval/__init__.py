"""Evaluation: metrics, benchmarks through real files, and the demonstration of `make demo`."""
