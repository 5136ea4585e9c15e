"""The page of a server with keys and several models: one key for all, and nothing of one holder for the next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.app.access.keys import key_file, make_key, write_keys
from tests.app.models.bundles import write_models
from tests.app.processes import ROOT, Service, served
from tests.app.serving import until
from tests.playground.conftest import OpenPage
from tests.playground.test_key import KEPT, enter

ALICE, BOB, UNKNOWN = make_key("alice"), make_key("bob"), make_key("alice")
EXPIRED = make_key("carol", datetime.now(UTC) - timedelta(seconds=1))
START = "The film was released in the United "
REFUSED = "The server did not take this key. It may be mistyped, expired or withdrawn."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys-and-models")


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[Service]:
    """A process that serves the bundled model by two names to who has a key."""
    shutil.copytree(ROOT / "bundles" / "wikitext-2", folder / "bundle")
    write_models(folder / "models.toml", "first", first="bundle", second="bundle")
    keys = write_keys(folder / "keys.toml", key_file(ALICE, BOB, EXPIRED))
    store = f"sqlite:///{folder}/sessions.db"
    models = str(folder / "models.toml")
    with served("-m", "app", models=models, keys_file=str(keys), session_store=store, threads="1") as ready:
        until(lambda: bool(ready.events("a model answers")))
        yield ready


def test_nothing_of_the_models_is_told_before_a_key_holds_and_then_one_is_chosen_with_it(
    open_page: OpenPage, locked: Service
) -> None:
    watched = open_page(locked.url, faults=True)
    dialog = watched.page.get_by_role("dialog", name="Key")
    choice, card = watched.page.locator("#model-choice"), watched.page.locator("#model dd")
    for key in (UNKNOWN, EXPIRED):
        enter(watched, key.text)
        expect(dialog).to_contain_text(REFUSED)
        expect(choice.locator("option")).to_have_count(0)
        expect(card).to_have_count(0)
    enter(watched, ALICE.text)
    expect(choice.locator("option")).to_have_text(["first", "second"])
    watched.type(START)
    expect(watched.chips.first).to_have_text("States")
    with watched.page.expect_request("**/sessions") as asked:
        choice.select_option("second")
    expect(card.first).to_have_text("second")
    expect(dialog).to_be_hidden()
    expect(watched.text).to_have_value(START)
    expect(watched.chips.first).to_have_text("States")
    assert json.loads(asked.value.post_data or "")["model"] == "second"
    assert asked.value.headers["authorization"] == f"Bearer {ALICE.text}"
    kept = [{"pru-key": ALICE.text}, {}, "", f"{locked.url}/?model=second"]
    assert json.loads(watched.page.evaluate(KEPT)) == kept


def test_an_address_that_names_a_model_asks_for_a_key_as_the_page_does(open_page: OpenPage, locked: Service) -> None:
    watched = open_page(f"{locked.url}/?model=second", faults=True)
    enter(watched, BOB.text)
    expect(watched.page.locator("#model dd").first).to_have_text("second")
    watched.type(START)
    expect(watched.chips.first).to_have_text("States")


def test_a_model_that_there_is_not_is_told_to_who_has_a_key(open_page: OpenPage, locked: Service) -> None:
    watched = open_page(f"{locked.url}/?model=third", faults=True)
    told = watched.page.locator("#model-told")
    expect(told).not_to_contain_text("first")
    enter(watched, BOB.text)
    expect(told).to_contain_text("there is no such model; there is first, second")


def test_who_comes_next_with_a_key_of_his_own_goes_on_in_a_session_of_his_own(
    open_page: OpenPage, locked: Service, folder: Path
) -> None:
    watched = open_page(f"{locked.url}/?model=second", faults=True)
    enter(watched, ALICE.text)
    watched.type("The film was released ")
    expect(watched.chips.first).to_be_visible()
    until(lambda: len(watched.created) == 1)
    hers = watched.session_id
    write_keys(folder / "keys.toml", key_file(BOB, EXPIRED))
    until(lambda: bool(locked.events("new keys")))
    watched.text.focus()
    watched.page.keyboard.insert_text("in the United ")
    enter(watched, BOB.text)
    expect(watched.text).to_have_value(START)
    expect(watched.chips.first).to_have_text("States")
    assert watched.session_id != hers
    watched.page.reload()
    expect(watched.page.get_by_role("dialog", name="Key")).to_be_hidden()
    expect(watched.page.locator("#model dd").first).to_have_text("second")
    assert json.loads(watched.page.evaluate(KEPT))[0] == {"pru-key": BOB.text}
    told = json.dumps(locked.lines) + "".join(locked.said)
    assert not [word for word in (hers, ALICE.text, BOB.text, START.split()[1]) if word in told]
