"""python -m eval.compare A/results.json B/results.json: is B worse than A?

Runs are paired by item; a regression has exit code 1.

A metric has regressed where B's mean over the items that both scored is worse by more than the
margin, and that is no accident: p < 0.05 in a Wilcoxon signed-rank test of the differences in the
mean's direction, times two (where fewer than six items differ, which no such test can tell from
chance, the margin alone decides); or where B leaves items unscored, or out, that A scored. An item
that comes back without a difference is too good for PSNR and SI-SDR, and not lost. One item that
fell far moves the mean, and not the test: it is named, and so is a metric that B did not measure. A
setting of A that B lacks is a regression, too, of a system that B has or that failed there. Classic
codecs at matched bytes are left out: they are as good as the model's files are long.

    A, B ─pairs of (set, system, setting)─> items of both ─differences─> a line each, exit 0 or 1
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from codec.cli.frame import Parser, UsageError, filled_path, print_line, print_text, run
from codec.errors import MediaError, not_installed
from codec.medium import MEDIA
from codec.streams import process

try:
    from eval.differences import (
        MARGINS,
        OTHER_MARGIN,
        Finding,
        Record,
        compare,
        unlike,
        unmeasured,
    )
    from eval.metrics import DECIMALS
    from eval.summary import NOT_METRICS
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'eval')}")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m eval.compare", description=__doc__, epilog="See docs/evaluate.md"
    )
    parser.add_argument(
        "a",
        type=filled_path,
        metavar="A",
        help="results.json, or the folder of a run: the reference",
    )
    parser.add_argument("b", type=filled_path, metavar="B", help="the one that must not be worse")
    parser.add_argument(
        "--as", dest="pairs", action="append", default=[], metavar="A=B", help="model A is B's B"
    )
    parser.add_argument(
        "--margin", action="append", default=[], metavar="METRIC=N",
        help="how much worse is too much; default "
        f"{', '.join(f'{k}={v:g}' for k, v in MARGINS.items())} (a share), "
        f"others {OTHER_MARGIN}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    code = 0

    def command(options: argparse.Namespace) -> None:
        nonlocal code
        a, b = _read(options.a), _read(options.b)
        for notice in unlike(a, b):
            print_line(f"notice: {notice}", sys.stderr)
        margins = MARGINS | _margins(options.margin, a, b)
        same = _same(options.pairs, a, b)
        findings = compare(a, b, same, margins)
        for name in _alone(a, b, same):
            print_line(
                f"notice: {name}: B has none of it, so it is not compared; pair models by --as A=B",
                sys.stderr,
            )
        if missing := unmeasured(a, b, same):
            print_line(
                f"notice: {', '.join(missing)}: B did not measure this, so it is not compared",
                sys.stderr,
            )
        if options.json:
            fields = Finding.__dataclass_fields__
            listing = [{name: getattr(f, name) for name in fields} for f in findings]
            print_text(json.dumps(listing, indent=1))
        else:
            for finding in findings:
                print_line(_line(finding), sys.stdout)
        bad = [f for f in findings if f.regressed]
        code = 1 if bad else 0
        if bad:
            others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            first = f"{bad[0].what} {bad[0].metric}"
            print(
                f"error: {len(bad)} of {len(findings)} regressed: {first}{others}", file=sys.stderr
            )

    return run(parser, arguments, command) or code


def _read(path: Path) -> Record:
    path = path / "results.json" if path.is_dir() else path
    try:
        results: Record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_figure)
        names = {"set", "item", "system", "setting"}
        if not (
            all(names | {"medium", "bytes", "units"} <= r.keys() for r in results["records"])
            and all(names <= failed.keys() for failed in results.get("failed", []))
        ):
            raise KeyError("a record without its names")
        if not all(map(_has_figures, results["records"])):
            raise ValueError("a record without its figures")
    except OSError as error:
        raise MediaError(
            f"{path}: cannot read ({error.strerror}); give the results.json of python -m eval"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MediaError(f"{path}: no results.json of python -m eval ({error})") from None
    return results


def _no_figure(name: str) -> None:
    """Refuses NaN and Infinity, which no run writes and nothing can be compared with."""
    raise ValueError(f"{name} is no figure")


def _has_figures(record: Record) -> bool:
    found = (value for key, value in record.items() if key not in NOT_METRICS)
    return (
        record["bytes"] >= 0
        and record["units"] > 0
        and all(value is None or isinstance(value, int | float) for value in found)
    )


def _same(pairs: list[str], a: Record, b: Record) -> dict[str, str]:
    """Pairs systems of A with those of B by name.

    Without --as, a medium's only model in A is paired with its only model in B.
    """
    same: dict[str, str] = {}
    for pair in pairs:
        left, equals, right = pair.partition("=")
        if not equals or not left or not right:
            raise UsageError(f"--as {pair}: want A=B")
        for name, results, run_name in ((left, a, "A"), (right, b, "B")):
            known = sorted({r["system"] for r in [*results["records"], *results.get("failed", [])]})
            if name not in known:
                raise UsageError(f"--as {pair}: {run_name} has {', '.join(known)}, and no {name}")
        kinds = [
            {r["medium"] for r in results["records"] if r["system"] == name}
            for name, results in ((left, a), (right, b))
        ]
        if all(kinds) and not kinds[0] & kinds[1]:
            raise UsageError(
                f"--as {pair}: {left} codes {', '.join(kinds[0])}, and {right} codes "
                f"{', '.join(kinds[1])}; pair models of one medium"
            )
        if left in same or right in same.values():
            raise UsageError(f"--as {pair}: one of them has another partner already")
        same[left] = right
    if same:
        return same
    media = {(r["set"], r["item"]): r["medium"] for one in (a, b) for r in one["records"]}
    for medium in MEDIA:
        ours = [_models(results, medium, media) for results in (a, b)]
        if len(ours[0]) == len(ours[1]) == 1 and ours[0] != ours[1]:
            same |= {ours[0][0]: ours[1][0]}
    return same


def _alone(a: Record, b: Record, same: dict[str, str]) -> list[str]:
    """Names the systems that A measured on a set, and B did not try there.

    One that has the name of another's partner is left out knowingly.
    """
    tried = {(one["set"], one["system"]) for one in [*b["records"], *b.get("failed", [])]}
    taken = set(same.values()) - same.keys()
    measured = dict.fromkeys((r["set"], r["system"]) for r in a["records"] if "matched_to" not in r)
    return [
        f"{system} on {name}"
        for name, system in measured
        if system not in taken and (name, same.get(system, system)) not in tried
    ]


def _models(results: Record, medium: str, media: dict[tuple[str, str], str]) -> list[str]:
    """Names the models of a medium that a run measured, or that failed on all there was.

    Args:
        results: The content of a results.json.
        medium: "image" or "speech".
        media: The medium of each (set, item), as a failure does not say its own.
    """
    models = {model[0] for model in results.get("plan", {}).get("models", [])}
    tried = [*results["records"], *results.get("failed", [])]
    return sorted(
        {
            one["system"]
            for one in tried
            if one["system"] in models and media.get((one["set"], one["item"])) == medium
        }
    )


def _margins(words: list[str], a: Record, b: Record) -> dict[str, float]:
    margins = {}
    known = {"rate", *(key for r in [*a["records"], *b["records"]] for key in r)} - set(NOT_METRICS)
    for word in words:
        name, _, number = word.partition("=")
        if name not in known:
            raise UsageError(f"--margin {word}: the runs have {', '.join(sorted(known))}")
        try:
            margins[name] = float(number)
        except ValueError:
            raise UsageError(f"--margin {word}: want METRIC=N") from None
        if not margins[name] >= 0:
            raise UsageError(f"--margin {word}: want at least 0")
    return margins


def _line(f: Finding) -> str:
    digits = DECIMALS.get(f.metric, 3) + 1
    spread = "" if f.low is None else f" [{f.low:+.{digits}f}, {f.high:+.{digits}f}]"
    p = "" if f.p is None else f", p {f.p:.2g}"
    lost = f", {f.lost} items no longer scored or exact" if f.lost else ""
    verdict = "  REGRESSED" if f.regressed else ""
    if f.worst is not None and f.worst_by is not None:
        verdict = f", worst {f.worst} {f.worst_by:+.{digits}f}{verdict}"
    change = "nothing" if f.b is None else f"{f.b:.{digits}f}, {f.b - f.a:+.{digits}f}{spread}{p}"
    return f"{f.what} {f.metric}: {f.a:.{digits}f} -> {change}, {f.items} items{lost}{verdict}"


if __name__ == "__main__":
    sys.exit(process(main))
