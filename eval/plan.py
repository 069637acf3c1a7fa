"""What a run measures: models, classic codecs and metrics, and on which test sets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from tqdm import tqdm

from codec import __version__, cards
from eval.datasets import TestSet
from eval.journal import Record
from eval.lpips_metric import Backbone
from eval.metrics import METRICS, MORE_METRICS, Metric
from eval.systems import neighbour_hash
from eval.trained import trained_on

FORMAT = 1  # of journal.jsonl and results.json
PACKAGES = (
    "av",
    "distillmos",
    "lpips",
    "numpy",
    "pesq",
    "pillow",
    "pillow-heif",
    "pillow-jxl-plugin",
    "pycodec2",
    "pystoi",
    "pytorch-msssim",
    "scikit-image",
    "ssimulacra2",
    "torch",
    "torchaudio",
    "torchmetrics",
    "transformers",
)


@dataclass(frozen=True)
class Plan:
    """What a run measures: all that its results depend on, beside the items.

    A plan can be sent to other processes.

    Attributes:
        models: For each model its name, the path of its card, and the codebook sizes.
        baselines: Names of classic codecs.
        curves: Whether the classic codecs are measured along their curves.
        match: Whether, for each model and size, the classic codecs are measured at the setting
            nearest in bytes.
        neighbours: The neighbours, as `load_neighbour` takes them.
        lpips: The backbones that LPIPS is computed with.
        quick: Whether only the two metrics of every table are computed.
        mos: Whether speech is scored by DistillMOS, too.
        effort: Of all models, as in `codec.compress`.
        search: Likewise.
    """

    models: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    baselines: tuple[str, ...] = ()
    curves: bool = True
    match: bool = False
    neighbours: tuple[str, ...] = ()
    lpips: tuple[Backbone, ...] = ()
    quick: bool = False
    mos: bool = False
    effort: int = 0
    search: int = 0

    def fingerprint(self) -> Record:
        """Returns the plan by its content.

        Models, neighbours and backbones are there by hash, packages by version.
        """
        known = asdict(self)
        found = {name: cards.find(path) for name, path, _ in self.models}
        known["models"] = [
            [name, found[name].model_id.hex(), list(sizes)] for name, _, sizes in self.models
        ]
        known["trained_on"] = {
            name: trained_on(card, self.search > 0) for name, card in found.items()
        }
        known["neighbours"] = [[spec, neighbour_hash(spec)] for spec in self.neighbours]
        known["lpips"] = [backbone.fingerprint for backbone in self.lpips]
        packages = {"codec": __version__}
        for name in PACKAGES:
            try:
                packages[name] = version(name)
            except PackageNotFoundError:
                continue
        plain: Record = json.loads(json.dumps(known | {"format": FORMAT, "packages": packages}))
        return plain

    def metrics(self, medium: str) -> dict[str, Metric]:
        """Returns the metrics by name, without LPIPS and DistillMOS, whose nets a worker loads."""
        return METRICS[medium] | ({} if self.quick else MORE_METRICS[medium])


def header_of(plan: Plan, sets: list[TestSet]) -> Record:
    """Returns the first line of a journal, which describes the plan and the test sets.

    All items are read for it, as a file whose content was changed has no figures yet.
    """
    described = {}
    for one in sets:
        items = tqdm(
            one.items, desc=f"read {one.name}", unit="file", leave=False, delay=1, disable=None
        )
        listing = json.dumps([[item.name, item.checksum()] for item in items]).encode()
        described[one.name] = {
            "items": len(one.items),
            "listing": hashlib.sha256(listing).hexdigest(),
            "crop": one.crop,
            "level_dbfs": one.level_dbfs,
            "duplicates": list(one.duplicates),
        }
    return plan.fingerprint() | {"sets": described}
