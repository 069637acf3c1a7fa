"""The jobs as named endpoints, for programs: gradio_client shows them all with `Client(url).view_api()`.

    /models      what can be asked for                        -> list of models with their codebook sizes
    /compress    a recording or picture, model, codebook size, -> .bin, decoded media, figures
                 with layers or not
    /decompress  .bin, codebook size to stop at               -> decoded media, header
    /info        .bin                                         -> header, bytes up to each layer
    /truncate    .bin, codebook size                          -> .bin that ends behind that layer, header
    /compare     a recording or picture, models, sizes, ...   -> figures, files
    /sweep       a recording or picture                       -> figures, .csv
    /tokens      .bin                                         -> its indices
    /edit        .bin, a change of its tokens                 -> changed .bin, decoded media

Inputs are gr.File components, not plain paths: Gradio then takes uploads only, never a path of the server's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app.jobs import Workshop, write_csv
from app.page import JOBS, plainly
from app.tokens import edit, tokens
from codec.errors import MediaError

PUBLIC = JOBS | {"api_visibility": "public"}


def build(workshop: Workshop) -> None:
    """Adds the endpoints to the app that is being built; nothing of them is on the page."""
    with gr.Row(visible=False):
        button = gr.Button()

        def endpoint(
            name: str, function: Callable[..., Any], inputs: list[gr.components.Component], outputs: list[Any]
        ) -> None:
            button.click(plainly(function), inputs, outputs, api_name=name, api_description=function.__doc__, **PUBLIC)

        def media() -> gr.File:
            return gr.File(label="input", type="filepath")

        def models() -> list[dict[str, Any]]:
            """The models here: name, medium, offered codebook sizes."""
            return [
                {"name": card.name, "medium": card.medium, "codebook_sizes": list(card.num_codes)}
                for card in workshop.models.cards.values()
            ]

        def compress(
            path: str, model: str | None, codebook_size: float | None, layers: bool | None
        ) -> tuple[str, str, dict[str, Any]]:
            """Compresses a recording or picture; no model is the medium's best, no size its usual one.

            With layers the .bin can be cut to every smaller size that the model's codes are nested in.
            """
            source = workshop.open(path)
            name = model or _best(workshop, source.medium)
            size = _whole(codebook_size, "codebook_size", workshop.usual_size(name))
            version = workshop.code(source, name, size, _yes(layers, "layers"))
            return str(version.file), str(version.media), version.record()

        def decompress(path: str, codebook_size: float | None) -> tuple[str, dict[str, Any]]:
            """Decodes a .bin to a .wav or .png; one with layers up to a codebook size, 0 for its last."""
            size = _whole(codebook_size, "codebook_size", 0)
            version, _ = workshop.decode(path, size or None)
            return str(version.media), about(version.file)

        def info(path: str) -> dict[str, Any]:
            """The header of a .bin, as python -m codec.info prints it; of one with layers, "layers" has their bytes."""
            return about(path)

        def truncate(path: str, codebook_size: float | None) -> tuple[str, dict[str, Any]]:
            """Cuts a .bin with layers behind the one of a codebook size, without decoding."""
            file = workshop.cut(path, _whole(codebook_size, "codebook_size"))
            return str(file), about(file)

        def about(path: str | Path) -> dict[str, Any]:
            stops = workshop.layers(path)
            more = {"layers": {str(size): stop for size, stop in stops.items()}} if len(stops) > 1 else {}
            return workshop.info(path) | more

        def compare(
            path: str, models: list[str] | None, sizes: list[int] | None, classics: list[str] | None
        ) -> tuple[list[dict[str, Any]], list[str]]:
            """Every model at every size, then classic codecs at the bytes of the largest; the coded files."""
            source = workshop.open(path)
            names = _names(models, "models") or [_best(workshop, source.medium)]
            wanted = [_whole(size, "codebook_sizes") for size in _list(sizes, "codebook_sizes")]
            wanted = wanted or list(workshop.models.card(names[0]).num_codes)
            versions = workshop.compare(source, names, wanted, _names(classics, "classics"))
            return [version.record() for version in versions], [str(version.file) for version in versions]

        def sweep(path: str, classics: list[str] | None) -> tuple[list[dict[str, Any]], str]:
            """Every model of the medium at every size it offers; also as a table."""
            names = _names(classics, "classics")
            records = [version.record() for version in workshop.sweep(workshop.open(path), names)]
            return records, str(write_csv(workshop.shelf.folder() / "sweep.csv", records))

        def look(path: str) -> dict[str, Any]:
            """The indices in a .bin: (streams, codebooks, positions), and the grid of a picture."""
            inside = tokens(workshop, workshop.decode(path)[0])
            grid = [inside.rows, inside.columns] if inside.header.medium == "image" else None
            return {"num_codes": inside.header.num_codes, "grid": grid, "indices": inside.indices.tolist()}

        def change(
            path: str, change: str, share: float | None, token: float | None, seed: float | None
        ) -> tuple[str, str]:
            """Changes a share (0 to 1) of the tokens, anywhere: "random", "one token" or "shuffle"."""
            part = min(max(_number(share, "share", 0.1), 0.0), 1.0)
            which, start = _whole(token, "token", 0), _whole(seed, "seed", 0)
            if start < 0:
                raise MediaError(f"seed is {start}; want 0 or more")
            version = workshop.decode(path)[0]
            changed, _ = edit(workshop, version, change, part, which, None, start)
            return str(changed.file), str(changed.media)

        def words(label: str) -> gr.JSON:
            return gr.JSON(value=[], label=label)

        endpoint("models", models, [], [gr.JSON(label="models")])
        model, size = gr.Textbox("", label="model"), gr.Number(1024, label="codebook_size")
        files = [gr.File(label="bin"), gr.File(label="decoded"), gr.JSON(label="figures")]
        endpoint("compress", compress, [media(), model, size, gr.Checkbox(False, label="layers")], files)
        decoded = [gr.File(label="decoded"), gr.JSON(label="header")]
        endpoint("decompress", decompress, [media(), gr.Number(0, label="codebook_size")], decoded)
        endpoint("info", info, [media()], [gr.JSON(label="header")])
        shorter = [gr.File(label="bin"), gr.JSON(label="header")]
        endpoint("truncate", truncate, [media(), gr.Number(256, label="codebook_size")], shorter)
        lists = [words("models"), words("codebook_sizes"), words("classics")]
        endpoint("compare", compare, [media(), *lists], [gr.JSON(label="figures"), gr.Files(label="files")])
        endpoint("sweep", sweep, [media(), words("classics")], [gr.JSON(label="figures"), gr.File(label="csv")])
        endpoint("tokens", look, [media()], [gr.JSON(label="tokens")])
        numbers = [gr.Number(0.1, label="share"), gr.Number(0, label="token"), gr.Number(0, label="seed")]
        changed = [gr.File(label="bin"), gr.File(label="decoded")]
        endpoint("edit", change, [media(), gr.Textbox("random", label="change"), *numbers], changed)


def _number(value: Any, name: str, default: float | None = None) -> float:
    """What a program sent as a number; null takes the default. Raises MediaError."""
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MediaError(f"{name} is {str(value)[:40]!r}; want a number")
    return value


def _whole(value: Any, name: str, default: int | None = None) -> int:
    """As `_number`, of whole numbers."""
    number = _number(value, name, default)
    if number != int(number):
        raise MediaError(f"{name} is {number}; want a whole number")
    return int(number)


def _yes(value: Any, name: str) -> bool:
    """What a program sent as true or false; null is false. Raises MediaError."""
    if value is not None and not isinstance(value, bool):
        raise MediaError(f"{name} is {str(value)[:40]!r}; want true or false")
    return bool(value)


def _list(value: Any, name: str) -> list[Any]:
    """What a program sent as a list; null is an empty one. Raises MediaError."""
    if value is not None and not isinstance(value, list):
        raise MediaError(f"{name} is {str(value)[:40]!r}; want a list")
    return value or []


def _names(value: Any, name: str) -> list[str]:
    """As `_list`, of names."""
    for one in _list(value, name):
        if not isinstance(one, str):
            raise MediaError(f"{name} holds {str(one)[:40]!r}; want names")
    return list(value or [])


def _best(workshop: Workshop, medium: str) -> str:
    return workshop.models.of(medium)[0].name
