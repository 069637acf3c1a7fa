"""The one building block of all nets, and how a decoder is told which codebook size it reads.

Activations inside the nets are channels-last, (B, H, W, C), and speech is a picture one row high:
one block serves both media, and the linear layers run on contiguous rows.

A net of pictures is a list of layers. `run` applies them to whole pictures; `stream` passes strips
of rows from one to the next, so that a picture of any height takes the memory of a few strips, and
no row is computed twice:

    strips ─> layer, holds `reach` rows of the next strip ─> strips ─> layer ─> ... ─> strips
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import log2
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.windows import windows

CONDITION_WIDTH = 64
# Values of a perceptron's hidden layer on a CPU: few for the caches, many for two threads.
HIDDEN_AT_ONCE = 1 << 19
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Layer:
    """A step of a net of pictures.

    Attributes:
        apply: (B, H, W, C) and the rows that are wanted -> (B, H', W', C'), all that belongs to
            those rows.
        reach: How many rows above and below one it depends on.
    """

    apply: Callable[[Tensor, slice], Tensor]
    reach: int = 0


def run(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H', W', C')."""
    for layer in layers:
        x = layer.apply(x, ALL)
    return x


def stream(layers: Sequence[Layer], strips: Iterable[Tensor]) -> Iterator[Tensor]:
    """`run` of one picture that comes in strips of rows.

    Args:
        strips: (n, W, C), with the same n for all but the last, which may have fewer rows.

    Yields:
        (n', W', C'), one for each strip.
    """
    for layer in layers:
        strips = _stream(layer, iter(strips))
    return iter(strips)


def _stream(layer: Layer, strips: Iterator[Tensor]) -> Iterator[Tensor]:
    for first in strips:
        for window, left, rows in windows(chain([first], strips), len(first), layer.reach):
            yield layer.apply(window[None], slice(left, left + rows))[0]


def convolution(conv: nn.Conv2d) -> Layer:
    """A convolution, of (B, H, W, C) too, as a layer."""
    padding = cast(tuple[int, int], conv.padding)
    return Layer(lambda x, rows: convolve(conv, x)[:, rows], padding[0])


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H', W', C').

    On a CPU a depthwise convolution stays float32 under autocast: the gradient of its weights takes
    three times as long in bfloat16.
    """
    x = x.permute(0, 3, 1, 2)
    if x.device.type == "cpu" and conv.groups > 1:
        with torch.autocast("cpu", enabled=False):
            out: Tensor = conv(x.float())
    else:
        out = conv(x)
    return out.permute(0, 2, 3, 1)


def linear(layer: nn.Linear, x: Tensor, gelu: bool = False) -> Tensor:
    """A linear layer and, if wanted, the GELU after it: (..., C) -> (..., C').

    Without gradients a CPU does both in one pass of oneDNN. That takes half the time of MKL where
    MKL leaves half of the vector unit idle (AMD), and a position's result depends on neither
    threads nor its neighbours, from two on.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32 or not ONEDNN:
        out: Tensor = layer(x)
        return F.gelu(out) if gelu else out
    fused: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, layer.weight, layer.bias, "gelu" if gelu else "none", [], "none"
    )
    return fused


class ConvNeXt(nn.Module):
    """A residual block of depthwise convolution, LayerNorm and perceptron (Liu et al. 2022).

    The perceptron has two layers and works at each position.

    Args:
        dim: Channels C.
        kernel: (height, width) of the depthwise convolution, odd; (1, 7) for speech, (7, 7) for
            pictures.
        scale: First value of the layer scale, 1 / depth of the stack.
        conditioned: Whether a FiLM condition (B, CONDITION_WIDTH) is given to `forward`; its last
            layer starts at zero, so that a new block ignores it (docs/methods/nets.md).
    """

    def __init__(
        self, dim: int, kernel: tuple[int, int], scale: float, conditioned: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            dim, dim, kernel, padding=(kernel[0] // 2, kernel[1] // 2), groups=dim
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, 3 * dim)
        self.contract = nn.Linear(3 * dim, dim)
        self.layer_scale = nn.Parameter(torch.full((dim,), scale))
        self.film = nn.Linear(CONDITION_WIDTH, 2 * dim) if conditioned else None
        for layer in (self.depthwise, self.expand, self.contract):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None, rows: slice = ALL) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), of which only some rows may be wanted."""
        h, x = convolve(self.depthwise, x)[:, rows].contiguous(), x[:, rows]
        film = None if self.film is None or condition is None else self.film(condition)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._perceptron(x, h, film)
        step = max(1, HIDDEN_AT_ONCE // self.expand.out_features)
        for a, b in zip(
            *(torch.split(part.flatten(1, 2), step, 1) for part in (x, h)), strict=True
        ):
            # Where h was, the result is.
            b.copy_(self._perceptron(a[:, None], b[:, None], film)[:, 0])
        return h

    def _perceptron(self, x: Tensor, h: Tensor, film: Tensor | None) -> Tensor:
        """x + what is learnt of h, the convolved x, position by position; all (B, H, W, C)."""
        h = self.norm(h)
        if film is not None:
            gain, shift = film[:, None, None].chunk(2, -1)
            h = h * (1 + gain) + shift
        return x + self.layer_scale * linear(self.contract, linear(self.expand, h, gelu=True))

    def layer(self, condition: Tensor | None = None) -> Layer:
        """The block as a layer."""
        padding = cast(tuple[int, int], self.depthwise.padding)
        return Layer(lambda x, rows: self(x, condition, rows), padding[0])


class Stack(nn.Module):
    """`depth` ConvNeXt blocks that share a condition."""

    def __init__(
        self, dim: int, depth: int, kernel: tuple[int, int], conditioned: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvNeXt(dim, kernel, 1 / depth, conditioned) for _ in range(depth)
        )

    def layers(self, condition: Tensor | None = None) -> list[Layer]:
        """The blocks as layers."""
        return [cast(ConvNeXt, block).layer(condition) for block in self.blocks]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return run(self.layers(condition), x)


class SizeEmbedding(nn.Module):
    """log2 of the codebook size -> a FiLM condition.

    kappa = (log2 K - 11) / 3 lies in about [-1, 1] for K from 256 to 16384.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, CONDITION_WIDTH)

    def forward(self, codebook_size: int | Tensor, batch: int) -> Tensor:
        """An int, or a (B,) tensor -> (B, CONDITION_WIDTH) float32."""
        device = self.layer.weight.device
        if isinstance(codebook_size, Tensor):
            log_size = codebook_size.to(device, torch.float32).log2()
        else:
            log_size = torch.full((batch,), log2(codebook_size), device=device, dtype=torch.float32)
        return F.gelu(self.layer(((log_size - 11) / 3)[:, None]))


def downsample(inputs: int, outputs: int) -> nn.Conv2d:
    """A 2 x 2 convolution of stride 2."""
    return nn.Conv2d(inputs, outputs, 2, stride=2)
