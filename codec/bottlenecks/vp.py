"""VP, vector perturbation (VP-VAE, arXiv 2602.17133).

Training imitates a codebook's error; the codebook comes last.

While training, each latent vector is moved by a random step as long as the quantisation error that
a codebook of K codes would make there, and the step is kept or refused by a Metropolis-Hastings
test, so that the distribution of the latents stays what it is. Density and scale come from
nearest-neighbour distances in a queue S of recent latents.

    train  z ──D_M(z|S)──> radius R ──uniform in the ball──> z + u ──accept?──> z~   gradient: 1
    fit    latents ──k-means, once for each K──> codebooks
    eval   z ──nearest code──> index ──> code

Nested, the codebooks are a tree: k-means for the smallest K, whose cells are cut by k-means inside
each, and so on. A latent goes to the nearest code of the smallest, and from there to the nearest
child.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.arguments import flag, real, whole
from codec.bottleneck import Bottleneck, BottleneckOutput, Size, per_sample, to_grid, to_tokens
from codec.bottlenecks._kmeans import halved, kmeans, split_cells, subsample
from codec.bottlenecks._knn import Neighbours
from codec.bottlenecks._search import nearest, nearest_child
from codec.bottlenecks._start import check_latents
from codec.bottlenecks._sync import from_first, gather_rows, var_mean_of_all
from codec.host import may_read

FIT_SEED = 0
# Of Lloyd. On latents of the shipped models 50 instead of 25 lower the error of latents that were
# not fitted by .24 % (pictures) and .18 % (speech) at K = 1024, by .02 % at 16384, for twice the
# time.
FIT_ITERATIONS = 25
FIT_ROWS_PER_CODE = 200  # simulated: 64 rows a code instead of 16 lower the error by 1.5-2 %
FIT_ROWS = 2**20  # at most, which is 64 for each of 16384 codes
SMALLEST = 1e-6  # of the queue's standard deviation: the least distance whose logarithm is taken


class VP(Bottleneck):
    """Vector perturbation.

    One encoder, one queue and one latent space serve every K: the queue is sized for one reference
    size, and other radii follow the power law of a d-dimensional quantiser, R_K = R_ref (K_ref /
    K)^(1/d). The paper trains one model for each K. In training a (B,) tensor of sizes may hold any
    K >= 1, offered or not, since there is no codebook yet.

    Differences from the published code:
        - The queue and its pointer are saved with the model (a resumed run goes on from the same
          state), and nothing is perturbed before the queue is full of real latents (it starts as
          noise).
        - The codebook is built by a named call, never by eval(), and from the latents that call is
          given, not from the queue: what `train` gives are at most 400 000 of random, augmented
          crops of the training set. k-means++ draws its seeds by the squared distance as it is; the
          code cuts it at its 90 % quantile, which costs a sort of the sample for each of K seeds
          and guards against outliers. Lloyd's iterations that follow move the seeds, and the
          moments' losses keep outliers rare; what it would change was not measured.
        - The paper's projections P_down and P_up, around the bottleneck, belong to the nets: here
          the encoder's last linear layer and the decoder's first convolution, which reaches further
          than P_up's one position.
        - eta is 1.15 where the code has 1: see below.

    Args:
        dim: d. The paper uses 3 to 5 (FSQ's d for that K); neighbour distances lose their meaning
            above about 16.
        codebook_sizes: The sizes K that `fit` builds codebooks for.
        eta: Radius over neighbour distance. The code has 1; at 1.15 the accepted steps are as long
            as a k-means codebook's errors on Gaussian latents, simulated in 3 to 5 dimensions.
        rows_per_code: M. The queue holds M * reference_size rows, so that one cell's share of it is
            M rows; the code has 16 d, which measures the same radius with less spread. Only the
            ratio of neighbours to rows matters: on Gaussian latents 32 give its mean radius within
            .4 %, its acceptance rate within 1.8 %, where d = 5 and K = 1024 or 16384, and where
            d = 8 and K = 16384; 16 accept 2.8, 4.2 and 1.9 % fewer steps.
        neighbours: k of the density estimate (8 in the code).
        reference_size: K_ref; None for the only size offered, or 1024 where there are several.
        refresh_steps: Training steps in which the queue is replaced once (200 to 500 work; the
            code's fixed probability of 0.01 per token depends on the batch).
        nested: Builds codebooks that are a tree, so that an index at one size tells that of every
            smaller size, and files can have layers. The paper has none: its codebooks are
            independent. See `codec.layers` and docs/bottlenecks/vp.md for what it costs.

    Raises:
        ValueError: The sizes are not ascending, or are to be nested and none is a multiple of the
            one before; or the queue would hold fewer rows than the neighbours asked for.
    """

    coupled = False
    loss_names = ("mean", "variance")
    training_state = ("queue", "queue_position", "queue_count")
    queue: Tensor  # (Q, d)
    queue_position: Tensor  # () int64, the row that is replaced next
    queue_count: Tensor  # () int64, rows that hold real latents
    fitted: Tensor  # () bool

    def __init__(
        self,
        dim: int = 5,
        codebook_sizes: tuple[int, ...] = (256, 1024, 4096, 16384),
        eta: float = 1.15,
        rows_per_code: int = 32,
        neighbours: int = 8,
        reference_size: int | None = None,
        refresh_steps: int = 300,
        nested: bool = False,
    ) -> None:
        super().__init__(dim, codebook_sizes)
        if nested and any(fine % coarse for coarse, fine in pairwise(self.codebook_sizes)):
            raise ValueError(
                "sizes that are nested are each a multiple of the one before, "
                f"not {self.codebook_sizes}"
            )
        self.nested = flag(nested, "nested")
        if reference_size is None:
            reference_size = self.codebook_sizes[0] if len(self.codebook_sizes) == 1 else 1024
        self.eta = real(eta, "eta", 0)
        self.rows_per_code = whole(rows_per_code, "rows_per_code", 1)
        self.neighbours = whole(neighbours, "neighbours", 1)
        self.reference_size = whole(reference_size, "reference_size", 1)
        self.refresh_steps = whole(refresh_steps, "refresh_steps", 1)
        num_rows = self.rows_per_code * self.reference_size
        if max(self.rows_per_code, self.neighbours) > num_rows:
            raise ValueError(
                f"{rows_per_code} and {neighbours} neighbours do not fit a queue of {num_rows} rows"
            )
        self.register_buffer("queue", torch.zeros(num_rows, dim, dtype=torch.float32))
        self.register_buffer("queue_position", torch.tensor(0))
        self.register_buffer("queue_count", torch.tensor(0))
        self.register_buffer("fitted", torch.tensor(False))
        for size in self.codebook_sizes:
            self.register_buffer(f"codebook_{size}", torch.zeros(size, dim, dtype=torch.float32))

    @property
    def settled(self) -> bool:
        """In training once the queue is full: until then nothing is perturbed."""
        return not self.training or bool(self.queue_count == len(self.queue))

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Perturbs and then updates the queue.

        Returns:
            z_q (B, d, *S), and no indices; the losses "mean" and "variance" (eq. 11), means over
            dimensions of the squared distance of the batch's mean from 0 and its unbiased variance
            from 1 (published weights 0.1 and 0.07); the stats "queue_fill", and once it is 1
            "accept_rate" and the mean "radius".

        Raises:
            ValueError: The size is not offered, or one of a tensor is not positive.
        """
        tokens = to_tokens(z)
        scale = self._radius_scale(codebook_size, z)
        step, stats = self._perturb(tokens.detach(), scale)
        self._remember(tokens.detach())  # after the search, or each token would find itself
        z_q = z + to_grid(step, z)  # identity gradient
        return BottleneckOutput(z_q, None, _moments(tokens), stats)

    def _encode(self, z: Tensor, size: int) -> Tensor:
        """argmin over c of |z - c|.

        Nested, it is among the children of the code that the next smaller size has.
        """
        tokens = to_tokens(z)
        if not self.nested:
            return to_grid(nearest(tokens, self.codebook(size))[:, None], z)
        ways = self.codebook_sizes[: self.codebook_sizes.index(size) + 1]
        index = nearest(tokens, self.codebook(ways[0]))
        for coarse, fine in pairwise(ways):
            index = nearest_child(tokens, self.codebook(fine), index, fine // coarse)
        return to_grid(index[:, None], z)

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        """Codebook rows."""
        return F.embedding(indices[:, 0], self.codebook(size)).movedim(-1, 1).contiguous()

    def target(self, z: Tensor) -> Tensor:
        return z.float()

    def parents(self, codebook_size: int, coarser: int) -> Tensor | None:
        """Nested where the codebooks are: the children of a code follow one another."""
        fine, coarse = self.check_size(codebook_size), self.check_size(coarser)
        if not self.nested or fine % coarse:
            return None
        return torch.arange(fine, device=self.fitted.device) // (fine // coarse)

    def codebook(self, codebook_size: int | None = None) -> Tensor:
        """(K, d) float32, of values that float16 holds exactly.

        Raises RuntimeError before `fit`.
        """
        size = self.check_size(codebook_size)
        if may_read() and not self.fitted:
            raise RuntimeError("VP has no codebook yet; build it with fit(latents)")
        return self.get_buffer(f"codebook_{size}")

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Builds the codebook of every size by k-means; the same latents give the same codebooks.

        Args:
            latents: (N, d), best of the final encoder over the whole training set. At most 200 rows
                per code are used; with fewer rows than codes the rest are noisy copies.

        Raises:
            TypeError: `latents` is no tensor.
            ValueError: `latents` is not (N >= 1, d), has no float type, or is not finite, or too
                large or too far from 0 for float16, in which a codebook is stored, to tell its
                codes apart. No codebook has changed then.
        """
        latents = check_latents(latents, self.in_dim)
        books: dict[int, Tensor] = {}
        for size in self.codebook_sizes[:1] if self.nested else self.codebook_sizes:
            generator = torch.Generator(latents.device).manual_seed(FIT_SEED)
            data = subsample(latents, min(FIT_ROWS_PER_CODE * size, FIT_ROWS), generator)
            centres = kmeans(data, size, FIT_SEED, FIT_ITERATIONS)
            if self.nested:
                centres = halved(centres[None])[0]
            books[size] = _stored(centres)
        if self.nested:
            books |= self._grown(latents, books[self.codebook_sizes[0]])
        for size, codes in books.items():
            self.get_buffer(f"codebook_{size}").copy_(codes)
        self.fitted.fill_(True)

    def _grown(self, latents: Tensor, codes: Tensor) -> dict[int, Tensor]:
        """The codebooks of all sizes but the smallest, whose `codes` these are.

        Each is made from the cells of the one before.
        """
        books: dict[int, Tensor] = {}
        generator = torch.Generator(latents.device).manual_seed(FIT_SEED)
        data = subsample(
            latents, min(FIT_ROWS_PER_CODE * self.codebook_sizes[-1], FIT_ROWS), generator
        )
        cells = nearest(data, codes)
        for coarse, fine in pairwise(self.codebook_sizes):
            children = fine // coarse
            parts = split_cells(data, cells, codes, children, FIT_SEED, FIT_ITERATIONS)
            codes = _stored(halved(parts.view(coarse, children, -1)).flatten(0, 1))
            cells = nearest_child(data, codes, cells, children)
            books[fine] = codes
        return books

    def _radius_scale(self, codebook_size: Size, z: Tensor) -> float | Tensor:
        """(K_ref / K)^(1/d): a number, or one for each token."""
        if isinstance(codebook_size, Tensor):
            sizes = per_sample(codebook_size, z)
            if may_read() and (sizes < 1).any():
                raise ValueError("codebook sizes must be at least 1")
            scale: Tensor = (self.reference_size / sizes) ** (1 / self.dim)
            return scale
        return float((self.reference_size / self.check_size(codebook_size)) ** (1 / self.dim))

    @torch.no_grad()
    def _perturb(self, z: Tensor, scale: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Eqs. 5-9 on (N, d) tokens: their steps.

        A step is zero where it is refused or while the queue still fills.
        """
        fill = self.queue_count.float() / len(self.queue)
        if may_read() and fill < 1:
            return torch.zeros_like(z), {"queue_fill": fill}
        queue = Neighbours(self.queue)
        log_pi, log_radius, radius = self._density(z, scale, queue)
        step = sample_ball(radius, self.dim)
        # The new radius uses z's K also for z': a token keeps its codebook size when it moves.
        log_pi_new, log_radius_new, radius_new = self._density(z + step, scale, queue)
        # Eq. 7: else z' could never have come back to z.
        backward_possible = step.norm(dim=1) <= radius_new
        accepted = accept(
            log_pi, log_pi_new, log_radius, log_radius_new, backward_possible, self.dim
        )
        stats = {
            "queue_fill": fill,
            "accept_rate": accepted.float().mean(),
            "radius": radius.mean(),
        }
        return torch.where(accepted[:, None], step, 0.0), stats

    def _density(
        self, z: Tensor, scale: float | Tensor, queue: Neighbours
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log pi(z) but for a constant, log R(z), R(z); each (N,)."""
        density, cell = queue.radii(z, (self.neighbours, self.rows_per_code))
        # Identical latents, as of digital silence, have distance 0.
        smallest = SMALLEST * self.queue.std()
        log_pi = -self.dim * density.clamp(min=smallest).log()  # pi ~ D_k^-d
        radius = self.eta * scale * cell  # R = eta D_M
        return log_pi, (self.eta * scale * cell.clamp(min=smallest)).log(), radius

    @torch.no_grad()
    def _remember(self, tokens: Tensor) -> None:
        """Writes a random part of the tokens over the oldest rows.

        It is all of them while the queue fills, then Q / 300.
        """
        tokens = gather_rows(tokens)  # of all processes: one queue
        usable = tokens.isfinite().all(1)  # one bad batch must not poison the next 300 steps
        num_rows = len(self.queue)
        count = min(len(tokens), ceil(num_rows / self.refresh_steps))
        if may_read() and self.queue_count < num_rows:
            count = min(int(usable.sum()), num_rows)
        lots = torch.rand(len(tokens), device=tokens.device, dtype=torch.float32).masked_fill_(
            ~usable, -1
        )
        chosen = from_first(lots).topk(count).indices  # the usable first, in a random order
        rows = (self.queue_position + torch.arange(count, device=tokens.device)) % num_rows
        self.queue[rows] = torch.where(usable[chosen, None], tokens[chosen], self.queue[rows])
        self.queue_position.copy_((self.queue_position + count) % num_rows)
        self.queue_count.add_(count).clamp_(max=num_rows)


def sample_ball(radius: Tensor, dim: int) -> Tensor:
    """Draws the proposal, uniform in a ball: (N,) radii -> (N, dim) steps.

    |u| = R rho^(1/d) with rho ~ U(0, 1).
    """
    direction = F.normalize(
        torch.randn(len(radius), dim, device=radius.device, dtype=radius.dtype), dim=1
    )
    share = torch.rand_like(radius) ** (1 / dim)
    return direction * (radius * share)[:, None]


def accept(
    log_pi: Tensor,
    log_pi_new: Tensor,
    log_radius: Tensor,
    log_radius_new: Tensor,
    backward_possible: Tensor,
    dim: int,
) -> Tensor:
    """The Metropolis-Hastings test for steps uniform in a ball.

    The ball's radius depends on where it stands.

    The proposal density is 1 / (c R^d) inside the ball and 0 outside, so that

        a = pi(z') g(z|z') / (pi(z) g(z'|z)) = pi(z') / pi(z) * (R(z) / R(z'))^d

    where |z - z'| <= R(z'), and a = 0 elsewhere.

    Args:
        log_pi: (N,) log density at z, up to a constant; `log_pi_new` at z'.
        log_radius: (N,) log R(z); `log_radius_new` log R(z').
        backward_possible: (N,) bool, |z - z'| <= R(z').
        dim: d.

    Returns:
        (N,) bool, true with probability min(1, a); a NaN is a refusal.
    """
    log_ratio = log_pi_new - log_pi + dim * (log_radius - log_radius_new)
    return (torch.rand_like(log_ratio).log() < log_ratio) & backward_possible


def _moments(tokens: Tensor) -> dict[str, Tensor]:
    """Eq. 11 as published, with means instead of sums over dimensions.

    A single token has variance 0.
    """
    variance, mean = var_mean_of_all(tokens)
    return {"mean": mean.square().mean(), "variance": (variance - 1).square().mean()}


def _stored(codes: Tensor) -> Tensor:
    """(K, d) codes -> what a model file holds of them, so that all use the same.

    Raises ValueError where that is not what they are: where the rounding error is above a quarter
    of the distance that K codes keep in the space that they fill.
    """
    stored = codes.half().float() + 0.0  # no -0.0, which adding a gradient's zero would change
    exact = codes.double()  # whose squares do not vanish
    extent = (exact.amax(0) - exact.amin(0)).norm()
    spacing = extent / len(codes) ** (1 / codes.shape[1])
    error = (stored - exact).square().sum(1).mean().sqrt()
    if not stored.isfinite().all() or (extent > 0 and not error <= spacing / 4):
        raise ValueError(
            f"float16 cannot tell codes of mean {codes.mean():.3g} and deviation {codes.std():.3g} "
            'apart; train with the losses "mean" and "variance", or normalise the latents'
        )
    return stored
