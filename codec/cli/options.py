"""Options and habits that the commands share.

These are paths in and out, the device, and the models that a run has loaded.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec import __version__, cards
from codec.cli.frame import Parser, UsageError, filled, print_line, within
from codec.cli.jobs import mirrored
from codec.container import Limits
from codec.files import STDIO

if TYPE_CHECKING:
    from codec.coding import Model

log = logging.getLogger("codec")
MAX_SEARCH = 1000  # codec.coding.MAX_STEPS, which would bring torch


class _Intermixed(Parser):
    """Takes options between IN and OUT, too, where plain argparse takes an OUT for none."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        if "--" in words:  # which the other way of parsing forgets
            return super().parse_args(words, namespace)
        return self.parse_intermixed_args(words, namespace)


def parser_of(command: str, description: str) -> argparse.ArgumentParser:
    parser = _Intermixed(
        prog=f"python -m codec.{command}",
        description=description,
        epilog="See docs/command-line.md",
    )
    parser.add_argument("--version", action="version", version=f"codec {__version__}")
    return parser


def add_paths(parser: argparse.ArgumentParser, kinds: str, needed: bool = True) -> None:
    parser.add_argument(
        "input", metavar="IN", nargs=None if needed else "?", type=filled, help=kinds
    )
    parser.add_argument(
        "output", metavar="OUT", nargs="?", type=filled, help="file, folder, or - for stdout"
    )


def add_care(parser: argparse.ArgumentParser) -> None:
    """Adds how codes are chosen: see codec.coding.effort and codec.coding.search."""
    parser.add_argument(
        "--effort",
        type=int,
        default=0,
        choices=range(10),
        metavar="0-9",
        help="choose codes that cost fewer bits over nearer ones: 4 is a fair trade; default 0",
    )
    parser.add_argument(
        "--search",
        type=within(int, 0, MAX_SEARCH),
        default=0,
        metavar="STEPS",
        help="look for codes that decode to something nearer: 10 is a good number, and takes about "
        "half a second for one of speech, four for 256 x 256 pixels; default 0",
    )


def add_existing(parser: argparse.ArgumentParser) -> None:
    """Adds what becomes of outputs that are there already; by default they are errors."""
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("-f", "--force", action="store_true", help="overwrite OUT")
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave an OUT that is there, and go on"
    )


def is_done(source: str, target: str, options: argparse.Namespace) -> bool:
    """Whether an output is there and is to stay: none is ever there half-written.

    An input that is not there is left to what will say so.
    """
    known = source == STDIO or Path(source).exists()
    done = bool(options.skip_existing and known and target != STDIO and Path(target).is_file())
    if done:
        log.info("%s is there: skipped", target)
    return done


def add_common(parser: argparse.ArgumentParser) -> None:
    add_existing(parser)
    parser.add_argument("-d", "--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--max-pixels",
        type=within(int, 1, sys.maxsize),
        default=Limits().max_pixels,
        metavar="N",
        help="refuse larger pictures",
    )
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="no report and no notices")
    volume.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("--json", action="store_true", help="report as one JSON object a line")


def list_models(as_json: bool) -> None:
    """Prints the shipped models, a line or a JSON object for each."""
    for card in cards.list_cards():
        sizes = ", ".join(map(str, card.num_codes))
        about = {
            "model": card.name,
            "medium": card.medium,
            "codebook_sizes": list(card.num_codes),
            "model_id": card.model_id.hex(),
        }
        line = f"{card.name:<14} {card.medium:<7} K = {sizes}   {card.model_id.hex()}"
        print_line(json.dumps(about) if as_json else line, sys.stdout)


def jobs_of(options: argparse.Namespace, unpack: bool = False) -> list[tuple[str, Any]]:
    """Input and output names, as `mirrored` has them.

    Where `unpack` is set, an output may be None, to only verify.
    """
    if options.input is None:
        raise UsageError("the argument IN is missing")
    if options.output is None and not (unpack and options.test):
        raise UsageError("the argument OUT is missing")
    if options.output is not None and unpack and options.test:
        raise UsageError("--test writes nothing; leave OUT out")
    if unpack:
        return mirrored(
            options.input,
            options.output,
            lambda path: path.suffix.lower() == ".bin",
            lambda p: p.with_suffix(""),
        )
    return mirrored(
        options.input,
        options.output,
        lambda path: path.suffix.lower() != ".bin",
        lambda p: p.with_name(f"{p.name}.bin"),
    )


class Models:
    """What a run keeps from file to file.

    It loads each model once, and knows which outputs it has written.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: dict[bytes, Model] = {}
        self.written: set[str] = set()  # a.bin and a.png.bin both decode to a.png
        self.last: str | None = None  # path of the last card used, for models outside the package

    def get(self, card: cards.Card) -> Model:
        from codec import coding

        self.last = str(card.path)
        if card.model_id not in self._loaded:
            device = device_of(self._device)
            self._loaded[card.model_id] = coding.load(card, device)
            log.info("model %s (%s) on %s", card.name, card.model_id.hex(), device)
        return self._loaded[card.model_id]


def device_of(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device here; use --device cpu")
    return name
