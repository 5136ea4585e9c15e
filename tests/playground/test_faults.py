"""What the page does where the server is away, slow, full, restarted, or has forgotten the session."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Route, expect

from benchmarks.client import post
from tests.app.processes import SERVE_SLOWLY, Service, served
from tests.app.serving import until
from tests.playground.browsing import Watched, ask
from tests.playground.conftest import OpenPage
from tests.playground.relay import Relay, relay

AWAY = re.compile("What you typed is kept; trying again by itself")


@pytest.fixture
def between(service: Service) -> Iterator[Relay]:
    """A relay in front of the one server."""
    with relay(service.port) as made:
        yield made


def position(service: Service, session_id: str) -> int:
    found: int = httpx2.get(f"{service.url}/sessions/{session_id}").json()["position"]
    return found


def test_a_server_that_is_killed_and_started_again_goes_on_in_the_same_session(
    open_page: OpenPage, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'sessions.db'}"
    with served("-m", "app", session_store=store) as before, relay(before.port) as between:
        before.wait_until_ready()
        watched = open_page(between.url, faults=True)
        watched.type("The film was ")
        watched.expect_suggestions(before, "The film was ")
        before.process.kill()
        before.process.wait()
        watched.type("released in ")
        expect(watched.notice).to_contain_text(AWAY)
        expect(watched.chips).to_have_count(0)
        watched.type("the ")
        with served("-m", "app", session_store=store) as after:
            after.wait_until_ready()
            between.target = after.port
            watched.expect_suggestions(after, "The film was released in the ")
            watched.expect_marks(after, "The film was released in the ")
            expect(watched.notice).to_have_text("")
            assert len(watched.created) == 1
            assert position(after, watched.session_id) == 6


def test_a_page_that_comes_before_its_server_is_ready_waits_for_it(
    open_page: OpenPage, between: Relay, service: Service
) -> None:
    watched = open_page(between.url, faults=True)
    expect(watched.page.locator("#model")).to_contain_text("wikitext-2")
    between.away = True
    between.cut()
    watched.type("The film ")
    expect(watched.notice).to_contain_text(AWAY)
    between.away = False
    # The page may be faster, and hide the button.
    watched.page.locator("#again").dispatch_event("click")
    watched.expect_suggestions(service, "The film ")


def test_an_answer_that_got_lost_is_asked_for_again_and_nothing_is_read_twice(
    open_page: OpenPage, between: Relay, service: Service
) -> None:
    watched = open_page(between.url, faults=True)
    watched.type("The film was ")
    watched.expect_suggestions(service, "The film was ")
    between.mute = True
    watched.page.keyboard.insert_text("released ")
    until(lambda: position(service, watched.session_id) == 4)
    between.cut()
    between.mute = False
    watched.expect_suggestions(service, "The film was released ")
    watched.expect_marks(service, "The film was released ")
    assert position(service, watched.session_id) == 4
    assert len(watched.created) == 1


def test_a_rewind_whose_answer_got_lost_leaves_nothing_of_what_was_taken_back(
    open_page: OpenPage, between: Relay, service: Service
) -> None:
    watched = open_page(between.url, faults=True)
    watched.type("The film was released in the ")
    watched.expect_suggestions(service, "The film was released in the ")
    between.mute = True
    watched.press(*["Shift+ArrowLeft"] * len("was released in the "))
    watched.page.keyboard.insert_text("is a ")
    until(lambda: position(service, watched.session_id) == 4)
    between.cut()
    between.mute = False
    watched.expect_suggestions(service, "The film is a ")
    watched.expect_marks(service, "The film is a ")
    assert position(service, watched.session_id) == 4


def test_a_session_that_somebody_else_moved_is_taken_back_to_the_text(watched: Watched, service: Service) -> None:
    watched.type("The film was ")
    watched.expect_suggestions(service, "The film was ")
    ask(service, f"/sessions/{watched.session_id}/append", text="never seen")
    watched.type("released ")
    watched.expect_suggestions(service, "The film was released ")
    watched.expect_marks(service, "The film was released ")
    assert position(service, watched.session_id) == 4
    assert len(watched.created) == 1


def test_a_session_that_is_gone_is_made_again_from_the_text(watched: Watched, service: Service) -> None:
    watched.type("The film was released in ")
    watched.expect_suggestions(service, "The film was released in ")
    gone = watched.session_id
    assert httpx2.delete(f"{service.url}/sessions/{gone}").status_code == 204
    watched.type("the ")
    watched.expect_suggestions(service, "The film was released in the ")
    watched.expect_marks(service, "The film was released in the ")
    assert watched.session_id != gone
    assert position(service, watched.session_id) == 6


def test_a_slow_server_is_waited_for_and_no_answer_to_an_older_text_is_shown(
    open_page: OpenPage, between: Relay, service: Service
) -> None:
    watched = open_page(between.url)
    watched.expect_suggestions(service, "")
    between.delay = 1.8
    watched.type("The film was released in the ")
    expect(watched.notice).to_contain_text("slow to answer")
    expect(watched.chips).to_have_count(0)
    between.delay = 0
    watched.expect_suggestions(service, "The film was released in the ")
    watched.expect_marks(service, "The film was released in the ")
    expect(watched.notice).to_have_text("")


@contextmanager
def occupied(service: Service) -> Iterator[None]:
    """A server whose only place is taken, by somebody who leaves in the end."""
    known = len(service.said)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(post("/perplexity", text="the harbour is small " * 2_000))
        until(lambda: len(service.said) > known)
        yield


def test_a_server_without_room_is_asked_again_by_itself(open_page: OpenPage) -> None:
    with served("-c", SERVE_SLOWLY, "0.2", queue_limit="0") as service:
        service.wait_until_ready()
        watched = open_page(service.url, faults=True)
        expect(watched.chips).not_to_have_count(0)
        with occupied(service):
            watched.type("the harbour ")
            expect(watched.notice).to_contain_text("The server has no room just now.")
            expect(watched.notice).to_contain_text(AWAY)
            watched.type("is ")
        expect(watched.chips).not_to_have_count(0)
        expect(watched.notice).to_have_text("")
        watched.page.wait_for_timeout(1000)
        watched.expect_suggestions(service, "the harbour is ")


def test_a_comparison_waits_for_as_long_as_the_server_says(open_page: OpenPage, service: Service) -> None:
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        problem = '{"status": 429, "title": "Too Many Requests", "detail": "full"}'
        route.fulfill(status=429, headers={"Retry-After": "3"}, content_type="application/problem+json", body=problem)

    watched = open_page(service.url, faults=True)
    watched.page.route("**/perplexity", refuse_once)
    watched.page.locator("#compare-button").click()
    expect(watched.page.locator("#compare-told")).to_contain_text("no room just now")
    expect(watched.page.locator("#compare-told")).to_contain_text(re.compile(r"in [23] s"))
    expect(watched.page.locator("#bars-rows tr")).to_have_count(2)
    expect(watched.page.locator("#compare-told")).to_have_text("")


def test_a_refusal_is_told_as_the_server_told_it_and_the_text_is_kept(open_page: OpenPage) -> None:
    with served("-c", SERVE_SLOWLY, "0", max_tokens="8", max_texts="2", max_body_bytes="200") as service:
        service.wait_until_ready()
        watched = open_page(service.url, faults=True)
        expect(watched.page.locator("#model")).to_contain_text("8 tokens")
        watched.type("the harbour is small ")
        expect(watched.page.locator("#long")).to_contain_text("21 characters are too many to colour (up to 8)")
        expect(watched.text).to_have_value("the harbour is small ")
        told = watched.page.locator("#compare-told")
        for text, said in {
            "a\nb\nc": "These are 3 lines, and the server compares 2 at once",
            "a" * 200: "This is 230 bytes, and the server takes 200 at once",
            "a b c d e f g h i": "The server refused this: the request has more than 8 tokens",
        }.items():
            watched.page.locator("#sentences").fill(text)
            watched.page.locator("#compare-button").click()
            expect(told).to_contain_text(said)
            expect(watched.page.locator("#sentences")).to_have_value(text)
