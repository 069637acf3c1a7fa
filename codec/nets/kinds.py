"""What a codec asks of its nets, whichever they are, and the table of those there are.

A kind of nets is an entry of `NETS`: an encoder and a decoder of one medium, the sizes they come
in, and named presets. Models name it in their card ("kind"), recipes in `codec.kind`; where neither
does, it is `default(medium)`.

    sizes      a frozen dataclass of plain numbers; `stride` and `context` say how the nets cut and
               see a signal
    encoder    encoder(sizes, out_dim): (B, C, *N), N multiples of the stride
               -> (B, out_dim, *S), S = N / stride
    decoder    decoder(sizes, in_dim): (B, in_dim, *S) and the codebook size -> (B, C, *N)

Long signals pass in parts. Nets whose `context` is a number work on windows that overlap by so
much. Those of pictures may instead have None and give `layers`, as `codec.nets.image` does: then
strips of rows pass from layer to layer, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from codec import plugins
from codec.medium import IMAGE, SPEECH
from codec.nets.blocks import Layer
from codec.nets.image import ImageConfig, ImageDecoder, ImageEncoder
from codec.nets.speech import SpeechConfig, SpeechDecoder, SpeechEncoder


class Sizes(Protocol):
    """Sizes of encoder and decoder: a frozen dataclass, whose fields are what a card holds."""

    @property
    def stride(self) -> int:
        """Signal positions per latent position, along each axis."""
        ...

    @property
    def context(self) -> int | None:
        """Latent positions on either side that can influence one, at most, in encoder and decoder.

        None with layers.
        """
        ...


class LayeredEncoder(Protocol):
    """An encoder of pictures that works in strips of rows."""

    def layers(self) -> Sequence[Layer]:
        """(B, H, W, C) -> (B, H / stride, W / stride, out_dim)."""
        ...


class LayeredDecoder(Protocol):
    """A decoder of pictures that works in strips of rows."""

    def layers(self, codebook_size: int | Tensor, batch: int) -> Sequence[Layer]:
        """(B, h, w, in_dim) -> (B, stride h, stride w, C)."""
        ...


@dataclass(frozen=True, slots=True)
class Nets:
    """A kind of nets.

    Attributes:
        medium: The name of what they are for, in `codec.medium.MEDIA`.
        sizes: The dataclass of their sizes, see `Sizes`.
        encoder: Sizes and the bottleneck's `in_dim` -> the encoder.
        decoder: Sizes and the bottleneck's `dim` -> the decoder.
        presets: Name -> sizes, for recipes.
    """

    medium: str
    sizes: type[Any]
    encoder: Callable[[Any, int], nn.Module]
    decoder: Callable[[Any, int], nn.Module]
    presets: Mapping[str, Any]


# The presets of docs/methods/nets.md: tiny trains on a CPU in an hour, small is what a GPU trains.
NETS: dict[str, Nets] = {
    "convnext-speech": Nets(
        medium=SPEECH.name,
        sizes=SpeechConfig,
        encoder=SpeechEncoder,
        decoder=SpeechDecoder,
        presets={
            "tiny": SpeechConfig(),
            "small": SpeechConfig(
                encoder_dim=160, encoder_depth=4, decoder_dim=256, decoder_depth=6
            ),
        },
    ),
    "convnext-image": Nets(
        medium=IMAGE.name,
        sizes=ImageConfig,
        encoder=ImageEncoder,
        decoder=ImageDecoder,
        presets={
            "tiny": ImageConfig(),
            "small": ImageConfig((64, 128), (2, 4), (160, 96, 48), (6, 4, 2)),
        },
    ),
}


def default(medium: str) -> str:
    """The kind of a card or recipe that names none: the first of its medium.

    Raises ValueError for no such medium.
    """
    for name, nets in NETS.items():
        if nets.medium == medium:
            return name
    raise ValueError(f"unknown medium {medium!r}")


def find(kind: str, medium: str) -> Nets:
    """The nets of a name. Raises ValueError where there are none such for this medium."""
    known = [name for name, nets in NETS.items() if nets.medium == medium]
    if kind not in known:
        raise ValueError(f"unknown nets {kind!r} for {medium}; choose from {known}{plugins.ADVICE}")
    return NETS[kind]
