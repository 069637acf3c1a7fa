"""A package of somebody's own: importing it registers a bottleneck, nets and a loss.

tests/test_plugins.py uses all three.
"""

from codec.bottlenecks import BOTTLENECKS
from codec.losses import EXTRA_LOSSES
from codec.nets import NETS
from own_parts.edges import Edges
from own_parts.patches import PATCHES
from own_parts.rounding import Rounding

BOTTLENECKS["own-rounding"] = Rounding
NETS["own-patches"] = PATCHES
EXTRA_LOSSES["image"]["own-edges"] = Edges
