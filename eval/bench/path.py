"""python -m eval.bench.path: where the time of compress and decompress goes.

It is measured from the file's bytes to the file's bytes.

    speed     each stage in CPU seconds per unit (minute of speech, megapixel), times real time or
              megapixel/s, and the share of the machine's own matrix product that the nets reach
    startup   seconds until a command is done, for what takes no time itself
    scaling   seconds and peak memory of whole commands as the work grows

The media are real, joined or tiled to the lengths that are wanted. `--against TREE` runs another
checkout in turn with this one, file by file, and compares bytes and decoded signals. CPU seconds
are those of the process, which a busy machine inflates less than the clock; the load average stands
beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from codec import cards
from codec.cli.frame import Parser, UsageError, filled_path, new_file, positive, run
from codec.errors import CodecError
from codec.files import temporary_folder
from codec.streams import process
from eval.bench import measured, timing
from eval.bench.commands import ROOT, scaling, startup
from eval.bench.material import fits, make_media

SPEECH_S = (10, 300)
MEGAPIXELS = (0.4, 12)
STAGES = ("read", "encoder", "nearest code", "coder", "decoder", "write", "rest")


class Worker:
    """A process that measures one checkout; `hello` is what it says of the machine."""

    def __init__(self, tree: Path, name: str, preset: str, threads: int) -> None:
        command = [sys.executable, "-P", measured.__file__, name, preset, str(threads)]
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_WAIT_POLICY": "PASSIVE"}
        self._tree = tree
        self._process = subprocess.Popen(
            command,
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hello = self._answer()

    def measure(self, path: Path) -> dict[str, Any]:
        """Measures one file."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # of a process that has failed, which `_answer` tells
            print(path, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise CodecError(f"{self._tree}: the measured process failed; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures the stages of both directions.

    With `--against` there is also the median ratio other / this of neighbouring turns.
    """
    made = make_media(options.data, folder, SPEECH_S, MEGAPIXELS)
    rows: dict[str, Any] = {}
    for name in options.models:
        for preset in options.presets:
            workers = [
                Worker(tree, name, preset, options.threads)
                for tree in (ROOT, options.against)
                if tree
            ]
            for label, path in made.items():
                if not fits(name, label):
                    continue
                turns = [[w.measure(path) for w in workers] for _ in range(options.turns + 1)][1:]
                rows[f"{name} {preset} {label}"] = row = summary(workers[0].hello, turns)
                show(f"{name} {preset} {label}", row)
            for w in workers:
                w.close()
    return rows


def summary(hello: dict[str, Any], turns: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the stages and speed of the fastest turn, and the ratios over all turns."""
    result: dict[str, Any] = {
        "load": os.getloadavg()[0],
        "sgemm_gflops": hello["gflops"],
        "torch": hello["torch"],
    }
    for way, net in (("compress", "encoder"), ("decompress", "decoder")):
        best = min((turn[0][way] for turn in turns), key=lambda found: found["cpu_s"])
        units, stages = turns[0][0]["units"], best["stages"]
        result[way] = {
            "units_per_cpu_s": units / best["cpu_s"],
            "units_per_clock_s": units / min(turn[0][way]["clock_s"] for turn in turns),
            "shares": {stage: stages[stage] / best["cpu_s"] for stage in STAGES if stage in stages},
            "of_sgemm": hello["operations"][net] * units / stages[net] / 1e9 / hello["gflops"],
        }
        if len(turns[0]) > 1:
            result[way]["faster_than_other"] = median(
                turn[1][way]["cpu_s"] / turn[0][way]["cpu_s"] for turn in turns
            )
    if len(turns[0]) > 1:
        result["equal"] = {
            key: turns[0][0][key] == turns[0][1][key] for key in ("bitstream", "signal")
        }
    return result


def show(label: str, row: dict[str, Any]) -> None:
    """Prints two lines of the table."""
    scale, unit = (1, "x real time") if label.endswith(" s") else (1e-6, "MP/s")
    for way in ("compress", "decompress"):
        found = row[way]
        shares = ", ".join(
            f"{stage} {share:.0%}" for stage, share in found["shares"].items() if share > 0.005
        )
        ratio = (
            f", {found['faster_than_other']:.2f} x the other"
            if "faster_than_other" in found
            else ""
        )
        print(
            f"{label:28} {way:10} {scale * found['units_per_cpu_s']:7.2f} {unit} a CPU "
            f"second{ratio}; net at {found['of_sgemm']:.0%} of sgemm; {shares}"
        )
    if "equal" in row:
        print(f"{'':28} equal to the other: {row['equal']}")
    sys.stdout.flush()


BENCHMARKS = {"speed": speed, "startup": startup, "scaling": scaling}


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m eval.bench.path", description=__doc__, epilog="See docs/speed.md"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all"
    )
    parser.add_argument(
        "--data",
        type=filled_path,
        required=True,
        help="folder of speech-test.tar and image-kodak-00.tar",
    )
    parser.add_argument("--models", nargs="+", default=["speech-fsp", "image-fsp"], metavar="MODEL")
    parser.add_argument(
        "--presets", nargs="+", default=["shipped", "small"], choices=("shipped", "tiny", "small")
    )
    parser.add_argument(
        "--against", type=filled_path, metavar="TREE", help="another checkout, to compare with"
    )
    parser.add_argument("--threads", type=positive(int), default=1)
    parser.add_argument("--turns", type=positive(int), default=5)
    parser.add_argument("--out", type=new_file, metavar="FILE", help="figures as JSON")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    for name in options.models:
        cards.find(name)  # is it there?
    if options.against:
        options.against = options.against.resolve()  # commands run in other folders
        if not (options.against / "codec").is_dir():
            raise UsageError(f"--against {options.against} is no checkout; it has no folder codec")
    if unknown := set(options.names) - BENCHMARKS.keys():
        raise UsageError(
            f"no benchmark {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}"
        )
    figures: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "threads": options.threads,
    }
    for name in options.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
            figures[name] = BENCHMARKS[name](options, Path(folder))
    if options.out:
        timing.save(options.out, figures)


if __name__ == "__main__":
    sys.exit(process(main))
