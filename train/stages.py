"""The beginning of a run and of its stages: what is loaded, built and frozen between steps.

stage A   encoder, bottleneck and decoder learn to reconstruct. A bottleneck that perturbs
          latents draws a codebook size for each sample; one with a real codebook has one size
          for the whole batch
stage B   the same, and a discriminator judges what comes out
stage C   the averaged (EMA) encoder is frozen, the codebook is built from its latents, and the
          decoder adapts to true indices; the discriminator, if there was a stage B, stays
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from codec.errors import CodecError, out_of_memory
from train import codebook
from train.beginning import Beginning, begin
from train.learner import Learner
from train.recipe import Recipe
from train.store import Store


class Stages:
    """Begins a run, and each of its stages.

    Args:
        recipe: What to train, and how.
        store: Prepared data of the recipe's medium.
        learner: The nets, their averages, optimisers and judges.
        batch: A function that gives the next augmented crops, this process's rows.
        folder: Of the run, for messages.

    Attributes:
        beginning: Where the first weights came from.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        learner: Learner,
        batch: Callable[[], Tensor],
        folder: Path,
    ) -> None:
        self.recipe, self.store, self.learner = recipe, store, learner
        self.batch, self.folder = batch, folder
        self.beginning = Beginning()

    def begin_from(self, source: Path) -> None:
        """Takes the weights of a model's card or of a run's folder; see `train.beginning`.

        Raises:
            CodecError: The model has another medium or other nets than the recipe, or, where the
                recipe has a stage B, another discriminator.
        """
        self.beginning = begin(source, (self.learner.codec, self.learner.average))
        self.check()

    def check(self) -> None:
        """Reads the discriminator that stage B is going to begin with, hours before it does.

        Raises:
            CodecError: It is another than the recipe's.
        """
        if self.recipe.share("B") and self.learner.stage == "A":
            medium, width = self.recipe.codec.medium, self.recipe.adversary.width
            self.beginning.check_adversary(medium, width)

    def prepare(self) -> None:
        """Does what comes before the first step: a codebook that learns is started from latents.

        Raises:
            CodecError: The recipe only tunes a finished model, and the run did not begin from one.
        """
        if self.beginning.complete:
            return
        if self.recipe.tunes:
            raise CodecError(
                "stage C alone tunes a finished model: give its card or run with --init"
            )
        if self.learner.codec.bottleneck.coupled:
            self.fit()  # k-means beats any fixed start of a codebook (docs/methods/index.md)

    def start(self, stage: str, seed: int) -> None:
        """Begins stage B or C.

        Args:
            stage: "B" or "C".
            seed: Of a new discriminator.

        Raises:
            CodecError: The discriminator or the codebook that it needs is missing, or is of another
                recipe.
        """
        if stage == "B":
            self._start_b(seed)
        else:
            self._start_c()

    def _start_b(self, seed: int) -> None:
        """A discriminator joins, a new one unless the first model has its own beside it."""
        self.learner.begin_judging(seed)
        assert self.learner.adversary is not None
        self.beginning.load_adversary(self.learner.adversary.nets)

    def _start_c(self) -> None:
        """The decoder learns alone from now on; all goes on from the averaged weights.

        The codebook is built from the averaged encoder's latents where the bottleneck had none so
        far; a model that is only tuned keeps its own.
        """
        codec, average = self.learner.codec, self.learner.average
        codec.load_state_dict(average.state_dict())
        if self.recipe.tunes:
            self._check_codebook()
        elif not codec.bottleneck.coupled:
            self.fit()
        average.load_state_dict(codec.state_dict())
        self.learner.freeze()

    def _check_codebook(self) -> None:
        """Decodes an index: without a codebook the decoder would learn from zeros."""
        codec = self.learner.codec
        shape = (1, codec.bottleneck.num_codebooks, *[1] * codec.axes)
        try:
            indices = torch.zeros(shape, dtype=torch.int64, device=self.learner.device)
            codec.bottleneck.decode(indices)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise CodecError(
                f"{self.beginning.name or self.folder}: no codebook to tune to ({error}); a run "
                "has one from its stage C on, and its export: finish it, or give the card to --init"
            ) from None

    def fit(self) -> None:
        """Builds the codebook from latents, or gives a codebook that learns its start."""
        codebook.fit(self.learner.codec.bottleneck, self.latents)

    def latents(self) -> Tensor:
        """Returns (N, D_in) latents of the averaged encoder; see `train.codebook.latents`."""
        return codebook.latents(self.learner.average, self.store, self.batch)
