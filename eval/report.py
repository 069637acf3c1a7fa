"""python -m eval.report: the shipped models and what they reach, as Markdown, from their cards.

The figures come from `python -m eval MODEL --data PATH --card NAME`; a test holds docs/models.md to this output.
`python -m eval.report DIR` writes the report of a run, DIR/report.md, anew; `--beside MODEL` prints a short table of it
instead: a model beside the run's classic codecs at equal quality.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from codec.cards import QUALITY_SIZE, Card, list_cards
from codec.errors import MediaError
from codec.terminal import UsageError, run

COLUMNS: dict[str, tuple[str, dict[str, int]]] = {  # unit of the rate; metrics and their decimals
    "speech": ("kbit/s", {"STOI": 3, "PESQ": 2}),
    "image": ("bits per pixel", {"PSNR": 2, "SSIM": 3, "LPIPS-squeeze": 3}),
}


def table(medium: str, cards: list[Card]) -> str:
    """The models side by side: on the first test set at every codebook size, on the others at `QUALITY_SIZE` alone."""
    rate, metrics = COLUMNS[medium]
    sets = list(dict.fromkeys(name for card in cards for name in card.data["results"]))
    found = [
        (sets.index(name), int(size), name, card.name, result)
        for card in cards
        for name, sizes in card.data["results"].items()
        for size, result in sizes.items()
        if name == sets[0] or size == QUALITY_SIZE
    ]
    head = ["test set", "K", "model", rate, *metrics, "coded bits/token", "H0", "CVU"]
    rows = [head, ["---"] * len(head)]
    for _, size, name, model, result in sorted(found, key=lambda entry: entry[:4]):
        quality = [_number(result.get(metric), digits) for metric, digits in metrics.items()]
        use = [f"{result['bits_per_token']:.2f}", f"{result['H0']:.2f}", f"{result['CVU']:.2f}"]
        rows.append([f"{name} ({result['items']})", str(size), model, f"{result['rate']:.3f}", *quality, *use])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def report() -> str:
    """Both media, with how each model was trained."""
    parts = []
    for medium, title in (("speech", "Speech"), ("image", "Pictures")):
        cards = [card for card in list_cards() if card.medium == medium and card.data.get("results")]
        notes = [_trained(card) for card in cards]
        parts.append(f"### {title}\n\n" + "\n".join(notes) + "\n\n" + table(medium, cards))
    return "\n\n".join(parts) + "\n"


def _trained(card: Card) -> str:
    how = card.data["training"]
    hardware = how.get("hardware", "an unnamed machine")
    size = f"{card.data['parameters'] / 1e6:.2f} M parameters"
    name, _, rest = (how.get("init") or "").partition(" ")
    begun = f", begun from `{name}` ({rest.partition(', ')[2]})" if name else ""
    return f"`{card.name}`: {size}, {how['minutes']:.0f} minutes on {hardware}, seed {how['seed']}{begun}."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.report", description=__doc__, epilog="See docs/evaluate.md")
    parser.add_argument("run", nargs="?", type=Path, metavar="DIR", help="what python -m eval --out DIR left")
    parser.add_argument("--anchor", metavar="NAME", help="of BD-rates; default: the first baseline of a medium")
    parser.add_argument("--beside", metavar="MODEL", help="print this model beside classic codecs at equal quality")
    parser.add_argument("--metric", metavar="NAME", help="of --beside; default: STOI, SSIM")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    if options.run is None:
        if options.beside:
            raise UsageError("--beside is of a run; name its DIR")
        sys.stdout.write(report())
        return
    if options.beside:
        from eval import beside

        print(beside.table(_results(options.run), options.beside, options.metric))
        return
    from eval import paper  # matplotlib: the cards do without

    print(f"report: {paper.write(options.run, options.anchor)}")


def _results(folder: Path) -> dict[str, Any]:
    """What a run measured. Raises MediaError where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MediaError(f"{folder}: no finished run ({error}); run python -m eval --out {folder}") from None
    return found


if __name__ == "__main__":
    sys.exit(main())
