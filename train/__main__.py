"""python -m train RECIPE --data PATH --out DIR: trains a codec.

`python -m train.export` makes a model file of the run.

Several GPUs: torchrun --nproc-per-node N -m train RECIPE ...
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from codec.cli.frame import Parser, filled_path, positive, run, within
from codec.errors import CodecError
from codec.streams import process
from train import losses, parallel, recipes
from train.alone import alone
from train.budget import Budget
from train.checkpoint import CHECKPOINT_NAME
from train.data import chosen, is_prepared, prepare, prepared_by
from train.denormals import flushed
from train.log import LOG_NAME
from train.loop import Trainer
from train.options import MAX_SEED, add_device, add_threads
from train.parallel import processes
from train.recipe import Recipe
from train.store import Store


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
        help="between checkpoints; 0: every step (default: %(default)g)",
    )
    parser.add_argument(
        "--log-steps",
        type=positive(int),
        default=50,
        help="steps between lines of the log (default: %(default)s)",
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
    parser.add_argument(
        "--seed",
        type=within(int, 0, MAX_SEED),
        help="of the weights and of all that is drawn (default: 0, or that of the run)",
    )
    add_threads(parser, "CPU threads (default: torch's choice)")
    add_device(parser)
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    try:
        with flushed(), processes(options.device) as device:
            _train(options, device)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(options.out)) from None


def _interrupted(out: Path) -> str:
    """Says how to go on after Ctrl-C, by what lies in the folder of the run."""
    if (out / CHECKPOINT_NAME).exists():
        return f"interrupted; go on with --resume from the last checkpoint in {out}"
    kept = "; with --resume it takes the decoded media" if is_prepared(prepared_by(out)) else ""
    return f"interrupted before the first checkpoint; the same command begins again{kept}"


def _train(options: argparse.Namespace, device: str) -> None:
    recipe = recipes.load(options.recipe, options.set)
    # Refused before anything starts.
    losses.check_backbone(options.lpips_backbone, recipe.losses)
    losses.build(recipe.codec.medium, recipe.losses, options.lpips_backbone)
    checkpoint = options.out / CHECKPOINT_NAME
    begun = checkpoint.exists()
    if options.resume and not begun and not _began(options.out):
        raise CodecError(f"{checkpoint}: no checkpoint to resume; leave --resume out")
    if begun and not options.resume:
        raise CodecError(
            f"{options.out} holds a run; continue it with --resume or choose another --out"
        )
    if begun and options.init:
        raise CodecError(
            f"{options.out} holds a run, which has its weights; "
            "leave --init out or choose another --out"
        )
    with alone(options.out) if parallel.rank() == 0 else nullcontext():
        _run(recipe, options, device, begun)


def _run(recipe: Recipe, options: argparse.Namespace, device: str, begun: bool) -> None:
    data = parallel.first(_prepared(recipe.codec.medium, options) if parallel.rank() == 0 else None)
    store = Store(data, recipe.codec.medium, tuple(recipe.data.crop), recipe.data.zoom).to(device)
    budget = Budget(options.minutes, options.steps)
    trainer = Trainer(
        recipe,
        store,
        budget,
        options.out,
        options.seed or 0,
        device,
        options.compile,
        options.lpips_backbone,
    )
    notices: list[str] = []
    if begun:
        notices = trainer.resume()
        if options.seed not in (None, trainer.seed):
            notices.append(f"the seed of the run is {trainer.seed}, and stays so")
    else:
        if options.resume:
            notices = [f"no checkpoint in {options.out} yet: the run begins anew"]
        if options.init:
            trainer.stages.begin_from(options.init)
            if not trainer.stages.beginning.complete:
                notices.append(
                    f"{options.init}: its bottleneck is another, so its nets alone are taken"
                )
    for notice in notices if parallel.rank() == 0 else []:
        print(notice, file=sys.stderr)
    before = trainer.step
    finished = trainer.run(
        options.checkpoint_minutes, options.log_steps, options.stop_minutes, options.tensorboard
    )
    if trainer.skipped and parallel.rank() == 0:
        print(
            f"{trainer.skipped} of {trainer.step - before} steps changed nothing, since a gradient "
            "was not finite: lower optimiser.learning_rate, or look at the data",
            file=sys.stderr,
        )
    if not finished:
        print(
            f"stopped at {100 * trainer.progress:.0f} % of the budget; go on with --resume",
            file=sys.stderr,
        )
    elif parallel.rank() == 0:
        named = "" if data == prepared_by(options.out) else f" --data {data}"
        print(
            f"{options.out}: {trainer.step} step{'' if trainer.step == 1 else 's'}; "
            f"next: python -m train.export {options.out}{named} --out models"
        )


def _began(out: Path) -> bool:
    """Whether a folder is that of a run which was stopped before its first checkpoint.

    It has data or a log of its own, or is empty.
    """
    own = is_prepared(prepared_by(out)) or (out / LOG_NAME).is_file()
    return own or (out.is_dir() and not any(out.iterdir()))


def _prepared(medium: str, options: argparse.Namespace) -> Path:
    """Returns the prepared data: what was named, or what is made of it in the folder of the run.

    A run that goes on, or was interrupted before its first checkpoint, has decoded it already.

    Raises:
        CodecError: There is nothing of a name; or it goes on, and its data are of other sources.
    """
    target = prepared_by(options.out)
    found = chosen(options.data, target if options.resume else None)
    if found is None:
        prepare(medium, options.data, target, workers=os.cpu_count() or 1)
    return found or target


if __name__ == "__main__":
    sys.exit(process(main))
