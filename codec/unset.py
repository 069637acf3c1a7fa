"""Modules whose first weights are not drawn, as a file is going to give them.

Drawing them would take time, and change the random numbers of the program that loads a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

# What draws in the constructors of modules: into a tensor, its first argument, and a new one. Of
# torch.nn.init the others draw by these.
INTO: tuple[Callable[..., Any], ...] = (
    Tensor.uniform_,
    Tensor.normal_,
    init.uniform_,
    init.normal_,
    init.kaiming_uniform_,
    init.kaiming_normal_,
)
NEW: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.randn: torch.zeros,
    torch.rand: torch.zeros,
}


class _Unset(TorchFunctionMode):
    """Puts zeros where numbers would be drawn, in the thread that asked for it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if func in INTO:
            with torch.no_grad():
                return (args[0] if args else options["tensor"]).zero_()
        return NEW.get(func, func)(*args, **options)


@contextmanager
def unset() -> Iterator[None]:
    """Makes modules on the CPU, whatever the default device is, and draws nothing for them.

    Weights that would be drawn are 0: load others.
    """
    with torch.device("cpu"), _Unset():
        yield
