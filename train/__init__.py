"""Training: recipes (data, not code), one loop for both media and every bottleneck, export to model
files.
"""
