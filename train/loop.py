"""A training run: the loop over steps, the log and the checkpoints.

There is one loop for speech and pictures, for every bottleneck, and for one process or several:

    Store, Draws ──augmented batch──> Learner ──values──> Report
    Stages: what begins the run and each of its stages
    Trainer: decides what comes next, and writes checkpoints

A step itself is in `train.learner`, and runs as a CUDA graph where it can (`train.graph`). A run
passes through up to three stages (`train.stages`). They and learning rates follow the elapsed share
of the budget, which is given in minutes or in steps, so that one recipe fits ten minutes and ten
hours.
"""

from __future__ import annotations

import json
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codec.errors import CodecError, out_of_memory
from codec.model import Codec
from train import losses, parallel
from train.adversary import Adversary
from train.augment import augment
from train.beginning import Beginning
from train.budget import Budget
from train.changes import told
from train.checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from train.draws import Draws, load_noise_state, noise_state
from train.graph import Graphs
from train.hardware import hardware, joined
from train.interrupts import Interruption, between_steps
from train.learner import Learner
from train.log import LOG_NAME, Log, cut
from train.recipe import Recipe
from train.recipes import from_dict
from train.report import Report
from train.stages import Stages
from train.store import Store


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
        stages: What begins the run and each of its stages.
        hardware: What the run was trained on, part after part, for the card.
        skipped: How many steps of the last call of `run` changed no weights.
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
        self.step, self.elapsed_s, self.seed, self.skipped = 0, 0.0, seed, 0
        self.hardware = hardware(device)
        self.stages = Stages(recipe, store, self.learner, self.batch, folder)
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
            self.skipped = int(report.skipped)
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
        self.stages.check()
        if self.step == 0:
            self.stages.prepare()
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
            self.elapsed_s, save, stop = parallel.agree(self.elapsed_s + now - tick, save, stop)
            tick = now
            report.add(values, self.step, self.elapsed_s, self.progress, self.stage)
            if stop:
                break
            if save:
                self.save()
                report.show(self.average, self.step)
                saved = time.monotonic()
        finished = self.progress >= 1
        if finished:
            self.enter("C")
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
            self.stages.start(stage, self.seed)
            self.graphs.forget()

    def save(self) -> None:
        """Writes the checkpoint, from which `resume` goes on bit for bit.

        At any moment the folder holds one whole checkpoint: the new one takes the old one's place
        when it is complete.

        Raises:
            OSError: It cannot be written.
        """
        state: dict[str, Any] = {
            "recipe": json.dumps(self.recipe.to_dict()),
            **self.learner.state_dict(),
            "clock": [self.step, self.elapsed_s, self.stage, self.seed],
            "draws": self.draws.state_dict(),
            "noise": parallel.all_of(noise_state(self.device)),
            "hardware": self.hardware,
            **self.stages.beginning.state_dict(),
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
                discriminator than the recipe's; or the recipe only tunes, and the run did not.
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
        if self.recipe.tunes and not from_dict(before).tunes:
            raise CodecError(
                f"{path}: a run that trains its encoder does not go on as one that tunes a "
                f"finished model; begin another with --init {self.folder}, or keep its stages"
            )
        self.step, self.elapsed_s, stage, self.seed = state["clock"]
        self.stages.beginning = Beginning.of(state)
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
                load_noise_state(state["noise"][parallel.rank()], self.device)
        due = self.recipe.stage_at(self.progress) if self.progress < 1 else stage
        lines = told(self.folder, before, now, stage, due)
        # Older checkpoints have its first part, the sizes, alone.
        if not self.store.identity.startswith(state.get("data", "")):
            lines.insert(0, f"other data than the run in {self.folder} has had so far")
        return lines
