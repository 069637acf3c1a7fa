"""Many files from folders and tars, as (name, content)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from codec.errors import MediaError


def walk(sources: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Every file below folders and inside tars, sorted by name within each, as (name, content).

    Raises:
        MediaError: A source does not exist, or a tar is damaged.
    """
    for source in sources:
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                yield str(path), path.read_bytes()
        elif source.suffix == ".tar" and source.is_file():
            yield from _walk_tar(source)
        elif source.is_file():
            yield str(source), source.read_bytes()
        else:
            raise MediaError(f"{source}: no such file or folder; give a folder, a .tar or a media file")


def _walk_tar(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(source) as archive:
            for member in sorted((m for m in archive if m.isfile()), key=lambda m: m.name):
                file = archive.extractfile(member)
                if file is not None:
                    yield f"{source}:{member.name}", file.read()
    except tarfile.TarError as error:
        raise MediaError(f"{source}: damaged tar ({error}); copy it again") from None
