"""python -m eval.steps MODEL --train PATH: how long VP's steps in training are.

They are compared with its codebooks' errors.

Training moves each latent by a random step in place of the error that a codebook will make, and a
step that the Metropolis-Hastings test refuses has length 0. If the steps are too short, the decoder
has never seen errors as large as those it gets. For each K and eta: the steps' mean squared length
over the mean squared error of the model's codebook on the same latents, 1 where both are alike, and
the share of accepted steps.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

from codec import cards, coding
from codec.bottlenecks import VP
from codec.bottlenecks.parts import nearest
from codec.cli.frame import Parser, UsageError, print_text, run
from codec.errors import ModelError
from codec.streams import process
from eval import markdown
from eval.latents import training_latents
from train.options import add_data
from train.store import Store

ETAS = 1.0, 1.15, 1.4, 1.8, 2.2
TOKENS = 65_536
MEASURED = 8192  # of them; the others fill the queue


@torch.no_grad()
def steps(model: VP, latents: Tensor, size: int, eta: float) -> tuple[Tensor, float]:
    """Moves latents as training does.

    Args:
        model: Whose sizes and neighbours are used.
        latents: (N, d), of which the first `MEASURED`, at most half, are moved; the others fill the
            queue.
        size: The codebook size K.
        eta: In place of the model's.

    Returns:
        (n, d) steps and the share of those that were accepted.
    """
    moved = latents[: min(MEASURED, len(latents) // 2)]
    imitation = VP(
        model.dim,
        model.codebook_sizes,
        eta,
        rows_per_code=model.rows_per_code,
        neighbours=model.neighbours,
        reference_size=model.reference_size,
    ).train()
    others = latents[len(moved) :]
    imitation.queue.copy_(others[torch.arange(len(imitation.queue)) % len(others)])
    imitation.queue_count.fill_(len(imitation.queue))
    out = imitation(moved.T[None], size)
    return out.z_q[0].T - moved, float(out.stats["accept_rate"])


def main(arguments: list[str] | None = None) -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m eval.steps",
        epilog="See docs/bottlenecks/vp.md",
        description=__doc__,
        formatter_class=style,
    )
    parser.add_argument("model", metavar="MODEL", help="a VP model")
    add_data(parser, "--train")
    parser.add_argument(
        "--eta", default=",".join(map(str, ETAS)), metavar="ETA,...", help="default: %(default)s"
    )
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    try:
        etas = [float(eta) for eta in options.eta.split(",")]
    except ValueError:
        raise UsageError(f"--eta {options.eta}: want numbers with commas between") from None
    if not all(0 < eta < 100 for eta in etas):
        raise UsageError(f"--eta {options.eta}: want numbers above 0 and below 100")
    card = cards.find(options.model)
    if card.config["bottleneck"] != "vp":
        raise ModelError(f"{card.name} is no VP model; name one")
    codec = coding.load(card).codec
    assert isinstance(codec.bottleneck, VP)
    store = Store(options.train, card.medium, (codec.stride,) * codec.axes)
    latents, _ = training_latents(codec, store, TOKENS)
    order = torch.randperm(len(latents), generator=torch.Generator().manual_seed(0))
    latents = latents[order]
    torch.manual_seed(0)
    print_text(markdown.table(["K", "codebook's error", *(f"eta {eta:g}" for eta in etas)], []))
    for size in codec.bottleneck.codebook_sizes:
        measured = latents[: min(MEASURED, len(latents) // 2)]
        code = codec.bottleneck.codebook(size)
        error = float((measured - code[nearest(measured, code)]).square().sum(1).mean())
        cells = []
        for eta in etas:
            moved, accepted = steps(codec.bottleneck, latents, size, eta)
            cells.append(f"{float(moved.square().sum(1).mean()) / error:.2f} ({accepted:.0%})")
        print_text(markdown.row([str(size), f"{error:.4f}", *cells]))


if __name__ == "__main__":
    sys.exit(process(main))
