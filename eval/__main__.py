"""python -m eval MODEL... --data DIR|NAME...: measures models on real files, and reports.

The command prints a line for each model and codebook size; --out DIR keeps everything: a record for
each item and a summary with intervals in results.json, a report with tables and pictures in
report.md, the compressed files. A run that was stopped goes on where it was, by the same command
and folder. --card NAME keeps the means in a model's card, where `eval.report` and the choice of the
default model find them.

--level-dbfs -60 -40 -20 measures speech at these input levels, a set for each: the recordings are
brought to a root mean square of so many dB below full scale, and what is decoded is held against
that. --mos adds DistillMOS, which judges speech without an original.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from codec import cards
from codec.cli.frame import Parser, UsageError, filled_path, positive, print_line, run
from codec.cli.options import add_care
from codec.errors import MediaError, not_installed
from codec.files import temporary_folder
from codec.medium import IMAGE, MEDIA, SPEECH
from codec.streams import process

try:
    from eval import baselines, lpips_metric, mos, run_report, summary
    from eval.datasets import TestSet, find
    from eval.journal import Record
    from eval.model_tables import kept_in_cards
    from eval.options import add_sets
    from eval.plan import Plan
    from eval.run import run_all
    from eval.systems import load_neighbour
    from eval.trained import Trained, mark, note
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval')}")

LEVELS = (-90, 0)  # dBFS: about the noise of 16 bits, and a square wave of full scale
# Options that one medium alone heeds.
MEDIUM_OF = {
    "level_dbfs": SPEECH, "mos": SPEECH, "crop": IMAGE, "lpips": IMAGE, "lpips_backbone": IMAGE,
}  # fmt: skip
CARD_TABLES = ("rate", "bits_per_token", "H0", "CVU")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m eval", description=__doc__, epilog="See docs/evaluate.md")
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="a shipped model, or the path of a card"
    )
    add_sets(parser)
    parser.add_argument(
        "-k", "--codebook-size", metavar="K,...", help="those that each model offers; default: all"
    )
    parser.add_argument(
        "--baselines",
        default="",
        metavar="NAME,...",
        help="classic codecs, or all; on their curves",
    )
    parser.add_argument(
        "--match-rate",
        action="store_true",
        help="baselines at the bytes of each model's files, too",
    )
    parser.add_argument(
        "--no-curves", action="store_true", help="with --match-rate: baselines at no other bytes"
    )
    parser.add_argument(
        "--anchor",
        metavar="NAME",
        help="of BD-rates in the report; default: the first baseline of a medium",
    )
    parser.add_argument(
        "--neighbour", action="append", default=[], metavar="KIND:PATH", help="see eval.systems"
    )
    parser.add_argument(
        "--lpips", default="", metavar="NET,...", help="alex, vgg, squeeze; fetched if need be"
    )
    parser.add_argument(
        "--lpips-backbone", type=filled_path, action="append", default=[], metavar="FILE"
    )
    add_care(parser)
    parser.add_argument("--mos", action="store_true", help="DistillMOS of speech; extra [mos]")
    parser.add_argument(
        "--level-dbfs",
        nargs="+",
        type=float,
        metavar="DB",
        help="speech at these levels; default: as recorded",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only PSNR and SSIM, PESQ and STOI, and what --mos asks",
    )
    parser.add_argument(
        "--crop",
        type=positive(int),
        metavar="N",
        help="scale and cut pictures to N x N; default: of the set",
    )
    parser.add_argument(
        "--first", type=positive(int), metavar="N", help="only the first N items of each set"
    )
    parser.add_argument(
        "--workers", type=positive(int), default=len(os.sched_getaffinity(0)), metavar="N"
    )
    parser.add_argument(
        "--out", type=filled_path, metavar="DIR", help="keeps records, files and report"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what DIR has")
    parser.add_argument(
        "--card", metavar="NAME", help="keep the means in the models' cards, as results on NAME"
    )
    return run(parser, arguments, _evaluate)


def _check(options: argparse.Namespace) -> None:
    """Refuses options of which one would be ignored beside the others.

    Raises:
        UsageError: There are such.
    """
    for wrong, advice in (
        (options.quick and options.lpips, "--lpips is no part of --quick; leave one out"),
        (
            options.quick and options.lpips_backbone,
            "--lpips-backbone is no part of --quick; leave one out",
        ),
        (
            options.match_rate and not options.baselines,
            "--match-rate is of classic codecs; name --baselines",
        ),
        (
            options.match_rate and not (options.models or options.neighbour),
            "--match-rate is at the bytes of a model; name a MODEL or a --neighbour",
        ),
        (
            options.no_curves and not options.match_rate,
            "--no-curves leaves baselines nothing but --match-rate; add it",
        ),
        (options.anchor and not options.out, "--anchor is of the report; name --out"),
        (options.fresh and not options.out, "--fresh measures again what --out has; name it"),
        (options.card and not options.models, "--card keeps means of a model; name a MODEL"),
        *(
            (getattr(options, name) and not options.models, f"--{name} is of a model; name a MODEL")
            for name in ("effort", "search")
        ),
        *(
            (
                getattr(options, name) and options.card,
                f"--card keeps what a model reaches without --{name}; leave one out",
            )
            for name in ("effort", "search")
        ),
        (
            options.codebook_size and not options.models,
            "--codebook-size is of a model; name a MODEL",
        ),
    ):
        if wrong:
            raise UsageError(advice)


def _evaluate(options: argparse.Namespace) -> None:
    _check(options)
    if options.card and len(options.data) * len(options.level_dbfs or [0]) > 1:
        raise UsageError(
            "--card names the results of one test set; give one --data, and one --level-dbfs at "
            "most"
        )
    for level in options.level_dbfs or []:
        if not LEVELS[0] <= level <= LEVELS[1]:
            raise UsageError(f"--level-dbfs {level:g}: want {LEVELS[0]} to {LEVELS[1]} dB")
    if options.out and options.out.is_file():
        raise UsageError(f"--out {options.out} is a file; give a folder")
    sets = [
        at
        for name in options.data
        for at in _at_levels(_test_set(name, options), options.level_dbfs)
    ]
    twice = [name for name, count in Counter(one.name for one in sets).items() if count > 1]
    if twice:
        raise UsageError(f"--data: two sets are called {twice[0]}; rename a folder")
    plan = _plan(options)
    with (
        nullcontext(options.out)
        if options.out
        else tempfile.TemporaryDirectory(dir=temporary_folder())
    ) as folder:
        out = Path(folder)
        try:
            journal = run_all(plan, sets, out, options.workers, options.fresh)
        except KeyboardInterrupt:
            if options.out is None:
                raise
            fresh = " without --fresh" if options.fresh else ""
            raise KeyboardInterrupt(
                f"interrupted; the same command{fresh} goes on from what is in {options.out}"
            ) from None
        results = summary.summarise(journal)
        _print(results)
        if not results["records"]:
            kind = "skipped" if results["skipped"] else "failed"
            first = results[kind][0]
            raise MediaError(
                f"nothing to evaluate: {len(results[kind])} {kind} ({first['item']}: "
                f"{first['reason']})"
            )
        _note_unused(plan, options, results)
        if options.out:
            summary.write_json(out / "results.json", results)
            summary.write_json(out / "timing.json", summary.speeds(journal))
            print_line(f"report: {run_report.write(out, options.anchor)}", sys.stdout)
        if options.card:
            for name, path, _ in plan.models:
                _keep(
                    Path(path),
                    options.card,
                    [e for e in results["summary"] if e["system"] == name],
                    results,
                )


def _test_set(name: str, options: argparse.Namespace) -> TestSet:
    found = find(name, options.root).first(options.first)
    return dataclasses.replace(found, crop=options.crop or found.crop)


def _at_levels(one: TestSet, levels: list[float] | None) -> list[TestSet]:
    """Returns the set as it is, or one set for each level."""
    if levels is None:
        return [one]
    return [
        dataclasses.replace(one, name=f"{one.name} at {level:g} dBFS", level_dbfs=level)
        for level in dict.fromkeys(levels)
    ]


def _plan(options: argparse.Namespace) -> Plan:
    # One that is named twice, or lies in two places, has one row: its items count once.
    named = [cards.find(name) for name in options.models]
    found = list({(card.name, card.model_id): card for card in named}.values())
    names = Counter(card.name for card in found)
    models = tuple(
        (_name(card, names[card.name] == 1, options), str(card.path), sizes)
        for card, sizes in zip(found, _sizes(found, options.codebook_size), strict=True)
    )
    try:
        known = baselines.find(_baselines(options))
    except baselines.UnknownBaselineError as error:
        raise UsageError(str(error)) from None
    if options.anchor:
        systems = {b.name for b in known} | {name for name, _, _ in models}
        systems |= {load_neighbour(spec).name for spec in options.neighbour}
        if options.anchor not in systems:
            raise UsageError(f"--anchor {options.anchor} is not in this run")
    if not models and not known and not options.neighbour:
        raise UsageError("name a MODEL, --baselines or a --neighbour")
    media = {card.medium for card in found} | {baseline.medium for baseline in known}
    # To ask a neighbour for its medium would load its weights.
    for option, medium in _of_one_medium(options) if not options.neighbour else []:
        if medium not in media:
            raise UsageError(f"{option} is of {medium}, which no codec of this run is of")
    nets = [net for net in options.lpips.split(",") if net]
    backbones, notices = (
        lpips_metric.backbones(nets, options.lpips_backbone) if not options.quick else ([], [])
    )
    for notice in notices if IMAGE.name in media or options.neighbour else []:
        print(notice, file=sys.stderr)
    if options.mos:
        mos.DistillMOS()  # is it there?
    return Plan(
        models=models,
        baselines=tuple(b.name for b in known),
        curves=not options.no_curves,
        match=options.match_rate,
        neighbours=tuple(options.neighbour),
        lpips=tuple(backbones),
        quick=options.quick,
        mos=options.mos,
        effort=options.effort,
        search=options.search,
    )


def _of_one_medium(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Returns those given options that one medium alone heeds, each with that medium."""
    return [
        (f"--{name.replace('_', '-')}", medium.name)
        for name, medium in MEDIUM_OF.items()
        if getattr(options, name)
    ]


def _baselines(options: argparse.Namespace) -> list[str]:
    """Returns the classic codecs as they were named: "all" is not taken apart."""
    return [name for name in options.baselines.split(",") if name]


def _name(card: cards.Card, unique: bool, options: argparse.Namespace) -> str:
    """What tables call a model: its name, what tells it from others of that name, and its care."""
    name = card.name if unique else f"{card.name}-{card.model_id.hex()[:8]}"
    care = {"effort": options.effort, "search": options.search}
    return name + "".join(f"+{key}{value}" for key, value in care.items() if value)


def _sizes(found: list[cards.Card], chosen: str | None) -> list[tuple[int, ...]]:
    """Returns for each model those of the chosen codebook sizes that it offers, or all it has.

    Raises:
        UsageError: A size that no model offers, or a model that offers none of them.
    """
    if chosen is None:
        return [tuple(card.num_codes) for card in found]
    try:
        sizes = tuple(dict.fromkeys(int(word) for word in chosen.split(",")))
    except ValueError:
        raise UsageError(f"--codebook-size {chosen}: want numbers with commas between") from None
    offers = [f"{card.name} offers {', '.join(map(str, card.num_codes))}" for card in found]
    for size in sizes:
        if not any(size in card.num_codes for card in found):
            raise UsageError(f"--codebook-size {size}: {'; '.join(dict.fromkeys(offers))}")
    taken = [tuple(size for size in sizes if size in card.num_codes) for card in found]
    for own, offer in zip(taken, offers, strict=True):
        if not own:
            raise UsageError(f"--codebook-size {chosen}: {offer}; add one of these")
    return taken


def _print(results: Record) -> None:
    """Prints a line for each model and size.

    And one for each item that was skipped or failed, or that there is a notice on.
    """
    for skipped in results["skipped"]:
        print_line(f"skipped {skipped['set']}/{skipped['item']}: {skipped['reason']}", sys.stderr)
    for failed in results["failed"]:
        print_line(
            f"failed {failed['set']}/{failed['item']} by {failed['system']} {failed['setting']}: "
            f"{failed['reason']}",
            sys.stderr,
        )
    for noticed in results["notices"]:
        print_line(f"{noticed['set']}/{noticed['item']}: {noticed['reason']}", sys.stderr)
    for found in results["originals"]:
        scored = f"{found['metric']} {_number(found['mean'])} ({found['scored']}/{found['of']})"
        print_line(f"originals of {found['set']}: {scored}", sys.stdout)
    known = results["plan"]["trained_on"]
    trained: dict[str, Trained] = {}  # of the models that figures were printed of
    metrics: dict[str, None] = {}  # that were printed
    for entry in results["summary"]:
        if "use" not in entry:
            continue
        unit = MEDIA[entry["medium"]].rate_unit
        trained[entry["system"]] = known.get(entry["system"])
        metrics |= dict.fromkeys(entry["metrics"])
        quality = ", ".join(
            f"{name} {_number(found['mean'])}{mark(name, trained[entry['system']])} "
            f"({found['scored']}/{found['of']})"
            for name, found in entry["metrics"].items()
        )
        found = entry["use"]
        print_line(
            f"{entry['system']} K={entry['setting']} on {entry['set']}: {entry['items']} items, "
            f"{entry['rate']['mean']:.4g} {unit}, {quality}, {found['bits_per_token']:.2f} "
            f"bit/token, H0 {found['H0']:.2f}, CVU {found['CVU']:.3f}",
            sys.stdout,
        )
    if said := note(trained, metrics):
        print_line(said, sys.stdout)


def _note_unused(plan: Plan, options: argparse.Namespace, results: Record) -> None:
    """Prints a line for each model, named classic codec and option with nothing to measure."""
    tried = {one["system"] for one in [*results["records"], *results["failed"]]}
    named = _baselines(options)
    media = {name: cards.find(path).medium for name, path, _ in plan.models}
    media |= {b.name: b.medium for b in baselines.find(named) if b.name in named}
    unused = [(name, medium) for name, medium in media.items() if name not in tried]
    measured = {record["medium"] for record in results["records"]}
    unused += [(option, of) for option, of in _of_one_medium(options) if of not in measured]
    for name, medium in unused:
        print(f"notice: {name}: no readable item of {medium} in the test sets", file=sys.stderr)


def _number(value: float | None) -> str:
    return "unscored" if value is None else f"{value:.4g}"


def _keep(path: Path, name: str, entries: list[Record], results: Record) -> None:
    """Writes means into a card; the model's identity, a hash, does not cover them."""
    originals = {f"{found['metric']}_originals": found["mean"] for found in results["originals"]}
    card = json.loads(path.read_text(encoding="utf-8"))
    for entry in entries:
        found = {"items": entry["items"], "rate": entry["rate"]["mean"]}
        found |= {key: entry["use"][key] for key in CARD_TABLES if key in entry["use"]}
        for metric, scores in entry["metrics"].items():
            if kept_in_cards(entry["medium"], metric):
                found |= {metric: scores["mean"], f"{metric}_scored": scores["scored"]}
                found |= {
                    key: value for key, value in originals.items() if key == f"{metric}_originals"
                }
        kept = {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in found.items()
        }
        card.setdefault("results", {}).setdefault(name, {})[entry["setting"]] = kept
    summary.write_json(path, card)


if __name__ == "__main__":
    sys.exit(process(main))
