"""Stage B: a discriminator and its optimiser, beside the codec and one step behind it.

x, x_hat ──cut──> the part of each sample that is judged
    ──learn──> hinge loss, a step of the discriminator
    ──judge──> "adversarial", "features": losses of the codec

As in `train.learner`, nothing here waits for the host but `advance`, which it calls before each
step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from train.discriminators import DISCRIMINATORS, Outputs, critic_loss, feature_loss, fooling_loss
from train.optimiser import guarded_step, make_optimiser, restore
from train.parallel import replicate
from train.recipe import AdversarySection


class Adversary:
    """A discriminator that learns while the codec does.

    Args:
        medium: A name in `DISCRIMINATORS`.
        settings: The recipe's section on the discriminator.
        device: The device that the codec is on.
    """

    def __init__(self, medium: str, settings: AdversarySection, device: str) -> None:
        self.settings, self.kind = settings, torch.device(device).type
        self.nets = DISCRIMINATORS[medium](settings.width).to(device)
        self.replica = replicate(self.nets)
        self.rate, self.share = (torch.zeros((), device=device) for _ in range(2))
        groups = [{"params": list(self.nets.parameters()), "weight_decay": 0.0}]
        self.optimiser = make_optimiser(groups, self.rate, settings.betas)
        self.steps = 0

    def advance(self, schedule: float) -> None:
        """Goes on to the next step, and sets the learning rate and how much the losses count in it.

        A discriminator that knows nothing has nothing to say: the recipe's weights count in full
        after its warm-up.

        Args:
            schedule: The share of the recipe's learning rate, in [0, 1].
        """
        self.steps += 1
        self.rate.fill_(self.settings.learning_rate * schedule)
        self.share.fill_(min(1.0, self.steps / self.settings.warmup_steps))

    def cut(self, x: Tensor, x_hat: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts the part of each sample that the discriminator sees: `settings.crop` long, or all.

        Args:
            x: Originals, (B, C, *N).
            x_hat: Reconstructions of the same shape, which are cut at the same places.
            places: Where the part begins, (B,) in [0, 1).
        """
        for axis, length in enumerate(self.settings.crop or (), 2):
            first = (places * (x.shape[axis] - length + 1)).long()
            shape = [len(x), *[1] * (x.dim() - 1)]
            rows = first.view(shape) + torch.arange(length, device=x.device).view(
                [length if a == axis else 1 for a in range(x.dim())]
            )
            wanted = [*x.shape[:axis], length, *x.shape[axis + 1 :]]
            x, x_hat = (part.gather(axis, rows.expand(wanted)) for part in (x, x_hat))
        return x, x_hat

    def weigh(self, losses: dict[str, Tensor]) -> Tensor:
        """Returns one loss, (): those that `judge` returned, weighted as in the recipe."""
        weighted = (
            self.settings.adversarial * losses["adversarial"]
            + self.settings.features * losses["features"]
        )
        return self.share * weighted

    def learn(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Takes one step of the discriminator, and returns values for the log."""
        self.nets.requires_grad_(True)
        with torch.autocast(self.kind, torch.bfloat16, cache_enabled=self.kind == "cpu"):
            # One pass: DistributedDataParallel wants it so.
            judged = self.replica(torch.cat([x, x_hat.detach()]))
        real: Outputs = [(score[: len(x)], []) for score, _ in judged]
        fake: Outputs = [(score[len(x) :], []) for score, _ in judged]
        loss = critic_loss(real, fake)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = guarded_step(self.optimiser, self.nets, self.settings.clip)
        return {"critic": loss.detach(), "critic_norm": norm.detach()}

    def judge(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Returns the codec's losses "adversarial" and "features", scalars.

        Their gradient goes to x_hat alone.
        """
        self.nets.requires_grad_(False)
        with torch.autocast(self.kind, torch.bfloat16, cache_enabled=self.kind == "cpu"):
            with torch.no_grad():
                real = self.nets(x)
            fake = self.nets(x_hat)
        return {"adversarial": fooling_loss(fake), "features": feature_loss(real, fake)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "nets": self.nets.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nets.load_state_dict(state["nets"])
        self.steps = state["steps"]
        if state.get("optimiser"):
            restore(self.optimiser, state["optimiser"], self.rate)


def cosine(progress: float, final_share: float) -> float:
    """Falls from 1 to `final_share` along half a cosine, as `progress` goes from 0 to 1."""
    return final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2
