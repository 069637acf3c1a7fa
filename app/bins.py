"""The .bin files of the page: cut to a layer, listed, described; nothing of them is decoded."""

from __future__ import annotations

from pathlib import Path

from app.store import Models, TemporaryFiles, file_stem
from codec.description import describe_all, in_words
from codec.errors import MediaError
from codec.layers import survey
from codec.truncation import truncate


class Bins:
    """What is done with .bin files as they are. Several threads may ask.

    Args:
        models: Those that files may name.
        files: Where new ones go.
    """

    def __init__(self, models: Models, files: TemporaryFiles) -> None:
        self._models = models
        self._files = files

    def read(self, path: str | Path | None, size: int | None = None) -> bytes:
        """Returns a file's bytes, cut to a codebook size that it has a layer of, if one is given.

        Raises:
            BitstreamError: Damaged, or not one of ours.
            MediaError: There is no such layer, or no file is given.
        """
        data = _given(path).read_bytes()
        if size is None:
            return data
        try:
            return truncate(data, size)
        except ValueError as error:
            raise MediaError(str(error)) from None

    def cut(self, path: str | Path | None, size: int) -> Path:
        """A .bin cut to a codebook size that it has a layer of, as a file of its own.

        Errors are those of `read`.
        """
        data = self.read(path, size)
        file = self._files.folder() / f"{file_stem(Path(str(path)).stem)}-{size}.bin"
        file.write_bytes(data)
        return file

    def layers(self, path: str | Path | None) -> dict[int, int]:
        """Codebook size -> bytes of a .bin cut there, coarsest first.

        There is one entry if the file has no layers.

        Raises:
            BitstreamError: Damaged, or not one of ours.
            MediaError: No file is given.
        """
        with _given(path).open("rb") as file:
            return survey(file).stops

    def info(self, path: str | Path | None) -> dict[str, str]:
        """Returns what `python -m codec.info` prints of a .bin.

        Raises:
            BitstreamError: It is damaged, or is none.
            MediaError: No file is given.
        """
        with _given(path).open("rb") as file:
            record = describe_all(survey(file), self._models.names())
        return in_words(record)  # the page has a control for layers


def _given(path: str | Path | None) -> Path:
    if not path:
        raise MediaError("nothing is chosen yet; drop a .bin here")
    return Path(path)
