"""Random crops of the training data, cut where the array lies.

NAME.raw ──memory-mapped, or whole on the GPU──Store.batch──> (B, C, *crop) float32
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.transforms import Resample

from codec.errors import CodecError, reason_of
from codec.medium import IMAGE, SPEECH
from codec.quiet import no_warnings
from train.data import NOTHING, files_of, prepared_within, target_of
from train.draws import Draws

# Lengths of the longest item that a crop may have: beyond, it is nearly all silence.
MOST_PADDED = 10
BLOCKS, BLOCK = 256, 2048  # parts of the data that `Store.identity` looks at, and values in each
SPEED_STEPS = 40  # speeds are multiples of 1 / 40, which keeps the resampling filters short


@dataclass(frozen=True, slots=True)
class Form:
    """How items of a medium lie in a `Store`.

    Attributes:
        dtype: Of a value.
        scale: The number of such steps that 1.0 has.
        channels: Values of a position, which lie side by side.
        padded: Whether an item shorter than a crop is padded with silence; else it is left out.
        slower: Whether `zoom` goes both ways, slower and faster; pictures are only scaled down.
    """

    dtype: type[np.generic]
    scale: int
    channels: int
    padded: bool
    slower: bool

    def to_signal(self, values: Tensor) -> Tensor:
        """(B, *N) or (B, *N, C) floats -> (B, C, *N) signals."""
        columns = values if self.channels > 1 else values[..., None]
        return columns.movedim(-1, 1).contiguous() / self.scale


FORMS = {
    SPEECH.name: Form(np.int16, 32768, 1, padded=True, slower=True),
    IMAGE.name: Form(np.uint8, 255, 3, padded=False, slower=False),
}


class Store:
    """Random crops of what `prepare` wrote.

    Args:
        path: The target of `prepare`, without suffix.
        medium: The medium that the data must be of.
        crop: Crop length in samples, or height and width in pixels. Speech clips shorter than a
            crop are padded with silence; smaller pictures are left out.
        zoom: Crops are of windows up to this much larger (pictures, scaled down to the crop), or of
            speech played at 1 / zoom to zoom of its speed. One factor for a batch.
        wanted_by: What is of that medium, for the message.

    Attributes:
        usable: (I,) numbers of the items that hold a crop.
        weights: (I,) their samples or pixels, which is how often they are drawn.
        identity: Checksums of the sizes of all items and of parts of their content, by which other
            data are known.

    Raises:
        CodecError: No prepared data there, of another medium, or no item holds a crop; or all
            items are far shorter than one.
    """

    def __init__(
        self,
        path: Path,
        medium: str,
        crop: tuple[int, ...],
        zoom: float = 1.0,
        wanted_by: str = "the recipe",
    ) -> None:
        path = target_of(path) or path
        try:
            raw_path, record_path = files_of(path)
            record = json.loads(record_path.read_text())
            self.medium: str = record["medium"]
            self.shapes = np.array(record["shapes"])
            self.form = FORMS[self.medium]
            flat = np.memmap(raw_path, self.form.dtype, "r")
            self.identity = (
                f"{zlib.crc32(self.shapes.astype('<i8').tobytes()):08x}-{_looked_at(flat)}"
            )
        except (OSError, ValueError, KeyError) as error:
            if not path.exists() and not record_path.exists():
                raise CodecError(f"{path}: {NOTHING}") from None
            advice = prepared_within([path]) or "run python -m train.prepare first"
            raise CodecError(
                f"{path}: no prepared data here ({reason_of(error)}); {advice}"
            ) from None
        if self.medium != medium:
            raise CodecError(
                f"{path}: this data is {self.medium}, {wanted_by} is for {medium}; "
                "give matching data"
            )
        starts = np.concatenate([[0], np.cumsum(self.shapes.prod(1))])
        if starts[-1] != len(flat):
            raise CodecError(
                f"{raw_path}: not the data of {record_path.name}; run python -m train.prepare again"
            )
        self.crop, self.zoom = crop, zoom
        self._resamplers: dict[int, Resample] = {}  # by the step of `_draw_step`
        usable = np.ones(len(self.shapes), bool)
        if not self.form.padded:
            usable &= (self.shapes[:, :2] >= np.array([self._window(c, zoom) for c in crop])).all(1)
        if not usable.any():
            needed = f"a crop of {crop}" + (f" at zoom {zoom}" if zoom > 1 else "")
            raise CodecError(f"{path}: no item holds {needed}; make the crop smaller")
        self.usable = np.flatnonzero(usable)
        longest = int(self.shapes[:, 0].max())
        if self.form.padded and crop[0] > MOST_PADDED * longest:
            raise CodecError(
                f"{path}: data.crop = {list(crop)}: the longest item has {longest} samples, and "
                "silence would fill the rest; make the crop smaller"
            )
        # That the array cannot be written; nobody does.
        with no_warnings():
            self.flat = torch.from_numpy(flat)
        if self.form.channels > 1:
            self.flat = self.flat.view(-1, self.form.channels)
            starts = starts // self.form.channels
        # Longer clips and larger pictures are drawn more often: every second and every pixel counts
        # the same.
        self.weights = torch.tensor(self.shapes[self.usable, :2].prod(1), dtype=torch.float64)
        self._cumulative = self.weights.cumsum(0)
        self._starts = torch.tensor(starts[:-1][self.usable])
        # (I, 1) samples | (I, 2) height, width.
        self._sides = torch.tensor(self.shapes[self.usable][:, :2])

    def to(self, device: str) -> Store:
        """Moves the whole array to a device, where there is room for twice as much.

        Else crops are cut on the host.
        """
        if device != "cpu" and 2 * self.flat.nbytes < torch.cuda.mem_get_info(device)[0]:
            for name in ("flat", "_cumulative", "_starts", "_sides"):
                setattr(self, name, getattr(self, name).to(device))
        return self

    def whole(self, i: int) -> Tensor:
        """Returns one item whole, usable or not, as a batch of one like those of `batch`."""
        sizes = self.shapes[: i + 1].prod(1)
        item = self.flat.view(-1)[sizes[:-1].sum() : sizes.sum()].view(*self.shapes[i]).float()
        return self.form.to_signal(item[None])

    def batch(self, size: int, draws: Draws) -> Tensor:
        """Cuts `size` random crops, on the device of `draws`.

        They are (B, 1, T) in [-1, 1] or (B, 3, H, W) in [0, 1].
        """
        device, axes = self.flat.device, len(self.crop)
        which = draws.uniform(size, double=True).to(device) * self._cumulative[-1]
        item = torch.searchsorted(self._cumulative, which, right=True).clamp(
            max=len(self.usable) - 1
        )
        places = draws.uniform(size, axes, double=True).to(device)
        step = self._draw_step(draws)
        window = [self._window(c, step / SPEED_STEPS) for c in self.crop]
        values = (
            self._cut(self._starts[item], self._sides[item], places, window)
            .to(draws.device)
            .float()
        )
        x = self.form.to_signal(values)
        if axes > 1 and list(window) != list(self.crop):
            return F.interpolate(x, self.crop, mode="bilinear", antialias=True).clamp(0, 1)
        if axes == 1 and step != SPEED_STEPS:
            if step not in self._resamplers:  # its filter is made on the host
                self._resamplers[step] = Resample(step, SPEED_STEPS, dtype=torch.float32).to(
                    x.device
                )
            x = self._resamplers[step](x)[..., : self.crop[0]]
        return x

    def _cut(self, starts: Tensor, sides: Tensor, places: Tensor, window: list[int]) -> Tensor:
        """Cuts windows out of items.

        Args:
            starts: Where each item begins in the array, (B,).
            sides: The sides of each item, (B, axes).
            places: Where the window begins in the item, (B, axes) in [0, 1).
            window: The sides of the window.

        Returns:
            (B, *window) samples or (B, *window, 3) pixels.
        """
        # No copy to a GPU.
        space = torch.stack([(sides[:, i] - w).clamp(min=0) + 1 for i, w in enumerate(window)], 1)
        corner = (places * space).long()
        offsets = [torch.arange(w, device=starts.device) for w in window]
        if len(offsets) > 1:
            rows = (corner[:, :1] + offsets[0]) * sides[:, 1:]
            columns = corner[:, 1:] + offsets[1]
            return self.flat[starts[:, None, None] + rows[:, :, None] + columns[:, None]]
        inside = offsets[0] < sides
        index = (starts + corner[:, 0])[:, None] + torch.where(inside, offsets[0], 0)
        return torch.where(inside, self.flat[index], 0)

    def _draw_step(self, draws: Draws) -> int:
        """Draws the zoom or speed of a batch, in steps of 1 / 40."""
        highest = int(SPEED_STEPS * self.zoom)
        lowest = -(-(SPEED_STEPS**2) // highest) if self.form.slower else SPEED_STEPS
        return lowest + draws.integer(highest - lowest + 1) if self.zoom > 1 else SPEED_STEPS

    @staticmethod
    def _window(crop: int, zoom: float) -> int:
        """Returns the samples or pixels along one axis that become `crop`."""
        return -(-round(crop * zoom * SPEED_STEPS) // SPEED_STEPS)


def _looked_at(flat: NDArray[Any]) -> str:
    """Returns a checksum of some of the values, evenly spread, since all of them take minutes."""
    found = 0
    for start in np.linspace(0, max(len(flat) - BLOCK, 0), BLOCKS, dtype=np.int64):
        found = zlib.crc32(flat[start : start + BLOCK].tobytes(), found)
    return f"{found:08x}"
