"""The reader under fire: any bytes give a result or the one right error, in bounded memory.

    python tests/fuzz.py NEW tests/corpus -max_total_time=600    searches with atheris
    python tests/fuzz.py --seed tests/corpus                     writes the seeds again
    python tests/fuzz.py --blind SECONDS tests/corpus            spoils the seeds at random

The folder NEW gets what is new; --blind is for where there is no atheris.

The first byte of an input says what the rest is: a file as it is; chunks that are sealed with the
right CRC-32 first, so that damage gets past it; one coder's bytes; a model card; a prior's tables;
or a picture or recording. Every input that ever failed stays in the corpus, which
tests/test_fuzz.py runs whole.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

if __name__ == "__main__":
    if "--blind" not in sys.argv:
        # The plain twin can be watched by a fuzzer, machine code cannot.
        os.environ.setdefault("CODEC_PLAIN", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is not None and not {"--seed", "--blind"} & set(sys.argv):
        with atheris.instrument_imports(include=["codec"]):
            import codec.container.salvage  # noqa: F401

import numpy as np
import soundfile
from PIL import Image

from codec import cards
from codec.container import MAGIC, Reader, pack, scan, unpack
from codec.container.limits import Limits
from codec.container.salvage import Salvage
from codec.entropy import Prior, Tables, decode_indices, encode_indices
from codec.errors import BitstreamError, CodecError, ModelError
from codec.layers import Layered, cut, survey
from codec.media import AudioReader, Picture
from codec.medium import MAX_CHANNELS

GOLDEN = Path(__file__).resolve().parent.parent / "assets/golden"
LIMITS = Limits(max_pixels=4096, max_seconds=4)
STEP_MIB = 64  # what one input may add to the peak of memory before it is kept
MOST_POSITIONS = 200  # the plain coder takes a millisecond for each


def golden_tables() -> dict[tuple[int, int], Tables]:
    """(G, K) -> the tables of the golden files."""
    tables = {}
    for path in sorted(GOLDEN.glob("*.json")):
        golden = json.loads(path.read_text())
        prior = golden.get("prior")
        if prior:
            arrays = {name: np.array(table, np.int64) for name, table in prior.items()}
            arrays["digits"] = arrays["digits"].reshape(-1, len(arrays["bias"]))
            prior = Prior.from_tensors(arrays)
        frequencies = golden["tables"] and np.array(golden["tables"])
        header = golden["header"]
        if "layers" not in golden:
            tables[header["num_codebooks"], header["num_codes"]] = Tables(frequencies, prior)
    return tables


def golden_ladders() -> dict[int, dict[int, Tables]]:
    """Codebook size of the base -> the tables of a golden file with layers, by codebook size."""
    ladders = {}
    for path in sorted(GOLDEN.glob("layers-*.json")):
        golden = json.loads(path.read_text())
        size = golden["header"]["codebook_size"]
        rows = [{"codebook_size": size, "prior": golden["prior"]}, *golden["layers"]]
        ladders[size] = {}
        for number, row in enumerate(rows):
            arrays = {name: np.array(table, np.int64) for name, table in row["prior"].items()}
            prior = Prior.from_tensors(
                arrays | {"digits": arrays["digits"].reshape(-1, len(arrays["bias"]))}
            )
            ladders[size][row["codebook_size"]] = (
                Tables(layer=prior) if number else Tables(prior=prior)
            )
    return ladders


TABLES = golden_tables()
LADDERS = golden_ladders()
SHAPES = sorted(TABLES)


def read_file(data: bytes) -> None:
    """A whole file: read, scanned and salvaged."""
    try:
        scan(io.BytesIO(data))
        reader = Reader(io.BytesIO(data), LIMITS)
    except BitstreamError:
        return
    header = reader.header
    tables = TABLES.get((header.num_codebooks, header.num_codes), Tables())
    if header.num_streams * header.num_codebooks > 8:
        return
    try:
        found, indices, num_samples = unpack(data, tables, LIMITS)
    except BitstreamError:
        pass
    else:
        again = unpack(pack(found, indices, num_samples, tables), tables, LIMITS)
        assert np.array_equal(again[1], indices)
        assert indices.size == 0 or 0 <= indices.min() <= indices.max() < header.num_codes
    try:
        salvage = Salvage(io.BytesIO(data), LIMITS)
        count = sum(chunk.shape[2] for chunk in salvage.chunks(tables))
    except BitstreamError:
        return
    assert count == salvage.num_positions
    assert all(0 <= start < stop <= count for start, stop in salvage.gaps)


def read_layers(data: bytes) -> None:
    """A file with layers: surveyed, cut behind each and decoded there."""
    try:
        found = survey(io.BytesIO(data))
        reader = Reader(io.BytesIO(data), LIMITS)
    except BitstreamError:
        return
    tables = LADDERS.get(reader.header.codebook_size, {})
    if reader.header.num_streams * reader.header.num_codebooks > 8:
        return
    try:
        layered = Layered(reader, tables)
    except BitstreamError:
        return
    indices = [chunk.tolist() for chunk in layered.chunks()]
    for size in found.stops:
        shorter = cut(data, found, size)
        again = Layered(Reader(io.BytesIO(shorter), LIMITS), tables)
        assert again.header.codebook_size <= size
        if again.header.codebook_size == layered.header.codebook_size:
            assert [chunk.tolist() for chunk in again.chunks()] == indices


def sealed_layers(data: bytes) -> None:
    """A golden file's base, and behind it pieces of layers, each after its length in one byte,
    sealed.
    """
    if not data:
        return
    whole = sorted(GOLDEN.glob("layers-*.bin"))[data[0] % 2].read_bytes()
    parts = [whole[: min(survey(io.BytesIO(whole)).stops.values())]]
    at = 1
    while at < len(data):
        body = data[at + 1 : at + 1 + data[at]]
        parts.append(body + zlib.crc32(parts[-1][-4:] + body).to_bytes(4, "big"))
        at += 1 + data[at]
    read_layers(b"".join(parts))


def read_chunks(data: bytes) -> None:
    """Chunks, each as type, length in one byte and payload, sealed before they are read."""
    parts, at = [MAGIC + b"\1\1"], 0
    while at + 2 <= len(data):
        payload = data[at + 2 : at + 2 + data[at + 1]]
        length = (
            bytes([len(payload)])
            if len(payload) < 128
            else bytes([len(payload) & 127 | 128, len(payload) >> 7])
        )
        body = data[at : at + 1] + length + payload
        parts.append(body + zlib.crc32(body).to_bytes(4, "big"))
        at += 2 + data[at + 1]
    read_file(b"".join(parts))


def read_indices(data: bytes) -> None:
    """One stream of one chunk: which tables, how many positions, how wide a picture, and the
    coder's bytes.
    """
    if len(data) < 3:
        return
    num_codebooks, num_codes = SHAPES[data[0] % len(SHAPES)]
    tables, count, width = TABLES[num_codebooks, num_codes], data[1] % MOST_POSITIONS, data[2]
    if tables.prior is not None and tables.prior.stride and not width:
        return
    try:
        indices = decode_indices(data[3:], num_codebooks, count, num_codes, tables, width)
    except BitstreamError:
        return
    assert indices.shape == (num_codebooks, count)
    assert indices.size == 0 or 0 <= indices.min() <= indices.max() < num_codes
    back = encode_indices(indices, num_codes, tables, width)
    assert np.array_equal(
        decode_indices(back, num_codebooks, count, num_codes, tables, width), indices
    )
    assert len(back) <= len(data[3:]) or data[3] != back[0]


def read_card(data: bytes) -> None:
    """A model card's text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_bytes(data)
        path.with_suffix(".safetensors").write_bytes(data[::-1])
        try:
            card = cards.read_card(path)
            card.answers_to(bytes(16))
            card.read()
        except ModelError:
            return
        raise AssertionError("weights were accepted that are the card turned round")


def read_prior(data: bytes) -> None:
    """A prior's tables from JSON, as a damaged model might hold them."""
    try:
        lists = json.loads(data)
        arrays = {name: np.array(table, np.int64) for name, table in lists.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return
    try:
        prior = Prior.from_tensors(arrays)
    except (ValueError, TypeError, KeyError):
        return
    if prior.num_codes < 5000:
        indices = np.arange(40)[None] * 7 % prior.num_codes
        width = 20 if prior.stride else 0
        data = encode_indices(indices, prior.num_codes, Tables(prior=prior), width)
        assert np.array_equal(
            decode_indices(data, 1, 40, prior.num_codes, Tables(prior=prior), width), indices
        )


def read_media(data: bytes) -> None:
    """A picture or a recording, from a file."""
    with contextlib.suppress(CodecError):
        picture = Picture(io.BytesIO(data), LIMITS.max_pixels)
        rows = sum(strip.shape[0] for strip in picture.strips())
        assert rows == picture.height
        assert picture.height * picture.width <= LIMITS.max_pixels
    with contextlib.suppress(CodecError):
        recording, total = AudioReader(io.BytesIO(data)), 0
        if recording.channels > MAX_CHANNELS:
            return
        for block in recording.blocks():
            assert block.shape[1] == recording.channels
            assert np.abs(block).max(initial=0) <= 1
            total += len(block)
            if total > 1 << 20:  # a header may claim hours of silence, and that is no fault
                return


KINDS = [
    read_file,
    read_chunks,
    read_indices,
    read_card,
    read_prior,
    read_layers,
    sealed_layers,
    read_media,
]


def run_one(data: bytes) -> None:
    """Any exception is a finding."""
    if data:
        KINDS[data[0] % len(KINDS)](data[1:])


def seeds() -> dict[str, bytes]:
    """What the search starts from: every golden file in every form."""
    found = {}
    for path in sorted(GOLDEN.glob("*.bin")):
        data, golden = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
        if "layers" in golden:
            found[f"{path.stem}-whole"] = b"\5" + data
            layered, bodies = survey(io.BytesIO(data)), b""
            at = layered.summary.file_bytes
            for layer in layered.layers:
                for stop in [*(piece.offset for piece in layer.pieces[1:]), layer.stop]:
                    # All are shorter than 256 bytes.
                    bodies += bytes([stop - 4 - at]) + data[at : stop - 4]
                    at = stop
            found[f"{path.stem}-sealed"] = b"\6" + bytes(["speech" in path.stem]) + bodies
            continue
        found[f"{path.stem}-file"] = b"\0" + data
        parts, at = b"", 10
        header = golden["header"]
        while at < len(data):
            length, size = (
                (data[at + 1], 2)
                if data[at + 1] < 128
                else (data[at + 1] & 127 | data[at + 2] << 7, 3)
            )
            payload = data[at + size : at + size + length]
            if len(payload) < 256:
                parts += data[at : at + 1] + bytes([len(payload)]) + payload
            at += size + length + 4
        found[f"{path.stem}-chunks"] = b"\1" + parts
        indices = np.array(golden["indices"])[0][:, :60]
        shape = header["num_codebooks"], header["num_codes"]
        encoded = encode_indices(indices, header["num_codes"], TABLES[shape], header["width"] % 256)
        found[f"{path.stem}-coder"] = (
            b"\2" + bytes([SHAPES.index(shape), 60, header["width"] % 256]) + encoded
        )
        if golden.get("prior"):
            found[f"{path.stem}-prior"] = b"\4" + json.dumps(golden["prior"]).encode()
    card = {
        "name": "a",
        "model_id": "00" * 16,
        "base_id": "00" * 16,
        "config": {"medium": "speech", "bottleneck": "fsp"},
    }
    found["card"] = (
        b"\3"
        + json.dumps(card | {"num_codes": {"4": 4}, "tokens_per_unit": 1, "results": {}}).encode()
    )
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    for kind in ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        found[f"media-{kind.lower()}"] = b"\7" + file.getvalue()
    samples = np.sin(np.arange(800)[:, None] / np.array([7, 9]))
    for kind, subtype in (
        ("WAV", "PCM_24"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
    ):
        file = io.BytesIO()
        soundfile.write(file, samples, 16_000, subtype, format=kind)
        found[f"media-{(subtype or kind).lower()}"] = b"\7" + file.getvalue()
    return found


def spoil(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, cut out, put in or doubled, or a piece of another input in place."""
    spoilt = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        at = dice.randrange(1, len(spoilt) + 1)
        length = dice.choice((0, 1, 1, 2, 4, dice.randrange(64)))
        start = dice.randrange(len(other))
        pieces = (
            dice.randbytes(length),
            bytes([dice.choice((0, 1, 127, 128, 255))]) * length,
            bytes(spoilt[at : at + length]) * 2,
            other[start : start + length],
            bytes(octet ^ 1 << dice.randrange(8) for octet in spoilt[at : at + length]),
        )
        spoilt[at : at + length] = dice.choice(pieces)
    return bytes(spoilt)


def blind(seconds: float, corpus: Path) -> int:
    """Spoils inputs until the process has used so many seconds of a CPU.

    Says how many there were, and keeps those that fail, and those that raise the peak of memory by
    more than `STEP_MIB`, in the working folder.
    """
    seeds = [path.read_bytes() for path in sorted(corpus.iterdir())]
    dice = random.Random()
    counts: dict[str, int] = {}
    failed, keep = 0, Path(tempfile.mkdtemp(prefix="codec-fuzz-"))
    peak = peak_mib()
    while time.process_time() < seconds:
        data = spoil(dice.choice(seeds), dice.choice(seeds), dice)
        name = KINDS[data[0] % len(KINDS)].__name__
        counts[name] = counts.get(name, 0) + 1
        try:
            run_one(data)
        except Exception:
            failed += 1
            path = keep / f"failed-{failed}"
            path.write_bytes(data)
            print(f"{path}: {traceback.format_exc()}", flush=True)
        if peak_mib() > peak + STEP_MIB:
            peak = peak_mib()
            path = keep / f"hungry-{peak}"
            path.write_bytes(data)
            print(f"{path}: {name}, peak {peak} MiB", flush=True)
    print(
        f"{sum(counts.values())} inputs {counts} in {time.process_time():.0f} s of CPU, {failed} "
        f"failed, peak {peak_mib()} MiB",
        flush=True,
    )
    return failed


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    if "--blind" in sys.argv:
        sys.exit(blind(float(sys.argv[-2]), Path(sys.argv[-1])) > 0)
    if "--seed" in sys.argv:
        for seed_name, seed in seeds().items():
            (Path(sys.argv[-1]) / seed_name).write_bytes(seed)
    elif atheris is None:
        sys.exit("atheris is not installed: pip install atheris")
    else:
        atheris.Setup([*sys.argv[:1], *sys.argv[1:]], run_one)
        atheris.Fuzz()
