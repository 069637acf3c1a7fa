"""`python -m codec.info`: what .bin files hold, from their bytes alone."""

from __future__ import annotations

import argparse
import json
import sys
from typing import BinaryIO, cast

from codec.cli.frame import each, filled, print_line, run
from codec.cli.options import parser_of
from codec.description import describe_all, in_words, model_names
from codec.files import Pipe, piping
from codec.layers import survey


def info_main(arguments: list[str] | None = None) -> int:
    """`python -m codec.info`; returns the exit code."""
    parser = parser_of("info", "Describes .bin files from their bytes alone; no model is loaded.")
    parser.add_argument(
        "files", nargs="+", metavar="FILE", type=filled, help=".bin file, or - for stdin"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return run(parser, arguments, _info)


def _info(options: argparse.Namespace) -> None:
    names = model_names()

    def show(name: str, _: None) -> None:
        with piping(name) as file:
            if isinstance(file, Pipe):
                file.forget()
            record = {"file": name} | describe_all(survey(cast(BinaryIO, file)), names)
        if options.json:
            print_line(json.dumps(record), sys.stdout)
        else:
            shown = in_words(record)
            for size, layer in record.get("layers", {}).items():
                shown[f"up to K = {size}"] = f"{layer['bytes']} bytes, {layer['rate']}"
            width = max(map(len, shown))
            for key, value in shown.items():
                print_line(f"{key:<{width}}  {value}", sys.stdout)

    each([(name, None) for name in options.files], show)
