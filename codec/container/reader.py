"""Reading a file, chunk by chunk.

What is damaged, newer or larger than the limits allow is refused.
"""

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import numpy as np

from codec.container.chunks import (
    CUT_SHORT,
    DAMAGED,
    MAX_CHUNK_BYTES,
    MAX_VARINT,
    Chunk,
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
    MODEL_ID_BYTES,
    Header,
    field_names,
)
from codec.container.limits import DEFAULT_LIMITS, IN_MEMORY, Budget, Limits
from codec.container.payloads import Data, End, decode_data, parse_data, parse_end
from codec.entropy import NO_TABLES, Tables
from codec.errors import BitstreamError
from codec.medium import BY_LETTER

MAX_FORESEEN_CHUNKS = 1 << 20  # that are stepped over to find the end: a day of speech has 7200
NO_LIMITS = Limits(max_pixels=MAX_VARINT, max_seconds=MAX_VARINT, max_width=MAX_VARINT)


class Reader:
    """Reads one file, chunk by chunk; the header at once.

    Args:
        file: A binary file open for reading; it need not seek, and stays open. Where it does,
            `foresee` tells more.
        limits: Refuse anything larger.

    Attributes:
        header: The header.
        version: Major and minor version of the format.
        budget: What the limits leave to this file.
        source: What is read, whatever comes next.
        seal: CRC-32 of the last chunk read.

    Raises:
        BitstreamError: The file is not one of ours, is damaged, needs a newer version, or exceeds
            the limits.
        TypeError: `file` is none, but bytes or a path, say.
    """

    def __init__(self, file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> None:
        if not hasattr(file, "read"):
            raise TypeError(
                f"want an open binary file, not {type(file).__name__}; io.BytesIO(data) or "
                "open(path, 'rb') gives one"
            )
        self._file = file
        self.source = Source(file)
        self._end: End | None = None
        self._foreseen: End | None = None
        self._started = False
        self.version = _read_version(self.source)
        self.header = _parse_header(self._next_chunk(), limits)
        self.budget = Budget(limits, self.header)

    gaps: Sequence[tuple[int, int]] = ()  # a sound file has none; see `codec.container.salvage`

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self.source.offset

    @property
    def num_samples(self) -> int:
        """Samples per channel of the original recording, 0 for a picture.

        Known once all chunks are read.
        """
        return self._known_end().num_samples

    @property
    def num_positions(self) -> int:
        """Positions per stream in the whole file; known once all chunks are read."""
        return self._known_end().num_positions

    @property
    def finished(self) -> bool:
        """Whether the end chunk was read."""
        return self._end is not None

    def foresee(self) -> End | None:
        """What the end chunk declares, before anything is decoded.

        Chunks that hold more are refused from then on.

        Returns:
            None where the file does not seek or is damaged: reading it in order will tell where.
        """
        if self._file.seekable():
            here = self._file.tell()
            self._foreseen = find_end(self._file)
            self._file.seek(here)
        return self._foreseen

    def chunks(self, tables: Tables = NO_TABLES) -> Iterator[Indices]:
        """Decodes the data chunks in their order.

        After the last it checks that the file is complete and true.

        The indices of a chunk have passed the chunk's own CRC-32 when they are handed out; that the
        tables are the encoder's is certain only when the iterator ends without an error.

        Args:
            tables: The coder tables of the model that the header names.

        Yields:
            (A, G, n) int64, each in [0, num_codes).

        Raises:
            BitstreamError: As for the class; or the header does not fit the tables, or the index
                checksum is wrong.
            ValueError: The tables hold something else than frequencies, or the chunks were read
                before.
        """
        header, checksum = self.header, 0
        if not tables.fit(header.num_codebooks, header.num_codes):
            shape = (header.num_codebooks, header.num_codes)
            raise BitstreamError(
                f"the header's codebooks {shape} are not the model's; {DAMAGED}", FIRST_CHUNK
            )
        for data in self._data_chunks():
            indices = decode_data(data, header, tables)
            checksum = checksum_of(indices, checksum)
            yield indices
        end = self._known_end()
        if checksum != end.index_checksum:
            raise BitstreamError(
                "the index checksum does not match: chunks are out of order, "
                "or the model is not the encoder's",
                end.offset,
            )

    def _known_end(self) -> End:
        if self._end is None:
            raise ValueError("the end of the file is not read yet: exhaust chunks() first")
        return self._end

    def _data_chunks(self) -> Iterator[Data]:
        """Yields every data chunk undecoded; at the end all is checked but the index checksum."""
        if self._started:
            raise ValueError("the chunks of a reader can be read only once")
        self._started = True
        num_positions = 0
        while (chunk := self._next_chunk()).kind == ord("D"):
            data = parse_data(chunk.payload, chunk.offset, self.header)
            num_positions += data.count
            self.budget.spend_positions(data.count, chunk.offset)
            if self._foreseen is not None and num_positions > self._foreseen.num_positions:
                most = self._foreseen.num_positions
                message = (
                    f"the file holds {num_positions} or more positions but should hold {most}; "
                    f"{DAMAGED}"
                )
                raise BitstreamError(message, chunk.offset)
            yield data
        if chunk.kind != ord("E"):
            _refuse_order(chunk, "a data or end chunk")
        end = parse_end(chunk.payload, chunk.offset)
        if end.num_positions != num_positions:
            raise BitstreamError(
                f"the file holds {num_positions} positions but should hold {end.num_positions}; "
                f"{DAMAGED}",
                chunk.offset,
            )
        self._check_samples(end)
        if self.version[1] < LAYERED:  # else layers may follow, for who wants them
            self.source.expect_end("bytes follow the end chunk")
        self._end = end

    def _next_chunk(self) -> Chunk:
        """Reads the next chunk that has to be understood, its CRC-32 checked."""
        source = self.source
        while True:
            offset = source.offset
            kind = source.take(1, "the list of chunks")
            if not (kind.isascii() and kind.isalpha()):
                raise BitstreamError(f"{kind[0]:#04x} is not a chunk type; {DAMAGED}", offset)
            length = source.varint("a chunk length")
            if length > MAX_CHUNK_BYTES:
                raise BitstreamError(
                    f"a chunk declares {length} bytes, over the limit of {MAX_CHUNK_BYTES}; "
                    f"{DAMAGED}",
                    offset,
                )
            start = source.offset
            payload = source.take(length, f"a chunk of type {kind.decode()}")
            checksum = source.take(4, "the CRC-32 of a chunk")
            if zlib.crc32(kind + varint(length) + payload) != int.from_bytes(checksum, "big"):
                raise BitstreamError(
                    f"the CRC-32 of a chunk of type {kind.decode()} does not match; {DAMAGED}",
                    offset,
                )
            self.seal = checksum
            if kind.isupper():
                return Chunk(kind[0], offset, Source(io.BytesIO(payload), start, "chunk", DAMAGED))

    def _check_samples(self, end: End) -> None:
        if self.header.kind.timed:
            self.budget.check_samples(end.num_samples, end.offset)
        elif end.num_samples != 0:
            noun = self.header.kind.noun
            raise BitstreamError(
                f"{noun} declares {end.num_samples} audio samples; {DAMAGED}", end.offset
            )


@dataclass(frozen=True, slots=True)
class Summary:
    """What `scan` finds in a file.

    Args:
        header: The header.
        version: Major and minor version of the format.
        num_chunks: Data chunks.
        num_positions: Positions per stream, all chunks together.
        num_samples: Samples per channel of the original recording; 0 for a picture.
        payload_bytes: Encoded indices alone.
        file_bytes: The whole file, container included.
    """

    header: Header
    version: tuple[int, int]
    num_chunks: int
    num_positions: int
    num_samples: int
    payload_bytes: int
    file_bytes: int


def scan(file: BinaryIO) -> Summary:
    """Reads a whole file without its model.

    Every CRC-32 and count is checked, the index checksum cannot be.

    Constant memory, so there are no limits on the size of what the file would decode to.

    Raises:
        BitstreamError: The file is not one of ours, is damaged, or needs a newer version.
        TypeError: `file` is none, but bytes or a path, say.
    """
    return _scan(Reader(file, NO_LIMITS), lambda _: None)


def scan_with_counts(reader: Reader) -> tuple[Summary, list[int]]:
    """As `scan`, of a reader at its beginning; and the positions of every data chunk."""
    counts: list[int] = []
    return _scan(reader, counts.append), counts


def _scan(reader: Reader, seen: Callable[[int], None]) -> Summary:
    """Calls `seen` with the positions of each data chunk."""
    num_chunks = payload_bytes = 0
    for data in reader._data_chunks():
        seen(data.count)
        num_chunks += 1
        payload_bytes += data.num_bytes
    return Summary(
        header=reader.header,
        version=reader.version,
        num_chunks=num_chunks,
        num_positions=reader.num_positions,
        num_samples=reader.num_samples,
        payload_bytes=payload_bytes,
        file_bytes=reader.offset,
    )


def unpack(
    data: bytes, tables: Tables = NO_TABLES, limits: Limits = IN_MEMORY
) -> tuple[Header, Indices, int]:
    """Reads a whole file in memory.

    Args:
        data: The file.
        tables: The model's coder tables.
        limits: Refuse anything larger, and indices of more than `max_bytes`.

    Returns:
        The header, the indices (A, G, N) int64 of all chunks together, and the number of samples
        per channel.

    Raises:
        BitstreamError: As for `Reader`.
        MediaError: There are too many indices to hold them in memory.
    """
    return unpack_all(Reader(io.BytesIO(data), limits), tables)


def unpack_all(reader: Reader, tables: Tables = NO_TABLES) -> tuple[Header, Indices, int]:
    """What `unpack` gives, of a reader whose chunks are still to be read."""
    header = reader.header
    reader.foresee()
    parts: list[Indices] = [np.empty((header.num_streams, header.num_codebooks, 0), np.int64)]
    taken = 0
    for indices in reader.chunks(tables):
        taken += indices.nbytes
        reader.budget.check_bytes(taken)
        parts.append(indices)
    return header, np.concatenate(parts, axis=2), reader.num_samples


def find_end(file: BinaryIO) -> End | None:
    """The end chunk of a file that stands before a chunk.

    It is found by going from chunk to chunk, none of which is read but the last.
    """
    try:
        for _ in range(MAX_FORESEEN_CHUNKS):
            start = file.tell()
            head = Source(io.BytesIO(file.read(11)))
            kind, length = head.take(1, "a type"), head.varint("a length")
            file.seek(start + head.offset)
            if kind != b"E":
                file.seek(length + 4, io.SEEK_CUR)
            elif length > MAX_CHUNK_BYTES:
                return None
            else:
                payload, checksum = file.read(length), file.read(4)
                if zlib.crc32(kind + varint(length) + payload) != int.from_bytes(checksum, "big"):
                    return None
                return parse_end(Source(io.BytesIO(payload), start, "chunk"), start)
    except (BitstreamError, OverflowError, OSError, ValueError):
        # What cannot be sought is no length of a chunk.
        return None
    return None


def _read_version(source: Source) -> tuple[int, int]:
    """Reads magic and version, and says what it is that was found instead."""
    magic = source.take_up_to(len(MAGIC))
    if not magic:
        raise BitstreamError("the file is empty: compress again, or copy it again", 0)
    if magic != MAGIC:
        if MAGIC.startswith(magic):
            raise BitstreamError(
                f"the file ends inside its first {len(MAGIC)} bytes; {CUT_SHORT}", len(magic)
            )
        if b"CDC" in magic:
            raise BitstreamError(
                "the file was mangled by a text-mode transfer: copy it again in binary mode", 0
            )
        raise BitstreamError(
            "this is not a file made by codec: give it a .bin that codec.compress wrote", 0
        )
    major, minor = source.take(2, "the format version")
    if major != MAJOR:
        message = (
            f"format version {major} was made by a newer codec "
            f"(this one reads version {MAJOR}): upgrade codec"
        )
        raise BitstreamError(message, len(MAGIC))
    return major, minor


def _refuse_order(chunk: Chunk, expected: str) -> NoReturn:
    kind = chr(chunk.kind)
    if kind in "HDE":
        raise BitstreamError(
            f"a chunk of type {kind} stands where {expected} belongs; {DAMAGED}", chunk.offset
        )
    raise BitstreamError(
        f"a chunk of type {kind} needs a newer version of codec: upgrade it", chunk.offset
    )


def _parse_header(chunk: Chunk, limits: Limits) -> Header:
    if chunk.kind != ord("H"):
        _refuse_order(chunk, "the header")
    if chunk.offset != FIRST_CHUNK:
        raise BitstreamError(f"a chunk stands before the header; {DAMAGED}", FIRST_CHUNK)
    payload = chunk.payload
    letter = payload.take(1, "the medium")
    medium = BY_LETTER.get(letter)
    if medium is None:
        raise BitstreamError(
            f"medium {letter[0]:#04x} needs a newer version of codec: upgrade it", chunk.offset
        )
    model_id = payload.take(MODEL_ID_BYTES, "the model id")
    fields = {name: payload.varint(name) for name in field_names(medium)}
    payload.expect_end("bytes follow the header fields")
    try:
        header = Header(medium.name, model_id, **fields)
    except ValueError as error:
        raise BitstreamError(f"the header is invalid: {error}; {DAMAGED}", chunk.offset) from None
    if header.height * header.width > limits.max_pixels:
        raise BitstreamError(
            f"the picture is {header.width} x {header.height} pixels, "
            f"over the limit of {limits.max_pixels}: "
            "raise --max-pixels if you trust the file",
            chunk.offset,
        )
    if header.width > limits.max_width:
        raise BitstreamError(
            f"the picture is {header.width} pixels wide, over the limit of {limits.max_width}",
            chunk.offset,
        )
    return header
