"""Bitstreams of a model: the writer of one, and its reader, with or without layers."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from codec.cards import list_cards
from codec.coding.checks import expected, num_positions
from codec.coding.models import Model, check_header, need, tables_for
from codec.container import LAYERED, Header, Indices, Reader, Salvage, Writer, unpack_all
from codec.container.limits import IN_MEMORY, Limits
from codec.entropy import NO_TABLES, Tables
from codec.errors import BitstreamError, MediaError, ModelError
from codec.layers import Layered, LayerWriter, ladder, refine
from codec.medium import SAMPLE_RATE

log = logging.getLogger("codec")


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, in bytes and in seconds or pixels.

    `units` is seconds of speech or pixels of a picture, all that a rate is divided by.
    """

    total_bytes: int
    payload_bytes: int
    units: float


def header_of(model: Model, codebook_size: int, **shape: int) -> Header:
    """The header of what a model codes.

    Raises MediaError for a shape that the format cannot hold.
    """
    bottleneck = model.codec.bottleneck
    num_codes = bottleneck.num_codes(codebook_size)
    medium = model.codec.config.medium
    try:
        return Header(
            medium, model.card.model_id, codebook_size, num_codes, bottleneck.num_codebooks, **shape
        )
    except ValueError as error:
        raise MediaError(f"the format has no room for this: {error}") from None


def writer_of(file: BinaryIO, header: Header, model: Model, layers: bool) -> Writer | LayerWriter:
    """Writes a file of one codebook size or with layers.

    Raises ModelError where the model has none.
    """
    if not layers:
        return Writer(file, header, model.tables.get(header.codebook_size, NO_TABLES))
    if len(ladder(model.tables, header.codebook_size)) < 2:
        able = [size for size in model.tables if len(ladder(model.tables, size)) > 1]
        others = [c.name for c in list_cards() if c.layered and c.medium == header.medium]
        offers = (
            f"they begin at K = {able[0]}"
            if able
            else f"its codebooks do not refine each other; {' and '.join(others) or 'no model'} "
            "here can have layers"
        )
        raise ModelError(f"{model.card.name} has no layers at K = {header.codebook_size}: {offers}")
    return LayerWriter(file, header, model.tables)


def layered(reader: Reader, model: Model, codebook_size: int | None = None) -> Reader | Layered:
    """What to decode a file from: the reader itself, or its layers up to a codebook size.

    A layer that is damaged, and those above it, are left out with a notice.

    Args:
        reader: At the beginning of its data chunks.
        model: The one that the file names.
        codebook_size: Stop at this layer; None for the last.

    Raises:
        BitstreamError: The base is damaged.
        MediaError: The file has no such layer.
    """
    check_header(reader.header, model)
    if reader.version[1] < LAYERED:
        _check_single(reader.header, codebook_size)
        return reader
    if reader.header.kind.timed:
        expected(reader, model)
    try:
        found = Layered(reader, _all_tables(reader.header, model), codebook_size)
    except ValueError as error:
        raise MediaError(str(error)) from None
    _tell(found.damage, found.header)
    return found


def left_of(
    file: BinaryIO, model: Model, limits: Limits, codebook_size: int | None = None
) -> Reader | Layered | Salvage:
    """What to decode a file from that may be damaged, as far as its base and layers are sound.

    Args:
        file: Open for reading, at any place.
        model: The one that the file names.
        limits: Refuse anything larger.
        codebook_size: Stop at this layer; None for the last.

    Raises:
        BitstreamError: The header is damaged, or not the model's.
        MediaError: The file has no such layer.
    """
    file.seek(0)
    head = Reader(file, limits)
    file.seek(0)
    salvage = Salvage(file, limits, num_positions(head.header, model))
    if not salvage.complete or head.version[1] < LAYERED:
        return salvaged(salvage, model, codebook_size)
    file.seek(0)
    return layered(Reader(file, limits), model, codebook_size)


def lost(reader: Reader | Layered | Salvage, model: Model) -> list[tuple[float, float]]:
    """The gaps of what was decoded, in seconds of speech or positions; a notice names them."""
    timed = reader.header.kind.timed
    unit = model.codec.stride / SAMPLE_RATE if timed else 1
    gaps = [(start * unit, stop * unit) for start, stop in reader.gaps]
    if isinstance(reader, Salvage) and not reader.length_known:
        log.warning("the end of the file is missing: the length is that of what was found")
    if gaps:
        total = sum(stop - start for start, stop in gaps)
        places = ", ".join(
            f"{start:.2f} to {stop:.2f}" if timed else f"{start} to {stop}" for start, stop in gaps
        )
        what = (
            f"{total:.2f} s (now silence)"
            if timed
            else f"{total} of {reader.num_positions} cells (now grey)"
        )
        log.warning("lost %s: %s", what, places)
    return gaps


def salvaged(salvage: Salvage, model: Model, codebook_size: int | None = None) -> Salvage:
    """As `layered`, of a file whose base may be damaged: the layers of what is left of it.

    Raises:
        BitstreamError: The header is not the model's.
        MediaError: The file has no such layer.
    """
    check_header(salvage.header, model)
    if salvage.version[1] < LAYERED:
        _check_single(salvage.header, codebook_size)
        if salvage.behind is not None and salvage.behind.take_up_to(1):
            log.warning(
                "bytes follow the end of the file, from byte %d: left out",
                salvage.behind.offset - 1,
            )
        return salvage
    try:
        damage = refine(salvage, _all_tables(salvage.header, model), codebook_size)
    except ValueError as error:
        raise MediaError(str(error)) from None
    _tell(damage, salvage.header)
    return salvage


def _check_single(header: Header, codebook_size: int | None) -> None:
    """Raises MediaError where a file without layers is asked for another codebook size."""
    if codebook_size not in (None, header.codebook_size):
        raise MediaError(
            f"the file has no layers: it holds K = {header.codebook_size} and not {codebook_size}"
        )


def _all_tables(header: Header, model: Model) -> dict[int, Tables]:
    """`tables_for` every codebook size."""
    return {size: tables_for(replace(header, codebook_size=size), model) for size in model.tables}


def _tell(damage: BitstreamError | None, header: Header) -> None:
    if damage is not None:
        log.warning(
            "decoded at K = %d, for the layers above it are lost: %s", header.codebook_size, damage
        )


def read_indices(
    data: bytes, model: Model, limits: Limits = IN_MEMORY, codebook_size: int | None = None
) -> tuple[Header, Indices, int]:
    """What `unpack` gives of this model's file: header, indices, samples.

    Of a file with layers they are of `codebook_size`, or of the last that is whole.
    """
    head = Reader(io.BytesIO(data), limits)
    need(model, head.header.medium)
    reader = layered(head, model, codebook_size)
    if isinstance(reader, Layered):
        reader.budget.check_bytes(8 * reader.num_positions * reader.header.num_streams)
        return reader.header, np.concatenate(list(reader.chunks()), axis=2), reader.num_samples
    if reader.header.kind.timed:
        expected(reader, model)
    return unpack_all(reader, tables_for(reader.header, model))
