"""The one training loop: both media, every bottleneck, one process or several, resumable at any moment.

    stage A   encoder, bottleneck, decoder learn to reconstruct; perturbing bottlenecks draw a codebook size per sample
    stage B   the same, and a discriminator judges what comes out
    stage C   the averaged (EMA) encoder is frozen, the codebook is built, the decoder adapts to true indices; the
              discriminator, if there was a stage B, stays

Schedules follow the elapsed share of the budget, minutes or steps, so that one recipe fits ten minutes and ten hours.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from codec.bottleneck import Bottleneck
from codec.bottlenecks._sync import gather_rows
from codec.cards import read_card
from codec.errors import CodecError
from codec.files import writing
from codec.model import build
from codec.nets.blocks import Stack
from train import losses, parallel
from train.adversary import Adversary, cosine
from train.augment import augment
from train.data import Store
from train.draws import Draws
from train.log import LOG_NAME, Log, cut
from train.recipes import Recipe

FIT_TOKENS = 400_000  # latents that a codebook is built from, at most: 24 for each of 16384 entries
SIZE_LOSS_RATE = 0.02  # of the running means
CHECKPOINT_NAME = "checkpoint.pt"
ADVERSARY_SUFFIX = ".adversary.safetensors"


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: minutes of wall clock over all resumed parts, or steps."""

    minutes: float | None = None
    steps: int | None = None

    def progress(self, elapsed_s: float, step: int) -> float:
        """The elapsed share, in [0, 1]."""
        share = step / self.steps if self.steps is not None else elapsed_s / 60 / (self.minutes or 1e-9)
        return min(share, 1.0)

    def __post_init__(self) -> None:
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ValueError(f"want minutes or steps, above 0; got {self.minutes} and {self.steps}")


class Trainer:
    """A run: its nets, optimiser, averages, clock, and the folder it lives in.

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
        self.backbone = backbone
        self.device, self.compiled, self.kind = device, compiled, torch.device(device).type
        torch.manual_seed(seed)
        self.codec = build(recipe.config()).to(device)
        self.average = copy.deepcopy(self.codec).requires_grad_(False)
        if compiled:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
            torch._dynamo.config.recompile_limit = 64  # the stacks share one forward, each with shapes of its own
            for stack in self.codec.modules():
                if isinstance(stack, Stack):
                    stack.compile(dynamic=False)
        parallel.copy_first(self.codec)
        torch.manual_seed(seed + parallel.rank())  # the noise of bottlenecks; all else is in `draws`
        self.draws = Draws(seed, device, parallel.rank(), parallel.world())
        self.adversary: Adversary | None = None
        self.sizes = torch.tensor(self.codec.bottleneck.codebook_sizes)
        self.size_losses = torch.zeros(len(self.sizes), device=device)  # running mean loss at each size
        self.step, self.elapsed_s, self.stage, self.seed = 0, 0.0, "A", seed
        self.hardware = hardware(device)
        self.origin: Path | None = None
        self.init: str | None = None  # of the card: what this run began from
        self._averaged: tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]] | None = None
        self._prepare(self.codec)
        folder.mkdir(parents=True, exist_ok=True)

    def _prepare(self, learning: nn.Module) -> None:
        """A new optimiser for what learns from now on, and replicas that share its gradients."""
        # What is frozen now must keep no gradients: they would count when those of the others are clipped.
        self.codec.zero_grad(set_to_none=True)
        settings = self.recipe.optimiser
        decayed = [p for p in learning.parameters() if p.dim() > 1]
        others = [p for p in learning.parameters() if p.dim() <= 1]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        betas = (settings.betas[0], settings.betas[1])
        self.optimiser = torch.optim.AdamW(
            groups, settings.learning_rate, betas, weight_decay=settings.weight_decay, fused=True
        )
        # A coupled method uses one of its codebooks in a step.
        self.replica = parallel.replicate(self.codec, unused=len(self.sizes) > 1 and self.codec.bottleneck.coupled)

    @cached_property
    def loss(self) -> nn.Module:
        """The distances, when they are first asked for: an export of the run needs no backbone of LPIPS."""
        return losses.build(self.recipe.codec.medium, self.recipe.losses, self.backbone).to(self.device)

    @property
    def progress(self) -> float:
        return self.budget.progress(self.elapsed_s, self.step)

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
            stop_minutes: Stops after so many, with a checkpoint, wherever the budget stands: the end of a lease, say.
            tensorboard: Whether to write for TensorBoard.

        Returns:
            Whether the budget is spent; if not, `resume` goes on.
        """
        if parallel.rank() == 0:
            cut(self.folder / LOG_NAME, self.step)  # of a run that was killed, even one killed before its checkpoint
        log = Log(self.folder, tensorboard) if parallel.rank() == 0 else None
        preview = self.store.batch(4, Draws(self.seed, self.device)) if log and log.board else None
        start = last_save = tick = time.monotonic()
        values: dict[str, list[Tensor]] = {}
        logged_at, logged_step = start, self.step
        if self.step == 0 and self.codec.bottleneck.coupled:
            self._fit()  # k-means beats any fixed start of a codebook (docs/methods/index.md)
        finished = True
        while self.progress < 1:
            self._enter(self._due())
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
                    means |= {"steps_per_s": rate, "tokens_per_s": rate * self._tokens_per_step()}
                    log.write(self.step, self.elapsed_s / 60, self.stage, means)
                    shown = {key: means[key] for key in ("loss", *self.recipe.losses, "tokens_per_s") if key in means}
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

    def _due(self) -> str:
        """The stage that `progress` falls into; one without a share is passed over."""
        if self.progress < self.recipe.share("A"):
            return "A"
        if self.recipe.share("B") and self.progress < self.recipe.share("A") + self.recipe.share("B"):
            return "B"
        return "C" if self.recipe.share("C") else "B" if self.recipe.share("B") else "A"

    def _enter(self, stage: str) -> None:
        if self.stage < stage and stage == "C":
            self.start_stage_c()
        elif self.stage < stage:
            self._enter_stage_b()

    @staticmethod
    def _agree(elapsed_s: float, save: bool, stop: bool) -> tuple[float, bool, bool]:
        """The clock of process 0, for all."""
        if parallel.world() > 1:
            elapsed_s, save, stop = parallel.first((elapsed_s, save, stop))
        return elapsed_s, save, stop

    def _means(self, values: dict[str, list[Tensor]]) -> dict[str, float]:
        """Means over the steps since the last line and over processes: one copy from the device."""
        means = [torch.stack([v.to(self.device, torch.float32) for v in kept]).mean() for kept in values.values()]
        return dict(zip(values, parallel.mean(torch.stack(means)).tolist(), strict=True))

    def _tokens_per_step(self) -> int:
        grid = self.codec.grid(tuple(self.store.crop))
        return self.recipe.data.batch * parallel.world() * int(torch.tensor(grid).prod())

    def _batch(self) -> Tensor:
        """Augmented crops, this process's rows."""
        data = self.recipe.data
        return augment(self.store.medium, self.store.batch(data.batch, self.draws), self.draws, data.augment)

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns named values for the log, on the device."""
        settings, weights = self.recipe.optimiser, self.recipe.losses
        schedule = cosine(self.progress, settings.final_share)
        warm = min(1.0, (self.step + 1) / settings.warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * warm * schedule
        if self.stage != "C":
            learnt = self.recipe.share("A") + self.recipe.share("B")
            self.codec.bottleneck.anneal(min(self.progress / learnt, 1.0))

        x = self._batch()
        drawn = self._draw_sizes(len(x))
        with torch.autocast(self.kind, torch.bfloat16):
            out = self.replica(x, self.sizes[drawn] if len(drawn.unique()) > 1 else int(self.sizes[drawn[0]]))
        terms = self.loss(x, out.x_hat)
        pulls = {} if self.stage == "C" else out.bottleneck.losses  # a frozen encoder and codebook feel none
        distortion = torch.stack([weights[name] * value for name, value in terms.items()]).sum(0)
        loss = (distortion * self._size_weights(drawn, distortion)).mean()
        loss = loss + sum(weights[name] * value for name, value in pulls.items())
        scalars = {name: value.mean() for name, value in terms.items()} | pulls | out.bottleneck.stats
        if self.adversary is not None:
            scalars |= self.adversary.learn(x, out.x_hat, schedule)
            judged = self.adversary.judge(x, out.x_hat)
            loss = loss + self.adversary.weigh(judged)
            scalars |= judged

        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.codec.parameters(), settings.clip)
        if torch.isfinite(norm):  # one bad batch must not end a run; the log shows how many there were
            self.optimiser.step()
            self._update_average()
        self.step += 1
        scalars |= {"loss": loss, "grad_norm": norm, "skipped": ~torch.isfinite(norm)}
        return {name: value.detach() for name, value in scalars.items()}

    def _draw_sizes(self, count: int) -> Tensor:
        """(count,) places in `sizes`, on the host: for each sample, or with a real codebook for the whole batch."""
        if self.stage == "C" or self.codec.bottleneck.coupled:
            return torch.full((count,), self.draws.integer(len(self.sizes)))
        return self.draws.integers(count, len(self.sizes))

    def _size_weights(self, drawn: Tensor, distortion: Tensor) -> Tensor:
        """Weights that give each size the same say, or the coarse ones would dominate (docs/methods/nets.md)."""
        values = distortion.detach()
        usable = values.isfinite()  # one bad batch must not spoil the weights of all that follow
        member = F.one_hot(drawn, len(self.sizes)).to(values.device, values.dtype, non_blocking=True)
        counted = torch.stack([torch.where(usable, values, 0), usable.to(values)]) @ member
        totals, counts = parallel.mean(counted)
        means, old = totals / counts.clamp(min=1e-9), self.size_losses
        moved = torch.where(old == 0, means, old.lerp(means, SIZE_LOSS_RATE))
        self.size_losses = torch.where(counts > 0, moved, old)
        known = self.size_losses > 0
        mean = self.size_losses.sum() / known.sum().clamp(min=1)
        return member @ torch.where(known, mean / self.size_losses, 1.0)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.optimiser.ema, (1 + self.step) / (10 + self.step))  # short memory at the start
        moving, copied = self._averaged = self._averaged or self._pairs()
        get_ema_multi_avg_fn(decay)([a for a, _ in moving], [b for _, b in moving], torch.tensor(0))
        for mean, value in copied:
            mean.copy_(value)

    def _pairs(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Tensors of `average` and those that they follow: such as are averaged, and such as are copied."""
        ours, theirs = self.codec.state_dict(), self.average.state_dict()
        unused = {f"bottleneck.{name}" for name in self.codec.bottleneck.training_state}
        moving = {name for name, value in theirs.items() if value.is_floating_point() and name not in unused}
        pairs = {name: (theirs[name], ours[name]) for name in theirs}
        return [pairs[n] for n in pairs if n in moving], [pairs[n] for n in pairs if n not in moving]

    def begin_from(self, card: Path) -> None:
        """Begins with the weights of an exported model instead of random ones, and with its discriminator if kept.

        From a model with another bottleneck come the nets alone, without the layers that face the latents if those have
        another width.

        Raises:
            CodecError: The model's medium or nets are others.
        """
        model = read_card(card)
        config = json.loads(json.dumps(self.codec.config.to_dict()))
        if any(model.config[part] != config[part] for part in ("medium", "nets")):
            raise CodecError(f"{card}: this model has another medium or preset than the recipe; change one of them")
        ours = self.codec.state_dict()
        same = model.config == config
        tensors = {name: torch.tensor(value) for name, value in model.read().items() if name in ours}
        if not same:
            nets = {name: value for name, value in tensors.items() if not name.startswith("bottleneck.")}
            tensors = {name: value for name, value in nets.items() if value.shape == ours[name].shape}
        for codec in (self.codec, self.average):
            codec.load_state_dict(tensors, strict=False)  # without what only training needs: that starts anew
        self.origin = card
        minutes = model.data.get("training", {}).get("minutes", "unknown")
        self.init = f"{model.name} {model.model_id.hex()}, {minutes} minutes" + ("" if same else ", nets alone")

    def _enter_stage_b(self) -> None:
        self.stage = "B"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # the same on all processes, and apart from the noise
            medium, settings = self.recipe.codec.medium, self.recipe.adversary
            self.adversary = Adversary(medium, settings, self.device, self.compiled)
        kept = self.origin and self.origin.with_name(self.origin.stem + ADVERSARY_SUFFIX)
        if kept and kept.is_file():
            try:
                self.adversary.nets.load_state_dict({name: value.float() for name, value in load_file(kept).items()})
            except (OSError, SafetensorError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise CodecError(f"{kept}: not the discriminator of this recipe ({reason}); remove it") from None

    def start_stage_c(self) -> None:
        """Freezes the averaged encoder, builds the codebook from its latents, and goes on with the decoder alone."""
        self.codec.load_state_dict(self.average.state_dict())
        if not self.codec.bottleneck.coupled:
            self._fit()
        self.average.load_state_dict(self.codec.state_dict())
        self._enter_stage_c()

    def _fit(self) -> None:
        if type(self.codec.bottleneck).fit is not Bottleneck.fit:  # or encoding all those latents were for nothing
            self.codec.bottleneck.fit(self.latents())
            parallel.copy_first(self.codec.bottleneck)  # sums on a GPU differ in the last bit

    def _enter_stage_c(self) -> None:
        self.stage = "C"
        self.codec.encoder.requires_grad_(False)
        self.codec.bottleneck.requires_grad_(False).eval()
        self.size_losses.zero_()
        self._prepare(self.codec.decoder)

    @torch.no_grad()
    def latents(self) -> Tensor:
        """Latents of the averaged encoder over random crops of the training data, (N <= FIT_TOKENS, D_in) float32.

        Augmented, as all that the encoder learnt from; the VP-VAE paper encodes the training set as it is.
        """
        rows: list[Tensor] = []
        count = 0
        total = min(FIT_TOKENS, int(self.store.weights.sum() / self.codec.stride**self.codec.axes))
        while count < total:
            z = gather_rows(self.average.encoder(self._batch()).float())
            rows.append(z.flatten(2).transpose(1, 2).flatten(0, 1))
            count += len(rows[-1])
        return torch.cat(rows)[:total]

    def save(self) -> None:
        """Writes checkpoint.pt; at any moment the folder holds one whole checkpoint."""
        noise = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if self.kind == "cuda" else [])]
        state: dict[str, Any] = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "codec": self.codec.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state_dict() if self.adversary is not None else None,
            "size_losses": self.size_losses,
            "clock": [self.step, self.elapsed_s, self.stage, self.seed],
            "draws": self.draws.state_dict(),
            "noise": parallel.all_of(noise),
            "hardware": self.hardware,
            "origin": str(self.origin) if self.origin else None,
            "init": self.init,
        }
        if parallel.rank() == 0:
            memory = io.BytesIO()  # torch.save into a file tells a full disk as a RuntimeError without a name
            torch.save(state, memory)
            with writing(str(self.folder / CHECKPOINT_NAME), force=True) as file:
                file.write(memory.getbuffer())

    def resume(self) -> None:
        """Continues from checkpoint.pt. Raises CodecError where there is none or it is of another recipe."""
        path = self.folder / CHECKPOINT_NAME
        if not path.is_file():
            raise CodecError(f"{path}: no checkpoint to resume; leave --resume out")
        state = read_checkpoint(path)
        if json.loads(state["recipe"])["codec"] != json.loads(json.dumps(self.recipe.to_dict()))["codec"]:
            raise CodecError(f"{path}: the checkpoint is of another codec; give the same recipe or another --out")
        self.codec.load_state_dict(state["codec"])
        self.average.load_state_dict(state["average"])
        self.step, self.elapsed_s, stage, self.seed = state["clock"]
        self.origin = Path(state["origin"]) if state.get("origin") else None
        self.init = state.get("init")
        if state.get("adversary"):
            self._enter_stage_b()
            assert self.adversary is not None
            self.adversary.load_state_dict(state["adversary"])
        if stage == "C":
            self._enter_stage_c()
        self.optimiser.load_state_dict(state["optimiser"])
        self.size_losses = state["size_losses"].to(self.device)
        if (before := state.get("hardware")) and before not in self.hardware:
            self.hardware = f"{before}, then {self.hardware}"
        if "draws" in state:  # in runs of version 0.1.0 one stream served everything; they go on with new draws
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
    """What `Trainer.save` wrote, on the CPU. Raises CodecError for a file that is not a whole checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CodecError(f"{path}: cannot read this checkpoint ({reason}); train again") from None
    return state
