"""LPIPS (Zhang et al. 2018) as a network.

It has distances of a backbone's features, weighed by the lpips package's heads.

The same network is a loss of pictures here and a metric in `eval.lpips_metric`.

The backbone does not come with the package. It is read from a file, or from torch hub's folder if
torchvision has put it there before. A random backbone would not be LPIPS, so without one there is
no distance, and the file that is missing is named.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import lpips
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as zoo

from codec.errors import ModelError, reason_of
from codec.quiet import no_warnings

HUB = {  # net -> torchvision's weights
    "alex": zoo.AlexNet_Weights.IMAGENET1K_V1,
    "vgg": zoo.VGG16_Weights.IMAGENET1K_V1,
    "squeeze": zoo.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}


class LPIPSNet(nn.Module):
    """One net's distance between pictures, a value for each pair; nothing of it learns.

    On the CPU all is float32; on a GPU the convolutions run in bfloat16 with channels last, as the
    codec's do.

    Args:
        net: "alex", "vgg" or "squeeze".
        features: The backbone's convolutions, by the names of torchvision's `features`: "0.weight"
            ...

    Raises:
        ModelError: `features` lacks a tensor of the net, or one has another shape.
    """

    def __init__(self, net: str, features: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.net = net
        with no_warnings():  # lpips calls torchvision the old way
            self.package = (
                lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
            )
        wanted = {}
        for part, tensor in self.package.net.state_dict(keep_vars=True).items():
            wanted[part.split(".", 1)[1]] = tensor  # slice3.4.weight is features' 4.weight
        missing = wanted.keys() - features.keys()
        if missing:
            raise ModelError(
                f"the backbone has no {min(missing)}; give the features of torchvision's {net} net"
            )
        for name, tensor in wanted.items():
            if tensor.shape != features[name].shape:
                raise ModelError(
                    f"the backbone's {name} has shape {tuple(features[name].shape)}: "
                    f"not a {net} net"
                )
            tensor.data.copy_(features[name].float())

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Returns the distances of two (B, 3, H, W) pictures in [0, 1], (B,); 0 for equal ones.

        They have at least 32 x 32 pixels.
        """
        low = x.device.type == "cuda"
        layout = torch.channels_last if low else torch.contiguous_format
        pictures = [p.float().contiguous(memory_format=layout) for p in (x, x_hat)]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            distance: Tensor = self.package(*pictures, normalize=True)
        return distance.float().flatten()


def read_features(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a backbone file, .safetensors or .pth, by their names within `features`.

    Raises:
        ModelError: The file cannot be read, or is no backbone.
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
        raise ModelError(
            f"{path}: no LPIPS backbone ({reason_of(error)}); give features of torchvision's nets"
        ) from None
    return named


def tell_net(features: Mapping[str, Tensor]) -> str:
    """Tells which net a backbone is of, by its layers."""
    if features["0.weight"].shape[-1] == 11:
        return "alex"
    return "squeeze" if "3.squeeze.weight" in features else "vgg"


def load(path: Path) -> LPIPSNet:
    """Loads the network of a backbone file, which tells its own net.

    Raises:
        ModelError: The file is no backbone.
    """
    features = read_features(path)
    try:
        return LPIPSNet(tell_net(features), features)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def hub_file(net: str) -> Path:
    """Returns the path at which torch hub keeps the backbone of a net."""
    folder: str = torch.hub.get_dir()
    return Path(folder) / "checkpoints" / str(HUB[net].url).rsplit("/", 1)[1]
