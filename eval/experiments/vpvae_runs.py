"""The runs behind the VP-VAE paper's tables: one dedicated model for each method and K.

recipe + method + K ──train.loop, stage A, no GAN──> codec
    ──test packs──> quality, CVU, H0, coded bits
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.entropy import Tables
from codec.errors import CodecError, MediaError
from codec.files import walk
from codec.media import load_audio, load_image
from codec.medium import IMAGE, MEDIA, SAMPLE_RATE
from codec.model import Codec
from eval.experiments import coded
from eval.experiments.runs import (
    Record,
    Request,
    check_alike,
    check_seeds,
    finished,
    run_once,
)
from eval.experiments.usage import hard_usage
from eval.experiments.vpvae_methods import Scale, Variant, recipe_of
from eval.metrics import Metric, measure, score
from train.checkpoint import CHECKPOINT_NAME
from train.data import is_prepared, prepare
from train.hardware import hardware
from train.loop import Trainer
from train.priors import index_grids
from train.recipe import Recipe
from train.store import Store

SEEDS = 3
FOLDER = "runs-vpvae"  # tables and ablation share their runs
TESTS = {  # medium -> in domain, out of domain
    "speech": ("speech-test.tar", "speech-ood.tar"),
    "image": ("image-test-coco.tar", "image-test-imagenet.tar"),
}
DOMAINS = ("in", "out")


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
    trainer = Trainer(
        recipe,
        run.store,
        budget,
        scratch,
        run.seed,
        request.device,
        backbone=request.lpips_backbone,
    )
    if variant.replacement is not None:
        for codec in (trainer.codec, trainer.average):
            codec.bottleneck = variant.replacement(**recipe.codec.options).to(request.device)
    if (scratch / CHECKPOINT_NAME).is_file():
        trainer.resume()
    trainer.run()
    codec = trainer.average.eval()
    grids = index_grids(codec, run.store, coded.TOKENS)[size]
    codec = codec.cpu()
    medium = MEDIA[codec.config.medium]
    tables = coded.tables_of(grids, codec.bottleneck, size, medium, codec.stride)
    record: Record = {
        "steps": trainer.step,
        "minutes": trainer.elapsed_s / 60,
        "steps_per_second": trainer.step / max(trainer.elapsed_s, 1e-9),
        "dim": codec.bottleneck.dim,
        "num_codes": codec.bottleneck.num_codes(size),
        "preset": recipe.codec.preset,
        "batch": recipe.data.batch,
        "hardware": trainer.hardware,
    }
    more = _lpips(medium.name, request.lpips_backbone)
    for domain, path in run.tests.items():
        found = test(codec, size, tables, path, more)
        record |= {f"{domain} {name}": value for name, value in found.items()}
    return record


@torch.no_grad()
def test(codec: Codec, size: int, tables: Tables, path: Path, more: Mapping[str, Metric]) -> Record:
    """Measures a codec on one test pack.

    A file of its own is coded for each item, as in a bitstream, so that the bits hold the coder's
    few bytes of overhead.

    Args:
        codec: The trained codec.
        size: Its codebook size K.
        tables: The coder's.
        path: The test pack.
        more: Metrics beside those that every table has.

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
        values = score(medium, original, decoded)
        values |= {key: measure(metric, original, decoded)[0] for key, metric in more.items()}
        scores.append(values)
        indices.append(index)
        width = x.shape[-1] if medium == "image" else 0
        num_bits += coded.bits(index[0].flatten(1).numpy(), num_codes, tables, width)
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
    for metric_name in scores[0]:
        known = [value for s in scores if (value := s[metric_name]) is not None]
        record[metric_name] = sum(known) / len(known) if known else None
        record[f"{metric_name} scored"] = len(known)
    return record


def _lpips(medium: str, backbone: Path | None) -> dict[str, Metric]:
    """Returns LPIPS by the net of a backbone file, by its name; nothing for speech or no file."""
    if backbone is None:
        return {}
    from eval import lpips_metric  # takes seconds

    return lpips_metric.metrics(medium, [lpips_metric.of_file(backbone)])


def _read(medium: str, content: bytes) -> NDArray[Any]:
    if medium == "image":
        return load_image(io.BytesIO(content))
    return np.asarray(load_audio(io.BytesIO(content), SAMPLE_RATE)[0].mean(1))


def _packs(request: Request, pattern: str) -> list[Path]:
    """Returns the packs of --data; runs are known by their names and sizes.

    Raises:
        CodecError: Two files have one name.
    """
    found: dict[str, Path] = {}
    for path in (path for folder in request.data for path in folder.glob(pattern)):
        first = found.setdefault(path.name, path)
        if not first.samefile(path):
            raise CodecError(f"{path}: {first} has this name, too; leave one out of --data")
    return sorted(found.values())


def _sizes_of(packs: Iterable[Path]) -> dict[str, int]:
    """Returns the bytes of each pack, by its name: what tells one set of data from another."""
    return {path.name: path.stat().st_size for path in packs}


def _store(request: Request, medium: str, crop: list[int]) -> Store:
    """Returns the medium's training packs, which are decoded once into the output folder."""
    packs = _packs(request, f"{medium}-train-*.tar")
    digest = hashlib.sha256(json.dumps(_sizes_of(packs)).encode()).hexdigest()[:8]
    target = request.out / "data" / f"{medium}-{digest}"
    if not is_prepared(target):
        prepare(medium, packs, target)
    return Store(target, medium, tuple(crop))


Results = dict[
    str, dict[tuple[str, int], list[Record]]
]  # medium -> (method, K) -> one record for each seed


def collect(
    request: Request,
    variants: tuple[Variant, ...],
    sizes: tuple[int, ...],
    scale: Scale,
    media: Iterable[str] = TESTS,
    domains: tuple[str, ...] = DOMAINS,
) -> Results:
    """Does every run that is wanted and possible, or reads those that were done before.

    Seeds are outermost, so that an interrupted table has whole ones.

    Args:
        request: What the command line asks for.
        variants: The rows.
        sizes: Their codebook sizes K.
        scale: How large the runs are.
        media: Those that the experiment is about.
        domains: Those that it reports, of which there must be one to test on.

    Raises:
        CodecError: A method that is asked for is not known, there is nothing to train or test on,
            or the runs to redraw cannot be read.
    """
    names = request.choose("methods", [variant.name for variant in variants])
    chosen = [variant for variant in variants if variant.name in names]
    sizes = tuple(request.choose("sizes", sizes))
    media = request.choose("datasets", media)
    if request.redraw is not None:
        return read(request.redraw / FOLDER, names, sizes, media)
    trained = [m for m in media if _packs(request, f"{m}-train-*.tar")]
    if not trained:
        raise CodecError(
            "no training packs; want speech-train-*.tar or image-train-*.tar in --data"
        )
    for medium in media:
        wanted = [name for d, name in zip(DOMAINS, TESTS[medium], strict=True) if d in domains]
        if medium not in trained:
            print(f"{medium}: skipped, no {medium}-train-*.tar in --data", flush=True)
        elif not any(_packs(request, name) for name in wanted):
            raise CodecError(f"nothing to test {medium} on; want {' or '.join(wanted)} in --data")
    media = trained
    results: Results = {medium: {} for medium in media}
    lpips = next(iter(_lpips(IMAGE.name, request.lpips_backbone)), None)
    stores = {medium: _store(request, medium, scale.crop[medium]) for medium in media}
    asked = {key: getattr(request, key) for key in ("epochs", "minutes", "steps")}
    for seed in range(request.seeds or SEEDS):
        for medium, store in stores.items():
            found = {
                d: _packs(request, name) for d, name in zip(DOMAINS, TESTS[medium], strict=True)
            }
            tests = {domain: paths[0] for domain, paths in found.items() if paths}
            for size in sizes:
                for variant in chosen:
                    recipe = recipe_of(variant, medium, size, scale)
                    replaced = variant.replacement and variant.replacement.__name__
                    identity = {
                        "name": variant.name,
                        "medium": medium,
                        "size": size,
                        "seed": seed,
                        "recipe": recipe.to_dict(),
                        "replacement": replaced,
                        "budget": asked | {"default": scale.epochs},
                        "items": len(store.usable),
                        "data": _sizes_of(_packs(request, f"{medium}-train-*.tar")),
                        "tests": _sizes_of(tests.values()),
                        "hardware": hardware(request.device),
                    }
                    if recipe.losses.get("lpips"):
                        identity["lpips"] = lpips
                    run = Run(variant, recipe, size, seed, store, tests, scale.epochs)
                    label = variant.name.replace(" ", "-")
                    record = run_once(
                        request.out / FOLDER,
                        f"{medium}-{label}-k{size}-seed{seed}",
                        identity,
                        partial(train_and_test, run, request),
                    )
                    measured = [d for d in tests if f"{d} PSNR" in record]
                    if lpips and any(f"{d} {lpips}" not in record for d in measured):
                        print(f"  not measured by {lpips}: remove its file to do so", flush=True)
                    results[medium].setdefault((variant.name, size), []).append(record)
    return results


def read(
    folder: Path, names: Iterable[str], sizes: tuple[int, ...], media: Iterable[str]
) -> Results:
    """Returns the finished runs of a folder: those of the rows, sizes and media that are named.

    Raises:
        CodecError: There are none, or those of a medium are not of one budget and the same data, or
            those of a row differ in more than their seed.
    """
    found: Results = {medium: {} for medium in media}
    order = list(names)
    records = [
        record
        for record in finished(folder, (), order)
        if record["settings"]["medium"] in found and record["settings"]["size"] in sizes
    ]
    if not records:
        raise CodecError(f"{folder}: no finished runs to redraw")
    check_seeds(folder, records)
    for medium in found:
        of_medium = [r for r in records if r["settings"]["medium"] == medium]
        check_alike(folder, of_medium, ("budget", "data", "tests"))
    records.sort(key=lambda r: (order.index(r["settings"]["name"]), r["settings"]["seed"]))
    for record in records:
        settings = record["settings"]
        row = found[settings["medium"]].setdefault((settings["name"], settings["size"]), [])
        row.append(record["result"])
    return {medium: rows for medium, rows in found.items() if rows}
