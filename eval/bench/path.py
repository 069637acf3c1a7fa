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
import dataclasses
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from codec.errors import CodecError, MediaError
from codec.streams import process

ROOT = Path(__file__).parents[2]
RATE = 16000
SIZE = 1024
SPEECH_S = {"speed": (10, 300), "scaling": (1, 60, 600, 3600)}
MEGAPIXELS = {"speed": (0.4, 12), "scaling": (0.1, 1, 12, 50)}
STARTS = {
    "import torch": ("-c", "import torch"),
    "--help": ("-m", "codec.compress", "--help"),
    "codec.load": ("-c", "import codec; codec.load('speech-fsp')"),
    "compress 1 s": ("-m", "codec.compress", "-qf", "one.wav", "one.bin"),
    "decompress 1 s": ("-m", "codec.decompress", "-qf", "one.bin", "again.wav"),
    "compress 256^2": ("-m", "codec.compress", "-qf", "one.bmp", "one.bmp.bin"),
    "decompress 256^2": ("-m", "codec.decompress", "-qf", "one.bmp.bin", "again.png"),
}
# A process's peak begins with that of the one that started it, so a small one starts the measured
# command.
LAUNCHER = """
import os, sys, time
start, quiet = time.perf_counter(), [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
started = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(started, 0)
seconds = used.ru_utime + used.ru_stime, time.perf_counter() - start
print(os.waitstatus_to_exitcode(status), *seconds, used.ru_maxrss / 1024)
"""
STAGES = ("read", "encoder", "nearest code", "coder", "decoder", "write", "rest")


# -------------------------------------------------------------------------- in the measured process


@contextmanager
def stopwatch(spent: dict[str, float], name: str) -> Iterator[None]:
    """Adds the CPU seconds of its body to `spent[name]`."""
    start = time.process_time()
    try:
        yield
    finally:
        spent[name] = spent.get(name, 0.0) + time.process_time() - start


def watch(owner: Any, method: str, spent: dict[str, float], stage: str) -> None:
    """Has every call of a method counted under a stage, and what a generator does in between."""
    original = getattr(owner, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        with stopwatch(spent, stage):
            result = original(*args, **kwargs)
        return steps(result) if isinstance(result, Iterator) else result

    def steps(values: Iterator[Any]) -> Iterator[Any]:
        while True:
            with stopwatch(spent, stage):
                value = next(values, None)
            if value is None:
                return
            yield value

    setattr(owner, method, counted)


def gflops(size: int = 768) -> float:
    """Measures what a float32 matrix product of MKL or oneDNN reaches.

    Returns:
        In 1e9 floating-point operations per CPU second.
    """
    import torch

    a, b = torch.randn(2, size, size)
    products: list[Callable[[], Any]] = [lambda: a @ b]
    if torch.backends.mkldnn.is_available():
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "none"))
    spent = []
    for product in 6 * products:
        start = time.process_time()
        product()
        spent.append(time.process_time() - start)
    return 2 * size**3 / min(spent) / 1e9


def load(name: str, preset: str) -> Any:
    """Loads a shipped model, or makes one of its kind with fresh nets of another preset.

    Fresh nets are as fast as trained ones.
    """
    import torch

    from codec import cards, coding

    model = coding.load(cards.find(name))
    if preset == "shipped":
        return model
    from codec.model import CodecConfig, build
    from codec.nets import NETS  # an older checkout has none, and shipped models need none

    config = model.codec.config
    torch.manual_seed(0)
    sizes = NETS[config.kind].presets[preset]
    nets = build(CodecConfig(config.medium, sizes, config.bottleneck, config.options, config.kind))
    nets.bottleneck.load_state_dict(model.codec.bottleneck.state_dict())
    return dataclasses.replace(model, codec=nets.eval().requires_grad_(False))


def operations(model: Any) -> dict[str, float]:
    """Counts the floating-point operations of either net, per second of speech or per pixel."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    codec = model.codec
    speech = codec.axes == 1
    side = 100 if speech else 16
    x = torch.rand(1, codec.channels, *[side * codec.stride] * codec.axes)
    z = torch.zeros(1, codec.bottleneck.dim, *[side] * codec.axes)
    units = x.shape[-1] / RATE if speech else x[0, 0].numel()
    found = {}
    nets: dict[str, Callable[[], object]] = {
        "encoder": lambda: codec.encoder(x),
        "decoder": lambda: codec.decoder(z, SIZE),
    }
    for name, net in nets.items():
        # It does not know fused layers.
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            net()
        found[name] = float(counter.get_total_flops()) / units
    return found


def container() -> list[Any]:
    """The modules of a checkout that read, write and code; the first has the reader."""
    try:
        return [
            import_module(f"codec.container.{name}") for name in ("reader", "writer", "payloads")
        ]
    except ModuleNotFoundError:  # a checkout in which they were one
        return [import_module("codec.bitstream")]


def once(model: Any, data: bytes, spent: dict[str, float]) -> dict[str, Any]:
    """Compresses and decompresses one file in memory.

    Returns:
        The CPU seconds of both directions by stage, and hashes of what came out.
    """
    from codec import coding
    from codec.media import AudioWriter, load_image, save_image

    speech = model.card.medium == "speech"
    found: dict[str, Any] = {}

    def direction(name: str, work: Callable[[], Any]) -> Any:
        spent.clear()
        start, clock = time.process_time(), time.perf_counter()
        result = work()
        total = time.process_time() - start
        stages = spent | {"rest": total - sum(spent.values())}
        found[name] = {"cpu_s": total, "clock_s": time.perf_counter() - clock, "stages": stages}
        return result

    def compress() -> tuple[bytes, float]:
        out = io.BytesIO()
        if speech:
            with stopwatch(spent, "read"):
                blocks, rate, channels = coding.open_speech(io.BytesIO(data), False)
                blocks = iter(list(blocks))
            written = coding.compress_speech(blocks, rate, channels, out, model, SIZE)
        else:
            with stopwatch(spent, "read"):
                pixels = load_image(io.BytesIO(data))
            written = coding.compress_image(pixels, out, model, SIZE)
        return out.getvalue(), written.units

    def decompress() -> Any:
        reader = container()[0].Reader(io.BytesIO(packed))
        out = io.BytesIO()
        digest = hashlib.sha256()
        if speech:
            writer = AudioWriter(out, RATE, 1)
            for block in coding.decompress_speech(reader, model):
                digest.update((block * 32768).round().clip(-32768, 32767).astype("<i2").tobytes())
                with stopwatch(spent, "write"):
                    writer.write(block)
            writer.close()
        else:
            pixels = coding.decompress_image(reader, model)
            digest.update(pixels.tobytes())
            with stopwatch(spent, "write"):
                save_image(out, pixels)
        return digest.hexdigest()

    packed, units = direction("compress", compress)
    found["signal"] = direction("decompress", decompress)
    return found | {
        "units": units,
        "bytes": len(packed),
        "bitstream": hashlib.sha256(packed).hexdigest(),
    }


def worker(name: str, preset: str, threads: int) -> None:
    """Answers each file's name on stdin with a line of JSON."""
    import torch

    torch.set_num_threads(threads)
    model = load(name, preset)
    answer = {"operations": operations(model), "gflops": gflops(), "torch": torch.__version__}
    spent: dict[str, float] = {}
    for owner, method, stage in (
        (model.codec.encoder, "forward", "encoder"),
        (model.codec, "latents_of_rows", "encoder"),
        (model.codec, "pixels_of_rows", "decoder"),
        (model.codec.decoder, "forward", "decoder"),
        (model.codec.bottleneck, "encode", "nearest code"),
        *(
            (module, method, "coder")
            for module in container()
            for method in ("encode_indices", "decode_indices")
        ),
    ):
        if hasattr(owner, method):  # another checkout may do without
            watch(owner, method, spent, stage)
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        found = once(model, Path(line.strip()).read_bytes(), spent)
        print(json.dumps(found), flush=True)


# --------------------------------------------------------------------------------- in the measuring


class Worker:
    """A process that measures one checkout; `hello` is what it says of the machine."""

    def __init__(self, tree: Path, name: str, preset: str, threads: int) -> None:
        command = [sys.executable, "-P", __file__, "--worker", name, preset, str(threads)]
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


def make_media(
    data: Path, folder: Path, seconds: tuple[float, ...], megapixels: tuple[float, ...]
) -> dict[str, Path]:
    """Makes media to measure: real speech joined to lengths, real photographs tiled to sizes.

    Returns:
        The files by their names, such as "60 s" and "4 MP".
    """
    import numpy as np
    import soundfile
    from PIL import Image

    from codec.files import walk
    from codec.media import load_audio, load_image

    made = {}
    clips = [
        load_audio(io.BytesIO(content), RATE)[0] for _, content in walk([data / "speech-test.tar"])
    ]
    if not clips:
        raise MediaError(f"{data / 'speech-test.tar'} is empty; copy it again")
    speech = np.concatenate([clip.mean(1) for clip in clips])
    for length in seconds:
        made[f"{length:g} s"] = folder / f"{length:g}.wav"
        soundfile.write(made[f"{length:g} s"], np.resize(speech, int(length * RATE)), RATE)
    photos = [load_image(io.BytesIO(content)) for _, content in walk([data / "image-kodak-00.tar"])]
    if not photos:
        raise MediaError(f"{data / 'image-kodak-00.tar'} is empty; copy it again")
    photos = [photo for photo in photos if photo.shape == photos[0].shape]
    height, width = photos[0].shape[:2]
    for size in megapixels:
        side = (1e6 * size / (height * width)) ** 0.5
        rows, columns = round(side * height), round(side * width)
        across, down = -(-columns // width), -(-rows // height)
        strips = [
            np.concatenate(
                [photos[(across * row + column) % len(photos)] for column in range(across)], 1
            )
            for row in range(down)
        ]
        made[f"{size:g} MP"] = folder / f"{size:g}.bmp"
        Image.fromarray(np.concatenate(strips)[:rows, :columns]).save(made[f"{size:g} MP"])
    return made


def fits(name: str, label: str) -> bool:
    """Says whether a model is of the medium of a file that `make_media` calls `label`."""
    from codec import cards

    return (cards.find(name).medium == "image") == label.endswith("MP")


def speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures the stages of both directions.

    With `--against` there is also the median ratio other / this of neighbouring turns.
    """
    made = make_media(options.data, folder, SPEECH_S["speed"], MEGAPIXELS["speed"])
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


@dataclass(frozen=True, slots=True)
class Spent:
    """What a command took of the machine."""

    cpu_s: float
    clock_s: float
    peak_mib: float


def spend(arguments: Iterable[object], folder: Path, tree: Path, threads: int) -> Spent:
    """Runs Python with these arguments, on a checkout's packages.

    Raises:
        CodecError: The command failed.
    """
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *map(str, arguments)]
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(
        launcher, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    code, cpu_s, clock_s, peak_mib = map(float, done.stdout.split())
    if code:
        raise CodecError(
            f"{' '.join(command)}: failed with exit code {code:.0f}; its message is above"
        )
    return Spent(cpu_s, clock_s, peak_mib)


def startup(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Medians over the turns.

    With `--against` also of the ratio other / this of neighbouring turns.
    """
    made = make_media(options.data, folder, (1,), (256 * 256 / 1e6,))
    for path in made.values():
        path.rename(folder / f"one{path.suffix}")
    rows = {}
    for label, arguments in STARTS.items():
        trees = [tree for tree in (ROOT, options.against) if tree]
        turns = [
            [spend(arguments, folder, tree, options.threads) for tree in trees]
            for _ in range(options.turns)
        ]
        rows[label] = row = {
            name: median(getattr(turn[0], name) for turn in turns) for name in Spent.__slots__
        }
        ratio = ""
        if options.against:
            row["other_cpu"] = median(turn[1].cpu_s / turn[0].cpu_s for turn in turns)
            row["other_peak"] = median(turn[1].peak_mib / turn[0].peak_mib for turn in turns)
            ratio = (
                f"; the other takes {row['other_cpu']:.2f} x the CPU time and "
                f"{row['other_peak']:.2f} x the memory"
            )
        print(
            f"{label:16} {row['cpu_s']:6.2f} CPU s {row['clock_s']:6.2f} s {row['peak_mib']:6.0f} "
            f"MiB{ratio}",
            flush=True,
        )
    return rows


def scaling(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures the CPU seconds per unit and the peak memory of both commands.

    The seconds of the smallest file are nearly all the start's, so that a unit is what a larger one
    takes beyond it: more seconds over more units. With `--against` each file goes through both
    checkouts in turn, and there is also the ratio other / this.
    """
    made = make_media(options.data, folder, SPEECH_S["scaling"], MEGAPIXELS["scaling"])
    trees = [tree for tree in (ROOT, options.against) if tree]
    rows: dict[str, Any] = {}
    for name in options.models:
        first: tuple[float, list[dict[str, Spent]]] | None = None
        for label, path in made.items():
            if not fits(name, label):
                continue
            seconds = label.endswith(" s")
            units = float(label.split()[0]) / (60 if seconds else 1)
            load = os.getloadavg()[0]
            turn = [_there_and_back(path, name, folder, tree, options.threads) for tree in trees]
            first = first or (units, turn)
            row = {
                way: _growth(
                    [one[way] for one in turn], units, first[0], [o[way] for o in first[1]]
                )
                for way in turn[0]
            }
            rows[f"{name} {label}"] = {"load": load, **row}
            unit = "minute" if seconds else "megapixel"
            shown = ", ".join(f"{way} {_grown(row[way], unit)}" for way in turn[0])
            print(f"{name:12} {label:8} {shown}", flush=True)
    return rows


def _there_and_back(
    path: Path, model: str, folder: Path, tree: Path, threads: int
) -> dict[str, Spent]:
    """Runs both commands of a checkout on a file."""
    packed = folder / "packed.bin"
    restored = folder / f"restored.{'wav' if path.suffix == '.wav' else 'png'}"
    return {
        way: spend(("-m", f"codec.{way}", "-qf", *words), folder, tree, threads)
        for way, words in (
            ("compress", (path, packed, "-m", model)),
            ("decompress", (packed, restored)),
        )
    }


def _growth(
    turn: list[Spent], units: float, first_units: float, first: list[Spent]
) -> dict[str, Any]:
    """Returns the figures of a command on a file, of this checkout and beside another.

    Args:
        turn: What it took in each checkout, this one first.
        units: The file's minutes or megapixels.
        first_units: Those of the smallest file.
        first: What that took.
    """
    found: list[dict[str, Any]] = [
        dataclasses.asdict(spent)
        | {
            "cpu_s_per_unit": (spent.cpu_s - least.cpu_s) / (units - first_units)
            if units > first_units
            else None  # there is nothing below it
        }
        for spent, least in zip(turn, first, strict=True)
    ]
    if len(turn) > 1:
        found[0] |= {
            "other": found[1],
            "other_cpu": turn[1].cpu_s / turn[0].cpu_s,
            "other_peak": turn[1].peak_mib / turn[0].peak_mib,
        }
    return found[0]


def _grown(row: dict[str, Any], unit: str) -> str:
    """Returns the figures of `_growth` as text."""
    pace = row["cpu_s_per_unit"]
    text = f"{row['cpu_s']:.2f} CPU s" if pace is None else f"{pace:.3f} CPU s a {unit}"
    text += f" in {row['peak_mib']:.0f} MiB"
    if "other" in row:
        text += (
            f" (the other takes {row['other_cpu']:.2f} x the CPU time and "
            f"{row['other_peak']:.2f} x the memory)"
        )
    return text


BENCHMARKS = {"speed": speed, "startup": startup, "scaling": scaling}


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--worker"]:
        worker(arguments[1], arguments[2], int(arguments[3]))
        return 0
    # Here and not above: the measured process takes codec from the other checkout, which may be
    # older than what these import.
    from codec.cli.frame import Parser, filled_path, new_file, positive, run

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
    from codec import cards
    from codec.cli.frame import UsageError
    from eval.bench import timing

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
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = BENCHMARKS[name](options, Path(folder))
    if options.out:
        timing.save(options.out, figures)


if __name__ == "__main__":
    sys.exit(process(main))
