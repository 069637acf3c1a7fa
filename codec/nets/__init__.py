"""Encoders and decoders.

They know nothing of bottlenecks; `codec.model` puts one between the two.
"""

from codec.nets.kinds import NETS, Nets

__all__ = ["NETS", "Nets"]
