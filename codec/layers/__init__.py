"""Layers: a file that can be cut to a coarser codebook.

It holds its indices at a coarse codebook first, then what refines them.

    magic | 1.2 | H | D | D | E | M P P | M P P | M P P       two chunks of data, three refinements
                  └ base, K = 256 ┘  1024    4096    16384

Up to and with `E` this is a file of the base alone. Every layer after it has a piece for each data
chunk, with the same positions: 6 bytes and what it holds, since the layer says once what all have
in common, and a piece only by how much it is shorter than fixed width. The CRC-32 of a piece begins
with that of the piece before it, so each proves all that it stands on. Cutting such a file anywhere
behind a layer leaves a file, and no model is needed for that. Where the last layers are damaged or
cut in the middle, those below them decode.

    indices at the finest K ──LayerWriter──> file
    file ──Reader, Layered──> indices at the finest whole layer, or a coarser
         └──survey──> Survey ──cut──> file up to a layer

Shapes: A streams of indices, n positions of a chunk; one codebook. M children of a code in the next
finer codebook.
"""

from codec.layers.bytes import Layer, Survey, cut, survey
from codec.layers.decoding import Layered, refine
from codec.layers.writer import LayerWriter, ladder

__all__ = ["Layer", "LayerWriter", "Layered", "Survey", "cut", "ladder", "refine", "survey"]
