"""python -m train.nested MODEL --data PATH --out DIR: nests a VP model's codebooks.

Codebooks are nested where each code of the next larger one belongs to one code of the smaller: then
a file can hold a coarse index first and what refines it behind, and can be cut (`codec.layers`).

Encoder and decoder stay what they are. Codebooks, coder tables and priors are made anew, and so the
model has another identity, and reads no file of the model that it was. Its decoder has not met the
new codes yet: a training by the recipe MEDIUM-vp-nested tunes it.

    model ──encoder──> latents ──k-means, then inside each cell──> a tree of codes
    a tree of codes ──> tables, priors, layers ──> model
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from codec import cards, coding
from codec.cards import LAYER, PRIOR, identities
from codec.cli.frame import Parser, positive, run
from codec.errors import CodecError, ModelError
from codec.model import Codec, build
from codec.streams import process
from train import codebook, recipes
from train.add_priors import prior_tensors
from train.augment import augment
from train.draws import Draws
from train.export import count_tables
from train.model_files import write_model
from train.options import add_data, add_device, add_model, add_out, model_name
from train.priors import STEPS, TOKENS
from train.recipe import Recipe
from train.store import Store

SEED = 0  # of the crops that codebooks are built from


def recipe_of(card: cards.Card) -> Recipe:
    """Returns the recipe that a model was trained by, changed to nested codebooks.

    Raises:
        ModelError: The model is no VP model, has nested codebooks already, or its card does not
            tell the recipe.
        CodecError: The recipe is none of this version, or its codebook sizes cannot be nested.
    """
    if card.config["bottleneck"] != "vp":
        raise ModelError(f"{card.name} has no codebooks of VP; name a VP model")
    if card.config["options"].get("nested"):
        raise ModelError(f"{card.name} has nested codebooks already")
    data = card.data.get("training", {}).get("recipe")
    if not isinstance(data, dict):
        raise ModelError(
            f"the card of {card.name} has no training recipe; "
            "export the run anew by python -m train.export"
        )
    data = json.loads(json.dumps(data))
    data["codec"]["options"] = dict(card.config["options"]) | {"nested": True}
    return recipes.from_dict(data)


@torch.no_grad()
def nested(codec: Codec, store: Store, recipe: Recipe, device: str) -> tuple[Codec, torch.Tensor]:
    """Builds nested codebooks from the latents of training data.

    Args:
        codec: A codec with a VP bottleneck.
        store: Training data, in the crops of the recipe.
        recipe: Gives the batches, the augmentation, and the options of the new bottleneck.
        device: Where to compute.

    Returns:
        The codec with the same nets and nested codebooks, and the (N, d) float32 latents that they
        were built from; both on the CPU.
    """
    draws = Draws(SEED, device)

    def batch() -> torch.Tensor:
        some = store.batch(recipe.data.batch, draws)
        return augment(store.medium, some, draws, recipe.data.augment)

    latents = codebook.latents(codec, store, batch)
    tree = build(replace(codec.config, options=recipe.codec.options)).to(device).eval()
    for name in ("encoder", "decoder"):
        getattr(tree, name).load_state_dict(getattr(codec, name).state_dict())
    tree.bottleneck.fit(latents)
    return tree.cpu(), latents.cpu()


def write(
    card: cards.Card, codec: Codec, tensors: dict[str, Any], recipe: Recipe, name: str, folder: Path
) -> Path:
    """Writes the nested model.

    Figures that were measured with the model that it was do not go into its card.

    Args:
        card: Of the model that it was.
        codec: With nested codebooks.
        tensors: The new codebooks, coder tables and priors, by their names in the file.
        recipe: That of the new model.
        name: The new model's name.
        folder: Receives the card and the weights.

    Returns:
        The path of the new card.

    Raises:
        OSError: They cannot be written.
    """
    kept = {
        key: value
        for key, value in card.read().items()
        if not key.startswith(("bottleneck.", "tables.", PRIOR, LAYER))
    }
    new = kept | tensors
    config = json.loads(json.dumps(codec.config.to_dict()))
    training = dict(card.data["training"]) | {
        "recipe": recipe.to_dict(),
        "nested_from": f"{card.name} {card.model_id.hex()}",
    }
    data = {key: value for key, value in card.data.items() if key not in ("results", "layers_id")}
    data |= {"name": name, **identities(config, new), "config": config, "training": training}
    return write_model(folder, name, data, new)


def tuning(recipe: Recipe, target: Path) -> str:
    """Returns the arguments with which `python -m train` tunes the decoder of this model.

    They repeat options that are not those of the shipped recipe: with other options the training
    would take this model for another codec, and begin with its nets alone.
    """
    name = f"{recipe.codec.medium}-vp-nested"
    words = f"{name} --init {target}"
    if recipes.load(name).codec.options == recipe.codec.options:
        return words
    options = ", ".join(
        f"{key} = {json.dumps(value)}" for key, value in recipe.codec.options.items()
    )
    return f"{words} --set 'codec.options={{{options}}}'"


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m train.nested", description=__doc__, epilog="See docs/train.md")
    add_model(parser)
    add_data(parser)
    add_out(parser, "another folder than the model's")
    parser.add_argument("--name", type=model_name, help="default: the model's own")
    parser.add_argument(
        "--tokens",
        type=positive(int),
        default=TOKENS,
        help="of the training data, for each size's prior (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=positive(int), default=STEPS, help="for each prior (default: %(default)s)"
    )
    add_device(parser)
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    try:
        _nest(options)
    except (ValueError, RuntimeError) as error:
        raise CodecError(f"{options.model}: {error}") from None


def _nest(options: argparse.Namespace) -> None:
    card = cards.find(options.model)
    recipe = recipe_of(card)
    name = options.name or card.name
    if (options.out / f"{name}.json").resolve() == card.path.resolve():
        raise CodecError(
            f"{card.path} would be overwritten, and its files need it; give another --out or --name"
        )
    codec = coding.load(card, options.device).codec
    reader = f"the model {card.name}"
    crop, zoom = tuple(recipe.data.crop), recipe.data.zoom
    store = Store(options.data, card.medium, crop, zoom, reader).to(options.device)
    tree, latents = nested(codec, store, recipe, options.device)
    tensors = count_tables(tree, latents)
    unused = tree.bottleneck.training_state
    tensors |= {
        f"bottleneck.{key}": value.contiguous().numpy()
        for key, value in tree.bottleneck.state_dict().items()
        if key not in unused
    }
    whole = Store(options.data, card.medium, (codec.stride,) * codec.axes, wanted_by=reader)
    tensors |= prior_tensors(tree.to(options.device), whole, options.tokens, options.steps)
    target = write(card, tree, tensors, recipe, name, options.out)
    print(
        f"{target}: nested, of {len(latents)} latents; tune its decoder: {tuning(recipe, target)}"
    )


if __name__ == "__main__":
    sys.exit(process(main))
