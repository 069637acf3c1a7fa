"""The container, format version 1: what surrounds the encoded indices in a .bin file. FORMAT.md gives every byte of it.

    magic | version | H header | D data | D data | ... | E end | layers, if any: see `codec.layers`
                                 └ n positions of every stream, decodable on its own
    chunk = type, varint length, payload, CRC-32

A chunk whose type is a capital letter must be understood; one in lower case may be skipped. Reading and writing stream:
memory is bounded by one chunk, nothing has to seek, nothing is allocated for a declared size before its bytes come.

    indices ──> Writer.write ... Writer.finish ──> file ──> Reader.chunks ──> indices
                                                    └─────> scan ──> Summary (no model, no tables)

Shapes: A streams of indices (one per audio channel; one for a picture), G codebooks, K entries of each, n positions.
"""

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from codec.entropy import MAX_CODES, NO_TABLES, Tables, decode_indices, encode_indices, max_encoded_size
from codec.entropy.mixing import columns_of
from codec.errors import BitstreamError
from codec.limits import DEFAULT_LIMITS, IN_MEMORY, Budget, Limits
from codec.medium import BY_LETTER, MEDIA, SIZE_FIELDS, Medium, names

MAGIC = b"\x8dCDC\r\n\x1a\n"
MAJOR = 1
MINOR = 0  # of a file whose model has no prior, else 1
LAYERED = 2  # the minor version of a file with layers
FIRST_CHUNK = len(MAGIC) + 2  # offset in bytes

MAX_CHUNK_POSITIONS = 1 << 16
MAX_CHUNK_INDICES = 1 << 20  # all streams and codebooks of a chunk: 8 MiB once decoded
MAX_CHUNK_BYTES = 1 << 22  # the longest data chunk has 3 bytes per index and 6 more per stream
MAX_CODEBOOKS = 64
MAX_VARINT = (1 << 64) - 1

MODEL_ID_BYTES = 16
MAX_FORESEEN_CHUNKS = 1 << 20  # that are stepped over to find the end: a day of speech has 7200
PIECE_BYTES = 1 << 16  # a declared length is read in pieces of this size
DAMAGED = "the file is damaged: copy it again"
CUT_SHORT = "it was cut short: copy it again"

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Header:
    """What a decoder has to know before the first index.

    Args:
        medium: A name in `codec.medium.MEDIA`, "speech" or "image".
        model_id: 16 bytes that name the model by a hash of its contents.
        codebook_size: The nominal K that the user asked for, such as 4096.
        num_codes: The real K, such as 4375; indices lie in [0, num_codes).
        num_codebooks: G, indices per position.
        channels: Channels of the original, which decoding restores. Audio channels are coded one after another, each
            as a stream of its own. A picture is one stream in any case: 3 for colour, 1 for greyscale.
        sample_rate: Of the original recording in Hz; 0 for a picture.
        height: Of the original picture in pixels; 0 for speech.
        width: As height.

    Raises:
        ValueError: A field is out of its range.
    """

    medium: str
    model_id: bytes
    codebook_size: int
    num_codes: int
    num_codebooks: int = 1
    channels: int = 1
    sample_rate: int = 0
    height: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        if self.medium not in MEDIA:
            raise ValueError(f"medium must be one of {names()}, not {self.medium!r}")
        if len(self.model_id) != MODEL_ID_BYTES:
            raise ValueError(f"model_id must be {MODEL_ID_BYTES} bytes, not {len(self.model_id)}")
        ranges = {
            "codebook_size": (1, MAX_CODES),
            "num_codes": (1, MAX_CODES),
            "num_codebooks": (1, MAX_CODEBOOKS),
            "channels": (min(self.kind.channel_counts), max(self.kind.channel_counts)),
        }
        ranges |= dict.fromkeys(SIZE_FIELDS, (0, 0)) | dict(self.kind.size_fields)
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} of {self.medium} must be in {low} to {high}, not {value}")
        if self.channels not in self.kind.channel_counts:
            counts = " or ".join(map(str, self.kind.channel_counts))
            raise ValueError(f"channels of {self.medium} must be {counts}, not {self.channels}")

    @property
    def kind(self) -> Medium:
        """The medium as an object."""
        return MEDIA[self.medium]

    @property
    def num_streams(self) -> int:
        """A, streams of indices in every chunk: the audio channels, or 1 for a picture."""
        return self.kind.num_streams(self.channels)

    @property
    def max_chunk_positions(self) -> int:
        """The most positions that one data chunk may hold."""
        return min(MAX_CHUNK_POSITIONS, MAX_CHUNK_INDICES // (self.num_streams * self.num_codebooks))


NO_LIMITS = Limits(max_pixels=MAX_VARINT, max_seconds=MAX_VARINT, max_width=MAX_VARINT)


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


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, the top bit set on all bytes but the last."""
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"a varint must be in 0 to 2**64 - 1, not {value}")
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def checksum_of(indices: Indices, value: int = 0) -> int:
    """Continues the index checksum: CRC-32 of (A, G, n) indices as big-endian u32."""
    return zlib.crc32(indices.astype(">u4").tobytes(), value)


def _header_payload(header: Header) -> bytes:
    fields = b"".join(varint(getattr(header, name)) for name in _field_names(header.kind))
    return header.kind.letter + header.model_id + fields


def _field_names(medium: Medium) -> tuple[str, ...]:
    """The numbers of a header, in their order in the file."""
    return ("codebook_size", "num_codes", "num_codebooks", "channels", *medium.size_fields)


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

    def __init__(self, file: BinaryIO, header: Header, tables: Tables = NO_TABLES, minor: int | None = None) -> None:
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
        self._put_chunk(b"H", _header_payload(header))

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
            num_samples: Samples per channel of the original recording; 0 for a picture, whose size the header has.

        Raises:
            ValueError: The file is finished already, or the number is out of range.
        """
        if self._finished:
            raise ValueError("the file is finished already")
        if not self._header.kind.timed and num_samples != 0:
            raise ValueError(f"num_samples of {self._header.kind.noun} must be 0, not {num_samples}")
        checksum = self._index_checksum.to_bytes(4, "big")
        self._put_chunk(b"E", varint(num_samples) + varint(self._num_positions) + checksum)
        self._finished = True

    def _write_chunk(self, indices: Indices) -> None:
        header = self._header
        encoded = [encode_indices(stream, header.num_codes, self._tables, header.width) for stream in indices]
        count = indices.shape[2]
        self._put_chunk(b"D", varint(count) + b"".join(varint(len(data)) + data for data in encoded))
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


class Source:
    """Reads exactly what is asked for, and knows its offset in the file for the error messages.

    Args:
        file: A binary file, or the payload of a chunk wrapped into one.
        offset: Where in the file it starts.
        name: What it is, for messages.
        ending: What to say if it ends too early.
    """

    def __init__(self, file: BinaryIO, offset: int = 0, name: str = "file", ending: str = CUT_SHORT) -> None:
        self.offset = offset
        self._file = file
        self._name = name
        self._ending = ending

    def take_up_to(self, length: int) -> bytes:
        """Reads `length` bytes, or fewer at the end; never allocates much more than there are."""
        data = bytearray()
        while len(data) < length and (piece := self._file.read(min(length - len(data), PIECE_BYTES))):
            data += piece
        self.offset += len(data)
        return bytes(data)

    def take(self, length: int, what: str) -> bytes:
        """Reads exactly `length` bytes; `what` names them in the error."""
        data = self.take_up_to(length)
        if len(data) < length:
            raise BitstreamError(f"the {self._name} ends inside {what}; {self._ending}", self.offset)
        return data

    def varint(self, what: str) -> int:
        """Reads a varint, the one shortest form of a number below 2**64."""
        start, value = self.offset, 0
        for shift in range(0, 70, 7):
            octet = self.take(1, what)[0]
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value > MAX_VARINT or (octet == 0 and shift > 0):
                    break
                return value
        raise BitstreamError(f"{what} is not a valid varint; {DAMAGED}", start)

    def expect_end(self, what: str) -> None:
        """Refuses anything more."""
        offset = self.offset
        if self.take_up_to(1):
            raise BitstreamError(f"{what}; remove them or copy the file again", offset)


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: int
    offset: int  # of the type byte
    payload: Source


@dataclass(frozen=True, slots=True)
class Data:
    """A data chunk before its indices are decoded: one byte string per stream, with the offset of each."""

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


class Reader:
    """Reads one file, chunk by chunk; the header at once.

    Args:
        file: A binary file open for reading; it need not seek, and stays open. Where it does, `foresee` tells more.
        limits: Refuse anything larger.

    Attributes:
        header: The header.
        version: Major and minor version of the format.
        budget: What the limits leave to this file.
        source: What is read, whatever comes next.
        seal: CRC-32 of the last chunk read.

    Raises:
        BitstreamError: The file is not one of ours, is damaged, needs a newer version, or exceeds the limits.
    """

    def __init__(self, file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> None:
        self._file = file
        self.source = Source(file)
        self._end: End | None = None
        self._foreseen: End | None = None
        self._started = False
        self.version = _read_version(self.source)
        self.header = _parse_header(self._next_chunk(), limits)
        self.budget = Budget(limits, self.header)

    gaps: Sequence[tuple[int, int]] = ()  # a sound file has none; see `codec.salvage`

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self.source.offset

    @property
    def num_samples(self) -> int:
        """Samples per channel of the original recording, 0 for a picture; known once all chunks are read."""
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
        """What the end chunk declares, before anything is decoded; chunks that hold more are refused from then on.

        Returns:
            None where the file does not seek or is damaged: reading it in order will tell where.
        """
        if self._file.seekable():
            here = self._file.tell()
            self._foreseen = _find_end(self._file)
            self._file.seek(here)
        return self._foreseen

    def chunks(self, tables: Tables = NO_TABLES) -> Iterator[Indices]:
        """Decodes the data chunks in their order, and checks after the last that the file is complete and true.

        The indices of a chunk have passed the chunk's own CRC-32 when they are handed out; that the tables are the
        encoder's is certain only when the iterator ends without an error.

        Args:
            tables: The coder tables of the model that the header names.

        Yields:
            (A, G, n) int64, each in [0, num_codes).

        Raises:
            BitstreamError: As for the class; or the header does not fit the tables, or the index checksum is wrong.
            ValueError: The tables hold something else than frequencies, or the chunks were read before.
        """
        header, checksum = self.header, 0
        if not tables.fit(header.num_codebooks, header.num_codes):
            shape = (header.num_codebooks, header.num_codes)
            raise BitstreamError(f"the header's codebooks {shape} are not the model's; {DAMAGED}", FIRST_CHUNK)
        for data in self._data_chunks():
            indices = decode_data(data, header, tables)
            checksum = checksum_of(indices, checksum)
            yield indices
        end = self._known_end()
        if checksum != end.index_checksum:
            raise BitstreamError(
                "the index checksum does not match: chunks are out of order, or the model is not the encoder's",
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
                message = f"the file holds {num_positions} or more positions but should hold {most}; {DAMAGED}"
                raise BitstreamError(message, chunk.offset)
            yield data
        if chunk.kind != ord("E"):
            _refuse_order(chunk, "a data or end chunk")
        end = parse_end(chunk.payload, chunk.offset)
        if end.num_positions != num_positions:
            raise BitstreamError(
                f"the file holds {num_positions} positions but should hold {end.num_positions}; {DAMAGED}", chunk.offset
            )
        self._check_samples(end)
        if self.version[1] < LAYERED:  # else layers may follow, for who wants them
            self.source.expect_end("bytes follow the end chunk")
        self._end = end

    def _next_chunk(self) -> _Chunk:
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
                    f"a chunk declares {length} bytes, over the limit of {MAX_CHUNK_BYTES}; {DAMAGED}", offset
                )
            start = source.offset
            payload = source.take(length, f"a chunk of type {kind.decode()}")
            checksum = source.take(4, "the CRC-32 of a chunk")
            if zlib.crc32(kind + varint(length) + payload) != int.from_bytes(checksum, "big"):
                raise BitstreamError(f"the CRC-32 of a chunk of type {kind.decode()} does not match; {DAMAGED}", offset)
            self.seal = checksum
            if kind.isupper():
                return _Chunk(kind[0], offset, Source(io.BytesIO(payload), start, "chunk", DAMAGED))

    def _check_samples(self, end: End) -> None:
        if self.header.kind.timed:
            self.budget.check_samples(end.num_samples, end.offset)
        elif end.num_samples != 0:
            noun = self.header.kind.noun
            raise BitstreamError(f"{noun} declares {end.num_samples} audio samples; {DAMAGED}", end.offset)


def _find_end(file: BinaryIO) -> End | None:
    """The end chunk of a file that stands before a chunk; from chunk to chunk, none of which is read but the last."""
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
    except (BitstreamError, OverflowError, OSError, ValueError):  # what cannot be sought is no length of a chunk
        return None
    return None


def _read_version(source: Source) -> tuple[int, int]:
    """Reads magic and version, and says what it is that was found instead."""
    magic = source.take_up_to(len(MAGIC))
    if not magic:
        raise BitstreamError("the file is empty: compress again, or copy it again", 0)
    if magic != MAGIC:
        if MAGIC.startswith(magic):
            raise BitstreamError(f"the file ends inside its first {len(MAGIC)} bytes; {CUT_SHORT}", len(magic))
        if b"CDC" in magic:
            raise BitstreamError("the file was mangled by a text-mode transfer: copy it again in binary mode", 0)
        raise BitstreamError("this is not a file made by codec: give it a .bin that codec.compress wrote", 0)
    major, minor = source.take(2, "the format version")
    if major != MAJOR:
        message = f"format version {major} was made by a newer codec (this one reads version {MAJOR}): upgrade codec"
        raise BitstreamError(message, len(MAGIC))
    return major, minor


def _refuse_order(chunk: _Chunk, expected: str) -> NoReturn:
    kind = chr(chunk.kind)
    if kind in "HDE":
        raise BitstreamError(f"a chunk of type {kind} stands where {expected} belongs; {DAMAGED}", chunk.offset)
    raise BitstreamError(f"a chunk of type {kind} needs a newer version of codec: upgrade it", chunk.offset)


def _parse_header(chunk: _Chunk, limits: Limits) -> Header:
    if chunk.kind != ord("H"):
        _refuse_order(chunk, "the header")
    if chunk.offset != FIRST_CHUNK:
        raise BitstreamError(f"a chunk stands before the header; {DAMAGED}", FIRST_CHUNK)
    payload = chunk.payload
    letter = payload.take(1, "the medium")
    medium = BY_LETTER.get(letter)
    if medium is None:
        raise BitstreamError(f"medium {letter[0]:#04x} needs a newer version of codec: upgrade it", chunk.offset)
    model_id = payload.take(MODEL_ID_BYTES, "the model id")
    fields = {name: payload.varint(name) for name in _field_names(medium)}
    payload.expect_end("bytes follow the header fields")
    try:
        header = Header(medium.name, model_id, **fields)
    except ValueError as error:
        raise BitstreamError(f"the header is invalid: {error}; {DAMAGED}", chunk.offset) from None
    if header.height * header.width > limits.max_pixels:
        raise BitstreamError(
            f"the picture is {header.width} x {header.height} pixels, over the limit of {limits.max_pixels}: "
            "raise --max-pixels if you trust the file",
            chunk.offset,
        )
    if header.width > limits.max_width:
        raise BitstreamError(
            f"the picture is {header.width} pixels wide, over the limit of {limits.max_width}", chunk.offset
        )
    return header


def decode_data(data: Data, header: Header, tables: Tables) -> Indices:
    """The indices of a data chunk, (A, G, n) int64. Raises BitstreamError where a coder finds damage."""
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
            f"a data chunk declares {count} positions, not 1 to {header.max_chunk_positions}; {DAMAGED}", offset
        )
    longest = max_encoded_size(header.num_codebooks * count, header.num_codes)
    streams = []
    for _ in range(header.num_streams):
        length = payload.varint("the length of encoded indices")
        if not 1 <= length <= longest:
            raise BitstreamError(f"{length} bytes of encoded indices, not 1 to {longest}; {DAMAGED}", offset)
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


def scan(file: BinaryIO) -> Summary:
    """Reads a whole file without its model: every CRC-32 and count is checked, the index checksum cannot be.

    Constant memory, so there are no limits on the size of what the file would decode to.

    Raises:
        BitstreamError: The file is not one of ours, is damaged, or needs a newer version.
    """
    return scan_with_counts(Reader(file, NO_LIMITS))[0]


def scan_with_counts(reader: Reader) -> tuple[Summary, list[int]]:
    """As `scan`, of a reader at its beginning; and the positions of every data chunk."""
    counts: list[int] = []
    payload_bytes = 0
    for data in reader._data_chunks():
        counts.append(data.count)
        payload_bytes += data.num_bytes
    summary = Summary(
        header=reader.header,
        version=reader.version,
        num_chunks=len(counts),
        num_positions=reader.num_positions,
        num_samples=reader.num_samples,
        payload_bytes=payload_bytes,
        file_bytes=reader.offset,
    )
    return summary, counts


def pack(header: Header, indices: Indices, num_samples: int = 0, tables: Tables = NO_TABLES) -> bytes:
    """Makes a whole file in memory; the arguments are those of `Writer`, `Writer.write` and `Writer.finish`."""
    file = io.BytesIO()
    writer = Writer(file, header, tables)
    writer.write(indices)
    writer.finish(num_samples)
    return file.getvalue()


def unpack(data: bytes, tables: Tables = NO_TABLES, limits: Limits = IN_MEMORY) -> tuple[Header, Indices, int]:
    """Reads a whole file in memory.

    Args:
        data: The file.
        tables: The model's coder tables.
        limits: Refuse anything larger, and indices of more than `max_bytes`.

    Returns:
        The header, the indices (A, G, N) int64 of all chunks together, and the number of samples per channel.

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
