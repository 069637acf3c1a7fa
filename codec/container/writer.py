"""Writing a file, chunk by chunk."""

import io
import zlib
from typing import BinaryIO

from codec.container.chunks import Indices, checksum_of, varint
from codec.container.header import MAGIC, MAJOR, MINOR, Header, header_payload
from codec.entropy import NO_TABLES, Tables, encode_indices
from codec.entropy.mixing import columns_of


class Writer:
    """Writes one file, chunk by chunk.

    Args:
        file: A buffered binary file open for writing; it need not seek, and stays open.
        header: Written at once.
        tables: The model's coder tables.
        minor: Version that the file is of, where that is not only a matter of the coders.

    Attributes:
        total_bytes: Bytes written so far.
        payload_bytes: Those of them that are encoded indices, not container.
        seal: CRC-32 of the last chunk.
    """

    def __init__(
        self, file: BinaryIO, header: Header, tables: Tables = NO_TABLES, minor: int | None = None
    ) -> None:
        self.total_bytes = 0
        self.payload_bytes = 0
        self.seal = b""
        self._file = file
        self._header = header
        self._tables = tables
        self._num_positions = 0
        self._index_checksum = 0
        self._finished = False
        if minor is None:
            minor = MINOR if tables.prior is None else MINOR + 1
        self._put(MAGIC + bytes([MAJOR, minor]))
        self._put_chunk(b"H", header_payload(header))

    def write(self, indices: Indices) -> None:
        """Appends positions, as one chunk or as many as their number takes.

        Args:
            indices: (A, G, n) integers, each in [0, num_codes).

        Raises:
            ValueError: The shape, type or range is wrong, or the file is finished.
        """
        for piece in self.pieces(indices):
            self._write_chunk(piece)

    def pieces(self, indices: Indices) -> list[Indices]:
        """What `write` makes a chunk each of. Raises ValueError as it does."""
        header = self._header
        if self._finished:
            raise ValueError("the file is finished: nothing can be added")
        if indices.ndim != 3 or indices.shape[:2] != (header.num_streams, header.num_codebooks):
            expected = f"({header.num_streams}, {header.num_codebooks}, n)"
            raise ValueError(f"indices must have shape {expected}, not {indices.shape}")
        step = header.max_chunk_positions
        if self._tables.prior is not None:  # whole rows, since a chunk is taken to start one
            columns = columns_of(self._tables.prior, header.width, 1)
            step -= step % min(columns, step)
        return [indices[:, :, start : start + step] for start in range(0, indices.shape[2], step)]

    def finish(self, num_samples: int = 0) -> None:
        """Writes the end chunk; without it a file counts as cut short.

        Args:
            num_samples: Samples per channel of the original recording; 0 for a picture, whose size
                the header has.

        Raises:
            ValueError: The file is finished already, or the number is out of range.
        """
        if self._finished:
            raise ValueError("the file is finished already")
        if not self._header.kind.timed and num_samples != 0:
            raise ValueError(
                f"num_samples of {self._header.kind.noun} must be 0, not {num_samples}"
            )
        checksum = self._index_checksum.to_bytes(4, "big")
        self._put_chunk(b"E", varint(num_samples) + varint(self._num_positions) + checksum)
        self._finished = True

    def _write_chunk(self, indices: Indices) -> None:
        header = self._header
        encoded = [
            encode_indices(stream, header.num_codes, self._tables, header.width)
            for stream in indices
        ]
        count = indices.shape[2]
        self._put_chunk(
            b"D", varint(count) + b"".join(varint(len(data)) + data for data in encoded)
        )
        self.payload_bytes += sum(map(len, encoded))
        self._num_positions += count
        self._index_checksum = checksum_of(indices, self._index_checksum)

    def _put_chunk(self, kind: bytes, payload: bytes) -> None:
        body = kind + varint(len(payload)) + payload
        self.seal = zlib.crc32(body).to_bytes(4, "big")
        self._put(body + self.seal)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.total_bytes += len(data)


def pack(
    header: Header, indices: Indices, num_samples: int = 0, tables: Tables = NO_TABLES
) -> bytes:
    """Makes a whole file in memory.

    The arguments are those of `Writer`, `Writer.write` and `Writer.finish`.
    """
    file = io.BytesIO()
    writer = Writer(file, header, tables)
    writer.write(indices)
    writer.finish(num_samples)
    return file.getvalue()
