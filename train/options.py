"""Options that several commands have: `python -m train.*`, and those of eval that need latents."""

from __future__ import annotations

import argparse

from codec.cli.frame import filled_path


def add_data(parser: argparse.ArgumentParser, flag: str = "--data") -> None:
    """Adds the option that names prepared training data."""
    parser.add_argument(
        flag,
        type=filled_path,
        required=True,
        metavar="PATH",
        help="what python -m train.prepare wrote",
    )


def add_out(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds the option that names the folder of what is made; `text` says what that is."""
    parser.add_argument("--out", type=filled_path, required=True, metavar="DIR", help=text)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names a finished model."""
    parser.add_argument("model", help="name of a shipped model, or path of a card")
