"""python -m eval.report: tables of the shipped models, or the report of a run.

python -m eval.report                       prints tables of the models (`eval.model_tables`)
python -m eval.report DIR                   writes a run's DIR/report.md anew (`eval.run_report`)
python -m eval.report DIR --beside MODEL    prints a model beside the run's classic codecs
                                            (`eval.beside`)
"""

from __future__ import annotations

import argparse
import sys

from codec.cli.frame import Parser, UsageError, filled_path, print_text, run
from codec.streams import process
from eval import model_tables


def main(arguments: list[str] | None = None) -> int:
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m eval.report",
        description=__doc__,
        epilog="See docs/evaluate.md",
        formatter_class=style,
    )
    parser.add_argument(
        "run", nargs="?", type=filled_path, metavar="DIR", help="what python -m eval --out DIR left"
    )
    parser.add_argument(
        "--anchor", metavar="NAME", help="of BD-rates; default: the first baseline of a medium"
    )
    parser.add_argument(
        "--beside", metavar="MODEL", help="print this model beside classic codecs at equal quality"
    )
    parser.add_argument("--metric", metavar="NAME", help="of --beside; default: STOI, SSIM")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    if options.run is None:
        for name in ("anchor", "beside", "metric"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} is of a run; name its DIR")
        print_text(model_tables.tables())
        return
    if options.metric and not options.beside:
        raise UsageError("--metric is of --beside; name its MODEL")
    if options.beside:
        if options.anchor:
            raise UsageError("--beside has no anchor; leave --anchor out")
        from eval import beside, summary

        found = summary.read_results(options.run)
        print_text(beside.table(found, options.beside, options.metric))
        return
    from eval import run_report  # matplotlib, which the tables do without

    print_text(f"report: {run_report.write(options.run, options.anchor)}")


if __name__ == "__main__":
    sys.exit(process(main))
