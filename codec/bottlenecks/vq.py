"""VQ, vector quantisation with a straight-through gradient (van den Oord et al. 2017).

Each latent vector becomes its nearest code; the gradient passes from the code to the vector
unchanged. What later papers changed about that is one part each, and a method is a choice of parts:

    z ──geometry──> point ──nearest of affine(table)──> index ──> code ──> z_q
                      └──────────> update ──> table <── restart of codes that nobody uses
    gradient: identity to the point

    geometry  plain | unit                          of distances, and of what the decoder gets
    affine    None | Affine                         all codes move at once
    update    ByGradient | ByAverage | Alternating  how used codes learn
    restart   None | Restart                        what becomes of unused ones
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.arguments import positive, real, whole
from codec.bottleneck import (
    Bottleneck,
    BottleneckOutput,
    Size,
    straight_through,
    to_grid,
    to_tokens,
)
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import batch_perplexity, count
from codec.bottlenecks._start import check_latents, kmeans_start
from codec.bottlenecks._sync import from_first, gather_rows
from codec.host import may_read

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


class VQ(Bottleneck):
    """Vector quantisation (van den Oord et al. 2017), straight-through.

    Losses, means over elements: "commitment", |z - sg mu_j|^2, usually weighted 0.25, and where the
    codes learn by gradient "codebook", |sg z - mu_j|^2, usually weighted 1. (taming-transformers'
    `legacy` puts the 0.25 on the wrong one of the two; here each has a name.) For `Alternating` the
    paper weights "commitment" 0.

    The task's gradient reaches z but never the codes. Each size in `codebook_sizes` has its own
    codebook; encoder and decoder are shared and the size is drawn for a batch at a time.

    Args:
        dim: L. `unit` wants few, 8 to 32.
        codebook_sizes: The sizes K.
        geometry: `plain` or `unit`.
        update: Makes the update of a codebook from (K, L): `ByGradient`, `ByAverage`,
            `Alternating`, or a partial of one.
        restart: Makes the replacement of a codebook from K: `Restart`, a partial of it, or None.
        affine: Makes the affine map of a codebook from L: `Affine`, a partial of it, or None.

    Raises:
        ValueError: The sizes are not ascending; or parts that do not go together: averages are
            means of points and cannot pass an affine map, and the inner gradient is written for the
            plain geometry.
    """

    fitted: Tensor  # () bool

    def __init__(
        self,
        dim: int = 64,
        codebook_sizes: tuple[int, ...] = (1024,),
        geometry: Callable[[Tensor], Tensor] = plain,
        update: Callable[[int, int], ByGradient] = ByGradient,
        restart: Callable[[int], Restart] | None = None,
        affine: Callable[[int], Affine] | None = None,
    ) -> None:
        super().__init__(dim, codebook_sizes)
        self.geometry = geometry
        self.books, self.restarts = nn.ModuleDict(), nn.ModuleDict()
        for size in self.codebook_sizes:
            codes = torch.empty(size, dim, dtype=torch.float32).uniform_(-1 / size, 1 / size)
            book = Codebook(codes, geometry, update(size, dim), affine(dim) if affine else None)
            if isinstance(book.update, ByAverage) and affine:
                raise ValueError("a codebook of moving averages takes no affine map")
            if isinstance(book.update, Alternating) and geometry is not plain:
                raise ValueError("the alternating update is for the plain geometry")
            self.books[str(size)] = book
            if restart:
                self.restarts[str(size)] = restart(size)
            self.loss_names = (
                ("commitment", "codebook") if book.update.by_gradient else ("commitment",)
            )
        self.register_buffer("fitted", torch.tensor(False))
        self.training_state = tuple(
            name
            for name, _ in self.named_buffers()
            if ".update." in name or name.startswith("restarts.")
        )

    @property
    def settled(self) -> bool:
        """Not while codes are replaced: how many is counted on the host."""
        return not (self.training and len(self.restarts))

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Quantises, and lets the codebook learn.

        Returns:
            z_q (B, L, *S), indices (B, 1, *S); the stats "perplexity" (of the batch's indices) and,
            with a restart, "restarted" (codes).

        Raises:
            ValueError: z is not finite.
        """
        size = self.check_size(codebook_size)
        book = self._book(size)
        points = self.geometry(to_tokens(z))
        fixed = points.detach()
        chosen = nearest(fixed, book())
        if book.update.codes_first:
            self._learn(book, fixed, chosen)
        # Gathered, then mapped: what follows may write into the table before backward.
        codes = book(chosen)
        losses = {"commitment": F.mse_loss(points, codes.detach())}
        if book.update.by_gradient:
            losses["codebook"] = F.mse_loss(codes, fixed)
        if not book.update.codes_first:
            self._learn(book, fixed, chosen)
        stats = {"perplexity": batch_perplexity(chosen, size)}
        if str(size) in self.restarts:
            with torch.no_grad():
                stats["restarted"] = self._restart(size).step(book, fixed, chosen)
        return BottleneckOutput(
            to_grid(straight_through(codes, points), z), to_grid(chosen[:, None], z), losses, stats
        )

    def _encode(self, z: Tensor, size: int) -> Tensor:
        """argmin over c of |z - mu_c|, after the geometry."""
        return to_grid(nearest(self.geometry(to_tokens(z)), self.codebook(size))[:, None], z)

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        """Codes after affine map and geometry, those that were searched."""
        return F.embedding(indices[:, 0], self.codebook(size)).movedim(-1, 1).contiguous()

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:  # noqa: ARG002
        return to_grid(self.geometry(to_tokens(z)), z)

    def codebook(self, codebook_size: int | None = None) -> Tensor:
        """(K, L), as it is searched and decoded."""
        codes: Tensor = self._book(self.check_size(codebook_size))()
        return codes

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Initialises every codebook by k-means on (N, L) encoder outputs: once, before training.

        Raises:
            ValueError: `latents` is not (N >= 1, L) or not finite.
        """
        points = self.geometry(check_latents(latents, self.in_dim))
        if self.fitted:
            return
        for size in self.codebook_sizes:
            self._book(size).start(kmeans_start(points, size))
        self.fitted.fill_(True)

    def _book(self, size: int) -> Codebook:
        book = self.books[str(size)]
        assert isinstance(book, Codebook)
        return book

    def _restart(self, size: int) -> Restart:
        restart = self.restarts[str(size)]
        assert isinstance(restart, Restart)
        return restart

    @staticmethod
    @torch.no_grad()
    def _learn(book: Codebook, points: Tensor, indices: Tensor) -> None:
        if not book.update.by_gradient:
            if not may_read():  # what is not finite was not refused: at its code it moves nothing
                points = torch.where(points.isfinite(), points, book(indices))
            book.update.step(book, gather_rows(points), gather_rows(indices))
