"""Figures of a version.

They are the metrics of every table, and more where they are quick enough for a page.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from app.originals import Original
from app.store import import_heavy
from codec.errors import CodecError
from codec.medium import SAMPLE_RATE

log = logging.getLogger("app")

SCORED_SECONDS = 10  # PESQ takes a quarter of a second for these
SCORED_PIXELS = 1 << 20  # SSIMULACRA2 takes two seconds and a gigabyte for these
BACKBONES = ("alexnet-*.pth", "vgg16-*.pth", "squeezenet1_1-*.pth")  # as torch hub calls them

Metric = Callable[[Any, Any], float | None]


class Scorer:
    """Scores versions against their originals. Several threads may ask.

    Args:
        backbone: The backbone of LPIPS; None looks where torch hub keeps them.
    """

    def __init__(self, backbone: Path | None) -> None:
        self._backbone = backbone
        self._perceptual: dict[str, Metric] | None = None
        self._lock = threading.Lock()

    def score(self, original: Original, samples: NDArray[Any]) -> dict[str, float | None]:
        """Returns the page's metrics of a version; None where there is no figure.

        Args:
            original: What the version is of.
            samples: The version, like `original.reference`. Of speech the first `SCORED_SECONDS`
                are scored.
        """
        from eval.metrics import score, ssimulacra2

        reference = original.reference
        if original.medium == "image":
            small = samples.shape[0] * samples.shape[1] <= SCORED_PIXELS
            scores = score("image", reference, samples)
            scores["SSIMULACRA2"] = ssimulacra2(reference, samples) if small else None
            return scores | {
                name: metric(reference, samples) for name, metric in self.load().items()
            }
        count = min(SCORED_SECONDS * SAMPLE_RATE, len(reference), len(samples))
        return score("speech", reference[:count], samples[:count])

    def load(self) -> dict[str, Metric]:
        """Returns LPIPS by its name, where a backbone is on this machine; it is loaded once."""
        with self._lock:
            if self._perceptual is None:
                import_heavy()
                self._perceptual = load_lpips(self._backbone)
            return self._perceptual


def load_lpips(backbone: Path | None) -> dict[str, Metric]:
    """Loads LPIPS where a backbone for it is on this machine; nothing is fetched.

    Args:
        backbone: A file; None looks where torch hub keeps them.

    Returns:
        The distance between two pictures, (H, W, 3) uint8, by its name; empty without a backbone.
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
