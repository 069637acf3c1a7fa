"""What sets a picture apart from its reconstruction: L1, squared error, SSIM, LPIPS if given."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from codec.precision import Float32
from codec.tensors import check_pair

IMAGE_EXTRA: dict[str, Callable[[], nn.Module]] = {}
WINDOW = 11  # pixels of SSIM's, along each side


class ImageLoss(Float32):
    """L1, squared error, 1 - SSIM and, where its net is given, LPIPS.

    Args:
        lpips: Maps two (B, 3, H, W) pictures to (B,) distances, as `train.lpips_net.LPIPSNet` does;
            None leaves the term out.
        extra: Names in `IMAGE_EXTRA` of the terms to add, those that a package has added.

    Attributes:
        shortest: Pixels that the window of SSIM needs along each side, rounded up.
    """

    shortest = 16

    def __init__(self, lpips: nn.Module | None = None, extra: Collection[str] = ()) -> None:
        super().__init__()
        self.lpips = lpips
        self.extra = nn.ModuleDict({name: IMAGE_EXTRA[name]() for name in sorted(extra)})

    def forward(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Returns named (B,) distances of two (B, 3, H, W) pictures.

        The names are "l1", "mse", "ssim" (1 - SSIM), those of the extra ones and, where it is asked
        for, "lpips". They are float32, under autocast, too.

        Raises:
            TypeError: One is no tensor.
            ValueError: They are no floats, differ in shape, are empty, or are smaller than the
                window of SSIM, 11 x 11 pixels.
        """
        x, x_hat = check_pair(x, x_hat, channels=None, axes=2, shortest=WINDOW)
        with torch.autocast(x.device.type, enabled=False):
            return self._terms(x, x_hat)

    def _terms(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        terms = {
            "l1": (x - x_hat).abs().mean((1, 2, 3)),
            "mse": (x - x_hat).square().mean((1, 2, 3)),
            "ssim": 1 - ssim(x, x_hat),
        }
        terms |= {name: term(x, x_hat) for name, term in self.extra.items()}
        return terms if self.lpips is None else terms | {"lpips": self.lpips(x, x_hat)}


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean structural similarity (Wang et al. 2004) of pictures in [0, 1], (B,).

    The window is Gaussian, 11 pixels wide, with sigma 1.5. This one is for training and search: it
    is differentiable, and blurs by two matrix products, ten times faster on a CPU than a
    convolution. The figures of `eval` come from scikit-image.
    """
    with torch.no_grad():
        mx, xx = _blur(x), _blur(x * x)
    my, yy, xy = _blur(y), _blur(y * y), _blur(x * y)
    vx, vy, cov = xx - mx * mx, yy - my * my, xy - mx * my
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return values.mean((1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Blurs (B, C, H, W) to (B, C, H - 10, W - 10)."""
    rows, columns = _band(x.shape[2], x.device), _band(x.shape[3], x.device)
    return rows.T @ (x @ columns)


def _band(length: int, device: torch.device) -> Tensor:
    """Returns a matrix (length, length - 10) with the Gaussian window in each column.

    Each column has it one step lower than the one before.
    """
    rows, columns = (
        torch.arange(n, dtype=torch.float32, device=device) for n in (length, length - 10)
    )
    offset = rows[:, None] - columns - 5
    window = torch.exp(-offset.square() / (2 * 1.5**2)) * (offset.abs() <= 5)
    return window / window.sum(0)
