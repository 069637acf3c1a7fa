"""Model files and their cards: list, find, read, verify.

No torch, so that `codec.info` and `--help` start at once.

    NAME.json         the card: configuration, identity, licence, how it was trained, its quality
    NAME.safetensors  encoder.*, decoder.* (float16), bottleneck.* (exact),
                      tables.K and prior.K.* (integers)

The identity is a hash over the canonical configuration and every tensor but those of layers; a
bitstream carries it, so that a model other than the one that wrote a file is refused by name
instead of decoding to noise. A model also answers to the identity it had before it was given priors
(`train.add_priors`), for files that were written without. Tables of layers can come later without
touching either: what they decode has checks of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import inf, log2
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from codec.container import MODEL_ID_BYTES
from codec.errors import ModelError
from codec.medium import MEDIA

log = logging.getLogger("codec")

PRIOR = "prior."  # how the tensors of the mixing coder's priors begin
LAYER = "layer."  # and those of its priors for refinements
PACKAGE = Path(__file__).parent
# A wheel carries the assets inside the package; in a source tree they lie beside it.
MODELS_FOLDER = next(
    (p for p in (PACKAGE / "assets/models", PACKAGE.parent / "assets/models") if p.is_dir()),
    PACKAGE,
)
# A medium's best model is the one with the highest mean of its figure at this codebook size, on the
# same test sets.
QUALITY_SIZE = "1024"

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a model without loading it.

    Attributes:
        path: The card's file; the weights lie beside it with suffix .safetensors.
        name: <medium>-<bottleneck>, say "speech-fsp".
        model_id: 16 bytes.
        base_id: What `model_id` is without the priors of the mixing coder; the same where there are
            none.
        layers_id: The same hash over every tensor, those of layers included; `model_id` where there
            are none.
        config: What `CodecConfig.from_dict` takes.
        num_codes: Offered codebook size -> number of codes it really has.
        tokens_per_unit: Tokens per second of one channel (speech) or per pixel (image).
        data: The whole card.
    """

    path: Path
    name: str
    model_id: bytes
    base_id: bytes
    layers_id: bytes
    config: Mapping[str, Any]
    num_codes: Mapping[int, int]
    tokens_per_unit: float
    data: Mapping[str, Any]

    @property
    def medium(self) -> str:
        return str(self.config["medium"])

    @property
    def layered(self) -> bool:
        """Whether files of the model can have layers."""
        return self.layers_id != self.model_id

    @property
    def quality(self) -> dict[str, float]:
        """Test set -> what `python -m eval --card` measured there, higher is better.

        Empty where nothing was.
        """
        try:
            # A later version may know more.
            figure = MEDIA[self.medium].quality if self.medium in MEDIA else None
            results = {
                name: sizes.get(QUALITY_SIZE, {})
                for name, sizes in self.data.get("results", {}).items()
            }
            measured = {name: result.get(figure) for name, result in results.items()}
            return {name: float(figure) for name, figure in measured.items() if figure is not None}
        except (AttributeError, TypeError, ValueError) as error:
            raise self._unreadable(error) from None

    @property
    def bits_per_token(self) -> dict[int, float]:
        """Codebook size -> bits that a token takes in a file, on the first of the card's test sets.

        Where that was not measured it is the logarithm of the number of codes, which is the most.
        """
        try:
            measured: Mapping[str, Any] = next(iter(self.data.get("results", {}).values()), {})
            return {
                size: float(measured.get(f"{size}", {}).get("bits_per_token", log2(number)))
                for size, number in self.num_codes.items()
            }
        except (AttributeError, TypeError, ValueError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self.path}: the card's results are not readable ({error}); measure again"
        )

    @property
    def losses(self) -> dict[str, float]:
        """Loss -> its weight in the recipe that trained the model, or in one before it.

        A model that was tuned keeps the losses that it had been trained on, where the last recipe
        left them out. Empty where the card does not say.
        """
        found: dict[str, float] = {}
        try:
            training = self.data["training"]
            while training:
                for name, weight in training["recipe"]["losses"].items():
                    found[str(name)] = found.get(str(name)) or float(weight)
                training = training.get("begun_from")
        except (KeyError, AttributeError, TypeError, ValueError):
            return {}
        return found

    def answers_to(self, model_id: bytes) -> bool:
        """Whether a file that names `model_id` is this model's."""
        return model_id in (self.model_id, self.base_id)

    def read(self) -> Tensors:
        """All tensors, verified against the card.

        Raises ModelError where the file is missing, damaged or another's.
        """
        path = self.path.with_suffix(".safetensors")
        try:
            tensors: Tensors = load_file(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path}: cannot read the weights ({error}); install the model again"
            ) from None
        found = identities(self.config, tensors)
        want = {"model_id": self.model_id, "base_id": self.base_id, "layers_id": self.layers_id}
        if any(
            bytes.fromhex(found.get(name, found["model_id"])) != value
            for name, value in want.items()
        ):
            raise ModelError(
                f"{path}: the weights are not those of the card; install the model again"
            )
        return tensors


def identity(config: Mapping[str, Any], tensors: Tensors) -> bytes:
    """16 bytes of SHA-256 over the canonical configuration and every tensor.

    Each tensor counts with its name, type, shape and bytes.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])  # which gives a number one axis
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"\0{name}\0{array.dtype.name}".encode())
        digest.update(struct.pack(f"<{array.ndim + 1}q", array.ndim, *array.shape))
        digest.update(array.tobytes())
    return digest.digest()[:MODEL_ID_BYTES]


def identities(config: Mapping[str, Any], tensors: Tensors) -> dict[str, str]:
    """A card's entries for what its model answers to; `layers_id` if it has tables of layers."""
    single = {name: tensor for name, tensor in tensors.items() if not name.startswith(LAYER)}
    base = {name: tensor for name, tensor in single.items() if not name.startswith(PRIOR)}
    found = {"model_id": identity(config, single).hex(), "base_id": identity(config, base).hex()}
    return (
        found
        if len(single) == len(tensors)
        else found | {"layers_id": identity(config, tensors).hex()}
    )


def read_card(path: Path) -> Card:
    """One card. Raises ModelError where it is missing or is no card."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not {"medium", "bottleneck"} <= data["config"].keys():
            raise ValueError("a configuration without medium or bottleneck")
        card = Card(
            path=path,
            name=data["name"],
            model_id=bytes.fromhex(data["model_id"]),
            base_id=bytes.fromhex(data.get("base_id", data["model_id"])),
            layers_id=bytes.fromhex(data.get("layers_id", data["model_id"])),
            config=data["config"],
            num_codes={int(k): int(v) for k, v in data["num_codes"].items()},
            tokens_per_unit=float(data["tokens_per_unit"]),
            data=data,
        )
        if not isinstance(card.name, str):
            raise ValueError("its name is no text")
        if not card.num_codes or min(*card.num_codes, *card.num_codes.values()) < 1:
            raise ValueError("no codebook sizes, or one below 1")
        if not 0 < card.tokens_per_unit < inf:
            raise ValueError("a rate of tokens that is not above 0")
        _ = card.quality, card.medium  # what is read later
        return card
    except OSError as error:
        raise ModelError(
            f"{path}: cannot read this model card ({error.strerror}); see --list-models"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not a model card ({type(error).__name__}: {error}); install the model again"
        ) from None


def list_cards(folder: Path | None = None) -> list[Card]:
    """The cards in a folder, by default those that come with the package, sorted by name.

    Damaged ones are left out, and named in a warning each.
    """
    found = []
    for path in sorted((folder or MODELS_FOLDER).glob("*.json")):
        try:
            found.append(read_card(path))
        except ModelError as error:
            _warn(str(error))
    return found


@cache
def _warn(message: str) -> None:
    """Once in a process, however often cards are listed."""
    log.warning("%s", message)


def find(
    name: str | None = None,
    medium: str | None = None,
    model_id: bytes | None = None,
    layered: bool = False,
) -> Card:
    """The card of a model.

    Args:
        name: A shipped model's name, or the path of a card or weights file; None for the medium's
            best.
        medium: Which medium's model is wanted.
        model_id: The identity that a bitstream names.
        layered: Whether the best is wanted of those alone whose files can have layers, if there are
            any.

    Raises:
        ModelError: There is none such, and the message lists what there is; or it is damaged.
    """
    if name is not None and ("/" in name or name.endswith((".json", ".safetensors"))):
        cards = [read_card(Path(name.removesuffix(".safetensors").removesuffix(".json") + ".json"))]
        name = cards[0].name
    else:
        cards = list_cards()
    candidates = [card for card in cards if name in (None, card.name)]
    if name and not candidates and (MODELS_FOLDER / f"{name}.json").is_file():
        read_card(MODELS_FOLDER / f"{name}.json")  # says what is wrong with it
    if model_id is not None and candidates:
        matching = [card for card in candidates if card.answers_to(model_id)]
        if not matching:
            have = ", ".join(f"{card.name} ({card.model_id.hex()[:8]})" for card in candidates)
            raise ModelError(
                f"the file needs model {model_id.hex()}; here are {have or 'none'}; "
                "give its card with --model"
            )
        return matching[0]
    candidates = [card for card in candidates if medium in (None, card.medium)]
    if not candidates:
        have = ", ".join(card.name for card in cards)
        wanted = " ".join(filter(None, ("no", medium, "model", name)))
        raise ModelError(f"{wanted}; here are {have or 'none'}")
    able = [card for card in candidates if card.layered] if layered else []
    return _best(able or candidates)


def _best(cards: list[Card]) -> Card:
    """The highest mean quality over the test sets that all measured cards share.

    Among equals, the last by name.
    """
    measured = [card.quality for card in cards if card.quality]
    shared = set.intersection(*map(set, measured)) if measured else set()
    return max(
        cards, key=lambda card: (sum(card.quality.get(name, 0.0) for name in shared), card.name)
    )
