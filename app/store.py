"""What the app keeps: models, loaded once, and files for the page, deleted after a while."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec import cards
from codec.errors import MediaError, ModelError
from codec.medium import Medium, Shape

if TYPE_CHECKING:
    from codec.coding import Model

log = logging.getLogger("app")

MAX_FILES_BYTES = 2 << 30
TIDY_S = 10  # at least so often what is too old or too much is deleted
UPLOAD = re.compile("[0-9a-f]{64}|tmp\\w+")  # Gradio's folder of one, and one that is coming in
MAX_STEM_BYTES = 150  # of the 255 that a file name may have


_importing = threading.Lock()


def import_heavy() -> None:
    """Imports what takes seconds, in one thread at a time.

    Two threads that import at once meet each other's half-initialised modules.
    """
    with _importing:
        import codec.api  # noqa: F401
        import eval.metrics  # noqa: F401  SciPy looks at torch, if that is there


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chose.

    Attributes:
        models: The folder of model cards; None for those that came with the package.
        max_seconds: The longest recording.
        max_pixels: The largest picture.
        max_width: The widest picture; the memory for it grows with its width alone.
        max_upload_bytes: The largest file.
        queue: The number of jobs that may wait.
        keep_s: The seconds that the page's files are kept.
        lpips_backbone: The backbone of LPIPS; None looks where torch hub keeps them.
    """

    models: Path | None = None
    max_seconds: float = 60
    max_pixels: int = 8_000_000
    max_width: int = 1 << 14
    max_upload_bytes: int = 50 << 20
    queue: int = 64
    keep_s: int = 3600
    lpips_backbone: Path | None = None


class Models:
    """The models of a folder.

    Their cards are read at once, their weights when they are first wanted. Several threads may ask.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Raises ModelError where there is no card, or a damaged one."""
        found = cards.list_cards(folder)
        if not found:
            raise ModelError(
                f"{folder or cards.MODELS_FOLDER}: no model cards here; give another folder with "
                "--models"
            )
        self.cards = {card.name: card for card in found}
        self._shipped = folder is None
        self._loaded: dict[str, Model] = {}
        self._locks = {name: threading.Lock() for name in self.cards}

    def of(self, medium: str) -> list[cards.Card]:
        """Returns the cards of a medium; of those that came with the package, the best is first."""
        some = [card for card in self.cards.values() if card.medium == medium]
        best = cards.find(medium=medium).name if some and self._shipped else None
        return sorted(some, key=lambda card: (card.name != best, card.name))

    def best(self, medium: str) -> cards.Card:
        """Returns the first card of a medium.

        Raises:
            ModelError: There is none.
        """
        some = self.of(medium)
        if not some:
            raise ModelError(f"no model for {medium} here; here are {', '.join(self.cards)}")
        return some[0]

    def names(self) -> dict[bytes, str]:
        """Returns the names by all identities that files may give."""
        return {
            key: card.name for card in self.cards.values() for key in (card.base_id, card.model_id)
        }

    def card(self, name: str) -> cards.Card:
        """Returns the card of a name.

        Raises:
            ModelError: There is none.
        """
        if name not in self.cards:
            raise ModelError(f"no model {name[:40]}; here are {', '.join(self.cards)}")
        return self.cards[name]

    def card_for(self, name: str, medium: str) -> cards.Card:
        """Returns the card of a name, which is to code a medium.

        Raises:
            ModelError: There is none of that name.
            MediaError: It codes another medium.
        """
        card = self.card(name)
        if card.medium != medium:
            raise MediaError(f"{name} codes {card.medium}; choose a model for {medium}")
        return card

    def get(self, name: str) -> Model:
        """Returns a loaded model.

        Raises:
            ModelError: There is none of that name, or it is damaged.
        """
        card = self.card(name)
        import_heavy()
        with self._locks[name]:
            if name not in self._loaded:
                from codec import coding

                start = time.perf_counter()
                self._loaded[name] = coding.load(card)
                log.info("model %s loaded in %.1f s", name, time.perf_counter() - start)
            return self._loaded[name]

    def by_id(self, model_id: bytes) -> Model:
        """Returns the model that a bitstream names.

        Raises:
            ModelError: It is not here.
        """
        for card in self.cards.values():
            if card.answers_to(model_id):
                return self.get(card.name)
        have = ", ".join(f"{card.name} ({card.model_id.hex()[:8]})" for card in self.cards.values())
        raise ModelError(
            f"the file needs model {model_id.hex()[:8]}, which is not here; here are {have}"
        )


class TemporaryFiles:
    """Files that the page shows, in folders with names that cannot be guessed.

    Old ones are deleted when new ones come, and after a while; so are uploads, which Gradio puts
    beside them, also those that broke off.
    """

    def __init__(self, root: Path, keep_s: float) -> None:
        self.root = root
        self._keep_s = keep_s
        self._lock = threading.Lock()

    def folder(self) -> Path:
        """Makes a new, empty folder."""
        self.tidy()
        path = self.root / "files" / secrets.token_urlsafe(16)
        path.mkdir(parents=True)
        return path

    def save(self, kind: Medium, size: Shape, blocks: Iterable[Any], name: str) -> Path:
        """Writes a media file that loses nothing, into a folder of its own.

        Args:
            kind: The medium.
            size: Of the signal.
            blocks: Of a recording (n, C), of a picture (n, W, 3).
            name: Of the file, without suffix.
        """
        suffix = kind.default_suffix
        path = self.folder() / f"{file_stem(name)}.{suffix}"
        with path.open("w+b") as file:
            writer = kind.write(file, size, suffix)
            for block in blocks:
                writer.write(block)
            writer.close()
        return path

    def keep_tidy(self) -> Callable[[], None]:
        """Deletes in the background, so that files go even when nobody calls.

        Returns:
            A function that ends it.
        """
        over, every_s = threading.Event(), min(TIDY_S, self._keep_s / 10)

        def go_on() -> None:
            while not over.wait(every_s):
                try:
                    self.tidy()
                except OSError as error:
                    log.error("files that are too old could not be deleted: %s", error)

        threading.Thread(target=go_on, name="tidy", daemon=True).start()
        return over.set

    def tidy(self) -> None:
        """Deletes what is too old, and the oldest while all together are too much."""
        with self._lock:
            uploads = [path for path in self.root.glob("*") if UPLOAD.fullmatch(path.name)]
            there = [(path, _weight(path)) for path in [*(self.root / "files").glob("*"), *uploads]]
            known = sorted((weight, path) for path, weight in there if weight)
            total, oldest = sum(size for (_, size), _ in known), time.time() - self._keep_s
            for (time_s, size), path in known:
                if time_s >= oldest and total <= MAX_FILES_BYTES:
                    break
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                total -= size


def _weight(path: Path) -> tuple[float, int] | None:
    """Returns when a file or folder was last changed, and its bytes; None if it is gone by now."""
    try:
        files = list(path.iterdir()) if path.is_dir() else [path]
        return path.stat().st_mtime, sum(file.stat().st_size for file in files)
    except FileNotFoundError:
        return None


def file_stem(name: str) -> str:
    """Cuts a name so that endings can be added to it."""
    return name.encode()[:MAX_STEM_BYTES].decode(errors="ignore")
