"""Measures how long things take: python -m eval.bench.

Figures are ratios of two ways to do the same work, in one run.
"""
