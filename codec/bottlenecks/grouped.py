"""Grouped: a latent vector cut into parts, each with a bottleneck of its own.

This is product quantisation (Jégou et al. 2011).

    z (B, sum of D_in, *S) ──split──> parts ──each its bottleneck──> indices (B, G, *S), z_q joined

The first D channels of z are the points of all groups, in order; what a method wants beyond its
points (GM-VQ's weights, TokenBridge's variances) follows, in the same order.

Rate and cost are sums over the groups, so that high rates need no large codebook.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.bottleneck import Bottleneck, BottleneckOutput, Size
from codec.bottlenecks._start import check_latents


class Grouped(Bottleneck):
    """Independent bottlenecks side by side (product quantisation, Jégou et al. 2011).

    Losses are means over the groups that have them, so that weights do not depend on how many there
    are; stats keep each group's value under "name.group". Indices are None while any group's are.

    Args:
        groups: The bottlenecks, best of 6 dimensions or fewer each; they may differ, but offer the
            same sizes.

    Raises:
        ValueError: There are no groups, they differ in sizes or numbers of codes, or one takes
            fewer channels than it gives.
    """

    def __init__(self, groups: Sequence[Bottleneck]) -> None:
        groups = list(groups)
        check_alike(groups)
        if any(group.in_dim < group.dim for group in groups):
            raise ValueError("a group must take at least as many channels as it gives")
        super().__init__(
            sum(group.dim for group in groups),
            groups[0].codebook_sizes,
            in_dim=sum(group.in_dim for group in groups),
        )
        self.groups = nn.ModuleList(groups)
        self.num_codebooks = sum(group.num_codebooks for group in groups)
        self.coupled = any(group.coupled for group in groups)
        self.loss_names = joined_names(groups)
        self.training_state = tuple(
            f"groups.{i}.{name}" for i, g in enumerate(groups) for name in g.training_state
        )

    @property
    def settled(self) -> bool:
        return all(group.settled for group in self._parts())

    def num_codes(self, codebook_size: int | None = None) -> int:
        """Of each group."""
        return self._parts()[0].num_codes(codebook_size)

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """Each group does what it does with its channels of z."""
        if self.coupled:
            codebook_size = self.check_size(codebook_size)
        outputs = [
            group(part, codebook_size)
            for group, part in zip(self.groups, self._split(z), strict=True)
        ]
        names = {name: None for out in outputs for name in out.losses}  # in order
        losses = {
            name: torch.stack([o.losses[name] for o in outputs if name in o.losses]).mean()
            for name in names
        }
        return BottleneckOutput(
            torch.cat([out.z_q for out in outputs], 1),
            join_indices(outputs),
            losses,
            numbered_stats(outputs),
        )

    def _encode(self, z: Tensor, size: int) -> Tensor:
        return torch.cat(
            [g._encode(part, size) for g, part in zip(self._parts(), self._split(z), strict=True)],
            1,
        )

    def _decode(self, indices: Tensor, size: int) -> Tensor:
        parts = self._parts()
        rows = torch.split(indices, [group.num_codebooks for group in parts], 1)
        return torch.cat(
            [group._decode(row, size) for group, row in zip(parts, rows, strict=True)], 1
        )

    def _gradient_path(self, z: Tensor, size: int) -> Tensor:
        paths = [
            g._gradient_path(part, size)
            for g, part in zip(self._parts(), self._split(z), strict=True)
        ]
        return torch.cat(paths, 1)

    def anneal(self, progress: float) -> None:
        for group in self._parts():
            group.anneal(progress)

    def fit(self, latents: Tensor) -> None:
        """Each group fits its channels of (N, D_in) latents.

        Raises:
            TypeError: `latents` is no tensor.
            ValueError: `latents` is not (N >= 1, D_in), has no float type or is not finite; or a
                group refuses its channels.
        """
        latents = check_latents(latents, self.in_dim)
        for group, part in zip(self._parts(), self._split(latents), strict=True):
            group.fit(part)

    def _parts(self) -> list[Bottleneck]:
        return [group for group in self.groups if isinstance(group, Bottleneck)]

    def _split(self, z: Tensor) -> list[Tensor]:
        """(B, D_in, ...) -> (B, D_in of the group, ...) of each group."""
        points = torch.split(z[:, : self.dim], [group.dim for group in self._parts()], 1)
        others = torch.split(
            z[:, self.dim :], [group.in_dim - group.dim for group in self._parts()], 1
        )
        return [torch.cat(pair, 1) for pair in zip(points, others, strict=True)]


def check_alike(parts: Sequence[Bottleneck]) -> None:
    """Raises ValueError unless there are parts, of the same sizes and numbers of codes.

    One K must mean one thing. What is no bottleneck is a TypeError.
    """
    if strangers := [part for part in parts if not isinstance(part, Bottleneck)]:
        raise TypeError(f"parts are bottlenecks, not {strangers[0]!r}")
    offers = {tuple((k, part.num_codes(k)) for k in part.codebook_sizes) for part in parts}
    if len(offers) != 1:
        raise ValueError(
            f"parts must offer the same codebook sizes and numbers of codes, got {sorted(offers)}"
        )


def joined_names(parts: Sequence[Bottleneck]) -> tuple[str, ...]:
    """The names of all parts' losses, each once, in order."""
    return tuple(dict.fromkeys(name for part in parts for name in part.loss_names))


def join_indices(outputs: Sequence[BottleneckOutput]) -> Tensor | None:
    """(B, G, *S), all parts' indices in order; None where any part has none."""
    found = [out.indices for out in outputs if out.indices is not None]
    return torch.cat(found, 1) if len(found) == len(outputs) else None


def numbered_stats(outputs: Sequence[BottleneckOutput]) -> dict[str, Tensor]:
    """Stats of all parts, as "name.part"."""
    return {
        f"{name}.{i}": value for i, out in enumerate(outputs) for name, value in out.stats.items()
    }
