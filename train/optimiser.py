"""AdamW as a step without the host needs it.

The learning rate is a tensor, and gradients may be skipped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SETTINGS = ("betas", "weight_decay")  # a recipe's, which may change in a run


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
    """Loads a state.

    The learning rate goes on being read from `rate`, and the optimiser keeps its own settings.
    """
    own = [{name: group[name] for name in SETTINGS} for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, settings in zip(optimiser.param_groups, own, strict=True):
        group.update(settings, lr=rate, capturable=rate.is_cuda)
