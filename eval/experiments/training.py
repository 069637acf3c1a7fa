"""Training and measuring one row of the GM-VQ paper's table: its schedule, its losses in mean form,
its metrics.

    x ──SQVAENet──> x_hat, losses
    mse + sum of weight * loss ──AdamW, warm-up, cosine──> net ──> test figures

The project's own loop (train.loop) is for codecs of any size; this one keeps to the paper: no
averaged weights, no second stage. Its step is made as that one's is, of tensor
work on static inputs, and on a GPU it is one CUDA graph (train.graph) where the method leaves
nothing to the host.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from codec.bottlenecks import BOTTLENECKS, Bottleneck, BottleneckOutput
from codec.host import unread
from codec.medium import IMAGE
from eval.experiments import coded
from eval.experiments.images import ImageSet
from eval.experiments.nets import WIDTH, SQVAENet
from eval.experiments.rows import Row
from eval.experiments.runs import Record
from eval.experiments.usage import hard_usage
from train.budget import Budget
from train.graph import Graphs
from train.optimiser import guarded_step, make_optimiser

WARMUP, FIRST = 0.1, 0.2  # share of the budget, and of the learning rate at its start (paper)
START_ROWS = 20  # latents for each code that the first codebook is made of
BETAS = [0.9, 0.999]  # of AdamW, torch's own


@dataclass(frozen=True, slots=True)
class Settings:
    """How nets are trained on a data set.

    The values are the paper's, but where docs/methods/experiments.md says otherwise.

    Attributes:
        stages, blocks: Arguments of `SQVAENet`.
        learning_rate: The highest learning rate of the schedule.
        size: The codebook size K.
        batch: Pictures in a batch.
        clip: The limit of the gradient's norm.
        weight_decay: It is the same for net and codebook; the paper has one, without its value.
    """

    stages: int
    blocks: int
    learning_rate: float
    size: int = 1024
    batch: int = 256
    clip: float = 1.0
    weight_decay: float = 1e-4


def schedule(progress: float) -> float:
    """Returns the share of the highest learning rate.

    It is linear from 0.2 to 1 in the first tenth, then a cosine to 0.
    """
    if progress < WARMUP:
        return FIRST + (1 - FIRST) * progress / WARMUP
    return (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP))) / 2


def objective(
    row: Row, x: Tensor, x_hat: Tensor, out: BottleneckOutput, weights: Mapping[str, float | Tensor]
) -> Tensor:
    """Returns the squared error plus the losses times their weights.

    Raises:
        KeyError: A loss has no weight.
    """
    error = F.mse_loss(x_hat, x)
    losses = torch.stack(
        [error.new_zeros(()), *(weights[name] * value for name, value in out.losses.items())]
    ).sum()
    if row.self_weighted:
        losses = losses * 2 * error.detach() * out.z_q.numel() / x.numel()
    return error + losses


def build(row: Row, settings: Settings) -> SQVAENet:
    kind: Any = BOTTLENECKS[row.bottleneck]
    bottleneck = kind(dim=WIDTH, codebook_sizes=(settings.size,), **row.options)
    return SQVAENet(bottleneck, settings.stages, settings.blocks)


class Learning:
    """What learns in one run, and the step that it takes.

    Args:
        row: The method and its losses.
        settings: The settings of the dataset.
        shape: (B, 3, H, W) of a batch.
        device: "cpu" or "cuda".
    """

    def __init__(self, row: Row, settings: Settings, shape: torch.Size, device: str) -> None:
        self.row, self.settings = row, settings
        self.net = build(row, settings).to(device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.x = torch.zeros(shape, device=device).to(memory_format=torch.channels_last)
        self.rate = torch.zeros((), device=device)
        self.weights = {name: torch.zeros((), device=device) for name in row.weights}
        groups = [{"params": list(self.net.parameters()), "weight_decay": settings.weight_decay}]
        self.optimiser = make_optimiser(groups, self.rate, BETAS)
        self.graphs = Graphs(device, True)

    def learn(self, x: Tensor, progress: float) -> Tensor:
        """Takes one step on a batch, at `progress` in [0, 1].

        Returns:
            Whether it was skipped, since a gradient was not finite: a tensor of shape ().
        """
        self.rate.fill_(self.settings.learning_rate * schedule(progress))
        for name, weight in self.row.weights_at(progress).items():
            self.weights[name].fill_(weight)
        self.net.bottleneck.anneal(progress)
        self.x.copy_(x)
        settled = self.net.bottleneck.settled
        with unread() if settled else nullcontext():
            return self.graphs.run("step", self._step, settled)["skipped"]

    def _step(self) -> dict[str, Tensor]:
        """All that is read here are the tensors that `learn` writes."""
        x_hat, out = self.net(self.x)
        loss = objective(self.row, self.x, x_hat, out, self.weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = guarded_step(self.optimiser, self.net, self.settings.clip)
        return {"skipped": ~norm.isfinite()}


def train(
    row: Row, images: ImageSet, settings: Settings, budget: Budget, seed: int, device: str
) -> Record:
    """Trains a net from scratch, then measures it.

    The result is decided by the arguments, up to the device's rounding.
    """
    torch.manual_seed(seed)
    size = min(settings.batch, len(images.train))
    learning = Learning(row, settings, torch.Size((size, *images.train.shape[1:])), device)
    net, batches = learning.net, endless(images.train, size, device)
    net.bottleneck.fit(first_latents(net, batches, START_ROWS * settings.size))
    step, start, skipped = 0, time.monotonic(), torch.zeros((), device=device)
    with tqdm(
        total=100, desc=f"{row.name} seed {seed}", unit="%", disable=None, leave=False
    ) as bar:
        while (progress := budget.progress(time.monotonic() - start, step)) < 1:
            skipped += learning.learn(next(batches), progress)
            step += 1
            bar.update(100 * progress - bar.n)
    record: Record = {
        "steps": step,
        "skipped": int(skipped),
    }  # a bad batch ends no run; and here the device is done
    seconds = time.monotonic() - start
    record |= {"steps_per_second": step / max(seconds, 1e-9), "minutes": seconds / 60}
    record["parameters"] = sum(p.numel() for p in net.parameters())
    record |= measure(net, images.test, settings.batch, row.posterior, device)
    record["coded_bits"] = coded_bits(net, images, settings, device)
    return record


def endless(images: Tensor, size: int, device: str) -> Iterator[Tensor]:
    """Yields batches (size, 3, H, W) in [0, 1].

    Each epoch has a new order, and no incomplete batch at its end. They are cut where the pictures
    lie: on a GPU that has room for twice as much, or a copy would be waited for.
    """
    if (
        torch.device(device).type == "cuda"
        and 2 * images.nbytes < torch.cuda.mem_get_info(device)[0]
    ):
        images = images.to(device)
    while True:
        order = torch.randperm(len(images)).to(images.device)
        for start in range(0, len(images) - size + 1, size):
            yield images[order[start : start + size]].to(device).float() / 255


@torch.no_grad()
def first_latents(net: SQVAENet, batches: Iterator[Tensor], count: int) -> Tensor:
    """Returns (N >= count, in_dim) outputs of the fresh encoder, from several batches."""
    rows: list[Tensor] = []
    while sum(map(len, rows)) < count:
        rows.append(net.latents(next(batches)).movedim(1, -1).flatten(0, 2))
    return torch.cat(rows)


@torch.no_grad()
def measure(net: SQVAENet, images: Tensor, batch: int, posterior: bool, device: str) -> Record:
    """Measures a net on a test set, decoded from indices.

    Returns:
        "mse" over pixels in [0, 1]; those of `hard_usage`; for a method with a posterior also the
        training forward's figures at the test latents, "perplexity_soft_batch", "entropy" (mean
        H(q(c|x)), nats) and, for GM-VQ, "latent_std", "log_latent_std" and "weight"; "batches",
        "mse", "perplexity" and "entropy" of each full batch.
    """
    net.eval()
    errors, indices, soft = [], [], []
    for start in range(0, len(images), batch):
        x = images[start : start + batch].to(device).float() / 255
        z = net.latents(x)
        index = net.bottleneck.encode(z)
        x_hat = net.reconstruct(net.bottleneck.decode(index))
        errors.append((x_hat - x).square().mean((1, 2, 3)).cpu())
        indices.append(index.cpu())
        if posterior:
            soft.append(posterior_figures(net.bottleneck, z))
    record: Record = {"mse": float(torch.cat(errors).mean())}
    record |= hard_usage(indices, net.bottleneck.num_codes())
    full = sum(len(error) == len(errors[0]) for error in errors)
    batches = {"mse": [float(error.mean()) for error in errors[:full]]}
    if soft:
        batches |= {name: [figures[name] for figures in soft[:full]] for name in soft[0]}
        record |= {name: sum(values) / full for name, values in batches.items() if name != "mse"}
        record["perplexity_soft_batch"] = record.pop("perplexity")
        if "latent_std" in record:
            record["log_latent_std"] = math.log(record["latent_std"])
    return record | {"batches": batches}


@torch.no_grad()
def coded_bits(net: SQVAENet, images: ImageSet, settings: Settings, device: str) -> float:
    """Returns the bits a token of all test pictures as one file, one below the other.

    The coder's tables are learnt from the training pictures.
    """
    net.eval()

    def grid(pictures: Tensor) -> NDArray[np.int64]:
        parts = [
            net.bottleneck.encode(net.latents(part.to(device).float() / 255))[:, 0].flatten(0, 1)
            for part in pictures.split(settings.batch)
        ]
        return torch.cat(parts).cpu().numpy()

    stride = 2**settings.stages
    bottleneck, size = net.bottleneck, settings.size
    tables = coded.tables_of([grid(images.train)], bottleneck, size, IMAGE, stride)
    test = grid(images.test)
    width = images.test.shape[-1]
    return coded.bits(test, bottleneck.num_codes(size), tables, width) / test.size


def posterior_figures(bottleneck: Bottleneck, z: Tensor) -> dict[str, float]:
    """Returns the stats of a training forward at z.

    It is done on a copy and apart from the random state, so that nothing changes.
    """
    with torch.random.fork_rng(devices=[z.device] if z.is_cuda else []):
        out = copy.deepcopy(bottleneck).train()(z)
    return {name: float(value) for name, value in out.stats.items()}
