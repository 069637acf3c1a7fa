"""Checks of arguments that are tensors, as `codec.arguments` has them for the others."""

from __future__ import annotations

import torch
from torch import Tensor


def check_tensor(value: object, name: str) -> Tensor:
    """Returns what is a tensor. Raises TypeError for anything else, say an array of numpy."""
    if isinstance(value, Tensor):
        return value
    raise TypeError(
        f"want {name} as a tensor, not {type(value).__name__}; torch.as_tensor makes one"
    )


def check_pair(
    x: object, x_hat: object, channels: int | None, axes: int, shortest: int
) -> tuple[Tensor, Tensor]:
    """Returns a signal and its reconstruction, each (B, C, *N), in float32.

    Args:
        x: The signal.
        x_hat: Its reconstruction.
        channels: C; None for any.
        axes: How many axes N has.
        shortest: The least length of each.

    Raises:
        TypeError: One is no tensor.
        ValueError: They are no floats, differ in shape, or have no sample or another shape than
            asked for.
    """
    pair = check_tensor(x, "a signal"), check_tensor(x_hat, "a reconstruction")
    shape = pair[0].shape
    if (
        not all(one.is_floating_point() and one.shape == shape for one in pair)
        or len(shape) != 2 + axes
        or channels not in (None, shape[1])
        or not shape[:2].numel()
        or min(shape[2:]) < shortest
    ):
        lengths = " x ".join([f"{shortest}"] * axes)
        raise ValueError(
            f"want a signal and its reconstruction, both floats (B, {channels or 'C'}, "
            f"{'H, W' if axes == 2 else 'T'}) of at least {lengths}, not "
            + " and ".join(f"{tuple(one.shape)} of {one.dtype}" for one in pair)
        )
    return pair[0].float(), pair[1].float()


def one_each(numbers: Tensor, z: Tensor) -> bool:
    """Whether `numbers` are integers, one for each sample of z (B, ...)."""
    kind = numbers.dtype
    whole = not (kind.is_floating_point or kind.is_complex or kind == torch.bool)
    return whole and numbers.shape == z.shape[:1]
