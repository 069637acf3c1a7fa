"""python -m codec.onnx MODEL --out DIR: a model's encoder and decoder as ONNX files.

They are for runtimes other than PyTorch.

    NAME.encoder.onnx   x (B, C, *N) float32
                        ─> indices_K (B, G, *S) int64, an output for each codebook size K
    NAME.decoder.onnx   indices (B, 1, *S) int64, codebook_size (B,) int64
                        ─> x_hat (B, C, *N) float32

B and the sizes are free; what is done before and after is not in the graphs:

    speech    x is 16 kHz in [-1, 1], one channel in C; pad the end by reflection to a multiple of
              96; cut x_hat back
    pictures  x is RGB / 255; pad right and bottom by reflection to multiples of 8; cut x_hat back
              and clip it to [0, 1]

A codebook size that the model does not offer decodes to noise; the metadata of both files
("codec.sizes") lists them. A runtime that computes every output searches every codebook: ask for
one and let onnxruntime leave out the rest (run option `only_execute_path_to_fetches`).
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec import cards, coding
from codec.cli.frame import Parser, filled_path, run
from codec.errors import CodecError, ModelError, not_installed
from codec.files import writing
from codec.model import Codec
from codec.nets.speech import STFT, reflect_index
from codec.quiet import no_warnings
from codec.streams import process

OPSET = 20  # the first with Gelu
_one_at_a_time = threading.Lock()  # what is logged is a matter of the whole process


class Encoder(nn.Module):
    """x (B, C, *N), N multiples of the stride -> indices (B, G, *S) of every codebook size."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.net, self.bottleneck = _with_plain_stft(codec.encoder), copy.deepcopy(codec.bottleneck)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        z = self.net(x)
        return tuple(self.bottleneck.encode(z, size) for size in self.bottleneck.codebook_sizes)


class Decoder(nn.Module):
    """indices (B, 1, *S) and each sample's codebook size (B,) -> x_hat (B, C, *N).

    Raises:
        ModelError: A model of several codebooks a position: their vectors are no rows of one table.
    """

    table: Tensor  # the decoded vectors of all codes of all sizes, (sum of num_codes, D)
    sizes: Tensor  # (sizes,)
    starts: Tensor  # (sizes,), where in the table a size's codes begin

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        bottleneck = codec.bottleneck
        if bottleneck.num_codebooks > 1:
            raise ModelError(
                f"only models of one codebook can be exported, this has {bottleneck.num_codebooks}"
            )
        numbers = [bottleneck.num_codes(size) for size in bottleneck.codebook_sizes]
        rows = [
            bottleneck.decode(torch.arange(number)[None, None], size)[0].T
            for size, number in zip(bottleneck.codebook_sizes, numbers, strict=True)
        ]
        self.net = _with_plain_stft(codec.decoder)
        self.register_buffer("table", torch.cat(rows))
        self.register_buffer("sizes", torch.tensor(bottleneck.codebook_sizes))
        self.register_buffer(
            "starts", torch.tensor([sum(numbers[:i]) for i in range(len(numbers))])
        )

    def forward(self, indices: Tensor, codebook_size: Tensor) -> Tensor:
        size = (codebook_size[:, None] == self.sizes).long().argmax(1)
        first = self.starts[size].reshape(-1, *[1] * (indices.dim() - 2))
        z_q = F.embedding(indices[:, 0] + first, self.table).movedim(-1, 1)
        x_hat: Tensor = self.net(z_q, codebook_size)
        return x_hat


class PlainSTFT(nn.Module):
    """`STFT` as two convolutions with windowed cosines and sines.

    Few runtimes have FFTs of 384 points.
    """

    analysis: Tensor  # (n_fft + 2, 1, n_fft), cosines then sines
    synthesis: Tensor
    weight: Tensor  # (1, 1, n_fft), the window squared

    def __init__(self, stft: STFT) -> None:
        super().__init__()
        self.n_fft, self.hop = stft.n_fft, stft.hop
        self.margin, self.after = stft.margin, stft.after
        bins, time = torch.arange(self.n_fft // 2 + 1), torch.arange(self.n_fft)
        angle = (2 * torch.pi / self.n_fft) * (bins[:, None] * time % self.n_fft).double()
        waves = torch.cat([angle.cos(), -angle.sin()])[:, None] * stft.window.double()
        # A bin stands for two, but the first and the last.
        sides = torch.full((len(bins),), 2.0, dtype=torch.float64)
        sides[0] = sides[-1] = 1
        self.register_buffer("analysis", waves.float())
        self.register_buffer(
            "synthesis", (waves * sides.repeat(2)[:, None, None] / self.n_fft).float()
        )
        self.register_buffer("weight", stft.window.square()[None, None])

    def analyse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) -> two (B, F, n_fft / 2 + 1)."""
        padded = x[:, reflect_index(x.shape[1], self.margin, self.after, x.device)]
        real, imaginary = (
            F.conv1d(padded[:, None], self.analysis, stride=self.hop).transpose(1, 2).chunk(2, -1)
        )
        return real, imaginary

    def synthesise(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Two (B, F, n_fft / 2 + 1) -> (B, T)."""
        spectrum = torch.cat([real, imaginary], -1).transpose(1, 2)
        signal = F.conv_transpose1d(spectrum, self.synthesis, stride=self.hop)
        envelope = F.conv_transpose1d(
            torch.ones_like(spectrum[:, :1]), self.weight, stride=self.hop
        )
        return (signal / envelope)[:, 0, self.margin : self.margin + self.hop * spectrum.shape[2]]


def _with_plain_stft(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    if isinstance(getattr(net, "stft", None), STFT):
        net.stft = PlainSTFT(cast(STFT, net.stft))
    return net


def export(model: coding.Model, folder: Path, force: bool = False) -> list[Path]:
    """Writes both files, or none where anything goes wrong; returns their paths.

    Raises:
        CodecError: The packages are missing.
        ModelError: The model has several codebooks.
        MediaError: One of the files is there already, and `force` is not set.
    """
    codec = copy.deepcopy(model.codec).cpu()  # where the inputs are that trace it
    batch = torch.export.Dim("batch")
    axes = [torch.export.Dim(name) for name in ("frames", "rows", "columns")]
    grid = dict(enumerate(axes[:1] if codec.axes == 1 else axes[1:], 2))
    size = [3, 5][-codec.axes :]
    x = torch.zeros(2, codec.channels, *[codec.stride * side for side in size])
    indices = torch.zeros(2, 1, *size, dtype=torch.int64)
    sizes = codec.bottleneck.codebook_sizes
    paths = [folder / f"{model.card.name}.{name}.onnx" for name in ("encoder", "decoder")]
    with ExitStack() as stack:
        # Both names are free, and both graphs are made, before either file appears.
        files = [stack.enter_context(writing(str(path), force)) for path in paths]
        programs = [
            _trace(
                Encoder(codec),
                {"x": (x, {0: batch} | {axis: codec.stride * side for axis, side in grid.items()})},
                [f"indices_{size}" for size in sizes],
            ),
            _trace(
                Decoder(codec),
                {
                    "indices": (indices, {0: batch} | grid),
                    "codebook_size": (torch.full((2,), sizes[0]), {0: batch}),
                },
                ["x_hat"],
            ),
        ]
        for file, program in zip(files, programs, strict=True):
            for node in program.model.graph:
                node.metadata_props.clear()  # where in whose source tree it came from
            program.model.metadata_props.update(
                {
                    "codec.model": f"{model.card.name} {model.card.model_id.hex()}",
                    "codec.sizes": json.dumps(dict(model.card.num_codes)),
                    "codec.stride": str(codec.stride),
                }
            )
            file.write(program.model_proto.SerializeToString())
    return paths


def _trace(
    graph: nn.Module, inputs: dict[str, tuple[Tensor, dict[int, Any]]], outputs: list[str]
) -> Any:
    if find_spec("onnxscript") is None:  # torch.onnx imports it
        raise CodecError(not_installed("onnxscript", "onnx"))
    with torch.enable_grad(), _quiet():
        return torch.onnx.export(
            graph.eval(),
            tuple(value for value, _ in inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={name: axes for name, (_, axes) in inputs.items()},
            verbose=False,
            optimize=False,  # it takes an added 1e-8 for nothing, and silence becomes infinite
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Of the exporter's own warnings, which are not about the model."""
    with _one_at_a_time, no_warnings():
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def main(arguments: list[str] | None = None) -> int:
    """`python -m codec.onnx`; returns the exit code."""
    parser = Parser(
        prog="python -m codec.onnx",
        description=__doc__,
        epilog="See docs/onnx.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a model's name, or the path of its card or weights"
    )
    parser.add_argument(
        "--out", type=filled_path, required=True, metavar="DIR", help="receives the two files"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace files that are there")

    def command(options: argparse.Namespace) -> None:
        for path in export(coding.load(cards.find(options.model)), options.out, options.force):
            print(path)

    return run(parser, arguments, command)


if __name__ == "__main__":
    sys.exit(process(main))
