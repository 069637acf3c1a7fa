"""Random numbers that decide what is trained on.

They say which crops, how augmented, at which codebook size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Draws:
    """One stream of random numbers, the same on every process.

    Each takes the rows of its own samples from it.

    So two processes see what one would see with the batch of both, and a stream saved is a stream
    that goes on. (Noise inside a bottleneck is not drawn here: it comes from torch's global
    generators, a different seed for each process.)

    Args:
        seed: The seed of the stream.
        device: The device that the numbers come to lie on.
        rank: The number of this process.
        world: The number of processes.
    """

    def __init__(self, seed: int, device: str = "cpu", rank: int = 0, world: int = 1) -> None:
        self.rank, self.world, self.device = rank, world, device
        self.kind = torch.device(device).type
        # For what the host must know: sizes of tensors.
        self.host = torch.Generator().manual_seed(seed)
        # By kind of device: "cuda:1" goes on with what "cuda:0" has saved.
        self.generators = {"cpu": self.host}
        if self.kind != "cpu":
            self.generators[self.kind] = torch.Generator(device).manual_seed(seed + 1)

    def uniform(self, rows: int, *shape: int, double: bool = False) -> Tensor:
        """Draws (rows, *shape) numbers in [0, 1), on the device.

        They are this process's part of what all draw.
        """
        dtype = torch.float64 if double else torch.float32
        full = (rows * self.world, *shape)
        return self._own(
            torch.rand(full, generator=self.generators[self.kind], device=self.device, dtype=dtype),
            rows,
        )

    def normal(self, rows: int, *shape: int) -> Tensor:
        """Draws (rows, *shape) standard normal numbers, on the device."""
        full = (rows * self.world, *shape)
        return self._own(
            torch.randn(full, generator=self.generators[self.kind], device=self.device), rows
        )

    def integers(self, rows: int, limit: int) -> Tensor:
        """Draws (rows,) int64 in [0, limit), on the host."""
        return self._own(torch.randint(limit, (rows * self.world,), generator=self.host), rows)

    def integer(self, limit: int) -> int:
        """Draws a number in [0, limit), the same on every process."""
        return int(torch.randint(limit, (1,), generator=self.host))

    def _own(self, rows: Tensor, count: int) -> Tensor:
        return rows[self.rank * count : (self.rank + 1) * count]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state by kind of device.

        The stream is the same on every process and device.
        """
        return {kind: generator.get_state() for kind, generator in self.generators.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved stream; one of another kind of device keeps only what both have."""
        # Some checkpoints say "cuda:0".
        saved = {name.partition(":")[0]: value for name, value in state.items()}
        for kind, generator in self.generators.items():
            if kind in saved:
                generator.set_state(saved[kind].cpu())


def noise_state(device: str) -> list[Tensor]:
    """Returns the states of torch's global generators: the host's, and that of a GPU if it is one.

    The noise inside bottlenecks comes from them.
    """
    host = torch.get_rng_state()
    return [host, torch.cuda.get_rng_state(device)] if _is_cuda(device) else [host]


def load_noise_state(states: list[Tensor], device: str) -> None:
    """Goes on from what `noise_state` returned; on another kind of device only the host does."""
    host, *devices = states
    torch.set_rng_state(host)
    if _is_cuda(device) and devices:
        torch.cuda.set_rng_state(devices[0], device)


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
