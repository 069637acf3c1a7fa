"""Reads training media from folders, archives and data sets, as people have them on disk.

    folder   every recording or picture below it; tars and zips in it are opened, such as shards of
             a webdataset
    .tar .tar.gz .tgz .zip   their members; a tar inside (ImageNet's class tars) is opened too
    .tsv     a table of Common Voice: the clips that it lists
    COCO, ImageNet, CIFAR-10, CelebA, Common Voice, LibriSpeech
             the folder of the data set, as `train.layouts` knows it, or a folder with some of
             them and others beside each other

Of a known data set only the training part is taken, and a line says so; name a part's folder to
take another. CIFAR-10 may stay in its .tar.gz.
"""

from __future__ import annotations

import io
import lzma
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from codec.errors import MediaError
from codec.files import files_below, is_hidden
from codec.media import load_audio, load_image
from codec.medium import IMAGE, SAMPLE_RATE, SPEECH
from train import layouts
from train.data import counted

TARS, ZIPS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".zip",)
# What the readers of archives raise where a byte is wrong, in headers and in compressed data.
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a method of compression that nobody has
    struct.error,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A recording or picture, undecoded.

    Attributes:
        name: The path, with the name inside an archive behind a colon.
        content: The file's bytes; pixels where it is part of a larger file.
        error: Why it cannot be read, if it cannot.
    """

    name: str
    content: bytes | np.ndarray = b""
    error: MediaError | None = None


def media(medium: str, sources: list[Path]) -> Iterator[MediaFile]:
    """Yields every recording or picture of the sources, sorted by name within folders.

    Files with the suffix of something else (transcripts, annotations) are passed over, and so is
    what is hidden in a folder; those with none are tried.

    Raises:
        MediaError: A source does not exist.
    """
    for source in sources:
        if source.is_dir():
            yield from _folder(medium, source)
        elif source.is_file():
            yield from _file(medium, source, named=True)
        else:
            raise MediaError(
                f"{source}: no such file or folder; give a folder, a .tar, a .zip or a media file"
            )


def others(medium: str, sources: list[Path]) -> str:
    """Says how many files of other media lie where none of this was found; or nothing.

    They are told by their suffixes; archives are not opened.
    """
    paths = [
        path
        for source in sources
        for path in (files_below(source) if source.is_dir() else [source])
    ]
    for other, kind in KINDS.items():
        count = sum(path.suffix.lower() in kind.suffixes for path in paths)
        if other != medium and count:
            return f"{counted(count, other)} there, but this is for {medium}"
    return ""


def decode(medium: str, content: bytes | np.ndarray, short_side: int | None = None) -> np.ndarray:
    """Decodes one file to (T,) int16 at 16 kHz, or (H, W, 3) uint8.

    Args:
        medium: A name in `codec.medium.MEDIA`.
        content: The file's bytes, or pixels.
        short_side: A picture whose shorter side is longer is scaled down to it.

    Raises:
        MediaError: The file cannot be read.
    """
    if isinstance(content, bytes) and not content:
        raise MediaError("the file is empty")
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
    return np.asarray((samples.mean(1) * 32767).round().clip(-32768, 32767), np.int16)


def _folder(medium: str, folder: Path) -> Iterator[MediaFile]:
    paths = _training_files(medium, folder)
    if paths is None:  # no data set; perhaps a folder of them
        below = sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())
        parts = {one: part for one in below if (part := _training_files(medium, one)) is not None}
        paths = [
            path
            for path in files_below(folder)
            if not is_hidden(path, folder) and parts.keys().isdisjoint(path.parents)
        ]
        paths += [path for part in parts.values() for path in part]
    for path in paths:
        yield from _file(medium, path)


def _training_files(medium: str, folder: Path) -> list[Path] | None:
    """Finds the training part of a folder that is a known data set, and says so."""
    for name, layout in KINDS[medium].layouts.items():
        found = layout(folder, "train")
        if found is not None:
            paths = files_below(found) if isinstance(found, Path) else found
            print(f"{folder}: {name}, {len(paths)} training files", file=sys.stderr)
            return paths
    return None


def _file(medium: str, path: Path, named: bool = False) -> Iterator[MediaFile]:
    """Yields the media in one file; one that the user named is tried whatever its suffix."""
    name = path.name.lower()
    try:
        if name.endswith(TARS):
            with tarfile.open(path) as archive:
                yield from _tar(medium, str(path), archive)
        elif name.endswith(ZIPS):
            yield from _zip(medium, path)
        elif named and name.endswith(".tsv") and KINDS[medium].in_tables:
            for clip in layouts.common_voice_clips(path):
                yield from _file(medium, clip)
        elif KINDS[medium].in_batches and layouts.is_cifar10_batch(name):
            yield from _cifar_batch(str(path), path.read_bytes())
        elif named or _fits(medium, name):
            yield MediaFile(str(path), path.read_bytes())
    except DAMAGED as error:
        yield MediaFile(str(path), error=_damaged(error))
    except OSError as error:
        yield MediaFile(str(path), error=MediaError(f"cannot be read ({error.strerror or error})"))


def _damaged(error: Exception) -> MediaError:
    return MediaError(f"damaged archive ({_reason(error)}); copy it again")


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(": ") or type(error).__name__


def _fits(medium: str, name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return not suffix or suffix in KINDS[medium].suffixes


def _tar(medium: str, where: str, archive: tarfile.TarFile) -> Iterator[MediaFile]:
    """Yields members in the order of the file.

    Sorting would read a compressed archive once for each.
    """
    for member in archive:
        file = archive.extractfile(member) if member.isfile() else None
        if file is not None:
            yield from _member(medium, f"{where}:{member.name}", file)


def _zip(medium: str, path: Path) -> Iterator[MediaFile]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir() and not info.filename.startswith("__MACOSX/"):
                try:
                    with archive.open(info) as file:
                        yield from _member(medium, f"{path}:{info.filename}", file)
                # What is encrypted is a RuntimeError.
                except (*DAMAGED, OSError, RuntimeError) as error:
                    yield MediaFile(
                        f"{path}:{info.filename}",
                        error=MediaError(f"damaged in its archive ({_reason(error)})"),
                    )


def _member(medium: str, name: str, file: IO[bytes]) -> Iterator[MediaFile]:
    base = Path(name).name.lower()
    if base.startswith("._"):  # what macOS adds beside each file
        return
    if base.endswith(TARS):
        try:
            with tarfile.open(fileobj=file, mode="r|*") as inner:
                yield from _tar(medium, name, inner)
        except DAMAGED as error:
            yield MediaFile(name, error=_damaged(error))
    elif KINDS[medium].in_batches and layouts.is_cifar10_batch(base):
        yield from _cifar_batch(name, file.read())
    elif _fits(medium, base) and not (KINDS[medium].in_batches and base.startswith("test_batch")):
        yield MediaFile(name, file.read())


def _cifar_batch(name: str, content: bytes) -> Iterator[MediaFile]:
    """Yields the pictures of a batch of CIFAR-10."""
    try:
        pictures = layouts.cifar10_pictures(name, content)
    except MediaError as error:
        yield MediaFile(name, error=error)
        return
    for number, picture in enumerate(pictures):
        yield MediaFile(f"{name}[{number}]", picture)


Layout = Callable[[Path, str], Path | list[Path] | None]  # a function of train.layouts


@dataclass(frozen=True, slots=True)
class Kind:
    """How a medium's files are found and decoded.

    Attributes:
        suffixes: The suffixes of its files.
        layouts: The data sets that a folder may be, by their names.
        decode: Turns a file's bytes, or pixels, and a shorter side into the array that is stored.
        in_tables: Whether a .tsv that the user names lists clips.
        in_batches: Whether CIFAR-10's batches hold items.
    """

    suffixes: frozenset[str]
    layouts: Mapping[str, Layout]
    decode: Callable[[bytes | np.ndarray, int | None], np.ndarray]
    in_tables: bool = False
    in_batches: bool = False


KINDS = {
    SPEECH.name: Kind(
        frozenset({f".{s}" for s in SPEECH.suffixes} | {".oga", ".mp2", ".au", ".sph", ".w64"}),
        {"Common Voice": layouts.common_voice, "LibriSpeech": layouts.librispeech},
        _recording,
        in_tables=True,
    ),
    IMAGE.name: Kind(
        frozenset(
            {f".{s}" for s in IMAGE.suffixes}
            | {".avif", ".heic", ".heif", ".jp2", ".j2k", ".gif", ".ppm", ".pgm"}
        ),
        {
            "COCO": layouts.coco,
            "ImageNet": layouts.imagenet,
            "CIFAR-10": layouts.cifar10,
            "CelebA": layouts.celeba,
        },
        _picture,
        in_batches=True,
    ),
}
