"""LPIPS, where a backbone for it is on this machine; nothing is fetched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codec.errors import CodecError

log = logging.getLogger("app")

BACKBONES = ("alexnet-*.pth", "vgg16-*.pth", "squeezenet1_1-*.pth")  # as torch hub calls them


def load(backbone: Path | None) -> dict[str, Callable[[Any, Any], float | None]]:
    """Name -> distance between two pictures, (H, W, 3) uint8; empty where there is no backbone.

    Args:
        backbone: A file; None looks where torch hub keeps them.
    """
    import torch

    hub = Path(torch.hub.get_dir()) / "checkpoints"
    if backbone is None and not any(any(hub.glob(name)) for name in BACKBONES):
        return {}
    from eval import lpips_metric  # takes seconds: it brings torchvision
    from eval.metrics import optional

    try:
        found, _ = lpips_metric.backbones([], [backbone] if backbone else [])
        return {one.name: optional(one.load()) for one in found[:1]}
    except CodecError as error:
        log.error("%s; going on without LPIPS", error)
        return {}
