"""LPIPS as a metric: `train.lpips_net` on pictures as eval holds them.

Its backbones are searched for here.

A backbone is read from a file, or from torch hub's folder if torchvision has put it there before;
it is downloaded only if its net is asked for by name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.errors import ModelError
from codec.medium import IMAGE
from eval.metrics import Metric, Unscored
from train.losses import LPIPS_SMALLEST
from train.lpips_net import HUB, LPIPSNet, hub_file, load, read_features


class LPIPS:
    """One net's distance between pictures, (H, W, 3) uint8; 0 for equal ones, larger is worse.

    Args:
        net: "alex", "vgg" or "squeeze".
        features: The backbone's convolutions, by the names of torchvision's `features`: "0.weight"
            ...
    """

    def __init__(self, net: str, features: Mapping[str, Tensor]) -> None:
        self._model = LPIPSNet(net, features)

    def __call__(self, x: NDArray[np.uint8], x_hat: NDArray[np.uint8]) -> float:
        if min(x.shape[:2]) < LPIPS_SMALLEST:
            raise Unscored(f"below {LPIPS_SMALLEST} x {LPIPS_SMALLEST} pixels")
        pair = [torch.tensor(p).movedim(2, 0)[None] / 255 for p in (x, x_hat)]
        with torch.inference_mode():
            return float(self._model(*pair))


@dataclass(frozen=True, slots=True)
class Backbone:
    """The file that a net's convolutions are read from; it can be sent to other processes."""

    net: str
    path: str

    @property
    def name(self) -> str:
        return f"LPIPS-{self.net}"

    @property
    def fingerprint(self) -> list[str]:
        """The net, and a hash of its file."""
        return [self.net, hashlib.sha256(Path(self.path).read_bytes()).hexdigest()]

    def load(self) -> LPIPS:
        return LPIPS(self.net, read_features(Path(self.path)))


def of_file(path: Path) -> Backbone:
    """Returns the net that a file of weights is of.

    Raises:
        ModelError: The file is no backbone.
    """
    return Backbone(load(path).net, str(path.resolve()))


def backbones(nets: list[str], files: list[Path]) -> tuple[list[Backbone], list[str]]:
    """Returns the nets that can be scored with, and a line on each that cannot.

    Args:
        nets: Names of nets that are asked for; torch hub fetches them if need be.
        files: Files of weights, each telling its own net.

    Raises:
        ModelError: A file is no backbone; an unknown net.
    """
    found: dict[str, Backbone] = {}
    for path in files:
        backbone = of_file(path)
        found[backbone.net] = backbone
    notices = []
    for net in nets or HUB:
        if net not in HUB:
            raise ModelError(f"no LPIPS net {net}; there are {', '.join(HUB)}")
        path = hub_file(net)
        if net in found:
            continue
        if not _readable(path) and net in nets:
            _download(net)
        if _readable(path):
            found[net] = Backbone(net, str(path))
        elif not nets:
            notices.append(
                f"LPIPS-{net}: unavailable ({path.name} is not in {path.parent}; --lpips {net} "
                "fetches it)"
            )
    return [found[net] for net in HUB if net in found], notices


def _readable(path: Path) -> bool:
    """Says whether a file can be read; it may lie in another user's home."""
    return os.access(path, os.R_OK)


def metrics(medium: str, chosen: Iterable[Backbone]) -> dict[str, Metric]:
    """Returns LPIPS by each of these nets, loaded; none for a medium without pictures."""
    return {} if medium != IMAGE.name else {backbone.name: backbone.load() for backbone in chosen}


def _download(net: str) -> None:
    try:
        HUB[net].get_state_dict(check_hash=True, progress=False)
    except OSError as error:
        raise ModelError(
            f"LPIPS-{net}: {hub_file(net).name} cannot be fetched ({error}); give it with "
            "--lpips-backbone"
        ) from None


def modules(model: LPIPS) -> nn.Module:
    """Returns the network, for tests."""
    network: nn.Module = model._model.package
    return network
