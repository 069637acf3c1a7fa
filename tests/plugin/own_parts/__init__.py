"""A package of somebody's own: importing it registers a bottleneck and nets. tests/test_plugins.py
uses both.
"""

from codec.bottlenecks import BOTTLENECKS
from codec.nets import NETS
from own_parts.patches import PATCHES
from own_parts.rounding import Rounding

BOTTLENECKS["own-rounding"] = Rounding
NETS["own-patches"] = PATCHES
