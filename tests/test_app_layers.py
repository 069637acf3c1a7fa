"""The Decode tab on a file with layers, called as its slider calls it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import gradient, picture, tones, wav

from app.jobs import Workshop
from app.store import Settings
from codec import api


@pytest.fixture
def workshop(model_folder: Path, tmp_path: Path) -> Workshop:
    return Workshop(Settings(models=model_folder, max_seconds=4, max_pixels=100_000), tmp_path / "app")


@pytest.fixture
def decode(workshop: Workshop) -> Callable[..., list[Any]]:
    """What a new file and the slider run; without a page, which leaves an event loop behind when it is built."""
    pytest.importorskip("gradio")
    from app.tabs.decode import shown

    return partial(shown, SimpleNamespace(workshop=workshop))


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_the_slider_cuts_the_file(
    workshop: Workshop, decode: Callable[..., list[Any]], tmp_path: Path, medium: str
) -> None:
    media = wav(tones(16000)) if medium == "speech" else picture(gradient(64, 96))
    model = workshop.models.get(f"{medium}-fsp")
    data, small = api.compress(media, 1024, model, layers=True), api.compress(media, 256, model)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    head, listener, viewer, layer = decode(str(path), None)
    assert (layer["visible"], layer["maximum"], layer["value"]) == (True, 2, 2)
    assert f"1,024 codes, {len(data):,} bytes" in head
    assert (listener["visible"], viewer["visible"]) == (medium == "speech", medium == "image")
    head, _, _, layer = decode(str(path), 1)
    assert f"256 codes, {len(small):,} bytes" in head
    assert "visible" not in layer  # the slider stays where it was put
    saved = [Path(link) for link in re.findall(r"file=([^\"?]+\.bin)", head)]
    assert [link.read_bytes() for link in saved] == [small]
    path.write_bytes(small)
    assert decode(str(path), None)[3]["visible"] is False
    path.write_bytes(small[:-1])
    head, *_, layer = decode(str(path), 2)
    assert "fault" in head
    assert layer["visible"] is False
    assert decode(None, None)[3]["visible"] is False
