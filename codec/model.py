"""A codec: encoder -> bottleneck -> decoder.

It pads and crops, so that any size goes in and comes back.

    x (B, C, *N) ──pad, encoder──> z ──bottleneck──> indices (B, G, *S)
    indices, size ──bottleneck, decoder told K, crop──> x_hat (B, C, *N)

A configuration is plain data (it is stored in the model card), and `build` is the only way from it
to nets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, cast

from torch import Tensor

from codec import plugins
from codec.arguments import whole
from codec.bottleneck import Bottleneck, BottleneckOutput, Size
from codec.bottlenecks import BOTTLENECKS
from codec.errors import ModelError
from codec.medium import MEDIA, SAMPLE_RATE
from codec.nets import kinds
from codec.nets.blocks import stream
from codec.nets.kinds import LayeredDecoder, LayeredEncoder, Sizes
from codec.nets.speech import reflect_index
from codec.precision import Float32, exact_float32
from codec.tensors import check_tensor
from codec.windows import windows


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """What a codec is made of.

    Attributes:
        medium: A name in `codec.medium.MEDIA`: "speech" (16 kHz, one channel) or "image" (RGB in
            [0, 1]).
        nets: Sizes of encoder and decoder, as their kind has them.
        bottleneck: A key of `BOTTLENECKS`.
        options: Keyword arguments of that bottleneck.
        kind: A key of `codec.nets.NETS`; by default the medium's first.

    Raises:
        ValueError: No nets of that name, or not for this medium; or no such medium.
        TypeError: Sizes of another kind of nets.
    """

    medium: str
    nets: Sizes
    bottleneck: str
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""

    def __post_init__(self) -> None:
        plugins.load()
        kind = self.kind or kinds.default(self.medium)
        wanted = kinds.find(kind, self.medium).sizes
        if not isinstance(self.nets, wanted):
            raise TypeError(
                f"nets {kind!r} have sizes {wanted.__name__}, not {type(self.nets).__name__}"
            )
        object.__setattr__(self, "kind", kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data.

        The medium's default kind is left out, since identities of models are made of this.
        """
        data = asdict(self)
        if self.kind == kinds.default(self.medium):
            del data["kind"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CodecConfig:
        """The inverse of `to_dict`.

        Raises ValueError, TypeError or KeyError on data of another shape.
        """
        sizes: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data["nets"].items()
        }
        plugins.load()
        medium = data["medium"]
        kind = data.get("kind") or kinds.default(medium)
        nets = kinds.find(kind, medium).sizes(**sizes)
        return cls(medium, nets, data["bottleneck"], dict(data.get("options", {})), kind)


@dataclass(frozen=True, slots=True)
class CodecOutput:
    """x_hat (B, C, *N), and what the bottleneck returned."""

    x_hat: Tensor
    bottleneck: BottleneckOutput


class Codec(Float32):
    """Encoder, bottleneck and decoder of one medium, all float32: see `codec.precision`.

    Signals of any float type go in, and float32 comes out. Under autocast `forward` runs the nets
    in the lower precision that training wants; `encode` and `decode`, which make and read files,
    never do.

    Args:
        config: What it is made of.
        bottleneck: Its `in_dim` and `dim` decide what encoder and decoder have at their inner ends.

    Raises:
        ValueError: Nets of recordings that do not say their context.

    Attributes:
        medium: What it codes.
        stride: Signal positions per latent position, along each axis (96 samples, or 8 pixels).
        token_rate_hz: Latent frames per second of speech; None for pictures.
    """

    def __init__(self, config: CodecConfig, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.config = config
        self.bottleneck = bottleneck
        self.medium = MEDIA[config.medium]
        self.stride = config.nets.stride
        self.channels = self.medium.channels
        self.axes = self.medium.axes
        nets = kinds.find(config.kind, config.medium)
        if self.medium.timed and config.nets.context is None:
            raise ValueError(
                f"nets {config.kind!r} must say their context: {self.medium.name} passes in windows"
            )
        self.encoder = nets.encoder(config.nets, bottleneck.in_dim)
        self.decoder = nets.decoder(config.nets, bottleneck.dim)
        self.float()  # whatever the default dtype is

    @property
    def context(self) -> int:
        """Latent positions on either side that can influence one, at most.

        Windows must overlap by so many.
        """
        reach = self.config.nets.context
        if reach is None:
            raise TypeError(
                "these nets need no windows: signals pass in strips from layer to layer"
            )
        return reach

    @property
    def token_rate_hz(self) -> float | None:
        return SAMPLE_RATE / self.stride if self.medium.timed else None

    def forward(self, x: Tensor, codebook_size: Size = None) -> CodecOutput:
        """(B, C, *N) -> the reconstruction at the same size."""
        out = self.bottleneck(self.latents(x), codebook_size)
        size = self.bottleneck.default_size if codebook_size is None else codebook_size
        return CodecOutput(self._signal(out.z_q, size, tuple(x.shape[2:])), out)

    def encode(self, x: Tensor, codebook_size: int | None = None) -> Tensor:
        """(B, C, *N) -> (B, G, *S) int64; S = ceil(N / stride).

        Raises what `pad` and `Bottleneck.encode` do.
        """
        with exact_float32(check_tensor(x, "a signal").device):
            return self.bottleneck.encode(self.latents(x), codebook_size)

    def latents(self, x: Tensor) -> Tensor:
        """(B, C, *N) -> (B, D_in, *S), what the bottleneck gets.

        Raises what `pad` does, and ModelError for an encoder that gives another shape.
        """
        z: Tensor = self.encoder(self.pad(x))
        self._check("encoder", z, self.bottleneck.in_dim, self.grid(tuple(x.shape[2:])))
        return z

    def latents_of_rows(self, strips: Iterable[Tensor]) -> Iterator[Tensor]:
        """`latents` of a picture in strips of rows.

        (n, W, 3), n and W multiples of the stride -> (n / stride, W / stride, D_in).
        """
        if self.config.nets.context is None:
            yield from stream(cast(LayeredEncoder, self.encoder).layers(), strips)
            return
        yield from self._in_windows(lambda x: self.encoder(x), strips, self.stride, 1 / self.stride)

    def decode(
        self, indices: Tensor, size: tuple[int, ...] | int, codebook_size: int | None = None
    ) -> Tensor:
        """(B, G, *S) and the signal's size N -> (B, C, *N). One length may stand for its tuple.

        Raises TypeError for indices that are no tensor; ValueError for an empty one, for a size
        whose latent grid is not theirs, and for indices that `Bottleneck.decode` refuses.
        """
        indices = check_tensor(indices, "indices")
        lengths = size if isinstance(size, Iterable) else (size,)
        size = tuple(whole(length, "a length of the signal", 1) for length in lengths)
        grid = tuple(indices.shape[2:])
        if 0 in indices.shape or len(grid) != self.axes or self.grid(size) != grid:
            raise ValueError(
                f"want non-empty indices (B, G, *S) of {self.axes} axes and a signal that fills "
                "their grid: "
                f"got {tuple(indices.shape)} for a signal of {size} at a stride of {self.stride}"
            )
        with exact_float32(indices.device):
            z_q = self.bottleneck.decode(indices, codebook_size)
            return self._signal(z_q, self.bottleneck.check_size(codebook_size), size)

    def pixels_of_rows(self, strips: Iterable[Tensor], codebook_size: int) -> Iterator[Tensor]:
        """`decode` of a picture in strips of rows, (n, w, G) indices -> (8 n, 8 w, 3)."""
        grids = (strip.movedim(-1, 0)[None] for strip in strips)
        z_q = (
            self.bottleneck.decode(grid, codebook_size)[0].movedim(0, -1).contiguous()
            for grid in grids
        )
        if self.config.nets.context is None:
            yield from stream(cast(LayeredDecoder, self.decoder).layers(codebook_size, 1), z_q)
            return
        yield from self._in_windows(lambda z: self.decoder(z, codebook_size), z_q, 1, self.stride)

    def _in_windows(
        self, apply: Callable[[Tensor], Tensor], strips: Iterable[Tensor], unit: int, scale: float
    ) -> Iterator[Tensor]:
        """A net on overlapping windows of rows.

        `unit` rows are one of the latents, and `scale` rows come of each.
        """
        iterator = iter(strips)
        for first in iterator:  # all strips are as long, but for the last
            for window, left, count in windows(
                chain([first], iterator), len(first), self.context * unit
            ):
                rows = apply(window.movedim(-1, 0)[None].contiguous())[0].movedim(0, -1)
                yield rows[round(left * scale) : round((left + count) * scale)]

    def grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The latent grid S of a signal of size N."""
        return tuple(-(-n // self.stride) for n in size)

    def pad(self, x: Tensor) -> Tensor:
        """Reflects the end of each axis up to a multiple of the stride; float32.

        Raises:
            TypeError: x is no tensor.
            ValueError: x has another shape, is empty, or has no float type.
        """
        x = check_tensor(x, "a signal")
        if x.dim() != 2 + self.axes or x.shape[1] != self.channels or 0 in x.shape:
            raise ValueError(
                f"want a non-empty (B, {self.channels}, {self.medium.axes_text}), "
                f"got {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise ValueError(f"want floats ({self.medium.values}), got {x.dtype}")
        for axis in range(2, x.dim()):
            length = x.shape[axis]
            if missing := -length % self.stride:
                x = x.index_select(axis, reflect_index(length, 0, missing, x.device))
        return x.float()

    def _signal(self, z_q: Tensor, codebook_size: Size, size: tuple[int, ...]) -> Tensor:
        """What the decoder makes of (B, D, *S), cut to N.

        Raises ModelError for a decoder that gives another shape than the stride says.
        """
        x: Tensor = self.decoder(z_q, codebook_size)
        self._check("decoder", x, self.channels, tuple(n * self.stride for n in z_q.shape[2:]))
        for axis, length in enumerate(size, 2):
            x = x.narrow(axis, 0, length)
        return x

    def _check(self, net: str, x: Tensor, channels: int, size: tuple[int, ...]) -> None:
        if tuple(x.shape[1:]) != (channels, *size):
            raise ModelError(
                f"nets {self.config.kind!r}: the {net} gives {tuple(x.shape)}, and with a stride "
                f"of {self.stride} it must be {(len(x), channels, *size)}"
            )


def build(config: CodecConfig) -> Codec:
    """A codec with fresh weights.

    Raises ValueError for an unknown bottleneck, TypeError for its unknown options.
    """
    if config.bottleneck not in BOTTLENECKS:
        raise ValueError(
            f"unknown bottleneck {config.bottleneck!r}; choose from {sorted(BOTTLENECKS)}"
            f"{plugins.ADVICE}"
        )
    return Codec(config, BOTTLENECKS[config.bottleneck](**config.options))
