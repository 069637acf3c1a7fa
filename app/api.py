"""The service as named endpoints, for programs.

gradio_client shows them all with `Client(url).view_api()`.

    /models      what can be asked for                        -> models and their codebook sizes
    /compress    a recording or picture, model, codebook size, -> .bin, decoded media, figures
                 with layers or not, steps of search
    /decompress  .bin, codebook size to stop at               -> decoded media, header
    /info        .bin                                         -> header, bytes up to each layer
    /truncate    .bin, codebook size                          -> .bin that ends there, header
    /compare     a recording or picture, models, sizes, ...   -> figures, files
    /sweep       a recording or picture                       -> figures, .csv
    /tokens      .bin                                         -> its indices
    /edit        .bin, a change of its tokens                 -> changed .bin, decoded media

Inputs are gr.File components, not plain paths: Gradio then takes uploads only, never a path of the
server's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app.comparison import compare, sweep
from app.handlers import JOBS, raising
from app.service import Service
from app.tokens import edit, tokens
from app.versions import write_csv
from codec.errors import MediaError

MAX_SEARCH = 100  # steps, each of which costs a server as much as several decodings
BEYOND = 1 << 63  # no number that is asked for is as large
PUBLIC: dict[str, Any] = JOBS | {"api_visibility": "public"}


def build(service: Service) -> None:
    """Adds the endpoints to the app that is being built; nothing of them is on the page."""
    Endpoints(service)


class Endpoints:
    """The functions behind the endpoints. Their first words are the endpoints' descriptions."""

    def __init__(self, service: Service) -> None:
        self._service = service
        with gr.Row(visible=False):
            self._add_all(gr.Button())

    def _add_all(self, button: gr.Button) -> None:
        def add(
            name: str,
            function: Callable[..., Any],
            inputs: list[gr.components.Component],
            outputs: list[Any],
        ) -> None:
            button.click(
                raising(function),
                inputs,
                outputs,
                api_name=name,
                api_description=function.__doc__,
                **PUBLIC,
            )

        add("models", self.models, [], [gr.JSON(label="models")])
        model, size = gr.Textbox("", label="model"), gr.Number(1024, label="codebook_size")
        files = [gr.File(label="bin"), gr.File(label="decoded"), gr.JSON(label="figures")]
        add(
            "compress",
            self.compress,
            [
                _media(),
                model,
                size,
                gr.Checkbox(False, label="layers"),
                gr.Number(0, label="search"),
            ],
            files,
        )
        decoded = [gr.File(label="decoded"), gr.JSON(label="header")]
        add("decompress", self.decompress, [_media(), gr.Number(0, label="codebook_size")], decoded)
        add("info", self.info, [_media()], [gr.JSON(label="header")])
        shorter = [gr.File(label="bin"), gr.JSON(label="header")]
        add("truncate", self.truncate, [_media(), gr.Number(256, label="codebook_size")], shorter)
        lists = [_names_of("models"), _names_of("codebook_sizes"), _names_of("classics")]
        add(
            "compare",
            self.compare,
            [_media(), *lists],
            [gr.JSON(label="figures"), gr.Files(label="files")],
        )
        add(
            "sweep",
            self.sweep,
            [_media(), _names_of("classics")],
            [gr.JSON(label="figures"), gr.File(label="csv")],
        )
        add("tokens", self.look, [_media()], [gr.JSON(label="tokens")])
        numbers = [
            gr.Number(0.1, label="share"),
            gr.Number(0, label="token"),
            gr.Number(0, label="seed"),
        ]
        changed = [gr.File(label="bin"), gr.File(label="decoded")]
        add(
            "edit", self.change, [_media(), gr.Textbox("random", label="change"), *numbers], changed
        )

    def models(self) -> list[dict[str, Any]]:
        """The models here: name, medium, offered codebook sizes."""
        return [
            {"name": card.name, "medium": card.medium, "codebook_sizes": list(card.num_codes)}
            for card in self._service.models.cards.values()
        ]

    def compress(
        self,
        path: str,
        model: str | None,
        codebook_size: float | None,
        layers: bool | None,
        search: float | None,
    ) -> tuple[str, str, dict[str, Any]]:
        """Compresses a recording or picture; no model is the medium's best, no size its usual one.

        With layers the .bin can be cut to every smaller size that the model's codes are nested in.
        Steps of search, 0 to 100, are slow, and bring codes that decode to something nearer.
        """
        original = self._service.open(path)
        name = model or self._service.models.best(original.medium).name
        size = _whole(codebook_size, "codebook_size", self._service.usual_size(name))
        steps = _whole(search, "search", 0)
        if not 0 <= steps <= MAX_SEARCH:
            raise MediaError(f"search is {steps}; want 0 to {MAX_SEARCH} steps")
        version = self._service.code(original, name, size, _yes(layers, "layers"), steps)
        return str(version.file), str(version.media), version.record()

    def decompress(self, path: str, codebook_size: float | None) -> tuple[str, dict[str, Any]]:
        """Decodes a .bin to a .wav or .png; one with layers up to a codebook size, 0 for all."""
        size = _whole(codebook_size, "codebook_size", 0)
        version, _ = self._service.decode(path, size or None)
        return str(version.media), self._about(version.file)

    def info(self, path: str | None) -> dict[str, Any]:
        """The header of a .bin, as python -m codec.info prints it.

        Of a file with layers, "layers" has their bytes.
        """
        return self._about(path)

    def truncate(self, path: str, codebook_size: float | None) -> tuple[str, dict[str, Any]]:
        """Cuts a .bin with layers behind the one of a codebook size, without decoding."""
        file = self._service.bins.cut(path, _whole(codebook_size, "codebook_size"))
        return str(file), self._about(file)

    def _about(self, path: str | Path | None) -> dict[str, Any]:
        stops = self._service.bins.layers(path)
        more = (
            {"layers": {str(size): stop for size, stop in stops.items()}} if len(stops) > 1 else {}
        )
        return self._service.bins.info(path) | more

    def compare(
        self,
        path: str,
        models: list[str] | None,
        sizes: list[int] | None,
        classics: list[str] | None,
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Every model at every size, then classic codecs at the bytes of the largest.

        Returns the coded files.
        """
        original = self._service.open(path)
        names = _names(models, "models") or [self._service.models.best(original.medium).name]
        wanted = [_whole(size, "codebook_sizes") for size in _list(sizes, "codebook_sizes")]
        wanted = wanted or list(self._service.models.card(names[0]).num_codes)
        versions = compare(self._service, original, names, wanted, _names(classics, "classics"))
        return [version.record() for version in versions], [
            str(version.file) for version in versions
        ]

    def sweep(self, path: str, classics: list[str] | None) -> tuple[list[dict[str, Any]], str]:
        """Every model of the medium at every size it offers; also as a table."""
        names = _names(classics, "classics")
        records = [
            version.record() for version in sweep(self._service, self._service.open(path), names)
        ]
        return records, str(write_csv(self._service.files.folder() / "sweep.csv", records))

    def look(self, path: str) -> dict[str, Any]:
        """The indices in a .bin: (streams, codebooks, positions), and the grid of a picture."""
        inside = tokens(self._service, self._service.decode(path)[0])
        grid = [inside.rows, inside.columns] if not inside.header.kind.timed else None
        return {
            "num_codes": inside.header.num_codes,
            "grid": grid,
            "indices": inside.indices.tolist(),
        }

    def change(
        self, path: str, change: str, share: float | None, token: float | None, seed: float | None
    ) -> tuple[str, str]:
        """Changes a share (0 to 1) of the tokens, anywhere: "random", "one token" or "shuffle"."""
        part = _number(share, "share", 0.1)
        if not 0 <= part <= 1:
            raise MediaError(f"share is {part:g}; want 0 to 1")
        which, start = _whole(token, "token", 0), _whole(seed, "seed", 0)
        if start < 0:
            raise MediaError(f"seed is {start}; want 0 or more")
        version = self._service.decode(path)[0]
        changed, _ = edit(self._service, version, change, part, which, None, start)
        return str(changed.file), str(changed.media)


def _media() -> gr.File:
    return gr.File(label="input", type="filepath")


def _names_of(label: str) -> gr.JSON:
    return gr.JSON(value=[], label=label)


def _number(value: Any, name: str, default: float | None = None) -> float:
    """Reads what a program sent as a number; null takes the default.

    Raises:
        MediaError: It is no number.
    """
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < BEYOND:
        raise MediaError(f"{name} is {str(value)[:40]!r}; want a number below 2^63")
    return value


def _whole(value: Any, name: str, default: int | None = None) -> int:
    """Reads a whole number, like `_number`."""
    number = _number(value, name, default)
    if number != int(number):
        raise MediaError(f"{name} is {number}; want a whole number")
    return int(number)


def _yes(value: Any, name: str) -> bool:
    """Reads what a program sent as true or false; null is false.

    Raises:
        MediaError: It is neither.
    """
    if value is not None and not isinstance(value, bool):
        raise MediaError(f"{name} is {str(value)[:40]!r}; want true or false")
    return bool(value)


def _list(value: Any, name: str) -> list[Any]:
    """Reads what a program sent as a list; null is an empty one.

    Raises:
        MediaError: It is no list.
    """
    if value is not None and not isinstance(value, list):
        raise MediaError(f"{name} is {str(value)[:40]!r}; want a list")
    return value or []


def _names(value: Any, name: str) -> list[str]:
    """Reads a list of names, like `_list`."""
    for one in _list(value, name):
        if not isinstance(one, str):
            raise MediaError(f"{name} holds {str(one)[:40]!r}; want names")
    return list(value or [])
