"""What a run tells while it goes: means of its values in the log, a bar, and previews."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from codec.model import Codec
from train import parallel
from train.log import Log


class Report:
    """Averages what steps return, over steps and processes, and tells it.

    Args:
        log: Where to tell it; None on all processes but the first.
        device: Where the means are taken.
        every: Steps from one line of the log to the next.
        shown: Names of the values that the bar shows.
        tokens_per_step: Tokens that a step sees, on all processes together.
        step: How many steps were taken before.
        preview: (B, C, *crop) what to decode at each checkpoint; None where nobody looks.

    Attributes:
        skipped: () how many steps changed no weights, on the device.
    """

    def __init__(
        self,
        log: Log | None,
        device: str,
        every: int,
        shown: Iterable[str],
        tokens_per_step: int,
        step: int,
        preview: Tensor | None = None,
    ) -> None:
        self.log, self.device, self.every, self.shown = log, device, every, tuple(shown)
        self.tokens_per_step, self.preview = tokens_per_step, preview
        self._values: dict[str, list[Tensor]] = {}
        self._step, self._time = step, time.monotonic()
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)

    def add(
        self, values: Mapping[str, Tensor], step: int, elapsed_s: float, progress: float, stage: str
    ) -> None:
        """Takes the values of one step, and writes a line when it is time for one.

        Args:
            values: Scalars by name, on the device; they are read when a line is written.
            step: How many steps were taken, with this one.
            elapsed_s: Seconds of training so far.
            progress: The share of the budget that is spent, in [0, 1].
            stage: The stage that the run is in.
        """
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        self.skipped += values["skipped"].long()
        bar = {}
        if step % self.every == 0:
            means, now = self._means(), time.monotonic()
            rate = (step - self._step) / (now - self._time)
            self._values, self._step, self._time = {}, step, now
            means |= {"steps_per_s": rate, "tokens_per_s": rate * self.tokens_per_step}
            if self.log is not None:
                self.log.write(step, elapsed_s / 60, stage, means)
            bar = {name: means[name] for name in (*self.shown, "tokens_per_s") if name in means}
        if self.log is not None:
            self.log.show(progress, stage, step, bar)

    def _means(self) -> dict[str, float]:
        """Means since the last line, over processes as well, in one copy from the device."""
        means = [
            torch.stack([v.to(self.device, torch.float32) for v in kept]).mean()
            for kept in self._values.values()
        ]
        return dict(zip(self._values, parallel.mean(torch.stack(means)).tolist(), strict=True))

    def show(self, codec: Codec, step: int) -> None:
        """Shows what a codec makes of the preview."""
        if self.log is not None and self.preview is not None:
            self.log.preview(codec, self.preview, step)

    def close(self) -> None:
        """Ends the bar and the files of TensorBoard."""
        if self.log is not None:
            self.log.close()
