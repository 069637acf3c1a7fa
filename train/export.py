"""python -m train.export RUN --out DIR: makes a model file and card of a run.

The averaged weights are rounded to float16 first; the coder tables are counted with exactly the
nets that ship.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from codec.cards import LAYER, PRIOR, Card, identities, read_card
from codec.cli.frame import Parser, UsageError, filled_path, positive, run
from codec.entropy import quantise_counts
from codec.errors import CodecError
from codec.files import writing
from codec.model import Codec
from codec.streams import process
from train import recipes
from train.add_priors import prior_tensors
from train.beginning import ADVERSARY_SUFFIX, Beginning, before_of, told_by
from train.budget import Budget
from train.checkpoint import CHECKPOINT_NAME, check_run, read_checkpoint
from train.data import chosen, is_prepared, prepared_by
from train.log import LOG_NAME, read
from train.loop import Trainer
from train.model_files import write_model
from train.options import add_device, add_out, model_name
from train.priors import STEPS
from train.store import Store

LICENCE = "Apache-2.0"
# What a card says of every training, by which it is trained on and judged.
OWN_NOTES = {
    "recipe",
    "seed",
    "init",
    "steps",
    "minutes",
    "hardware",
    "items",
    "last_log",
    "begun_from",
}


def load_run(folder: Path, store_path: Path, device: str = "cpu") -> Trainer:
    """Loads a run's last checkpoint, with the recipe that it holds.

    Where the data are other than those that it trained on, it says so.
    """
    path = folder / CHECKPOINT_NAME
    state = read_checkpoint(path)
    recipe = recipes.from_dict(json.loads(state["recipe"]))
    store = Store(store_path, recipe.codec.medium, tuple(recipe.data.crop), recipe.data.zoom)
    trainer = Trainer(recipe, store.to(device), Budget(steps=1), folder, state["clock"][3], device)
    for notice in trainer.resume():
        print(notice, file=sys.stderr)
    return trainer


@torch.no_grad()
def export(
    trainer: Trainer, name: str, folder: Path, notes: dict[str, Any], prior_steps: int = STEPS
) -> Path:
    """Writes NAME.safetensors and NAME.json into `folder`; returns the card's path.

    Each prior of the coder learns for `prior_steps` steps, or fewer where the data are few.
    Where there was a discriminator, NAME.adversary.safetensors keeps it, for a training that goes
    on from this model. That of an older model of this name goes.
    """
    if trainer.stage != "C":
        trainer.enter("C")
    codec = trainer.average.eval()
    for parameter in [*codec.encoder.parameters(), *codec.decoder.parameters()]:
        parameter.copy_(parameter.half())
    unused = {f"bottleneck.{name}" for name in codec.bottleneck.training_state}
    tuned = _tuned(trainer)
    latents = None if tuned else trainer.stages.latents().cpu()
    codec = codec.cpu()
    tensors = {
        key: _stored(key, value) for key, value in codec.state_dict().items() if key not in unused
    }
    if tuned is not None:
        coder = ("tables.", PRIOR, LAYER)
        tensors |= {k: v for k, v in tuned.read().items() if k.startswith(coder)}
    if latents is not None:
        tensors |= count_tables(codec, latents)
        tensors |= prior_tensors(codec, trainer.store, steps=prior_steps)
    config = json.loads(json.dumps(codec.config.to_dict()))
    medium = codec.config.medium
    card = {
        "name": name,
        **identities(config, tensors),
        "config": config,
        "num_codes": {
            str(k): codec.bottleneck.num_codes(k) for k in codec.bottleneck.codebook_sizes
        },
        "tokens_per_unit": codec.bottleneck.num_codebooks
        * (codec.token_rate_hz or 1 / codec.stride**2),
        "parameters": sum(p.numel() for p in codec.parameters()),
        "licence": LICENCE,
        "training": {
            "recipe": trainer.recipe.to_dict(),
            "seed": trainer.seed,
            "init": trainer.stages.beginning.name,
            "steps": trainer.step,
            "minutes": round(trainer.elapsed_s / 60, 1),
            "hardware": trainer.hardware,
            "items": len(trainer.store.usable),
            "last_log": _last_log(trainer),
        }
        | _training_before(trainer.stages.beginning, tuned)
        | notes,
    }
    kept = folder / f"{name}{ADVERSARY_SUFFIX}"
    if trainer.adversary is None:
        target = write_model(folder, name, card, tensors)
        kept.unlink(missing_ok=True)
    else:
        nets = {
            key: _stored(key, value.cpu())
            for key, value in trainer.adversary.nets.state_dict().items()
        }
        # It takes its name after the model: the one before keeps its own, should that fail.
        with writing(str(kept), force=True) as file:
            file.write(save(nets))
            target = write_model(folder, name, card, tensors)
    print(f"{target}: {medium}, {card['parameters'] / 1e6:.2f} M parameters, id {card['model_id']}")
    return target


def _tuned(trainer: Trainer) -> Card | None:
    """Returns the card of the model that was tuned; None for another run.

    Its codes are those of the new model, and so is what codes them.

    Raises:
        CodecError: Another model lies there by now.
    """
    begun = trainer.stages.beginning
    if not trainer.recipe.tunes or begun.card is None:
        return None
    card = read_card(begun.card)
    if card.model_id.hex() not in (begun.name or ""):
        raise CodecError(
            f"{begun.card}: another model than the run began with ({begun.name}); put that one "
            "back, as its codes and what codes them stay those of the new model"
        )
    return card


def _training_before(begun: Beginning, tuned: Card | None) -> dict[str, Any]:
    """Returns what the new card says of how the model that it began with had been trained.

    Older checkpoints do not hold it; of a model that was tuned its card does.
    """
    if begun.training or tuned is None:
        return before_of(begun)
    return before_of(replace(begun, training=told_by(tuned)))


def _stored(key: str, value: Tensor) -> np.ndarray:
    """Turns a tensor into what is stored: nets as float16, what decides indices as it is."""
    exact = key.startswith("bottleneck.") or not value.is_floating_point()
    return (value if exact else value.half()).contiguous().numpy()


@torch.no_grad()
def count_tables(codec: Codec, latents: Tensor) -> dict[str, np.ndarray]:
    """Counts coder tables, "tables.K" (G, num_codes) int32.

    The counts are over (N, D_in) latents of the training data.
    """
    tables = {}
    for size in codec.bottleneck.codebook_sizes:
        indices = codec.bottleneck.encode(latents.T[None], size)[0]  # (G, N)
        number = codec.bottleneck.num_codes(size)
        counts = torch.stack([row.bincount(minlength=number) for row in indices])
        tables[f"tables.{size}"] = quantise_counts(counts.numpy()).astype(np.int32)
    return tables


def _last_log(trainer: Trainer) -> dict[str, Any]:
    lines = [line for line in read(trainer.folder / LOG_NAME) if line["step"] <= trainer.step]
    return max(lines, key=lambda line: line["step"], default={})


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.export", description=__doc__, epilog="See docs/train.md")
    parser.add_argument("run", type=filled_path, help="folder that python -m train wrote")
    parser.add_argument(
        "--data",
        type=filled_path,
        nargs="+",
        metavar="PATH",
        help="what python -m train had as --data; default: what it prepared into RUN",
    )
    add_out(parser, "receives NAME.json and NAME.safetensors")
    parser.add_argument("--name", type=model_name, help="default: the folder's name")
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="KEY=TEXT",
        help="goes into the card; may repeat",
    )
    parser.add_argument(
        "--prior-steps",
        type=positive(int),
        default=STEPS,
        metavar="N",
        help="in which each prior of the coder learns: fewer take less time, and files are larger "
        "(default: %(default)s)",
    )
    add_device(parser, "where to encode the training data", "cpu")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    if wrong := [note for note in options.note if "=" not in note]:
        raise UsageError(f"--note {wrong[0]}: want KEY=TEXT")
    notes = dict(note.split("=", 1) for note in options.note)
    if own := [key for key in notes if key in OWN_NOTES]:
        raise UsageError(f"--note {own[0]}: the card says that by itself; choose another key")
    check_run(options.run)
    data = _data(options.run, options.data)
    try:
        trainer = load_run(options.run, data, options.device)
        name = options.name or options.run.resolve().name
        export(trainer, name, options.out, notes, options.prior_steps)
    except ValueError as error:
        raise CodecError(f"{options.run}: {error}") from None


def _data(folder: Path, sources: list[Path] | None) -> Path:
    """Returns the prepared data of a run, by what it was given as `--data` or by its folder.

    Raises:
        CodecError: They are not prepared, or are of other sources.
    """
    own = prepared_by(folder)
    if sources is None:
        if not is_prepared(own):
            raise CodecError(f"{folder} has no data of its own; name them with --data")
        return own
    if (found := chosen(sources, own)) is None:
        where = " ".join(map(str, sources))
        raise CodecError(
            f"{where}: no prepared data, and {folder} has none; run python -m train.prepare first"
        )
    return found


if __name__ == "__main__":
    sys.exit(process(main))
