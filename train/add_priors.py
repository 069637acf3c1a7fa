"""python -m train.add_priors MODEL --data PATH: gives a model priors for its indices, or new ones.

Nets, codebooks and frequencies stay what they are. A model that had no priors goes on reading every
file that it wrote before. One that had some is another model with new ones, which reads no file of
the old one, and so it is written to another folder.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from codec import cards, coding
from codec.cards import LAYER, PRIOR, Tensors, identities
from codec.cli.frame import Parser, filled_path, positive, run
from codec.errors import CodecError, ModelError
from codec.medium import MEDIA
from codec.model import Codec
from codec.streams import process
from train.model_files import write_model
from train.options import add_data, add_device, add_model
from train.priors import STEPS, TOKENS, fit_prior, index_grids
from train.store import Store


def prior_tensors(
    codec: Codec,
    store: Store,
    tokens: int = TOKENS,
    steps: int = STEPS,
    kinds: tuple[str, ...] = (PRIOR, LAYER),
) -> Tensors:
    """Learns the priors of every size and of every refinement, as a model file stores them.

    A model with several codebooks has none.

    Args:
        codec: The codec that makes the indices.
        store: The training data.
        tokens: The number of tokens to learn from, for each size.
        steps: The most steps, for each size.
        kinds: `PRIOR` for the priors of sizes alone, `LAYER` for those of refinements, or both.
    """
    if codec.bottleneck.num_codebooks > 1:
        return {}
    tensors: Tensors = {}
    below, medium = None, MEDIA[codec.config.medium]
    for size, grids in index_grids(codec, store, tokens).items():
        fit = partial(fit_prior, grids, codec.bottleneck, size, medium, codec.stride, steps)
        fits = {PRIOR: fit}
        if below is not None:
            fits[LAYER] = partial(fit, below)
        for kind in kinds:
            prior = fits[kind]() if kind in fits else None
            for name, array in prior.to_tensors().items() if prior else ():
                tensors[f"{kind}{size}.{name}"] = array
        below = size
    return tensors


def update(
    card: cards.Card, tensors: Tensors, folder: Path, kinds: tuple[str, ...] = (PRIOR, LAYER)
) -> Path:
    """Writes a model again with other priors.

    Figures that were measured with the model that it was, its rates among them, do not go into the
    card. Layers alone leave files of one size as they were, and so their figures.

    Args:
        card: The model.
        tensors: The priors.
        folder: The folder that receives the model.
        kinds: The kinds of priors that the model shall have no others of.

    Returns:
        The path of its card.
    """
    old = {name: tensor for name, tensor in card.read().items() if not name.startswith(kinds)}
    new = old | tensors
    named = identities(dict(card.config), new)
    stale = {"layers_id"} if named["model_id"] == card.model_id.hex() else {"layers_id", "results"}
    data = {key: value for key, value in card.data.items() if key not in stale} | named
    return write_model(folder, card.name, data, new)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m train.add_priors", description=__doc__, epilog="See docs/train.md"
    )
    add_model(parser)
    add_data(parser)
    parser.add_argument(
        "--out",
        type=filled_path,
        metavar="DIR",
        help="default: the model's own, if it has no priors",
    )
    parser.add_argument(
        "--tokens",
        type=positive(int),
        default=TOKENS,
        help="of the training data, for each size (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=positive(int), default=STEPS, help="for each size (default: %(default)s)"
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help="only those of layers: the model's files of one size stay the same",
    )
    add_device(parser)
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    card = cards.find(options.model)
    kinds = (LAYER,) if options.layers else (PRIOR, LAYER)
    folder: Path = options.out or card.path.parent
    if folder.resolve() == card.path.parent.resolve() and any(
        name.startswith(kinds) for name in card.read()
    ):
        raise CodecError(
            f"{card.path} has priors, and the files that it wrote need them; "
            "give another folder with --out"
        )
    codec = coding.load(card, options.device).codec
    store = Store(
        options.data, card.medium, (codec.stride,) * codec.axes, wanted_by=f"the model {card.name}"
    )
    try:
        tensors = prior_tensors(codec, store, options.tokens, options.steps, kinds)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{card.name}: {error}") from None
    if options.layers and not tensors:
        raise ModelError(f"the codebooks of {card.name} are not nested: it can have no layers")
    target = update(card, tensors, folder, kinds)
    print(f"{target}: {sum(tensor.nbytes for tensor in tensors.values())} bytes of priors")


if __name__ == "__main__":
    sys.exit(process(main))
