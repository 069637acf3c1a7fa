"""VQ, vector quantisation with a straight-through gradient (van den Oord et al. 2017).

Each latent vector becomes its nearest code; the gradient passes from the code to the vector
unchanged. What later papers changed about that is one part each (in `codec.bottlenecks.codebooks`),
and a method is a choice of parts:

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

from codec.bottleneck import (
    Bottleneck,
    BottleneckOutput,
    Size,
    straight_through,
    to_grid,
    to_tokens,
)
from codec.bottlenecks._search import nearest
from codec.bottlenecks._soft import batch_perplexity
from codec.bottlenecks._start import check_latents, kmeans_start
from codec.bottlenecks._sync import gather_rows
from codec.bottlenecks.codebooks import (
    Affine,
    Alternating,
    ByAverage,
    ByGradient,
    Codebook,
    Restart,
    plain,
)
from codec.host import may_read


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
            TypeError: `latents` is no tensor.
            ValueError: `latents` is not (N >= 1, L), has no float type or is not finite.
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
