"""The contract that every discrete bottleneck keeps.

Because of it codecs, training and evaluation never ask which one it is.

    z (B, D_in, *S) ──encode──> indices (B, G, *S) ──decode──> z_q (B, D, *S)

Shapes, throughout the project:
    B batch · C signal channels · N signal positions (samples | H, W)
    D latent channels · S latent grid (frames | h, w)
    G codebooks per position (groups or residual stages; 1 for the plain case)
    K entries of a codebook
    *N and *S stand for one axis (speech) or two (pictures).

The law: in eval mode `forward(z, K).z_q` IS `decode(encode(z, K), K)`, bit for bit. More rules hold
everywhere:

    modes      train() and eval() never change state; in eval, forward has no losses and talks to no
               other process
    values     `indices` is None, never an invented value, while training is not discrete
    nothing    a batch without tokens gives zero losses and changes no state
    arguments  latents that are not finite, and indices out of range, negative, of another type or
               number, are refused
    precision  state and codes are float32, and so is the mathematics, whatever stands around (see
               `codec.precision`)

`Bottleneck` keeps all of them for its methods, which only say how they train, encode and decode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from codec.arguments import whole
from codec.host import may_read
from codec.precision import Float32, exact_float32
from codec.tensors import check_tensor, one_each

# A codebook size; a (B,) integer tensor gives each sample its own, in training only.
Size = int | Tensor | None


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


def check_sizes(codebook_sizes: Iterable[int]) -> tuple[int, ...]:
    """Returns the sizes K that a bottleneck is made for, as a tuple.

    Raises:
        ValueError: They are not ascending whole numbers from 1 on.
    """
    try:
        sizes = tuple(whole(size, "a codebook size", 1) for size in codebook_sizes)
    except (TypeError, ValueError):
        sizes = ()
    if not sizes or list(sizes) != sorted(set(sizes)):
        raise ValueError(
            "codebook_sizes are ascending whole numbers from 1 on, such as (256, 1024), not "
            f"{codebook_sizes!r}"
        )
    return sizes


class Bottleneck(Float32, ABC):
    """A map from latents to indices and back.

    A method of one's own is a subclass with `_training_forward`, `_encode` and `_decode`, and
    `_gradient_path` where its gradient in eval is not the identity. They get what `forward`,
    `encode` and `decode` have checked, in float32.

    Attributes:
        dim: D, channels of z_q.
        in_dim: D_in, channels of z. Equal to `dim` but for GM-VQ, whose encoder also predicts D
            weights.
        codebook_sizes: The sizes K it can be used at, ascending; one for a coupled codebook.
        num_codebooks: G, indices per position.
        training_state: Buffers that only training needs; model files leave them out.
        coupled: Whether training uses a codebook, so that a batch has one size; perturbing methods
            take one per sample.
        loss_names: What `forward` names its losses in training; a recipe weighs each of them.
        nested: Whether the codes of all sizes are one tree in the order of their numbers: the
            children of code i of one size are the codes i M to i M + M - 1 of the next. Other
            orders of nested codes only `parents` knows.

    Raises:
        ValueError: `dim` is not a whole number from 1 on, or `check_sizes` refuses the sizes.
    """

    num_codebooks: int = 1
    coupled: bool = True
    training_state: tuple[str, ...] = ()
    loss_names: tuple[str, ...] = ()
    nested: bool = False

    def __init__(self, dim: int, codebook_sizes: Iterable[int], in_dim: int | None = None) -> None:
        super().__init__()
        self.dim = whole(dim, "dim", 1)
        self.in_dim = self.dim if in_dim is None else whole(in_dim, "in_dim", 1)
        self.codebook_sizes = check_sizes(codebook_sizes)

    def extra_repr(self) -> str:
        """What `repr` shows."""
        channels = f"{self.in_dim} -> {self.dim}" if self.in_dim != self.dim else f"{self.dim}"
        return f"dim={channels}, codebook_sizes={self.codebook_sizes}"

    @property
    def row_counts(self) -> tuple[int, ...]:
        """How many indices of a position `decode` takes: G, or fewer where the first say enough."""
        return (self.num_codebooks,)

    @property
    def settled(self) -> bool:
        """Whether `forward` in this mode keeps to `codec.host.unread` from now on.

        Only then a CUDA graph may hold it. Asking may wait for the device; a method that does not
        say is taken not to.
        """
        return False

    @property
    def default_size(self) -> int:
        """The size used when none is named: 1024 where it is offered, else the smallest."""
        return 1024 if 1024 in self.codebook_sizes else self.codebook_sizes[0]

    def check_size(self, codebook_size: Size) -> int:
        """The size to use: the default for None.

        Raises ValueError for one that is not offered, and for a tensor.
        """
        if isinstance(codebook_size, Tensor):
            raise ValueError(
                "a codebook size for each sample is for training without a codebook; give one size"
            )
        size = (
            self.default_size if codebook_size is None else whole(codebook_size, "a codebook size")
        )
        if size not in self.codebook_sizes:
            raise ValueError(
                f"codebook size {size} is not offered; choose from {list(self.codebook_sizes)}"
            )
        return size

    def num_codes(self, codebook_size: int | None = None) -> int:
        """How many distinct codes a nominal size really has (FSP's 4096 is 7*5*5*5*5 = 4375)."""
        return self.check_size(codebook_size)

    def forward(self, z: Tensor, codebook_size: Size = None) -> BottleneckOutput:
        """Quantises (eval) or does what the method does instead (train).

        Args:
            z: (B, D_in, *S) encoder output, any float type; the mathematics runs in float32.
            codebook_size: K for all samples; None for the default; in training, methods that are
                not tied to a codebook also take a (B,) integer tensor.

        Returns:
            In eval z_q and indices, and nothing else. In training what the method says; of a batch
            without tokens an empty z_q, zero losses, and no indices.

        Raises:
            TypeError: z is no tensor.
            ValueError: z has another shape or no float type; the size is not offered, or is a
                tensor where the method takes none; in eval, z is not finite.
            RuntimeError: In eval, of a method that builds its codebook after training: before
                `fit`.
        """
        z = self._checked(z, finite=not self.training)
        with exact_float32(z.device):
            if self.training:
                return (
                    self._training_forward(z, codebook_size)
                    if z.numel()
                    else self._nothing(z, codebook_size)
                )
            size = self.check_size(codebook_size)
            with torch.no_grad():
                indices = self._encode(z, size)
                value = self._decode(indices, size)
            return BottleneckOutput(straight_through(value, self._gradient_path(z, size)), indices)

    def encode(self, z: Tensor, codebook_size: int | None = None) -> Tensor:
        """(B, D_in, *S) -> (B, G, *S) int64 in [0, num_codes).

        Deterministic, whatever the mode; no gradient.

        Raises:
            TypeError: z is no tensor.
            ValueError: z has another shape, no float type, or is not finite; or the size is not
                offered.
            RuntimeError: Of a method that builds its codebook after training: before `fit`.
        """
        size, z = self.check_size(codebook_size), self._checked(z, finite=True)
        with torch.no_grad(), exact_float32(z.device):
            return self._encode(z, size)

    def decode(self, indices: Tensor, codebook_size: int | None = None) -> Tensor:
        """(B, G, *S) integers -> (B, D, *S) float32. Deterministic, whatever the mode.

        Raises:
            TypeError: The indices are no tensor.
            ValueError: The indices are no integers, not in [0, num_codes), or not as many at each
                position as `row_counts` has; or the size is not offered.
            RuntimeError: Of a method that builds its codebook after training: before `fit`.
        """
        size, indices = self.check_size(codebook_size), check_tensor(indices, "indices")
        if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
            raise ValueError(f"indices must be integers, got {indices.dtype}")
        if indices.dim() < 2 or indices.shape[1] not in self.row_counts:
            counts = " or ".join(str(count) for count in self.row_counts)
            raise ValueError(f"want indices (B, {counts}, ...), got {tuple(indices.shape)}")
        indices, num_codes = indices.long(), self.num_codes(size)
        if indices.numel() and may_read():
            least, most = (int(bound) for bound in indices.aminmax())
            if least < 0 or most >= num_codes:
                raise ValueError(f"indices must lie in [0, {num_codes}), not in [{least}, {most}]")
        with exact_float32(indices.device):
            return self._decode(indices, size)

    @abstractmethod
    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """`forward` in training: (B, D_in, *S) float32 with at least one token.

        The size is not checked yet.
        """

    @abstractmethod
    def _encode(self, z: Tensor, size: int) -> Tensor:
        """`encode` of (B, D_in, *S) finite float32, without gradients."""

    @abstractmethod
    def _decode(self, indices: Tensor, size: int) -> Tensor:
        """`decode` of (B, G, *S) int64 in [0, num_codes), or as `row_counts` says."""

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:  # noqa: ARG002
        """(B, D_in, *S) -> (B, D, *S): z_q before rounding, through which eval's gradient goes.

        These are the first D channels of z.
        """
        return z[:, : self.dim]

    def unquantised(self, z: Tensor, codebook_size: int | None = None) -> Tensor:
        """(B, D_in, *S) -> (B, D, *S) float32: z_q before rounding, near which its code lies.

        Raises:
            TypeError: z is no tensor.
            ValueError: z has another shape, no float type, or is not finite; or the size is not
                offered.
        """
        size, z = self.check_size(codebook_size), self._checked(z, finite=True)
        with exact_float32(z.device):
            return self._gradient_path(z, size)

    def _checked(self, z: Tensor, finite: bool) -> Tensor:
        """z in float32.

        Raises TypeError where it is no tensor, and ValueError where it has another shape, no float
        type or, if asked, is not finite.
        """
        z = check_tensor(z, "latents")
        if z.dim() < 2 or z.shape[1] != self.in_dim or not z.is_floating_point():
            raise ValueError(
                f"want floats (B, {self.in_dim}, ...), got {tuple(z.shape)} of {z.dtype}"
            )
        z = z.float()  # first, since a float64 may be too large for it
        if finite and may_read() and not z.isfinite().all():
            raise ValueError(
                "a latent is not finite; look for NaN or infinity in the signal or in the encoder"
            )
        return z

    def _nothing(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """The output for a batch without tokens.

        All that a method computes from one would be a mean of nothing.
        """
        if self.coupled or not isinstance(codebook_size, Tensor):
            self.check_size(codebook_size)
        zero = z.sum()
        z_q = z.new_empty(z.shape[0], self.dim, *z.shape[2:]) + zero
        return BottleneckOutput(z_q, None, dict.fromkeys(self.loss_names, zero))

    def target(self, z: Tensor) -> Tensor | None:  # noqa: ARG002
        """(B, D_in, *S) -> (B, D, *S): the vectors whose nearest codes `encode` takes.

        None if it has another rule.
        """
        return None

    def parents(self, codebook_size: int, coarser: int) -> Tensor | None:  # noqa: ARG002
        """(num_codes(codebook_size),) int64: each code's index at a coarser size.

        None if sizes are not nested.

        Nested means that `encode` at the coarser size gives the parent of what it gives here, for
        every latent.
        """
        return None

    def anneal(self, progress: float) -> None:
        """Moves schedules (a temperature, say) to `progress` in [0, 1]. Most methods have none."""

    def fit(self, latents: Tensor) -> None:
        """Builds or initialises the codebook from (N, D_in) latents.

        Explicit, seeded, idempotent; default: nothing.
        """


def straight_through(value: Tensor, z: Tensor) -> Tensor:
    """`value` in the forward pass, bit for bit, with the identity as gradient to z.

    The usual z + (value - z).detach() rounds, which would break the law; z - z.detach() is exactly
    zero.
    """
    return value.detach() + (z - z.detach())


def to_tokens(z: Tensor) -> Tensor:
    """z (B, D, *S) -> (N, D) float32 rows, N = B * prod(S), in raster order."""
    return z.float().movedim(1, -1).reshape(-1, z.shape[1])


def to_grid(tokens: Tensor, like: Tensor) -> Tensor:
    """`tokens`, (N, D) rows -> (B, D, *S), the grid of `like` (B, _, *S).

    The inverse of `to_tokens`.
    """
    batch, grid = like.shape[0], like.shape[2:]
    return tokens.reshape(batch, *grid, tokens.shape[-1]).movedim(-1, 1).contiguous()


def per_sample(codebook_size: Tensor, z: Tensor) -> Tensor:
    """`codebook_size`, a (B,) tensor of sizes -> (N,) float32, one for each token of z (B, D, *S).

    Raises:
        ValueError: There is not one whole number for each sample.
    """
    if not one_each(codebook_size, z):
        raise ValueError(
            f"one codebook size per sample: want integers {tuple(z.shape[:1])}, "
            f"got {tuple(codebook_size.shape)} of {codebook_size.dtype}"
        )
    return codebook_size.to(z.device, torch.float32).repeat_interleave(prod(z.shape[2:]))
