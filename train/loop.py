"""The one training loop: both media, every bottleneck, resumable at any moment.

    stage A   encoder, bottleneck, decoder learn to reconstruct; perturbing bottlenecks draw a codebook size per sample
    stage C   the averaged (EMA) encoder is frozen, the codebook is built, the decoder adapts to true indices

Schedules follow the elapsed share of the budget, minutes or steps, so that one recipe fits ten minutes and ten hours.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from codec.bottleneck import Bottleneck
from codec.errors import CodecError
from codec.model import build
from train.data import Store, augment
from train.losses import LOSSES
from train.recipes import Recipe

FIT_TOKENS = 400_000  # latents that a codebook is built from, at most: 24 for each of 16384 entries


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
        device: "cpu" or "cuda".
    """

    def __init__(self, recipe: Recipe, store: Store, budget: Budget, folder: Path, seed: int, device: str) -> None:
        self.recipe, self.store, self.budget, self.folder, self.device = recipe, store, budget, folder, device
        torch.manual_seed(seed)
        self.codec = build(recipe.config()).to(device)
        self.average = copy.deepcopy(self.codec).requires_grad_(False)
        self.loss = LOSSES[recipe.codec.medium]().to(device)
        self.optimiser = self._optimiser(self.codec)
        self.sizes = torch.tensor(self.codec.bottleneck.codebook_sizes)
        self.size_losses = torch.zeros(len(self.sizes))  # running mean loss at each size
        self.step, self.elapsed_s, self.stage, self.seed = 0, 0.0, "A", seed
        folder.mkdir(parents=True, exist_ok=True)

    def _optimiser(self, module: nn.Module) -> torch.optim.AdamW:
        settings = self.recipe.optimiser
        decayed = [p for p in module.parameters() if p.dim() > 1]
        others = [p for p in module.parameters() if p.dim() <= 1]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        betas = (settings.betas[0], settings.betas[1])
        return torch.optim.AdamW(groups, settings.learning_rate, betas, weight_decay=settings.weight_decay)

    @property
    def progress(self) -> float:
        return self.budget.progress(self.elapsed_s, self.step)

    def run(self, checkpoint_minutes: float = 2.0, log_steps: int = 50) -> None:
        """Trains to the end of the budget; afterwards `average` is the model to export."""
        last_save = tick = time.monotonic()
        bar = tqdm(
            total=100,
            desc=self.folder.name,
            disable=None,
            unit="%",
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
        )
        logged: dict[str, list[float]] = {}
        if self.step == 0 and self.codec.bottleneck.coupled:
            self._fit()  # k-means beats any fixed start of a codebook (methods.md section 0)
        while self.progress < 1:
            if self.stage == "A" and self.progress >= self.recipe.stages["A"]:
                self.start_stage_c()
            record = self.train_step()
            now = time.monotonic()
            self.elapsed_s, tick = self.elapsed_s + now - tick, now
            for key, value in record.items():
                logged.setdefault(key, []).append(value)
            if self.step % log_steps == 0:
                means = {key: sum(values) / len(values) for key, values in logged.items()}
                self._log(means)
                bar.set_postfix(step=self.step, loss=f"{means['loss']:.4g}")
                logged = {}
            bar.update(100 * self.progress - bar.n)
            if now - last_save > checkpoint_minutes * 60:
                self.save()
                last_save = now
        bar.close()
        if self.stage == "A":
            self.start_stage_c()
        self.save()

    def train_step(self) -> dict[str, float]:
        """One optimiser step; returns named values for the log."""
        settings, progress = self.recipe.optimiser, self.progress
        warm = min(1.0, (self.step + 1) / settings.warmup_steps)
        cosine = settings.final_share + (1 - settings.final_share) * (1 + math.cos(math.pi * progress)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * warm * cosine
        self.codec.bottleneck.anneal(min(progress / self.recipe.stages["A"], 1.0))

        x = augment(self.store.medium, self.store.batch(self.recipe.data.batch).to(self.device))
        drawn = torch.randint(len(self.sizes), (x.shape[0],))
        if self.stage == "C" or self.codec.bottleneck.coupled:
            drawn[:] = drawn[0]  # a real codebook: one size for the whole batch
        with torch.autocast(self.device, torch.bfloat16):
            size = self.sizes[drawn] if len(drawn.unique()) > 1 else int(self.sizes[drawn[0]])
            out = self.codec(x, size)
        terms = self.loss(x, out.x_hat)
        weights = self.recipe.losses
        if misspelt := set(weights) - set(terms) - set(out.bottleneck.losses):
            known = ", ".join([*terms, *out.bottleneck.losses])
            raise CodecError(f"unknown loss {', '.join(sorted(misspelt))} in the recipe; known are {known}")
        distortion = torch.stack([weights[name] * value for name, value in terms.items()]).sum(0)
        loss = (distortion * self._size_weights(drawn, distortion)).mean()
        loss = loss + sum(weights[name] * value for name, value in out.bottleneck.losses.items())

        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.codec.parameters(), settings.clip)
        if torch.isfinite(norm):  # one bad batch must not end a run; the log shows how many there were
            self.optimiser.step()
            self._update_average()
        self.step += 1
        scalars = {name: value.mean() for name, value in terms.items()} | out.bottleneck.losses | out.bottleneck.stats
        record = {name: float(value.detach()) for name, value in scalars.items()}
        return record | {
            "loss": float(loss.detach()),
            "grad_norm": float(norm),
            "skipped": float(not torch.isfinite(norm)),
        }

    def _size_weights(self, drawn: Tensor, distortion: Tensor) -> Tensor:
        """Weights that give each codebook size the same say, or the coarse ones would dominate (methods 9a)."""
        for i in drawn.unique().tolist():
            mean = distortion.detach()[drawn.to(distortion.device) == i].mean().cpu()
            if not torch.isfinite(mean):
                continue  # one bad batch must not spoil the weights of all that follow
            old = self.size_losses[i]
            self.size_losses[i] = mean if old == 0 else old + 0.02 * (mean - old)
        known = self.size_losses > 0
        weights = torch.where(known, self.size_losses[known].mean() / self.size_losses, torch.tensor(1.0))
        return weights[drawn].to(distortion.device)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.optimiser.ema, (1 + self.step) / (10 + self.step))  # short memory at the start
        current = self.codec.state_dict()
        for name, value in self.average.state_dict().items():
            if (
                value.is_floating_point()
                and name.removeprefix("bottleneck.") not in self.codec.bottleneck.training_state
            ):
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])

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

    def _enter_stage_c(self) -> None:
        self.stage = "C"
        self.codec.encoder.requires_grad_(False)
        self.codec.bottleneck.requires_grad_(False).eval()
        self.optimiser = self._optimiser(self.codec.decoder)
        self.size_losses.zero_()

    @torch.no_grad()
    def latents(self) -> Tensor:
        """Latents of the averaged encoder over random crops of the training data, (N <= FIT_TOKENS, D_in) float32."""
        rows: list[Tensor] = []
        count = 0
        total = min(FIT_TOKENS, int(self.store.weights.sum() / self.codec.stride**self.codec.axes))
        while count < total:
            x = augment(self.store.medium, self.store.batch(self.recipe.data.batch).to(self.device))
            rows.append(self.average.encoder(x).flatten(2).transpose(1, 2).flatten(0, 1).float())
            count += len(rows[-1])
        return torch.cat(rows)[:total]

    def _log(self, values: dict[str, float]) -> None:
        record = {"step": self.step, "minutes": round(self.elapsed_s / 60, 3), "stage": self.stage}
        record |= {name: float(f"{value:.5g}") for name, value in values.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")

    def save(self) -> None:
        """Writes checkpoint.pt; at any moment the folder holds one whole checkpoint."""
        state: dict[str, Any] = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "codec": self.codec.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "size_losses": self.size_losses,
            "clock": [self.step, self.elapsed_s, self.stage, self.seed],
            "random": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if self.device == "cuda" else [])],
        }
        partial = self.folder / "checkpoint.pt.part"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Continues from checkpoint.pt. Raises CodecError where there is none or it is of another recipe."""
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            raise CodecError(f"{path}: no checkpoint to resume; leave --resume out")
        state = read_checkpoint(path)
        if json.loads(state["recipe"])["codec"] != json.loads(json.dumps(self.recipe.to_dict()))["codec"]:
            raise CodecError(f"{path}: the checkpoint is of another codec; give the same recipe or another --out")
        self.codec.load_state_dict(state["codec"])
        self.average.load_state_dict(state["average"])
        self.step, self.elapsed_s, stage, self.seed = state["clock"]
        if stage == "C":
            self._enter_stage_c()
        self.optimiser.load_state_dict(state["optimiser"])
        self.size_losses = state["size_losses"].cpu()
        host, *devices = state["random"]
        torch.set_rng_state(host)
        if self.device == "cuda" and devices:
            torch.cuda.set_rng_state_all(devices)
        self._cut_log()

    def _cut_log(self) -> None:
        """Drops the lines of steps after the checkpoint: they are taken again."""
        path = self.folder / "log.jsonl"
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            path.write_text("".join(f"{line}\n" for line in lines))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `Trainer.save` wrote, on the CPU. Raises CodecError for a file that is not a whole checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CodecError(f"{path}: cannot read this checkpoint ({reason}); train again") from None
    return state
