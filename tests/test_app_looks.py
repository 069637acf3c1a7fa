"""The demo's page at odd sizes and by keyboard: pictures that are long or tiny, tables that are too
wide, radio buttons, contrast.

In a real browser, with the server and the fixtures of test_app_page.py.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav
from PIL import Image

pytest.importorskip("gradio_client", reason="the demo is not installed: pip install '.[app]'")

from test_app_page import (
    WAIT_MS,
    browser,
    go,
    nothing_unforeseen,
    open_page,
    server,
    settled,
    use_picture,
)

from codec import cards
from codec.coding import load, read_indices

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browser", "nothing_unforeseen", "open_page", "server"]  # fixtures
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.browser]
Open = Callable[..., "Page"]


def compare(page: Page, folder: Path, height: int, width: int) -> None:
    """Compares a picture of a size at one codebook size, with nothing beside it."""
    path = folder / "given.png"
    path.write_bytes(picture(gradient(height, width)))
    use_picture(page, path)
    for name in ("1,024", "16,384", "WebP"):
        page.get_by_label(name, exact=True).first.set_checked(False)
    page.click("#compare-start")
    page.wait_for_selector("#compare-viewer .stage")
    page.wait_for_function(
        "[...document.querySelectorAll('#compare-viewer .stage img')].every(i => i.naturalWidth)"
    )


SEEN = """() => {
  const stage = document.querySelector("#compare-viewer .stage");
  const image = stage.querySelector("img");
  const s = stage.getBoundingClientRect(), i = image.getBoundingClientRect();
  const ring = stage.querySelector(".ring").getBoundingClientRect();
  return {
    stage: [s.width, s.height],
    picture: [i.width, i.height],
    at: [i.left - s.left, i.top - s.top],
    ring: [ring.left - s.left, ring.top - s.top],
    rendering: getComputedStyle(image).imageRendering,
    zoom: document.querySelector("#compare-viewer [aria-pressed=true]").textContent,
    detail: document.querySelector("#compare-viewer .detail").style.backgroundPosition,
  };
}"""


def seen(page: Page) -> dict[str, Any]:
    """What the viewer shows now; sizes and places in pixels of the page."""
    found: dict[str, Any] = page.evaluate(SEEN)
    return found


@pytest.mark.parametrize(
    ("width", "height", "window"), [(3000, 30, 1280), (30, 3000, 1280), (3000, 30, 390)]
)
def test_a_long_picture_has_a_stage_that_can_be_used(
    open_page: Open, tmp_path: Path, width: int, height: int, window: int
) -> None:
    page = open_page(window, 844)
    compare(page, tmp_path, height, width)
    now = seen(page)
    assert min(now["stage"]) >= 150
    assert min(now["picture"]) >= 48, "it begins zoomed"
    assert max(now["picture"]) / min(now["picture"]) == pytest.approx(100, rel=0.02)
    page.click("#compare-viewer [data-zoom='1']")
    whole = seen(page)
    long = 0 if width > height else 1
    assert whole["picture"][long] == pytest.approx(whole["stage"][long], abs=1), "1× is all of it"
    assert page.evaluate("document.documentElement.scrollWidth") <= window


@pytest.mark.parametrize("side", [1, 32])
def test_a_small_picture_shows_its_pixels(open_page: Open, tmp_path: Path, side: int) -> None:
    page = open_page()
    compare(page, tmp_path, side, side)
    now = seen(page)
    assert now["rendering"] == "pixelated"
    assert 200 <= now["picture"][0] == pytest.approx(now["stage"][0], abs=1)
    assert now["picture"][0] <= 400


def test_the_viewer_works_by_keyboard(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    compare(page, tmp_path, 300, 400)
    begin = seen(page)
    assert (begin["zoom"], begin["rendering"]) == ("1×", "auto")
    page.click("#compare-viewer .zooms button >> nth=0")
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "stage "
    style = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"[{style}.outlineStyle, {style}.outlineWidth]") == ["solid", "2px"]
    assert "zoom" in (page.get_attribute("#compare-viewer .stage", "aria-label") or "")
    for key, axis, way in (
        ("ArrowRight", 0, 1),
        ("ArrowDown", 1, 1),
        ("ArrowLeft", 0, -1),
        ("ArrowUp", 1, -1),
    ):
        before = seen(page)
        page.keyboard.press(key)
        after = seen(page)
        assert way * (after["ring"][axis] - before["ring"][axis]) > 5, key
        assert after["detail"] != before["detail"], "the details follow"
        assert after["picture"] == before["picture"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    page.keyboard.press("+")
    near = seen(page)
    assert near["zoom"] == "4×"
    page.keyboard.press("ArrowRight")
    assert seen(page)["at"][0] < near["at"][0], "zoomed in, arrows pan"
    page.keyboard.press("-")
    assert seen(page)["zoom"] == "2×"
    for key in ("Home", "Escape"):
        page.keyboard.press("+")
        page.keyboard.press("ArrowDown")
        assert seen(page) != begin
        page.keyboard.press(key)
        assert seen(page) == begin
    page.locator("#compare-viewer .cut").focus()
    page.keyboard.press("ArrowLeft")
    assert seen(page) == begin, "the line's keys are its own"
    assert page.get_attribute("#compare-viewer .cut", "aria-valuenow") == "48"


# Six figures in every column, as of the largest pictures that are taken.
LARGE = """() => document.querySelectorAll("#compare-facts tbody tr").forEach((row) => {
  const cells = {
    bytes: "123,456", ratio: "1,236 : 1", "codes used": "13,745 of 16,384", time: "12.38 + 10.78 s",
  };
  row.querySelector("th").lastChild.textContent = "image-gmvq, 16,384 codes";
  for (const cell of row.querySelectorAll("td"))
    if (cells[cell.dataset.head]) cell.textContent = cells[cell.dataset.head];
})"""
ACROSS = "#compare-facts .across"


def test_a_table_fits_or_says_that_it_scrolls(open_page: Open, tmp_path: Path) -> None:
    page = open_page(1280, 800)
    compare(page, tmp_path, 240, 240)  # with SSIMULACRA2
    page.evaluate(LARGE)
    across = page.locator(ACROSS)
    assert across.locator("thead th").count() == 10
    assert across.evaluate("e => e.scrollWidth <= e.clientWidth")
    page.set_viewport_size({"width": 700, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert across.evaluate("e => e.scrollWidth > e.clientWidth + 50")
    assert across.get_attribute("role") == "region"
    assert across.get_attribute("aria-label")
    page.locator("#compare-facts").scroll_into_view_if_needed()
    across.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"document.querySelector('{ACROSS}').scrollLeft > 20")
    box = across.bounding_box()
    first = across.locator("tbody th").first.bounding_box()
    assert box
    assert first
    assert first["x"] == pytest.approx(box["x"], abs=1), "names stay where they are"
    frame = page.evaluate(
        f"getComputedStyle(document.querySelector('{ACROSS}').parentElement).outlineStyle"
    )
    assert frame == "solid"


def dark_at_the_right(page: Page) -> float:
    """How much darker the right edge of the table is than most of it, 0 to 255."""
    with Image.open(io.BytesIO(page.locator(ACROSS).screenshot())) as image:
        pixels = np.asarray(image.convert("L"), float)
    return float(np.median(pixels) - np.median(pixels[:, -3:-1]))


def test_a_shadow_says_that_there_is_more(open_page: Open, tmp_path: Path) -> None:
    page = open_page(700, 800)
    compare(page, tmp_path, 240, 240)
    page.evaluate(LARGE)
    assert dark_at_the_right(page) > 20
    page.locator(ACROSS).evaluate("e => (e.scrollLeft = e.scrollWidth)")
    end = time.monotonic() + WAIT_MS / 1000
    while abs(dark_at_the_right(page)) >= 10:
        assert time.monotonic() < end, "the shadow stays at the end"


def test_radio_buttons_are_groups(open_page: Open) -> None:
    page = open_page()
    go(page, "blind")
    radios = page.locator("#blind-kind input")
    radios.first.focus()
    page.keyboard.press("ArrowRight")
    assert radios.nth(1).is_checked()
    assert radios.nth(1).evaluate("r => r === document.activeElement")
    page.keyboard.press("ArrowRight")  # around
    assert radios.first.is_checked()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "blind-start"
    names = page.evaluate(
        "[...document.querySelectorAll('fieldset')].map(f => [...new Set([...f"
        ".querySelectorAll('input[type=radio]')].map(r => r.name))]).filter(n => n.length)"
    )
    assert len(names) >= 2
    assert all(len(group) == 1 for group in names)
    assert len({name for group in names for name in group}) == len(names)


MARKED = """() => {
  const field = document.querySelector("#inspect-map .field"), f = field.getBoundingClientRect();
  const [rows, columns] = field.getAttribute("aria-label").match(/\\d+/g).map(Number);
  return [...field.querySelectorAll(".spot")].map((mark) => {
    const m = mark.getBoundingClientRect();
    return [
      (m.left - f.left) / f.width * columns, (m.right - f.left) / f.width * columns,
      (m.top - f.top) / f.height * rows, (m.bottom - f.top) / f.height * rows,
    ];
  });
}"""


def marked(page: Page) -> list[list[float]]:
    """Left, right, top and bottom of each mark on the token map, in tokens."""
    found: list[list[float]] = page.evaluate(MARKED)
    return found


def size_of_the_spot(page: Page, count: int) -> None:
    page.fill(".inspect-side input[type=number]", str(count))
    page.keyboard.press("Tab")


def look_inside(page: Page) -> None:
    go(page, "inspect")
    page.click("#inspect-start")
    page.wait_for_selector("#inspect-map .field img")


def test_a_spot_of_speech_is_tokens_in_a_row(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    path = tmp_path / "voice.wav"
    path.write_bytes(wav(tones(32_000)))
    page.set_input_files("#recording input[type=file]", path)
    page.wait_for_selector("#about .about.known")
    look_inside(page)
    assert "Tokens in a row" in page.inner_text(".inspect-side")
    field = page.locator("#inspect-map .field")
    box = field.bounding_box()
    assert box
    field.click(position={"x": box["width"] / 2, "y": box["height"] / 4})
    ((left, right, *_),) = marked(page)
    assert right - left == pytest.approx(36, abs=0.3)
    size_of_the_spot(page, 20)
    page.wait_for_function(
        "w => document.querySelector('#inspect-map .spot').offsetWidth < w",
        arg=box["width"] * 21 / 167,
    )
    ((left, right, *_),) = marked(page)
    assert right - left == pytest.approx(20, abs=0.3)
    page.fill("#inspect-share input[type=number]", "100")
    page.keyboard.press("Tab")
    page.click("#inspect-decode")
    page.wait_for_selector("#inspect-listener .lane")
    assert page.inner_text("#inspect-result").startswith("20 tokens replaced")
    field.click(position={"x": box["width"] - 3, "y": box["height"] / 4})
    first, second = marked(page)  # it goes on in the next row
    assert first[1] - first[0] + second[1] - second[0] == pytest.approx(20, abs=0.5)
    assert second[0] == pytest.approx(0, abs=0.1)


def test_a_spot_of_a_picture_is_drawn_over_its_tokens(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    path = tmp_path / "photo.png"
    path.write_bytes(picture(gradient(120, 160)))
    use_picture(page, path)
    look_inside(page)
    assert "Tokens across" in page.inner_text(".inspect-side")
    field = page.locator("#inspect-map .field").first
    field.click(position={"x": 201, "y": 103})
    edges = marked(page)[0]
    assert edges == pytest.approx([round(edge) for edge in edges], abs=0.05)
    assert (edges[1] - edges[0], edges[3] - edges[2]) == pytest.approx((6, 6), abs=0.1)
    assert page.locator("#inspect-map .plain .spot").count() == 1


# What the page sends comes late, as over a slow line.
SLOW = """(() => {
  const fetched = window.fetch;
  window.fetch = async (url, ...more) => {
    if (String(url).includes("queue/join")) await new Promise((done) => setTimeout(done, 700));
    return fetched(url, ...more);
  };
})()"""


def test_what_is_decoded_is_the_spot_that_is_shown(open_page: Open, tmp_path: Path) -> None:
    """However soon one asks for it after a click and a few keys."""
    page = open_page()
    page.evaluate(SLOW)
    path = tmp_path / "photo.png"
    path.write_bytes(picture(gradient(120, 160)))
    use_picture(page, path)
    look_inside(page)
    page.click("#inspect-edit label:has-text('One token')")
    page.fill("#inspect-share input[type=number]", "100")
    field = page.locator("#inspect-map .field").first
    field.click(position={"x": 201, "y": 103})
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    page.click("#inspect-decode")
    left, right, top, bottom = (round(edge) for edge in marked(page)[0])
    page.wait_for_selector("#inspect-viewer .stage")
    assert page.inner_text("#inspect-result").startswith("36 tokens replaced")
    with page.expect_download() as download:
        page.click("#inspect-result a.download")
    data = download.value.path().read_bytes()
    token = int(page.get_by_label("Which token").input_value())
    model = page.locator("#tab-inspect").get_by_label("Model", exact=True).input_value()
    card = next(card for card in cards.list_cards() if card.name == model)
    tokens = read_indices(data, load(card))[1].reshape(15, 20)
    assert set(tokens[top:bottom, left:right].ravel()) == {token}
    assert (bottom - top, right - left) == (6, 6)


def test_a_spot_must_be_chosen_to_be_changed(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    path = tmp_path / "photo.png"
    path.write_bytes(picture(gradient(120, 160)))
    use_picture(page, path)
    look_inside(page)
    page.click("#inspect-edit label:has-text('The spot')")
    page.click("#inspect-decode")
    page.wait_for_selector("text=There is no spot yet")
    page.click("#medium label:nth-of-type(1)")  # the picture is no file of speech
    page.click("#inspect-decode")
    page.wait_for_selector("text=There is no file yet")


def test_a_codebook_size_stays_with_another_model(open_page: Open) -> None:
    page = open_page()
    go(page, "inspect")
    tab = page.locator("#tab-inspect")

    def choose(label: str, option: str) -> None:
        tab.get_by_label(label, exact=True).click()
        page.get_by_role("option", name=option, exact=True).click()

    for model in ("speech-vp", "speech-fsp"):
        choose("Model", model)
        size = tab.get_by_label("Codebook size", exact=True)
        if model == "speech-vp":
            choose("Codebook size", "16,384")
        page.wait_for_function(
            "m => document.querySelector('#tab-inspect input').value === m", arg=model
        )
        size.wait_for()
        assert size.input_value() == "16,384"


def test_labels_of_the_plot_do_not_overlap(open_page: Open) -> None:
    page = open_page()
    go(page, "sweep")
    page.click("#examples button")
    page.wait_for_selector("#examples .current")
    page.click("#sweep-start")
    page.wait_for_selector("#sweep-chart .point")
    labels = page.locator("#sweep-chart .point text").evaluate_all(
        "all => all.map(t => t.getBoundingClientRect())"
        ".map(b => [b.left, b.right, b.top, b.bottom])"
    )
    assert len(labels) > 5
    for number, (left, right, top, bottom) in enumerate(labels):
        assert not [
            other
            for other in labels[:number]
            if left < other[1] and other[0] < right and top < other[3] and other[2] < bottom
        ]


PRESS = """(focused, [key, held]) => {
  const event = { key, [held]: true, bubbles: true, cancelable: true };
  return !focused.dispatchEvent(new KeyboardEvent("keydown", event));
}"""


def test_the_player_leaves_the_browsers_keys_alone(open_page: Open) -> None:
    page = open_page()
    page.click("#examples button")
    page.wait_for_selector("#compare-listener .lane")
    picks = page.locator("#compare-listener .pick")
    picks.first.focus()
    for key in (["ArrowLeft", "altKey"], ["2", "ctrlKey"], ["ArrowDown", "metaKey"]):
        assert not picks.first.evaluate(PRESS, key)
        assert picks.first.get_attribute("aria-checked") == "true"
    seek = page.locator("#compare-listener .seek")
    assert seek.get_attribute("aria-valuetext") == "0:00.0"
    page.keyboard.press("ArrowRight")
    assert seek.get_attribute("aria-valuetext") == "0:01.0"
    picks.nth(2).focus()
    page.keyboard.press("Space")
    assert picks.nth(2).get_attribute("aria-checked") == "true"
    page.wait_for_selector("#compare-listener [aria-label=Pause]")
    page.keyboard.press("Space")
    page.wait_for_selector("#compare-listener [aria-label=Play]")
    assert page.locator("#compare-listener .pick[tabindex='0']").count() == 1
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert picks.nth(2).evaluate("p => p === document.activeElement")


SWITCH_AND_START = """() => {
  document.querySelector("#medium label:nth-of-type(2) input").click();
  document.querySelector("#inspect-start").click();
}"""


def test_a_job_may_start_before_the_page_has_switched_to_its_medium(
    open_page: Open, tmp_path: Path
) -> None:
    page = open_page()
    photo, voice = tmp_path / "photo.png", tmp_path / "voice.wav"
    photo.write_bytes(picture(gradient(120, 160)))
    voice.write_bytes(wav(tones(32_000)))
    use_picture(page, photo)
    page.click("#medium label:nth-of-type(1)")
    page.set_input_files("#recording input[type=file]", voice)
    page.wait_for_selector("#about .about.known")
    go(page, "inspect")
    page.evaluate(SWITCH_AND_START)
    page.wait_for_selector("#inspect-map .plain img")  # only a picture's map has it beside itself
    assert page.locator(".toast-wrap .toast-body").count() == 0


@pytest.mark.parametrize(
    ("tab", "place"),
    [("compare", "listener"), ("sweep", "chart"), ("inspect", "map"), ("blind", "lead")],
)
def test_a_refusal_is_told_and_covers_nothing(tab: str, place: str, open_page: Open) -> None:
    page = open_page()
    go(page, tab)
    invitation = page.locator(f"#{tab}-{place}").inner_text()
    page.click(f"#{tab}-start")
    told = page.locator(".toast-wrap .toast-body")
    told.wait_for()
    assert "choose an example or add a file of your own" in told.inner_text()
    assert page.locator(f"#{tab}-{place}").inner_text() == invitation
    assert page.locator("[data-testid=status-tracker]", has_text="Error").count() == 0


@pytest.mark.parametrize("tab", ["sweep", "inspect"])
def test_what_starts_a_job_stands_beside_what_it_takes(tab: str, open_page: Open) -> None:
    """Controls of the other medium, which are not seen, take no room."""
    page = open_page()
    page.set_viewport_size({"width": 1280, "height": 900})
    go(page, tab)
    form = page.locator(f"#tab-{tab} .actions .form, #{tab}-start").first.bounding_box()
    button = page.locator(f"#{tab}-start").bounding_box()
    assert form
    assert button
    assert button["x"] > form["x"] + form["width"] - 1
    assert button["y"] < form["y"] + form["height"]


# The texts that are seen, and whose colour is too near to what they stand on.
PALE = """() => {
  const parse = (colour) => {
    const [r, g, b, a] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a ?? 1];
  };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const parts = [0.2126, 0.7152, 0.0722];
  const light = (c) => parts.reduce((sum, part, i) => sum + part * linear(c[i] / 255), 0);
  const pale = {}, walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), e = walk.currentNode.parentElement;
    const own = getComputedStyle(e);
    if (!text || !e.offsetParent || own.visibility === "hidden") continue;
    if (e.closest("script, style, svg, .sr-only")) continue;
    const grounds = [];
    let opacity = 1;
    for (let n = e; n; n = n.parentElement) {
      grounds.unshift(parse(getComputedStyle(n).backgroundColor));
      opacity *= +getComputedStyle(n).opacity;
    }
    const ground = grounds.reduce((b, a) => over(a, b), [255, 255, 255, 1]), ink = parse(own.color);
    ink[3] *= opacity;
    const [low, high] = [light(over(ink, ground)), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < (parseFloat(own.fontSize) >= 24 ? 3 : 4.5)) pale[text.slice(0, 40)] = ratio;
  }
  return pale;
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_texts_have_the_contrast_of_wcag_aa(dark: bool, open_page: Open, tmp_path: Path) -> None:
    page = open_page(1280, 800, dark)
    compare(page, tmp_path, 32, 32)
    pale: dict[str, float] = {}
    for tab in ("compare", "sweep", "inspect", "decode", "blind"):
        go(page, tab)
        settled(page, tab)
        pale |= page.evaluate(PALE)
    assert not pale
