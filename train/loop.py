"""A training run: the loop over steps, the three stages, the log and the checkpoints.

There is one loop for speech and pictures, for every bottleneck, and for one process or several. A
run passes through up to three stages; its recipe says how much of the budget each of them takes:

    stage A   encoder, bottleneck and decoder learn to reconstruct. A bottleneck that perturbs
              latents draws a codebook size for each sample; one with a real codebook has one size
              for the whole batch
    stage B   the same, and a discriminator judges what comes out
    stage C   the averaged (EMA) encoder is frozen, the codebook is built from its latents, and the
              decoder adapts to true indices; the discriminator, if there was a stage B, stays

    Store, Draws ──augmented batch──> Learner ──values──> Log
    Trainer: decides what comes next, and writes checkpoints

A step itself is in `train.learner`, and runs as a CUDA graph where it can (`train.graph`). Learning
rates and stages follow the elapsed share of the budget, which is given in minutes or in steps, so
that one recipe fits ten minutes and ten hours.
"""

from __future__ import annotations

import io
import json
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codec.cards import read_card
from codec.errors import CodecError
from codec.files import writing
from codec.model import Codec
from train import codebook, losses, parallel
from train.adversary import Adversary
from train.augment import augment
from train.data import Store
from train.draws import Draws
from train.graph import Graphs
from train.learner import Learner
from train.log import LOG_NAME, Log, cut
from train.recipes import Recipe, from_dict

CHECKPOINT_NAME = "checkpoint.pt"
ADVERSARY_SUFFIX = ".adversary.safetensors"


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: one of two measures.

    Attributes:
        minutes: Wall clock, summed over the parts of a run that was interrupted and resumed.
        steps: Optimiser steps.

    Raises:
        ValueError: Both are given, or neither, or one that is not above 0.
    """

    minutes: float | None = None
    steps: int | None = None

    def progress(self, elapsed_s: float, step: int) -> float:
        """Returns the share of the budget that is spent, in [0, 1]."""
        share = (
            step / self.steps if self.steps is not None else elapsed_s / 60 / (self.minutes or 1e-9)
        )
        return min(share, 1.0)

    def __post_init__(self) -> None:
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ValueError(f"want minutes or steps, above 0; got {self.minutes} and {self.steps}")


class Trainer:
    """A training run: what learns, its clock, and the folder it lives in.

    Args:
        recipe: What to train, and how.
        store: Prepared data of the recipe's medium.
        budget: How long to train.
        folder: Receives the log and the checkpoint; it is made where it is not there.
        seed: Of the initial weights and of all random numbers.
        device: Where to compute: "cpu", "cuda" or "cuda:1".
        compiled: Whether the nets go through torch.compile.
        backbone: The file of the network that LPIPS compares pictures with, for a recipe that
            weighs LPIPS; None looks where torch hub keeps it (see `train.losses.build`).

    Attributes:
        learner: The nets, their averages, optimisers and judges.
        step: How many steps were taken.
        elapsed_s: Seconds of training so far, without the time between parts of the run.
        origin: The card of the model that the run began from, or None.
        init: How the card of this run's model will name that beginning, or None.
        complete: Whether that was the same codec, so that its codebooks were taken as well.
        hardware: What the run trains on, for the card.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        budget: Budget,
        folder: Path,
        seed: int,
        device: str,
        compiled: bool = False,
        backbone: Path | None = None,
    ) -> None:
        self.recipe, self.store, self.budget, self.folder = recipe, store, budget, folder
        self.backbone, self.device, self.kind = backbone, device, torch.device(device).type
        torch.manual_seed(seed)
        self.learner = Learner(recipe, device, compiled)
        # The noise of bottlenecks; all else is in `draws`.
        torch.manual_seed(seed + parallel.rank())
        self.draws = Draws(seed, device, parallel.rank(), parallel.world())
        self.graphs = Graphs(device, parallel.world() == 1)
        self.step, self.elapsed_s, self.seed = 0, 0.0, seed
        self.hardware = hardware(device)
        self.origin: Path | None = None
        self.init: str | None = None
        self.complete = False
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def loss(self) -> nn.Module:
        """The distances between original and reconstruction, with their networks.

        They are made when they are first asked for, since an export of the run needs none.
        """
        return losses.build(self.recipe.codec.medium, self.recipe.losses, self.backbone).to(
            self.device
        )

    @property
    def codec(self) -> Codec:
        """The codec that learns."""
        return self.learner.codec

    @property
    def average(self) -> Codec:
        """The moving average of the codec's weights, which is what is exported."""
        return self.learner.average

    @property
    def adversary(self) -> Adversary | None:
        """The discriminator of stage B and after it."""
        return self.learner.adversary

    @property
    def stage(self) -> str:
        """The stage that the run is in: "A", "B" or "C"."""
        return self.learner.stage

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        return self.budget.progress(self.elapsed_s, self.step)

    @property
    def tokens_per_step(self) -> int:
        """How many tokens a step sees, on all processes together."""
        grid = self.codec.grid(tuple(self.store.crop))
        return self.recipe.data.batch * parallel.world() * int(torch.tensor(grid).prod())

    def run(
        self,
        checkpoint_minutes: float = 2.0,
        log_steps: int = 50,
        stop_minutes: float | None = None,
        tensorboard: bool = False,
    ) -> bool:
        """Trains to the end of the budget; afterwards `average` is the model to export.

        Args:
            checkpoint_minutes: Minutes from one checkpoint to the next.
            log_steps: Steps from one line of the log to the next.
            stop_minutes: Minutes after which this call ends with a checkpoint, wherever the budget
                stands: where a machine is lent for a while, say. None trains on.
            tensorboard: Whether to write for TensorBoard, too.

        Returns:
            Whether the budget is spent. If it is not, `resume` goes on from the checkpoint.

        Raises:
            CodecError: The recipe only tunes a finished model, and the run did not begin from one.
            OSError: The folder cannot be written to.
        """
        if parallel.rank() == 0:
            # Of a run that was killed, even one killed before its checkpoint.
            cut(self.folder / LOG_NAME, self.step)
        log = Log(self.folder, tensorboard) if parallel.rank() == 0 else None
        preview = self.store.batch(4, Draws(self.seed, self.device)) if log and log.board else None
        start = last_save = tick = time.monotonic()
        values: dict[str, list[Tensor]] = {}
        logged_at, logged_step = start, self.step
        if self.step == 0 and self.recipe.tunes and not self.complete:
            raise CodecError(
                "stage C alone tunes a finished model: give its card or run with --init"
            )
        if self.step == 0 and self.codec.bottleneck.coupled and not self.complete:
            self.fit()  # k-means beats any fixed start of a codebook (docs/methods/index.md)
        finished = True
        while self.progress < 1:
            self.enter(self.recipe.stage_at(self.progress))
            for key, value in self.train_step().items():
                values.setdefault(key, []).append(value)
            now = time.monotonic()
            self.elapsed_s, tick = self.elapsed_s + now - tick, now
            stop = stop_minutes is not None and now - start >= stop_minutes * 60
            save = now - last_save > checkpoint_minutes * 60
            self.elapsed_s, save, stop = self._agree(self.elapsed_s, save, stop)
            if self.step % log_steps == 0:
                means = self._means(values)
                rate = (self.step - logged_step) / (now - logged_at)
                values, logged_at, logged_step = {}, now, self.step
                if log:
                    means |= {"steps_per_s": rate, "tokens_per_s": rate * self.tokens_per_step}
                    log.write(self.step, self.elapsed_s / 60, self.stage, means)
                    shown = {
                        key: means[key]
                        for key in ("loss", *self.recipe.losses, "tokens_per_s")
                        if key in means
                    }
                    log.show(self.progress, self.stage, self.step, shown)
            elif log:
                log.show(self.progress, self.stage, self.step, {})
            if save or stop:
                self.save()
                if log and preview is not None:
                    log.preview(self.average, preview, self.step)
                last_save = time.monotonic()
            if stop and self.progress < 1:
                finished = False
                break
        if finished and self.stage != "C":
            self.start_stage_c()
        self.save()
        if log:
            if preview is not None:
                log.preview(self.average, preview, self.step)
            log.close()
        return finished

    @staticmethod
    def _agree(elapsed_s: float, save: bool, stop: bool) -> tuple[float, bool, bool]:
        """Returns what process 0 has of these, on every process: they must save and stop as one."""
        if parallel.world() > 1:
            clock = torch.tensor([elapsed_s, save, stop], dtype=torch.float64)
            elapsed_s, save, stop = parallel.first_numbers(clock).tolist()
        return elapsed_s, bool(save), bool(stop)

    def _means(self, values: dict[str, list[Tensor]]) -> dict[str, float]:
        """Averages named values over the steps since the last line, and over processes.

        All of them come from the device in one copy.
        """
        means = [
            torch.stack([v.to(self.device, torch.float32) for v in kept]).mean()
            for kept in values.values()
        ]
        return dict(zip(values, parallel.mean(torch.stack(means)).tolist(), strict=True))

    def batch(self) -> Tensor:
        """Returns the next augmented crops, (B, C, *crop): this process's part of the batch."""
        data = self.recipe.data
        return augment(
            self.store.medium, self.store.batch(data.batch, self.draws), self.draws, data.augment
        )

    def train_step(self) -> dict[str, Tensor]:
        """Takes one optimiser step.

        Returns:
            Named scalars for the log, which stay on the device: reading them would wait for it.
        """
        size = self.learner.prepare(self.progress, self.step, self.draws, self.batch())
        loss = self.loss
        settled = self.learner.settled
        values = self.graphs.run((self.stage, size), lambda: self.learner.step(loss, size), settled)
        self.step += 1
        return values

    def enter(self, stage: str) -> None:
        """Begins a stage, unless the run is in it already, or past it."""
        if self.stage < stage:
            self.start_stage_c() if stage == "C" else self.start_stage_b()

    def start_stage_b(self) -> None:
        """Begins stage B: a discriminator joins.

        It is a new one, unless the model that this run began from has its own beside it.

        Raises:
            CodecError: That discriminator is not one of this recipe.
        """
        self.learner.begin_judging(self.seed)
        self.graphs.forget()
        kept = self.origin and self.origin.with_name(self.origin.stem + ADVERSARY_SUFFIX)
        if kept and kept.is_file() and self.adversary is not None:
            try:
                self.adversary.nets.load_state_dict(
                    {name: value.float() for name, value in load_file(kept).items()}
                )
            except (OSError, SafetensorError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise CodecError(
                    f"{kept}: not the discriminator of this recipe ({reason}); remove it"
                ) from None

    def start_stage_c(self) -> None:
        """Begins stage C: the encoder is frozen, and the decoder learns alone.

        Training goes on from the averaged weights. The codebook is built from the averaged
        encoder's latents where the bottleneck had none so far; a model that is only tuned keeps its
        own.
        """
        self.codec.load_state_dict(self.average.state_dict())
        if not self.codec.bottleneck.coupled and not self.recipe.tunes:
            self.fit()
        self.average.load_state_dict(self.codec.state_dict())
        self.learner.freeze()
        self.graphs.forget()

    def fit(self) -> None:
        """Builds the codebook from latents, or gives a codebook that learns its start."""
        codebook.fit(self.codec.bottleneck, self.latents)

    def latents(self) -> Tensor:
        """Returns (N, D_in) latents of the averaged encoder; see `train.codebook.latents`."""
        return codebook.latents(self.average, self.store, self.batch)

    def begin_from(self, card: Path) -> None:
        """Begins with the weights of a finished model instead of random ones.

        From a model of the same codec come all weights, and its discriminator if that was kept.
        From a model with another bottleneck come the nets alone, without the layers that face the
        latents where those have another width.

        Args:
            card: The model's card; or the folder of a run, whose averaged weights are taken.

        Raises:
            CodecError: The model has another medium or other nets than the recipe.
        """
        if card.is_dir():
            self._begin_from_run(card)
            return
        model = read_card(card)
        tensors = {name: torch.tensor(value) for name, value in model.read().items()}
        minutes = model.data.get("training", {}).get("minutes", "unknown")
        self.complete = same = self._take(card, model.config, tensors)
        self.origin = card
        self.init = f"{model.name} {model.model_id.hex()}, {minutes} minutes" + (
            "" if same else ", nets alone"
        )

    def _begin_from_run(self, folder: Path) -> None:
        """Begins with the averaged weights of a run's last checkpoint; see `begin_from`."""
        state = read_checkpoint(folder / CHECKPOINT_NAME)
        config = from_dict(json.loads(state["recipe"])).config().to_dict()
        self.complete = same = self._take(folder, config, state["average"])
        minutes = round(state["clock"][1] / 60, 1)
        self.init = f"{folder.name}, {minutes} minutes" + ("" if same else ", nets alone")

    def _take(self, source: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
        """Loads the weights that fit.

        Args:
            source: Where they come from, for messages.
            config: The configuration of the codec that they are of.
            tensors: The weights by name.

        Returns:
            Whether they are of the same codec, and so all of them were taken.

        Raises:
            CodecError: They are of another medium or of other nets.
        """
        theirs, own = (
            json.loads(json.dumps(part)) for part in (dict(config), self.codec.config.to_dict())
        )
        if any(theirs.get(part) != own.get(part) for part in ("medium", "kind", "nets")):
            raise CodecError(
                f"{source}: this model has another medium or preset than the recipe; "
                "change one of them"
            )
        ours, same = self.codec.state_dict(), bool(theirs == own)
        fitting = {name: value for name, value in tensors.items() if name in ours}
        if same:
            unused = {f"bottleneck.{name}" for name in self.codec.bottleneck.training_state}
            fitting = {name: value for name, value in fitting.items() if name not in unused}
        else:
            nets = {
                name: value for name, value in fitting.items() if not name.startswith("bottleneck.")
            }
            fitting = {
                name: value for name, value in nets.items() if value.shape == ours[name].shape
            }
        for codec in (self.codec, self.average):
            # Without what only training needs: that starts anew.
            codec.load_state_dict(fitting, strict=False)
        return same

    def save(self) -> None:
        """Writes the checkpoint, from which `resume` goes on bit for bit.

        At any moment the folder holds one whole checkpoint: the new one takes the old one's place
        when it is complete.

        Raises:
            OSError: It cannot be written.
        """
        noise = [
            torch.get_rng_state(),
            *([torch.cuda.get_rng_state(self.device)] if self.kind == "cuda" else []),
        ]
        state: dict[str, Any] = {
            "recipe": json.dumps(self.recipe.to_dict()),
            **self.learner.state_dict(),
            "clock": [self.step, self.elapsed_s, self.stage, self.seed],
            "draws": self.draws.state_dict(),
            "noise": parallel.all_of(noise),
            "hardware": self.hardware,
            "origin": str(self.origin) if self.origin else None,
            "init": self.init,
        }
        if parallel.rank() == 0:
            # `torch.save` into a file tells a full disk as a RuntimeError without a name.
            memory = io.BytesIO()
            torch.save(state, memory)
            with writing(str(self.folder / CHECKPOINT_NAME), force=True) as file:
                file.write(memory.getbuffer())

    def resume(self) -> None:
        """Goes on from the checkpoint in the folder.

        Raises:
            CodecError: There is no checkpoint, it cannot be read, or it is of another codec than
                the recipe's.
        """
        path = self.folder / CHECKPOINT_NAME
        if not path.is_file():
            raise CodecError(f"{path}: no checkpoint to resume; leave --resume out")
        state = read_checkpoint(path)
        if (
            json.loads(state["recipe"])["codec"]
            != json.loads(json.dumps(self.recipe.to_dict()))["codec"]
        ):
            raise CodecError(
                f"{path}: the checkpoint is of another codec; give the same recipe or another --out"
            )
        self.step, self.elapsed_s, stage, self.seed = state["clock"]
        self.origin = Path(state["origin"]) if state.get("origin") else None
        self.init = state.get("init")
        self.learner.load_state_dict(state, stage, self.seed)
        if (before := state.get("hardware")) and before not in self.hardware:
            self.hardware = f"{before}, then {self.hardware}"
        if "draws" in state:
            self.draws.load_state_dict(state["draws"])
            if parallel.rank() < len(state["noise"]):
                host, *devices = state["noise"][parallel.rank()]
                torch.set_rng_state(host)
                if self.kind == "cuda" and devices:
                    torch.cuda.set_rng_state(devices[0], self.device)


def hardware(device: str) -> str:
    """Returns what a run trains on, as its card says it: the device, times the processes."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    return name if parallel.world() == 1 else f"{parallel.world()} x {name}"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns what `Trainer.save` wrote, on the CPU.

    Raises:
        CodecError: The file is not a whole checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CodecError(f"{path}: cannot read this checkpoint ({reason}); train again") from None
    return state
