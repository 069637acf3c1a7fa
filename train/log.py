"""The log of a run: JSON lines, a bar in a terminal, TensorBoard on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from codec.errors import CodecError, not_installed
from codec.files import blaming, writing
from codec.medium import SAMPLE_RATE
from codec.model import Codec

LOG_NAME = "log.jsonl"


class Log:
    """The log of one run.

    Args:
        folder: The folder of the run.
        tensorboard: Whether to write TensorBoard files there, too.

    Raises:
        CodecError: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.path = folder / LOG_NAME
        self.board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise CodecError(not_installed("TensorBoard", "tensorboard")) from None
            self.board = SummaryWriter(str(folder / "tensorboard"))
        self.bar = tqdm(
            total=100,
            desc=folder.name,
            disable=None,
            unit="%",
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
        )

    def write(self, step: int, minutes: float, stage: str, values: dict[str, float]) -> None:
        """Writes one line, with five digits of each value."""
        record = {"step": step, "minutes": round(minutes, 3), "stage": stage}
        record |= {name: float(f"{value:.5g}") for name, value in values.items()}
        with blaming(str(self.path)), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def show(self, progress: float, stage: str, step: int, values: dict[str, float]) -> None:
        """Moves the bar; `values` are what it prints."""
        if values:
            shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.bar.set_postfix_str(f"{stage} step {step} {shown}", refresh=False)
        self.bar.update(100 * progress - self.bar.n)

    @torch.no_grad()
    def preview(self, codec: Codec, x: Tensor, step: int) -> None:
        """Shows originals, reconstructions and the use of the codebook in TensorBoard."""
        if self.board is None:
            return
        codec.eval()
        size = codec.bottleneck.default_size
        z = codec.latents(x)
        try:
            indices = codec.bottleneck.encode(z, size)
            z_q = codec.bottleneck.decode(indices, size)
            self.board.add_histogram(
                "indices", indices.flatten(), step, bins=min(codec.bottleneck.num_codes(size), 512)
            )
        except RuntimeError:  # a method that perturbs has no codebook yet
            z_q = z
        self.board.add_histogram("latents", z, step)
        both = torch.stack([x, codec.decoder(z_q, size)[tuple(slice(n) for n in x.shape)]])
        for i, pair in enumerate(both.unbind(1)):
            for name, signal in zip(("original", "decoded"), pair, strict=True):
                if codec.token_rate_hz is None:
                    self.board.add_image(f"{i}/{name}", signal.clamp(0, 1), step)
                else:
                    self.board.add_audio(f"{i}/{name}", signal.clamp(-1, 1), step, SAMPLE_RATE)

    def close(self) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a log, up to the first that is not whole, as a kill leaves the last.

    There are none where there is no log, or another file.
    """
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        records.append(record)
    return records


def cut(path: Path, step: int) -> None:
    """Drops the lines of steps after `step`, which are taken again.

    A line that a kill left unfinished goes, too.
    """
    lines = [json.dumps(record) for record in read(path) if record["step"] <= step]
    if path.is_file():
        # Killed here, a run must not lose what it has said.
        with writing(str(path), force=True) as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
