"""LPIPS (Zhang et al. 2018): distances between a network's features, weighed by heads that the lpips package brings.

The network itself, the backbone, does not come with it. It is read from a file, or from torch hub's folder if
torchvision has put it there before; it is downloaded only if its net is asked for by name. A random backbone would not
be LPIPS, so without one there is no score, and the file that is missing is named.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lpips
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as zoo

from codec.errors import ModelError
from eval.metrics import Unscored

HUB = {  # net -> torchvision's weights
    "alex": zoo.AlexNet_Weights.IMAGENET1K_V1,
    "vgg": zoo.VGG16_Weights.IMAGENET1K_V1,
    "squeeze": zoo.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}
SMALLEST = 32  # pixels; below, the pooling of the backbones leaves nothing


class LPIPS:
    """One net's distance between pictures, (H, W, 3) uint8; 0 for equal ones, larger is worse.

    Args:
        net: "alex", "vgg" or "squeeze".
        features: The backbone's convolutions, by the names of torchvision's `features`: "0.weight" ...
    """

    def __init__(self, net: str, features: Mapping[str, Tensor]) -> None:
        with warnings.catch_warnings(action="ignore"):  # lpips calls torchvision the old way
            self._model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
        wanted = {}
        for part, tensor in self._model.net.state_dict(keep_vars=True).items():
            wanted[part.split(".", 1)[1]] = tensor  # slice3.4.weight is features' 4.weight
        missing = wanted.keys() - features.keys()
        if missing:
            raise ModelError(f"the backbone has no {min(missing)}; give the features of torchvision's {net} net")
        for name, tensor in wanted.items():
            if tensor.shape != features[name].shape:
                raise ModelError(f"the backbone's {name} has shape {tuple(features[name].shape)}: not a {net} net")
            tensor.data.copy_(features[name].float())

    def __call__(self, x: NDArray[np.uint8], x_hat: NDArray[np.uint8]) -> float:
        if min(x.shape[:2]) < SMALLEST:
            raise Unscored(f"below {SMALLEST} x {SMALLEST} pixels")
        pair = [torch.tensor(p).movedim(2, 0)[None].float() / 127.5 - 1 for p in (x, x_hat)]
        with torch.inference_mode():
            return float(self._model(*pair))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a net's backbone is read from; picklable, for the workers."""

    net: str
    path: str

    @property
    def name(self) -> str:
        return f"LPIPS-{self.net}"

    def load(self) -> LPIPS:
        return LPIPS(self.net, read_features(Path(self.path)))


def read_features(path: Path) -> dict[str, Tensor]:
    """The tensors of a backbone file, .safetensors or .pth, by their names within `features`.

    Raises:
        ModelError: Not readable, or no backbone.
    """
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        named = {name.removeprefix("features."): tensor for name, tensor in tensors.items()}
        if "0.weight" not in named:
            raise KeyError("there is no 0.weight")
    except (
        OSError,
        RuntimeError,
        SafetensorError,
        KeyError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: no LPIPS backbone ({reason}); give features of torchvision's nets") from None
    return named


def tell_net(features: Mapping[str, Tensor]) -> str:
    """Which net a backbone is of, by its layers."""
    if features["0.weight"].shape[-1] == 11:
        return "alex"
    return "squeeze" if "3.squeeze.weight" in features else "vgg"


def hub_file(net: str) -> Path:
    """Where torch hub keeps the backbone."""
    return Path(torch.hub.get_dir()) / "checkpoints" / HUB[net].url.rsplit("/", 1)[1]


def sources(nets: list[str], backbones: list[Path]) -> tuple[list[Source], list[str]]:
    """The nets that can be scored with, and a line on each that cannot.

    Args:
        nets: Asked for by name, so fetched through torch hub if need be.
        backbones: Files, each telling its own net.

    Raises:
        ModelError: A file is no backbone; an unknown net.
    """
    found: dict[str, Source] = {}
    for path in backbones:
        features = read_features(path)
        net = tell_net(features)
        LPIPS(net, features)  # complete?
        found[net] = Source(net, str(path.resolve()))
    notices = []
    for net in nets or HUB:
        if net not in HUB:
            raise ModelError(f"no LPIPS net {net}; there are {', '.join(HUB)}")
        path = hub_file(net)
        if net in found:
            continue
        if not path.is_file() and net in nets:
            _download(net)
        if path.is_file():
            found[net] = Source(net, str(path))
        elif not nets:
            notices.append(f"LPIPS-{net}: unavailable ({path.name} is not in {path.parent}; --lpips {net} fetches it)")
    return [found[net] for net in HUB if net in found], notices


def _download(net: str) -> None:
    try:
        HUB[net].get_state_dict(check_hash=True, progress=False)
    except OSError as error:
        raise ModelError(
            f"LPIPS-{net}: {hub_file(net).name} cannot be fetched ({error}); give it with --lpips-backbone"
        ) from None


def modules(model: LPIPS) -> nn.Module:
    """The network, for tests."""
    return model._model
