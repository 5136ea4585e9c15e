"""The site: built without a warning, complete, drawn by the project's own script, with nothing from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from playwright.sync_api import sync_playwright

from docs.figures.draw import FOLDER, pictures
from tests.commands import required
from tests.source import ROOT

DOCS = ROOT / "docs"
LOADS = {"audio", "embed", "iframe", "img", "input", "object", "script", "source", "track", "video"}
"""Elements for which a browser fetches what `src`, `srcset` or `data` names."""
LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "prefetch", "manifest"}
"""Kinds of `link` for which a browser asks another address."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, in a folder of the tests."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Resources(HTMLParser):
    """Addresses that a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADS:
            self.found += [given[name] or "" for name in ("src", "srcset", "data") if name in given]
        elif tag == "link" and LINKS & set((given.get("rel") or "").split()):
            self.found.append(given.get("href") or "")
        self.found += re.findall(r"url\(([^)]*)\)", given.get("style") or "")


def is_elsewhere(address: str) -> bool:
    return re.match(r"\s*['\"]?(?:[a-z]+:)?//", address) is not None


def test_pages_and_styles_name_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.found
        assert [address for address in resources.found if is_elsewhere(address)] == [], page
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        named = re.findall(r"(?:url\(|@import\s+)([^)\s;]+)", text)
        assert [address for address in named if is_elsewhere(address)] == [], style


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """Address of the site on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_a_browser_asks_no_other_address_and_finds_every_page_fit_for_a_phone(site: Path, served: str) -> None:
    path = required(shutil.which("chromium"), "chromium")
    asked: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda response: complaints.extend([response.url] if response.status >= 400 else []))
        for built in sorted(site.rglob("index.html")):
            page.goto(f"{served}/{built.parent.relative_to(site).as_posix()}/")
            wide: int = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, f"{built} is {wide} pixels wide"
        browser.close()
    assert {url for url in asked if not url.startswith((served, "data:", "blob:"))} == set()
    assert complaints == []


def test_formulas_are_mathml_and_none_is_left_in_dollars(site: Path) -> None:
    page = (site / "unit" / "index.html").read_text(encoding="utf-8")
    assert page.count("<math ") > 20
    assert page.count('display="block"') == 6
    text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert "$" not in text


def test_the_pictures_are_what_the_script_draws() -> None:
    drawn = pictures()
    assert {path.name for path in FOLDER.glob("*.svg")} == drawn.keys()
    assert [name for name, content in drawn.items() if (FOLDER / name).read_bytes() != content] == []


def test_every_picture_is_shown_in_both_schemes() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    for name in (path.name for path in FOLDER.glob("*.svg")):
        scheme = name.removesuffix(".svg").rpartition("-")[2]
        assert shown.count(f"(figures/{name}#only-{scheme})") == 1


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([a-z-]+\.md)$", text, re.MULTILINE))
    assert {path.name for path in DOCS.glob("*.md")} == named - {"results.md", "changelog.md"}
    assert yaml.safe_load(text)["theme"]["font"] is False
