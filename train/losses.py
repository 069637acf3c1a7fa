"""Which of `codec.losses` a recipe weighs, and what they need.

LPIPS, alone among them, needs a network from elsewhere (`train.lpips_net`); a recipe that does not
weigh it trains without one, and nothing of it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from codec.cli.frame import UsageError
from codec.errors import CodecError, not_installed
from codec.losses import EXTRA_LOSSES, ImageLoss, SpeechLoss
from codec.medium import IMAGE, SPEECH

LPIPS_SMALLEST = 32  # pixels of a crop; below, the pooling of LPIPS's nets leaves nothing
# The net that is looked for in torch hub's folder: that of the shipped models, and the fastest.
HUB_NET = "squeeze"


def build(medium: str, weights: Mapping[str, float], backbone: Path | None = None) -> nn.Module:
    """Builds the distances that a recipe weighs.

    Args:
        medium: A name in `LOSSES`.
        weights: The recipe's weights; only which of the optional terms have one matters here.
        backbone: A file with LPIPS's backbone; None looks for SqueezeNet's in torch hub's folder.

    Raises:
        CodecError: The recipe weighs LPIPS and there is no backbone, or the file is none.
    """
    return LOSSES[medium].build(weights, backbone)


def _extra(medium: str, weights: Mapping[str, float]) -> list[str]:
    return [name for name in EXTRA_LOSSES[medium] if weights.get(name)]


def _of_speech(weights: Mapping[str, float], _: Path | None) -> nn.Module:
    return SpeechLoss(extra=_extra(SPEECH.name, weights))


def _of_pictures(weights: Mapping[str, float], backbone: Path | None) -> nn.Module:
    extra = _extra(IMAGE.name, weights)
    if not weights.get("lpips"):
        return ImageLoss(extra=extra)
    try:
        from train import lpips_net  # takes seconds
    except ImportError as error:
        raise CodecError(
            f"losses.lpips: {not_installed(error.name, 'train')}, or --set losses.lpips=0"
        ) from None
    file = backbone or lpips_net.hub_file(HUB_NET)
    if backbone is None and not file.is_file():
        raise CodecError(
            f"losses.lpips = {weights['lpips']:g} needs a backbone: "
            f"give --lpips-backbone FILE ({file.name} is not in "
            f"{file.parent}), or train without: --set losses.lpips=0"
        )
    return ImageLoss(lpips_net.load(file), extra)


def check_backbone(backbone: Path | None, *recipes: Mapping[str, float]) -> None:
    """Refuses a backbone that nothing looks through.

    Args:
        backbone: The file that was named, if one was.
        recipes: The weights of the losses of each recipe that is trained.

    Raises:
        UsageError: None of them weighs LPIPS.
    """
    if backbone is not None and not any(weights.get("lpips") for weights in recipes):
        raise UsageError("--lpips-backbone is of losses.lpips, which no recipe here weighs")


@dataclass(frozen=True, slots=True)
class Distances:
    """What a recipe weighs between a signal and its reconstruction.

    Attributes:
        required: Names of the distances that every recipe weighs, be it by 0.
        shortest_crop: Samples or pixels that the largest window of them needs.
        build: (weights, LPIPS backbone) -> a module that gives them, by name.
    """

    required: tuple[str, ...]
    shortest_crop: int
    build: Callable[[Mapping[str, float], Path | None], nn.Module]


LOSSES = {
    SPEECH.name: Distances(("mel", "stft", "wave"), SpeechLoss.shortest, _of_speech),
    IMAGE.name: Distances(("l1", "mse", "ssim"), ImageLoss.shortest, _of_pictures),
}


def optional(medium: str) -> tuple[str, ...]:
    """Returns the names that a recipe may leave out, which is a weight of 0."""
    return (*EXTRA_LOSSES[medium], *(("lpips",) if medium == IMAGE.name else ()))
