"""python -m train RECIPE --data PATH --out DIR: trains a codec.

`python -m train.export` makes a model file of the run.

Several GPUs: torchrun --nproc-per-node N -m train RECIPE ...
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from codec.cli.frame import Parser, filled_path, positive, run, within
from codec.errors import CodecError
from codec.streams import process
from train import losses, parallel, recipes
from train.checkpoint import CHECKPOINT_NAME
from train.data import Store, is_prepared, made_of, prepare
from train.denormals import flushed
from train.loop import Budget, Trainer
from train.options import MAX_SEED, add_device, add_threads
from train.parallel import processes


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train", description=__doc__, epilog="See docs/train.md")
    parser.add_argument("recipe", help="a shipped recipe (speech-fsp ...) or a .toml file")
    parser.add_argument(
        "--data",
        type=filled_path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="what python -m train.prepare wrote, without suffix; or media for it, "
        "which it then puts into --out",
    )
    parser.add_argument(
        "--out",
        type=filled_path,
        required=True,
        metavar="DIR",
        help="folder for log.jsonl and checkpoint.pt",
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        "--minutes", type=positive(float), help="wall-clock budget, over all resumed parts"
    )
    budget.add_argument("--steps", type=positive(int), help="budget in optimiser steps")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="changes the recipe; may repeat",
    )
    parser.add_argument("--resume", action="store_true", help="continue from DIR/checkpoint.pt")
    parser.add_argument(
        "--stop-minutes", type=positive(float), help="ends this part then, with a checkpoint"
    )
    parser.add_argument(
        "--checkpoint-minutes",
        type=within(float, 0),
        default=2.0,
        metavar="MINUTES",
        help="between checkpoints; 0: every step",
    )
    parser.add_argument(
        "--log-steps", type=positive(int), default=50, help="steps between lines of the log"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: faster steps after a slow first one"
    )
    parser.add_argument("--tensorboard", action="store_true", help="writes DIR/tensorboard, too")
    parser.add_argument(
        "--init",
        type=filled_path,
        metavar="CARD",
        help="begins with the weights of this model (its .json) or run (its folder)",
    )
    parser.add_argument(
        "--lpips-backbone",
        type=filled_path,
        metavar="FILE",
        help="for a recipe with losses.lpips (default: torch hub's)",
    )
    parser.add_argument("--seed", type=within(int, 0, MAX_SEED), default=0)
    add_threads(parser)
    add_device(parser)
    return run(
        parser,
        arguments,
        _command,
        "interrupted; go on with --resume from the last checkpoint in {out}",
    )


def _command(options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    with flushed(), processes(options.device) as device:
        _train(options, device)


def _train(options: argparse.Namespace, device: str) -> None:
    recipe = recipes.load(options.recipe, options.set)
    # Refused before anything starts.
    losses.build(recipe.codec.medium, recipe.losses, options.lpips_backbone)
    checkpoint = options.out / CHECKPOINT_NAME
    begun = checkpoint.exists()
    if options.resume and not begun and not is_prepared(options.out / "data"):
        raise CodecError(f"{checkpoint}: no checkpoint to resume; leave --resume out")
    if begun and not options.resume:
        raise CodecError(
            f"{options.out} holds a run; continue it with --resume or choose another --out"
        )
    data = parallel.first(_prepared(recipe.codec.medium, options) if parallel.rank() == 0 else None)
    store = Store(data, recipe.codec.medium, tuple(recipe.data.crop), recipe.data.zoom).to(device)
    budget = Budget(options.minutes, options.steps)
    trainer = Trainer(
        recipe,
        store,
        budget,
        options.out,
        options.seed,
        device,
        options.compile,
        options.lpips_backbone,
    )
    if begun:
        trainer.resume()
    elif options.init:
        trainer.begin_from(options.init)
    finished = trainer.run(
        options.checkpoint_minutes, options.log_steps, options.stop_minutes, options.tensorboard
    )
    if not finished:
        print(
            f"stopped at {100 * trainer.progress:.0f} % of the budget; go on with --resume",
            file=sys.stderr,
        )


def _prepared(medium: str, options: argparse.Namespace) -> Path:
    """Returns the prepared data: what was named, or what is made of it in the folder of the run.

    A run that goes on, or was interrupted before its first checkpoint, has decoded it already.

    Raises:
        CodecError: It goes on, and its data are of other sources.
    """
    sources: list[Path] = options.data
    if len(sources) == 1 and (is_prepared(sources[0]) or not sources[0].exists()):
        return sources[0]
    target: Path = options.out / "data"
    if options.resume and is_prepared(target):
        if not made_of(target, sources):
            raise CodecError(
                f"{target}.json: the run in {options.out} has data of other sources; "
                f"give the same --data, or --data {target} if they have moved"
            )
    else:
        prepare(medium, sources, target, workers=os.cpu_count() or 1)
    return target


if __name__ == "__main__":
    sys.exit(process(main))
