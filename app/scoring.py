"""Figures of a version.

They are the metrics of every table, and more where they are quick enough for a page.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from app.media import KINDS, Metric, Scores, Signal
from app.originals import Original
from app.store import import_heavy
from codec.errors import CodecError

log = logging.getLogger("app")

BACKBONES = ("alexnet-*.pth", "vgg16-*.pth", "squeezenet1_1-*.pth")  # as torch hub calls them


class Scorer:
    """Scores versions against their originals. Several threads may ask.

    Args:
        backbone: The backbone of LPIPS; None looks where torch hub keeps them.
    """

    def __init__(self, backbone: Path | None) -> None:
        self._backbone = backbone
        self._perceptual: dict[str, Metric] | None = None
        self._lock = threading.Lock()

    def score(self, original: Original, samples: Signal) -> Scores:
        """Returns the page's metrics of a version; None where there is no figure.

        Args:
            original: What the version is of.
            samples: The version, like `original.reference`. Of speech the first
                `app.media.SCORED_SECONDS` are scored.
        """
        kind = KINDS[original.medium]
        return kind.score(original.reference, samples, self.load)

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
        # backbones() has the nets of torch hub before those of files.
        found = (
            [lpips_metric.of_file(backbone)] if backbone else lpips_metric.backbones([], [])[0][:1]
        )
        return {one.name: optional(one.load()) for one in found}
    except CodecError as error:
        log.error("%s; going on without LPIPS", error)
        return {}
