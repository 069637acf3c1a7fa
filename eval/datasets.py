"""Test sets: a folder, a tar or a file of one's own, or a data set by its name.

Data sets are found in the layouts that people keep.

    find("kodak", root) ─> TestSet ─> Item ─load_signal─> (H, W, 3) uint8
                                                     └──> or (n, 1) float32 at 16 kHz

Nothing is decoded before it is wanted, and an Item can be sent to another process. A data set that
is not there says where it was looked for and how to get it.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from codec.errors import MediaError, reason_of
from codec.files import files_below, is_hidden
from codec.media import Pixels, detect
from codec.medium import IMAGE
from eval import packs
from eval.signals import SIGNALS, Content, Signal
from train import layouts
from train.sources import KINDS, Layout

ROOT_VARIABLE = "CODEC_DATA"  # environment variable: the folder of data sets
CIFAR_BYTES = 3 * layouts.CIFAR_SIDE**2  # of a picture
SUFFIXES = frozenset[str]().union(*(kind.suffixes for kind in KINDS.values()))


@dataclass(frozen=True, slots=True)
class Item:
    """One recording or picture.

    Attributes:
        name: Unique within its set.
        size: Bytes of its file; two listings with other sizes are of other data.
        read: Gives the file's content, or pixels where there is no file of its own.
        changed_ns: When its file was last changed, by the file's own time stamp.
    """

    name: str
    size: int
    read: Callable[[], Content]
    changed_ns: int = 0

    def checksum(self) -> int | None:
        """The CRC-32 of what `read` gives; None where it cannot be read."""
        try:
            content = self.read()
        except (OSError, MediaError):
            return None
        return zlib.crc32(content if isinstance(content, bytes) else content.tobytes())


@dataclass(frozen=True, slots=True)
class TestSet:
    """Items in the order of their names.

    Attributes:
        crop: Pictures are scaled so that the shorter side has this many pixels, and cut square;
            None leaves them.
        duplicates: Names that came a second time and were left out.
        level_dbfs: Recordings are brought to this level, see `eval.signals.at_level`; None leaves
            them.
    """

    __test__ = False  # for pytest

    name: str
    items: list[Item]
    crop: int | None = None
    duplicates: tuple[str, ...] = ()
    level_dbfs: float | None = None

    def first(self, count: int | None) -> TestSet:
        """The set with its first items only; with all of them for None."""
        return replace(self, items=self.items[:count])


def find(name: str, root: Path | None = None) -> TestSet:
    """A test set by path or by name.

    Args:
        name: A folder, .tar or media file; or a data set, with a part behind a colon
            ("librispeech:test-other"); or the name of packs, NAME.tar or NAME-00.tar, NAME-01.tar
            ... in the root. What the root has of a name comes before a folder of that name here;
            "./NAME" is the folder.
        root: The folder of data sets; by default $CODEC_DATA, or "data", and then the folder here.

    Raises:
        MediaError: Not found, where it was looked for and how to get it; empty; or a damaged tar.
    """
    path = Path(name)
    kind, _, part = name.partition(":")
    known = DATASETS.get(kind)
    plain = "/" not in name and not path.suffix
    place = root or Path(os.environ.get(ROOT_VARIABLE, "data"))
    if plain:
        items = known.find(place, part or known.part) if known else []
        tars = [] if part else _tars(place, known.packs if known and known.packs else kind)
        items = items or [item for tar in tars for item in _from_path(tar)]
        if known and not items and root is None:
            items = known.find(Path(), part or known.part)
        if items:
            return _unique(name, items, known.crop if known else None)
    if path.exists() and not (known and plain and root):
        return _unique(path.name or str(path), list(_from_path(path)))
    if not plain:
        raise MediaError(
            f"{name}: no such file or folder; give a folder, a .tar, a media file or {_names()}"
        )
    if known is None:
        raise MediaError(
            f"no data set {name}, and no {name}.tar in {place}; there are {', '.join(DATASETS)}"
        )
    looked = ", ".join(layout.format(part=part or known.part) for layout in known.layouts)
    raise MediaError(
        f"{name} is not in {place}: looked for {looked}; "
        f"{known.source.format(part=part or known.part)}, "
        f"unpack it there, or name another folder by --root or ${ROOT_VARIABLE}"
    )


def _tars(root: Path, stem: str) -> list[Path]:
    return sorted(root.glob(f"{stem}.tar")) or sorted(root.glob(f"{stem}-[0-9][0-9].tar"))


def load_signal(
    item: Item, crop: int | None = None, level_dbfs: float | None = None
) -> tuple[str, Signal]:
    """The medium and signal of an item.

    They are ("image", (H, W, 3) uint8) or ("speech", (n, 1) float32 at 16 kHz, mixed).

    Args:
        item: A recording or picture.
        crop: See `TestSet`; it concerns pictures.
        level_dbfs: See `TestSet`; it concerns recordings.

    Raises:
        MediaError: Not readable; or a picture, where a level is asked for.
    """
    content = item.read()
    medium = medium_of(content)
    return medium, SIGNALS[medium].read(content, crop, level_dbfs)


def signal_of(item: Item, medium: str, crop: int | None = None) -> Signal:
    """The signal of an item that is to be of a medium; see `load_signal`.

    Raises:
        MediaError: Not readable, or of another medium; it names the item.
    """
    try:
        found, signal = load_signal(item, crop)
    except (MediaError, OSError) as error:
        raise MediaError(f"{item.name}: {reason_of(error)}") from None
    if found != medium:
        raise MediaError(f"{item.name}: this is {found}, and {medium} is measured; leave it out")
    return signal


def medium_of(content: Content) -> str:
    """The medium of what an item holds; pixels without a file are a picture's."""
    return detect(content[:16]) if isinstance(content, bytes) else IMAGE.name


def _unique(name: str, items: list[Item], crop: int | None = None) -> TestSet:
    if not items:
        raise MediaError(f"{name}: nothing to evaluate, the set is empty")
    kept: dict[str, Item] = {}
    twice = [item.name for item in items if kept.setdefault(item.name, item) is not item]
    return TestSet(_text(name), [kept[key] for key in sorted(kept)], crop, tuple(sorted(twice)))


# -------------------------------------------------------------------------------- files and folders


def _from_path(path: Path) -> Iterator[Item]:
    if path.is_dir():
        files = [p for p in files_below(path) if not is_hidden(p, path)]
        yield from (_file(p, p.relative_to(path).as_posix()) for p in files)
    elif path.suffix == ".tar":
        try:
            changed_ns = path.stat().st_mtime_ns
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile():
                        read = partial(_read_part, path, member.offset_data, member.size)
                        yield Item(_text(member.name), member.size, read, changed_ns)
        except tarfile.TarError as error:
            raise MediaError(f"{path}: damaged tar ({error}); copy it again") from None
    else:
        yield _file(path, path.name)


def _file(path: Path, name: str | None = None) -> Item:
    found = path.stat()
    return Item(_text(name or path.name), found.st_size, path.read_bytes, found.st_mtime_ns)


def _text(name: str) -> str:
    """Returns a file's name as text: bytes of it that are no UTF-8 stand as \\xNN."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _read_part(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


# ---------------------------------------------------------------------------------- known data sets


def _files(found: Path | list[Path] | None) -> list[Item]:
    """The media among files, or below a folder.

    Files are named by their last names, those of a folder as they lie there.
    """
    if isinstance(found, Path):
        files = [path for path in files_below(found) if path.suffix.lower() in SUFFIXES]
        return [_file(path, path.relative_to(found).as_posix()) for path in files]
    return [_file(path) for path in found or [] if path.suffix.lower() in SUFFIXES]


def _folder(root: Path, part: str, names: tuple[str, ...]) -> list[Item]:
    """The media of the first of these folders that has any."""
    for name in names:
        for folder in sorted(path for path in root.glob(name.format(part=part)) if path.is_dir()):
            if found := _files(folder):
                return found
    return []


def _in_homes(root: Path, part: str, layout: Layout, homes: tuple[str, ...]) -> list[Item]:
    """The part of a data set whose folder has one of these names below the root."""
    for home in homes:
        if found := _files(layout(root / home, part)):
            return found
    return []


def _cifar10(root: Path, part: str) -> list[Item]:
    batches = layouts.cifar10(root, part) or []
    pictures = [(path, number) for path in batches for number in range(len(_batch(path)))]
    items = [
        Item(f"{n:05d}", CIFAR_BYTES, partial(_of_batch, *picture))
        for n, picture in enumerate(pictures)
    ]
    if not items and (found := packs.mosaic_of(root, part)):
        path, count = found
        items = [Item(f"{n:05d}", CIFAR_BYTES, partial(packs.tile, path, n)) for n in range(count)]
    return items


@lru_cache(2)
def _batch(path: Path) -> Pixels:
    try:
        return layouts.cifar10_pictures(path.name, path.read_bytes())
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from None


def _of_batch(path: Path, number: int) -> Pixels:
    return np.asarray(_batch(path)[number])


def _celeba(root: Path, part: str) -> list[Item]:
    found = _in_homes(root, part, layouts.celeba, ("celeba", ""))
    pack = root / "celeba.npz"
    if found or not pack.is_file():
        return found
    named = zip(packs.numbers(pack, part), packs.spans(pack, part), strict=True)
    return [
        Item(f"{n:06d}.jpg", b - a, partial(packs.packed, pack, part, a, b)) for n, (a, b) in named
    ]


def _common_voice(root: Path, part: str) -> list[Item]:
    """The test clips of a language, those of them that are there."""
    folders = sorted(
        [*root.glob(f"cv-corpus-*/{part}"), *root.glob(f"commonvoice/{part}")], reverse=True
    )
    for folder in folders:
        clips = layouts.common_voice(folder, "test")
        if clips is not None:
            return _files([clip for clip in clips if clip.is_file()])
    return []


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set that is known by its name.

    Attributes:
        find: Returns the items of a part; its arguments are the root folder and the part.
        layouts: The places below the root where `find` looks, for the message that it is not there.
        source: How to get the data set, for the same message.
        part: The part that is meant where none is named.
        crop: See `TestSet`.
        packs: The name of tars that stand in for the data set where it is not there.
    """

    find: Callable[[Path, str], list[Item]]
    layouts: tuple[str, ...]
    source: str
    part: str = ""
    crop: int | None = None
    packs: str = ""


DATASETS: dict[str, Dataset] = {
    "coco": Dataset(
        partial(_in_homes, layout=layouts.coco, homes=("", "coco")),
        ("{part}2017", "images/{part}2017", "coco/{part}2017", "coco/images/{part}2017"),
        "get val2017.zip from cocodataset.org",
        part="val",
        crop=256,
    ),
    "imagenet": Dataset(
        partial(_in_homes, layout=layouts.imagenet, homes=("imagenet", "")),
        ("imagenet/{part}", "imagenet/ILSVRC/Data/CLS-LOC/{part}", "ILSVRC/Data/CLS-LOC/{part}"),
        "get ILSVRC2012_img_val.tar from image-net.org",
        part="val",
        crop=256,
    ),
    "kodak": Dataset(
        partial(_folder, names=("kodak", "Kodak")),
        ("kodak",),
        "get the 24 pictures from r0k.us/graphics/kodak",
        packs="image-kodak",
    ),
    "cifar10": Dataset(
        _cifar10,
        ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar10-lossless-{part}*.webp"),
        "get cifar-10-python.tar.gz from cs.toronto.edu/~kriz/cifar.html",
        part="test",
    ),
    "celeba": Dataset(
        _celeba,
        ("celeba/img_align_celeba with list_eval_partition.txt", "celeba.npz"),
        "get both from mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        part="test",
    ),
    "librispeech": Dataset(
        partial(
            _folder,
            names=("LibriSpeech/{part}", "librispeech/{part}", "librispeech/LibriSpeech/{part}"),
        ),
        ("LibriSpeech/{part}", "librispeech/{part}", "librispeech/LibriSpeech/{part}"),
        "get {part}.tar.gz from openslr.org/12",
        part="test-clean",
    ),
    "commonvoice": Dataset(
        _common_voice,
        ("cv-corpus-*/{part}/test.tsv with clips", "commonvoice/{part}/test.tsv with clips"),
        "get a language from commonvoice.mozilla.org",
        part="en",
    ),
}


def _names() -> str:
    return f"a data set ({', '.join(DATASETS)})"
