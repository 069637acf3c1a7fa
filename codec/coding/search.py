"""Analysis by synthesis: the encoder listens to what the decoder makes of its codes.

An encoder guesses once which codes the decoder wants. Here the decoder's answer is compared with
the original, and the latents move until their codes decode to something nearer:

    z ─quantise─> z_q ─decode─> x_hat ─loss against x─> gradient ─straight through─> z    again

The bitstream and the decoder stay as they are, only compressing takes longer: a step costs the
decoder's work there and back. Speech coders have long searched like this (Schroeder and Atal 1985,
CELP), and learned picture codecs refine their latents (Campos et al. 2019, "Content adaptive
optimization for neural image compression").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codec.arguments import whole
from codec.checkpoint import checkpoint
from codec.coding.models import Model
from codec.locks import computed_once
from codec.medium import IMAGE, SPEECH
from codec.precision import exact_float32

if TYPE_CHECKING:
    from codec.losses import ImageLoss, SpeechLoss

MAX_STEPS = 1000
# A step's size, as a share of the error that a quantiser of K codes in D dimensions makes at best,
# about K^(-1/D) of the latents' deviation.
STEP = 0.02
BETAS = (0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search makes smaller: a weighted sum of losses.

    Attributes:
        weights: Of the losses, by name: those of the shipped recipes, without LPIPS.
        build: () -> a module that gives them, as those in `codec.losses` do.
    """

    weights: dict[str, float]
    build: Callable[[], ImageLoss | SpeechLoss]


def _of_speech() -> SpeechLoss:
    from codec.losses import SpeechLoss  # and torchaudio, which takes a while to import

    return SpeechLoss(extra=("loudness", "stoi"))


def _of_pictures() -> ImageLoss:
    from codec.losses import ImageLoss

    return ImageLoss()


AIMS = {
    SPEECH.name: Aim(
        {"mel": 5.0, "stft": 1.0, "wave": 0.1, "loudness": 1.2, "stoi": 3.0}, _of_speech
    ),
    IMAGE.name: Aim({"l1": 1.0, "mse": 20.0, "ssim": 0.2}, _of_pictures),
}


class Search:
    """Latents whose codes decode to something nearer than the encoder's.

    Args:
        model: Whose decoder is listened to.
        codebook_size: One of the model's.
        steps: How often the latents move; 0 leaves them as they are.

    Raises:
        ValueError: The steps are no integer from 0 to `MAX_STEPS`.
    """

    def __init__(self, model: Model, codebook_size: int, steps: int) -> None:
        steps = whole(steps, "search")
        if not 0 <= steps <= MAX_STEPS:
            raise ValueError(f"search is a whole number from 0 to {MAX_STEPS}, not {steps}")
        self._model, self._size, self.steps = model, codebook_size, steps
        self._aim = AIMS[model.card.medium]

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, C, *N) and its latents (B, D_in, *S) -> latents (B, D_in, *S), S = ceil(N / stride).

        x is float32, speech in [-1, 1] at 16 kHz or a picture in [0, 1]. Of each sample what
        decoded to the nearest; never worse, by these losses, than z. A signal that is too short for
        the losses keeps its latents.
        """
        if not self.steps:
            return z
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            exact_float32(z.device),
            torch.device(z.device),  # whatever the default one is
        ):
            if min(x.shape[2:]) < self._loss.shortest:
                return z
            pairs = zip(x.clone().split(1), z.clone().split(1), strict=True)
            return torch.cat([self._nearer(*pair) for pair in pairs])

    @computed_once
    def _loss(self) -> ImageLoss | SpeechLoss:
        with torch.device("cpu"):
            return self._aim.build().to(self._model.device)

    def _nearer(self, x: Tensor, z: Tensor) -> Tensor:
        """One sample: x (1, C, *N), z (1, D_in, *S)."""
        codec = self._model.codec
        bottleneck = codec.bottleneck
        x = codec.pad(x)
        error = float(z.std(correction=0)) * bottleneck.num_codes(self._size) ** (
            -1 / bottleneck.dim
        )
        latents = z.clone().requires_grad_()
        optimiser = torch.optim.Adam([latents], betas=BETAS)
        best, least = z, torch.inf
        for step in range(self.steps + 1):
            checkpoint()
            z_q = bottleneck(latents, self._size).z_q
            terms = self._loss(x, codec.decoder(z_q, self._size))
            loss = sum(self._aim.weights[name] * term for name, term in terms.items())
            if (distance := float(loss.detach())) < least:
                best, least = latents.detach().clone(), distance
            if step == self.steps:
                break
            (latents.grad,) = torch.autograd.grad(loss, latents)
            if not latents.grad.isfinite().all():
                break
            optimiser.param_groups[0]["lr"] = STEP * error * (1 - step / self.steps)
            optimiser.step()
        return best
