"""The command line: codec.compress, codec.decompress, codec.info.

stdout carries data or the report, stderr everything else. Torch is imported only to code.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from codec import __version__, cards
from codec.bitstream import LAYERED, MAGIC, Reader, Summary
from codec.errors import MediaError
from codec.files import STDIO, Pipe, Source, opened, piping, room_for, spooling, writing
from codec.jobs import mirrored
from codec.layers import Layered, Survey, survey
from codec.limits import Limits
from codec.media import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    AudioReader,
    AudioWriter,
    ImageWriter,
    Picture,
    WavStream,
    detect,
    streamed,
)
from codec.salvage import MAX_FILE_BYTES, Salvage
from codec.terminal import UsageError, each, filled, notices, print_line, progress, run

if TYPE_CHECKING:
    from codec.coding import AnyReader, Model

log = logging.getLogger("codec")

HEAD = 16  # bytes that tell a medium
SPEECH_RATE = 16000  # Hz, that of the nets, which are not imported here


# ---------------------------------------------------------------------------------------------------------- compress


def compress_main(arguments: list[str] | None = None) -> int:
    """`python -m codec.compress`; returns the exit code."""
    parser = _parser("compress", "Compresses a recording or a picture (or a folder of them) to .bin files.")
    _add_paths(parser, "recording, picture, folder, or - for stdin")
    parser.add_argument("-m", "--model", metavar="NAME|PATH", help="default: the medium's best")
    parser.add_argument("-k", "--codebook-size", type=int, metavar="K", help="256, 1024, 4096 or 16384; default 1024")
    parser.add_argument(
        "-b",
        "--bitrate",
        type=float,
        metavar="R",
        help="instead of K: kbit/s a channel, or bits per pixel; nearest wins",
    )
    parser.add_argument(
        "--effort",
        type=int,
        default=0,
        choices=range(10),
        metavar="0-9",
        help="choose codes that cost fewer bits over nearer ones: about 4 is a fair trade; default 0",
    )
    parser.add_argument("--layers", action="store_true", help="a file that codec.truncate can cut to every smaller K")
    parser.add_argument("--mono", action="store_true", help="mix the channels of a recording into one")
    parser.add_argument("-t", "--test", action="store_true", help="decode what was written and verify it")
    parser.add_argument("--list-models", action=_ListModels, nargs=0, help="list the shipped models and exit")
    _add_common(parser)
    return run(parser, arguments, _compress)


def _compress(options: argparse.Namespace) -> None:
    if options.codebook_size is not None and options.bitrate is not None:
        raise UsageError("give --codebook-size or --bitrate, not both")
    models = _Models(options.device)
    each(_jobs(options), lambda source, target: _compress_file(source, target, options, models))


def _compress_file(source: str, target: str, options: argparse.Namespace, models: _Models) -> None:
    with piping(source) as file, writing(target, options.force, stream=not options.test) as out, spooling() as spool:
        head = file.peek(HEAD) if isinstance(file, Pipe) else file.read(HEAD)
        if not isinstance(file, Pipe):
            file.seek(0)
        if head.startswith(MAGIC):
            raise MediaError("this is a .bin already; give a recording or a picture")
        medium = detect(head)
        card = cards.find(options.model, medium if options.model is None else None)
        size = _choose_size(card, options)
        recording = _streamed(file, head)
        if isinstance(file, Pipe) and recording is None:
            file = file.spooled(spool)
        report = _compress_one(file, recording, out, medium, lambda: models.get(card), size, options)
        if options.test:
            _verify(out, models)
            report["verified"] = True
    _report(report | {"input": source, "output": target}, options, data_on_stdout=target == STDIO)


def _streamed(file: BinaryIO | Pipe, head: bytes) -> AudioReader | None:
    """A recording that can be coded while it still comes in: a plain .wav through a pipe. Else None."""
    recording = streamed(cast(BinaryIO, file), head) if isinstance(file, Pipe) else None
    if recording is not None:
        cast(Pipe, file).forget()
    return recording


def _compress_one(
    file: BinaryIO | Pipe,
    recording: AudioReader | None,
    out: BinaryIO,
    medium: str,
    load: Callable[[], Model],
    size: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    start = time.perf_counter()
    # A large picture is decoded, and its memory given back, before torch and the nets take theirs.
    picture = Picture(cast(BinaryIO, file), options.max_pixels) if medium == "image" else None
    read_s = time.perf_counter() - start
    from codec import coding

    model = load()
    start = time.perf_counter() - read_s
    if picture is not None:
        written = coding.compress_image(picture, out, model, size, options.effort, options.layers)
        shape: dict[str, Any] = {"width": picture.width, "height": picture.height}
    else:
        blocks, rate, channels = coding.open_speech(recording or cast(BinaryIO, file), options.mono)
        heard = progress(blocks, rate, options.quiet)
        written = coding.compress_speech(heard, rate, channels, out, model, size, options.effort, options.layers)
        shape = {"duration_s": written.units, "sample_rate": rate, "channels": channels}
    elapsed_s = time.perf_counter() - start
    bytes_in = file.total if isinstance(file, Pipe) else file.seek(0, os.SEEK_END)
    return {
        "medium": medium,
        "model": model.card.name,
        "codebook_size": size,
        **shape,
        "bytes_in": bytes_in,
        "bytes_out": written.total_bytes,
        "payload_bytes": written.payload_bytes,
        "units": written.units,
        "elapsed_s": elapsed_s,
    }


def _choose_size(card: cards.Card, options: argparse.Namespace) -> int:
    """The codebook size that the options ask for; a bit rate takes the nearest."""
    sizes = card.num_codes
    unit, scale = ("kbit/s a channel", 1000) if card.medium == "speech" else ("bits per pixel", 1)
    rates = {k: card.tokens_per_unit * log2(n) / scale for k, n in sizes.items()}
    if options.bitrate is not None:
        if not 0 < options.bitrate < inf:
            known = ", ".join(f"{rate:.3g}" for rate in rates.values())
            raise UsageError(f"--bitrate {options.bitrate:g}: want one near {known} {unit}")
        size = min(rates, key=lambda k: abs(rates[k] - options.bitrate))
        log.warning("--bitrate %g: nearest is %.3g %s (K = %d)", options.bitrate, rates[size], unit, size)
        return size
    default = 1024 if 1024 in sizes else min(sizes)
    size = default if options.codebook_size is None else int(options.codebook_size)
    if size not in sizes:
        offered = ", ".join(f"{k} ({rates[k]:.3g} {unit})" for k in sizes)
        raise UsageError(f"--codebook-size {size}: {card.name} offers {offered}")
    return size


# -------------------------------------------------------------------------------------------------------- decompress


def decompress_main(arguments: list[str] | None = None) -> int:
    """`python -m codec.decompress`; returns the exit code."""
    parser = _parser(
        "decompress", "Decompresses .bin files (or a folder of them); the output's suffix chooses its format."
    )
    _add_paths(parser, ".bin file, folder, or - for stdin")
    parser.add_argument("-m", "--model", metavar="PATH", help="a model that did not come with the package")
    parser.add_argument(
        "-k", "--codebook-size", type=int, metavar="K", help="of a file with layers: stop there; default: the last"
    )
    parser.add_argument(
        "-t", "--test", action="store_true", help="verify only: decode and write nothing (OUT is left out)"
    )
    parser.add_argument(
        "--partial", action="store_true", help="decode what a damaged file still holds: silence or grey for the rest"
    )
    parser.add_argument("--max-seconds", type=int, default=Limits().max_seconds, metavar="S", help="refuse longer ones")
    _add_common(parser)
    return run(parser, arguments, _decompress)


def _decompress(options: argparse.Namespace) -> None:
    models = _Models(options.device)
    limits = Limits(max_pixels=options.max_pixels, max_seconds=options.max_seconds)
    each(_jobs(options, unpack=True), lambda source, target: _decompress_file(source, target, options, models, limits))


def _decompress_file(
    source: str, target: str | None, options: argparse.Namespace, models: _Models, limits: Limits
) -> None:
    with piping(source) as pipe:
        if isinstance(pipe, Pipe):
            pipe.forget()
        if target is not None:
            limits = replace(limits, max_bytes=room_for(target))
        file = io.BytesIO(pipe.read(MAX_FILE_BYTES + 1)) if options.partial else cast(BinaryIO, pipe)
        head = Reader(file, limits)
        card = cards.find(options.model, model_id=head.header.model_id)
        if target is None:
            model, start = models.get(card), time.perf_counter()
            reader = _open(file, head, model, options, limits, strict=True)
            units = _decode(reader, model, None, "", quiet=True)
        else:
            target, suffix = _suffix(target, head.header.medium, chosen=not Path(options.input).is_dir())
            if target in models.written:
                raise MediaError(f"{target} was written for another file of this run; rename one of them")
            models.written.add(target)
            streamed = target == STDIO and head.header.medium == "speech" and suffix == "wav"
            with writing(target, options.force, stream=streamed) as out:
                model, start = models.get(card), time.perf_counter()
                reader = _open(file, head, model, options, limits, strict=False)
                units = _decode(reader, model, out, suffix, options.quiet)
        report = {
            "medium": reader.header.medium,
            "model": card.name,
            "codebook_size": reader.header.codebook_size,
            "units": units,
            "verified": target is None and not reader.gaps,
            "elapsed_s": time.perf_counter() - start,
        }
        if isinstance(reader, Salvage):
            report |= _lost(reader, model)
    _report(report | {"input": source, "output": target}, options, data_on_stdout=target == STDIO)


def _open(
    file: BinaryIO, head: Reader, model: Model, options: argparse.Namespace, limits: Limits, strict: bool
) -> AnyReader:
    """What to decode from: the whole file, as far as its layers are asked for and sound, or what is left of it.

    Raises:
        BitstreamError: The file is damaged; `strict` counts its last layers, too.
    """
    from codec import coding

    if options.partial:
        file.seek(0)
        salvage = Salvage(file, limits, coding.num_positions(head.header, model))
        if not salvage.complete:
            return coding.salvaged(salvage, model, options.codebook_size) if head.version[1] >= LAYERED else salvage
        if head.version[1] < LAYERED:
            return salvage
        file.seek(0)
        head = Reader(file, limits)
    reader = coding.layered(head, model, options.codebook_size)
    if strict and isinstance(reader, Layered) and reader.damage is not None:
        raise reader.damage
    return reader


def _lost(reader: Reader | Salvage, model: Model) -> dict[str, Any]:
    """What a damaged file no longer held, said in a line: seconds of speech or positions of a picture."""
    speech = reader.header.medium == "speech"
    unit = model.codec.stride / SPEECH_RATE if speech else 1
    lost = [[start * unit, stop * unit] for start, stop in reader.gaps]
    if isinstance(reader, Salvage) and not reader.length_known:
        log.warning("the end of the file is missing: the length is that of what was found")
    total = sum(stop - start for start, stop in reader.gaps)
    if total:
        places = ", ".join(f"{start:.2f} to {stop:.2f}" if speech else f"{start} to {stop}" for start, stop in lost)
        what = (
            f"{total * unit:.2f} s (now silence)" if speech else f"{total} of {reader.num_positions} cells (now grey)"
        )
        log.warning("lost %s: %s", what, places)
    return {"lost": lost}


def _decode(reader: AnyReader, model: Model, out: BinaryIO | None, suffix: str, quiet: bool) -> float:
    """Decodes to a media file, or only checks if there is none; returns seconds or pixels."""
    from codec import coding

    seeks = out is not None and out is not sys.stdout.buffer
    if seeks:
        coding.check_room(reader, model, suffix)
    if reader.header.medium == "image":
        height, width = reader.header.height, reader.header.width
        picture = None
        for strip in coding.image_strips(reader, model):
            if out is not None:  # the picture is known now to have the size that its header says
                picture = picture or ImageWriter(out, height, width, suffix)
                reader.budget.check_bytes(out.tell())
                picture.write(strip)
        if picture is not None:
            picture.close()
        return float(height * width)
    rate, channels = reader.header.sample_rate, reader.header.channels
    writer: AudioWriter | WavStream | None = None
    if out is not None:
        writer = AudioWriter(out, rate, channels, suffix) if seeks else WavStream(out, rate, channels)
    for block in progress(coding.decompress_speech(reader, model), rate, quiet):
        if out is not None and writer is not None:
            if seeks:
                reader.budget.check_bytes(out.tell() + 2 * block.size)
            writer.write(block)
    if writer is not None:
        writer.close()
    return reader.num_samples / rate


def _verify(out: BinaryIO, models: _Models) -> None:
    """Decodes what was just written: containers, checksums and nets."""
    from codec import coding

    out.flush()
    out.seek(0)
    head = Reader(out, Limits(max_pixels=sys.maxsize, max_seconds=sys.maxsize))
    model = models.get(cards.find(models.last, model_id=head.header.model_id))
    _decode(coding.layered(head, model), model, None, "", quiet=True)
    out.seek(0, os.SEEK_END)


def _suffix(target: str, medium: str, chosen: bool) -> tuple[str, str]:
    """The output's name and format. A name that was not `chosen` but restored, say a.avif, may become a.avif.png."""
    known, default = (IMAGE_SUFFIXES, "png") if medium == "image" else (AUDIO_SUFFIXES, "wav")
    suffix = Path(target).suffix.lstrip(".").lower()
    if suffix in known and target != STDIO:
        return target, suffix
    if not chosen:
        return f"{target}.{default}", default
    if suffix and target != STDIO:
        kind = "a picture" if medium == "image" else "a recording"
        raise MediaError(f"the file holds {kind}, which cannot be written as .{suffix}; use {', '.join(sorted(known))}")
    return target, default


# -------------------------------------------------------------------------------------------------------------- info


def info_main(arguments: list[str] | None = None) -> int:
    """`python -m codec.info`; returns the exit code."""
    parser = _parser("info", "Describes .bin files from their bytes alone; no model is loaded.")
    parser.add_argument("files", nargs="+", metavar="FILE", type=filled, help=".bin file, or - for stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return run(parser, arguments, _info)


def _info(options: argparse.Namespace) -> None:
    names = _model_names()

    def show(name: str, _: None) -> None:
        with piping(name) as file:
            record = {"file": name} | describe_all(survey(cast(BinaryIO, file)), names)
        if options.json:
            print_line(json.dumps(record), sys.stdout)
        else:
            record["model"] = record["model"] or "not among the installed models"
            width = max(map(len, record))
            for size, layer in record.pop("layers", {}).items():
                record[f"up to K = {size}"] = f"{layer['bytes']} bytes, {layer['rate']}"
            for key, value in record.items():
                shown = f"{value:.6g}" if isinstance(value, float) else value
                print_line(f"{key.replace('_', ' '):<{width}}  {shown}", sys.stdout)

    each([(name, None) for name in options.files], show)


def info(data: Source) -> dict[str, Any]:
    """What `codec.info` says of a file: its format, medium, model, sizes and layers.

    Args:
        data: The file: its path, an open binary file, or its bytes.

    Returns:
        The record that `python -m codec.info --json` prints, without the file's name.

    Raises:
        BitstreamError: Damaged, or not one of ours. Damage in layers alone is told in the record.
        MediaError: It cannot be read.
        TypeError: `data` is something else.
    """
    with opened(data) as file:
        return describe_all(survey(file), _model_names())


def _model_names() -> dict[bytes, str]:
    return {key: card.name for card in cards.list_cards() for key in (card.base_id, card.model_id)}


def describe_all(found: Survey, names: Mapping[bytes, str]) -> dict[str, Any]:
    """As `describe`, and of a file with layers the whole: figures are those of its last layer.

    "layers" has, for every codebook size, the bytes of the file when it is cut there; "damage" says why there are no
    more.
    """
    record = describe(found.summary, names)
    if not found.layers and found.damage is None:
        return record
    payload = found.summary.payload_bytes
    units = record.get("duration_s") or record.get("width", 0) * record.get("height", 0)
    layers: dict[int, dict[str, Any]] = {}
    for size, stop in found.stops.items():
        payload += sum(layer.payload_bytes for layer in found.layers if layer.codebook_size == size)
        layers[size] = {"bytes": stop, "payload_bytes": payload, "rate": _rate(record["medium"], stop, units)}
    record |= layers[size] | {
        "codebook_size": size,
        "num_codes": found.layers[-1].num_codes if found.layers else record["num_codes"],
        "bits_per_token": 8 * payload / max(record["tokens"], 1),
        "layers": layers,
    }
    return record if found.damage is None else record | {"damage": str(found.damage)}


def describe(summary: Summary, names: Mapping[bytes, str]) -> dict[str, Any]:
    """What `codec.info` says of a file, in its order; `names` are those of the models that are known, by their ids."""
    header = summary.header
    record: dict[str, Any] = {
        "format": f"{summary.version[0]}.{summary.version[1]}",
        "medium": header.medium,
        "model": names.get(header.model_id),
        "model_id": header.model_id.hex(),
        "codebook_size": header.codebook_size,
        "num_codes": header.num_codes,
        "codebooks": header.num_codebooks,
        "channels": header.channels,
    }
    if header.medium == "speech":
        record |= {"sample_rate": header.sample_rate, "duration_s": summary.num_samples / header.sample_rate}
        units, count = record["duration_s"], summary.num_positions * header.channels
    else:
        record |= {"width": header.width, "height": header.height}
        units, count = header.width * header.height, summary.num_positions
    return record | {
        "chunks": summary.num_chunks,
        "tokens": count * header.num_codebooks,
        "bytes": summary.file_bytes,
        "payload_bytes": summary.payload_bytes,
        "bits_per_token": 8 * summary.payload_bytes / max(count * header.num_codebooks, 1),
        "rate": _rate(header.medium, summary.file_bytes, units),
    }


# ------------------------------------------------------------------------------------------------- shared by commands


class _Models:
    """What a run keeps from file to file: loads each model once, and knows which outputs it has written."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: dict[bytes, Model] = {}
        self.written: set[str] = set()  # a.bin and a.png.bin both decode to a.png
        self.last: str | None = None  # path of the last card used, for models outside the package

    def get(self, card: cards.Card) -> Model:
        from codec import coding

        self.last = str(card.path)
        if card.model_id not in self._loaded:
            device = _device(self._device)
            self._loaded[card.model_id] = coding.load(card, device)
            log.info("model %s (%s) on %s", card.name, card.model_id.hex(), device)
        return self._loaded[card.model_id]


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device here; use --device cpu")
    return name


class _ListModels(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        with notices():
            found = cards.list_cards()
        for card in found:
            sizes = ", ".join(map(str, card.num_codes))
            print(f"{card.name:<14} {card.medium:<7} K = {sizes}   {card.model_id.hex()}")
        parser.exit(0)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m codec.{command}", description=description, epilog="See docs/command-line.md"
    )
    parser.add_argument("--version", action="version", version=f"codec {__version__}")
    return parser


def _add_paths(parser: argparse.ArgumentParser, kinds: str) -> None:
    parser.add_argument("input", metavar="IN", type=filled, help=kinds)
    parser.add_argument("output", metavar="OUT", nargs="?", type=filled, help="file, folder, or - for stdout")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="overwrite OUT")
    parser.add_argument("-d", "--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--max-pixels", type=int, default=Limits().max_pixels, metavar="N", help="refuse larger pictures"
    )
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="no report and no notices")
    volume.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("--json", action="store_true", help="report as one JSON object a line")


def _jobs(options: argparse.Namespace, unpack: bool = False) -> list[tuple[str, Any]]:
    """Input and output names, as `mirrored` has them. Where `unpack` is set, an output may be None, to only verify."""
    if options.output is None and not (unpack and options.test):
        raise UsageError("the argument OUT is missing")
    if options.output is not None and unpack and options.test:
        raise UsageError("--test writes nothing; leave OUT out")
    if unpack:
        return mirrored(options.input, options.output, lambda path: path.suffix == ".bin", lambda p: p.with_suffix(""))
    return mirrored(
        options.input, options.output, lambda path: path.suffix != ".bin", lambda p: p.with_name(f"{p.name}.bin")
    )


def _rate(medium: str, total_bytes: int, units: float) -> str:
    if medium == "speech":
        return f"{8 * total_bytes / max(units, 1e-9) / 1000:.3f} kbit/s"
    return f"{8 * total_bytes / max(units, 1):.4f} bits per pixel"


def _report(report: dict[str, Any], options: argparse.Namespace, data_on_stdout: bool) -> None:
    """One line, or one JSON object, about a file that is done."""
    if options.quiet:
        return
    stream = sys.stderr if data_on_stdout else sys.stdout
    medium, units, elapsed_s = report["medium"], report.pop("units"), report["elapsed_s"]
    speed = units / max(elapsed_s, 1e-9) / (1e6 if medium == "image" else 1)
    pace = f"{speed:.2f} megapixel/s" if medium == "image" else f"{speed:.1f} x real time"
    report["speed"] = pace
    if "bytes_out" in report:
        report["rate"] = _rate(medium, report["bytes_out"], units)
        report["payload_rate"] = _rate(medium, report["payload_bytes"], units)
        report["ratio"] = report["bytes_in"] / report["bytes_out"]
        line = (
            f"{report['bytes_in']} -> {report['bytes_out']} bytes, {report['ratio']:.1f} : 1, {report['rate']} "
            f"({report['payload_rate']} without container), {pace}"
        )
    else:
        line = f"{'verified' if report['verified'] else 'decoded'}, {pace}"
    if options.json:
        print_line(json.dumps(report), stream)
    else:
        verified = ", verified" if report.get("verified") and "bytes_out" in report else ""
        print_line(f"{report['input']}: {report['model']}, K = {report['codebook_size']}: {line}{verified}", stream)
