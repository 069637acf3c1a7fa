"""The process that `eval.bench.path` measures: one file after the other, there and back in memory.

    python eval/bench/measured.py MODEL PRESET THREADS      names of files on stdin, JSON on stdout

Its codec is that of the checkout on PYTHONPATH, which may be older than this file. So what an older
one may lack is imported where it is needed, and nothing of `eval`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from codec.streams import process

RATE = 16000
SIZE = 1024


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


def worker(name: str, preset: str, threads: int) -> int:
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
    return 0


if __name__ == "__main__":
    sys.exit(process(lambda: worker(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
