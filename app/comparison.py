"""One input through several systems: models at their sizes, then classic codecs at their bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from app.originals import Original
from app.service import Service
from app.versions import Version
from codec.checkpoint import checked
from codec.errors import MediaError
from eval.baselines import title_of

MAX_VERSIONS = 16

# Progress: share done, what is being done; told again while that goes on. What it raises ends the
# work.
Report = Callable[[float, str], None]


def _reported(report: Report, share: float, what: str) -> AbstractContextManager[None]:
    """Reports now, and again and again during the work within, which that may end."""
    report(share, what)
    return checked(partial(report, share, what))


def compare(
    service: Service,
    original: Original,
    models: Sequence[str],
    sizes: Sequence[int],
    classics: Sequence[str] = (),
    match_all: bool = False,
    report: Report = lambda *_: None,
    most: int = MAX_VERSIONS,
    search: int = 0,
) -> list[Version]:
    """Codes by every chosen model at every chosen size, then by classic codecs.

    Those code at the same bytes.

    Args:
        service: What codes.
        original: What is coded.
        models: The names of models.
        sizes: Codebook sizes; a model passes over those that it does not offer.
        classics: Names of classic codecs.
        match_all: Whether there is a classic version for every codec version, rather than for
            the largest only.
        report: Is told of the progress.
        most: How many versions may be asked for.
        search: Steps of the encoder's search. Each version of a model is there with them, too.

    Raises:
        ModelError: There is no such model. Like all that follows it is said before anything is
            coded.
        MediaError: Nothing, too much, one thing twice, or a model for another medium is chosen.
    """
    service.classics.check(original.medium, classics)
    service.check_search(original, search)
    for what, chosen in (("model", models), ("codebook size", sizes)):
        if len(set(chosen)) < len(chosen):
            raise MediaError(f"name each {what} once")
    cards = [service.models.card_for(name, original.medium) for name in models]
    ordered = sorted(sizes)
    pairs = [(card.name, size) for card in cards for size in ordered if size in card.num_codes]
    runs = [(*pair, steps) for pair in pairs for steps in sorted({0, search})]
    total = len(runs) + len(classics) * (len(pairs) if match_all else 1)
    if not pairs:
        raise MediaError("nothing to compare: choose a model and a codebook size that it offers")
    if total > most:
        raise MediaError(f"that makes {total} versions; choose at most {most}")
    versions: list[Version] = []
    for name, size, steps in runs:
        how = "search, " if steps else ""
        what = f"{name} with {size:,} codes: {how}encode, decode, measure"
        with _reported(report, len(versions) / total, what):
            versions.append(service.code(original, name, size, search=steps))
    sizes_in_bytes = {version.num_bytes for version in versions if not version.search}
    targets = sorted(sizes_in_bytes) if match_all else [max(sizes_in_bytes)]
    for name in classics:
        tried: dict[int, bytes] = {}
        for target in targets:
            report(min(len(versions) / total, 0.99), f"{title_of(name)} at {target:,} bytes")
            versions.append(service.classics.code(original, name, target, tried))
    return versions


def sweep(
    service: Service,
    original: Original,
    classics: Sequence[str] = (),
    report: Report = lambda *_: None,
) -> list[Version]:
    """Codes by every model of the medium at every size, and by classic codecs.

    Those code at the same bytes.

    Raises:
        ModelError: There is no model for the medium.
        MediaError: A classic codec is not known, or more than `MAX_VERSIONS` of theirs are
            asked for.
    """
    service.classics.check(original.medium, classics)
    best = service.models.best(original.medium)
    cards = service.models.of(original.medium)
    pairs = [(card.name, size) for card in cards for size in card.num_codes]
    total = len(classics) * len(best.num_codes)
    if total > MAX_VERSIONS:
        raise MediaError(
            f"that makes {total} versions of classic codecs; choose at most {MAX_VERSIONS}"
        )
    versions: list[Version] = []
    for count, (name, size) in enumerate(pairs):
        what = f"{name} with {size:,} codes: encode, decode, measure"
        with _reported(report, count / (len(pairs) + len(classics)), what):
            versions.append(service.code(original, name, size))
    first = [version.num_bytes for version in versions if version.model == best.name]
    for count, name in enumerate(classics):
        seen: set[int] = set()
        tried: dict[int, bytes] = {}
        for place, target in enumerate(first):
            report(
                (len(pairs) + count + place / len(first)) / (len(pairs) + len(classics)),
                f"{title_of(name)} at {target:,} bytes",
            )
            version = service.classics.code(original, name, target, tried)
            # Its lowest setting may be the nearest to them all.
            if version.num_bytes not in seen:
                versions.append(version)
            seen.add(version.num_bytes)
    return versions
