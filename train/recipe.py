"""A recipe: what to train and how, as plain data.

`train.recipes` reads it from TOML, and `train.recipe_checks` says whether it can be trained.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from codec.model import CodecConfig
from codec.nets.kinds import NETS, default

STAGES = ("A", "B", "C")


@dataclass(frozen=True)
class CodecSection:
    """The medium, the nets and their size, and the bottleneck with its arguments."""

    medium: str
    preset: str
    bottleneck: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str | None = None  # of nets; the medium's default where none is named

    @property
    def nets(self) -> str:
        """A key of `codec.nets.NETS`."""
        return self.kind or default(self.medium)


@dataclass(frozen=True)
class DataSection:
    """What a step sees of the data; docs/train.md describes every key."""

    crop: list[int]  # samples | height, width
    batch: int  # of each process
    # Crops are of windows up to so much larger; speech is played at 1 / zoom to zoom of its speed.
    zoom: float = 1.0
    augment: str = "light"


@dataclass(frozen=True)
class OptimiserSection:
    """AdamW and its schedule; docs/train.md describes every key."""

    learning_rate: float
    final_share: float
    betas: list[float]
    weight_decay: float
    warmup_steps: int
    clip: float
    ema: float


@dataclass(frozen=True)
class AdversarySection:
    """The discriminator of stage B, and of stage C after it.

    Its two losses have weights of their own.
    """

    adversarial: float = 1.0
    features: float = 2.0
    width: int = 16  # of its narrowest layers
    learning_rate: float = 2e-4
    betas: list[float] = dataclasses.field(default_factory=lambda: [0.8, 0.99])
    clip: float = 10.0
    warmup_steps: int = 500  # in which the weights rise from zero
    # Samples | height, width that are judged of each crop, at random; all by default.
    crop: list[int] | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training but the data folder, the budget and the seed."""

    codec: CodecSection
    data: DataSection
    optimiser: OptimiserSection
    stages: dict[str, float]
    losses: dict[str, float]
    adversary: AdversarySection = dataclasses.field(default_factory=AdversarySection)

    def share(self, stage: str) -> float:
        """Returns a stage's share of the budget; 0 for one that is left out."""
        return float(self.stages.get(stage, 0.0))

    def config(self) -> CodecConfig:
        """Returns the configuration of the codec that is trained."""
        part = self.codec
        return CodecConfig(
            part.medium,
            NETS[part.nets].presets[part.preset],
            part.bottleneck,
            part.options,
            part.nets,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON data, without what is None, as a recipe leaves that out."""
        tables = dataclasses.asdict(self)
        for section in ("codec", "adversary"):
            tables[section] = {
                key: value for key, value in tables[section].items() if value is not None
            }
        return tables

    @property
    def tunes(self) -> bool:
        """Whether there is stage C alone.

        The decoder of a finished model learns, its codes stay what they are.
        """
        return self.share("C") > 0 and not self.share("A") and not self.share("B")

    def stage_at(self, progress: float) -> str:
        """Returns the stage that an elapsed share of the budget falls into."""
        if progress < self.share("A"):
            return "A"
        if self.share("B") and progress < self.share("A") + self.share("B"):
            return "B"
        return "C" if self.share("C") else "B" if self.share("B") else "A"
