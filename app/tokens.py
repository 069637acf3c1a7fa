"""Looking into a .bin: its tokens, its codebook, and what changed tokens make."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.media import KINDS
from app.service import Service
from app.versions import Version
from codec.container import Header, Writer
from codec.errors import MediaError

CHANGES = ("random", "one token", "shuffle")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens in a .bin, and the codebook that they point into.

    Attributes:
        indices: (A, G, N): streams (audio channels), codebooks, positions.
        num_samples: The samples per channel of a recording; 0 for a picture.
        rows, columns: How the positions are laid out on the page: the latent grid of a picture, or
            speech with a second in each row.
        vectors: The first codebook, (num_codes, D).
    """

    header: Header
    indices: NDArray[np.int64]
    num_samples: int
    rows: int
    columns: int
    vectors: NDArray[np.float32]

    @property
    def map(self) -> NDArray[np.int64]:
        """(rows, columns) of the first stream and codebook, -1 where the last row is not full."""
        flat = self.indices[0, 0]
        padded = np.full(self.rows * self.columns, -1, np.int64)
        padded[: len(flat)] = flat
        return padded.reshape(self.rows, self.columns)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(num_codes,) how often each code of the first codebook occurs."""
        return np.bincount(self.indices[:, 0].ravel(), minlength=self.header.num_codes)


def tokens(service: Service, version: Version) -> Tokens:
    """Reads the tokens of a version's .bin, and the codebook that they point into."""
    import torch

    from codec.coding import read_indices

    model = service.models.get(version.model)
    bottleneck = model.codec.bottleneck
    header, indices, num_samples = read_indices(version.file.read_bytes(), model, service.limits)
    rows, columns = KINDS[header.medium].grid(header, model.codec, indices.shape[2])
    every = torch.zeros(1, header.num_codebooks, header.num_codes, dtype=torch.int64)
    every[0, 0] = torch.arange(header.num_codes)
    with torch.inference_mode():
        vectors = bottleneck.decode(every.to(model.device), header.codebook_size)[0].T.cpu().numpy()
    return Tokens(header, indices, num_samples, rows, columns, vectors)


def edit(
    service: Service,
    version: Version,
    change: str,
    share: float = 1.0,
    token: int = 0,
    area: tuple[float, float, float] | None = None,
    seed: int = 0,
) -> tuple[Version, int]:
    """Changes tokens of a .bin and decodes the result, which is a true .bin again.

    Args:
        change: One of `CHANGES`: random tokens, one and the same token, or the same tokens in
            another order.
        share: The share of the positions in the area that are changed, 0 to 1.
        token: The index of "one token".
        area: (x, y, side) around a point of the token map, x and y in [0, 1]: a square of side *
            side tokens of a picture, `side` tokens in a row of speech. None for everywhere.
        seed: A number; the same one makes the same change.

    Returns:
        The changed version, and how many tokens were put in place: every stream and codebook has
        one at each position.

    Raises:
        MediaError: An unknown change, or a token that the codebook does not have.
    """
    inside = tokens(service, version)
    header = inside.header
    if change not in CHANGES:
        raise MediaError(f"unknown change {change!r}; choose from {', '.join(CHANGES)}")
    if change == "one token" and not 0 <= token < header.num_codes:
        raise MediaError(
            f"token {token} is not in this codebook; choose 0 to {header.num_codes - 1}"
        )
    rng = np.random.default_rng(seed)
    chosen = np.ones((inside.rows, inside.columns), bool)
    if area is not None:
        chosen = KINDS[header.medium].spot((inside.rows, inside.columns), *area)
    positions = np.flatnonzero(chosen.ravel()[: inside.indices.shape[2]])
    positions = rng.permutation(positions)[: round(share * len(positions))]
    indices = inside.indices.copy()
    if change == "random":
        indices[:, :, positions] = rng.integers(
            0, header.num_codes, (*indices.shape[:2], len(positions))
        )
    elif change == "one token":
        indices[:, :, positions] = token
    else:
        indices[:, :, positions] = indices[:, :, rng.permutation(positions)]
    from codec.coding import tables_for

    model = service.models.get(version.model)
    file = io.BytesIO()
    writer = Writer(file, header, tables_for(header, model))
    writer.write(indices)
    writer.finish(inside.num_samples)
    changed = service.decoded(file.getvalue(), f"{version.file.stem}-changed", 0.0, None)
    return changed, indices[:, :, positions].size
