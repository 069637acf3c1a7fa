"""The distance of two pictures' edges: differences of neighbouring pixels, L1."""

from torch import Tensor, nn


class Edges(nn.Module):
    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        error = x - x_hat
        return sum(error.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (2, 3))
