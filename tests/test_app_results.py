"""The demo's results and its input: each names the other's, and what runs can be cancelled.

In a real browser, with tiny models, so that what is slow is what the tests ask for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import tones, wav

pytest.importorskip("gradio", reason="the demo is not installed: pip install '.[app]'")

from test_app_page import (  # noqa: F401  fixtures
    WAIT_MS,
    Server,
    browser,
    go,
    nothing_unforeseen,
    open_page,
    use_picture,
)

from app.handlers import Stopped, plainly
from app.turns import Turn

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.filterwarnings("ignore")  # playwright's own
TABS = {"compare": "#compare-facts", "sweep": "#sweep-facts", "blind": "#blind-listener .lane"}
# Files of versions that two jobs were making when they were cancelled, a few for each.
IN_FLIGHT = 4
ALL_VERSIONS = 11  # files of what `asking_for_much` asks for, at least
IDLE_S = 8  # a version of these models takes a fraction of a second on a free core


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("results") / "log.txt"
    server = Server(log, "--models", str(model_folder))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that takes a while at many sizes."""
    path = tmp_path_factory.mktemp("media") / "long.wav"
    path.write_bytes(wav(tones(16_000 * 10)))
    return path


def made(server: Server) -> int:
    """How many files there are for the page: each version is in a folder of its own."""
    return len(list(server.log.parent.glob("codec-app-*/files/*")))


def until_idle(server: Server, limit_s: float = 120) -> int:
    """Waits until the server has made no file for a while; returns how many it has made."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        before = made(server)
        time.sleep(IDLE_S)
        if made(server) == before:
            return before
    pytest.fail("the server still works")


def stopped(page: Page, server: Server, tab: str) -> None:
    """Fails where the work of a tab's job goes on once the page has given it up."""
    page.wait_for_selector(f"#{tab}-cancel", state="hidden")
    given_up = made(server)
    assert until_idle(server) - given_up <= IN_FLIGHT, "it went on"
    assert page.locator(f"#tab-{tab} .whose h3").count() == 0


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#recording input[type=file]", path)
    page.wait_for_selector("#about .known")


def clear(page: Page) -> None:
    page.click("#recording button[aria-label='Clear']")
    page.wait_for_selector("#recording input[type=file]", state="attached")


def asking_for_much(open_page: Callable[..., Page], long: Path) -> Page:  # noqa: F811
    """A page with every size and every classic codec ticked, before it is told to compare."""
    page = open_page()
    upload(page, long)
    for box in page.locator("#tab-compare .options input[type=checkbox]").all():
        box.check()
    return page


def ask_for_little(page: Page) -> None:
    """Leaves one size, and no classic codec."""
    for box in page.locator("#tab-compare .options input[type=checkbox]").all()[2:]:
        box.uncheck()


def whose(page: Page, tab: str) -> str:
    return page.locator(f"#tab-{tab} .whose h3").text_content() or ""


def grey(page: Page, tab: str) -> bool:
    """Whether a tab's results are grey, and say why; one without the other is a fault."""
    result = page.locator(f"#tab-{tab} .whose ~ .block > :not(.wrap)").first
    for _ in range(20):  # Gradio fades what it has just brought, too
        said = page.locator(f"#tab-{tab} .whose .notice").is_visible()
        faint = result.evaluate("e => getComputedStyle(e).opacity < 1")
        if said == faint:
            return bool(said)
        time.sleep(0.5)
    pytest.fail(f"{tab}: said {said}, grey {faint}")


# --------------------------------------------------------------------------------------------------
# whose results


@pytest.mark.browser
def test_results_name_their_input_and_turn_grey_beside_another(
    open_page: Callable[..., Page],  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "own & own.wav").write_bytes(wav(tones(16_000)))
    page = open_page()
    upload(page, tmp_path / "own & own.wav")
    assert page.locator("#examples .current").count() == 0
    for tab in ("compare", "sweep", "inspect", "blind"):
        go(page, tab)
        page.click(f"#{tab}-start")
        page.wait_for_selector(f"#tab-{tab} .whose .current")
        assert whose(page, tab) == "Results for own & own.wav"
        assert not grey(page, tab)
    clear(page)
    page.wait_for_selector("#blind .whose .notice, #tab-blind .whose .notice")
    for tab in ("compare", "sweep", "inspect", "blind"):
        go(page, tab)
        assert grey(page, tab), tab
    page.click("#examples button")  # in a tab that does not start by itself
    page.wait_for_selector("#examples button:first-child.current")
    go(page, "sweep")
    assert grey(page, "sweep")
    page.click("#sweep-start")
    page.wait_for_selector("#tab-sweep .whose .current")
    go(page, "decode")  # which hides the input
    go(page, "sweep")
    assert not grey(page, "sweep")
    clear(page)
    page.wait_for_selector("#examples .current", state="detached")
    upload(page, tmp_path / "own & own.wav")  # the same once more
    go(page, "compare")
    page.wait_for_selector("#tab-compare .whose .current")
    assert not grey(page, "compare")


@pytest.mark.browser
def test_an_example_is_compared_while_another_is(
    open_page: Callable[..., Page],  # noqa: F811
    server: Server,
    long: Path,
) -> None:
    """The one that was chosen last is shown in the end, however long the first takes."""
    page = asking_for_much(open_page, long)
    page.click("#compare-start")
    page.wait_for_selector("#compare-cancel")
    ask_for_little(page)
    page.locator("#examples button").nth(0).click()
    page.wait_for_selector("#examples button:nth-child(1).current")
    page.locator("#examples button").nth(1).click()
    page.wait_for_selector("#tab-compare .whose .current")
    until_idle(server)
    assert "heath_ledger" in whose(page, "compare")
    assert not grey(page, "compare")
    assert page.locator("#compare-facts tbody tr").count() == 1


# --------------------------------------------------------------------------------------------------
# cancelling


@pytest.mark.browser
@pytest.mark.parametrize("tab", TABS)
def test_a_job_is_cancelled_and_the_next_one_works(
    tab: str,
    open_page: Callable[..., Page],  # noqa: F811
    server: Server,
    long: Path,
) -> None:
    page = open_page()
    upload(page, long)
    go(page, tab)
    assert not page.locator(f"#{tab}-cancel").is_visible()
    row = ".actions" if tab == "sweep" else ".options"  # where the codecs are chosen
    boxes = page.locator(f"#tab-{tab} {row} input[type=checkbox]")
    for box in boxes.all():
        box.check()
    page.click(f"#{tab}-start")
    page.click(f"#{tab}-cancel")
    stopped(page, server, tab)
    assert page.locator(TABS[tab]).locator("tr, .pick").count() == 0
    for box in boxes.all()[2:]:
        box.uncheck()
    page.click(f"#{tab}-start")
    page.wait_for_selector(f"#tab-{tab} .whose .current")
    assert "long.wav" in whose(page, tab)
    assert not page.locator(f"#{tab}-cancel").is_visible()


@pytest.mark.browser
def test_jobs_of_a_double_click_are_cancelled(
    open_page: Callable[..., Page],  # noqa: F811
    server: Server,
    long: Path,
) -> None:
    page = asking_for_much(open_page, long)
    page.dblclick("#compare-start")
    page.click("#compare-cancel")
    stopped(page, server, "compare")


@pytest.mark.browser
def test_the_work_for_a_page_that_was_left_ends(
    open_page: Callable[..., Page],  # noqa: F811
    server: Server,
    long: Path,
) -> None:
    page = asking_for_much(open_page, long)
    until_idle(server)
    before = made(server)
    page.click("#compare-start")
    page.wait_for_selector("#compare-cancel")
    end = time.monotonic() + WAIT_MS / 1000
    while made(server) == before:
        if time.monotonic() > end:
            pytest.fail(server.text()[-2000:])
        time.sleep(0.05)
    page.context.close()
    assert until_idle(server) - before < ALL_VERSIONS / 2, "it went on"


@pytest.mark.browser
def test_media_do_not_mix_where_one_is_chosen_during_a_job(
    open_page: Callable[..., Page],  # noqa: F811
    server: Server,
    long: Path,
) -> None:
    page = asking_for_much(open_page, long)
    page.click("#compare-start")
    page.wait_for_selector("#compare-cancel")
    page.click("#medium label:nth-of-type(2)")
    page.wait_for_selector("#examples img")
    stopped(page, server, "compare")
    assert page.locator("#compare-listener .lane").count() == 0
    assert page.locator("#compare-facts tr").count() == 0
    assert "Nothing to compare yet" in page.inner_text("#compare-viewer")


def test_the_newest_job_counts() -> None:
    """It, and who cancels, end those before it when they next report; what joined them, too."""
    shown: list[tuple[float, str]] = []
    turn = Turn()

    def progress(share: float, desc: str) -> None:
        shown.append((share, desc))

    first, joined = turn.begin(progress), turn.join(progress)  # type: ignore[arg-type]
    first(0.1, "a")
    joined(0.2, "b")
    second = turn.begin(progress)  # type: ignore[arg-type]
    for report in (first, joined):
        with pytest.raises(Stopped):
            report(0.3, "c")
    second(0.4, "d")
    turn.end()
    with pytest.raises(Stopped):
        second(0.5, "e")
    assert [desc for _, desc in shown] == ["a", "b", "d"]
    third = turn.begin(progress)  # type: ignore[arg-type]
    third(0.6, "f")


def test_what_joined_a_turn_ends_with_it_and_an_old_job_ends_no_newer_one() -> None:
    turn = Turn()

    def progress(share: float, desc: str) -> None:
        """Shows nothing."""

    turn.begin(progress).finish()  # type: ignore[arg-type]
    for ending in (lambda: turn.begin(progress).finish(), lambda: turn.cancel(1), turn.end):  # type: ignore[arg-type]
        cut = turn.join(progress)  # type: ignore[arg-type]
        cut(0.1, "between two jobs")
        ending()
        with pytest.raises(Stopped):
            cut(0.2, "of the former file")
    old = turn.begin(progress)  # type: ignore[arg-type]
    new = turn.begin(progress)  # type: ignore[arg-type]
    with pytest.raises(Stopped):
        old.finish()
    new(0.3, "goes on")
    new.finish()


def test_a_job_that_was_cancelled_before_it_began_does_not_begin() -> None:
    shown: list[tuple[float, str]] = []
    turn = Turn()

    def progress(share: float, desc: str) -> None:
        shown.append((share, desc))

    turn.cancel(2)
    for ticket in (1, 2):
        with pytest.raises(Stopped):
            turn.begin(progress, ticket)  # type: ignore[arg-type]
    report = turn.begin(progress, 3)  # type: ignore[arg-type]
    turn.cancel(2)  # an old one that comes late ends what runs, and forbids nothing new
    with pytest.raises(Stopped):
        report(0.1, "a")
    turn.begin(progress, 3)(0.2, "b")  # type: ignore[arg-type]
    report = turn.begin(progress, 5)  # type: ignore[arg-type]
    with pytest.raises(Stopped):  # Gradio's queue does not keep the order of two
        turn.begin(progress, 4)  # type: ignore[arg-type]
    report(0.3, "c")
    turn.begin(progress)(0.4, "d")  # type: ignore[arg-type]
    assert [desc for _, desc in shown] == ["b", "c", "d"]


def test_a_job_that_was_stopped_changes_nothing() -> None:
    import gradio

    def job() -> None:
        raise Stopped

    assert plainly(job)() == gradio.skip()


# --------------------------------------------------------------------------------------------------
# playing


@pytest.mark.browser
def test_a_recording_that_the_browser_cannot_play_says_so(
    open_page: Callable[..., Page],  # noqa: F811
    tmp_path: Path,
) -> None:
    from playwright.sync_api import expect

    (tmp_path / "slow.wav").write_bytes(wav(tones(2_000, 1_000), 1_000))
    page = open_page()
    upload(page, tmp_path / "slow.wav")
    page.click("#compare-start")
    page.wait_for_selector("#tab-compare .whose .current")
    said = page.locator("#compare-listener .problem:has-text('cannot play Original')")
    for _ in range(6):  # a player that is drawn once more has forgotten what was pressed
        page.click("#compare-listener .play")
        with suppress(AssertionError):
            expect(said).to_be_visible(timeout=10_000)
            break
    assert said.is_visible()
    assert page.get_attribute("#compare-listener .play", "aria-label") == "Play"
