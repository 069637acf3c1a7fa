"""The demo as it runs: its endpoints through gradio_client, its page in a real browser, and what it
must not serve.

One server with the shipped models serves all tests. Those marked `browser` need chromium and
playwright; without them they are skipped with the reason, but not where CI is set.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import ROOT, gradient, picture, tones, wav
from PIL import Image

from codec import cards
from codec.cli.compress import compress_main
from codec.cli.decompress import decompress_main
from codec.cli.info import info_main
from codec.coding import load, read_indices
from codec.media import load_audio

pytest.importorskip("gradio_client", reason="the demo is not installed: pip install '.[app]'")

if TYPE_CHECKING:
    from gradio_client import Client
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.filterwarnings("ignore")  # gradio_client's and playwright's own
# The promise is 20 on two cores that are idle; `python -m app.load` is the place to measure.
START_SECONDS = 180
WAIT_MS = 60_000


class Server:
    """A running app, whose temporary files lie beside its log.

    Args:
        log: Where its output goes.
        more: Options.
    """

    def __init__(self, log: Path, *more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._file = log.open("wb")
        arguments = [
            "-m",
            "app",
            "--port",
            str(self.port),
            "--max-seconds",
            "20",
            "--max-megapixels",
            "1",
            *more,
        ]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(log.parent),
        }
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=self._file,
            stderr=self._file,
            env=environment,
            cwd=log.parent,
        )

    def wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.get("/")[0] == 200:
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"the app does not answer: {self.text()[-2000:]}")

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        """A request whose path goes out as it stands: nothing tidies the dots away."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def faults(self) -> int:
        """Tracebacks in the log, but for Gradio's own of a path that it refused."""
        text = self.text()
        return text.count("Traceback") - text.count("\ngradio.exceptions.InvalidPathError")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._file.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / "log.txt")
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def nothing_unforeseen(server: Server) -> Iterator[None]:
    """After every test the server lives, and its log has no traceback that is new."""
    before = server.faults()
    yield
    assert server.process.poll() is None, "the server died"
    assert server.faults() == before, server.text()[-3000:]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    files = {
        "speech": ("voice.wav", wav(tones(32_000))),
        "image": ("photo.png", picture(gradient(120, 160))),
    }
    for name, data in files.values():
        (folder / name).write_bytes(data)
    return {medium: folder / name for medium, (name, _) in files.items()}


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Client:
    from gradio_client import Client

    return Client(
        server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads"))
    )


def by_command(path: Path, size: int, folder: Path, model: str | None = None) -> bytes:
    """What python -m codec.compress makes of a file."""
    out = folder / f"{path.stem}-{size}.bin"
    chosen = ["-m", model] if model else []
    assert compress_main([str(path), str(out), "-k", str(size), "--quiet", "--force", *chosen]) == 0
    return out.read_bytes()


def send(path: Path) -> Any:
    from gradio_client import handle_file

    return handle_file(str(path))


# --------------------------------------------------------------------------------------------------
# endpoints


ENDPOINTS = {
    "/models",
    "/compress",
    "/decompress",
    "/info",
    "/truncate",
    "/compare",
    "/sweep",
    "/tokens",
    "/edit",
}


def test_every_endpoint_has_its_name(client: Client) -> None:
    names = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(names) == ENDPOINTS
    listed = client.predict(api_name="/models")
    assert {entry["name"] for entry in listed} == {card.name for card in cards.list_cards()}


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_there_and_back_is_what_the_commands_do(
    medium: str, client: Client, media: dict[str, Path], tmp_path: Path
) -> None:
    for size in (256, 16384):
        packed, decoded, figures = client.predict(
            send(media[medium]), "", size, api_name="/compress"
        )
        assert Path(packed).read_bytes() == by_command(media[medium], size, tmp_path)
        assert figures["bytes"] == Path(packed).stat().st_size
        restored, header = client.predict(send(Path(packed)), api_name="/decompress")
        out = tmp_path / f"restored{Path(restored).suffix}"
        assert decompress_main([packed, str(out), "--quiet", "--force"]) == 0
        assert Path(restored).read_bytes() == out.read_bytes() == Path(decoded).read_bytes()
        assert header["codebook size"] == str(size)
        assert client.predict(send(Path(packed)), api_name="/info") == header


def test_a_layered_file_is_made_cut_and_read(
    client: Client, media: dict[str, Path], tmp_path: Path
) -> None:
    packed, _, _ = client.predict(
        send(media["image"]), "image-fsp", 16384, True, api_name="/compress"
    )
    header = client.predict(send(Path(packed)), api_name="/info")
    assert list(header["layers"]) == ["256", "1024", "4096", "16384"]
    assert header["layers"]["16384"] == Path(packed).stat().st_size
    shorter, cut = client.predict(send(Path(packed)), 256, api_name="/truncate")
    assert Path(shorter).read_bytes() == by_command(media["image"], 256, tmp_path, "image-fsp")
    assert cut["codebook size"] == "256"
    ways = (send(Path(shorter)), None), (send(Path(packed)), 256)
    decoded = [client.predict(*arguments, api_name="/decompress")[0] for arguments in ways]
    assert Path(decoded[0]).read_bytes() == Path(decoded[1]).read_bytes()


def test_compare_sweep_tokens_and_edit(client: Client, media: dict[str, Path]) -> None:
    figures, files = client.predict(
        send(media["image"]), [], [256, 1024], ["jpeg"], api_name="/compare"
    )
    assert [row["bytes"] for row in figures] == [Path(file).stat().st_size for file in files]
    assert [row["kind"] for row in figures] == ["codec", "codec", "classic"]
    rows, table = client.predict(send(media["image"]), [], api_name="/sweep")
    offered = sum(len(card.num_codes) for card in cards.list_cards() if card.medium == "image")
    assert len(rows) == offered == len(Path(table).read_text().splitlines()) - 1
    found = client.predict(send(Path(files[1])), api_name="/tokens")
    model = next(card for card in cards.list_cards() if card.name == figures[1]["model"])
    loaded = load(model)
    expected = read_indices(Path(files[1]).read_bytes(), loaded)[1]
    assert np.array_equal(np.array(found["indices"]), expected)
    assert found["grid"] == [15, 20]
    changed, decoded = client.predict(
        send(Path(files[1])), "one token", 1.0, 3, 0, api_name="/edit"
    )
    assert set(read_indices(Path(changed).read_bytes(), loaded)[1].ravel()) == {3}
    with Image.open(decoded) as image:
        assert image.size == (160, 120)


BAD = {
    "a text": (
        "note.txt",
        b"not a recording at all, whatever it says" * 5,
        "ot a recording or picture",
    ),
    "an empty file": ("void.wav", b"", "is empty"),
    "a cut picture": ("cut.png", picture(gradient(64, 64))[:700], "amaged picture"),
    "a long recording": (
        "long.wav",
        wav(np.zeros((16000 * 21, 1), np.float32)),
        "longer than 20 s",
    ),
    "a large picture": ("large.png", picture(Image.new("RGB", (1200, 1000))), "at most 1,000,000"),
    "a .bin": ("x.bin", b"\x8dCDC\r\n\x1a\n....", "Decode tab"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gets_a_sentence(
    kind: str, client: Client, tmp_path: Path, media: dict[str, Path]
) -> None:
    name, data, words = BAD[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Exception, match=words) as caught:
        client.predict(send(tmp_path / name), "", 1024, api_name="/compress")
    assert "Traceback" not in str(caught.value)
    assert "/" + "tmp" not in str(caught.value)
    assert client.predict(send(media["image"]), "", 256, api_name="/compress")  # and it lives on


def test_bad_bins_and_arguments_get_a_sentence(
    client: Client, media: dict[str, Path], tmp_path: Path
) -> None:
    packed = Path(
        client.predict(send(media["image"]), "", 256, api_name="/compress")[0]
    ).read_bytes()
    (tmp_path / "flip.bin").write_bytes(packed[:90] + bytes([packed[90] ^ 1]) + packed[91:])
    unknown = bytearray(packed)
    unknown[15] ^= 1  # in the model's id, with its checksum made good again
    length = unknown[11]
    unknown[12 + length : 16 + length] = (
        __import__("zlib").crc32(unknown[10 : 12 + length]).to_bytes(4, "big")
    )
    (tmp_path / "unknown.bin").write_bytes(unknown)
    for name, words in (("flip.bin", "damaged"), ("unknown.bin", "needs model")):
        with pytest.raises(Exception, match=words):
            client.predict(send(tmp_path / name), api_name="/decompress")
    for model, size, words in (
        ("no-such", 256, "here are"),
        ("", 300, "choose from"),
        ("speech-fsp", 256, "for image"),
    ):
        with pytest.raises(Exception, match=words):
            client.predict(send(media["image"]), model, size, api_name="/compress")


def test_stereo_at_96_khz_and_silence_go_through(client: Client, tmp_path: Path) -> None:
    (tmp_path / "hifi.wav").write_bytes(wav(tones(96_000, 96_000, 2), 96_000))
    _, decoded, figures = client.predict(send(tmp_path / "hifi.wav"), "", 256, api_name="/compress")
    restored, rate = load_audio(io.BytesIO(Path(decoded).read_bytes()))
    assert (restored.shape, rate) == ((96_000, 2), 96_000)
    (tmp_path / "still.wav").write_bytes(wav(np.zeros((16_000, 1), np.float32)))
    figures = client.predict(send(tmp_path / "still.wav"), "", 256, api_name="/compress")[2]
    assert figures["PESQ"] is figures["STOI"] is None


def test_errors_become_plain_words(caplog: pytest.LogCaptureFixture) -> None:
    """What was not foreseen is a number for the user, and a traceback for the log."""
    from app.handlers import explain, plainly, raising
    from codec.errors import BitstreamError, MediaError, ModelError

    for kind in (MediaError, ModelError, BitstreamError):
        title, text = explain(kind("what is wrong; what to do"))
        assert text == "What is wrong; what to do."
        assert title
    assert "deleted" in explain(FileNotFoundError("/some/path"))[1]
    assert "memory" in explain(MemoryError())[1]
    _, text = explain(ZeroDivisionError("secret detail"))
    assert "secret" not in text
    ticket = text.split()[-1].rstrip(".")
    assert ticket in caplog.text
    assert "secret detail" in caplog.text

    import gradio

    def refuses() -> None:
        raise MediaError("no")

    def breaks() -> None:
        raise ZeroDivisionError

    # Outside a page Gradio's messages are Python's warnings.
    with pytest.warns(UserWarning, match=r"No\."):
        assert plainly(refuses)() == gradio.skip()
    with pytest.raises(gradio.Error, match=r"No\."):
        raising(refuses)()
    with pytest.raises(gradio.Error, match="our fault"):
        plainly(breaks)()


# --------------------------------------------------------------------------------------------------
# security


def test_nothing_outside_the_apps_own_folder_is_served(
    client: Client, server: Server, media: dict[str, Path]
) -> None:
    result = client.submit(send(media["image"]), "", 256, api_name="/compress")
    result.result()
    with client_url(server, media["image"]) as (own, folder):
        status, body = server.get(own)
        assert (status, body[:4]) == (200, b"\x8dCDC")  # negative control: its own files are served
        targets = [
            "/etc/passwd",
            "../../etc/passwd",
            "../" * 12 + "etc/passwd",
            f"{folder}/../../../../etc/passwd",
            "%2e%2e/" * 12 + "etc/passwd",
            "%2Fetc%2Fpasswd",
            "//etc/passwd",
            "file:///etc/passwd",
            "/proc/self/environ",
            f"{folder}",
            f"{ROOT}/pyproject.toml",
            f"{ROOT}/assets/models/speech-fsp.json",
            "pyproject.toml",
            "README.md",
            f"http://127.0.0.1:{server.port}/",
            "http://169.254.169.254/latest/meta-data",
            "https://example.com/",
        ]
        for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/proxy="):
            for target in targets:
                status, body = server.get(prefix + target)
                assert status in (403, 404, 405, 422), (prefix + target, status)
                assert b"root:" not in body
                assert b"[project]" not in body
    for path in (
        "/static/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/theme.css/../../etc/passwd",
    ):
        status, body = server.get(path)
        assert b"root:" not in body, path


class client_url:  # noqa: N801  a helper that reads like a function
    """The path of a .bin of the app's own, as the page asks for it, and the folder it lies in."""

    def __init__(self, server: Server, path: Path) -> None:
        self._server, self._path = server, path

    def __enter__(self) -> tuple[str, str]:
        from gradio_client import Client, handle_file

        raw = Client(self._server.url, verbose=False, download_files=False)
        packed = raw.predict(handle_file(str(self._path)), "", 256, api_name="/compress")[0]
        path = packed["path"] if isinstance(packed, dict) else str(packed)
        return f"/gradio_api/file={path}", str(Path(path).parents[1])

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../etc/passwd", f"{ROOT}/assets/models/speech-fsp.json"]
)
def test_an_endpoint_takes_uploads_only(path: str, server: Server) -> None:
    """A path of the server's, sent as if it had been uploaded, is refused."""
    body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}).encode()
    status, answer = server.get("/gradio_api/call/info", "POST", body)
    if status == 200:
        event = json.loads(answer)["event_id"]
        status, answer = server.get(f"/gradio_api/call/info/{event}")
        assert b"event: error" in answer
    assert b"root:" not in answer
    assert b"model id" not in answer


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run-history/buckets",
        "/gradio_api/run-history/records?bucket_id=a/b",
        "/gradio_api/runs",
        "/gradio_api/token",
        "/gradio_api/vibe-code",
        "/gradio_api/deep_link",
        "/gradio_api/profiling/traces",
        "/monitoring",
        "/monitoring/summary",
        "/docs",
        "/gradio_api",
        "//gradio_api/runs",
    ],
)
def test_what_the_page_does_not_need_is_not_answered(path: str, server: Server) -> None:
    """Gradio's own pages, some of which ask other sites with the server's account."""
    assert server.get(path) == (403, b"not a part of this app")


@pytest.mark.parametrize("name", ["process_recording", "run-history/connect", "vibe-edit"])
def test_nor_is_what_is_sent_there_taken(name: str, server: Server) -> None:
    assert server.get(f"/gradio_api/{name}", "POST", b"{}")[0] == 403


def test_what_the_browser_does_on_another_medium_never_waits_for_the_server(server: Server) -> None:
    """Gradio runs the events of one control one after the other, each to its end."""
    config = json.loads(server.get("/config")[1])
    (medium,) = (c["id"] for c in config["components"] if c["props"].get("elem_id") == "medium")
    events = [e for e in config["dependencies"] if [medium, "change"] in e["targets"]]
    assert len(events) > 4
    assert not [event for event in events if event["backend_fn"]]


def test_an_upload_that_breaks_off_is_no_fault(server: Server) -> None:
    """The fixture above looks for a traceback in the log."""
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n"
    head += "Content-Type: multipart/form-data; boundary=cut\r\n\r\n--cut\r\n"
    head += 'Content-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    before = set(server.log.parent.glob("codec-app-*/tmp*"))
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(head.encode() + bytes(300_000))
        end = time.monotonic() + 30
        while set(server.log.parent.glob("codec-app-*/tmp*")) == before and time.monotonic() < end:
            time.sleep(0.05)
    assert set(server.log.parent.glob("codec-app-*/tmp*")) != before
    assert server.get("/")[0] == 200
    time.sleep(0.5)


def test_runs_are_not_kept(server: Server) -> None:
    assert json.loads(server.get("/config")[1])["run_history"] is False


def test_the_guard_sees_the_path_behind_a_proxys() -> None:
    from app.guard import _route

    behind = {"path": "/sub/gradio_api/runs", "root_path": "/sub"}
    assert _route(behind) == _route({"path": "/gradio_api/runs"}) == "/gradio_api/runs"
    assert _route({"path": "/gradio_api/runs", "root_path": "/gradio"}) == "/gradio_api/runs"


def test_the_guard_knows_its_folder(tmp_path: Path) -> None:
    from app.guard import Guard

    guard = Guard(None, tmp_path, 1000)  # type: ignore[arg-type]
    (tmp_path / "link").symlink_to("/etc")
    assert guard.allows(f"/gradio_api/file={tmp_path}/a/b.png")
    assert guard.allows("/config")
    assert guard.allows("/gradio_api/info")
    for target in (
        f"{tmp_path}/../x",
        f"{tmp_path}x/y",
        f"{tmp_path}/link/passwd",
        "relative.png",
        "",
    ):
        assert not guard.allows(f"/gradio_api/file={target}"), target


@pytest.mark.parametrize(("path", "size"), [("queue/join", 2 << 20), ("upload", 120 << 20)])
def test_what_is_too_large_is_not_read(path: str, size: int, server: Server) -> None:
    """Gradio would keep a call of any size in memory, and as many files as one upload names."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        head = f"POST /gradio_api/{path} HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n\r\n"
        line.sendall(head.encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")
    assert server.get(f"/gradio_api/{path}", "POST", b"{}")[0] != 413


def test_what_does_not_say_how_long_it_is_is_cut_off() -> None:
    from app.guard import _Bounded

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(600), "more_body": True}

    bounded = _Bounded(receive, 1000)
    kinds = [asyncio.run(bounded.receive())["type"] for _ in range(3)]
    assert kinds == ["http.request", "http.disconnect", "http.disconnect"]


def test_too_large_an_upload_is_cut_off(server: Server) -> None:
    boundary = "x"
    disposition = 'Content-Disposition: form-data; name="files"; filename="a.wav"'
    head = f"--{boundary}\r\n{disposition}\r\n\r\n".encode()
    body = head + bytes(51 << 20) + f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(
            "POST",
            "/gradio_api/upload",
            body,
            {"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # cut off before all was sent
    finally:
        connection.close()


# --------------------------------------------------------------------------------------------------
# many users


def test_users_at_once_and_users_who_leave(
    server: Server, media: dict[str, Path], tmp_path: Path
) -> None:
    """Four users, and one who asks and hangs up without waiting.

    `python -m app.load` is the long form.
    """
    from gradio_client import Client
    from gradio_client.utils import Status

    expected = {medium: by_command(path, 256, tmp_path) for medium, path in media.items()}
    failures: list[str] = []

    def user(medium: str) -> None:
        try:
            client = Client(server.url, verbose=False, download_files=str(tmp_path))
            for _ in range(2):
                packed = client.predict(send(media[medium]), "", 256, api_name="/compress")[0]
                if Path(packed).read_bytes() != expected[medium]:
                    failures.append(f"{medium}: another file")
        except Exception as error:
            failures.append(f"{medium}: {error}")

    threads = [threading.Thread(target=user, args=(medium,)) for medium in ("speech", "image") * 2]
    for thread in threads:
        thread.start()
    leaving = Client(server.url, verbose=False, download_files=str(tmp_path))
    job = leaving.submit(send(media["speech"]), [], [], [], api_name="/compare")
    end = time.monotonic() + WAIT_MS / 1000
    while job.status().code is not Status.PROCESSING:
        assert time.monotonic() < end, job.status()
        time.sleep(0.02)
    job.cancel()
    del leaving
    for thread in threads:
        thread.join()
    assert not failures


# --------------------------------------------------------------------------------------------------
# in a browser

CHROMIUM = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)
NO_BROWSER = (
    "no chromium here: apt-get install chromium"
    if CHROMIUM is None
    else "no playwright here: pip install playwright"
    if importlib.util.find_spec("playwright") is None
    else None
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if NO_BROWSER:
        if os.environ.get("CI"):
            pytest.fail(NO_BROWSER)
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens the app in a fresh session.

    An error in its scripts fails the test, and so does a request that the guard refuses.
    """
    contexts: list[Any] = []
    errors: list[str] = []

    def visit(width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda got: errors.extend([got.url] if got.status == 403 else []))
        page.goto(server.url)
        page.wait_for_selector("#examples button")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not errors, errors


def go(page: Page, tab: str) -> None:
    """Opens a tab, from the menu where a narrow window has put it there."""
    page.wait_for_selector(f"#tab-{tab}-button", state="attached")
    page.evaluate(f"document.querySelector('#tab-{tab}-button').click()")


def settled(page: Page, tab: str) -> None:
    """Waits until a tab that was opened is there, and nothing on the page fades."""
    page.wait_for_selector("#decode-file" if tab == "decode" else f"#{tab}-start")
    page.wait_for_function(
        "document.getAnimations().every(a => a.playState !== 'running' || "
        "a.effect.getComputedTiming().endTime === Infinity)"
    )


def use_picture(page: Page, path: Path | None = None) -> None:
    """Chooses the first example picture, or uploads one."""
    page.click("#medium label:nth-of-type(2)")
    page.wait_for_selector("#examples img")
    page.wait_for_selector("label:has-text('image-vp')", state="attached")
    if path is None:
        page.click("#examples button")
        page.wait_for_selector("#compare-viewer .stage")
    else:
        page.set_input_files("#picture input[type=file]", path)
        page.wait_for_selector("#about .about.known, #about .about.fault")


def loaded(page: Page, selector: str) -> bool:
    """Whether every picture that the selector finds has arrived."""
    page.wait_for_function(
        "s => [...document.querySelectorAll(s)].every(i => i.complete && i.naturalWidth > 0)",
        arg=selector,
    )
    return page.locator(selector).count() > 0


@pytest.mark.browser
def test_an_example_is_compared_at_once(open_page: Callable[..., Page]) -> None:
    page = open_page()
    assert "Nothing to compare yet" in page.inner_text("#compare-listener")
    page.click("#examples button")
    page.wait_for_selector("#compare-listener .lane")
    lanes = page.locator("#compare-listener .lane")
    assert lanes.first.locator(".name").inner_text() == "Original"
    assert lanes.count() >= 4
    assert page.locator("#compare-facts tbody tr").count() == lanes.count() - 1
    page.check("#compare-listener .spectra")
    assert loaded(page, "#compare-listener .spec")
    page.keyboard.press("Escape")
    page.click("#compare-listener .play")
    page.wait_for_function(
        "!document.querySelector('#compare-listener .time').textContent.startsWith('0:00.0')"
    )
    page.locator("#compare-listener .pick").nth(1).focus()
    page.keyboard.press("3")
    assert page.locator("#compare-listener .pick").nth(2).get_attribute("aria-checked") == "true"
    page.keyboard.press("ArrowDown")
    assert page.locator("#compare-listener .pick").nth(3).get_attribute("aria-checked") == "true"
    page.keyboard.press("Space")
    assert page.get_attribute("#compare-listener .play", "aria-label") == "Play"


@pytest.mark.browser
def test_the_download_is_the_bin_of_the_command_line(
    open_page: Callable[..., Page], media: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page()
    use_picture(page, media["image"])
    page.click("#compare-start")
    page.wait_for_selector("#compare-viewer .stage")
    with page.expect_download() as download:
        page.click("#compare-facts tbody tr:first-child a.download")
    download.value.save_as(tmp_path / "page.bin")
    assert (tmp_path / "page.bin").read_bytes() == by_command(media["image"], 256, tmp_path)
    go(page, "decode")
    page.wait_for_selector("#source", state="hidden")
    page.set_input_files("#decode-file input[type=file]", tmp_path / "page.bin")
    page.wait_for_selector("#decode-viewer .stage")
    assert loaded(page, "#decode-viewer .under")
    header = page.inner_text("#decode-header")
    for word in ("codebook size", "256", "160", "120", "bits per token"):
        assert word in header


def layered_model(medium: str) -> str:
    """The model of a medium that ships with layers, as it is ticked in Compare."""
    return f"{medium}-fsp"


def choose_layer(page: Page, selector: str, size: int) -> None:
    """Chooses the layer of a codebook size as the keyboard does."""
    page.locator(f"{selector} input[value='{size}']").focus()
    page.keyboard.press("Space")


@pytest.mark.browser
@pytest.mark.parametrize("medium", ["speech", "image"])
def test_the_layers_of_compare_cut_the_file_by_keyboard(
    medium: str, open_page: Callable[..., Page], media: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page()
    if medium == "image":
        use_picture(page, media["image"])
    else:
        page.set_input_files("#recording input[type=file]", media["speech"])
        page.wait_for_selector("#about .about.known")
    for name in {card.name for card in cards.list_cards() if card.medium == medium}:
        box = page.get_by_label(name, exact=True).first
        box.set_checked(name == layered_model(medium))
    page.click("#compare-start")
    page.wait_for_selector("#compare-layer label")
    part = "#compare-layer-viewer .stage" if medium == "image" else "#compare-layer-listener .lane"
    page.wait_for_selector(part)
    assert page.locator("#compare-layer label").count() == 4
    for size in (256, 4096):
        choose_layer(page, "#compare-layer", size)
        page.wait_for_selector(f"#compare-layer-file :text('{size:,} codes')")
        with page.expect_download() as download:
            page.click("#compare-layer-file a.download")
        download.value.save_as(tmp_path / f"{size}.bin")
        data = (tmp_path / f"{size}.bin").read_bytes()
        single = by_command(media[medium], size, tmp_path, layered_model(medium))
        if size == 256:
            assert data == single
        assert f"{len(data):,} bytes" in page.inner_text("#compare-layer-file")
        model = load(
            next(card for card in cards.list_cards() if card.name == layered_model(medium))
        )
        assert np.array_equal(read_indices(data, model)[1], read_indices(single, model)[1])
        assert f"{size:,} codes" in page.inner_text(part.split(" ")[0])


@pytest.mark.browser
def test_a_page_that_is_still_being_drawn_cannot_be_used(browser: Browser, server: Server) -> None:
    """Its tabs are there before its radio buttons, whose script comes late."""
    import gradio

    assets = Path(gradio.__file__).parent / "templates/frontend/assets"
    late = {
        script.name
        for script in assets.glob("Index-*.js")
        if '<input type="radio"' in script.read_text(encoding="utf-8")
    }
    assert late
    held: list[Any] = []
    context = browser.new_context()
    page = context.new_page()
    page.route(lambda url: url.rsplit("/", 1)[-1] in late, lambda route: held.append(route))
    page.goto(server.url)
    page.wait_for_selector("#tab-decode-button", state="attached")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement === document.body")
    assert not page.locator("#tab-decode-button").is_visible()
    for route in held:
        route.continue_()
    page.wait_for_selector("#medium label")
    page.click("#tab-decode-button")
    page.wait_for_selector("#decode-file")
    context.close()


@pytest.mark.browser
def test_the_layers_of_decode_keep_the_view(
    open_page: Callable[..., Page], media: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "layers.bin"
    arguments = [
        str(media["image"]),
        str(path),
        "-m",
        "image-fsp",
        "-k",
        "16384",
        "--layers",
        "--quiet",
    ]
    assert compress_main(arguments) == 0
    page = open_page()
    go(page, "decode")
    page.set_input_files("#decode-file input[type=file]", path)
    page.wait_for_selector("#decode-viewer .stage")
    page.click("#decode-viewer [data-zoom='4']")
    choose_layer(page, "#decode-layer", 256)
    page.wait_for_selector("#decode-header :text('256 codes')")
    assert loaded(page, "#decode-viewer .under")
    assert "scale(4)" in page.locator("#decode-viewer .under").evaluate("i => i.style.transform")
    with page.expect_download() as download:
        page.click("#decode-header a.download[download$='.bin']")
    download.value.save_as(tmp_path / "page.bin")
    assert (tmp_path / "page.bin").read_bytes() == by_command(
        media["image"], 256, tmp_path, "image-fsp"
    )


# What plays; and the recordings come late, as over a slow line.
PLAYING = """(() => {
  const fetched = window.fetch, play = AudioBufferSourceNode.prototype.start;
  window.fetch = async (url, ...more) => {
    if (String(url).endsWith(".wav")) await new Promise((done) => setTimeout(done, 400));
    return fetched(url, ...more);
  };
  window.playing = new Set();
  AudioBufferSourceNode.prototype.start = function (...given) {
    window.playing.add(this);
    return play.apply(this, given);
  };
  const stop = AudioBufferSourceNode.prototype.stop;
  AudioBufferSourceNode.prototype.stop = function (...given) {
    window.playing.delete(this);
    return stop.apply(this, given);
  };
})()"""


@pytest.mark.browser
def test_one_thing_plays_at_a_time_and_can_be_stopped(
    open_page: Callable[..., Page], media: dict[str, Path]
) -> None:
    page = open_page()
    page.evaluate(PLAYING)
    page.get_by_label("speech-vp", exact=True).first.set_checked(False)
    page.get_by_label(layered_model("speech"), exact=True).first.set_checked(True)
    page.set_input_files("#recording input[type=file]", media["speech"])
    page.wait_for_selector("#about .about.known")
    page.click("#compare-start")
    page.wait_for_selector("#compare-layer-listener .play")
    above, below = "#compare-listener", "#compare-layer-listener"
    lanes = page.locator(f"{above} .pick")
    lanes.nth(1).click()
    lanes.nth(0).click()  # while the files load
    page.wait_for_selector(f"{above} [aria-label=Pause]")
    assert page.evaluate("playing.size") == lanes.count()
    page.click(f"{below} .play")
    page.wait_for_selector(f"{above} [aria-label=Play]")
    page.wait_for_selector(f"{below} [aria-label=Pause]")
    assert page.evaluate("playing.size") == page.locator(f"{below} .pick").count()
    page.click(f"{below} .play")
    assert page.evaluate("playing.size") == 0


@pytest.mark.browser
def test_the_line_moves_by_pointer_and_keys(open_page: Callable[..., Page]) -> None:
    page = open_page()
    use_picture(page)
    assert loaded(page, "#compare-viewer .under")
    stage = page.locator("#compare-viewer .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    cut = page.locator("#compare-viewer .cut")
    assert int(cut.get_attribute("aria-valuenow") or 0) == pytest.approx(80, abs=2)
    cut.focus()
    page.keyboard.press("ArrowLeft")
    assert int(cut.get_attribute("aria-valuenow") or 0) == pytest.approx(78, abs=2)
    details = page.locator("#compare-viewer .detail")
    before = details.first.evaluate("d => d.style.backgroundPosition")
    page.mouse.click(box["x"] + 30, box["y"] + 30)
    assert details.first.evaluate("d => d.style.backgroundPosition") != before
    page.click("#compare-viewer [data-zoom='4']")
    assert "scale(4)" in page.locator("#compare-viewer .under").evaluate("i => i.style.transform")
    details.nth(2).click()
    assert page.locator("#compare-viewer select.right").input_value() == "2"


@pytest.mark.browser
def test_sweep_shows_each_point(open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page()
    use_picture(page)
    go(page, "sweep")
    page.click("#sweep-start")
    page.wait_for_selector("#sweep-chart .point")
    rows = page.locator("#sweep-facts tbody tr").count()
    assert page.locator("#sweep-chart .point").count() == rows >= 8
    page.locator("#sweep-chart .point").nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#sweep-viewer .stage")
    assert loaded(page, "#sweep-viewer .under")
    page.click(".sweep-metric label:has-text('PSNR')")
    page.wait_for_function(
        "document.querySelector('#sweep-chart svg').getAttribute('aria-label').includes('PSNR')"
    )
    with page.expect_download() as download:
        page.click("text=Download the table")
    download.value.save_as(tmp_path / "sweep.csv")
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == rows + 1


@pytest.mark.browser
def test_inspect_shows_and_changes_tokens(open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page()
    page.click("#examples button")
    page.wait_for_selector("#compare-listener .lane")
    go(page, "inspect")
    page.click("#inspect-start")
    page.wait_for_selector("#inspect-map .field img")
    assert loaded(page, "#inspect-map .field img")
    assert loaded(page, "#inspect-usage .plane")
    page.locator("#inspect-map .field").click(position={"x": 60, "y": 20})
    assert page.inner_text("#inspect-map .hover").startswith("Token ")
    page.click("#inspect-decode")  # at once
    page.wait_for_selector("#inspect-listener .lane")
    assert page.inner_text("#inspect-result").startswith("4 tokens replaced")  # 10 % of 36
    with page.expect_download() as download:
        page.click("#inspect-result a.download")
    download.value.save_as(tmp_path / "changed.bin")
    assert info_main([str(tmp_path / "changed.bin")]) == 0


@pytest.mark.browser
def test_rating_blind_tells_at_the_end(open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page()
    use_picture(page)
    go(page, "blind")
    page.click("#blind-start")
    page.wait_for_selector("#blind-viewer .stage")
    shown = page.inner_html("#blind-viewer")
    assert not any(word in shown for word in ("fsp", "codes", "Original", "1024"))
    page.click("#blind-viewer .submit")
    page.wait_for_selector("text=has no rating yet")
    sliders = page.locator("#blind-viewer [data-rate]")
    sliders.first.click()  # in its middle, where it begins
    assert page.inner_text("#blind-viewer .rate output >> nth=0") == "50"
    for number in range(1, sliders.count()):
        sliders.nth(number).fill(str(10 * number))
    page.click("#blind-viewer .submit")
    page.wait_for_selector("#blind-result table")
    assert "Original" in page.inner_text("#blind-result")
    with page.expect_download() as download:
        page.click("#blind-result a.download")
    download.value.save_as(tmp_path / "result.csv")
    assert len((tmp_path / "result.csv").read_text().splitlines()) == sliders.count() + 1


@pytest.mark.browser
def test_abx_counts_answers(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.click("#examples button")
    page.wait_for_selector("#compare-listener .lane")
    go(page, "blind")
    page.click("#blind-kind label:nth-of-type(2)")
    page.click("#blind-start")
    page.wait_for_selector("text=Trial 1 of 10")
    assert page.locator("#blind-listener .lane").count() == 3
    page.click("text=X is A")
    page.wait_for_selector("text=Trial 2 of 10")
    page.click("text=X is B")
    page.wait_for_selector("text=Trial 3 of 10")
    page.click("text=Stop, show the result")
    page.wait_for_selector("#blind-result table")
    assert "of 2 right" in page.inner_text("#blind-result")


@pytest.mark.browser
def test_errors_are_said_and_forgotten(
    open_page: Callable[..., Page], tmp_path: Path, media: dict[str, Path]
) -> None:
    page = open_page()
    page.click("#compare-start")
    page.wait_for_selector("text=Nothing is chosen yet")
    (tmp_path / "broken.png").write_bytes(picture(gradient(64, 64))[:500])
    use_picture(page, tmp_path / "broken.png")
    assert "amaged picture" in page.inner_text("#about")
    go(page, "decode")
    (tmp_path / "broken.bin").write_bytes(b"\x8dCDC\r\n\x1a\n\x01\x00")
    page.set_input_files("#decode-file input[type=file]", tmp_path / "broken.bin")
    page.wait_for_selector("#decode-header .fault")
    assert "cut short" in page.inner_text("#decode-header")
    go(page, "compare")
    page.click("#picture button[aria-label='Remove Image']")
    page.set_input_files("#picture input[type=file]", media["image"])
    page.wait_for_selector("#about .known")
    page.click("#compare-start")
    page.wait_for_selector("#compare-viewer .stage")


@pytest.mark.browser
def test_the_microphone_records(open_page: Callable[..., Page]) -> None:
    """Chromium's fake microphone beeps."""
    page = open_page()
    page.click("#recording button[aria-label='Record audio']")
    page.click("#recording .record-button")
    page.wait_for_timeout(1500)
    page.click("#recording .stop-button")
    page.wait_for_selector("#about .known")
    page.click("#compare-start")
    page.wait_for_selector("#compare-listener .lane")
    minutes, seconds = page.inner_text("#compare-listener .time").split(" / ")[1].split(":")
    assert 60 * int(minutes) + float(seconds) > 0.5


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_has_room_for_every_tab(dark: bool, open_page: Callable[..., Page]) -> None:
    page = open_page(390, 844, dark)
    use_picture(page)
    tabs = ["compare", "sweep", "inspect", "decode", "blind"]
    for tab in tabs:
        go(page, tab)
        if tab == "inspect":
            page.click("#inspect-start")
            page.wait_for_selector("#inspect-map .field img")
        settled(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
        wide = page.evaluate(
            "[...document.querySelectorAll('#work *')].filter(e => e.offsetParent && "
            "getComputedStyle(e).clipPath === "
            "'none' && !e.closest('.tab-container, .stage, .detail') "
            "&& e.getBoundingClientRect().right > 392)"
            ".map(e => e.tagName + '.' + e.className)"
        )
        assert not wide, (tab, wide[:5])
    go(page, "compare")
    ink, paper = page.evaluate(
        "[getComputedStyle(document.querySelector('.hero h1')).color, "
        "getComputedStyle(document.body).backgroundColor]"
    )
    brightness = [
        sum(int(x) for x in colour[colour.index("(") + 1 : -1].split(",")[:3])
        for colour in (ink, paper)
    ]
    assert (brightness[0] > brightness[1]) == dark, (ink, paper)
    assert abs(brightness[0] - brightness[1]) > 380


@pytest.mark.browser
def test_a_narrow_window_scrolls_to_a_new_result_only(open_page: Callable[..., Page]) -> None:
    page = open_page(390, 844)
    page.emulate_media(reduced_motion="reduce")  # it scrolls at once
    use_picture(page)
    go(page, "inspect")
    page.click("#inspect-start")
    page.wait_for_selector("#inspect-map .field img")
    top = "document.querySelector('#inspect-map .map').getBoundingClientRect().top"
    page.wait_for_function(f"Math.abs({top}) < 40")
    page.locator("#inspect-map .field").first.click()
    slider = page.locator(".inspect-side input[type=range]")
    slider.scroll_into_view_if_needed()
    before = page.evaluate("[scrollY, document.querySelector('.spot').offsetWidth]")
    for _ in range(3):
        slider.press("ArrowRight")
    page.wait_for_function(
        "w => document.querySelector('.spot').offsetWidth > w", arg=1.4 * before[1]
    )
    assert page.evaluate("scrollY") == before[0]
    box = slider.bounding_box()
    assert box
    assert 0 <= box["y"] <= 844


@pytest.mark.browser
def test_the_page_works_by_keyboard_and_explains_itself(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.locator(".hero .tip").focus()
    assert page.locator("#bubble.open").inner_text().startswith("A numbered list")
    page.keyboard.press("Escape")
    assert page.locator("#bubble.open").count() == 0
    page.locator("#examples button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare-listener .lane")
    page.wait_for_function(
        "document.querySelector('[aria-live=polite].said')?.textContent.startsWith('Results for ')"
    )
    unnamed = page.evaluate(
        "[...document.querySelectorAll('#work button, "
        "#source button')].filter(b => b.offsetParent && "
        "!b.textContent.trim() && !b.getAttribute('aria-label') "
        "&& !b.title).map(b => b.outerHTML.slice(0, 120))"
    )
    assert not unnamed
    assert page.evaluate("[...document.images].every(i => i.hasAttribute('alt'))")


@pytest.mark.browser
def test_closing_the_browser_in_the_middle_harms_nobody(open_page: Callable[..., Page]) -> None:
    leaving = open_page()
    leaving.click("#examples button")
    leaving.wait_for_selector("#compare-cancel")
    leaving.context.close()
    page = open_page()
    page.click("#examples button")
    page.wait_for_selector("#compare-listener .lane")


@pytest.mark.browser
def test_nothing_is_fetched_from_elsewhere(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page()
    use_picture(page)
    names = page.evaluate("performance.getEntriesByType('resource').map(r => r.name)")
    assert names
    assert [name for name in names if not name.startswith((server.url, "data:", "blob:"))] == []


@pytest.mark.browser
def test_the_page_of_the_endpoints_describes_them(browser: Browser, server: Server) -> None:
    """It does without the figures of users that it asks the server for."""
    page = browser.new_page()
    page.goto(server.url)
    page.click("footer button:has-text('API')", timeout=WAIT_MS)
    page.wait_for_selector("text=/compress", timeout=WAIT_MS)
    names = page.evaluate(
        "[...document.querySelectorAll('span')].map(e => e.textContent.trim())"
        ".filter(text => /^[/][a-z]+$/.test(text))"
    )
    assert set(names) == ENDPOINTS
    page.close()
