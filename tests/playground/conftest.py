"""One browser and one server for the page's tests, and a watch over what no test may see a page do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.app.processes import Service, served
from tests.commands import required
from tests.playground.browsing import Chromium, Watched

HERE = Path(__file__).parent
CHROMIUM = pytest.StashKey[Chromium]()

OpenPage = Callable[..., Watched]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Close the browser after the last of these tests: its event loop must not run beside those of other tests."""
    yield
    chromium = item.config.stash.get(CHROMIUM, None)
    if chromium and (nextitem is None or HERE not in nextitem.path.parents):
        chromium.close()
        del item.config.stash[CHROMIUM]


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Browser:
    """The one browser."""
    if CHROMIUM not in request.config.stash:
        request.config.stash[CHROMIUM] = Chromium(required(shutil.which("chromium"), "chromium"))
    return request.config.stash[CHROMIUM].browser


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A process that serves the bundled model."""
    store = tmp_path_factory.mktemp("playground") / "sessions.db"
    with served("-m", "app", session_store=f"sqlite:///{store}") as ready:
        ready.wait_until_ready()
        yield ready


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens the page of a server, with whatever a browser's context may be told."""
    opened: list[Watched] = []

    def open_at(url: str, *, faults: bool = False, **context: Any) -> Watched:
        opened.append(Watched(browser.new_context(**context), url, faults=faults))
        return opened[-1]

    yield open_at
    for watched in opened:
        watched.page.context.close()
    for watched in opened:
        assert watched.complaints == []


@pytest.fixture
def watched(service: Service, open_page: OpenPage) -> Watched:
    """The page of the one server."""
    return open_page(service.url)
