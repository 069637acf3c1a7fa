"""The rows of the VP-VAE paper's tables, as data: methods, their codebook sizes and losses, the
scale of the runs, and what was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

import torch
from torch import Tensor

from codec.bottlenecks import VP
from codec.bottlenecks.parts import Neighbours
from codec.bottlenecks.vp import sample_ball
from codec.host import may_read
from train import recipes
from train.recipe import Recipe

# Of the paper: FSP and FSQ tie the dimension to K, and VP, VQ and SimVQ follow them.
LEVELS = {256: [8, 6, 5], 1024: [8, 5, 5, 5], 4096: [7, 5, 5, 5, 5], 16384: [8, 8, 8, 6, 5]}


class VPWithoutAccept(VP):
    """VP that takes every step, which is the paper's ablation of the Metropolis-Hastings test."""

    @torch.no_grad()
    def _perturb(self, z: Tensor, scale: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if may_read() and self.queue_count < len(self.queue):
            return super()._perturb(z, scale)
        radius = self._density(z, scale, Neighbours(self.queue))[2]
        return sample_ball(radius, self.dim), {"radius": radius.mean()}


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the runs are: the nets' preset, the codebook sizes, and the data of a step.

    `warmup_steps` is None for the recipe's: a few hundred, which a short run does not have.
    """

    preset: str
    sizes: tuple[int, ...]
    batch: int
    crop: Mapping[str, list[int]]  # samples | height, width
    epochs: float
    warmup_steps: int | None = None


FULL = Scale(
    "small", (256, 1024, 4096, 16384), 64, {"speech": [24000], "image": [128, 128]}, epochs=50
)
SMALL = Scale(
    "tiny",
    (256, 1024, 4096, 16384),
    16,
    {"speech": [16000], "image": [128, 128]},
    epochs=0.5,
    warmup_steps=50,
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A method, or a method with something changed.

    Attributes:
        name: What tables call it.
        bottleneck: A key of `BOTTLENECKS`.
        weights: Weights of its losses.
        options: Further arguments.
        distortion: Weights of the distances between a signal and its reconstruction that differ
            from the recipe's.
        replacement: A class without parameters that takes the bottleneck's place, for what no
            option offers.
    """

    name: str
    bottleneck: str
    weights: Mapping[str, float]
    options: Mapping[str, Any] = field(default_factory=dict)
    distortion: Mapping[str, float] = field(default_factory=dict)
    replacement: type[VP] | None = None


MOMENTS = {"mean": 0.1, "variance": 0.07}  # L_norm, as published
COUPLED = {
    "codebook": 1.0,
    "commitment": 0.25,
}  # VQGAN's and DAC's, beside distortions of this size

METHODS: tuple[Variant, ...] = (
    Variant("vp", "vp", MOMENTS),
    Variant("fsp", "fsp", MOMENTS),
    Variant("fsq-noise", "fsq-noise", {}),
    Variant("simvq", "simvq", COUPLED),
    Variant("vq", "vq", COUPLED),
    Variant("tokenbridge", "tokenbridge", {"kl": 1e-4}),
)

VP_BASE, FSP_BASE = METHODS[0], METHODS[1]
ABLATION: tuple[Variant, ...] = (
    VP_BASE,
    replace(VP_BASE, name="vp without MH step", replacement=VPWithoutAccept),
    replace(VP_BASE, name="vp without L_norm", weights=dict.fromkeys(MOMENTS, 0.0)),
    replace(VP_BASE, name="vp eta=1", options={"eta": 1.0}),
    replace(VP_BASE, name="vp eta=1.8", options={"eta": 1.8}),
    replace(VP_BASE, name="vp 2 neighbours", options={"neighbours": 2}),
    replace(VP_BASE, name="vp 32 neighbours", options={"neighbours": 32}),
    FSP_BASE,
    replace(FSP_BASE, name="fsp sigmoid", options={"activation": "sigmoid"}),
    replace(FSP_BASE, name="fsp normal", options={"activation": "normal"}),
    replace(FSP_BASE, name="fsp laplace", options={"activation": "laplace"}),
    replace(FSP_BASE, name="fsp cauchy", options={"activation": "cauchy"}),
)
ABLATION_SIZE = 1024

# Losses of pictures: the paper's two, weighed as in the VQGAN that it takes its nets from, whose
# pixels in [-1, 1] make L1 twice what it is in [0, 1]; and the shipped recipes' (image-*-small).
L1_LPIPS = {"l1": 2.0, "mse": 0.0, "ssim": 0.0, "lpips": 1.0}
WITH_LPIPS = {"lpips": 0.4}
LOSSES: tuple[Variant, ...] = tuple(
    row
    for method in METHODS
    for row in (
        method,
        replace(method, name=f"{method.name} L1+LPIPS", distortion=L1_LPIPS),
        replace(method, name=f"{method.name} with LPIPS", distortion=WITH_LPIPS),
    )
)

# Table 1 of the paper, in domain: method -> K -> both qualities, on COCO (PSNR, SSIM) and
# LibriSpeech (PESQ, STOI).
PUBLISHED: dict[str, dict[str, dict[int, tuple[float, float]]]] = {
    "image": {
        "vp": {
            256: (23.50, 0.688),
            1024: (23.89, 0.718),
            4096: (24.67, 0.749),
            16384: (25.20, 0.762),
        },
        "fsp": {
            256: (23.81, 0.694),
            1024: (24.19, 0.718),
            4096: (24.73, 0.744),
            16384: (25.17, 0.758),
        },
        "fsq-noise": {
            256: (22.94, 0.669),
            1024: (23.60, 0.696),
            4096: (24.45, 0.727),
            16384: (24.58, 0.735),
        },
        "simvq": {
            256: (23.54, 0.692),
            1024: (24.01, 0.718),
            4096: (24.83, 0.746),
            16384: (25.24, 0.761),
        },
        "vq": {256: (23.17, 0.670), 1024: (23.73, 0.695), 16384: (24.60, 0.756)},
        "tokenbridge": {1024: (11.51, 0.198)},
    },
    "speech": {
        "vp": {
            256: (2.272, 0.910),
            1024: (2.383, 0.916),
            4096: (2.450, 0.926),
            16384: (2.576, 0.934),
        },
        "fsp": {
            256: (2.265, 0.908),
            1024: (2.446, 0.919),
            4096: (2.471, 0.927),
            16384: (2.570, 0.932),
        },
        "fsq-noise": {
            256: (1.276, 0.797),
            1024: (2.174, 0.900),
            4096: (2.382, 0.918),
            16384: (2.436, 0.923),
        },
        "simvq": {1024: (1.32, 0.403)},
        "vq": {1024: (1.40, 0.363)},
        "tokenbridge": {1024: (1.18, 0.312)},
    },
}


def options_of(bottleneck: str, size: int) -> dict[str, Any]:
    """Returns the bottleneck's arguments for a model of one K."""
    levels = LEVELS[size]
    if bottleneck in ("fsp", "fsq", "fsq-noise"):
        return {"levels": {str(size): levels}}
    if bottleneck == "tokenbridge":  # 4 values in each dimension
        return {"levels": {str(size): [4] * round(log(size, 4))}}
    return {"dim": len(levels), "codebook_sizes": [size]}


def recipe_of(variant: Variant, medium: str, size: int, scale: Scale) -> Recipe:
    """Returns stage A of the medium's shipped recipe, with this bottleneck at this K."""
    recipe = recipes.load(f"{medium}-fsp").to_dict()
    recipe["codec"] |= {"preset": scale.preset, "bottleneck": variant.bottleneck}
    recipe["codec"]["options"] = options_of(variant.bottleneck, size) | dict(variant.options)
    recipe["data"] = {"crop": scale.crop[medium], "batch": scale.batch}
    recipe["stages"] = {"A": 1.0, "C": 0.0}
    if scale.warmup_steps is not None:
        recipe["optimiser"]["warmup_steps"] = scale.warmup_steps
    distortion = {k: v for k, v in recipe["losses"].items() if k not in MOMENTS}
    recipe["losses"] = distortion | dict(variant.distortion) | dict(variant.weights)
    return recipes.from_dict(recipe)
