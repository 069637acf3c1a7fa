"""Every table that is keyed by a medium has all media: a third one is missed nowhere."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

import pytest

from codec.medium import MEDIA

TABLES = [
    "codec.coding.CODINGS",
    "codec.coding.search.AIMS",
    "train.sources.KINDS",
    "eval.galleries.GALLERIES",
    "eval.metrics.METRICS",
    "eval.metrics.MORE_METRICS",
    "eval.model_tables.SHOWN",
    "eval.model_tables.TITLES",
    "eval.signals.SIGNALS",
    "app.media.KINDS",
    "app.input_panel.EXAMPLES",
    "app.input_panel.FIELDS",
    "app.tabs.inspect.SPOTS",
    "app.views.VIEWS",
]


@pytest.mark.parametrize("table", TABLES)
def test_every_medium_is_there(table: str) -> None:
    module, _, name = table.rpartition(".")
    for package, needed in (("eval.galleries", "matplotlib"), ("app.", "gradio")):
        if module.startswith(package):
            pytest.importorskip(needed)
    found: Collection[str] = getattr(import_module(module), name)
    assert set(found) == set(MEDIA)
