"""python -m app: serves the demo on this machine. Torch is imported once the page answers."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shutil
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from app.store import Settings
from codec import __version__
from codec.cli.frame import Parser, fail, filled_path, positive, stoppable, within
from codec.errors import CodecError, not_installed
from codec.files import temporary_folder
from codec.streams import flush, process

log = logging.getLogger("app")

STOP_SECONDS = 5  # for jobs, which end where they next report
MAX_THREADS = 4  # two jobs and what is quick; each more that has run a net keeps 40 MiB

# For strangers: less at a time, and nothing kept for long.
DEMO_MODE = Settings(
    max_seconds=20, max_pixels=2_000_000, max_upload_bytes=12 << 20, queue=32, keep_s=900
)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 stopped, 1 failed, 3 no models.

    It does not use `frame.run`, whose notices go to a terminal: a server has a log, and notices of
    files go to the users whose files they are.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = _settings(options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("httpx", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Read when torch is first imported: threads that spin while they wait take the time of other
    # users' jobs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        root = Path(tempfile.mkdtemp(prefix="codec-app-", dir=temporary_folder())).resolve()
    except (CodecError, OSError) as error:
        return fail(error, 1)
    os.environ |= {
        "GRADIO_TEMP_DIR": str(root),
        "GRADIO_EXAMPLES_CACHE": str(root / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    try:
        with stoppable():
            _check_port(options.host, options.port)
            return _serve(options, settings, root)
    except KeyboardInterrupt:  # before the page was there
        return 130
    except ModuleNotFoundError as error:
        return fail(not_installed(error.name, "app"), 1)
    except CodecError as error:
        return fail(error, error.exit_code)
    except OSError as error:
        return fail(error, 1)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _serve(options: argparse.Namespace, settings: Settings, root: Path) -> int:
    from app.service import Service

    service = Service(settings, root)  # says at once if there are no models

    from starlette.middleware import Middleware

    from app import page as layout
    from app.guard import Guard
    from app.handlers import idle
    from app.turns import Sessions

    sessions = Sessions()
    page = layout.build(service, sessions)
    page.queue(max_size=settings.queue, default_concurrency_limit=2)
    page.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        theme=layout.theme(),
        head=layout.HEAD,
        max_file_size=settings.max_upload_bytes,
        show_error=False,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        footer_links=[] if options.demo_mode else ["api"],
        max_threads=MAX_THREADS,
        app_kwargs={
            "middleware": [Middleware(Guard, root=root, max_upload_bytes=settings.max_upload_bytes)]
        },
        state_session_capacity=200 if options.demo_mode else 1000,
    )
    print(
        f"codec demo on http://{_address(options.host, options.port)} (Ctrl-C stops it)", flush=True
    )
    if page.share_url:
        print(f"and for the next days on {page.share_url}", flush=True)
    service.warm()
    end = service.files.keep_tidy()
    try:
        page.block_thread()
    finally:
        end()
        page.close(verbose=False)
        sessions.close()
        if not idle(STOP_SECONDS):  # Python would abort while its threads compute
            shutil.rmtree(root, ignore_errors=True)
            flush()
            os._exit(0)
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    """The limits: those of the mode, but for what the operator gave."""
    chosen = {
        "max_seconds": options.max_seconds,
        "max_pixels": None
        if options.max_megapixels is None
        else round(options.max_megapixels * 1e6),
        "queue": options.queue,
        "models": options.models,
        "lpips_backbone": options.lpips_backbone,
    }
    mode = DEMO_MODE if options.demo_mode else Settings()
    return replace(mode, **{name: value for name, value in chosen.items() if value is not None})


def _check_port(host: str, port: int) -> None:
    """Raises OSError, in words, where it cannot listen: Gradio says it with a traceback."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError):
        raise OSError(f"no address is known for {host}; give another --host") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            option = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
            raise OSError(
                f"cannot listen on {_address(host, port)} ({error.strerror}); give another {option}"
            ) from None


def _address(host: str, port: int) -> str:
    """Returns how a URL names them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m app", description=__doc__, epilog="See docs/demo.md")
    parser.add_argument("--version", action="version", version=f"codec {__version__}")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: this machine only"
    )
    parser.add_argument("--port", type=within(int, 1, 65535), default=7860, help="default 7860")
    parser.add_argument(
        "--share", action="store_true", help="also a public link, through Gradio's servers"
    )
    parser.add_argument(
        "--models",
        type=filled_path,
        metavar="DIR",
        help="model cards to use instead of the shipped ones",
    )
    parser.add_argument(
        "--max-seconds", type=positive(float), metavar="S", help="longest recording; default 60"
    )
    parser.add_argument(
        "--max-megapixels", type=positive(float), metavar="M", help="largest picture; default 8"
    )
    parser.add_argument(
        "--queue", type=positive(int), metavar="N", help="jobs that may wait; default 64"
    )
    parser.add_argument(
        "--lpips-backbone",
        type=_file,
        metavar="FILE",
        help="for LPIPS of pictures, as eval takes it",
    )
    parser.add_argument(
        "--demo-mode",
        action="store_true",
        help="for public use: tighter limits, files kept 15 minutes",
    )
    return parser


if __name__ == "__main__":
    sys.exit(process(main))
