"""What a run measures: models, classic codecs and metrics, and the test sets that they are measured on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from codec import __version__, cards
from eval.datasets import TestSet
from eval.journal import Record
from eval.lpips_metric import Source
from eval.metrics import METRICS, MORE_METRICS, Metric
from eval.trained import lpips_weight

FORMAT = 1  # of journal.jsonl and results.json
PACKAGES = (
    "av", "distillmos", "lpips", "numpy", "pesq", "pillow", "pillow-jxl-plugin", "pycodec2", "pystoi", "pytorch-msssim",
    "scikit-image", "ssimulacra2", "torch", "torchaudio", "torchmetrics",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a run measures; picklable, and all that results depend on beside the items.

    Attributes:
        models: (name, path of the card, codebook sizes).
        baselines: Names of classic codecs.
        curves: Whether baselines are measured along their curves.
        match: Whether, for each model and size, they are measured at the setting nearest in bytes.
        neighbours: Words for `load_neighbour`.
        lpips: Backbones.
        quick: Only the two metrics of every table.
        mos: Whether speech is scored by DistillMOS, too.
    """

    models: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    baselines: tuple[str, ...] = ()
    curves: bool = True
    match: bool = False
    neighbours: tuple[str, ...] = ()
    lpips: tuple[Source, ...] = ()
    quick: bool = False
    mos: bool = False

    def fingerprint(self) -> Record:
        """The plan by content: models and backbones by hash, packages by version."""
        known = asdict(self)
        found = {name: cards.find(path) for name, path, _ in self.models}
        known["models"] = [[name, found[name].model_id.hex(), list(sizes)] for name, _, sizes in self.models]
        known["lpips_weight"] = {name: lpips_weight(card) for name, card in found.items() if card.medium == "image"}
        known["lpips"] = [[s.net, hashlib.sha256(Path(s.path).read_bytes()).hexdigest()] for s in self.lpips]
        packages = {"codec": __version__}
        for name in PACKAGES:
            try:
                packages[name] = version(name)
            except PackageNotFoundError:
                continue
        return json.loads(json.dumps(known | {"format": FORMAT, "packages": packages}))

    def metrics(self, medium: str) -> dict[str, Metric]:
        """Name -> metric, without LPIPS and DistillMOS, whose nets a worker loads."""
        return METRICS[medium] | ({} if self.quick else MORE_METRICS[medium])


def header_of(plan: Plan, sets: list[TestSet]) -> Record:
    """The first line of a journal: plan and items."""
    described = {}
    for one in sets:
        listing = json.dumps([[item.name, item.size] for item in one.items]).encode()
        described[one.name] = {
            "items": len(one.items),
            "listing": hashlib.sha256(listing).hexdigest(),
            "crop": one.crop,
            "level_dbfs": one.level_dbfs,
            "duplicates": list(one.duplicates),
        }
    return plan.fingerprint() | {"sets": described}
