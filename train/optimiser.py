"""AdamW as a step without the host needs it.

The learning rate is a tensor, and gradients may be skipped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def make_optimiser(
    groups: list[dict[str, Any]], rate: Tensor, betas: list[float]
) -> torch.optim.AdamW:
    """Makes an AdamW whose groups all read their learning rate from `rate`, ().

    On a GPU it can be captured in a graph.
    """
    settings = [group | {"lr": rate} for group in groups]
    return torch.optim.AdamW(
        settings, rate, (betas[0], betas[1]), fused=True, capturable=rate.is_cuda
    )


def guarded_step(optimiser: torch.optim.AdamW, module: nn.Module, clip: float) -> Tensor:
    """Clips the gradients of a module and takes a step; it takes none where they are not finite.

    Returns:
        The gradients' norm before it was clipped, ().
    """
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimiser.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # as a gradient scaler would say it
    optimiser.step()
    return norm


def restore(optimiser: torch.optim.AdamW, state: dict[str, Any], rate: Tensor) -> None:
    """Loads a state; the learning rate goes on being read from `rate`."""
    optimiser.load_state_dict(state)
    for group in optimiser.param_groups:
        group["lr"], group["capturable"] = rate, rate.is_cuda
