"""Residual: stages, each of which quantises what those before left over.

This is residual VQ (SoundStream, Zeghidour et al. 2021).

    z ──stage 1──> code_1    z - code_1 ──stage 2──> code_2    ...    z_q = code_1 + code_2 + ...
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor, nn

from codec.arguments import whole
from codec.bottleneck import Bottleneck, BottleneckOutput, Size, check_sizes, straight_through
from codec.bottlenecks._start import check_latents
from codec.bottlenecks.grouped import check_alike, join_indices, joined_names, numbered_stats


class Residual(Bottleneck):
    """Bottlenecks in sequence, each on a residual (SoundStream, Zeghidour et al. 2021).

    That residual is what the bottlenecks before it left over.

    For methods whose codes lie in the space of z and have a scale of their own: the VQ family,
    SimVQ, SQ-VAE, VP. (A residual of FSQ or FSP keeps the contract, but their outputs are squashed
    and no later stage is finer than the first.) With VP, stage 2 perturbs what stage 1's
    perturbation left, so that z_q = z + the last stage's step, whose length is that of the residual
    codebooks' error.

    Gradient. Each stage sees z with 1/S of its gradient: straight-through stages then give z_q the
    identity, others the mean of theirs, while every codebook gets its full gradient. (Summing S
    straight-through stages multiplies the encoder's gradient by S: encodec's issue 25.) What
    earlier stages subtract carries no gradient.

    Decoding. `decode` takes the indices of the first stages alone, too: fewer bits, and a coarser
    z_q.

    Losses are sums over the stages: each codebook its own, and z the mean of the pulls. Stats are
    numbered by stage, "name.stage". A batch has one size, whatever the method, and each size has
    stages of its own, since what is left over depends on the size.

    Args:
        build: Makes one stage that offers exactly the given size.
        codebook_sizes: The sizes K of each stage, ascending.
        num_stages: S, 1 or more; the rate is S log2 K.

    Raises:
        TypeError: `build` is no function, but a bottleneck, say.
        ValueError: The sizes are not ascending, there is no stage, or a stage offers other sizes or
            takes other channels than it gives.
    """

    coupled = True

    def __init__(
        self,
        build: Callable[[int], Bottleneck],
        codebook_sizes: tuple[int, ...] = (1024,),
        num_stages: int = 2,
    ) -> None:
        if not callable(build) or isinstance(build, nn.Module):
            raise TypeError(f"want a function of K that makes a stage, not {type(build).__name__}")
        sizes = check_sizes(codebook_sizes)
        num_stages = whole(num_stages, "num_stages", 1)
        chains = {size: [build(size) for _ in range(num_stages)] for size in sizes}
        for chain in chains.values():
            check_alike(chain)
        first = chains[sizes[0]][0]
        super().__init__(first.dim, sizes)
        for size, chain in chains.items():
            if any(
                s.codebook_sizes != (size,) or not s.dim == s.in_dim == first.dim for s in chain
            ):
                raise ValueError(
                    f"a stage must offer the one size {size} and give the {first.dim} channels it "
                    "takes"
                )
        self.chains = nn.ModuleDict(
            {str(size): nn.ModuleList(chain) for size, chain in chains.items()}
        )
        self.num_codebooks = sum(stage.num_codebooks for stage in chains[sizes[0]])
        self.loss_names = joined_names(chains[sizes[0]])
        self.training_state = tuple(
            f"chains.{size}.{i}.{name}"
            for size, chain in chains.items()
            for i, stage in enumerate(chain)
            for name in stage.training_state
        )

    @property
    def row_counts(self) -> tuple[int, ...]:
        """Those of the first stage, of the first two, and so on: `decode` adds what it is given."""
        stages = self._chain(self.codebook_sizes[0])
        return tuple(accumulate(stage.num_codebooks for stage in stages))

    @property
    def settled(self) -> bool:
        return all(stage.settled for size in self.codebook_sizes for stage in self._chain(size))

    def num_codes(self, codebook_size: int | None = None) -> int:
        """Of each stage."""
        return self._chain(codebook_size)[0].num_codes()

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """All stages in turn: z_q is the sum of the stages'.

        Indices are None while any stage's are.
        """
        chain = self._chain(codebook_size)
        share = _share(z, len(chain))
        outputs: list[BottleneckOutput] = []
        total = torch.zeros_like(z)
        for stage in chain:
            outputs.append(stage(share - total.detach()))
            total = total + outputs[-1].z_q
        names = {name: None for out in outputs for name in out.losses}  # in order
        losses = {
            name: torch.stack([o.losses[name] for o in outputs if name in o.losses]).sum()
            for name in names
        }
        return BottleneckOutput(total, join_indices(outputs), losses, numbered_stats(outputs))

    def _encode(self, z: Tensor, size: int) -> Tensor:
        rows: list[Tensor] = []
        total = torch.zeros_like(z)
        for stage in self._chain(size):
            rows.append(stage._encode(z - total, size))
            total = total + stage._decode(rows[-1], size)
        return torch.cat(rows, 1)

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        """The sum of the codes of the stages whose indices are given, in their order."""
        chain = self._chain(size)[: self.row_counts.index(indices.shape[1]) + 1]
        rows = torch.split(indices, [stage.num_codebooks for stage in chain], 1)
        codes = [stage._decode(row, size) for stage, row in zip(chain, rows, strict=True)]
        total = torch.zeros_like(codes[0])
        for code in codes:
            total = total + code
        return total

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:
        """The codes of all stages but the last, and the last before rounding."""
        chain = self._chain(size)
        share = _share(z, len(chain))
        path, before, last = torch.zeros_like(z), torch.zeros_like(z), torch.zeros_like(z)
        total = torch.zeros_like(z)
        for stage in chain:
            left, before = share - total, total
            last = stage._gradient_path(left, size)
            path = path + last
            with torch.no_grad():
                total = total + stage._decode(stage._encode(left.detach(), size), size)
        return straight_through(before + last, path)

    def anneal(self, progress: float) -> None:
        for size in self.codebook_sizes:
            for stage in self._chain(size):
                stage.anneal(progress)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Each stage fits what those before leave of (N, D) latents.

        Raises:
            TypeError: `latents` is no tensor.
            ValueError: `latents` is not (N >= 1, D), has no float type or is not finite; or a stage
                refuses what is left.
        """
        latents = check_latents(latents, self.in_dim)
        for size in self.codebook_sizes:
            residual = latents
            for stage in self._chain(size):
                stage.fit(residual)
                grid = residual.T[None]
                residual = residual - stage.decode(stage.encode(grid))[0].T

    def _chain(self, codebook_size: Size) -> list[Bottleneck]:
        chain = self.chains[str(self.check_size(codebook_size))]
        assert isinstance(chain, nn.ModuleList)
        return [stage for stage in chain if isinstance(stage, Bottleneck)]


def _share(z: Tensor, parts: int) -> Tensor:
    """z, with one part of its gradient."""
    return z.detach() + (z - z.detach()) / parts
