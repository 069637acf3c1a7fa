"""Drawings: waveforms, spectrograms, token maps, codebooks.

Colours that carry meaning are the same in all of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.medium import SAMPLE_RATE

PEAKS = 300  # points of a waveform
FLOOR_DB = 80  # below the original's loudest: black
SPECTROGRAM_COLUMNS = 900
COLOURS = 4096  # steps of a colour scale
PLANE = 720  # pixels of a codebook's picture
DEPTH = 0.3
BLOCK_SECONDS = 0.4  # what ITU-R BS.1770 measures at least


@cache
def _scale(name: str) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.linspace(0, 1, COLOURS))[:, :3] * 255, np.uint8)


def colours(values: NDArray[Any], name: str = "turbo") -> NDArray[np.uint8]:
    """Turns values in [0, 1] into RGB, uint8, with one axis more."""
    return np.asarray(_scale(name)[(np.clip(values, 0, 1) * (COLOURS - 1)).astype(np.int64)])


def peaks(samples: NDArray[np.float32], count: int = PEAKS) -> list[list[float]]:
    """Returns `count` pairs of lowest and highest sample of a (T,) signal, for a waveform."""
    edges = np.linspace(0, len(samples), min(count, len(samples)) + 1).astype(int)[:-1]
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    pairs: list[list[float]] = np.round(np.stack([low, high], 1), 3).tolist()
    return pairs


def spectrogram(samples: NDArray[np.float32], path: Path, loudest: float | None = None) -> float:
    """Writes a (T,) 16 kHz signal's spectrogram, 0 to 8 kHz, as a PNG.

    Args:
        loudest: The power that is white; by default the signal's own. Give the original's to
            compare with it.

    Returns:
        The power that was white.
    """
    import torch
    from torchaudio.transforms import Spectrogram

    hop = max(64, len(samples) // SPECTROGRAM_COLUMNS)
    padded = np.pad(samples, (0, max(0, SAMPLE_RATE // 10 - len(samples))))
    power = Spectrogram(n_fft=512, hop_length=hop)(torch.from_numpy(padded)).numpy()
    top = max(float(power.max()) if loudest is None else loudest, 1e-9)
    level = 10 * np.log10(np.maximum(power / top, 1e-12)) / FLOOR_DB + 1
    Image.fromarray(colours(level[::-1], "magma")).save(path, "PNG")
    return top


def token_map(grid: NDArray[np.int64], num_codes: int, path: Path) -> Path:
    """Writes (rows, columns) indices as a PNG of one pixel a token; -1 is transparent."""
    rgb = colours(grid / max(num_codes - 1, 1))
    alpha = np.where(grid < 0, 0, 255).astype(np.uint8)[..., None]
    Image.fromarray(np.concatenate([rgb, alpha], -1)).save(path, "PNG")
    return path


def codebook_plane(vectors: NDArray[np.float32], counts: NDArray[np.int64], path: Path) -> Path:
    """Writes the codebook in two dimensions as a transparent PNG: used codes lit, the others grey.

    Seen along its principal components, the first two from the front; each further pair is drawn in
    at `DEPTH` of the size of the one before, as a look from the side does, so that codes behind one
    another come apart.
    """
    from PIL import ImageDraw

    centred = vectors - vectors.mean(0)
    if centred.shape[1] < 2:
        centred = np.pad(centred, ((0, 0), (0, 1)))
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes.T
    plane = sum(
        turned[:, i : i + 2] * DEPTH ** (i // 2) for i in range(0, turned.shape[1] // 2 * 2, 2)
    )
    span = np.abs(plane).max(0)
    places = (plane / np.where(span > 0, span, 1) * 0.47 + 0.5) * PLANE
    shades = colours(np.arange(len(vectors)) / max(len(vectors) - 1, 1))
    image = Image.new("RGBA", (PLANE, PLANE))
    draw = ImageDraw.Draw(image)
    smallest = max(1.2, 34 / len(vectors) ** 0.4)
    largest = max(counts.max(), 1)
    for index in np.argsort(counts, kind="stable"):  # the most used on top
        x, y = places[index]
        used = counts[index] > 0
        radius = (
            smallest * (1 + 2.2 * np.sqrt(counts[index] / largest)) if used else smallest * 0.75
        )
        colour = (*map(int, shades[index]), 235) if used else (128, 128, 128, 90)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    image.save(path, "PNG")
    return path


def histogram(counts: NDArray[np.int64], bars: int = 128) -> list[dict[str, Any]]:
    """Counts usage by index in some bars: share of tokens, first and last index, colour."""
    count = len(counts)
    edges = np.linspace(0, count, min(bars, count) + 1).astype(int)
    total = max(int(counts.sum()), 1)
    shades = colours((edges[:-1] + edges[1:] - 1) / 2 / max(count - 1, 1))
    return [
        {
            "share": round(float(counts[a:b].sum()) / total, 6),
            "first": int(a),
            "last": int(b - 1),
            "colour": "#" + bytes(shade).hex(),
        }
        for a, b, shade in zip(edges[:-1], edges[1:], shades, strict=True)
    ]


def loudness(samples: NDArray[np.float32]) -> float | None:
    """Returns the LUFS of a (T,) 16 kHz signal by ITU-R BS.1770.

    None for silence, and below a block.
    """
    import torch
    from torchaudio.functional import loudness as bs1770

    if len(samples) < BLOCK_SECONDS * SAMPLE_RATE:
        return None
    value = float(bs1770(torch.from_numpy(np.ascontiguousarray(samples))[None], SAMPLE_RATE))
    return value if np.isfinite(value) else None


def playback_gains(loudnesses: list[float | None]) -> list[float]:
    """Returns the dB that bring all signals to the quietest; 0 where nothing is known."""
    known = [value for value in loudnesses if value is not None]
    quietest = min(known, default=0.0)
    return [0.0 if value is None else round(quietest - value, 2) for value in loudnesses]
