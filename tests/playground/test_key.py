"""The page of a server that needs keys: asks for one, keeps it in its tab, sends it in header fields alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.app.access.keys import Key, key_file, make_key, write_keys
from tests.app.processes import Service, served
from tests.app.serving import until
from tests.playground.browsing import Watched
from tests.playground.conftest import OpenPage

ALICE, NEXT = make_key("alice"), make_key("alice")
KEPT = "() => JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keys(tmp_path_factory.mktemp("keys") / "keys.toml", key_file(ALICE))


@pytest.fixture(scope="module")
def locked(path: Path) -> Iterator[Service]:
    """A process that serves the bundled model to who has a key."""
    with served("-m", "app", session_store=f"sqlite:///{path.parent / 'sessions.db'}", keys_file=str(path)) as ready:
        ready.wait_until_ready()
        yield ready


def enter(watched: Watched, key: str) -> None:
    """Type a key into the dialog and send it."""
    field = watched.page.get_by_label("Key", exact=True).and_(watched.page.locator("input"))
    expect(field).to_be_focused()
    watched.page.keyboard.type(key)
    watched.page.keyboard.press("Enter")


def suggestions(service: Service, key: Key, text: str) -> list[str]:
    """What `/predict` suggests after whole words."""
    fields = {"text": text, "k": 5, "words_only": True}
    answer = httpx2.post(f"{service.url}/predict", json=fields, headers=key.headers)
    return [prediction["word"] for prediction in answer.json()["predictions"]]


def test_a_key_is_asked_for_until_it_holds_and_everything_works_with_it(open_page: OpenPage, locked: Service) -> None:
    watched = open_page(locked.url, faults=True)
    dialog = watched.page.get_by_role("dialog", name="Key")
    expect(dialog).to_contain_text("This server answers only those who have a key.")
    assert Axe().run(watched.page).violations_count == 0
    enter(watched, f"{NEXT.text} é")
    expect(dialog).to_contain_text("This is no key: one begins with pru_ and has 47 characters.")
    watched.page.locator("#key-input").fill("")
    enter(watched, NEXT.text)
    expect(dialog).to_contain_text("The server did not take this key.")
    enter(watched, f" {ALICE.text} ")
    expect(dialog).to_be_hidden()
    expect(watched.page.locator("#model dd").first).to_have_text("wikitext-2")
    watched.type("The film was ")
    expect(watched.chips).to_have_text(suggestions(locked, ALICE, "The film was"))
    watched.page.locator("#max_tokens").fill("3")
    watched.page.locator("#continue-button").click()
    expect(watched.text).not_to_have_value("The film was ")
    watched.page.locator("#compare-button").click()
    expect(watched.page.locator("#bars-rows tr")).to_have_count(2)
    assert json.loads(watched.page.evaluate(KEPT)) == [{"pru-key": ALICE.text}, {}, "", f"{locked.url}/"]
    watched.page.reload()
    expect(watched.page.locator("#model dd").first).to_have_text("wikitext-2")
    expect(dialog).to_be_hidden()
    until(lambda: any(line.get("route") == "/sessions/{session_id}" for line in locked.events("request")))
    assert ALICE.text not in json.dumps(locked.lines) + "".join(locked.said)


def test_a_key_that_is_withdrawn_is_asked_for_again_and_the_text_is_kept(
    open_page: OpenPage, locked: Service, path: Path
) -> None:
    watched = open_page(locked.url, faults=True)
    enter(watched, ALICE.text)
    watched.type("The film ")
    expect(watched.chips).to_have_text(suggestions(locked, ALICE, "The film"))
    write_keys(path, key_file(NEXT))
    until(lambda: bool(locked.events("new keys")))
    watched.text.focus()
    watched.page.keyboard.insert_text("was ")  # At once: what is typed later is typed into the dialog.
    enter(watched, NEXT.text)
    expect(watched.text).to_have_value("The film was ")
    expect(watched.chips).to_have_text(suggestions(locked, NEXT, "The film was"))
    write_keys(path, key_file(ALICE))
    until(lambda: len(locked.events("new keys")) == 2)


def test_the_dialog_can_be_left_and_comes_again_with_the_next_request(open_page: OpenPage, locked: Service) -> None:
    watched = open_page(locked.url, faults=True)
    dialog = watched.page.get_by_role("dialog", name="Key")
    expect(dialog).to_be_visible()
    watched.press("Escape")
    expect(dialog).to_be_hidden()
    watched.type("The ")
    expect(dialog).to_be_visible()
