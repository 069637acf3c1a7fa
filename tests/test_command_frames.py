"""Commands beside the codec's own say in one line what is wrong: a file, a step, a server."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from codec.cli.frame import stoppable


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_benchmark_names_the_file_that_holds_no_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval.bench.__main__ import main

    before = tmp_path / "before.json"
    before.write_text("figures")
    assert main(["nearest", "--against", str(before)]) == 1
    assert f"{before}: no figures" in one_error(capsys)


def test_the_demo_of_the_commands_names_the_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval import demo

    def failing(words: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not check
        return subprocess.CompletedProcess(words, 3)

    monkeypatch.setattr(demo, "sample", lambda medium: tmp_path / medium)
    monkeypatch.setattr(subprocess, "run", failing)
    assert demo.main(["--out", str(tmp_path / "out")]) == 1
    assert f"codec.compress failed on {tmp_path / 'speech'}" in one_error(capsys)


def test_users_without_an_app_are_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="the demo is not installed: pip install '.[app]'")
    from app.load import main

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert main([url, "--users", "1", "--seconds", "1"]) == 1
    assert f"{url}: no app answers there" in one_error(capsys)


def serve(monkeypatch: pytest.MonkeyPatch, served: int) -> None:
    """An app that answers so many clients, whose jobs work, and refuses the others."""
    import gradio_client

    opened = itertools.count(1)

    class Client:
        def __init__(self, *_: object, **__: object) -> None:
            if next(opened) > served:
                raise ConnectionError("connection refused")

        def predict(self, *_: object, **__: object) -> list[str]:
            time.sleep(0.05)
            return [__file__]

    monkeypatch.setattr(gradio_client, "Client", Client)


def test_users_who_cannot_connect_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="the demo is not installed: pip install '.[app]'")
    from app.load import main

    words = ["http://x", "--users", "3", "--seconds", "0.1"]
    serve(monkeypatch, 3)  # one asks whether the app is there
    assert main(words) == 1
    assert re.search(r"errors +1\n", capsys.readouterr().out)
    serve(monkeypatch, 1)
    assert main(words) == 1
    assert "http://x: no user got anything done (user " in one_error(capsys)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(number: signal.Signals) -> None:
    """As nohup asks for; any other handler is put back afterwards."""
    before = signal.getsignal(number)
    try:
        for handler in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(number, handler)
            with stoppable():
                inside = signal.getsignal(number)
                assert (inside is signal.SIG_IGN) == (handler is signal.SIG_IGN)
            assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
