"""python -m train.speed RECIPE... --data PATH: the time of a step of each stage, and where it goes.

Each stage is timed after it has warmed up (compiled, filled VP's queue, recorded its CUDA graph);
on a GPU as it is and as a graph, where there is one. The profile names what took longest.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from codec.cli.frame import Parser, filled_path, positive, run, within
from codec.files import temporary_folder
from codec.streams import process
from train import losses, recipes
from train.budget import Budget
from train.denormals import flushed
from train.fleet import gpu_state
from train.loop import Trainer
from train.options import add_data, add_device, add_threads
from train.recipe import STAGES
from train.store import Store

STEPS_TO_COME = 10**6  # a budget that ends no stage
BOUND_STEPS = 3
# More steps before the clock starts: each codebook size of stage C and of coupled methods is
# recorded.
GRAPH_WARM = 40


def measure(trainer: Trainer, steps: int, warm: int) -> float:
    """Returns the steps per second, after some to warm up."""
    for _ in range(warm):
        trainer.train_step()
    _wait(trainer.device)
    start = time.monotonic()
    for _ in range(steps):
        trainer.train_step()
    _wait(trainer.device)
    return steps / (time.monotonic() - start)


def bound(trainer: Trainer, seconds: float) -> str:
    """Says what a step of that many seconds waits for; empty on a CPU.

    It is the device at work, or the host that feeds it.
    """
    if torch.device(trainer.device).type != "cuda":
        return ""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        for _ in range(BOUND_STEPS):
            trainer.train_step()
        _wait(trainer.device)
    events = [event for event in found.events() or [] if event.device_type.name == "CUDA"]
    busy = sum(event.time_range.elapsed_us() for event in events) / 1e6 / BOUND_STEPS
    side = "device" if busy > 0.8 * seconds else "host"
    kernels = len(events) // BOUND_STEPS
    return f", {kernels} kernels, device busy {1000 * busy:.3g} ms: bound by the {side}"


def hottest(trainer: Trainer, steps: int, rows: int) -> str:
    """Returns the profiler's table of the operations that took longest."""
    cuda = torch.device(trainer.device).type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, acc_events=True) as found:
        for _ in range(steps):
            trainer.train_step()
        _wait(trainer.device)
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    return str(found.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=60))


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.speed", description=__doc__, epilog="See docs/speed.md")
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    add_data(parser)
    parser.add_argument("--steps", type=positive(int), default=20)
    parser.add_argument(
        "--warm", type=within(int, 0), default=5, help="steps before the clock starts"
    )
    parser.add_argument(
        "--stages", type=_stages, default="AB", help="of A, B and C (which builds a codebook first)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--lpips-backbone", type=filled_path, metavar="FILE", help="for recipes with losses.lpips"
    )
    parser.add_argument(
        "--profile",
        type=within(int, 0),
        default=0,
        metavar="ROWS",
        help="prints the longest operations",
    )
    add_threads(parser)
    add_device(parser)
    with flushed():
        return run(parser, arguments, _command)


def _stages(text: str) -> str:
    """Returns the stages in their order: a run never goes back to one."""
    if not text or set(text) - set(STAGES) or len(set(text)) < len(text):
        raise argparse.ArgumentTypeError(f"want some of {', '.join(STAGES)}, each once, as in AB")
    return "".join(sorted(text))


def _command(options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    found = [recipes.load(name, options.set) for name in options.recipes]
    losses.check_backbone(options.lpips_backbone, *(recipe.losses for recipe in found))
    for name, recipe in zip(options.recipes, found, strict=True):
        medium, crop = recipe.codec.medium, tuple(recipe.data.crop)
        store = Store(options.data, medium, crop, recipe.data.zoom).to(options.device)
        with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
            budget = Budget(steps=STEPS_TO_COME)
            trainer = Trainer(
                recipe,
                store,
                budget,
                Path(folder),
                0,
                options.device,
                options.compile,
                options.lpips_backbone,
            )
            recordable = trainer.graphs.enabled
            for stage in options.stages:
                trainer.enter(stage)
                for kind, recorded in {"eager": False, "graph": True}.items():
                    if recorded and not recordable:
                        continue
                    trainer.graphs.enabled = recorded
                    rate = measure(
                        trainer, options.steps, options.warm + (GRAPH_WARM if recorded else 0)
                    )
                    failed = recorded and not trainer.graphs.enabled
                    tokens = rate * trainer.tokens_per_step
                    facts = f"{1000 / rate:.3g} ms a step, {tokens:.4g} tokens/s"
                    facts += bound(trainer, 1 / rate) + (" (no graph: see above)" if failed else "")
                    print(
                        f"{name}, stage {trainer.stage}, {kind}: {facts} {gpu_state()}".rstrip(),
                        flush=True,
                    )
                if options.profile:
                    print(hottest(trainer, 3, options.profile), flush=True)


if __name__ == "__main__":
    sys.exit(process(main))
