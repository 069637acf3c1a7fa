"""Options that several commands have: `python -m train.*`, and those of eval that need latents."""

from __future__ import annotations

import argparse

import torch

from codec.cli.frame import filled, filled_path, within

MAX_THREADS = 4096  # more than machines have; torch fails on some larger numbers
MAX_SEED = 2**63 - 2**20  # torch takes 64 bits, and each process adds its rank


def add_threads(parser: argparse.ArgumentParser, text: str = "CPU threads") -> None:
    """Adds the option that says how many CPU threads torch may use."""
    parser.add_argument("--threads", type=within(int, 1, MAX_THREADS), help=text)


def add_device(
    parser: argparse.ArgumentParser, text: str | None = None, default: str | None = None
) -> None:
    """Adds the option that says where to compute.

    Args:
        parser: Of the command.
        text: What is computed there, for the help.
        default: "cpu" or "cuda"; None for a GPU where there is one.
    """
    default = default or ("cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--device",
        type=_device,
        choices=("cpu", "cuda"),
        default=default,
        help=f"{text or 'where to compute'} (default: %(default)s here)",
    )


def _device(text: str) -> str:
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("no CUDA device here")
    return text


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


def model_name(text: str) -> str:
    """The name of a model and of its files, as an argparse type."""
    if filled(text) in (".", "..") or set(text) & {"/", "\\"}:
        raise argparse.ArgumentTypeError(f"want a name, not the path {text}; --out is the folder")
    return text


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names a finished model."""
    parser.add_argument("model", help="name of a shipped model, or path of a card")
