"""Training data: decoded once into one flat array, of which `train.store` cuts crops.

folders, tars, zips ──prepare──> NAME.raw (int16 samples | uint8 pixels, end to end)
                                 NAME.json (shapes, and what was skipped)
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from codec.errors import CodecError, MediaError, reason_of
from codec.files import writing
from codec.medium import MEDIA
from codec.quiet import heard

NOTHING = "no such file or folder, nor data that python -m train.prepare wrote"


def prepare(
    medium: str, sources: list[Path], target: Path, short_side: int | None = None, workers: int = 1
) -> Prepared:
    """Decodes all media of `sources` into `target`.raw and `target`.json.

    Speech becomes 16 kHz mono int16, pictures RGB uint8. A file that cannot be read is named,
    skipped and counted; what is left out of one that can is said with its name.

    Args:
        medium: A name in `codec.medium.MEDIA`.
        sources: Folders, tars, zips or media files, as `train.sources` reads them.
        target: The path of the output, without suffix.
        short_side: Pictures whose shorter side is longer are scaled down to it.
        workers: The number of threads that decode.

    Returns:
        How much there is.

    Raises:
        MediaError: A source does not exist, or nothing in them could be read.
    """
    # Audio and picture libraries, which training itself does without.
    from train.sources import decode, media, others

    def work(content: bytes | np.ndarray) -> tuple[np.ndarray, list[str]]:
        with heard() as notices:
            return decode(medium, content, short_side), notices

    shapes: list[list[int]] = []
    skipped: list[str] = []
    said: list[str] = []
    raw_path, record_path = files_of(target)
    with writing(str(record_path), force=True) as record, writing(str(raw_path), force=True) as raw:
        with ThreadPoolExecutor(workers) as pool:
            jobs = (
                (item.name, item.error or pool.submit(work, item.content))
                for item in tqdm(
                    media(medium, sources), desc=f"decode {medium}", disable=None, unit="file"
                )
            )
            for name, job in _ahead(jobs, 2 * workers):
                try:
                    if isinstance(job, MediaError):
                        raise job
                    array, notices = job.result()
                except MediaError as error:
                    skipped.append(f"{name}: {error}")
                    tqdm.write(f"skipped {name}: {error}", file=sys.stderr)
                    continue
                for line in (f"{name}: {notice}" for notice in notices):
                    said.append(line)
                    tqdm.write(line, file=sys.stderr)
                raw.write(array.tobytes())
                shapes.append(list(array.shape))
        if not shapes:
            where = ", ".join(map(str, sources))
            raise MediaError(
                f"nothing readable as {medium} in {where}; {len(skipped)} files skipped"
                + "".join(
                    f"; {hint}"
                    for hint in (others(medium, sources), prepared_within(sources))
                    if hint
                )
            )
        kept = {
            "medium": medium,
            "shapes": shapes,
            "skipped": skipped,
            "notices": said,
            "sources": names(sources),
        }
        record.write(json.dumps(kept).encode())
        # Never an old record beside new data, which take their names one by one.
        record_path.unlink(missing_ok=True)
    return Prepared(len(shapes), sum(int(np.prod(shape[:2])) for shape in shapes), len(skipped))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        items: The number of recordings or pictures.
        amount: Their samples or pixels.
        skipped: The number of files that could not be read.
    """

    items: int
    amount: int
    skipped: int


def is_prepared(path: Path) -> bool:
    """Says whether `prepare` wrote to this target."""
    return all(part.is_file() for part in files_of(path))


def prepared_by(run: Path) -> Path:
    """Returns where the folder of a run has what was made of its media."""
    return run / "data"


def chosen(sources: Sequence[Path], own: Path | None) -> Path | None:
    """Returns the prepared data that a command is given, without suffix; None for media.

    Args:
        sources: What it is given: prepared data, by their name with or without a suffix; or media.
        own: What a run made of its media, if it has (see `prepared_by`); None for no run.

    Raises:
        CodecError: There is nothing of a name; or what lies at `own` is of other sources.
    """
    if len(sources) == 1 and (target := target_of(sources[0])) is not None:
        return target
    if own is not None and is_prepared(own):
        if not made_of(own, sources):
            raise CodecError(
                f"{own}.json: the run in {own.parent} has data of other sources; "
                f"give the same --data, or --data {own} if they have moved"
            )
        return own
    for source in sources:
        if not source.exists():
            raise CodecError(f"{source}: {NOTHING}")
    return None


def target_of(path: Path) -> Path | None:
    """Returns the target that `prepare` wrote to, of the path of one of its files as well."""
    if is_prepared(path):
        return path
    bare = path.with_suffix("")
    return bare if path.suffix in (".raw", ".json") and is_prepared(bare) else None


def prepared_within(folders: Iterable[Path]) -> str:
    """Says which prepared data lie in folders that are taken for something else; or nothing."""
    found = [
        path.with_suffix("")
        for folder in folders
        for path in sorted(folder.glob("*.raw"))
        if is_prepared(path.with_suffix(""))
    ]
    return f"prepared data there have a name: {', '.join(map(str, found))}" if found else ""


def names(sources: Iterable[Path]) -> list[str]:
    """Returns what a record calls its sources: their absolute paths, in order."""
    return sorted(str(source.resolve()) for source in sources)


def made_of(target: Path, sources: Iterable[Path]) -> bool:
    """Says whether prepared data may be of these sources; older records do not tell.

    Raises:
        CodecError: Its record cannot be read.
    """
    path = files_of(target)[1]
    try:
        found = json.loads(path.read_text()).get("sources")
    except (OSError, ValueError, AttributeError) as error:
        raise CodecError(f"{path}: no record of prepared data ({reason_of(error)})") from None
    return found is None or found == names(sources)


def counted(count: int, medium: str) -> str:
    """Says how many recordings or pictures: "6 pictures"."""
    noun = MEDIA[medium].noun.removeprefix("a ")
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _ahead(
    jobs: Iterable[tuple[str, Any]], count: int
) -> Iterator[tuple[str, MediaError | Future[tuple[np.ndarray, list[str]]]]]:
    """Yields the jobs in order, with `count` later ones begun.

    With more, all files would be in memory at once.
    """
    waiting: deque[tuple[str, Any]] = deque()
    for job in jobs:
        waiting.append(job)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def files_of(target: Path) -> tuple[Path, Path]:
    """Returns the paths of the array and of its record.

    Raises:
        CodecError: The target has no name of its own.
    """
    if target.name in ("", ".."):
        raise CodecError(f"{target}: want a name for the files, as in {target / 'data'}")
    return target.with_name(target.name + ".raw"), target.with_name(target.name + ".json")
