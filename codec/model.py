"""A codec: encoder -> bottleneck -> decoder, with padding and cropping so that any size goes in and comes back.

    x (B, C, *N) ──pad, encoder──> z ──bottleneck──> indices (B, G, *S)
    indices, size ──bottleneck, decoder told K, crop──> x_hat (B, C, *N)

A configuration is plain data (it is stored in the model card), and `build` is the only way from it to nets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from codec.bottleneck import Bottleneck, BottleneckOutput, Size
from codec.bottlenecks import BOTTLENECKS
from codec.medium import SAMPLE_RATE
from codec.nets.blocks import stream
from codec.nets.image import DOWNSAMPLING, ImageConfig, ImageDecoder, ImageEncoder
from codec.nets.speech import SpeechConfig, SpeechDecoder, SpeechEncoder, reflect_index
from codec.precision import Float32, exact_float32

# The presets of docs/methods/nets.md, by medium: tiny trains on a CPU in an hour, small is what a GPU trains.
PRESETS: dict[str, dict[str, SpeechConfig | ImageConfig]] = {
    "speech": {
        "tiny": SpeechConfig(),
        "small": SpeechConfig(encoder_dim=160, encoder_depth=4, decoder_dim=256, decoder_depth=6),
    },
    "image": {
        "tiny": ImageConfig(),
        "small": ImageConfig((64, 128), (2, 4), (160, 96, 48), (6, 4, 2)),
    },
}


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """What a codec is made of.

    Attributes:
        medium: A name in `codec.medium.MEDIA`: "speech" (16 kHz, one channel) or "image" (RGB in [0, 1]).
        nets: Sizes of encoder and decoder.
        bottleneck: A key of `BOTTLENECKS`.
        options: Keyword arguments of that bottleneck.
    """

    medium: str
    nets: SpeechConfig | ImageConfig
    bottleneck: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CodecConfig:
        """The inverse of `to_dict`. Raises ValueError, TypeError or KeyError on data of another shape."""
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data["nets"].items()}
        medium = data["medium"]
        if medium not in PRESETS:
            raise ValueError(f"unknown medium {medium!r}")
        nets = SpeechConfig(**sizes) if medium == "speech" else ImageConfig(**sizes)
        return cls(medium, nets, data["bottleneck"], dict(data.get("options", {})))


@dataclass(frozen=True, slots=True)
class CodecOutput:
    """x_hat (B, C, *N), and what the bottleneck returned."""

    x_hat: Tensor
    bottleneck: BottleneckOutput


class Codec(Float32):
    """Encoder, bottleneck and decoder of one medium, all float32: see `codec.precision`.

    Signals of any float type go in, and float32 comes out. Under autocast `forward` runs the nets in the lower
    precision that training wants; `encode` and `decode`, which make and read files, never do.

    Args:
        config: What it is made of.
        bottleneck: Its `in_dim` and `dim` decide what encoder and decoder have at their inner ends.

    Attributes:
        stride: Signal positions per latent position, along each axis (96 samples, or 8 pixels).
        token_rate_hz: Latent frames per second of speech; None for pictures.
    """

    def __init__(self, config: CodecConfig, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.config = config
        self.bottleneck = bottleneck
        self.encoder: nn.Module
        self.decoder: nn.Module
        if isinstance(config.nets, SpeechConfig):
            self.stride, self.channels, self.axes = config.nets.hop, 1, 1
            self.encoder = SpeechEncoder(config.nets, bottleneck.in_dim)
            self.decoder = SpeechDecoder(config.nets, bottleneck.dim)
        else:
            self.stride, self.channels, self.axes = DOWNSAMPLING, 3, 2
            self.encoder = ImageEncoder(config.nets, bottleneck.in_dim)
            self.decoder = ImageDecoder(config.nets, bottleneck.dim)
        self.float()  # whatever the default dtype is

    @property
    def context(self) -> int:
        """Frames of speech on either side that can influence one, at most: what windows must overlap by."""
        nets = self.config.nets
        if not isinstance(nets, SpeechConfig):
            raise TypeError("pictures need no windows: they pass in strips from layer to layer")
        frames = -(-nets.n_fft // (2 * nets.hop))  # STFT; each block reaches 3 further, the decoder's stem too
        return frames + 3 * max(nets.encoder_depth, nets.decoder_depth + 1)

    @property
    def token_rate_hz(self) -> float | None:
        return SAMPLE_RATE / self.stride if self.axes == 1 else None

    def forward(self, x: Tensor, codebook_size: Size = None) -> CodecOutput:
        """(B, C, *N) -> the reconstruction at the same size."""
        out = self.bottleneck(self.encoder(self.pad(x)), codebook_size)
        size = self.bottleneck.default_size if codebook_size is None else codebook_size
        return CodecOutput(self._crop(self.decoder(out.z_q, size), tuple(x.shape[2:])), out)

    def encode(self, x: Tensor, codebook_size: int | None = None) -> Tensor:
        """(B, C, *N) -> (B, G, *S) int64; S = ceil(N / stride)."""
        with exact_float32(x.device):
            return self.bottleneck.encode(self.latents(x), codebook_size)

    def latents(self, x: Tensor) -> Tensor:
        """(B, C, *N) -> (B, D_in, *S), what the bottleneck gets."""
        z: Tensor = self.encoder(self.pad(x))
        return z

    def latents_of_rows(self, strips: Iterable[Tensor]) -> Iterator[Tensor]:
        """`latents` of a picture in strips of rows, (n, W, 3), both multiples of the stride -> (n / 8, W / 8, D_in)."""
        return stream(cast(ImageEncoder, self.encoder).layers(), strips)

    def decode(self, indices: Tensor, size: tuple[int, ...], codebook_size: int | None = None) -> Tensor:
        """(B, G, *S) and the signal's size N -> (B, C, *N)."""
        with exact_float32(indices.device):
            z_q = self.bottleneck.decode(indices, codebook_size)
            return self._crop(self.decoder(z_q, self.bottleneck.check_size(codebook_size)), size)

    def pixels_of_rows(self, strips: Iterable[Tensor], codebook_size: int) -> Iterator[Tensor]:
        """`decode` of a picture in strips of rows, (n, w, G) indices -> (8 n, 8 w, 3)."""
        grids = (strip.movedim(-1, 0)[None] for strip in strips)
        z_q = (self.bottleneck.decode(grid, codebook_size)[0].movedim(0, -1).contiguous() for grid in grids)
        yield from stream(cast(ImageDecoder, self.decoder).layers(codebook_size, 1), z_q)

    def grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The latent grid S of a signal of size N."""
        return tuple(-(-n // self.stride) for n in size)

    def pad(self, x: Tensor) -> Tensor:
        """Reflects the end of each axis up to a multiple of the stride; float32.

        Raises:
            ValueError: x has another shape, is empty, or has no float type.
        """
        if x.dim() != 2 + self.axes or x.shape[1] != self.channels or 0 in x.shape:
            raise ValueError(
                f"want a non-empty (B, {self.channels}, {'T' if self.axes == 1 else 'H, W'}), got {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise ValueError(f"want floats ({'[-1, 1]' if self.axes == 1 else '[0, 1]'}), got {x.dtype}")
        for axis in range(2, x.dim()):
            length = x.shape[axis]
            if missing := -length % self.stride:
                x = x.index_select(axis, reflect_index(length, 0, missing, x.device))
        return x.float()

    @staticmethod
    def _crop(x: Tensor, size: tuple[int, ...]) -> Tensor:
        for axis, length in enumerate(size, 2):
            x = x.narrow(axis, 0, min(length, x.shape[axis]))
        return x


def build(config: CodecConfig) -> Codec:
    """A codec with fresh weights. Raises ValueError for an unknown bottleneck, TypeError for its unknown options."""
    if config.bottleneck not in BOTTLENECKS:
        raise ValueError(f"unknown bottleneck {config.bottleneck!r}; choose from {sorted(BOTTLENECKS)}")
    return Codec(config, BOTTLENECKS[config.bottleneck](**config.options))
