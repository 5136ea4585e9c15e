"""`python -m benchmarks.playground [--pictures DIR]`: from a key to its suggestions, in a browser on this machine.

Boundary: types into the playground page of a server of its own and reads the page's own measures, which begin with the
browser's time of the keystroke and end when its suggestions are in the page. Needs Chromium. `--pictures` also writes
what the page looks like in light, in dark and on a phone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from app.settings import usable_cores
from benchmarks.harness import Row, at_most, show
from benchmarks.server import serving

BUNDLED = Path(__file__).parents[1] / "bundles" / "wikitext-2"
TEXT = (
    "The film was released in the United States in the summer of that year, and it was one of the first to be shown "
    "in a theatre built for the purpose. It received generally positive reviews from the critics of the day. "
)
KEY_MILLISECONDS = 100
"""Between two keys: a fast typist's."""
BAR_MILLISECONDS = 50.0
WARMUP_KEYS = 20

PICTURED = "The film was released in the United States by a gigantic zeppelin, and it did not do well at the box off"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times the text is typed")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the page")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("needs chromium (Debian and Ubuntu: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with serving(BUNDLED, usable_cores(), Path(name) / "server") as server:
            url = f"http://127.0.0.1:{server.port}"
            if arguments.pictures:
                take_pictures(browser, url, arguments.pictures)
            row = measured(browser, url, arguments.rounds)
        browser.close()
    show("the bundled model's playground", [row], Console())


def measured(browser: Browser, url: str, rounds: int) -> Row:
    """Milliseconds from keys to their suggestions. Keys that were overtaken by the next one have none of their own."""
    page = opened(browser, url)
    page.keyboard.type(TEXT[:WARMUP_KEYS], delay=KEY_MILLISECONDS)
    page.evaluate("performance.clearMeasures()")
    for _ in range(rounds):
        page.keyboard.type(TEXT, delay=KEY_MILLISECONDS)
    page.wait_for_timeout(1000)
    found = "JSON.stringify(performance.getEntriesByName('suggestions').map((measure) => measure.duration))"
    times = sorted(json.loads(page.evaluate(found)))
    middle, late = (times[int(part * (len(times) - 1))] for part in (0.5, 0.95))
    keys = f"{len(times)} of {rounds * len(TEXT)} keys"
    figures = f"p50 {middle:.1f} ms, p95 {late:.1f} ms, worst {times[-1]:.1f} ms, for {keys}"
    return at_most("from a key to its suggestions, p95", figures, late, BAR_MILLISECONDS, " ms")


def take_pictures(browser: Browser, url: str, folder: Path) -> None:
    """Write `playground-LOOK.png` for every look."""
    folder.mkdir(parents=True, exist_ok=True)
    for look, context in LOOKS.items():
        page = opened(browser, url, **context)
        page.keyboard.type(PICTURED, delay=10)
        page.locator("#compare-button").click()
        page.locator("#bars-rows tr").first.wait_for()
        page.locator("#text").focus()
        page.wait_for_timeout(1000)
        page.screenshot(path=folder / f"playground-{look}.png", full_page=True)
        page.context.close()


def opened(browser: Browser, url: str, **context: Any) -> Page:
    """The page, ready to be typed into."""
    page = browser.new_context(**context).new_page()
    page.goto(url)
    page.locator("#model dd").first.wait_for()
    page.locator("#text").focus()
    # Digits would take words.
    page.locator("#digits").evaluate("(box) => { box.checked = false; }")
    return page


if __name__ == "__main__":
    main()
