"""The public functions: what the commands do from file to file, done in memory.

Wherever they take a model, the name of a shipped one or the path of a card does as well; a loaded
one saves the time of loading it again.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, TypeAlias

from codec import cards, coding
from codec.arguments import flag, instance, whole
from codec.container import MAGIC, Reader
from codec.container.limits import IN_MEMORY, Limits
from codec.errors import MediaError, ModelError
from codec.files import Source, opened
from codec.media import HEAD_BYTES, detect
from codec.medium import MEDIA

AnyModel: TypeAlias = coding.Model | str | Path


def models() -> list[str]:
    """The names of the models that came with the package."""
    return [card.name for card in cards.list_cards()]


def load(
    name: AnyModel | None = None, medium: str | None = None, device: str = "cpu"
) -> coding.Model:
    """Loads a model by name or card path.

    None takes the medium's best, and a loaded model is returned as it is, wherever it runs. Its
    nets are in eval mode and frozen: `model.codec.requires_grad_(True)` lets them learn.

    Args:
        name: Of a shipped model, or the path of a card.
        medium: A name in `codec.medium.MEDIA`: which best is wanted, or what a named model must be
            for.
        device: Where its nets run: "cpu", "cuda", "cuda:1".

    Raises:
        ModelError: There is none such, it is damaged, or a loaded one is for another medium.
        CodecError: There is no such device here.
        TypeError: `name`, `medium` or `device` is something else.
    """
    if medium is not None:
        instance(medium, str, "medium")
    if isinstance(name, coding.Model):
        if medium not in (None, name.card.medium):
            raise ModelError(f"{name.card.name} is no {medium} model")
        return name
    return coding.load(cards.find(_name_of(name), medium), device)


def compress(
    data: Source,
    codebook_size: int | None = None,
    model: AnyModel | None = None,
    *,
    mono: bool = False,
    effort: int = 0,
    layers: bool = False,
    search: int = 0,
) -> bytes:
    """Compresses a picture or recording.

    Args:
        data: A file in any format that `codec.media` reads: its path, an open binary file, or its
            bytes.
        codebook_size: K; by default 1024.
        model: A loaded model, the name of a shipped one or the path of a card; by default the best
            of the medium, with `layers` of those that have them.
        mono: Mixes the channels of a recording into one.
        effort: 0 to 9: how much nearness of the codes to give up for fewer bits.
        layers: A file that `truncate` can cut to every smaller codebook, a little larger.
        search: Steps of analysis by synthesis, 0 to 1000: the encoder compares what its codes
            decode to with the original, and looks for nearer ones. 10 is a good number, and takes
            about half a second for one of speech, four for a picture of 256 x 256, on one core.

    Returns:
        A bitstream of format version 1.

    Raises:
        MediaError: Not readable as a picture or recording, or compressed already.
        ModelError: There is no such model, it is damaged, for the other medium, or has no layers at
            this size.
        ValueError: A codebook size that the model does not offer, or an effort or a search that
            there is not.
        TypeError: The data, the model or a truth value are something else, say an array.
    """
    mono, layers = flag(mono, "mono"), flag(layers, "layers")
    with opened(data) as file:
        head = _head(file)
        if head.startswith(MAGIC):
            raise MediaError("this is a .bin already; give a recording or a picture")
        medium = detect(head)
        if model is None:
            loaded = coding.load(cards.find(medium=medium, layered=layers))
        else:
            loaded = load(model)
        size = loaded.codec.bottleneck.check_size(codebook_size)
        out = io.BytesIO()
        coding.compress(
            medium, MEDIA[medium].read(file, mono=mono), out, loaded, size, effort, layers, search
        )
    return out.getvalue()


def decompress(
    data: Source,
    model: AnyModel | None = None,
    limits: Limits = IN_MEMORY,
    suffix: str | None = None,
    *,
    codebook_size: int | None = None,
    partial: bool = False,
) -> bytes:
    """Decompresses a bitstream to the bytes of a .wav or .png file, or of another format.

    The suffix chooses the format.

    Args:
        data: What `compress` returned, or a file of it: its path or an open binary file.
        model: As for `compress`; by default the shipped one that the bitstream names.
        limits: Refuse anything larger; without any, an output above 1 GiB is.
        suffix: Of the format, say "flac" or ".jpg".
        codebook_size: Of a file with layers: where to stop; by default at the last that is whole.
        partial: Decodes what is left of a damaged file, whose header must be sound. What is lost
            becomes silence or grey; a warning of the logger "codec" says where.

    Raises:
        BitstreamError: Damaged, or beyond the limits.
        MediaError: A file that cannot be read, a suffix that cannot be written, an output that is
            too large, or no layer of that codebook size.
        ModelError: The model that it names is not here, or is not `model`.
        ValueError: A codebook size that is no whole number.
        TypeError: The data, the model, the limits or the suffix are something else.
    """
    instance(limits, Limits, "limits")
    partial = flag(partial, "partial")
    form = None if suffix is None else instance(suffix, str, "suffix")
    if codebook_size is not None:
        codebook_size = whole(codebook_size, "a codebook size")
    with opened(data) as file:
        head = Reader(file, limits)
        loaded = model_of(head, model)
        out = io.BytesIO()
        form = (form or head.header.kind.default_suffix).lstrip(".").lower()
        reader: coding.AnyReader
        if partial:
            reader = coding.left_of(file, loaded, limits, codebook_size)
        else:
            reader = coding.layered(head, loaded, codebook_size)
        coding.decompress(reader, loaded, out, form)
        if partial:
            coding.lost(reader, loaded)
    return out.getvalue()


def model_of(head: Reader, model: AnyModel | None = None) -> coding.Model:
    """Returns the model that a bitstream names, which is to be `model`, where one is given.

    Raises:
        ModelError: It is not here, or is not `model`.
        TypeError: `model` is something else.
    """
    if isinstance(model, coding.Model) and model.card.answers_to(head.header.model_id):
        return model
    name = str(model.card.path) if isinstance(model, coding.Model) else _name_of(model)
    return coding.load(cards.find(name, model_id=head.header.model_id))


def _head(file: BinaryIO) -> bytes:
    """The bytes that tell the medium, not taken."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head


def _name_of(model: str | Path | None) -> str | None:
    """What `cards.find` takes: a path is one by its slashes."""
    if model is None or isinstance(model, str):
        return model
    if isinstance(model, Path):
        return str(model.absolute())
    raise TypeError(
        f"a model is a loaded one, a name or the path of a card, not {type(model).__name__}"
    )
