"""Analysis by synthesis: the encoder listens to what the decoder makes of its codes.

An encoder guesses once which codes the decoder wants. Here the decoder's answer is compared with
the original. At each position the decoder gets a mixture of near codes instead of one; gradients
say which shares should grow, and the mixtures become harder until a code is left:

    near codes ─logits, softmax─> mixtures ─decode─> x_hat ─loss against x─> gradient ─> logits
                       └───────── bits of these codes ───────┘

The bits that a code takes count, too: those of the model's prior, at the codes that lie around it.
The bitstream and the decoder stay as they are, only compressing takes longer: a step costs the
decoder's work there and back. Speech coders have long searched like this (Schroeder and Atal 1985,
CELP), and learned picture codecs refine their latents (Campos et al. 2019, "Content adaptive
optimization for neural image compression"). Annealing the choice with Gumbel noise is that of Yang
et al. 2020, "Improving inference for neural image compression", here among vectors. The mathematics
is in docs/methods/search.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codec.arguments import whole
from codec.checkpoint import checkpoint
from codec.coding.effort import Chooser, can_choose, checked, no_choice
from codec.coding.models import Model
from codec.coding.near import CodeVectors
from codec.entropy import NO_TABLES
from codec.entropy.mixing import bits_of
from codec.locks import computed_once
from codec.medium import IMAGE, SPEECH
from codec.precision import exact_float32

if TYPE_CHECKING:
    from codec.losses import ImageLoss, SpeechLoss

MAX_STEPS = 1000
CHOICES = 6  # near codes of a position that are mixed
# Of the logits, whose unit is the second of these codes' mean squared distance.
STEP = 0.4
BETAS = (0.8, 0.99)
WARM, COLD = 0.4, 0.05  # first and last temperature
NOISE = 0.3  # Gumbel noise at first, which falls to none
SEED = 0


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search makes smaller: a weighted sum of losses and bits.

    Attributes:
        weights: Of the losses, by name: those of the shipped recipes, without LPIPS.
        bit: The weight of a bit for each index, which an effort makes larger.
        build: () -> a module that gives them, as those in `codec.losses` do.
    """

    weights: dict[str, float]
    bit: float
    build: Callable[[], ImageLoss | SpeechLoss]


def _of_speech() -> SpeechLoss:
    from codec.losses import SpeechLoss  # and torchaudio, which takes a while to import

    return SpeechLoss(extra=("loudness", "stoi"))


def _of_pictures() -> ImageLoss:
    from codec.losses import ImageLoss

    return ImageLoss()


AIMS = {
    SPEECH.name: Aim(
        {"mel": 5.0, "stft": 1.0, "wave": 0.1, "loudness": 1.2, "stoi": 3.0}, 0.3, _of_speech
    ),
    IMAGE.name: Aim({"l1": 1.0, "mse": 20.0, "ssim": 0.2}, 0.005, _of_pictures),
}


class Search:
    """Codes that decode to something nearer than the encoder's.

    Args:
        model: Whose decoder is listened to.
        codebook_size: One of the model's.
        steps: How often the decoder is asked; 0 is no search.
        effort: 0 to `MAX_EFFORT`: how much nearness to give up for fewer bits. At 0 the bits stay
            about what they are without a search.

    Raises:
        ModelError: An effort is asked for, and the model has no prior.
        ValueError: The steps are no integer from 0 to `MAX_STEPS`, or there is no such effort.
    """

    def __init__(self, model: Model, codebook_size: int, steps: int, effort: int = 0) -> None:
        steps, effort = whole(steps, "search"), checked(effort)
        if not 0 <= steps <= MAX_STEPS:
            raise ValueError(f"search is a whole number from 0 to {MAX_STEPS}, not {steps}")
        self._model, self._size, self.steps, self._effort = model, codebook_size, steps, effort
        self._aim = AIMS[model.card.medium]
        self._prior = model.tables.get(codebook_size, NO_TABLES).prior
        if self._prior is None and effort:
            raise no_choice(model)
        self._bit = self._aim.bit * (1 + effort / 2) if self._prior is not None else 0.0

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, C, *N) and its latents (B, D_in, *S) -> indices (B, G, *S), S = ceil(N / stride).

        x is float32, speech in [-1, 1] at 16 kHz or a picture in [0, 1]. Of each sample they are
        never worse, by losses and bits, than what is chosen without a search. A signal that is too
        short for the losses keeps that.
        """
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            exact_float32(z.device),
            torch.device(z.device),  # whatever the default one is
        ):
            x, z = x.clone(), z.clone()
            chosen = self._without(z)
            if not self.steps or min(x.shape[2:]) < self._loss.shortest:
                return chosen
            samples = zip(x.split(1), z.split(1), chosen.split(1), strict=True)
            return torch.cat([self._nearer(*sample) for sample in samples])

    def _without(self, z: Tensor) -> Tensor:
        """Indices (B, G, *S) without a search: with the effort, if codes can be chosen by it."""
        effort = self._effort if can_choose(self._model, self._size) else 0
        width = z.shape[-1] * self._model.codec.stride
        indices = torch.from_numpy(Chooser(self._model, self._size, effort, width)(z))
        return indices.to(z.device).reshape(len(z), -1, *z.shape[2:])

    @computed_once
    def _loss(self) -> ImageLoss | SpeechLoss:
        with torch.device("cpu"):
            return self._aim.build().to(self._model.device)

    @computed_once
    def _vectors(self) -> CodeVectors:
        return CodeVectors(self._model.codec.bottleneck, self._size, self._model.device)

    def _nearer(self, x: Tensor, z: Tensor, chosen: Tensor) -> Tensor:
        """Of one sample, x (1, C, *N): indices (1, G, *S)."""
        x = self._model.codec.pad(x)
        codes, squares = self._vectors.near(z, CHOICES)
        vectors = self._vectors[codes]
        unit = squares[:, :, :2].amax(2).mean().clamp(min=torch.finfo(squares.dtype).tiny)
        logits = (-squares / unit).requires_grad_()
        optimiser = torch.optim.Adam([logits], betas=BETAS)
        random = torch.Generator(x.device).manual_seed(SEED)
        for step in range(self.steps):
            checkpoint()
            done = step / self.steps
            gumbel = -torch.empty_like(logits).exponential_(generator=random).log()
            temperature = WARM * (COLD / WARM) ** done
            shares = (logits / temperature + NOISE * (1 - done) * gumbel).softmax(2)
            loss = self._distance(x, (shares[..., None] * vectors).sum((1, 2)).movedim(-1, 1))
            if self._bit:
                best = codes.gather(2, logits.detach().argmax(2, keepdim=True))
                bits = self._bits(torch.cat([best, codes], 2))[:, :, 1:]
                loss = loss + self._bit * (shares * bits).sum(2).mean()
            (logits.grad,) = torch.autograd.grad(loss, logits)
            if not logits.grad.isfinite().all():
                break
            optimiser.param_groups[0]["lr"] = STEP * (1 - done)
            optimiser.step()
        with torch.no_grad():
            found = codes.gather(2, logits.argmax(2, keepdim=True))[:, :, 0]
            return found if self._cost(x, found) < self._cost(x, chosen) else chosen

    def _cost(self, x: Tensor, indices: Tensor) -> float:
        """What the search makes smaller, of x (1, C, *N) and indices (1, G, *S)."""
        z_q = self._model.codec.bottleneck.decode(indices, self._size)  # as whoever gets them does
        cost = float(self._distance(x, z_q))
        if self._bit:
            cost += self._bit * float(self._bits(indices[:, :, None]).mean())
        return cost

    def _distance(self, x: Tensor, z_q: Tensor) -> Tensor:
        """() of x (1, C, *N) to what z_q (1, D, *S) decodes to."""
        terms = self._loss(x, self._model.codec.decoder(z_q, self._size))
        return torch.stack([self._aim.weights[name] * term for name, term in terms.items()]).sum()

    def _bits(self, codes: Tensor) -> Tensor:
        """The bits of codes, (1, 1, M, *S), where every position around takes the first of its."""
        assert self._prior is not None
        options = codes[0, 0].flatten(1).T.cpu().numpy()
        bits = torch.from_numpy(bits_of(options, self._prior, codes.shape[-1]))
        return bits.to(codes.device, torch.float32).T.reshape(codes.shape)
