"""A loaded model: nets, coder tables and card; and what a file must share with the one it names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from codec.arguments import instance
from codec.cards import LAYER, PRIOR, Card, Tensors
from codec.container import Header
from codec.entropy import NO_TABLES, Prior, Tables
from codec.errors import BitstreamError, CodecError, ModelError, reason_of
from codec.model import Codec, CodecConfig, build
from codec.unset import unset

# What tensors and a configuration lead to that do not belong together.
MISFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model: nets, coder tables and card.

    Attributes:
        tables: Codebook size -> what its coders know.
    """

    card: Card
    codec: Codec
    tables: dict[int, Tables]

    @property
    def device(self) -> torch.device:
        """Where the nets run."""
        return next(self.codec.parameters()).device

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.card.num_codes))
        return f"<{self.card.medium} model {self.card.name}, K = {sizes}, on {self.device}>"


def load(card: Card, device: str = "cpu") -> Model:
    """Loads a model, verified against its card, in eval mode.

    Raises:
        ModelError: Damaged, of an unknown kind, or tensors that do not fit its configuration.
        CodecError: There is no such device here.
    """
    # A program may infer and search afterwards, for which inference tensors are of no use.
    with torch.inference_mode(False):
        return _load(card, device)


def _load(card: Card, device: str) -> Model:
    target, tensors = usable_device(device), card.read()
    weights = {
        k: torch.from_numpy(v)
        for k, v in tensors.items()
        if not k.startswith(("tables.", PRIOR, LAYER))
    }
    try:
        tables = {size: tables_of(tensors, size) for size in card.num_codes}
        with unset():
            codec = build(CodecConfig.from_dict(card.config))
        stride = codec.stride if codec.axes > 1 else 0
        if any(p.stride != stride for t in tables.values() for p in (t.prior, t.layer) if p):
            raise ValueError(f"a prior whose stride is not {stride}")
        unused = {
            f"bottleneck.{k}": v
            for k, v in codec.bottleneck.named_buffers()
            if k in codec.bottleneck.training_state
        }
        codec.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in weights.items()} | unused
        )
        codec = codec.to(target).eval().requires_grad_(False)
        bottleneck = codec.bottleneck
        if dict(card.num_codes) != {
            size: bottleneck.num_codes(size) for size in bottleneck.codebook_sizes
        }:
            raise ValueError("its card lists other codebook sizes")
    except MISFIT as error:
        raise ModelError(
            f"{card.path}: cannot build this model ({reason_of(error)}); it may need another "
            "version of codec"
        ) from None
    return Model(card, codec, tables)


def usable_device(name: str) -> torch.device:
    """The device, tried. Raises CodecError where there is none such here."""
    try:
        device = torch.device(instance(name, str, "device"))
        torch.empty(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        # torch raises all four for it.
        raise CodecError(
            f"device {name!r} cannot be used here ({reason_of(error)}); use 'cpu'"
        ) from None
    return device


def tables_of(tensors: Tensors, size: int) -> Tables:
    """The coder tables of one codebook size in a model file.

    Raises ValueError, TypeError or KeyError on bad ones.
    """
    frequencies = tensors.get(f"tables.{size}")
    found = []
    for kind in (PRIOR, LAYER):
        arrays = {k.split(".")[2]: v for k, v in tensors.items() if k.startswith(f"{kind}{size}.")}
        found.append(Prior.from_tensors(arrays) if arrays else None)
    prior, layer = found
    if (prior and prior.given) or (layer and not layer.given):
        raise ValueError("a prior of a size has no digits that are given, one of a layer some")
    return Tables(None if frequencies is None else frequencies.astype(np.int64), prior, layer)


def tables_for(header: Header, model: Model) -> Tables:
    """The coder tables that a file was written with: no prior, if it names the model with none."""
    tables = model.tables.get(header.codebook_size, NO_TABLES)
    return tables if header.model_id == model.card.model_id else Tables(tables.frequencies)


def need(model: Model, medium: str) -> None:
    """Raises TypeError for what is no loaded model, and ModelError for one of another medium."""
    if not isinstance(model, Model):
        raise TypeError(f"want a loaded model, not {type(model).__name__}; codec.load gives one")
    if model.card.medium != medium:
        raise ModelError(
            f"{model.card.name} codes {model.card.medium}, not {medium}; choose another model"
        )


def check_header(header: Header, model: Model) -> None:
    """The header's identity was matched to the model's; its sizes must be the model's, too."""
    bottleneck, size = model.codec.bottleneck, header.codebook_size
    if size not in bottleneck.codebook_sizes or header.num_codes != bottleneck.num_codes(size):
        offered = list(bottleneck.codebook_sizes)
        raise BitstreamError(
            f"codebook size {size} is not among the model's {offered}; the file is damaged"
        )
    if header.num_codebooks != bottleneck.num_codebooks:
        count = bottleneck.num_codebooks
        raise BitstreamError(
            f"{header.num_codebooks} codebooks, and the model has {count}; the file is damaged"
        )
