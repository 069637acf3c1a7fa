"""What `eval.coder_bench` and `eval.layers` share: models on test sets.

Each makes a row of a table, which is printed at once.

test_sets, models, items ─measure─> record ─Table.add─> a printed line
                                                  └─Table.save─> OUT as JSON, and as .md beside
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codec import api, cards, coding
from codec.cli.frame import new_file, positive, print_text
from codec.errors import MediaError, reason_of
from codec.files import writing
from codec.medium import MEDIA
from eval import datasets, markdown
from eval.bench.timing import machine, save
from eval.datasets import TestSet, medium_of
from eval.options import add_sets
from eval.signals import Content

SETS = ["speech-test", "image-test-coco"]
Contents = list[Content]
Record = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser, models: str) -> None:
    """Adds the arguments that both commands have.

    Args:
        parser: The parser of the command.
        models: The help text of the models.
    """
    parser.add_argument("models", nargs="*", metavar="MODEL", help=models)
    add_sets(parser, SETS)
    parser.add_argument(
        "--first", type=positive(int), metavar="N", help="only the first N items of each set"
    )
    parser.add_argument(
        "--out",
        type=new_file,
        metavar="FILE",
        help="the figures as JSON, and the table beside it as .md",
    )


def test_sets(options: argparse.Namespace) -> list[TestSet]:
    """The test sets that the command line names, with the items that are wanted of them.

    Raises:
        MediaError: One is not there.
    """
    return [datasets.find(name, options.root).first(options.first) for name in options.data]


def models(options: argparse.Namespace) -> Iterator[coding.Model]:
    """The models that the command line names, or all, loaded one after the other.

    Raises:
        ModelError: There is no such model.
    """
    for name in options.models or api.models():
        yield coding.load(cards.find(name))


def items_of(test_set: TestSet, medium: str) -> Contents:
    """The contents of those items of a set that are of a medium.

    Raises:
        MediaError: One cannot be read; it is named.
    """
    found = []
    for item in test_set.items:
        try:
            content = item.read()
            if medium_of(content) == medium:
                if isinstance(content, bytes):
                    MEDIA[medium].read(io.BytesIO(content))
                found.append(content)
        except (MediaError, OSError) as error:
            raise MediaError(f"{item.name}: {reason_of(error)}; leave it out") from None
    return found


def compressed(
    items: Contents, model: coding.Model, size: int, layers: bool = False
) -> list[bytes]:
    """Compresses each item, and returns the bitstreams.

    Args:
        items: Files or pixels of the model's medium.
        model: The model that compresses them.
        size: The codebook size.
        layers: Whether the files can be cut to smaller codebook sizes.
    """
    files = []
    for content in tqdm(
        items, desc=f"{model.card.name} {'layers' if layers else f'K={size}'}", disable=None
    ):
        out = io.BytesIO()
        if isinstance(content, bytes):
            medium = MEDIA[model.card.medium]
            opened = medium.read(io.BytesIO(content))
            coding.compress(medium.name, opened, out, model, size, layers=layers)
        else:
            coding.compress_image(content, out, model, size, layers=layers)
        files.append(out.getvalue())
    return files


class Table:
    """A table that is printed as it grows.

    Args:
        columns: For keys of a record the title and format of a column.

    Attributes:
        records: All records that were added.
    """

    def __init__(self, columns: Mapping[str, tuple[str, str]]) -> None:
        self.records: list[Record] = []
        self._columns = columns
        self._text = markdown.table([title for title, _ in columns.values()], [])
        print_text(self._text)

    def add(self, model: coding.Model, test_set: TestSet, items: Contents, found: Record) -> None:
        """Adds what was found of a model on a set's items, as a record and as a printed row."""
        record = {"model": model.card.name, "test_set": test_set.name, "items": len(items)} | found
        self.records.append(record)
        line = markdown.row(format(record[key], form) for key, (_, form) in self._columns.items())
        self._text += f"\n{line}"
        print_text(line)

    def save(self, path: Path, **more: Any) -> None:
        """Writes the records, the machine and what else is given as JSON.

        The table lies beside it as .md.
        """
        save(path, {"machine": machine("cpu"), **more, "rows": self.records})
        with writing(str(path.with_suffix(".md")), force=True) as file:
            file.write(f"{self._text}\n".encode())
