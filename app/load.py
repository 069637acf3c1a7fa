"""python -m app.load URL: many users of a running app at once, and what they got.

It is a benchmark, not a test.

Each user compresses an example and decodes the result, again and again, as programs do through the
API.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from codec.cli.frame import Parser, run
from codec.errors import CodecError, not_installed
from codec.streams import process

try:
    from app.input_panel import EXAMPLES, examples
except ModuleNotFoundError as missing:
    sys.exit(f"error: {not_installed(missing.name, 'app')}")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if any request failed, or nothing was done."""
    parser = Parser(prog="python -m app.load", description=__doc__, epilog="See docs/demo.md")
    parser.add_argument("url")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pid", type=int, help="of the server, to watch its memory")
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> int:
    result = load(options.url, options.users, options.seconds, options.pid)
    for name, value in result.items():
        print(f"{name:<22} {value}")
    return 1 if result["errors"] else 0


def load(url: str, users: int, seconds: float, pid: int | None = None) -> dict[str, Any]:
    """Runs the users.

    Returns:
        Counts, waiting times in seconds, and the server's memory in MiB.

    Raises:
        CodecError: No app answers, no user got anything done, or gradio_client is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from gradio_client import Client, handle_file
    except ModuleNotFoundError as error:
        raise CodecError(not_installed(error.name, "app")) from None
    try:
        Client(url, verbose=False)
    except Exception as error:  # of the client's own, of its transport, of the system
        raise CodecError(f"{url}: no app answers there ({error}); start python -m app") from None
    media = [example.path for medium in EXAMPLES for example in examples(medium)]
    times: dict[str, list[float]] = {"compress": [], "decompress": []}
    errors: list[str] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def user(number: int) -> None:
        try:
            client = Client(url, verbose=False, httpx_kwargs={"timeout": 120})
        except Exception as error:  # as above
            with lock:
                errors.append(f"user {number}: {error}")
            return

        def timed(name: str, *given: Any) -> Any:
            start = time.perf_counter()
            result = client.predict(*given, api_name=f"/{name}")
            with lock:
                times[name].append(time.perf_counter() - start)
            return result

        turn = number
        while time.monotonic() < end:
            path = media[turn % len(media)]
            turn += 1
            try:
                size = (256, 1024, 16384)[turn % 3]
                packed = timed("compress", handle_file(path), "", size)
                timed("decompress", handle_file(packed[0]))
            except Exception as error:  # whatever it is, it is what this looks for
                with lock:
                    errors.append(f"{path.name}: {error}")

    before, peak = memory_mib(pid), 0.0
    threads = [threading.Thread(target=user, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        peak = max(peak, memory_mib(pid))
    if not any(times.values()):
        why = f" ({errors[0]})" if errors else ""
        raise CodecError(
            f"{url}: no user got anything done{why}; give fewer --users, more --seconds"
        )
    report: dict[str, Any] = {"users": users, "seconds": seconds, "errors": len(errors)}
    for name, taken in times.items():
        ordered = sorted(taken) or [float("nan")]
        report[name] = len(taken)
        report[f"{name}_median_s"] = round(statistics.median(ordered), 2)
        report[f"{name}_p95_s"] = round(ordered[int(0.95 * (len(ordered) - 1))], 2)
    if pid:
        report |= {
            "memory_before_mib": before,
            "memory_peak_mib": peak,
            "memory_after_mib": memory_mib(pid),
        }
    if errors:
        report["first_error"] = errors[0]
    return report


def memory_mib(pid: int | None) -> float:
    """Returns the resident memory of a process; 0 where that is not known."""
    status = Path(f"/proc/{pid}/status")
    if pid is None or not status.is_file():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    sys.exit(process(main))
