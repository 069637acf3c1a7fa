"""The choices of Decode and Compare that cut a file with layers, called as the page calls them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import gradient, picture, tones, wav

import codec
from app.originals import Original
from app.service import Service
from app.store import Settings
from codec import api
from codec.errors import MediaError, ModelError


@pytest.fixture
def service(model_folder: Path, tmp_path: Path) -> Service:
    return Service(
        Settings(models=model_folder, max_seconds=4, max_pixels=100_000), tmp_path / "app"
    )


@pytest.fixture
def decode(service: Service) -> Callable[..., list[Any]]:
    """What a new file and the choice of a layer run.

    Without a page, which leaves an event loop behind when it is built.
    """
    pytest.importorskip("gradio")
    from app.tabs.decode import shown

    return partial(shown, service)


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_the_choice_cuts_the_file(
    service: Service, decode: Callable[..., list[Any]], tmp_path: Path, medium: str
) -> None:
    media = wav(tones(16000)) if medium == "speech" else picture(gradient(64, 96))
    model = service.models.get(f"{medium}-fsp")
    data, small = api.compress(media, 1024, model, layers=True), api.compress(media, 256, model)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    head, listener, viewer, layer = decode(str(path), None)
    choices = [(f"256 codes · {len(small):,} B", 256), (f"1,024 codes · {len(data):,} B", 1024)]
    assert (layer["visible"], layer["choices"], layer["value"]) == (True, choices, 1024)
    assert f"1,024 codes, {len(data):,} bytes" in head
    assert "a.bin: " in head
    assert (listener["visible"], viewer["visible"]) == (medium == "speech", medium == "image")
    head, _, _, layer = decode(str(path), 256)
    assert f"256 codes, {len(small):,} bytes" in head
    assert (layer["visible"], layer["choices"], layer["value"]) == (True, choices, 256)
    saved = [Path(link) for link in re.findall(r"file=([^\"?]+\.bin)", head)]
    assert [link.read_bytes() for link in saved] == [small]
    path.write_bytes(small)
    assert decode(str(path), None)[3]["visible"] is False
    path.write_bytes(small[:-1])
    head, *_, layer = decode(str(path), 256)
    assert "fault" in head
    assert layer["visible"] is False
    assert decode(None, None)[3]["visible"] is False
    path.unlink()  # as files are, after a while
    head, *_, layer = decode(str(path), 256)
    assert "were deleted after a while" in head
    assert layer["visible"] is False


MEDIA = {
    "speech": ("a.wav", lambda: wav(tones(16000))),
    "image": ("a.png", lambda: picture(gradient(64, 96))),
}


def opened(service: Service, folder: Path, medium: str) -> Original:
    name, make = MEDIA[medium]
    (folder / name).write_bytes(make())
    return service.open(folder / name)


@pytest.mark.parametrize("medium", MEDIA)
def test_compare_makes_one_file_for_every_size(
    service: Service, tmp_path: Path, medium: str
) -> None:
    pytest.importorskip("gradio")
    from app.tabs.layers import shown

    source = opened(service, tmp_path, medium)
    model = service.models.get(f"{medium}-fsp")
    file = service.layered(source, [model.card.name], [256, 1024])
    assert file is not None
    assert file.read_bytes() == api.compress(source.data, 1024, model, layers=True)
    for size in (256, 1024):
        head, listener, viewer = shown(service, file, source, size)
        single = api.compress(source.data, size, model)
        saved = [Path(link) for link in re.findall(r"file=([^\"?]+\.bin)", head)]
        stops = service.bins.layers(file)
        assert [link.stat().st_size for link in saved] == [stops[size]]
        assert (saved[0].read_bytes() == single) == (size == 256)
        assert api.decompress(saved[0].read_bytes(), model) == api.decompress(single, model)
        assert f"{size:,} codes, {stops[size]:,} bytes" in head
        assert (listener["visible"], viewer["visible"]) == (medium == "speech", medium == "image")
        value = (listener if medium == "speech" else viewer)["value"]
        assert [version["label"] for version in value["versions"]] == [
            "Original",
            f"{size:,} codes",
        ]
        assert value["series"] == str(file)


def test_compare_has_no_choice_where_nothing_is_nested(service: Service, tmp_path: Path) -> None:
    source = opened(service, tmp_path, "image")
    assert service.layered(source, ["image-fsp"], [256]) is None
    assert service.layered(source, ["image-fsp"], [4096]) is None
    assert service.layered(source, [], [256, 1024]) is None
    with pytest.raises(ModelError, match="no layers at K = 256"):
        service.code(source, "image-fsp", 256, layers=True)


def test_a_cut_is_a_file_of_its_own(service: Service, tmp_path: Path) -> None:
    source = opened(service, tmp_path, "image")
    file = service.layered(source, ["image-fsp"], [1024])
    assert file is not None
    shorter = service.bins.cut(file, 256)
    assert shorter.read_bytes() == codec.truncate(file, 256)
    for path, size, words in (
        (file, 4096, "choose from 256, 1024"),
        (shorter, 1024, "no layer"),
        (None, 256, "nothing"),
    ):
        with pytest.raises(MediaError, match=words):
            service.bins.cut(path, size)
