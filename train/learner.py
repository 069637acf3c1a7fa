"""The learner: the nets, their moving averages and optimisers, and one training step.

The step is tensor work on inputs that always lie at the same place, and the host decides nothing
while it runs:

    x, sizes ──codec──> x_hat ──distances, each size with the same say──┐
                        bottleneck's losses ────────────────────────────┼──> loss
                        judges, in stage B and after it ────────────────┘
    loss ──backward, clip, AdamW──> codec ──moving average──> average

Learning rates, decays and codebook sizes are tensors that the host writes before a step, and a
gradient that is not finite makes the optimiser skip the step by its `found_inf`. So the step can be
recorded as one CUDA graph (`train.graph`); on a CPU and on several processes the same function runs
as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from codec.errors import CodecError
from codec.host import unread
from codec.model import build
from codec.nets.blocks import Stack
from train import parallel
from train.adversary import Adversary, cosine
from train.draws import Draws
from train.optimiser import guarded_step, make_optimiser, restore
from train.recipe import Recipe

SIZE_LOSS_RATE = 0.02  # of the running means


@dataclass(frozen=True, slots=True)
class Inputs:
    """What differs from step to step: the tensors stay, and their content is written anew.

    Attributes:
        x: (B, C, *crop) augmented crops.
        sizes: (B,) int64, the codebook size K of each sample.
        member: (B, number of sizes), 1 where the sample has the size, else 0.
        rate: () learning rate.
        decay: () decay of the moving averages, in [0, 1).
        places: (B,) in [0, 1), the place in a sample that the discriminator looks at.
    """

    x: Tensor
    sizes: Tensor
    member: Tensor
    rate: Tensor
    decay: Tensor
    places: Tensor

    @classmethod
    def empty(cls, x: tuple[int, ...], num_sizes: int, device: str) -> Inputs:
        """Makes zeros for batches of shape `x`, (B, C, *crop), and for so many codebook sizes."""
        batch = x[0]
        shapes = {
            "x": x,
            "sizes": (batch,),
            "member": (batch, num_sizes),
            "rate": (),
            "decay": (),
            "places": (batch,),
        }
        kinds = {"sizes": torch.int64}
        return cls(
            *(
                torch.zeros(shapes[f.name], dtype=kinds.get(f.name), device=device)
                for f in fields(cls)
            )
        )


class Learner:
    """The codec, its moving average, the optimiser and, from stage B on, a discriminator.

    Args:
        recipe: What to train, and how.
        device: Where to compute: "cpu", "cuda" or "cuda:1".
        compiled: Whether the codec's nets go through torch.compile. The discriminator does not
            (docs/train.md says why).

    Attributes:
        codec: What learns.
        average: The moving average of its weights, which is what is exported.
        adversary: The discriminator of stage B and after it; None before.
        sizes: (number of sizes,) int64, the codebook sizes K on offer.
        size_losses: (number of sizes,) running mean of the distortion at each of them; 0 where a
            size was not drawn yet.
        inputs: What the next step works on.
        stage: "A", "B" or "C".
        settled: Whether steps do the same from now on, whatever the values are, so that a CUDA
            graph may hold one. Most bottlenecks are settled at once, VP when its queue is full.
    """

    def __init__(self, recipe: Recipe, device: str, compiled: bool = False) -> None:
        self.recipe, self.device = recipe, device
        self.kind = torch.device(device).type
        self.codec = build(recipe.config()).to(device)
        self.average = copy.deepcopy(self.codec).requires_grad_(False)
        if compiled:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
            # The stacks share one forward, each with shapes of its own.
            torch._dynamo.config.recompile_limit = 64
            for stack in self.codec.modules():
                if isinstance(stack, Stack):
                    stack.compile(dynamic=False)
        parallel.copy_first(self.codec)
        sizes = self.codec.bottleneck.codebook_sizes
        self.sizes = torch.tensor(sizes, device=device)
        self.size_losses = torch.zeros(len(sizes), device=device)
        crop = (recipe.data.batch, self.codec.channels, *recipe.data.crop)
        self.inputs = Inputs.empty(crop, len(sizes), device)
        self.adversary: Adversary | None = None
        self.stage, self.settled = "A", False
        self._learns(self.codec)

    def _learns(self, part: nn.Module) -> None:
        """Makes the optimiser of what learns from now on, and the replicas that share gradients."""
        # What is frozen now must keep no gradients: they would count when those of the others are
        # clipped.
        self.codec.zero_grad(set_to_none=True)
        settings = self.recipe.optimiser
        decayed = [p for p in part.parameters() if p.dim() > 1]
        others = [p for p in part.parameters() if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = make_optimiser(groups, self.inputs.rate, settings.betas)
        # A coupled method uses one of its codebooks in a step.
        self.replica = parallel.replicate(
            self.codec, unused=len(self.sizes) > 1 and self.codec.bottleneck.coupled
        )
        self._averaged: tuple[list[Tensor], ...] | None = None

    def begin_judging(self, seed: int) -> None:
        """Begins stage B with a new discriminator, the same one on all processes.

        Its weights are drawn apart from the noise of bottlenecks, whose stream goes on as it was.
        """
        self.stage = "B"
        devices = [torch.device(self.device)] if self.kind == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            medium, settings = self.recipe.codec.medium, self.recipe.adversary
            self.adversary = Adversary(medium, settings, self.device)

    def freeze(self) -> None:
        """Begins stage C: from now on the decoder alone learns, from true indices."""
        self.stage = "C"
        self.codec.encoder.requires_grad_(False)
        self.codec.bottleneck.requires_grad_(False).eval()
        self.settled = False
        self.size_losses.zero_()
        self._learns(self.codec.decoder)

    @property
    def one_size(self) -> bool:
        """Whether all samples of a batch have the same codebook size.

        They have it wherever a real codebook is used; a bottleneck that only imitates the error of
        one takes a size for each sample.
        """
        return self.stage == "C" or self.codec.bottleneck.coupled

    def prepare(self, progress: float, step: int, draws: Draws, x: Tensor) -> int | None:
        """Does the host's part of a step: draws codebook sizes, and writes `inputs`.

        The learning rate rises over the first steps and falls along a cosine afterwards.

        Args:
            progress: The share of the budget that is spent, in [0, 1].
            step: The number of steps taken so far.
            draws: Where random numbers come from.
            x: (B, C, *crop) augmented crops.

        Returns:
            The one codebook size of the batch, or None where each sample has its own.
        """
        self.settled = self.settled or self.codec.bottleneck.settled  # asked no more once it is so
        count = len(self.sizes)
        if self.one_size:
            which = draws.integer(count)
            drawn = torch.full((len(x),), which, device=self.device)
        else:
            drawn = (draws.uniform(len(x)) * count).long().clamp(max=count - 1)
        settings = self.recipe.optimiser
        schedule = cosine(progress, settings.final_share)
        warm = min(1.0, (step + 1) / settings.warmup_steps)
        if self.stage != "C":
            learnt = self.recipe.share("A") + self.recipe.share("B")
            self.codec.bottleneck.anneal(min(progress / learnt, 1.0))
        if self.adversary is not None:
            self.adversary.advance(schedule)
            self.inputs.places.copy_(draws.uniform(len(x)))
        self.inputs.x.copy_(x)
        self.inputs.sizes.copy_(self.sizes[drawn])
        self.inputs.member.copy_(torch.arange(count, device=self.device) == drawn[:, None])
        self.inputs.rate.fill_(settings.learning_rate * warm * schedule)
        # Short memory at the start.
        self.inputs.decay.fill_(min(settings.ema, (1 + step) / (10 + step)))
        return self.codec.bottleneck.codebook_sizes[which] if self.one_size else None

    def step(self, loss: nn.Module, size: int | None) -> dict[str, Tensor]:
        """Takes one optimiser step on `inputs`, and moves the average.

        A step whose gradient is not finite changes no weights.

        Args:
            loss: Maps x and x_hat to named (B,) distances.
            size: The one codebook size of the batch, or None for `inputs.sizes`.

        Returns:
            Named scalars for the log, on the device: the distances and the bottleneck's losses
            without their weights, the bottleneck's stats, "loss" with all weights, "grad_norm"
            before clipping, and "skipped", 1 for a step that changed nothing.

        Raises:
            CodecError: A distance is not one value for each sample, or the bottleneck's losses are
                others than it names.
        """
        with unread() if self.settled else nullcontext():
            return self._step(loss, size)

    def _step(self, loss: nn.Module, size: int | None) -> dict[str, Tensor]:
        inputs, weights = self.inputs, self.recipe.losses
        with torch.autocast(self.kind, torch.bfloat16, cache_enabled=self.kind == "cpu"):
            out = self.replica(inputs.x, inputs.sizes if size is None else size)
        terms = loss(inputs.x, out.x_hat)
        check_distances(terms, len(inputs.x))
        # A frozen encoder and codebook feel none.
        pulls: dict[str, Tensor] = {}
        if self.stage != "C":
            pulls = out.bottleneck.losses
            check_pulls(self.recipe.codec.bottleneck, self.codec.bottleneck.loss_names, pulls)
        distortion = torch.stack([weights[name] * value for name, value in terms.items()]).sum(0)
        total = (distortion * self.size_weights(inputs.member, distortion)).mean()
        total = total + sum(weights[name] * value for name, value in pulls.items())
        scalars = (
            {name: value.mean() for name, value in terms.items()} | pulls | out.bottleneck.stats
        )
        if self.adversary is not None:
            pair = self.adversary.cut(inputs.x, out.x_hat, inputs.places)
            scalars |= self.adversary.learn(*pair)
            judged = self.adversary.judge(*pair)
            total = total + self.adversary.weigh(judged)
            scalars |= judged

        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = guarded_step(self.optimiser, self.codec, self.recipe.optimiser.clip)
        # One bad batch must not end a run; the log shows how many there were.
        finite = norm.isfinite()
        self._update_average(finite)
        scalars |= {"loss": total, "grad_norm": norm, "skipped": ~finite}
        return {name: value.detach() for name, value in scalars.items()}

    @torch.no_grad()
    def size_weights(self, member: Tensor, distortion: Tensor) -> Tensor:
        """Weighs samples so that each codebook size has the same say.

        The error at a coarse size is larger, and would dominate (docs/methods/nets.md). So each
        sample is divided by the running mean of the distortion at its size, which this updates.

        Args:
            member: (B, number of sizes), as in `Inputs`.
            distortion: (B,), the weighted distances of each sample.

        Returns:
            (B,) weights: the mean of all sizes' running distortions, divided by that of the
            sample's own size; 1 for a size that was not drawn before.
        """
        # One bad batch must not spoil the weights of all that follow.
        usable = distortion.isfinite()
        totals, counts = parallel.mean(
            torch.stack([torch.where(usable, distortion, 0), usable.to(member)]) @ member
        )
        means, old = totals / counts.clamp(min=1e-9), self.size_losses
        moved = torch.where(old == 0, means, old.lerp(means, SIZE_LOSS_RATE))
        self.size_losses.copy_(torch.where(counts > 0, moved, old))
        known = self.size_losses > 0
        mean = self.size_losses.sum() / known.sum().clamp(min=1)
        return member @ torch.where(known, mean / self.size_losses, 1.0)

    @torch.no_grad()
    def _update_average(self, finite: Tensor) -> None:
        """Moves the average: average += (1 - decay) (codec - average).

        After a step that was skipped it stays. Tensors of integers are copied.

        Args:
            finite: () bool, whether the step was taken.
        """
        means, followed, copies, copied = self._averaged = self._averaged or self._pairs()
        difference = torch._foreach_sub(followed, means)
        torch._foreach_mul_(difference, torch.where(finite, 1 - self.inputs.decay, 0.0))
        torch._foreach_add_(means, difference)
        for mean, value in zip(copies, copied, strict=True):
            mean.copy_(value)

    def _pairs(self) -> tuple[list[Tensor], ...]:
        """Returns four lists of tensors: means, what they follow, copies, what they are copied of.

        Means and copies are of `average`, the others of the codec that learns.
        """
        ours, theirs = self.codec.state_dict(), self.average.state_dict()
        unused = {f"bottleneck.{name}" for name in self.codec.bottleneck.training_state}
        moving = [
            name
            for name, value in theirs.items()
            if value.is_floating_point() and name not in unused
        ]
        others = [name for name in theirs if name not in moving]
        return tuple(
            [part[n] for n in names] for names in (moving, others) for part in (theirs, ours)
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns all that a checkpoint keeps of the learner."""
        return {
            "codec": self.codec.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state_dict() if self.adversary is not None else None,
            "size_losses": self.size_losses,
        }

    def load_state_dict(self, state: dict[str, Any], stage: str, seed: int) -> None:
        """Goes on from a checkpoint.

        Args:
            state: What `state_dict` gave.
            stage: The stage that the run was in.
            seed: The run's.
        """
        self.codec.load_state_dict(state["codec"])
        self.average.load_state_dict(state["average"])
        if state.get("adversary"):
            self.begin_judging(seed)
            assert self.adversary is not None
            self.adversary.load_state_dict(state["adversary"])
        if stage == "C":
            self.freeze()
        restore(self.optimiser, state["optimiser"], self.inputs.rate)
        self.size_losses.copy_(state["size_losses"])


def check_distances(terms: Mapping[str, Tensor], batch: int) -> None:
    """Refuses distances that are not of shape (B,); it looks at shapes alone.

    Raises:
        CodecError: There is one.
    """
    for name, value in terms.items():
        shape = tuple(getattr(value, "shape", ()))  # a loss of somebody's own may return a number
        if shape != (batch,):
            raise CodecError(
                f"losses.{name}: the loss returned shape {shape}; return ({batch},), a distance "
                "for each item of the batch"
            )


def check_pulls(bottleneck: str, names: Collection[str], losses: Collection[str]) -> None:
    """Refuses a bottleneck whose losses in training are others than its `loss_names`.

    Raises:
        CodecError: It returns fewer, or more.
    """
    for wrong, advice in (
        (set(names) - set(losses), "in loss_names and not returned by its training forward"),
        (set(losses) - set(names), "returned by its training forward and not in loss_names"),
    ):
        if wrong:
            raise CodecError(
                f"bottleneck {bottleneck}: losses {', '.join(sorted(wrong))} are {advice}; name "
                "what it returns, and nothing else"
            )
