"""The line, or JSON object, that says what became of a file."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from codec.cli.frame import print_line
from codec.medium import MEDIA


def report_file(report: dict[str, Any], options: argparse.Namespace, data_on_stdout: bool) -> None:
    """One line, or one JSON object, about a file that is done."""
    if options.quiet:
        return
    stream = sys.stderr if data_on_stdout else sys.stdout
    medium, units = MEDIA[report["medium"]], report.pop("units")
    report["speed"] = pace = medium.pace_text(units, report["elapsed_s"])
    if "bytes_out" in report:
        report["rate"] = medium.rate_text(report["bytes_out"], units)
        report["payload_rate"] = medium.rate_text(report["payload_bytes"], units)
        report[medium.rate_key] = medium.rate(report["bytes_out"], units)
        report[f"payload_{medium.rate_key}"] = medium.rate(report["payload_bytes"], units)
        report["ratio"] = report["bytes_in"] / report["bytes_out"]
        line = (
            f"{report['bytes_in']} -> {report['bytes_out']} bytes, {report['ratio']:.1f} : 1, "
            f"{report['rate']} ({report['payload_rate']} without container), {pace}"
        )
    else:
        line = f"{'verified' if report['verified'] else 'decoded'}, {pace}"
    if options.json:
        print_line(json.dumps(report), stream)
    else:
        verified = ", verified" if report.get("verified") and "bytes_out" in report else ""
        print_line(
            f"{report['input']}: {report['model']}, K = {report['codebook_size']}: "
            f"{line}{verified}",
            stream,
        )
