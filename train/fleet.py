"""python -m train.fleet PLAN --data MEDIUM=PATH --work DIR --out DIR: several trainings.

They run side by side.

A plan is a TOML file, or one of those shipped (in train/plans): for each run its recipe and what
differs. A run may begin with the nets of another, its `init`, and waits for that. Media take turns,
in the plan's order, since two of them side by side slow each other down; --together trains both at
once.

    plan ──one process each, python -m train──> WORK/NAME ──python -m train.export──> OUT/NAME.tar

Begun again with the same --work it goes on from the last checkpoints, so a lease may end at any
moment. Each NAME.tar holds the model, its card, its log, and the discriminator where all fits;
unpacked into one folder, --init FOLDER makes another fleet begin from these models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Container, Iterable
from pathlib import Path

from tqdm import tqdm

from codec.cli import frame
from codec.cli.frame import Parser, filled, filled_path, positive, within
from codec.errors import CodecError
from codec.medium import MEDIA
from codec.streams import process
from train import losses, recipes
from train.checkpoint import CHECKPOINT_NAME, read_checkpoint
from train.log import LOG_NAME, read
from train.options import add_device, add_threads
from train.pack import pack
from train.plan import Run, load_plan

CONSOLE = "console.txt"
GRACE_SECONDS = 30  # for a process to clean up after it was asked to end


class Fleet:
    """The runs of a plan at work.

    Args:
        runs: The runs to train.
        data: The prepared data of each medium.
        work: The folder of the runs, kept between calls.
        options: The options of the command line.
    """

    def __init__(
        self, runs: list[Run], data: dict[str, Path], work: Path, options: argparse.Namespace
    ) -> None:
        self.runs, self.data, self.work, self.options = runs, data, work, options
        self.begun = time.monotonic()
        self.threads = options.threads or max(
            1, (os.cpu_count() or 1) // min(options.jobs or len(runs), len(runs))
        )

    def train(self) -> list[str]:
        """Trains all runs, `jobs` at a time, until they are done or the time is up.

        Returns:
            The names of those that failed.
        """
        active: dict[str, subprocess.Popen[bytes]] = {}
        waiting: list[Run] = list(self.runs)
        failed: list[str] = []
        report = time.monotonic()
        try:
            while waiting or active:
                while (run := self._next(waiting, active)) is not None:
                    waiting.remove(run)
                    try:
                        active[run.name] = self._start(self._training(run), run)
                    except CodecError as error:
                        _tell(f"{run.name}: not begun: {error}")
                        failed += [run.name, *_drop(waiting, run.name)]
                for name, process in list(active.items()):
                    if process.poll() is not None:
                        del active[name]
                        if process.returncode:
                            _tell(f"{name}: failed: {self._last_line(name)}")
                            failed += [name, *_drop(waiting, name)]
                if self._late() and not active:
                    break
                if time.monotonic() - report >= self.options.report_seconds:
                    report = time.monotonic()
                    self.report()
                time.sleep(0.2)
        finally:
            _end(active.values())
        self.report()
        return failed

    def export(self, out: Path) -> list[str]:
        """Exports and packs every run that has a checkpoint.

        Returns the names of those that failed, or that have none.
        """
        ready = [run for run in self.runs if (self.work / run.name / CHECKPOINT_NAME).is_file()]
        failed = [run.name for run in self.runs if run not in ready]
        for name in failed:
            _tell(f"{name}: no checkpoint, so there is nothing to export")
        jobs = self.options.jobs or max(1, len(ready))
        for first in range(0, len(ready), jobs):
            started: list[tuple[Run, subprocess.Popen[bytes]]] = []
            try:
                for run in ready[first : first + jobs]:
                    started.append((run, self._start(self._exporting(run), run)))
                failed += [
                    run.name for run, process in started if not self._packed(run, process, out)
                ]
            finally:
                _end(process for _, process in started)
        return failed

    def _packed(self, run: Run, process: subprocess.Popen[bytes], out: Path) -> bool:
        """Packs a run when its export has ended, and says whether that went well."""
        if process.wait():
            _tell(f"{run.name}: export failed: {self._last_line(run.name)}")
            return False
        try:
            kept = pack(
                self.work / "models", run.name, self.work / run.name, out, self.options.pack_mib
            )
        except (CodecError, OSError) as error:  # the others are packed all the same
            _tell(f"{run.name}: not packed: {error}")
            return False
        print(f"{out / run.name}.tar: {', '.join(kept)}", flush=True)
        return True

    def report(self) -> None:
        """Prints one line for each run, and one for the GPU."""
        lines = []
        for run in self.runs:
            last = (read(self.work / run.name / LOG_NAME) or [{}])[-1]
            shown = ["step", "minutes", "stage", "loss", "steps_per_s"]
            values = {key: last[key] for key in shown if key in last}
            if last.get("steps_per_s"):
                values["ms_per_step"] = f"{1000 / last['steps_per_s']:.3g}"
            lines.append(
                f"{run.name}: "
                + (" ".join(f"{k} {v}" for k, v in values.items()) or "nothing logged yet")
            )
        tqdm.write("\n".join([f"[{time.monotonic() - self.begun:.0f} s] {gpu_state()}", *lines]))
        sys.stdout.flush()

    def _next(self, waiting: list[Run], active: Container[str]) -> Run | None:
        """Returns the run to start now, if there is one.

        There must be room and time, it must be its medium's turn, and what it begins with must be
        trained.
        """
        busy = [run for run in self.runs if run.name in active]
        if not waiting or len(busy) >= (self.options.jobs or len(self.runs)) or self._late():
            return None
        turn = (busy or waiting)[0].medium
        unfinished = {run.name for run in [*busy, *waiting]}
        ready = (run for run in waiting if self.options.together or run.medium == turn)
        return next((run for run in ready if run.init not in unfinished), None)

    def _late(self) -> bool:
        stop = self.options.stop_minutes
        return stop is not None and time.monotonic() - self.begun >= stop * 60

    def _training(self, run: Run) -> list[str]:
        """Returns the command that trains a run, or goes on with it.

        Raises:
            CodecError: What it begins from is not there; it would train from random weights.
        """
        options, folder = self.options, self.work / run.name
        command = [
            "-m",
            "train",
            run.recipe,
            "--data",
            self.data[run.medium],
            "--out",
            folder,
            "--seed",
            run.seed,
        ]
        command += (
            ["--steps", options.steps]
            if options.minutes is None
            else ["--minutes", options.minutes]
        )
        command += [
            "--device",
            options.device,
            "--threads",
            self.threads,
            "--log-steps",
            options.log_steps,
        ]
        command += ["--checkpoint-minutes", options.checkpoint_minutes]
        changes = [*run.set, *options.set]
        for change in changes:
            command += ["--set", change]
        if options.compile:
            command.append("--compile")
        weights = recipes.load(run.recipe, changes).losses
        if options.lpips_backbone is not None and weights.get("lpips"):
            command += ["--lpips-backbone", options.lpips_backbone]
        if options.stop_minutes is not None:
            left = options.stop_minutes - (time.monotonic() - self.begun) / 60
            command += ["--stop-minutes", max(left, 0.01)]
        if (folder / CHECKPOINT_NAME).is_file():
            command.append("--resume")
        elif options.init and (options.init / f"{run.name}.json").is_file():
            command += ["--init", options.init / f"{run.name}.json"]
        elif run.init is not None and (self.work / run.init / CHECKPOINT_NAME).is_file():
            command += ["--init", self.work / run.init]
        elif run.init is not None:
            raise CodecError(f"{self.work / run.init} has no checkpoint to begin from")
        elif options.init:
            _tell(f"{run.name}: there is no {run.name}.json in {options.init}: random weights")
        return [str(part) for part in command]

    def _exporting(self, run: Run) -> list[str]:
        folder = self.work / run.name
        command = [
            "-m",
            "train.export",
            folder,
            "--data",
            self.data[run.medium],
            "--out",
            self.work / "models",
        ]
        return [
            str(part) for part in [*command, "--name", run.name, "--device", self.options.device]
        ]

    def _start(self, command: list[str], run: Run) -> subprocess.Popen[bytes]:
        folder = self.work / run.name
        folder.mkdir(parents=True, exist_ok=True)
        threads = {
            name: str(self.threads) for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
        }
        with (folder / CONSOLE).open("ab") as console:
            return subprocess.Popen(
                [sys.executable, *command],
                stdout=console,
                stderr=subprocess.STDOUT,
                env=os.environ | threads,
            )

    def _last_line(self, name: str) -> str:
        lines = (self.work / name / CONSOLE).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"see {self.work / name / CONSOLE}"


def _drop(waiting: list[Run], name: str) -> list[str]:
    """Takes what begins from a run that failed, and what begins from that, out of those that wait.

    Returns their names.
    """
    dropped = []
    for run in [run for run in waiting if run.init == name]:
        waiting.remove(run)
        _tell(f"{run.name}: not begun: {name} failed")
        dropped += [run.name, *_drop(waiting, run.name)]
    return dropped


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(started: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ends what still runs, so that an interrupted fleet leaves no process behind."""
    running = [one for one in started if one.poll() is None]
    for one in running:
        one.terminate()
    for one in running:
        try:
            one.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


def gpu_state() -> str:
    """Returns what nvidia-smi says of use and memory; empty where there is no such program."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return "GPU " + "; ".join(found.stdout.strip().splitlines())
    except (OSError, subprocess.SubprocessError):
        return ""


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m train.fleet",
        description=__doc__,
        epilog="See docs/train.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", help="six, dedicated, queues, stages, stages-tiny, or a .toml file")
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="MEDIUM=PATH",
        help="prepared data; once for each medium",
    )
    parser.add_argument(
        "--work",
        type=filled_path,
        required=True,
        metavar="DIR",
        help="folder of the runs, kept between calls",
    )
    parser.add_argument(
        "--out", type=filled_path, required=True, metavar="DIR", help="receives a .tar for each run"
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument(
        "--minutes", type=positive(float), help="budget of each run, over all calls"
    )
    budget.add_argument("--steps", type=positive(int), help="budget of each run in steps")
    parser.add_argument(
        "--stop-minutes",
        type=positive(float),
        help="ends this call's training then, with checkpoints",
    )
    parser.add_argument("--only", type=filled, help="names of runs, with commas")
    parser.add_argument(
        "--jobs", type=positive(int), help="runs at a time (default: all that may run)"
    )
    parser.add_argument(
        "--together", action="store_true", help="both media at once, not one after the other"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="for all runs"
    )
    parser.add_argument(
        "--init",
        type=filled_path,
        metavar="DIR",
        help="begins with the models NAME.json in this folder",
    )
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--lpips-backbone", type=filled_path, metavar="FILE", help="for recipes with losses.lpips"
    )
    add_threads(parser, "CPU threads of each run (default: all, shared out)")
    parser.add_argument("--checkpoint-minutes", type=within(float, 0), default=2.0)
    parser.add_argument("--log-steps", type=positive(int), default=50)
    parser.add_argument("--report-seconds", type=positive(float), default=30.0)
    parser.add_argument("--pack-mib", type=positive(float), default=15.9, help="limit of each .tar")
    add_device(parser)
    told = "interrupted; the same command goes on from the checkpoints in {work}"
    return frame.run(parser, arguments, _command, told)


def _chosen(options: argparse.Namespace) -> list[Run]:
    """Returns the runs of the plan, or those that --only names.

    Raises:
        CodecError: One is not in the plan, or begins from a run that is not there.
    """
    runs = load_plan(options.plan)
    if not options.only:
        return runs
    wanted = options.only.split(",")
    if unknown := set(wanted) - {run.name for run in runs}:
        raise CodecError(
            f"--only {sorted(unknown)[0]}: not in the plan {[run.name for run in runs]}"
        )
    runs = [run for run in runs if run.name in wanted]
    for run in runs:
        if run.init not in (None, *wanted) and not _has_start(run, options):
            _check_trained(run, options.work / run.init / CHECKPOINT_NAME)
    return runs


def _has_start(run: Run, options: argparse.Namespace) -> bool:
    """Whether a run begins with a model of --init, or has begun before."""
    begun = (options.work / run.name / CHECKPOINT_NAME).is_file()
    return begun or bool(options.init and (options.init / f"{run.name}.json").is_file())


def _check_trained(run: Run, checkpoint: Path) -> None:
    """Raises CodecError where what a run begins from is not there, or not at its end."""
    wanted = "add that, or give --init DIR"
    if not checkpoint.is_file():
        raise CodecError(f"--only {run.name}: it begins from {run.init}; {wanted}")
    stage = read_checkpoint(checkpoint)["clock"][2]
    if stage != "C":  # every run ends in it
        raise CodecError(
            f"--only {run.name}: it begins from {run.init}, which has stopped in stage {stage}; "
            f"{wanted}"
        )


def _data(given: list[str]) -> dict[str, Path]:
    """Returns the data of each medium.

    Raises:
        CodecError: One is not MEDIUM=PATH, or a medium has two.
    """
    data: dict[str, Path] = {}
    for text in given:
        medium, _, path = text.partition("=")
        if medium not in MEDIA or not path:
            raise CodecError(f"--data {text}: want speech=PATH or image=PATH")
        if medium in data:
            raise CodecError(f"--data {text}: {medium} has {data[medium]} already; give one")
        data[medium] = Path(path)
    return data


def _command(options: argparse.Namespace) -> int:
    runs = _chosen(options)
    if options.init and not any(_has_start(run, options) for run in runs):
        raise CodecError(
            f"--init {options.init}: no NAME.json of a run there; the runs are "
            f"{', '.join(run.name for run in runs)}"
        )
    data = _data(options.data)
    if missing := {run.medium for run in runs} - set(data):
        raise CodecError(
            f"the plan trains on {', '.join(sorted(missing))}; add --data {sorted(missing)[0]}=PATH"
        )
    found = [recipes.load(run.recipe, [*run.set, *options.set]) for run in runs]
    losses.check_backbone(options.lpips_backbone, *(recipe.losses for recipe in found))
    for recipe in found:
        # Refused before anything starts.
        losses.build(recipe.codec.medium, recipe.losses, options.lpips_backbone)
    fleet = Fleet(runs, data, options.work, options)
    failed = fleet.train()
    failed += fleet.export(options.out)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(process(main))
