"""The payloads of data chunks and of the end chunk."""

from dataclasses import dataclass

import numpy as np

from codec.container.chunks import DAMAGED, Indices, Source
from codec.container.header import Header
from codec.entropy import Tables, decode_indices, max_encoded_size
from codec.errors import BitstreamError


@dataclass(frozen=True, slots=True)
class Data:
    """A data chunk before its indices are decoded.

    It has one byte string per stream, with the offset of each.
    """

    count: int
    streams: list[tuple[int, bytes]]

    @property
    def num_bytes(self) -> int:
        """Encoded indices alone."""
        return sum(len(encoded) for _, encoded in self.streams)


@dataclass(frozen=True, slots=True)
class End:
    """What the end chunk says."""

    offset: int
    num_samples: int
    num_positions: int
    index_checksum: int


def decode_data(data: Data, header: Header, tables: Tables) -> Indices:
    """The indices of a data chunk, (A, G, n) int64.

    Raises BitstreamError where a coder finds damage.
    """
    indices = np.empty((header.num_streams, header.num_codebooks, data.count), np.int64)
    for stream, (offset, encoded) in zip(indices, data.streams, strict=True):
        try:
            stream[:] = decode_indices(
                encoded, header.num_codebooks, data.count, header.num_codes, tables, header.width
            )
        except BitstreamError as error:
            raise BitstreamError(str(error), offset) from None
    return indices


def parse_data(payload: Source, offset: int, header: Header) -> Data:
    """A data chunk's payload; `offset` is the chunk's, for messages."""
    count = payload.varint("the number of positions")
    if not 1 <= count <= header.max_chunk_positions:
        raise BitstreamError(
            f"a data chunk declares {count} positions, not 1 to {header.max_chunk_positions}; "
            f"{DAMAGED}",
            offset,
        )
    longest = max_encoded_size(header.num_codebooks * count, header.num_codes)
    streams = []
    for _ in range(header.num_streams):
        length = payload.varint("the length of encoded indices")
        if not 1 <= length <= longest:
            raise BitstreamError(
                f"{length} bytes of encoded indices, not 1 to {longest}; {DAMAGED}", offset
            )
        streams.append((payload.offset, payload.take(length, "encoded indices")))
    payload.expect_end("bytes follow the encoded indices")
    return Data(count, streams)


def parse_end(payload: Source, offset: int) -> End:
    """An end chunk's payload; `offset` is the chunk's, for messages."""
    num_samples = payload.varint("the number of samples")
    num_positions = payload.varint("the number of positions")
    index_checksum = int.from_bytes(payload.take(4, "the index checksum"), "big")
    payload.expect_end("bytes follow the index checksum")
    return End(offset, num_samples, num_positions, index_checksum)
