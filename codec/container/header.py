"""What stands at the beginning of a file: magic, version, header."""

from dataclasses import dataclass

from codec.container.chunks import varint
from codec.entropy import MAX_CODES
from codec.medium import MEDIA, SIZE_FIELDS, Medium, names

MAGIC = b"\x8dCDC\r\n\x1a\n"
MAJOR = 1
MINOR = 0  # of a file whose model has no prior, else 1
LAYERED = 2  # the minor version of a file with layers
FIRST_CHUNK = len(MAGIC) + 2  # offset in bytes
MAX_CHUNK_POSITIONS = 1 << 16
MAX_CHUNK_INDICES = 1 << 20  # all streams and codebooks of a chunk: 8 MiB once decoded
MAX_CODEBOOKS = 64
MODEL_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Header:
    """What a decoder has to know before the first index.

    Args:
        medium: A name in `codec.medium.MEDIA`, "speech" or "image".
        model_id: 16 bytes that name the model by a hash of its contents.
        codebook_size: The nominal K that the user asked for, such as 4096.
        num_codes: The real K, such as 4375; indices lie in [0, num_codes).
        num_codebooks: G, indices per position.
        channels: Channels of the original, which decoding restores. Audio channels are coded one
            after another, each as a stream of its own. A picture is one stream in any case: 3 for
            colour, 1 for greyscale.
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
        return min(
            MAX_CHUNK_POSITIONS, MAX_CHUNK_INDICES // (self.num_streams * self.num_codebooks)
        )


def header_payload(header: Header) -> bytes:
    fields = b"".join(varint(getattr(header, name)) for name in field_names(header.kind))
    return header.kind.letter + header.model_id + fields


def field_names(medium: Medium) -> tuple[str, ...]:
    """The numbers of a header, in their order in the file."""
    return ("codebook_size", "num_codes", "num_codebooks", "channels", *medium.size_fields)
