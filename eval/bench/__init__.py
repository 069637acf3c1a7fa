"""How long things take, always as ratios of two ways to do the same work, in one run: python -m eval.bench."""
