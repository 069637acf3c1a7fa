"""The public functions on bytes; what the commands do with files, these do in memory.

Wherever they take a model, the name of a shipped one or the path of a card does as well; a loaded one saves the time of
loading it again.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

from codec import cards, coding
from codec.bitstream import DEFAULT_LIMITS, Limits, Reader
from codec.media import AudioWriter, ImageWriter, Picture, detect

AnyModel: TypeAlias = coding.Model | str | Path


def models() -> list[str]:
    """The names of the models that came with the package."""
    return [card.name for card in cards.list_cards()]


def load(name: AnyModel | None = None, medium: str | None = None, device: str = "cpu") -> coding.Model:
    """Loads a model by name or card path; None takes the medium's best, and a loaded model is returned as it is.

    Args:
        name: Of a shipped model, or the path of a card.
        medium: "speech" or "image": which best is wanted, or what a named model must be for.
        device: Where its nets run: "cpu", "cuda", "cuda:1".

    Raises:
        ModelError: There is none such, or it is damaged.
        TypeError: `name` is something else.
    """
    if isinstance(name, coding.Model):
        return name
    return coding.load(cards.find(_name_of(name), medium), device)


def compress(
    data: bytes,
    codebook_size: int | None = None,
    model: AnyModel | None = None,
    *,
    mono: bool = False,
    effort: int = 0,
) -> bytes:
    """Compresses the bytes of a picture or recording file.

    Args:
        data: A file's content in any format that `codec.media` reads.
        codebook_size: K; by default 1024.
        model: A loaded model, the name of a shipped one or the path of a card; by default the best of the medium.
        mono: Mixes the channels of a recording into one.
        effort: 0 to 9: how much nearness of the codes to give up for fewer bits.

    Returns:
        A bitstream of format version 1.

    Raises:
        MediaError: Not readable as a picture or recording.
        ModelError: There is no such model, it is damaged, or it is for the other medium.
        ValueError: A codebook size that the model does not offer.
    """
    medium = detect(data[:16])
    loaded = load(medium=medium) if model is None else load(model)
    size = loaded.codec.bottleneck.check_size(codebook_size)
    out = io.BytesIO()
    if medium == "image":
        coding.compress_image(Picture(io.BytesIO(data)), out, loaded, size, effort)
    else:
        coding.compress_speech(*coding.open_speech(io.BytesIO(data), mono), out, loaded, size, effort)
    return out.getvalue()


def decompress(
    data: bytes, model: AnyModel | None = None, limits: Limits = DEFAULT_LIMITS, suffix: str | None = None
) -> bytes:
    """Decompresses a bitstream to the bytes of a .wav or .png file, or another format by its suffix.

    Args:
        data: What `compress` returned.
        model: As for `compress`; by default the shipped one that the bitstream names.
        limits: Refuse anything larger.
        suffix: Of the format, say "flac" or "jpg".

    Raises:
        BitstreamError: Damaged, or beyond the limits.
        MediaError: A suffix that cannot be written.
        ModelError: The model that it names is not here, or is not `model`.
    """
    reader = Reader(io.BytesIO(data), limits)
    if isinstance(model, coding.Model) and model.card.answers_to(reader.header.model_id):
        loaded = model
    else:
        name = str(model.card.path) if isinstance(model, coding.Model) else _name_of(model)
        loaded = coding.load(cards.find(name, model_id=reader.header.model_id))
    out = io.BytesIO()
    if reader.header.medium == "image":
        picture = ImageWriter(out, reader.header.height, reader.header.width, suffix or "png")
        for strip in coding.image_strips(reader, loaded):
            picture.write(strip)
        picture.close()
    else:
        writer = AudioWriter(out, reader.header.sample_rate, reader.header.channels, suffix or "wav")
        for block in coding.decompress_speech(reader, loaded):
            writer.write(block)
        writer.close()
    return out.getvalue()


def _name_of(model: str | Path | None) -> str | None:
    """What `cards.find` takes: a path is one by its slashes."""
    if model is None or isinstance(model, str):
        return model
    if isinstance(model, Path):
        return str(model.absolute())
    raise TypeError(f"a model is a loaded one, a name or the path of a card, not {type(model).__name__}")
