"""Measures one item through every system of its medium: compress to a file, decompress, score."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from codec.errors import CodecError, MediaError, ModelError, out_of_memory
from codec.files import writing
from codec.medium import MEDIA, SPEECH
from codec.quiet import heard
from eval import lpips_metric
from eval.baselines import BASELINES, Baseline, match_bytes
from eval.datasets import Item, TestSet, load_signal
from eval.journal import Record, pack_tokens
from eval.metrics import Metric, measure
from eval.mos import NAME as MOS
from eval.mos import DistillMOS
from eval.paths import file_path, sample_path
from eval.plan import Plan
from eval.signals import SIGNALS, Signal
from eval.systems import (
    BaselineSystem,
    ModelSystem,
    NeighbourSystem,
    System,
    check_shape,
    load_models,
    load_neighbour,
)

PIECE = 1024  # samples, or pixels of a side


class Worker:
    """Measures items; one in each process, since models and LPIPS nets are loaded once.

    One thread each: items run in parallel instead, and the sums inside a net do not depend on the
    number of threads.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        torch.set_num_threads(1)
        self._plan, self._folder = plan, folder
        neighbours = [NeighbourSystem(load_neighbour(spec)) for spec in plan.neighbours]
        models = load_models(list(plan.models), plan.effort, plan.search)
        self._coders: list[System] = [*models, *neighbours]
        _check_labels(self._coders)
        self._warm: set[str] = set()
        self._mos = DistillMOS() if plan.mos else None
        self._metrics = {
            medium: plan.metrics(medium) | lpips_metric.metrics(medium, plan.lpips)
            for medium in MEDIA
        }
        if self._mos:
            self._metrics[SPEECH.name][MOS] = self._mos

    def measure(self, one: TestSet, item: Item, sample: bool = False) -> Record:
        """Measures one item through every system of its medium.

        Args:
            one: The item's set, without its items.
            item: A recording or picture.
            sample: Whether to keep the item and what comes out of each system, to look at and to
                listen to.

        Returns:
            A line of the journal: the item's records, tokens and timings, and what was noticed on
            reading it; or why it was skipped.
        """
        line: Record = {"set": one.name, "item": item.name}
        try:
            with heard() as notices:
                medium, signal = load_signal(item, one.crop, one.level_dbfs)
            if not any(system.medium == medium for system in self._all_systems()):
                raise MediaError(f"{medium}, which no system of this run codes")
        except (CodecError, OSError) as error:
            return line | {"skipped": " ".join(str(error).split()), "records": []}
        self._warm_up(medium, signal[:PIECE, :PIECE])
        found = _Measured(self._folder, one.name, item.name, medium, signal, sample)
        targets = {
            f"{system.name} {system.setting}": found.add(
                system, system.setting, self._metrics[medium]
            )
            for system in self._coders
            if system.medium == medium
        }
        for baseline in (BASELINES[name] for name in self._plan.baselines):
            if baseline.medium == medium:
                self._add_classic(found, baseline, targets)
        line |= {"medium": medium} | ({"notices": notices} if notices else {})
        if self._mos and MEDIA[medium].timed:
            line["original"] = {MOS: _figure(self._mos, signal[:, 0], signal[:, 0])[0]}
        return line | found.line()

    def _warm_up(self, medium: str, piece: Signal) -> None:
        """Codes a piece of the first signal by every model, whose first call takes longer."""
        if medium not in self._warm:
            self._warm.add(medium)
            for system in (one for one in self._coders if one.medium == medium):
                with suppress(CodecError, MemoryError):  # the measurement tells
                    _there_and_back(system, piece)

    def _all_systems(self) -> Iterator[System]:
        """The systems that measure something, whatever else there is: one of a kind will do."""
        yield from self._coders
        for name in self._plan.baselines if self._plan.curves else ():  # or it follows a coder
            yield BaselineSystem(BASELINES[name], BASELINES[name].curve[0])

    def _add_classic(
        self, found: _Measured, baseline: Baseline, targets: dict[str, int | None]
    ) -> None:
        """Measures a classic codec: along its curve, and at the bytes of each of our files.

        Args:
            found: Takes what is measured.
            baseline: The codec.
            targets: The bytes of the files that our systems made; None where one failed.
        """
        metrics = self._metrics[found.medium]
        for setting in baseline.curve if self._plan.curves else ():
            found.add(BaselineSystem(baseline, setting), str(setting), metrics)
        tried: dict[int, bytes] = {}
        for target, size in targets.items() if self._plan.match else ():
            if size is None:
                continue
            try:
                match = match_bytes(baseline, found.signal, size, tried)
            except Exception as error:  # whatever an encoder has against a signal
                found.fail(baseline.name, f"@ {target}", f"{type(error).__name__}: {error}")
                continue
            system = BaselineSystem(baseline, match.setting)
            more = {"matched_to": target, "chosen": match.setting}
            found.add(system, f"@ {target}", metrics, more)


def _check_labels(coders: Sequence[System]) -> None:
    """Refuses two systems that tables could not tell apart: their items would be in one mean.

    Raises:
        ModelError: There are such.
    """
    labels = Counter(f"{system.name} {system.setting}" for system in coders)
    if twice := [label for label, count in labels.items() if count > 1]:
        raise ModelError(f"two systems of this run are called {twice[0]}; measure one at a time")


class _Measured:
    """What is measured on one item, system by system, and the files that are kept of it.

    Args:
        folder: The run's.
        set_name: The item's set.
        name: The item's.
        medium: Its medium.
        signal: What it holds.
        sample: Whether the signal and what comes out of each system are kept, too.
    """

    def __init__(
        self,
        folder: Path,
        set_name: str,
        name: str,
        medium: str,
        signal: Signal,
        sample: bool,
    ) -> None:
        self.medium, self.signal = medium, signal
        self._folder, self._place, self._sample = folder, (set_name, name), sample
        self._records: list[Record] = []
        self._failed: list[Record] = []
        self._timings: list[Record] = []
        self._tokens: dict[str, Record] = {}
        # One file may be the nearest to several of ours.
        self._scored: dict[tuple[str, bytes], Record] = {}
        self._keep_sample("original", signal)

    def add(
        self,
        system: System,
        setting: str,
        metrics: Mapping[str, Metric],
        more: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Measures one system.

        Files of our models, and those of classic codecs that are matched to one, are kept.

        Args:
            system: What codes the signal.
            setting: What tables call its setting.
            metrics: By name.
            more: What else its record says, of a file that is matched to another.

        Returns:
            The bytes of its file; None where it failed.
        """
        try:
            data, decoded, timing = _there_and_back(system, self.signal)
            indices = system.indices(data)
            if (system.name, data) not in self._scored:
                self._scored[system.name, data] = _score(
                    system, self.signal, decoded, data, metrics
                )
        except CodecError as error:
            self.fail(system.name, setting, str(error))
            return None
        record = self._scored[system.name, data]
        named = {"system": system.name, "setting": setting}
        self._records.append(named | dict(more or {}) | record)
        self._timings.append(named | {"units": record["units"]} | timing)
        label = f"{system.name} {setting}"
        if indices is not None:
            tokens = {"num_codes": system.num_codes, "indices": pack_tokens(indices)}
            self._tokens[label] = tokens
        if indices is not None or more:
            path = file_path(self._folder, system.name, setting, *self._place)
            with writing(str(path), force=True) as file:
                file.write(data)
            self._keep_sample(label, decoded)
        return len(data)

    def fail(self, system: str, setting: str, reason: str) -> None:
        """Notes that a system could not code the signal."""
        self._failed.append(
            {"system": system, "setting": setting, "reason": " ".join(reason.split())}
        )

    def line(self) -> Record:
        """Returns what the journal keeps."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "records": self._records,
            "failed": self._failed,
            "tokens": self._tokens,
            "timing": {"peak_bytes": peak, "systems": self._timings},
        }

    def _keep_sample(self, label: str, signal: Signal) -> None:
        if not self._sample:
            return
        kind = SIGNALS[self.medium]
        path = sample_path(self._folder, *self._place, label, kind.suffix)
        with writing(str(path), force=True) as file:
            kind.write(file, signal)


def _score(
    system: System, signal: Signal, decoded: Signal, data: bytes, metrics: Mapping[str, Metric]
) -> Record:
    """Returns what a record says of a file, whoever made it: sizes and figures."""
    signals = SIGNALS[system.medium]
    record: Record = {
        "bytes": len(data),
        "payload_bytes": system.payload(data),
        "units": signals.units(signal),
    }
    if isinstance(system, ModelSystem):
        record["perplexity_soft"] = system.soft_perplexity(signal)
    pair = [signals.compared(one) for one in (signal, decoded)]
    reasons = {}
    for name, metric in metrics.items():
        record[name], reason = _figure(metric, *pair)
        if reason:
            reasons[name] = reason
    return record | ({"unscored": reasons} if reasons else {})


def _figure(metric: Metric, x: Signal, x_hat: Signal) -> tuple[float | None, str | None]:
    """Returns a metric's value, or None and the reason why there is none.

    A metric that fails is such a reason, so that one item does not end a night's run. A machine
    without memory or disk is not: all items after it would go the same way.
    """
    try:
        return measure(metric, x, x_hat)
    except Exception as error:
        if out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        return None, " ".join(f"{type(error).__name__}: {error}".split())


def _there_and_back(system: System, signal: Signal) -> tuple[bytes, Signal, Record]:
    """Returns a file, what it decodes to, and the seconds that both took.

    Raises:
        CodecError: The system fails on this signal.
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
