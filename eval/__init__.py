"""Evaluation: metrics, benchmarks through real files, and the demonstration that `make demo` runs."""
