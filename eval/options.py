"""Options that several commands have: which test sets, and where they lie."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from codec.cli.frame import filled, filled_path
from eval.datasets import ROOT_VARIABLE


def add_sets(parser: argparse.ArgumentParser, default: Sequence[str] | None = None) -> None:
    """Adds the options that name test sets; they must be named where there is no default."""
    text = "test sets: a folder, .tar or file, or a name"
    parser.add_argument(
        "--data",
        nargs="+",
        required=default is None,
        default=default,
        type=filled,
        metavar="PATH|NAME",
        help=text if default is None else f"{text}; default: {' '.join(default)}",
    )
    add_root(parser)


def add_root(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says where named test sets lie."""
    parser.add_argument(
        "--root",
        type=filled_path,
        metavar="DIR",
        help=f"of named sets; default ${ROOT_VARIABLE}, or data",
    )
