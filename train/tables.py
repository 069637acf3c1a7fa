"""python -m train.tables MODEL --data PATH: gives a model priors for its indices, or new ones.

Nets, codebooks and frequencies stay what they are, so the model goes on reading every file that it wrote before.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save

from codec import cards, coding
from codec.cards import PRIOR, Tensors, identity
from codec.errors import CodecError
from codec.files import writing
from codec.model import Codec
from train.data import Store
from train.priors import STEPS, TOKENS, fit_prior, index_grids


def prior_tensors(codec: Codec, store: Store, tokens: int = TOKENS, steps: int = STEPS) -> Tensors:
    """The priors of every codebook size, as a model file stores them; none for several codebooks."""
    if codec.bottleneck.num_codebooks > 1:
        return {}
    tensors: Tensors = {}
    for size, grids in index_grids(codec, store, tokens).items():
        for name, array in fit_prior(grids, codec, size, steps).to_tensors().items():
            tensors[f"{PRIOR}{size}.{name}"] = array
    return tensors


def identities(config: dict[str, Any], tensors: Tensors) -> dict[str, str]:
    """The card's entries for what a model answers to."""
    base = {name: tensor for name, tensor in tensors.items() if not name.startswith(PRIOR)}
    return {"model_id": identity(config, tensors).hex(), "base_id": identity(config, base).hex()}


def update(card: cards.Card, tensors: Tensors, folder: Path) -> Path:
    """Writes a model again with other priors; returns its card's path. `tensors` are the priors' alone."""
    old = {name: tensor for name, tensor in card.read().items() if not name.startswith(PRIOR)}
    new = old | tensors
    data = dict(card.data) | identities(dict(card.config), new)
    target = folder / f"{card.name}.json"
    for path, content in ((target.with_suffix(".safetensors"), save(new)), (target, _as_json(data))):
        with writing(str(path), force=True) as file:
            file.write(content)
    return target


def _as_json(data: dict[str, Any]) -> bytes:
    file = io.StringIO()
    json.dump(data, file, indent=1)
    return (file.getvalue() + "\n").encode()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.tables", description=__doc__, epilog="See docs/train.md")
    parser.add_argument("model", help="name of a shipped model, or path of a card")
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="what python -m train.prepare wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the model's own folder")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of the training data, for each size")
    parser.add_argument("--steps", type=int, default=STEPS, help="for each size")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        card = cards.find(options.model)
        codec = coding.load(card, options.device).codec
        store = Store(options.data, card.medium, (codec.stride,) * codec.axes)
        tensors = prior_tensors(codec, store, options.tokens, options.steps)
        target = update(card, tensors, options.out or card.path.parent)
        print(f"{target}: {sum(tensor.nbytes for tensor in tensors.values())} bytes of priors")
    except (CodecError, OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
