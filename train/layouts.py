"""Known data sets as they lie on disk: which files are the media of a part.

A part is "train", or what else the data set calls its parts. Each function looks at one folder,
that of the data set, and returns the folder of the part or its files; None where this is not that
data set, or not with that part. Training (`train.sources`) and evaluation (`eval.datasets`) both
find the files of a data set here.

    COCO          train2017/ or train2014/, or the same below images/
    ImageNet      ILSVRC/Data/CLS-LOC/train/, Data/CLS-LOC/train/, or train/ with a folder for each
                  class (n01440764)
    CIFAR-10      the batches of cifar-10-batches-py or cifar-10-batches-bin
    CelebA        img_align_celeba/ with list_eval_partition.txt, or these in Img/ and Eval/, as
                  they are published
    Common Voice  clips/ with train.tsv, the folder of one language, or a folder of languages
    LibriSpeech   train-clean-100/ and its like, also below the folder LibriSpeech/ that its
                  archives have; LibriTTS is the same
"""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codec.errors import MediaError
from codec.files import files_below

CIFAR_SIDE = 32  # pixels
CIFAR_BATCHES = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
CELEBA_PARTS = {"train": "0", "valid": "1", "test": "2"}  # as list_eval_partition.txt calls them


def coco(folder: Path, part: str) -> Path | None:
    """Finds the folder of a part of COCO."""
    return _first(
        folder, *(f"{above}{part}{year}" for year in (2017, 2014) for above in ("", "images/"))
    )


def imagenet(folder: Path, part: str) -> Path | None:
    """Finds the folder of a part of ImageNet.

    Many folders have a train/ in them: it counts where it has classes in it, or the folder is
    called imagenet.
    """
    names = [f"ILSVRC/Data/CLS-LOC/{part}", f"Data/CLS-LOC/{part}"]
    if folder.name.lower() == "imagenet" or _has_classes(folder / part):
        names.append(part)
    return _first(folder, *names)


def _first(folder: Path, *names: str) -> Path | None:
    """Returns the first of these folders that is there."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _has_classes(folder: Path) -> bool:
    """Says whether some folder in this one is called like a class of ImageNet, as n01440764 is."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return any(
        path.is_dir() and path.name[:1] == "n" and path.name[1:].isdigit() for path in inside
    )


def cifar10(folder: Path, part: str) -> list[Path] | None:
    """Finds the batch files of a part of CIFAR-10, for `cifar10_pictures`."""
    for place in (folder, folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin"):
        if found := sorted(
            path for path in place.glob("*_batch*") if is_cifar10_batch(path.name, part)
        ):
            return found
    return None


def is_cifar10_batch(name: str, part: str = "train") -> bool:
    """Says whether a file of this name holds pictures of a part of CIFAR-10, "train" or "test"."""
    return name.removesuffix(".bin") in CIFAR_BATCHES.get(part, ())


def cifar10_pictures(name: str, content: bytes) -> NDArray[np.uint8]:
    """Reads the (N, 32, 32, 3) pictures of a batch file.

    A picture is a row of 3072 bytes, one colour plane after another; the binary version has a label
    before each.

    Args:
        name: The file's name; with the suffix .bin it is of the binary version, else a pickle.
        content: The file's bytes.

    Raises:
        MediaError: The file is damaged, or its pickle asks for anything but an array.
    """
    try:
        if name.endswith(".bin"):
            rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * CIFAR_SIDE**2)[:, 1:]
        else:
            rows = np.asarray(
                _ArraysOnly(io.BytesIO(content), encoding="bytes").load()[b"data"], np.uint8
            )
        pictures = rows.reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
    except Exception as error:  # a damaged pickle raises anything
        raise MediaError(f"damaged batch of CIFAR-10 ({error}); copy it again") from None
    return np.ascontiguousarray(pictures)


class _ArraysOnly(pickle.Unpickler):
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


def celeba(folder: Path, part: str) -> list[Path] | None:
    """Finds the faces that the partition of CelebA gives to a part: "train", "valid" or "test"."""
    for faces, table in (
        (folder / "img_align_celeba", folder / "list_eval_partition.txt"),
        (folder / "Img/img_align_celeba", folder / "Eval/list_eval_partition.txt"),
    ):
        if faces.is_dir() and table.is_file():
            rows = [
                line.split()
                for line in table.read_text(encoding="utf-8").splitlines()
                if line.strip()
            ]
            return [faces / row[0] for row in rows if row[-1] == CELEBA_PARTS.get(part)]
    return None


def common_voice(folder: Path, part: str) -> list[Path] | None:
    """Finds the clips that a part's table lists.

    Without a train.tsv, training has those of validated.tsv.
    """
    inside = [] if (folder / "clips").is_dir() else _folders(folder)
    if inside and all((language / "clips").is_dir() for language in inside):
        found = [common_voice(language, part) for language in inside]
        clips = [clip for clips in found for clip in clips or []]
        return clips or None
    if (folder / "clips").is_dir():
        for name in (part, "validated") if part == "train" else (part,):
            if (folder / f"{name}.tsv").is_file():
                return common_voice_clips(folder / f"{name}.tsv")
    return None


def librispeech(folder: Path, part: str) -> list[Path] | None:
    """Finds the files of all that LibriSpeech has of a part: "train", "dev" or "test"."""
    inside = _folders(folder)
    if [one.name for one in inside] in (["LibriSpeech"], ["LibriTTS"]):
        inside = _folders(inside[0])
    of_part = [one for one in inside if one.name.startswith((f"{part}-clean", f"{part}-other"))]
    files = [path for one in of_part for path in files_below(one)]
    return [path for path in files if path.suffix in (".flac", ".wav")] or None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def common_voice_clips(table: Path) -> list[Path]:
    """Reads which clips a table of Common Voice names in its column "path".

    They lie in the folder clips/ beside it.

    Raises:
        MediaError: The table has no such column, or is no text.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            # A table that was cut may end in a row without the column.
            clips = [table.parent / "clips" / row["path"] for row in rows if row["path"]]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(
            f"{table}: no table of Common Voice ({error}); it needs a column path"
        ) from None
    return [clip if clip.suffix else clip.with_suffix(".mp3") for clip in clips]
