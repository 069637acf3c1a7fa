"""What a VQ's codebooks are made of: geometry, affine map, update and restart.

Each is one paper's change to the plain codebook (`codec.bottlenecks.vq` has the picture), and a
`Codebook` is one table of codes with those that were chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.arguments import positive, real, whole
from codec.bottlenecks._soft import count
from codec.bottlenecks._sync import from_first, gather_rows

SMALLEST_NORM = 1e-6
# The inner learning rate of 50 in vqtorch is for means over N tokens of 64 dimensions.
RATE_PER_DIMENSION = 50 / 64


def plain(rows: Tensor) -> Tensor:
    """Euclidean distance: (N, L) rows as they are."""
    return rows


def unit(rows: Tensor) -> Tensor:
    """Cosine similarity (Yu et al. 2021, ViT-VQGAN): (N, L) rows on the unit sphere.

    The nearest there is the most alike.

    The norm is taken in float64, so that it rounds the same in any batch; and it is bounded before
    the root, whose gradient at 0 is infinite. A zero row stays zero.
    """
    norm = rows.double().square().sum(1, keepdim=True).clamp(min=SMALLEST_NORM**2).sqrt()
    return rows / norm.float()


class Affine(nn.Module):
    """Affine reparameterisation (Huh et al. 2023): mu' = (1 + a s) mu + a b.

    It moves all codes, used or not, at once.

    Args:
        dim: L.
        scale: a, by how much faster s and b learn than the codes (2 to 10 in vqtorch).
    """

    def __init__(self, dim: int, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = positive(scale, "scale")
        self.gain = nn.Parameter(torch.zeros(dim, dtype=torch.float32))  # s
        self.shift = nn.Parameter(torch.zeros(dim, dtype=torch.float32))  # b

    def forward(self, codes: Tensor) -> Tensor:
        """(N, L) mu -> (N, L) mu'."""
        return (1 + self.scale * self.gain) * codes + self.scale * self.shift

    def inverse(self, codes: Tensor) -> Tensor:
        """(N, L) mu' -> (N, L) mu."""
        return (codes - self.scale * self.shift) / (1 + self.scale * self.gain)


class ByGradient(nn.Module):
    """Codes learn by gradient, of the loss "codebook", in the optimiser of the network.

    The base of all updates. (When a code restarts, the moments that such an optimiser holds of its
    row stay: a bottleneck does not know the optimiser.)

    Args:
        size: K.
        dim: L.
    """

    by_gradient = True
    codes_first = False  # whether `step` comes before the codes are handed to the decoder

    def __init__(self, size: int, dim: int) -> None:  # noqa: ARG002  other updates keep tensors of this size
        super().__init__()

    def start(self, codes: Tensor) -> None:
        """Forgets everything: the table now is `codes` (K, L)."""

    def restart(self, rows: Tensor, codes: Tensor) -> None:
        """Forgets some rows, (R,) int64, of the table, which now are `codes` (R, L)."""

    def step(self, book: Codebook, points: Tensor, indices: Tensor) -> None:
        """Learns from one batch: (N, L) points without gradient and the (N,) codes they chose."""


class ByAverage(ByGradient):
    """Moving averages (van den Oord et al. 2017): a code is the mean of the points that chose it.

    Counts start at 1 and sums at the codes: from zeros, as published, the first step throws the
    unused codes far out.

    Args:
        size: K.
        dim: L.
        decay: g, of the averages.
        epsilon: e, of the Laplace smoothing of the counts.
    """

    by_gradient = False
    counts: Tensor  # (K,) n
    sums: Tensor  # (K, L) m

    def __init__(self, size: int, dim: int, decay: float = 0.99, epsilon: float = 1e-5) -> None:
        super().__init__(size, dim)
        self.decay, self.epsilon = real(decay, "decay", 0, 1), positive(epsilon, "epsilon")
        self.register_buffer("counts", torch.ones(size, dtype=torch.float32))
        self.register_buffer("sums", torch.zeros(size, dim, dtype=torch.float32))

    def start(self, codes: Tensor) -> None:
        self.counts.fill_(1)
        self.sums.copy_(codes)

    def restart(self, rows: Tensor, codes: Tensor) -> None:
        """Sets the averages of restarted codes.

        Without this the next step would overwrite a restarted code from its old average, as
        EnCodec's does.
        """
        self.counts[rows] = 1
        self.sums[rows] = codes

    def step(self, book: Codebook, points: Tensor, indices: Tensor) -> None:
        counts = count(indices, len(self.counts))
        sums = torch.zeros_like(self.sums).index_add_(0, indices, points)
        self.counts.lerp_(counts, 1 - self.decay)  # n <- g n + (1 - g) count
        self.sums.lerp_(sums, 1 - self.decay)  # m <- g m + (1 - g) sum of z
        total = self.counts.sum()
        smooth = (self.counts + self.epsilon) / (total + len(counts) * self.epsilon) * total
        book.table.copy_(self.sums / smooth[:, None])


class Alternating(ByGradient):
    """Alternating optimisation (Huh et al. 2023): the codes step first, then the network.

    The network learns by the task loss alone.

    Before the codes go to the decoder they take SGD steps, with momentum, on mean |mu_j - z|^2 for
    the j that the points chose; the decoder then sees the new mu_j. The gradient is written out, so
    that no graph and no second optimiser are needed; the velocities are saved with the model.

    The rate is vqtorch's, per dimension: the gradient of a mean over N tokens and L dimensions
    shrinks with L, and a fixed rate of 50 diverges for L = 8 when a third of the tokens choose one
    code.

    Args:
        size: K.
        dim: L.
        rate: Learning rate over L.
        momentum: Of SGD.
        steps: Inner steps for each batch.
    """

    by_gradient = False
    codes_first = True
    velocity: Tensor  # (K, L)
    affine_velocity: Tensor  # (2, L) of gain and shift

    def __init__(
        self,
        size: int,
        dim: int,
        rate: float = RATE_PER_DIMENSION,
        momentum: float = 0.9,
        steps: int = 1,
    ) -> None:
        super().__init__(size, dim)
        self.rate, self.momentum = real(rate, "rate", 0), real(momentum, "momentum", 0, 1)
        self.steps = whole(steps, "steps", 1)
        self.register_buffer("velocity", torch.zeros(size, dim, dtype=torch.float32))
        self.register_buffer("affine_velocity", torch.zeros(2, dim, dtype=torch.float32))

    def start(self, codes: Tensor) -> None:  # noqa: ARG002
        self.velocity.zero_()
        self.affine_velocity.zero_()

    def restart(self, rows: Tensor, codes: Tensor) -> None:  # noqa: ARG002
        self.velocity[rows] = 0

    def step(self, book: Codebook, points: Tensor, indices: Tensor) -> None:
        learned = (
            [book.table]
            if book.affine is None
            else [book.table, book.affine.gain, book.affine.shift]
        )
        for _ in range(self.steps):
            gradients = inner_gradients(book, points, indices)
            for value, velocity, (gradient, curvature) in zip(
                learned, [self.velocity, *self.affine_velocity], gradients, strict=False
            ):
                velocity.mul_(self.momentum).add_(gradient / curvature)
                value.sub_(self.rate * points.shape[1] * velocity)


def inner_gradients(book: Codebook, points: Tensor, indices: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Gradient and relative curvature of mean |mu'_j - z|^2.

    They are for the table, and for gain and shift if there are any.

    The curvatures are 1 for codes alone. Those of gain and shift grow with a^2 and the codes' mean
    square, and the three add up; divided by what is given here, one rate is stable for all (and a
    cancels). vqtorch does not divide.

    Returns:
        Pairs for table (K, L), gain (L,), shift (L,); curvatures (L,) or (), bounded from below:
        codes close to 0, or a gain that takes them there, make no step of any length.
    """
    error = 2 * (book(indices) - points) / points.numel()
    table, one = torch.zeros_like(book.table), points.new_ones(())
    if book.affine is None:
        return [(table.index_add_(0, indices, error), one)]
    codes, scale = F.embedding(indices, book.table), book.affine.scale
    slope = 1 + scale * book.affine.gain
    return [
        (table.index_add_(0, indices, error * slope), slope.square().clamp(min=1)),
        (scale * (error * codes).sum(0), 2 * scale**2 * codes.square().mean(0).clamp(min=1)),
        (scale * error.sum(0), 2 * scale**2 * one),
    ]


class Restart(nn.Module):
    """Replacement of dead codes (Huh et al. 2023).

    A code that was unused for `patience` steps becomes a noisy point.

    Args:
        size: K.
        patience: T, training steps.
        noise: rho, of the point's norm.
    """

    idle: Tensor  # (K,) int64, steps since each code was last used

    def __init__(self, size: int, patience: int = 20, noise: float = 0.01) -> None:
        super().__init__()
        self.patience, self.noise = whole(patience, "patience", 1), real(noise, "noise", 0)
        self.register_buffer("idle", torch.zeros(size, dtype=torch.int64))

    def step(self, book: Codebook, points: Tensor, indices: Tensor) -> Tensor:
        """Replaces what is due; () the number of codes replaced."""
        points, indices = gather_rows(points), gather_rows(indices)
        self.idle.add_(1)
        self.idle[indices] = 0
        rows = (self.idle >= self.patience).nonzero()[:, 0]
        order = from_first(torch.randperm(max(len(points), len(rows)), device=points.device))[
            : len(rows)
        ]
        drawn = points[order % len(points)]  # distinct points, while there are enough
        noise = from_first(torch.randn_like(drawn))
        book.place(rows, drawn + self.noise * drawn.norm(dim=1, keepdim=True) * noise)
        self.idle[rows] = 0
        return torch.tensor(float(len(rows)), dtype=torch.float32)


class Codebook(nn.Module):
    """One table of K codes with its parts.

    Attributes:
        table: (K, L), a parameter where it learns by gradient, else a buffer. What is searched and
            decoded is geometry(affine(table)).
    """

    table: Tensor

    def __init__(
        self,
        codes: Tensor,
        geometry: Callable[[Tensor], Tensor],
        update: ByGradient,
        affine: Affine | None,
    ) -> None:
        super().__init__()
        self.geometry, self.update, self.affine = geometry, update, affine
        if update.by_gradient:
            self.table = nn.Parameter(codes)
        else:
            self.register_buffer("table", codes)
        if affine is not None:
            affine.requires_grad_(update.by_gradient)
        update.start(codes)

    def forward(self, indices: Tensor | None = None) -> Tensor:
        """(K, L) the codes, or (N, L) those of (N,) indices; with gradients to table and affine."""
        rows = self.table if indices is None else F.embedding(indices, self.table)
        return self.geometry(rows if self.affine is None else self.affine(rows))

    @torch.no_grad()
    def place(self, rows: Tensor, codes: Tensor) -> None:
        """Makes the codes of (R,) rows equal `codes` (R, L)."""
        codes = self.geometry(codes)
        self.table[rows] = codes if self.affine is None else self.affine.inverse(codes)
        self.update.restart(rows, self.table[rows])

    @torch.no_grad()
    def start(self, codes: Tensor) -> None:
        """Begins anew from (K, L) codes."""
        self.table.copy_(codes if self.affine is None else self.affine.inverse(codes))
        self.update.start(self.table)
