"""Rounding to the nearest of a few levels: the least that a bottleneck can be."""

from torch import Tensor

from codec.bottlenecks.parts import BottleneckOutput, LevelGrid, straight_through


class Rounding(LevelGrid):
    """`levels` values between -1 and 1 in each dimension; "outside" is a loss of its own."""

    loss_names = ("outside",)

    def __init__(self, dim: int = 4, levels: int = 4) -> None:
        super().__init__({levels**dim: [levels] * dim}, fewest=2)
        self.steps = levels - 1

    def _training_forward(self, z: Tensor, _: int | Tensor | None) -> BottleneckOutput:
        z_q = straight_through(self._values(self._digits(z, 0), 0), z)
        return BottleneckOutput(z_q, None, {"outside": (z.abs() - 1).clamp(min=0).mean()})

    def _digits(self, z: Tensor, _: int) -> Tensor:
        return ((z.clamp(-1, 1) + 1) / 2 * self.steps).round().long()

    def _values(self, digits: Tensor, _: int) -> Tensor:
        return digits.float() / self.steps * 2 - 1
