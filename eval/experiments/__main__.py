"""python -m eval.experiments NAME: one table or figure of the papers, as JSON for each run,
Markdown and a picture.

A finished run is never repeated: give the same --out again to go on. On a CPU the experiments that
need a GPU run at reduced size, and say so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from codec.cli.frame import Parser, UsageError, filled_path, positive, run
from codec.errors import not_installed
from codec.streams import process
from train.denormals import flushed
from train.options import add_device, add_threads

try:
    from eval.experiments import bias, gmvq, vpvae
    from eval.experiments.runs import Request
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval')}")


@dataclass(frozen=True, slots=True)
class Experiment:
    """A table or a figure.

    Attributes:
        draw: Trains what is missing, and draws it.
        choices: Those of `CHOICES` that it takes.
    """

    draw: Callable[[Request], None]
    choices: tuple[str, ...] = ()


CHOICES = {  # attribute of `Request` -> option
    "epochs": "--epochs",
    "minutes": "--minutes",
    "steps": "--steps",
    "methods": "--methods",
    "datasets": "--datasets",
    "sizes": "-k",
    "learning_rate": "--learning-rate",
    "lpips_backbone": "--lpips-backbone",
    "data": "--data",
    "small": "--small",
}
BUDGET = ("epochs", "minutes", "steps")
TRAINING = (*BUDGET, "methods", "data", "small")
# Attributes of `Request`, and the threads, that have no part in a redraw.
TRAINED = ("seeds", *BUDGET, "learning_rate", "lpips_backbone", "data", "small", "threads")
GMVQ = (*TRAINING, "learning_rate")
VPVAE = (*TRAINING, "lpips_backbone")
EXPERIMENTS = {
    "gmvq-table1": Experiment(gmvq.table1, (*GMVQ, "datasets")),
    "gmvq-fig3": Experiment(bias.run),
    "gmvq-fig4": Experiment(gmvq.fig4, GMVQ),
    "gmvq-grid": Experiment(gmvq.grid, GMVQ),
    "gmvq-readings": Experiment(gmvq.readings, GMVQ),
    "vpvae-table1": Experiment(vpvae.table1, (*VPVAE, "datasets", "sizes")),
    "vpvae-table2": Experiment(vpvae.table2, (*VPVAE, "datasets", "sizes")),
    "vpvae-losses": Experiment(vpvae.losses, VPVAE),
    "vpvae-ablation": Experiment(vpvae.ablation, (*VPVAE, "datasets")),
}

INTERRUPTED = "interrupted; the same command goes on after the last finished run"
RESULTS = Path(__file__).resolve().parent.parent / "results"  # the runs that docs/papers.md reports


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m eval.experiments", description=__doc__, epilog="See docs/papers.md"
    )
    parser.add_argument("name", choices=EXPERIMENTS, metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument(
        "--out",
        type=filled_path,
        default=Path("experiments"),
        metavar="DIR",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--redraw",
        type=filled_path,
        nargs="?",
        const=RESULTS,
        metavar="DIR",
        help="only draw the finished runs of DIR, by default those that the project keeps",
    )
    parser.add_argument(
        "--data",
        type=filled_path,
        nargs="+",
        metavar="DIR",
        help="the packs, or torchvision's",
    )
    parser.add_argument(
        "--seeds", type=positive(int), metavar="N", help="how many; default 3, for gmvq-fig3 10"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--epochs",
        type=positive(float),
        metavar="E",
        help="of each run; default: the paper's, or a few on a CPU",
    )
    budget.add_argument("--minutes", type=positive(float), metavar="M", help="of each run")
    budget.add_argument("--steps", type=positive(int), metavar="S", help="of each run")
    parser.add_argument(
        "--small", action="store_true", default=None, help="reduced size; always so on a CPU"
    )
    parser.add_argument("--methods", type=_names, metavar="A,B", help="only these rows")
    parser.add_argument(
        "--datasets", type=_names, metavar="A,B", help="only these: cifar10, celeba; speech, image"
    )
    parser.add_argument(
        "-k",
        "--codebook-size",
        type=_sizes,
        dest="sizes",
        metavar="K,...",
        help="vpvae-table1, vpvae-table2: only these",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive(float),
        metavar="LR",
        help="gmvq: 3e-3 where the paper's 1e-2 diverges",
    )
    parser.add_argument(
        "--lpips-backbone",
        type=filled_path,
        metavar="FILE",
        help="vpvae: measures pictures by LPIPS, too; vpvae-losses trains with it",
    )
    add_threads(parser)
    add_device(parser)
    return run(parser, arguments, _command, INTERRUPTED)


def _command(options: argparse.Namespace) -> None:
    experiment = EXPERIMENTS[options.name]
    for key, option in CHOICES.items():
        if getattr(options, key) is not None and key not in experiment.choices:
            raise UsageError(f"{option}: {options.name} has nothing to choose there; leave it out")
    if options.redraw is not None:
        for key in TRAINED:
            if getattr(options, key):
                option = f"--{key.replace('_', '-')}"
                raise UsageError(f"{option}: --redraw draws runs as they are; leave it out")
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = {
        key: value for key, value in vars(options).items() if key not in ("name", "threads")
    }
    settings["data"] = tuple(options.data or ())
    settings["small"] = bool(options.small) or options.device == "cpu"
    with flushed():
        experiment.draw(Request(**settings))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:  # which would be all of them
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; leave the option out for all")
    return names


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in _names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: want numbers with commas between") from None


if __name__ == "__main__":
    sys.exit(process(main))
