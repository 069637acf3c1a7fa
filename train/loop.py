"""The one training run, resumable at any moment.

It serves both media and every bottleneck, on one process or several.

    stage A   encoder, bottleneck, decoder learn to reconstruct; perturbing bottlenecks draw a
              codebook size per sample
    stage B   the same, and a discriminator judges what comes out
    stage C   the averaged (EMA) encoder is frozen, the codebook is built, the decoder adapts to
              true indices; the discriminator, if there was a stage B, stays

    Store, Draws ──augmented batch──> Learner
    Learner (train.learner): one step, as a CUDA graph where it can be (train.graph)
    Trainer: the budget, the stages, the log and the checkpoints around it

Schedules follow the elapsed share of the budget, minutes or steps, so that one recipe fits ten
minutes and ten hours.
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
    """How long to train: minutes of wall clock over all resumed parts, or steps."""

    minutes: float | None = None
    steps: int | None = None

    def progress(self, elapsed_s: float, step: int) -> float:
        """The elapsed share, in [0, 1]."""
        share = (
            step / self.steps if self.steps is not None else elapsed_s / 60 / (self.minutes or 1e-9)
        )
        return min(share, 1.0)

    def __post_init__(self) -> None:
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ValueError(f"want minutes or steps, above 0; got {self.minutes} and {self.steps}")


class Trainer:
    """A run: what learns, its clock, and the folder it lives in.

    Args:
        recipe: What to train.
        store: Prepared data of the recipe's medium.
        budget: How long.
        folder: Receives log.jsonl and checkpoint.pt.
        seed: Of initial weights and of everything drawn.
        device: "cpu" or "cuda", "cuda:1".
        compiled: Whether the nets go through torch.compile.
        backbone: A file with LPIPS's, for a recipe that weighs it (see `train.losses.build`).
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
        self.init: str | None = None  # of the card: what this run began from
        self.complete = False  # whether that was the same codec, codebooks and all
        folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def loss(self) -> nn.Module:
        """The distances, made when they are first asked for.

        An export of the run needs no backbone of LPIPS.
        """
        return losses.build(self.recipe.codec.medium, self.recipe.losses, self.backbone).to(
            self.device
        )

    @property
    def codec(self) -> Codec:
        return self.learner.codec

    @property
    def average(self) -> Codec:
        return self.learner.average

    @property
    def adversary(self) -> Adversary | None:
        return self.learner.adversary

    @property
    def stage(self) -> str:
        return self.learner.stage

    @property
    def progress(self) -> float:
        return self.budget.progress(self.elapsed_s, self.step)

    @property
    def tokens_per_step(self) -> int:
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
            checkpoint_minutes: Between checkpoints.
            log_steps: Between lines of the log.
            stop_minutes: Stops after so many, with a checkpoint, wherever the budget stands: the
                end of a lease, say.
            tensorboard: Whether to write for TensorBoard.

        Returns:
            Whether the budget is spent; if not, `resume` goes on.
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
        """The clock of process 0, for all."""
        if parallel.world() > 1:
            clock = torch.tensor([elapsed_s, save, stop], dtype=torch.float64)
            elapsed_s, save, stop = parallel.first_numbers(clock).tolist()
        return elapsed_s, bool(save), bool(stop)

    def _means(self, values: dict[str, list[Tensor]]) -> dict[str, float]:
        """Means over the steps since the last line and over processes: one copy from the device."""
        means = [
            torch.stack([v.to(self.device, torch.float32) for v in kept]).mean()
            for kept in values.values()
        ]
        return dict(zip(values, parallel.mean(torch.stack(means)).tolist(), strict=True))

    def batch(self) -> Tensor:
        """Augmented crops, this process's rows."""
        data = self.recipe.data
        return augment(
            self.store.medium, self.store.batch(data.batch, self.draws), self.draws, data.augment
        )

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns named values for the log, on the device."""
        size = self.learner.prepare(self.progress, self.step, self.draws, self.batch())
        loss = self.loss
        settled = self.learner.settled
        values = self.graphs.run((self.stage, size), lambda: self.learner.step(loss, size), settled)
        self.step += 1
        return values

    def enter(self, stage: str) -> None:
        """Goes on to a later stage, if it is one."""
        if self.stage < stage:
            self.start_stage_c() if stage == "C" else self.start_stage_b()

    def start_stage_b(self) -> None:
        """Begins stage B: the judges join.

        They have what they had learnt, where the model that this run began from kept them.
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

        The averaged encoder is taken, and the codebook is built from its latents.

        A model that is only tuned keeps its codebook.
        """
        self.codec.load_state_dict(self.average.state_dict())
        if not self.codec.bottleneck.coupled and not self.recipe.tunes:
            self.fit()
        self.average.load_state_dict(self.codec.state_dict())
        self.learner.freeze()
        self.graphs.forget()

    def fit(self) -> None:
        """Builds or starts the codebook."""
        codebook.fit(self.codec.bottleneck, self.latents)

    def latents(self) -> Tensor:
        """Of the averaged encoder: see `train.codebook.latents`."""
        return codebook.latents(self.average, self.store, self.batch)

    def begin_from(self, card: Path) -> None:
        """Begins with the weights of an exported model instead of random ones.

        Its discriminator is taken, too, if it was kept.

        From a model with another bottleneck come the nets alone, without the layers that face the
        latents if those have another width. `card` may also be the folder of a run: then it begins
        with its averaged weights.

        Raises:
            CodecError: The model's medium or nets are others.
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
        """`begin_from` of a run's last checkpoint."""
        state = read_checkpoint(folder / CHECKPOINT_NAME)
        config = from_dict(json.loads(state["recipe"])).config().to_dict()
        self.complete = same = self._take(folder, config, state["average"])
        minutes = round(state["clock"][1] / 60, 1)
        self.init = f"{folder.name}, {minutes} minutes" + ("" if same else ", nets alone")

    def _take(self, source: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
        """Loads the weights that fit; whether they are of the same codec, and so all of them."""
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
        """Writes checkpoint.pt; at any moment the folder holds one whole checkpoint."""
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
        """Continues from checkpoint.pt.

        Raises CodecError where there is none or it is of another recipe.
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
    """What a run trains on, for its card."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    return name if parallel.world() == 1 else f"{parallel.world()} x {name}"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `Trainer.save` wrote, on the CPU.

    Raises CodecError for a file that is not a whole checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CodecError(f"{path}: cannot read this checkpoint ({reason}); train again") from None
    return state
