"""A training run: the loop over steps, the three stages, the log and the checkpoints.

There is one loop for speech and pictures, for every bottleneck, and for one process or several. A
run passes through up to three stages; its recipe says how much of the budget each of them takes:

    stage A   encoder, bottleneck and decoder learn to reconstruct. A bottleneck that perturbs
              latents draws a codebook size for each sample; one with a real codebook has one size
              for the whole batch
    stage B   the same, and a discriminator judges what comes out
    stage C   the averaged (EMA) encoder is frozen, the codebook is built from its latents, and the
              decoder adapts to true indices; the discriminator, if there was a stage B, stays

    Store, Draws ──augmented batch──> Learner ──values──> Report
    Trainer: decides what comes next, and writes checkpoints

A step itself is in `train.learner`, and runs as a CUDA graph where it can (`train.graph`). Learning
rates and stages follow the elapsed share of the budget, which is given in minutes or in steps, so
that one recipe fits ten minutes and ten hours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codec.errors import CodecError, out_of_memory
from codec.model import Codec
from train import codebook, losses, parallel
from train.adversary import Adversary
from train.augment import augment
from train.beginning import NETS_ALONE, Beginning, begin
from train.checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from train.data import Store
from train.draws import Draws
from train.graph import Graphs
from train.interrupts import Interruption, between_steps
from train.learner import Learner
from train.log import LOG_NAME, Log, cut
from train.recipes import Recipe
from train.report import Report


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
        beginning: Where the first weights came from.
        hardware: What the run was trained on, part after part, for the card.
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
        self.beginning = Beginning()
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def loss(self) -> nn.Module:
        """The distances between original and reconstruction, with their networks.

        They are made when they are first asked for, since an export of the run needs none. What is
        drawn for that is drawn apart from the noise of bottlenecks: a run that goes on makes them
        once more, and its noise goes on as it was.
        """
        with torch.random.fork_rng([self.device] if self.kind == "cuda" else []):
            torch.manual_seed(self.seed)
            made = losses.build(self.recipe.codec.medium, self.recipe.losses, self.backbone)
        return made.to(self.device)

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
            KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP came; a checkpoint was written after the
                step that it came in.
        """
        report = self._report(log_steps, tensorboard)
        try:
            with between_steps() as interruption:
                return self._run(report, checkpoint_minutes, stop_minutes, interruption)
        finally:
            report.close()

    def _run(
        self,
        report: Report,
        checkpoint_minutes: float,
        stop_minutes: float | None,
        interruption: Interruption,
    ) -> bool:
        """Does what `run` says, and tells it to the report."""
        start = saved = tick = time.monotonic()
        if self.stage == "A":
            self._check_adversary(self.beginning)
        if self.step == 0:
            self._prepare()
        if self.progress < 1:
            self.hardware = joined(self.hardware, hardware(self.device))
        while self.progress < 1:
            self.enter(self.recipe.stage_at(self.progress))
            values = self.train_step()
            now = time.monotonic()
            stop = interruption.asked or (
                stop_minutes is not None and now - start >= stop_minutes * 60
            )
            save = now - saved > checkpoint_minutes * 60
            self.elapsed_s, save, stop = agree(self.elapsed_s + now - tick, save, stop)
            tick = now
            report.add(values, self.step, self.elapsed_s, self.progress, self.stage)
            if stop:
                break
            if save:
                self.save()
                report.show(self.average, self.step)
                saved = time.monotonic()
        finished = self.progress >= 1
        if finished and self.stage != "C":
            self.start_stage_c()
        self.save()
        report.show(self.average, self.step)
        if interruption.asked:
            raise KeyboardInterrupt
        return finished

    def _report(self, every: int, tensorboard: bool) -> Report:
        """Opens the log, without the lines of steps that are taken again."""
        log = preview = None
        if parallel.rank() == 0:
            cut(self.folder / LOG_NAME, self.step)
            log = Log(self.folder, tensorboard)
            if tensorboard:
                preview = self.store.batch(4, Draws(self.seed, self.device))
        # A narrow terminal cuts what is last.
        shown = ("loss", "steps_per_s", *self.recipe.losses)
        return Report(log, self.device, every, shown, self.tokens_per_step, self.step, preview)

    def _prepare(self) -> None:
        """Does what comes before the first step."""
        if self.beginning.complete:
            return
        if self.recipe.tunes:
            raise CodecError(
                "stage C alone tunes a finished model: give its card or run with --init"
            )
        if self.codec.bottleneck.coupled:
            self.fit()  # k-means beats any fixed start of a codebook (docs/methods/index.md)

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
        assert self.adversary is not None
        self.beginning.load_adversary(self.adversary.nets)

    def start_stage_c(self) -> None:
        """Begins stage C: the encoder is frozen, and the decoder learns alone.

        Training goes on from the averaged weights. The codebook is built from the averaged
        encoder's latents where the bottleneck had none so far; a model that is only tuned keeps its
        own.

        Raises:
            CodecError: What is only tuned has no codebook.
        """
        self.codec.load_state_dict(self.average.state_dict())
        if self.recipe.tunes:
            self._check_codebook()
        elif not self.codec.bottleneck.coupled:
            self.fit()
        self.average.load_state_dict(self.codec.state_dict())
        self.learner.freeze()
        self.graphs.forget()

    def _check_codebook(self) -> None:
        """Decodes an index: without a codebook the decoder would learn from zeros."""
        bottleneck = self.codec.bottleneck
        shape = (1, bottleneck.num_codebooks, *[1] * self.codec.axes)
        try:
            bottleneck.decode(torch.zeros(shape, dtype=torch.int64, device=self.device))
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise CodecError(
                f"{self.beginning.name or self.folder}: no codebook to tune to ({error}); "
                "a run has one from its stage C on, and its export: finish it, or give the card to "
                "--init"
            ) from None

    def fit(self) -> None:
        """Builds the codebook from latents, or gives a codebook that learns its start."""
        codebook.fit(self.codec.bottleneck, self.latents)

    def latents(self) -> Tensor:
        """Returns (N, D_in) latents of the averaged encoder; see `train.codebook.latents`."""
        return codebook.latents(self.average, self.store, self.batch)

    def begin_from(self, source: Path) -> None:
        """Begins with the weights of a model's card or of a run's folder; see `train.beginning`.

        Raises:
            CodecError: The model has another medium or other nets than the recipe, or, where the
                recipe has a stage B, another discriminator.
        """
        beginning = begin(source, (self.codec, self.average))
        self._check_adversary(beginning)
        self.beginning = beginning

    def _check_adversary(self, beginning: Beginning) -> None:
        """Reads the discriminator that stage B is going to begin with, hours before it does."""
        if self.recipe.share("B"):
            beginning.check_adversary(self.recipe.codec.medium, self.recipe.adversary.width)

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
            "origin": str(self.beginning.card) if self.beginning.card else None,
            "init": self.beginning.name,
            "complete": self.beginning.complete,
            "judged": self.beginning.judged,
            "data": self.store.identity,
        }
        if parallel.rank() == 0:
            write_checkpoint(self.folder / CHECKPOINT_NAME, state)

    def resume(self) -> list[str]:
        """Goes on from the checkpoint in the folder.

        Returns:
            What is other than it was: a line each on the data, on keys of the recipe, and on a
            stage that the run does not go back from.

        Raises:
            CodecError: There is no checkpoint, it cannot be read, or it is of another codec or
                discriminator than the recipe's.
        """
        path = self.folder / CHECKPOINT_NAME
        if not path.is_file():
            raise CodecError(f"{path}: no checkpoint to resume; leave --resume out")
        state = read_checkpoint(path)
        before, now = json.loads(state["recipe"]), json.loads(json.dumps(self.recipe.to_dict()))
        if before["codec"] != now["codec"]:
            raise CodecError(
                f"{path}: the checkpoint is of another codec; give the same recipe or another --out"
            )
        self.step, self.elapsed_s, stage, self.seed = state["clock"]
        card = state.get("origin")
        name = state.get("init")
        # Older checkpoints say it in the name alone.
        complete = state.get("complete", name is not None and not name.endswith(NETS_ALONE))
        judged = bool(state.get("judged"))
        self.beginning = Beginning(Path(card) if card else None, name, complete, judged)
        try:
            self.learner.load_state_dict(state, stage, self.seed)
        except (KeyError, RuntimeError, ValueError) as error:
            if out_of_memory(error):
                raise
            # The codec is the same: what differs is the discriminator, or the file is foreign.
            raise CodecError(
                f"{path}: does not fit the recipe, its adversary perhaps; give the same recipe"
            ) from None
        # What trains from here on joins it in `run`: an export resumes, too, and trains nothing.
        self.hardware = state.get("hardware") or self.hardware
        if "draws" in state:
            self.draws.load_state_dict(state["draws"])
            if parallel.rank() < len(state["noise"]):
                host, *devices = state["noise"][parallel.rank()]
                torch.set_rng_state(host)
                if self.kind == "cuda" and devices:
                    torch.cuda.set_rng_state(devices[0], self.device)
        lines = self._changes(before, now)
        # Older checkpoints have its first part, the sizes, alone.
        if not self.store.identity.startswith(state.get("data", "")):
            lines.insert(0, f"other data than the run in {self.folder} has had so far")
        return lines

    def _changes(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """Says in a line each what is other than the checkpoint has it.

        Args:
            before: The checkpoint's recipe.
            now: The recipe that holds from now on.
        """
        lines = []
        if keys := differing(before, now):
            lines.append(f"other than in {self.folder} so far, and in force now: {', '.join(keys)}")
        if self.progress < 1 and self.stage > self.recipe.stage_at(self.progress):
            kept = (
                "encoder and codebook stay frozen, and only the decoder trains on"
                if self.stage == "C"
                else "it does not go back from it"
            )
            lines.append(
                f"the run in {self.folder} is in stage {self.stage} already: {kept}; for a longer "
                f"training of all its weights, begin another run with --init {self.folder}"
            )
        return lines


def differing(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """Names the keys in which two recipes differ, as tables: "data.batch" and the like."""
    keys = []
    for key in dict.fromkeys([*before, *now]):
        ours, theirs = before.get(key), now.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            keys += differing(ours, theirs, f"{path}{key}.")
        elif ours != theirs:
            keys.append(f"{path}{key}")
    return keys


def agree(elapsed_s: float, save: bool, stop: bool) -> tuple[float, bool, bool]:
    """Returns what process 0 has of these, on every process: they must save and stop as one."""
    if parallel.world() > 1:
        clock = torch.tensor([elapsed_s, save, stop], dtype=torch.float64)
        elapsed_s, save, stop = parallel.first_numbers(clock).tolist()
    return elapsed_s, bool(save), bool(stop)


THEN = ", then "  # between the parts of a run that went on somewhere else


def joined(before: str, now: str) -> str:
    """Returns what a run was trained on so far, with what it goes on on, if that is another."""
    return before if before.split(THEN)[-1] == now else f"{before}{THEN}{now}"


def hardware(device: str) -> str:
    """Returns what a run trains on, as its card says it: the device, times the processes."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    return name if parallel.world() == 1 else f"{parallel.world()} x {name}"
