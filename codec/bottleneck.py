"""The contract that every discrete bottleneck keeps, so that codecs, training and evaluation never ask which one it is.

    z (B, D_in, *S) ──encode──> indices (B, G, *S) ──decode──> z_q (B, D, *S)

Shapes, throughout the project:
    B batch · C signal channels · N signal positions (samples | H, W) · D latent channels
    S latent grid (frames | h, w) · G codebooks per position (groups or residual stages; 1 for the plain case)
    K entries of a codebook
    *N and *S stand for one axis (speech) or two (pictures).

The law: in eval mode `forward(z, K).z_q` IS `decode(encode(z, K), K)`, bit for bit. Two more rules hold everywhere:
train() and eval() never change state, and `indices` is None, never an invented value, while training is not discrete.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Size = int | Tensor | None  # a codebook size; a (B,) integer tensor gives each sample its own, in training only


@dataclass(frozen=True, slots=True)
class BottleneckOutput:
    """What a bottleneck returns.

    Attributes:
        z_q: (B, D, *S), what the decoder gets; a gradient reaches z.
        indices: (B, G, *S) int64 in [0, num_codes), or None while training is not discrete.
        losses: Named scalar terms, UNWEIGHTED; the weights belong to the recipe.
        stats: Named detached values for logs.
    """

    z_q: Tensor
    indices: Tensor | None
    losses: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)


class Bottleneck(nn.Module, ABC):
    """A map from latents to indices and back.

    Attributes:
        dim: D, channels of z_q.
        in_dim: D_in, channels of z. Equal to `dim` but for GM-VQ, whose encoder also predicts D weights.
        codebook_sizes: The sizes K it can be used at, ascending; one for a coupled codebook.
        num_codebooks: G, indices per position.
        training_state: Buffers that only training needs; model files leave them out.
        coupled: Whether training uses a codebook, so that a batch has one size; perturbing methods take one per sample.

    Raises:
        ValueError: No dimension, or sizes that are not ascending.
    """

    num_codebooks: int = 1
    coupled: bool = True
    training_state: tuple[str, ...] = ()

    def __init__(self, dim: int, codebook_sizes: tuple[int, ...], in_dim: int | None = None) -> None:
        super().__init__()
        if dim < 1 or not codebook_sizes or list(codebook_sizes) != sorted(set(codebook_sizes)):
            raise ValueError(f"need dim >= 1 and ascending codebook sizes, got dim={dim}, sizes={codebook_sizes}")
        self.dim = dim
        self.in_dim = dim if in_dim is None else in_dim
        self.codebook_sizes = codebook_sizes

    @property
    def default_size(self) -> int:
        """The size used when none is named: 1024 where it is offered, else the smallest."""
        return 1024 if 1024 in self.codebook_sizes else self.codebook_sizes[0]

    def check_size(self, codebook_size: Size) -> int:
        """The size to use: the default for None. Raises ValueError for one that is not offered, and for a tensor."""
        if isinstance(codebook_size, Tensor):
            raise ValueError("a codebook size for each sample is for training without a codebook; give one size")
        size = self.default_size if codebook_size is None else int(codebook_size)
        if size not in self.codebook_sizes:
            raise ValueError(f"codebook size {size} is not offered; choose from {list(self.codebook_sizes)}")
        return size

    def num_codes(self, codebook_size: int | None = None) -> int:
        """How many distinct codes a nominal size really has (FSP's 4096 is 7*5*5*5*5 = 4375)."""
        return self.check_size(codebook_size)

    @abstractmethod
    def forward(self, z: Tensor, codebook_size: Size = None) -> BottleneckOutput:
        """Quantises (eval) or does what the method does instead (train).

        Args:
            z: (B, D_in, *S) encoder output, any float type; the mathematics runs in float32.
            codebook_size: K for all samples; None for the default; in training, methods that are not tied to a
                codebook also take a (B,) integer tensor.
        """

    @abstractmethod
    def encode(self, z: Tensor, codebook_size: int | None = None) -> Tensor:
        """(B, D_in, *S) -> (B, G, *S) int64 in [0, num_codes). Deterministic, whatever the mode."""

    @abstractmethod
    def decode(self, indices: Tensor, codebook_size: int | None = None) -> Tensor:
        """(B, G, *S) -> (B, D, *S) float32. Deterministic, whatever the mode."""

    def target(self, z: Tensor) -> Tensor | None:  # noqa: ARG002
        """(B, D_in, *S) -> (B, D, *S): the vectors whose nearest codes `encode` takes; None if it has another rule."""
        return None

    def anneal(self, progress: float) -> None:
        """Moves schedules (a temperature, say) to `progress` in [0, 1]. Most methods have none."""

    def fit(self, latents: Tensor) -> None:
        """Builds or initialises the codebook from (N, D_in) latents. Explicit, seeded, idempotent; default: nothing."""


def straight_through(value: Tensor, z: Tensor) -> Tensor:
    """`value` in the forward pass, bit for bit, with the identity as gradient to z.

    The usual z + (value - z).detach() rounds, which would break the law; z - z.detach() is exactly zero.
    """
    return value.detach() + (z - z.detach())


def to_tokens(z: Tensor) -> Tensor:
    """(B, D, *S) -> (N, D) float32 rows, N = B * prod(S), in raster order."""
    return z.float().movedim(1, -1).reshape(-1, z.shape[1])


def to_grid(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, D) rows -> (B, D, *S), the grid of `like` (B, _, *S); the inverse of `to_tokens`."""
    batch, grid = like.shape[0], like.shape[2:]
    return tokens.reshape(batch, *grid, tokens.shape[-1]).movedim(-1, 1).contiguous()


def per_sample(codebook_size: Tensor, z: Tensor) -> Tensor:
    """A (B,) tensor of sizes -> (N,), one for each token of z (B, D, *S), float32."""
    if codebook_size.shape != z.shape[:1]:
        raise ValueError(
            f"one codebook size per sample: want shape {tuple(z.shape[:1])}, got {tuple(codebook_size.shape)}"
        )
    repeats = int(torch.tensor(z.shape[2:]).prod())
    return codebook_size.to(z.device, torch.float32).repeat_interleave(repeats)
