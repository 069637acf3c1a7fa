"""A bottleneck of one's own: from its code to its measured model.

    python examples/own_bottleneck.py --data recordings --work own --minutes 5

The method is lookup-free quantisation (Yu et al. 2024): a token is the signs of its d dimensions,
so that K = 2^d codes need no codebook and no search. Registering is one entry in `BOTTLENECKS`;
from then on recipes, training, export, the file format and the evaluation know it by name. They
know it in this process: a model file of an own bottleneck is read only where the module that
registers it was imported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from codec.bottleneck import Bottleneck, BottleneckOutput, Size, straight_through
from codec.bottlenecks import BOTTLENECKS


class Signs(Bottleneck):
    """Lookup-free quantisation (Yu et al. 2024, MAGVIT-v2): the signs of d dimensions.

    Loss "commitment": the mean squared distance of z from its signs.

    Args:
        dim: d; there are 2^d codes.
    """

    loss_names = ("commitment",)

    def __init__(self, dim: int = 10) -> None:
        super().__init__(dim, (2**dim,))
        self.register_buffer("powers", 2 ** torch.arange(dim), persistent=False)

    def _training_forward(self, z: Tensor, codebook_size: Size) -> BottleneckOutput:
        """z (B, d, *S) -> z_q of -1 and 1, with the gradient of the identity."""
        size = self.check_size(codebook_size)
        indices = self._encode(z, size)
        value = self._decode(indices, size)
        return BottleneckOutput(
            straight_through(value, z), indices, {"commitment": (z - value).square().mean()}
        )

    def _encode(self, z: Tensor, size: int) -> Tensor:  # noqa: ARG002
        """(B, d, *S) -> (B, 1, *S): bit i is whether dimension i is positive."""
        powers = self.powers.reshape(1, -1, *[1] * (z.dim() - 2))
        return ((z > 0) * powers).sum(1, keepdim=True)

    def _decode(self, indices: Tensor, size: int) -> Tensor:  # noqa: ARG002
        """(B, 1, *S) -> (B, d, *S) of -1 and 1."""
        powers = self.powers.reshape(1, -1, *[1] * (indices.dim() - 2))
        return (indices // powers % 2 * 2 - 1).float()


BOTTLENECKS["signs"] = Signs

RECIPE = """
base = "speech-fsp"

[codec]
bottleneck = "signs"
options = { dim = 10 }

[losses]
mel = 5.0
stft = 2.0
wave = 0.1
commitment = 0.1
"""


def check(bottleneck: Bottleneck) -> None:
    """What the whole project relies on; the tests of codec check more of it for its own methods."""
    z = torch.randn(2, bottleneck.in_dim, 50, requires_grad=True)
    bottleneck.train()(z).z_q.sum().backward()
    assert z.grad is not None, "a gradient must reach the encoder"
    bottleneck.eval()
    indices = bottleneck.encode(z)
    assert indices.shape == (2, 1, 50)
    assert 0 <= indices.min() <= indices.max() < bottleneck.num_codes()
    assert torch.equal(bottleneck(z).z_q, bottleneck.decode(indices)), (
        "in eval mode, forward is decode(encode)"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="recordings to train on, and to measure with"
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for everything that is written"
    )
    parser.add_argument("--minutes", default="5")
    options, extra = parser.parse_known_args(arguments)  # the rest goes to python -m train

    # These read BOTTLENECKS when they run, so they know "signs".
    from eval.__main__ import main as evaluate
    from train.__main__ import main as train
    from train.export import main as export
    from train.prepare import main as prepare

    check(Signs())
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    recipe = work / "speech-signs.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    budget = [] if "--steps" in extra else ["--minutes", options.minutes]
    run, data, model = str(work / "run"), str(work / "data"), str(work / "speech-signs.json")
    return (
        prepare(["speech", str(options.data), "--out", data])
        or train([str(recipe), "--data", data, "--out", run, *budget, *extra])
        or export([run, "--data", data, "--out", str(work), "--name", "speech-signs"])
        # One worker is this process; more would be new ones, which do not know "signs".
        or evaluate(
            [
                model,
                "speech-fsp",
                "--data",
                str(options.data),
                "-k",
                "1024",
                "--workers",
                "1",
                "--quick",
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
