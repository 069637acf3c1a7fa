"""vpvae-table1, vpvae-table2 and vpvae-ablation: the methods of the VP-VAE paper, one dedicated
model for each K.

    recipe + method + K ──train.loop, stage A, no GAN──> codec
        ──test packs──> quality, CVU, H0, coded bits

As in the paper, a model is trained and judged with its own K, and the decoder never adapts to the
finished codebook. Table 1 is in domain, table 2 out of domain: the same models, so the runs are
shared.

What differs from the paper, beside data and budget (`DEVIATIONS` is below every table):
    losses     those of the shipped recipes without LPIPS: L1, squared error and SSIM, or mel and
               STFT distances
    eta        1.15, as in the shipped models; the published code has 1, and the ablation both
    P_down, P_up   the encoder's last layer and the decoder's first, a convolution over neighbours,
               where the paper has a linear map of each position by itself
    codebook   k-means on at most 400 000 latents of augmented training crops, where the paper
               encodes the training set; without the clamp of k-means++'s weights at their 90 %
               quantile that the published code has
    coded bits of one static frequency table for each K, counted on training latents; the project's
               files and all other tables use the mixing coder, which needs fewer
    FSP        has no Cauchy CDF: a Cauchy variable has no variance, so no moments that would make
               it uniform
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from codec.bottlenecks import VP
from codec.bottlenecks.parts import Neighbours
from codec.bottlenecks.vp import sample_ball
from codec.entropy import Tables, encode_indices
from codec.errors import CodecError, MediaError
from codec.files import walk
from codec.host import may_read
from codec.media import load_audio, load_image
from codec.medium import SAMPLE_RATE
from codec.model import Codec
from eval import markdown
from eval.experiments import output
from eval.experiments.runs import Record, Request, aggregate, run_once, write
from eval.experiments.usage import hard_usage
from eval.metrics import METRICS, score
from train import recipes
from train.data import Store, is_prepared, prepare
from train.export import count_tables
from train.loop import Trainer
from train.recipes import Recipe

SEEDS = 3
DEVIATIONS = (
    "VP with eta 1.15 (the published code: 1) but where the row says otherwise; losses without "
    "LPIPS; codebooks from "
    "k-means on at most 400 000 latents of augmented training crops, without the published clamp "
    "of its seeds' weights",
    "coded bits/token: a static table of frequencies for each K, not the mixing coder of the "
    "project's other figures",
)

# Of the paper: FSP and FSQ tie the dimension to K, and VP, VQ and SimVQ follow them.
LEVELS = {256: [8, 6, 5], 1024: [8, 5, 5, 5], 4096: [7, 5, 5, 5, 5], 16384: [8, 8, 8, 6, 5]}

TESTS = {  # medium -> in domain, out of domain
    "speech": ("speech-test.tar", "speech-ood.tar"),
    "image": ("image-test-coco.tar", "image-test-imagenet.tar"),
}
DOMAINS = ("in", "out")


class VPWithoutAccept(VP):
    """VP that takes every step, which is the paper's ablation of the Metropolis-Hastings test."""

    @torch.no_grad()
    def _perturb(self, z: Tensor, scale: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if may_read() and self.queue_count < len(self.queue):
            return super()._perturb(z, scale)
        radius = self._density(z, scale, Neighbours(self.queue))[2]
        return sample_ball(radius, self.dim), {"radius": radius.mean()}


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the runs are: the nets' preset, the codebook sizes, and the data of a step."""

    preset: str
    sizes: tuple[int, ...]
    batch: int
    crop: Mapping[str, list[int]]  # samples | height, width
    epochs: float


FULL = Scale(
    "small", (256, 1024, 4096, 16384), 64, {"speech": [24000], "image": [128, 128]}, epochs=50
)
SMALL = Scale(
    "tiny", (256, 1024, 4096, 16384), 16, {"speech": [16000], "image": [128, 128]}, epochs=0.5
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A method, or a method with something changed.

    Attributes:
        name: What tables call it.
        bottleneck: A key of `BOTTLENECKS`.
        weights: Weights of its losses; those of the distortion are in the recipe.
        options: Further arguments.
        replacement: A class without parameters that takes the bottleneck's place, for what no
            option offers.
    """

    name: str
    bottleneck: str
    weights: Mapping[str, float]
    options: Mapping[str, Any] = field(default_factory=dict)
    replacement: type[VP] | None = None


MOMENTS = {"mean": 0.1, "variance": 0.07}  # L_norm, as published
# VQGAN's and DAC's, beside distortions of this size.
COUPLED = {"codebook": 1.0, "commitment": 0.25}

METHODS: tuple[Variant, ...] = (
    Variant("vp", "vp", MOMENTS),
    Variant("fsp", "fsp", MOMENTS),
    Variant("fsq-noise", "fsq-noise", {}),
    Variant("simvq", "simvq", COUPLED),
    Variant("vq", "vq", COUPLED),
    Variant("tokenbridge", "tokenbridge", {"kl": 1e-4}),
)

VP_BASE, FSP_BASE = METHODS[0], METHODS[1]
ABLATION: tuple[Variant, ...] = (
    VP_BASE,
    replace(VP_BASE, name="vp, no MH step", replacement=VPWithoutAccept),
    replace(VP_BASE, name="vp, no L_norm", weights=dict.fromkeys(MOMENTS, 0.0)),
    replace(VP_BASE, name="vp, eta 1", options={"eta": 1.0}),
    replace(VP_BASE, name="vp, eta 1.6", options={"eta": 1.6}),
    replace(VP_BASE, name="vp, 2 neighbours", options={"neighbours": 2}),
    replace(VP_BASE, name="vp, 32 neighbours", options={"neighbours": 32}),
    FSP_BASE,
    replace(FSP_BASE, name="fsp, sigmoid", options={"activation": "sigmoid"}),
    replace(FSP_BASE, name="fsp, normal", options={"activation": "normal"}),
    replace(FSP_BASE, name="fsp, laplace", options={"activation": "laplace"}),
)
ABLATION_SIZE = 1024

# Table 1 of the paper, in domain: method -> K -> both qualities, on COCO (PSNR, SSIM) and
# LibriSpeech (PESQ, STOI).
PUBLISHED: dict[str, dict[str, dict[int, tuple[float, float]]]] = {
    "image": {
        "vp": {
            256: (23.50, 0.688),
            1024: (23.89, 0.718),
            4096: (24.67, 0.749),
            16384: (25.20, 0.762),
        },
        "fsp": {
            256: (23.81, 0.694),
            1024: (24.19, 0.718),
            4096: (24.73, 0.744),
            16384: (25.17, 0.758),
        },
        "fsq-noise": {
            256: (22.94, 0.669),
            1024: (23.60, 0.696),
            4096: (24.45, 0.727),
            16384: (24.58, 0.735),
        },
        "simvq": {
            256: (23.54, 0.692),
            1024: (24.01, 0.718),
            4096: (24.83, 0.746),
            16384: (25.24, 0.761),
        },
        "vq": {256: (23.17, 0.670), 1024: (23.73, 0.695), 16384: (24.60, 0.756)},
        "tokenbridge": {1024: (11.51, 0.198)},
    },
    "speech": {
        "vp": {
            256: (2.272, 0.910),
            1024: (2.383, 0.916),
            4096: (2.450, 0.926),
            16384: (2.576, 0.934),
        },
        "fsp": {
            256: (2.265, 0.908),
            1024: (2.446, 0.919),
            4096: (2.471, 0.927),
            16384: (2.570, 0.932),
        },
        "fsq-noise": {
            256: (1.276, 0.797),
            1024: (2.174, 0.900),
            4096: (2.382, 0.918),
            16384: (2.436, 0.923),
        },
        "simvq": {1024: (1.32, 0.403)},
        "vq": {1024: (1.40, 0.363)},
        "tokenbridge": {1024: (1.18, 0.312)},
    },
}


def options_of(bottleneck: str, size: int) -> dict[str, Any]:
    """Returns the bottleneck's arguments for a model of one K."""
    levels = LEVELS[size]
    if bottleneck in ("fsp", "fsq", "fsq-noise"):
        return {"levels": {str(size): levels}}
    if bottleneck == "tokenbridge":  # 4 values in each dimension
        return {"levels": {str(size): [4] * round(log(size, 4))}}
    return {"dim": len(levels), "codebook_sizes": [size]}


def recipe_of(variant: Variant, medium: str, size: int, scale: Scale) -> Recipe:
    """Returns stage A of the medium's shipped recipe, with this bottleneck at this K."""
    recipe = recipes.load(f"{medium}-fsp").to_dict()
    recipe["codec"] |= {"preset": scale.preset, "bottleneck": variant.bottleneck}
    recipe["codec"]["options"] = options_of(variant.bottleneck, size) | dict(variant.options)
    recipe["data"] = {"crop": scale.crop[medium], "batch": scale.batch}
    recipe["stages"] = {"A": 1.0, "C": 0.0}
    distortion = {k: v for k, v in recipe["losses"].items() if k not in MOMENTS}
    recipe["losses"] = distortion | dict(variant.weights)
    return recipes.from_dict(recipe)


@dataclass(frozen=True, slots=True)
class Run:
    """A method at one K, trained on one medium from one seed.

    Attributes:
        recipe: The training.
        store: Its data.
        tests: The test pack of each domain.
        epochs: How long to train where the command line does not say.
    """

    variant: Variant
    recipe: Recipe
    size: int
    seed: int
    store: Store
    tests: Mapping[str, Path]
    epochs: float


def train_and_test(run: Run, request: Request, scratch: Path) -> Record:
    """Does one run; one that was killed goes on from its last checkpoint in `scratch`."""
    recipe, variant, size = run.recipe, run.variant, run.size
    per_epoch = int(run.store.weights.sum()) // (recipe.data.batch * int(np.prod(recipe.data.crop)))
    budget = request.budget(max(1, per_epoch), run.epochs)
    trainer = Trainer(recipe, run.store, budget, scratch, run.seed, request.device)
    if variant.replacement is not None:
        for codec in (trainer.codec, trainer.average):
            codec.bottleneck = variant.replacement(**recipe.codec.options).to(request.device)
    if (scratch / "checkpoint.pt").is_file():
        trainer.resume()
    trainer.run()
    latents = trainer.latents().cpu()
    codec = trainer.average.cpu().eval()
    tables = count_tables(codec, latents)[f"tables.{size}"].astype(np.int64)
    record: Record = {
        "steps": trainer.step,
        "minutes": trainer.elapsed_s / 60,
        "dim": codec.bottleneck.dim,
    }
    record["num_codes"] = codec.bottleneck.num_codes(size)
    for domain, path in run.tests.items():
        record |= {
            f"{domain} {name}": value for name, value in test(codec, size, tables, path).items()
        }
    (scratch / "checkpoint.pt").unlink(missing_ok=True)  # gigabytes, over a whole table
    return record


@torch.no_grad()
def test(codec: Codec, size: int, tables: NDArray[np.int64], path: Path) -> Record:
    """Measures a codec on one test pack.

    A file of its own is coded for each item, as in a bitstream, so that the bits hold the coder's
    few bytes of overhead.

    Args:
        codec: The trained codec.
        size: Its codebook size K.
        tables: Frequencies of the coder, (G, K).
        path: The test pack.

    Returns:
        The mean quality of the items, CVU, H0, and coded bits per token.

    Raises:
        MediaError: The pack has nothing readable of the codec's medium.
    """
    medium, num_codes = codec.config.medium, codec.bottleneck.num_codes(size)
    scores: list[dict[str, float | None]] = []
    indices: list[Tensor] = []
    num_bits = 0
    for name, content in walk([path]):
        try:
            original = _read(medium, content)
        except MediaError as error:
            print(f"  skipped {name}: {error}", flush=True)
            continue
        x = torch.from_numpy(original).float()
        x = x[None, None] if medium == "speech" else x.movedim(-1, 0)[None] / 255
        index = codec.encode(x, size)
        x_hat = codec.decode(index, tuple(x.shape[2:]), size)[0]
        if medium == "speech":
            decoded = x_hat[0].clamp(-1, 1).numpy()
        else:
            decoded = (x_hat.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
        scores.append(score(medium, original, decoded))
        indices.append(index)
        num_bits += 8 * len(encode_indices(index[0].flatten(1).numpy(), num_codes, Tables(tables)))
    if not scores:
        raise MediaError(f"{path}: nothing readable as {medium}")
    everything = torch.cat([index.flatten() for index in indices])
    usage = hard_usage([everything], num_codes)
    record: Record = {
        "items": len(scores),
        "bits": num_bits / len(everything),
        "H0": usage["h0"],
        "CVU": usage["cvu"],
    }
    for metric in METRICS[medium]:
        known = [value for s in scores if (value := s[metric]) is not None]
        record[metric] = sum(known) / len(known) if known else None
        record[f"{metric} scored"] = len(known)
    return record


def _read(medium: str, content: bytes) -> NDArray[Any]:
    if medium == "image":
        return load_image(io.BytesIO(content))
    return np.asarray(load_audio(io.BytesIO(content), SAMPLE_RATE)[0].mean(1))


def _packs(request: Request, pattern: str) -> list[Path]:
    return sorted(path for folder in request.data for path in folder.glob(pattern))


def _store(request: Request, medium: str, crop: list[int]) -> Store:
    """Returns the medium's training packs, which are decoded once into the output folder."""
    target = request.out / "data" / medium
    if not is_prepared(target):
        prepare(medium, _packs(request, f"{medium}-train-*.tar"), target)
    return Store(target, medium, tuple(crop))


# Medium -> (method, K) -> one record for each seed.
Results = dict[str, dict[tuple[str, int], list[Record]]]


def collect(
    request: Request, variants: tuple[Variant, ...], sizes: tuple[int, ...], scale: Scale
) -> Results:
    """Does every run that is wanted and possible; seeds are outermost.

    Raises:
        CodecError: A method that is asked for is not known, or there is nothing to train on.
    """
    names = request.choose("methods", [variant.name for variant in variants])
    chosen = [variant for variant in variants if variant.name in names]
    media = [m for m in request.choose("datasets", TESTS) if _packs(request, f"{m}-train-*.tar")]
    if not media:
        raise CodecError(
            "no training packs; want speech-train-*.tar or image-train-*.tar in --data"
        )
    results: Results = {medium: {} for medium in media}
    stores = {medium: _store(request, medium, scale.crop[medium]) for medium in media}
    for seed in range(request.seeds or SEEDS):
        for medium, store in stores.items():
            found = {
                d: _packs(request, name) for d, name in zip(DOMAINS, TESTS[medium], strict=True)
            }
            tests = {domain: paths[0] for domain, paths in found.items() if paths}
            for size in request.choose("sizes", sizes):
                for variant in chosen:
                    recipe = recipe_of(variant, medium, size, scale)
                    asked = {k: getattr(request, k) for k in ("epochs", "minutes", "steps")}
                    identity = {
                        "recipe": recipe.to_dict(),
                        "budget": asked | {"default": scale.epochs},
                        "seed": seed,
                    }
                    identity |= {
                        "items": len(store.usable),
                        "tests": [path.name for path in tests.values()],
                    }
                    identity["replacement"] = (
                        variant.replacement.__name__ if variant.replacement else None
                    )
                    run = Run(variant, recipe, size, seed, store, tests, scale.epochs)
                    label = variant.name.replace(", ", "-").replace(" ", "-")
                    record = run_once(
                        request.out / "runs-vpvae",
                        f"{medium}-{label}-k{size}-seed{seed}",
                        identity,
                        partial(train_and_test, run, request),
                    )
                    results[medium].setdefault((variant.name, size), []).append(record)
    return results


def table(medium: str, domain: str, runs: dict[tuple[str, int], list[Record]]) -> str:
    """Returns a table with a row for each method and K."""
    first, second = METRICS[medium]
    rate, factor = (
        ("kbit/s", SAMPLE_RATE / 96 / 1000) if medium == "speech" else ("bits/pixel", 1 / 64)
    )
    lines = []
    for (name, size), records in sorted(runs.items(), key=lambda item: item[0][1]):
        summary = aggregate(records)
        get = {key: summary.get(f"{domain} {key}") for key in (first, second, "CVU", "H0", "bits")}
        cells = [
            output.cell(get[key], digits)
            for key, digits in ((first, 2), (second, 3), ("CVU", 3), ("H0", 2))
        ]
        cells += [output.cell(get["bits"], 2), output.cell(get["bits"], 3, factor)]
        paper = PUBLISHED[medium].get(name, {}).get(size) if domain == "in" else None
        known = (
            "{}, {}".format(*(int(summary[key][0]) for key in ("num_codes", "dim")))
            if "dim" in summary
            else "-"
        )
        lines.append(
            [name, str(size), known, *cells, f"{paper[0]:.2f} / {paper[1]:.3f}" if paper else "-"]
        )
    head = [
        "method",
        "K",
        "codes, d",
        first,
        second,
        "CVU",
        "H0",
        "coded bits/token",
        rate,
        "paper",
    ]
    return markdown.table(head, lines)


def _finish(
    request: Request, name: str, title: str, domain: str, results: Results, scale: Scale
) -> None:
    """Writes JSON, a report, and a picture of quality against K and against coded bits."""
    path = request.out / name
    plain = {
        m: {f"{n} K={k}": aggregate(r) for (n, k), r in runs.items()} for m, runs in results.items()
    }
    write(path.with_suffix(".json"), json.dumps(plain, indent=1) + "\n")
    notes = [
        "stage A of the shipped recipes, no GAN, one model for each K, the decoder not adapted to "
        "the codebook"
    ]
    notes += DEVIATIONS
    for medium, runs in results.items():
        records = [r for group in runs.values() for r in group if "steps" in r]
        if not records:
            continue
        pack = TESTS[medium][DOMAINS.index(domain)]
        steps = sorted({r["steps"] for r in records})
        span = " to ".join(dict.fromkeys(f"{step}" for step in (steps[0], steps[-1])))
        items = records[0].get(f"{domain} items", 0)
        notes.append(
            f"{medium}: {span} steps a run, tested on {items} items of {pack}; mean ± deviation "
            "over seeds"
        )
    if request.small:
        notes.append(f"REDUCED SIZE for a CPU: {scale.preset} nets, batch {scale.batch}, few steps")
    tables = [f"## {medium}\n\n{table(medium, domain, runs)}" for medium, runs in results.items()]
    output.save_report(path, title, notes, tables)
    with output.picture(path, columns=2, rows=len(results), size=(4.8, 3.6)) as axes:
        for row, (medium, runs) in enumerate(results.items()):
            quality = next(iter(METRICS[medium]))
            for axis, key in zip(axes[2 * row : 2 * row + 2], ("K", "bits"), strict=True):
                _draw(axis, runs, domain, quality, key)
                axis.set(title=medium, ylabel=quality)
                axis.set_xlabel("K" if key == "K" else "coded bits per token")
            axes[2 * row].set_xscale("log", base=2)
            axes[2 * row].legend()


def _draw(
    axis: Axes, runs: dict[tuple[str, int], list[Record]], domain: str, quality: str, key: str
) -> None:
    """Draws a line for each method through its means at each K, with deviations over seeds."""
    names = dict.fromkeys(name for name, _ in runs)
    for i, name in enumerate(names):
        points = []
        for (other, size), records in runs.items():
            summary = aggregate(records)
            y, bits = summary.get(f"{domain} {quality}"), summary.get(f"{domain} bits")
            if other == name and y is not None and bits is not None:
                points.append((size if key == "K" else bits[0], y[0], y[1] or 0.0))
        if points:
            x, mean, deviation = zip(*sorted(points), strict=True)
            axis.errorbar(
                x,
                mean,
                deviation,
                fmt="ovs^D"[i % 5] + "-",
                color=f"C{i % 10}",
                capsize=2,
                label=name,
            )


def _table(request: Request, number: int, domain: str, words: str) -> None:
    scale = SMALL if request.small else FULL
    results = collect(request, METHODS, scale.sizes, scale)
    _finish(
        request, f"vpvae-table{number}", f"VP-VAE, table {number}: {words}", domain, results, scale
    )


def table1(request: Request) -> None:
    """Trains methods at sizes, and tests them on the in-domain packs."""
    _table(request, 1, "in", "in domain")


def table2(request: Request) -> None:
    """Tests the models of table 1 on the out-of-domain packs."""
    _table(request, 2, "out", "out of domain")


def ablation(request: Request) -> None:
    """Trains VP without its parts, and FSP with each activation, at K = 1024."""
    scale = SMALL if request.small else FULL
    results = collect(request, ABLATION, (ABLATION_SIZE,), scale)
    _finish(request, "vpvae-ablation", "VP-VAE, ablation", "in", results, scale)
