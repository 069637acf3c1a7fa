"""Where training media come from: folders, archives and data sets, laid out as people have them on disk.

    folder   every recording or picture below it; tars and zips in it are opened, shards of a webdataset, say
    .tar .tar.gz .tgz .zip   their members; a tar inside (ImageNet's class tars) is opened too
    LibriSpeech, a folder of pictures ...   are plain folders
    Common Voice   a folder with clips/ and train.tsv: the clips of that list; or any of its .tsv files
    COCO           a folder with train2017/ (or train2014/): that one
    ImageNet       a folder with train/n01440764/..., or ILSVRC/Data/CLS-LOC/train: that one
    CIFAR-10       cifar-10-batches-py or -bin, unpacked or as the .tar.gz: the five training batches
    CelebA         a folder with img_align_celeba/ and list_eval_partition.txt: the training part

Of a data set with parts only the training part is taken, and a line says so; name a part's folder to take another.
"""

from __future__ import annotations

import csv
import io
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from codec.errors import MediaError
from codec.files import files_below
from codec.media import load_audio, load_image
from codec.medium import IMAGE, SAMPLE_RATE, SPEECH

TARS, ZIPS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".zip",)
CIFAR_SIDE = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One file: its name, and its bytes (or pixels, where it is part of a larger one), or why it cannot be read."""

    name: str
    content: bytes | np.ndarray = b""
    error: MediaError | None = None


def media(medium: str, sources: list[Path]) -> Iterator[Item]:
    """Every recording or picture of the sources, sorted by name within folders.

    Files with the suffix of something else (transcripts, annotations) are passed over; those with none are tried.

    Raises:
        MediaError: A source does not exist.
    """
    for source in sources:
        if source.is_dir():
            yield from _folder(medium, source)
        elif source.is_file():
            yield from _file(medium, source, named=True)
        else:
            raise MediaError(f"{source}: no such file or folder; give a folder, a .tar, a .zip or a media file")


def decode(medium: str, content: bytes | np.ndarray, short_side: int | None = None) -> np.ndarray:
    """(T,) int16 at 16 kHz, or (H, W, 3) uint8. Raises MediaError."""
    return KINDS[medium].decode(content, short_side)


def _picture(content: bytes | np.ndarray, short_side: int | None) -> np.ndarray:
    pixels = content if isinstance(content, np.ndarray) else load_image(io.BytesIO(content))
    height, width, _ = pixels.shape
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _recording(content: bytes | np.ndarray, _: int | None) -> np.ndarray:
    assert isinstance(content, bytes)
    samples, _rate = load_audio(io.BytesIO(content), SAMPLE_RATE)
    return (samples.mean(1) * 32767).round().clip(-32768, 32767).astype(np.int16)


def _folder(medium: str, folder: Path) -> Iterator[Item]:
    for layout in KINDS[medium].layouts:
        paths = layout(folder)
        if paths is not None:
            print(f"{folder}: {layout.__name__[1:].replace('_', ' ')}, {len(paths)} training files", file=sys.stderr)
            break
    else:
        paths = files_below(folder)
    for path in paths:
        yield from _file(medium, path)


def _file(medium: str, path: Path, named: bool = False) -> Iterator[Item]:
    """The items of one file; one that the user named is tried whatever its suffix."""
    name = path.name.lower()
    try:
        if name.endswith(TARS):
            with tarfile.open(path) as archive:
                yield from _tar(medium, str(path), archive)
        elif name.endswith(ZIPS):
            yield from _zip(medium, path)
        elif named and name.endswith(".tsv") and KINDS[medium].in_tables:
            for clip in _tsv_clips(path):
                yield from _file(medium, clip)
        elif KINDS[medium].in_batches and _is_cifar(name):
            yield from _cifar_batch(str(path), path.read_bytes())
        elif named or _fits(medium, name):
            yield Item(str(path), path.read_bytes())
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        yield Item(str(path), error=MediaError(f"damaged archive ({error}); copy it again"))
    except OSError as error:
        yield Item(str(path), error=MediaError(f"cannot be read ({error.strerror or error})"))


def _fits(medium: str, name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return not suffix or suffix in KINDS[medium].suffixes


def _tar(medium: str, where: str, archive: tarfile.TarFile) -> Iterator[Item]:
    """Members in the order of the file: sorting would read a compressed archive once for each."""
    for member in archive:
        file = archive.extractfile(member) if member.isfile() else None
        if file is not None:
            yield from _member(medium, f"{where}:{member.name}", file)


def _zip(medium: str, path: Path) -> Iterator[Item]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir() and not info.filename.startswith("__MACOSX/"):
                try:
                    with archive.open(info) as file:
                        yield from _member(medium, f"{path}:{info.filename}", file)
                except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
                    yield Item(f"{path}:{info.filename}", error=MediaError(f"damaged in its archive ({error})"))


def _member(medium: str, name: str, file: IO[bytes]) -> Iterator[Item]:
    base = Path(name).name.lower()
    if base.startswith("._"):  # what macOS adds beside each file
        return
    if base.endswith(TARS):
        try:
            with tarfile.open(fileobj=file, mode="r|*") as inner:
                yield from _tar(medium, name, inner)
        except tarfile.TarError as error:
            yield Item(name, error=MediaError(f"damaged archive ({error}); copy it again"))
    elif KINDS[medium].in_batches and _is_cifar(base):
        yield from _cifar_batch(name, file.read())
    elif _fits(medium, base) and not (KINDS[medium].in_batches and base.startswith("test_batch")):
        yield Item(name, file.read())


def _common_voice(folder: Path) -> list[Path] | None:
    if not (folder / "clips").is_dir():
        return None
    for name in ("train.tsv", "validated.tsv"):
        if (folder / name).is_file():
            return _tsv_clips(folder / name)
    return None


def _tsv_clips(table: Path) -> list[Path]:
    """The clips that a table of Common Voice names in its column "path"."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            clips = [table.parent / "clips" / row["path"] for row in rows]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{table}: no table of Common Voice ({error}); it needs a column path") from None
    return [clip if clip.suffix else clip.with_suffix(".mp3") for clip in clips]


def _first(folder: Path, names: tuple[str, ...], wanted: Callable[[Path], bool]) -> list[Path] | None:
    for name in names:
        if (folder / name).is_dir() and wanted(folder / name):
            return files_below(folder / name)
    return None


def _coco(folder: Path) -> list[Path] | None:
    names = ("train2017", "train2014", "images/train2017", "images/train2014")
    return _first(folder, names, lambda _: True)


def _imagenet(folder: Path) -> list[Path] | None:
    names = ("ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train", "train")

    def has_classes(train: Path) -> bool:
        return any(p.is_dir() and p.name[:1] == "n" and p.name[1:].isdigit() for p in train.iterdir())

    return _first(folder, names, has_classes)


def _cifar(folder: Path) -> list[Path] | None:
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        found = sorted(path for path in place.glob("data_batch_*") if _is_cifar(path.name))
        if found:
            return found
    return None


def _celeba(folder: Path) -> list[Path] | None:
    for root, table in (
        (folder, folder / "list_eval_partition.txt"),
        (folder / "Img", folder / "Eval/list_eval_partition.txt"),
    ):
        if (root / "img_align_celeba").is_dir() and table.is_file():
            rows = [line.split() for line in table.read_text().splitlines() if line.strip()]
            return [root / "img_align_celeba" / row[0] for row in rows if row[-1] == "0"]
    return None


def _is_cifar(name: str) -> bool:
    return name.removesuffix(".bin") in {f"data_batch_{i}" for i in range(1, 6)}


class _CifarUnpickler(pickle.Unpickler):
    """Reads the pickles of cifar-10-batches-py and nothing that could run code."""

    ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a batch of CIFAR-10")
        if name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        return super().find_class(module, name)


def _cifar_batch(name: str, content: bytes) -> Iterator[Item]:
    """The pictures of one batch file, (32, 32, 3) each: rows of 3072 bytes, colour planes one after another."""
    try:
        if name.endswith(".bin"):
            rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * CIFAR_SIDE**2)[:, 1:]
        else:
            rows = np.asarray(_CifarUnpickler(io.BytesIO(content), encoding="bytes").load()[b"data"], np.uint8)
        pictures = rows.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
    except Exception as error:  # a damaged pickle raises anything
        yield Item(name, error=MediaError(f"damaged batch of CIFAR-10 ({error}); copy it again"))
        return
    for i, picture in enumerate(pictures):
        yield Item(f"{name}[{i}]", np.ascontiguousarray(picture))


@dataclass(frozen=True, slots=True)
class Kind:
    """How a medium's files are found and decoded.

    Attributes:
        suffixes: Of its files.
        layouts: Data sets that a folder may be: each gives the training files, or None where it is another.
        decode: A file's bytes, or pixels, and a shorter side -> the array that is stored.
        in_tables: Whether a .tsv that the user names lists clips.
        in_batches: Whether CIFAR-10's batches hold items.
    """

    suffixes: frozenset[str]
    layouts: tuple[Callable[[Path], list[Path] | None], ...]
    decode: Callable[[bytes | np.ndarray, int | None], np.ndarray]
    in_tables: bool = False
    in_batches: bool = False


KINDS = {
    SPEECH.name: Kind(
        frozenset({f".{s}" for s in SPEECH.suffixes} | {".oga", ".mp2", ".au", ".sph", ".w64"}),
        (_common_voice,),
        _recording,
        in_tables=True,
    ),
    IMAGE.name: Kind(
        frozenset({f".{s}" for s in IMAGE.suffixes} | {".avif", ".jp2", ".j2k", ".gif", ".ppm", ".pgm"}),
        (_coco, _imagenet, _cifar, _celeba),
        _picture,
        in_batches=True,
    ),
}
