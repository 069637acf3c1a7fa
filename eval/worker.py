"""Measures one item through every system of its medium: compress to a file, decompress, score."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from codec.errors import CodecError, MediaError
from codec.files import writing
from codec.media import AudioWriter, save_image
from codec.medium import MEDIA, SAMPLE_RATE
from eval.baselines import BASELINES, match_bytes
from eval.datasets import Item, TestSet, load_signal
from eval.journal import Record, pack_tokens
from eval.metrics import Metric, measure
from eval.mos import NAME as MOS
from eval.mos import DistillMOS
from eval.paths import file_path, sample_path
from eval.plan import Plan
from eval.systems import (
    BaselineSystem,
    ModelSystem,
    NeighbourSystem,
    System,
    check_shape,
    load_models,
    load_neighbour,
)


class Worker:
    """Measures items; one in each process, since models and LPIPS nets are loaded once.

    One thread each: items run in parallel instead, and the sums inside a net do not depend on the
    number of threads.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        torch.set_num_threads(1)
        self._plan, self._folder = plan, folder
        neighbours = [NeighbourSystem(load_neighbour(spec)) for spec in plan.neighbours]
        self._coders: list[System] = [*load_models(list(plan.models)), *neighbours]
        self._mos = DistillMOS() if plan.mos else None
        with_weights: dict[str, dict[str, Metric]] = {
            "image": {backbone.name: backbone.load() for backbone in plan.lpips},
            "speech": {MOS: self._mos} if self._mos else {},
        }
        self._metrics = {
            medium: plan.metrics(medium) | more for medium, more in with_weights.items()
        }

    def measure(self, one: TestSet, item: Item, sample: bool = False) -> Record:
        """Measures one item through every system of its medium.

        Args:
            one: The item's set, without its items.
            item: A recording or picture.
            sample: Whether to keep the item and what comes out of each system, to look at and to
                listen to.

        Returns:
            A line of the journal: the item's records, tokens and timings, or why it was skipped.
        """
        line: Record = {"set": one.name, "item": item.name}
        try:
            medium, signal = load_signal(item, one.crop, one.level_dbfs)
            if not any(system.medium == medium for system in self._all_systems()):
                raise MediaError(f"{medium}, which no system of this run codes")
        except (CodecError, OSError) as error:
            return line | {"skipped": " ".join(str(error).split()), "records": []}
        line |= {"medium": medium}
        if self._mos and MEDIA[medium].timed:
            line["original"] = {MOS: measure(self._mos, signal[:, 0], signal[:, 0])[0]}
        return line | self._measure(one.name, item.name, medium, signal, sample)

    def _all_systems(self) -> Iterator[System]:
        yield from self._coders
        for name in self._plan.baselines:
            yield BaselineSystem(BASELINES[name], BASELINES[name].curve[0])

    def _measure(
        self, set_name: str, name: str, medium: str, signal: NDArray[Any], sample: bool
    ) -> Record:
        records, failed, timings, tokens = [], [], [], {}
        tried: dict[str, dict[int, bytes]] = {baseline: {} for baseline in self._plan.baselines}
        scored: dict[tuple[str, bytes], Record] = {}  # one file may be nearest to several of ours
        if sample:
            save_sample(self._folder, set_name, name, "original", medium, signal)

        def add(system: System, setting: str, **more: Any) -> int | None:
            """Measures one system, and returns its bytes.

            Files of models and matched ones are kept.
            """
            label = f"{system.name} {setting}"
            try:
                data, decoded, timing = _there_and_back(system, signal)
            except MediaError as error:
                failed.append(
                    {
                        "system": system.name,
                        "setting": setting,
                        "reason": " ".join(str(error).split()),
                    }
                )
                return None
            if (system.name, data) not in scored:
                scored[system.name, data] = self._score(system, signal, decoded, data)
            record = scored[system.name, data]
            records.append({"system": system.name, "setting": setting} | more | record)
            timings.append(
                {"system": system.name, "setting": setting, "units": record["units"]} | timing
            )
            indices = system.indices(data)
            if indices is not None:
                tokens[label] = {"num_codes": system.num_codes, "indices": pack_tokens(indices)}
            if indices is not None or more:
                with writing(
                    str(file_path(self._folder, system.name, setting, set_name, name)), force=True
                ) as file:
                    file.write(data)
                if sample:
                    save_sample(self._folder, set_name, name, label, medium, decoded)
            return len(data)

        targets = {}
        for system in self._coders:
            if system.medium == medium:
                targets[f"{system.name} {system.setting}"] = add(system, system.setting)
        for baseline in (BASELINES[known] for known in self._plan.baselines):
            if baseline.medium != medium:
                continue
            for setting in baseline.curve if self._plan.curves else ():
                add(BaselineSystem(baseline, setting), str(setting))
            for target, size in targets.items() if self._plan.match else ():
                if size is None:
                    continue
                try:
                    match = match_bytes(baseline, signal, size, tried[baseline.name])
                except Exception as error:  # whatever an encoder has against a signal
                    reason = f"{type(error).__name__}: {error}"
                    failed.append(
                        {"system": baseline.name, "setting": f"@ {target}", "reason": reason}
                    )
                    continue
                add(
                    BaselineSystem(baseline, match.setting),
                    f"@ {target}",
                    matched_to=target,
                    chosen=match.setting,
                )
        timing = {
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "systems": timings,
        }
        return {"records": records, "failed": failed, "tokens": tokens, "timing": timing}

    def _score(
        self, system: System, signal: NDArray[Any], decoded: NDArray[Any], data: bytes
    ) -> Record:
        speech = MEDIA[system.medium].timed
        record: Record = {
            "bytes": len(data),
            "payload_bytes": system.payload(data),
            "units": len(signal) / SAMPLE_RATE if speech else signal.shape[0] * signal.shape[1],
        }
        if isinstance(system, ModelSystem):
            record["perplexity_soft"] = system.soft_perplexity(signal)
        pair = (signal[:, 0], decoded[:, 0]) if speech else (signal, decoded)
        reasons = {}
        for name, metric in self._metrics[system.medium].items():
            record[name], reason = measure(metric, *pair)
            if reason:
                reasons[name] = reason
        return record | ({"unscored": reasons} if reasons else {})


def _there_and_back(system: System, signal: NDArray[Any]) -> tuple[bytes, NDArray[Any], Record]:
    """Returns a file, what it decodes to, and the seconds that both took.

    Raises:
        MediaError: The system fails on this signal.
    """
    try:
        start = time.perf_counter()
        data = system.compress(signal)
        encoded = time.perf_counter()
        decoded = system.decompress(data, len(signal))
        done = time.perf_counter()
    except (CodecError, MemoryError):
        raise
    except Exception as error:  # an encoder of another's, on a signal that it cannot take
        # The disk's; Pillow's encoders have no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise MediaError(f"{system.name}: {type(error).__name__}: {error}") from None
    return (
        data,
        check_shape(system, signal, decoded),
        {"encode_s": encoded - start, "decode_s": done - encoded},
    )


def save_sample(
    folder: Path, set_name: str, item: str, label: str, medium: str, signal: NDArray[Any]
) -> None:
    """Keeps a signal in the run's folder, as .png or .flac."""
    path = sample_path(folder, set_name, item, label, medium)
    with writing(str(path), force=True) as file:
        if medium == "image":
            save_image(file, signal)
        else:
            writer = AudioWriter(file, SAMPLE_RATE, 1, "flac")
            writer.write(signal)
            writer.close()
