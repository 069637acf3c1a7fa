"""python -m app.screenshots URL: the README's pictures of a running app.

They are taken in chromium, every tab in four ways.

Needs playwright's package and a chromium (Debian's will do); both are for developers.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from codec.cli.frame import Parser, filled_path, run
from codec.errors import CodecError, reason_of
from codec.streams import process

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Width, height of the window, most of the page.
SIZES = {"desktop": (1280, 900, 1900), "phone": (390, 844, 2300)}
QUALITY = 82
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 where there is no browser, or no app."""
    parser = Parser(
        prog="python -m app.screenshots", description=__doc__, epilog="See docs/contributing.md"
    )
    parser.add_argument("url")
    parser.add_argument("--out", type=filled_path, default=Path("assets/pictures"))
    return run(parser, arguments, _command)


def _command(options: argparse.Namespace) -> None:
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        raise CodecError("playwright is not installed; pip install playwright") from None
    path = next(
        (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
    )
    if path is None:
        raise CodecError("no chromium here; apt-get install chromium")
    options.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for size, theme in product(SIZES, THEMES):
            width, height, _ = SIZES[size]
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme
            )
            page = context.new_page()
            page.set_default_timeout(120_000)
            try:
                page.goto(options.url)
            except Error as error:
                raise CodecError(
                    f"{options.url}: no app answers there ({reason_of(error)})"
                ) from None
            page.wait_for_selector("#examples button")
            for name, arrange in VIEWS.items():
                arrange(page)
                _save(page, options.out / f"app-{name}-{size}-{theme}.webp", SIZES[size][2])
            context.close()
        browser.close()


def _open(page: Page, tab: str) -> None:
    page.evaluate(f"document.querySelector('#tab-{tab}-button').click()")


def _start(page: Page) -> None:
    """Leaves the page as it is found."""


def _speech(page: Page) -> None:
    page.click("#examples button")
    page.wait_for_selector("#compare-listener .lane")
    page.locator("#compare-listener .pick").nth(2).click()  # heard, and paused where it is
    page.wait_for_timeout(1500)
    page.click("#compare-listener .play")


def _picture(page: Page) -> None:
    page.click("#medium label:nth-of-type(2)")
    page.wait_for_selector("#examples img")
    page.click("#examples button:nth-of-type(2)")
    page.wait_for_selector("#compare-viewer .stage")


def _sweep(page: Page) -> None:
    _open(page, "sweep")
    page.click("#sweep-start")
    page.wait_for_selector("#sweep-chart .point")
    page.locator("#sweep-chart .point").nth(1).click()
    page.wait_for_selector("#sweep-viewer .stage")
    page.mouse.move(0, 0)


def _inspect(page: Page) -> None:
    _open(page, "inspect")
    page.click("#inspect-start")
    page.wait_for_selector("#inspect-map .field")
    field = page.locator("#inspect-map .field").first
    box = field.bounding_box()
    assert box
    field.click(position={"x": box["width"] * 0.45, "y": box["height"] * 0.42})
    page.fill("#inspect-share input[type=number]", "100")
    page.wait_for_timeout(800)
    page.click("#inspect-decode")
    page.wait_for_selector("#inspect-viewer .stage")


def _decode(page: Page) -> None:
    _open(page, "compare")
    with page.expect_download() as download:
        page.click("#compare-facts a.download")
    _open(page, "decode")
    data = download.value.path().read_bytes()
    given: Any = {
        "name": download.value.suggested_filename,
        "mimeType": "application/octet-stream",
        "buffer": data,
    }
    page.set_input_files("#decode-file input[type=file]", given)
    page.wait_for_selector("#decode-viewer .stage")


def _blind(page: Page) -> None:
    _open(page, "blind")
    page.click("#blind-start")
    page.wait_for_selector("#blind-viewer .stage")
    sliders = page.locator("#blind-viewer [data-rate]")
    for number in range(sliders.count()):
        sliders.nth(number).fill(str(35 + 15 * (number % 4)))
    page.click("#blind-viewer .submit")
    page.wait_for_selector("#blind-result table")


VIEWS: dict[str, Callable[[Page], None]] = {
    "start": _start,
    "compare-speech": _speech,
    "compare-picture": _picture,
    "sweep": _sweep,
    "inspect": _inspect,
    "decode": _decode,
    "blind": _blind,
}


def _save(page: Page, path: Path, tallest: int) -> None:
    """Saves the whole page, down to `tallest` pixels."""
    page.wait_for_timeout(900)  # pictures arrive, transitions end
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as image:
        image.convert("RGB").crop((0, 0, image.width, min(image.height, tallest))).save(
            path, "WEBP", quality=QUALITY
        )
    print(path, path.stat().st_size)


if __name__ == "__main__":
    sys.exit(process(main))
