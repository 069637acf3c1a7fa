"""Training data: decoded once into one flat memory-mapped array, cropped at random on the fly.

folders, tars ──prepare──> NAME.raw (int16 samples | uint8 pixels, end to end) + NAME.json (shapes, skipped files)
              ──Store.batch──> (B, C, *crop) float32
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec.errors import CodecError, MediaError
from codec.files import walk
from codec.media import load_audio, load_image
from codec.nets.speech import SAMPLE_RATE


def prepare(medium: str, sources: list[Path], target: Path) -> None:
    """Decodes all media below `sources` into `target`.raw and `target`.json.

    Speech becomes 16 kHz mono int16, pictures RGB uint8. A file that cannot be read is named, skipped and counted.

    Raises:
        MediaError: A source does not exist, or nothing in them could be read.
    """
    shapes: list[list[int]] = []
    skipped: list[str] = []
    raw_path, record_path = _paths(target)
    partial = raw_path.with_name(raw_path.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as raw:
            for name, content in tqdm(walk(sources), desc=f"decode {medium}", disable=None, unit="file"):
                try:
                    array = _decode(medium, content)
                except MediaError as error:
                    skipped.append(f"{name}: {error}")
                    tqdm.write(f"skipped {name}: {error}", file=sys.stderr)
                    continue
                raw.write(array.tobytes())
                shapes.append(list(array.shape))
        if not shapes:
            where = ", ".join(map(str, sources))
            raise MediaError(f"nothing readable as {medium} in {where}; {len(skipped)} files skipped")
        record = {"medium": medium, "shapes": shapes, "skipped": skipped}
        record_path.unlink(missing_ok=True)  # never an old record beside new data
        partial.replace(raw_path)
        record_path.write_text(json.dumps(record))
    except BaseException:  # a full disk or Ctrl-C, too, must leave nothing half-written
        partial.unlink(missing_ok=True)
        raise


def _paths(target: Path) -> tuple[Path, Path]:
    return target.with_name(target.name + ".raw"), target.with_name(target.name + ".json")


def _decode(medium: str, content: bytes) -> np.ndarray:
    if medium == "image":
        return load_image(io.BytesIO(content))
    samples, _ = load_audio(io.BytesIO(content), SAMPLE_RATE)
    return (samples.mean(1) * 32767).round().clip(-32768, 32767).astype(np.int16)


class Store:
    """What `prepare` wrote, as random crops.

    Args:
        path: The target of `prepare`, without suffix.
        medium: What the data must be.
        crop: Crop length in samples, or height and width in pixels. Speech clips shorter than a crop are padded with
            silence; smaller pictures are left out.

    Raises:
        CodecError: No prepared data there, of another medium, or no item holds a crop.
    """

    def __init__(self, path: Path, medium: str, crop: tuple[int, ...]) -> None:
        try:
            raw_path, record_path = _paths(path)
            record = json.loads(record_path.read_text())
            self.medium: str = record["medium"]
            self.shapes = np.array(record["shapes"])
            dtype = np.int16 if self.medium == "speech" else np.uint8
            self.flat = np.memmap(raw_path, dtype, "r")
        except (OSError, ValueError, KeyError) as error:
            raise CodecError(f"{path}: no prepared data here ({error}); run python -m train.prepare first") from None
        if self.medium != medium:
            raise CodecError(f"{path}: this data is {self.medium}, the recipe is for {medium}; give matching data")
        self.starts = np.concatenate([[0], np.cumsum(self.shapes.prod(1))])
        if self.starts[-1] != len(self.flat):
            raise CodecError(f"{raw_path}: not the data of {record_path.name}; run python -m train.prepare again")
        self.crop = crop
        usable = np.ones(len(self.shapes), bool)
        if self.medium == "image":
            usable = (self.shapes[:, :2] >= np.array(crop)).all(1)
        if not usable.any():
            raise CodecError(f"{path}: no item holds a crop of {crop}; make the crop smaller")
        self.usable = np.flatnonzero(usable)
        # Longer clips and larger pictures are drawn more often: every second and every pixel counts the same.
        self.weights = torch.tensor(self.shapes[self.usable].prod(1), dtype=torch.float64)

    def _item(self, i: int) -> np.ndarray:
        """One item whole: (T,) int16 or (H, W, 3) uint8."""
        return self.flat[self.starts[i] : self.starts[i + 1]].reshape(self.shapes[i])

    def whole(self, i: int) -> Tensor:
        """One item whole, as a batch of one like those of `batch`."""
        item = torch.from_numpy(np.array(self._item(i))).float()
        return item[None, None] / 32768 if self.medium == "speech" else item.movedim(-1, 0)[None] / 255

    def batch(self, size: int) -> Tensor:
        """`size` random crops, (B, 1, T) in [-1, 1] or (B, 3, H, W) in [0, 1]; drawn from torch's global generator."""
        chosen = torch.multinomial(self.weights, size, replacement=True).tolist()
        places = torch.rand(size, 2).tolist()
        crops = [self._crop(int(self.usable[i]), place) for i, place in zip(chosen, places, strict=True)]
        stacked = torch.from_numpy(np.stack(crops)).float()
        if self.medium == "speech":
            return stacked[:, None] / 32768
        return stacked.movedim(-1, 1).contiguous() / 255

    def _crop(self, i: int, place: list[float]) -> np.ndarray:
        item = self._item(i)
        starts = [int(p * (max(n - c, 0) + 1)) for p, n, c in zip(place, item.shape, self.crop, strict=False)]
        piece = item[tuple(slice(s, s + c) for s, c in zip(starts, self.crop, strict=True))]
        if self.medium == "speech" and len(piece) < self.crop[0]:
            piece = np.pad(piece, (0, self.crop[0] - len(piece)))
        return np.array(piece)


def augment(medium: str, x: Tensor) -> Tensor:
    """Speech: level -30..-14 dBFS and polarity. Pictures: mirror images."""
    batch = x.shape[0]
    if medium == "image":
        mirror = torch.rand(batch, 1, 1, 1, device=x.device) < 0.5
        return torch.where(mirror, x.flip(-1), x)
    level = x.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-3)  # silence is not blown up
    target = 10 ** ((torch.rand(batch, 1, 1, device=x.device) * 16 - 30) / 20)
    sign = torch.where(torch.rand(batch, 1, 1, device=x.device) < 0.5, -1.0, 1.0)
    return (x * sign * target / level).clamp(-1, 1)
