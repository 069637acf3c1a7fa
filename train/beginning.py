"""What a run may begin from instead of random weights: a finished model, or another run.

NAME.json, NAME.safetensors ──────────────┐
a run's folder, averaged weights ─────────┴─> codec and average of the new run
NAME.adversary.safetensors, if it is there ──> its discriminator, in stage B
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codec.cards import Card, read_card
from codec.errors import CodecError, reason_of
from codec.model import Codec, CodecConfig
from codec.nets.kinds import NETS, default
from train.checkpoint import CHECKPOINT_NAME, read_checkpoint
from train.discriminators import DISCRIMINATORS
from train.recipes import from_dict, shipped

ADVERSARY_SUFFIX = ".adversary.safetensors"
NETS_ALONE = ", nets alone"  # ends the name of a beginning that is not complete


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a run's first weights came from.

    Attributes:
        card: The card of the model, as an absolute path, since a run may go on from another
            folder; None for random weights and for those of a run.
        name: How the card of the new model names it; None for random weights.
        complete: Whether it is of the same codec, so that its codebooks were taken as well.
        judged: Whether a discriminator lay beside the model.
        training: How the model had been trained, as its card says it; empty where nobody knows.
    """

    card: Path | None = None
    name: str | None = None
    complete: bool = False
    judged: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Beginning:
        """Returns that of a checkpoint."""
        card, name = state.get("origin"), state.get("init")
        # Older checkpoints say it in the name alone.
        complete = state.get("complete", name is not None and not name.endswith(NETS_ALONE))
        judged, training = bool(state.get("judged")), state.get("begun_from") or {}
        return cls(Path(card) if card else None, name, complete, judged, training)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it."""
        return {
            "origin": str(self.card) if self.card else None,
            "init": self.name,
            "complete": self.complete,
            "judged": self.judged,
            "begun_from": dict(self.training),
        }

    def check_adversary(self, medium: str, width: int) -> None:
        """Reads the discriminator that lies beside the model, if there is one, and drops it.

        Hours of training come before stage B, which loads it.

        Args:
            medium: A name in `DISCRIMINATORS`.
            width: Of the discriminator, as the recipe has it.

        Raises:
            CodecError: It is not one of this medium and width, or cannot be read.
        """
        with torch.device("meta"):  # no weights, and so no random numbers are drawn
            nets = DISCRIMINATORS[medium](width)
        self.load_adversary(nets, assign=True)

    def load_adversary(self, nets: nn.Module, assign: bool = False) -> None:
        """Loads the discriminator that lies beside the model, if there is one.

        Args:
            nets: What receives it.
            assign: Whether its tensors become those of `nets`, rather than being copied into them.

        Raises:
            CodecError: It is not one of the new run's recipe, cannot be read, or has gone since the
                run began.
        """
        if self.card is None:
            return
        kept = _adversary_beside(self.card)
        if not kept.is_file():
            if not self.judged:
                return
            raise CodecError(
                f"{kept}: this discriminator was here when the run began; put it back and "
                "--resume, or give the run's folder to --init for a run with a new one"
            )
        try:
            nets.load_state_dict(
                {name: value.float() for name, value in load_file(kept).items()}, assign=assign
            )
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CodecError(
                f"{kept}: not the discriminator of this recipe ({reason_of(error)}); remove it"
            ) from None


def begin(source: Path, codecs: Iterable[Codec]) -> Beginning:
    """Loads finished weights into codecs of one configuration.

    From a model of the same codec come all weights. From a model with another bottleneck come the
    nets alone, without the layers that face the latents where those have another width.

    Args:
        source: The model's card; or the folder of a run, whose averaged weights are taken.
        codecs: What receives them.

    Raises:
        CodecError: The model has another medium or other nets, or cannot be read.
    """
    card = None
    if source.is_dir():
        state = read_checkpoint(source / CHECKPOINT_NAME)
        config = from_dict(json.loads(state["recipe"])).config().to_dict()
        tensors = state["average"]
        training = training_of(state)
        name = source.name
    else:
        model = read_card(source)
        config = dict(model.config)
        tensors = {key: torch.tensor(value) for key, value in model.read().items()}
        card, name = source.absolute(), f"{model.name} {model.model_id.hex()}"
        training = told_by(model)
    complete = False
    for codec in codecs:
        complete = _load(codec, source, config, tensors)
    minutes = training.get("minutes", "unknown")
    name = f"{name}, {minutes} minutes" + ("" if complete else NETS_ALONE)
    judged = card is not None and _adversary_beside(card).is_file()
    return Beginning(card, name, complete, judged, training)


def told_by(card: Card) -> dict[str, Any]:
    """Returns what a card says of its model's training, but for the last line of the log."""
    return {k: v for k, v in card.data.get("training", {}).items() if k != "last_log"}


def training_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a card says of the training that a checkpoint is of, but for its data and log.

    Args:
        state: The checkpoint.
    """
    step, seconds, _, seed = state["clock"]
    found = {
        "recipe": json.loads(state["recipe"]),
        "seed": seed,
        "init": state.get("init"),
        "steps": step,
        "minutes": round(seconds / 60, 1),
        "hardware": state.get("hardware") or "an unnamed machine",
    }
    return found | before_of(Beginning.of(state))


def before_of(beginning: Beginning) -> dict[str, Any]:
    """Returns what a card says of the training before that of the model itself; perhaps nothing.

    Of a model with another bottleneck, of which the nets alone were taken, it says nothing.
    """
    told = beginning.complete and beginning.training
    return {"begun_from": dict(beginning.training)} if told else {}


def _adversary_beside(card: Path) -> Path:
    return card.with_name(card.stem + ADVERSARY_SUFFIX)


def _load(
    codec: Codec, source: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> bool:
    """Loads the weights that fit; returns whether they are of the same codec, and so all do.

    What only training needs starts anew.

    Args:
        codec: What receives them.
        source: Where they come from, for messages.
        config: The configuration of the codec that they are of.
        tensors: The weights by name.

    Raises:
        CodecError: They are of another medium or of other nets.
    """
    theirs, own = (json.loads(json.dumps(part)) for part in (dict(config), codec.config.to_dict()))
    if any(theirs.get(part) != own.get(part) for part in ("medium", "kind", "nets")):
        raise CodecError(f"{source}: {_misfit(codec.config, theirs)}")
    same = bool(theirs == own)
    ours = codec.state_dict()
    unused = {f"bottleneck.{name}" for name in codec.bottleneck.training_state}

    def fits(name: str) -> bool:
        if same:
            return name in ours and name not in unused
        net = name in ours and not name.startswith("bottleneck.")
        return net and tensors[name].shape == ours[name].shape

    codec.load_state_dict({k: v for k, v in tensors.items() if fits(k)}, strict=False)
    return same


def _misfit(own: CodecConfig, theirs: Mapping[str, Any]) -> str:
    """Says how the nets of a model differ from a recipe's, and which recipe fits.

    Args:
        own: The configuration of the recipe.
        theirs: That of the model, as plain data.
    """
    if theirs.get("medium") != own.medium:
        return f"this model is for {theirs.get('medium')}, the recipe for {own.medium}"
    kind = theirs.get("kind") or default(own.medium)
    if kind != own.kind:
        return f"this model has nets {kind}, the recipe {own.kind}; change codec.kind"
    has, wants = (_preset(own.kind, nets) for nets in (theirs.get("nets"), own.to_dict()["nets"]))
    told = f"this model has {_named(has)}, the recipe {_named(wants)}"
    if has is None:
        return told
    recipe = f"{own.medium}-{own.bottleneck}" + ("" if has == "tiny" else f"-{has}")
    take = f"take the recipe {recipe}, or " if recipe in shipped() else ""
    return f"{told}; {take}--set codec.preset={has}"


def _preset(kind: str, nets: object) -> str | None:
    """Returns the name of the preset that has these sizes, as plain data."""
    plain = json.loads(json.dumps(nets))
    for name, sizes in NETS[kind].presets.items():
        if json.loads(json.dumps(asdict(sizes))) == plain:
            return name
    return None


def _named(preset: str | None) -> str:
    return "sizes of no preset" if preset is None else f"the preset {preset}"
