"""Training: recipes, one loop for both media and every bottleneck, export to model files.

Recipes are data, not code.
"""

from codec.streams import quiet_imports

quiet_imports(__name__)
