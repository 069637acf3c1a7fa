"""The public functions on bytes; what the commands do with files, these do in memory."""

from __future__ import annotations

import io

from codec import cards, coding
from codec.bitstream import DEFAULT_LIMITS, Limits, Reader
from codec.media import AudioWriter, detect, load_image, save_image


def models() -> list[str]:
    """The names of the models that came with the package."""
    return [card.name for card in cards.list_cards()]


def load(name: str | None = None, medium: str | None = None, device: str = "cpu") -> coding.Model:
    """Loads a model by name or card path; None takes the medium's best.

    Raises:
        ModelError: There is none such, or it is damaged.
    """
    return coding.load(cards.find(name, medium), device)


def compress(
    data: bytes,
    codebook_size: int | None = None,
    model: coding.Model | None = None,
    *,
    mono: bool = False,
    effort: int = 0,
) -> bytes:
    """Compresses the bytes of a picture or recording file.

    Args:
        data: A file's content in any format that `codec.media` reads.
        codebook_size: K; by default 1024.
        model: By default the best of the medium.
        mono: Mixes the channels of a recording into one.
        effort: 0 to 9: how much nearness of the codes to give up for fewer bits.

    Returns:
        A bitstream of format version 1.

    Raises:
        MediaError: Not readable as a picture or recording.
        ValueError: A codebook size that the model does not offer.
    """
    medium = detect(data[:16])
    model = model or load(medium=medium)
    size = model.codec.bottleneck.check_size(codebook_size)
    out = io.BytesIO()
    if medium == "image":
        coding.compress_image(load_image(io.BytesIO(data)), out, model, size, effort)
    else:
        coding.compress_speech(*coding.open_speech(io.BytesIO(data), mono), out, model, size, effort)
    return out.getvalue()


def decompress(
    data: bytes, model: coding.Model | None = None, limits: Limits = DEFAULT_LIMITS, suffix: str | None = None
) -> bytes:
    """Decompresses a bitstream to the bytes of a .wav or .png file, or another format by its suffix.

    Raises:
        BitstreamError: Damaged, or beyond the limits.
        ModelError: The model that it names is not here, or is not `model`.
    """
    reader = Reader(io.BytesIO(data), limits)
    if model is None or not model.card.answers_to(reader.header.model_id):
        card = cards.find(str(model.card.path) if model else None, model_id=reader.header.model_id)
        model = coding.load(card)
    out = io.BytesIO()
    if reader.header.medium == "image":
        save_image(out, coding.decompress_image(reader, model), suffix or "png")
    else:
        writer = AudioWriter(out, reader.header.sample_rate, reader.header.channels, suffix or "wav")
        for block in coding.decompress_speech(reader, model):
            writer.write(block)
        writer.close()
    return out.getvalue()
