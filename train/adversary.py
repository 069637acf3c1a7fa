"""Stage B: a discriminator and its optimiser, beside the codec and one step behind it.

x, x_hat ──learn──> hinge loss, a step of the discriminator
x, x_hat ──judge──> "adversarial", "features": losses of the codec
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from train.discriminators import DISCRIMINATORS, Judge, critic_loss, feature_loss, fooling_loss
from train.parallel import replicate
from train.recipes import AdversarySection


class Adversary:
    """A discriminator that learns while the codec does.

    Args:
        medium: "speech" or "image".
        settings: Of the recipe.
        device: Where the codec is.
        compiled: Whether its layers go through torch.compile.
    """

    def __init__(self, medium: str, settings: AdversarySection, device: str, compiled: bool = False) -> None:
        self.settings, self.kind = settings, torch.device(device).type
        self.nets = DISCRIMINATORS[medium](settings.width).to(device)
        if compiled:
            for judge in self.nets.modules():
                if isinstance(judge, Judge):
                    judge.compile(dynamic=False)
        self.replica = replicate(self.nets)
        betas = (settings.betas[0], settings.betas[1])
        self.optimiser = torch.optim.AdamW(
            self.nets.parameters(), settings.learning_rate, betas, weight_decay=0.0, fused=True
        )
        self.steps = 0

    @property
    def share(self) -> float:
        """How much of the recipe's weights counts yet: a discriminator that knows nothing has nothing to say."""
        return min(1.0, self.steps / self.settings.warmup_steps)

    def weigh(self, losses: dict[str, Tensor]) -> Tensor:
        """What `judge` returned, weighted as in the recipe: () one loss."""
        weighted = self.settings.adversarial * losses["adversarial"] + self.settings.features * losses["features"]
        return self.share * weighted

    def learn(self, x: Tensor, x_hat: Tensor, schedule: float) -> dict[str, Tensor]:
        """One step of the discriminator; `schedule` is the share of its learning rate. Returns values for the log."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * schedule
        self.nets.requires_grad_(True)
        with torch.autocast(self.kind, torch.bfloat16):
            judged = self.replica(torch.cat([x, x_hat.detach()]))  # one pass: DistributedDataParallel wants it so
        real = [(score[: len(x)], []) for score, _ in judged]
        fake = [(score[len(x) :], []) for score, _ in judged]
        loss = critic_loss(real, fake)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.nets.parameters(), self.settings.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.steps += 1
        return {"critic": loss.detach(), "critic_norm": norm.detach()}

    def judge(self, x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
        """Losses of the codec, scalars with a gradient to x_hat alone: "adversarial" and "features"."""
        self.nets.requires_grad_(False)
        with torch.autocast(self.kind, torch.bfloat16):
            with torch.no_grad():
                real = self.nets(x)
            fake = self.nets(x_hat)
        return {"adversarial": fooling_loss(fake), "features": feature_loss(real, fake)}

    def state_dict(self) -> dict[str, Any]:
        return {"nets": self.nets.state_dict(), "optimiser": self.optimiser.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nets.load_state_dict(state["nets"])
        self.steps = state["steps"]
        if state.get("optimiser"):
            self.optimiser.load_state_dict(state["optimiser"])


def cosine(progress: float, final_share: float) -> float:
    """From 1 to `final_share` along half a cosine."""
    return final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2
