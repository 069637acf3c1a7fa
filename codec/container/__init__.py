"""The container, format version 1: what surrounds the encoded indices in a .bin file.

FORMAT.md gives every byte of it.

    magic | version | H header | D data | D data | ... | E end | layers, if any: see `codec.layers`
                                 └ n positions of every stream, decodable on its own
    chunk = type, varint length, payload, CRC-32

A chunk whose type is a capital letter must be understood; one in lower case may be skipped. Reading
and writing stream: memory is bounded by one chunk, nothing has to seek, nothing is allocated for a
declared size before its bytes come.

    indices ──> Writer.write ... Writer.finish ──> file ──> Reader.chunks ──> indices
                                                    └─────> scan ──> Summary (no model, no tables)

Shapes: A streams of indices (one per audio channel; one for a picture), G codebooks, K entries of
each, n positions.
"""

from codec.container.chunks import (
    CUT_SHORT,
    DAMAGED,
    MAX_CHUNK_BYTES,
    MAX_VARINT,
    PIECE_BYTES,
    Indices,
    Source,
    checksum_of,
    varint,
)
from codec.container.header import (
    FIRST_CHUNK,
    LAYERED,
    MAGIC,
    MAJOR,
    MAX_CHUNK_INDICES,
    MAX_CHUNK_POSITIONS,
    MAX_CODEBOOKS,
    MINOR,
    MODEL_ID_BYTES,
    Header,
)
from codec.container.limits import DEFAULT_LIMITS, IN_MEMORY, SAMPLES_PER_SECOND, Budget, Limits
from codec.container.payloads import Data, End, decode_data, parse_data, parse_end
from codec.container.reader import (
    NO_LIMITS,
    Reader,
    Summary,
    scan,
    scan_with_counts,
    unpack,
    unpack_all,
)
from codec.container.salvage import Salvage
from codec.container.writer import Writer, pack

__all__ = [
    "CUT_SHORT",
    "DAMAGED",
    "DEFAULT_LIMITS",
    "FIRST_CHUNK",
    "IN_MEMORY",
    "LAYERED",
    "MAGIC",
    "MAJOR",
    "MAX_CHUNK_BYTES",
    "MAX_CHUNK_INDICES",
    "MAX_CHUNK_POSITIONS",
    "MAX_CODEBOOKS",
    "MAX_VARINT",
    "MINOR",
    "MODEL_ID_BYTES",
    "NO_LIMITS",
    "PIECE_BYTES",
    "SAMPLES_PER_SECOND",
    "Budget",
    "Data",
    "End",
    "Header",
    "Indices",
    "Limits",
    "Reader",
    "Salvage",
    "Source",
    "Summary",
    "Writer",
    "checksum_of",
    "decode_data",
    "pack",
    "parse_data",
    "parse_end",
    "scan",
    "scan_with_counts",
    "unpack",
    "unpack_all",
    "varint",
]
