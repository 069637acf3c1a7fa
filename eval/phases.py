"""python -m eval.phases MODEL --data PATH: what holds a speech model back, magnitudes or phases?

Spectra of the original and of the decoded signal are taken apart and put together again in other
pairs; what each pair scores says how much is lost where. Spectra are the model's own (its FFT size
and hop), so that nothing else changes.

    phases of the original      what the model would reach if its phases were right
    magnitudes of the original  what it would reach if its magnitudes were right, its phases made
                                consistent by the fast Griffin-Lim algorithm (Perraudin et al.
                                2013), from them or from random ones
    half the error              both magnitudes' geometric mean, with phases of either
    no quantisation             the decoder on the encoder's latents: what the codebook costs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from math import nan
from statistics import fmean

import torch
from torch import Tensor

import codec
from codec.cli.frame import Parser, UsageError, positive, print_text, run
from codec.errors import ModelError, not_installed
from codec.medium import SPEECH
from codec.model import Codec
from codec.nets.speech import STFT
from codec.streams import process

try:
    from eval import markdown
    from eval.datasets import find, signal_of
    from eval.metrics import score
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval')}")

ITERATIONS = 16
MOMENTUM = 0.99  # of the fast Griffin-Lim algorithm
QUIET = 1e-4  # magnitudes below are not told apart
JUDGES = ("PESQ", "STOI")


def griffin_lim(
    magnitude: Tensor, start: Tensor, stft: STFT, iterations: int = ITERATIONS
) -> Tensor:
    """Finds a signal whose spectrum has about this magnitude.

    Args:
        magnitude: The magnitude that is wanted, (B, F, bins).
        start: A complex spectrum, (B, F, bins), with the phases that the search begins from.
        stft: The transform.
        iterations: The number of iterations; 0 takes the phases as they are.

    Returns:
        The signal, (B, T).
    """
    guess, previous = start, None
    for _ in range(iterations):
        consistent = _analyse(_synthesise(torch.polar(magnitude, guess.angle()), stft), stft)
        guess = consistent if previous is None else consistent + MOMENTUM * (consistent - previous)
        previous = consistent
    return _synthesise(torch.polar(magnitude, guess.angle()), stft)


@torch.no_grad()
def variants(model: Codec, x: Tensor, codebook_size: int) -> Iterator[tuple[str, Tensor]]:
    """Yields names and signals (1, 1, T) that a signal x (1, 1, T) becomes."""
    stft = model.decoder.stft
    assert isinstance(stft, STFT)
    padded, length = model.pad(x), x.shape[-1]
    z = model.encoder(padded)
    decoded = model.decoder(
        model.bottleneck.decode(model.bottleneck.encode(z, codebook_size), codebook_size),
        codebook_size,
    )
    ours, theirs = _analyse(decoded[:, 0], stft), _analyse(padded[:, 0], stft)
    between = ((ours.abs() + QUIET).log() / 2 + (theirs.abs() + QUIET).log() / 2).exp()
    noise = torch.polar(
        theirs.abs(),
        2 * torch.pi * torch.rand(theirs.shape, generator=torch.Generator().manual_seed(0)),
    )
    found = {
        "decoded": decoded[:, 0],
        # GM-VQ's encoder also predicts variances, behind what is quantised.
        "no quantisation": model.decoder(z[:, : model.bottleneck.dim], codebook_size)[:, 0],
        "phases of the original": griffin_lim(ours.abs(), theirs, stft, 0),
        "magnitudes of the original, decoded phases": griffin_lim(theirs.abs(), ours, stft),
        "magnitudes of the original, random phases": griffin_lim(
            theirs.abs(), noise, stft, 2 * ITERATIONS
        ),
        "half the error of magnitudes, decoded phases": griffin_lim(between, ours, stft),
        "half the error of magnitudes, phases of the original": griffin_lim(
            between, theirs, stft, 0
        ),
    }
    for name, signal in found.items():
        yield name, signal[None, :, :length].clamp(-1, 1)


def _analyse(signal: Tensor, stft: STFT) -> Tensor:
    return torch.complex(*stft.analyse(signal))


def _synthesise(spectrum: Tensor, stft: STFT) -> Tensor:
    return stft.synthesise(spectrum.real.contiguous(), spectrum.imag.contiguous())


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m eval.phases",
        epilog="See docs/evaluate.md",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a shipped speech model, or the path of a card"
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="recordings: a folder, .tar or file"
    )
    parser.add_argument("-k", "--codebook-size", type=positive(int), default=1024, metavar="K")
    parser.add_argument(
        "--every", type=positive(int), default=1, metavar="N", help="only every N-th recording"
    )
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    model = codec.load(options.model).codec
    if model.axes != 1:
        raise ModelError(f"{options.model}: a picture has no phases; name a model of speech")
    try:
        model.bottleneck.check_size(options.codebook_size)
    except ValueError as error:
        raise UsageError(f"--codebook-size {options.codebook_size}: {error}") from None
    scores: dict[str, list[dict[str, float | None]]] = {}
    items = find(options.data).items[:: options.every]
    for item in items:
        signal = torch.from_numpy(signal_of(item, SPEECH.name)).T[None]
        for name, other in variants(model, signal, options.codebook_size):
            scores.setdefault(name, []).append(
                score(SPEECH.name, signal[0, 0].numpy(), other[0, 0].numpy())
            )
    head = [f"{options.model}, K = {options.codebook_size}, {len(items)} clips", *JUDGES]
    rows = ([name, *(_mean(found, metric) for metric in JUDGES)] for name, found in scores.items())
    print_text(markdown.table(head, rows))


def _mean(found: list[dict[str, float | None]], metric: str) -> str:
    """Returns the mean over the clips that have a value, and how many these are if not all."""
    known = [value for scores in found if (value := scores.get(metric)) is not None]
    text = f"{fmean(known) if known else nan:.3f}"
    return text if len(known) == len(found) else f"{text} {len(known)}/{len(found)}"


if __name__ == "__main__":
    sys.exit(process(main))
