"""The page in a browser, as tests use it: what is typed, what is shown, and what it must never do."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebSocket, expect, sync_playwright

from benchmarks.client import Connection, post
from tests.app.processes import Service
from tests.app.serving import PATIENCE, until

expect.set_options(timeout=PATIENCE * 1000 / 4)

TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""
NETWORK = ("Failed to load resource", "WebSocket connection to")
"""How Chromium's console begins to tell of a server that is away or refuses."""

MARKS = """() => [...document.querySelectorAll("#mirror span")].map((span) => ({
  typed: span.textContent, token: span.mark.token, surprisal: span.mark.surprisal, rank: span.mark.rank,
  colour: span.className.match(/s[0-6]/)[0]}))"""


class Chromium:
    """A running browser."""

    def __init__(self, path: str) -> None:
        self._playwright = sync_playwright().start()
        self.browser: Browser = self._playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])

    def close(self) -> None:
        """End it."""
        self.browser.close()
        self._playwright.stop()


class Watched:
    """One page, and its complaints: errors, broken policies, requests to anywhere else. `faults` may fail requests."""

    def __init__(self, context: BrowserContext, url: str, *, faults: bool) -> None:
        self.url = url
        self.complaints: list[str] = []
        self.sent: list[int] = []
        """Sizes of what was sent, in bytes."""
        self.created: list[str] = []
        """Sessions that the page has made."""
        self._faults = faults
        context.set_default_timeout(PATIENCE * 1000 / 4)
        context.add_init_script(TELL_VIOLATIONS)
        self.page: Page = context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._on_request(request.url, request.post_data_buffer))
        self.page.on("response", self._on_response)
        self.page.on("websocket", self._on_websocket)
        self.page.goto(url)
        self.text = self.page.locator("#text")
        self.chips = self.page.locator("#chips button:visible .word")
        self.notice = self.page.locator("#notice")

    def type(self, text: str, delay: float = 0) -> None:
        """Press the keys of a text, where the caret is."""
        self.text.focus()
        self.page.keyboard.type(text, delay=delay)

    def press(self, *keys: str) -> None:
        """Press keys by their names."""
        for key in keys:
            self.page.keyboard.press(key)

    def marks(self) -> list[dict[str, Any]]:
        """The coloured tokens."""
        found: list[dict[str, Any]] = self.page.evaluate(MARKS)
        return found

    def expect_suggestions(self, service: Service, text: str) -> None:
        """Wait for the chips that belong after a text."""
        expect(self.text).to_have_value(text)
        expect(self.chips).to_have_text(suggestions(service, text))

    def expect_marks(self, service: Service, text: str) -> None:
        """Wait until all of a text has its scores."""
        wanted = scores(service, text)
        until(lambda: len(self.marks()) == len(wanted))
        found = self.marks()
        assert [(mark["token"], mark["rank"], mark["typed"]) for mark in found] == [
            (token["token"], token["rank"], text[token["start"] : token["end"]]) for token in wanted
        ]
        assert [mark["surprisal"] for mark in found] == [token["surprisal"] for token in wanted]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not (self._faults and message.text.startswith(NETWORK)):
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, url: str, body: bytes | None) -> None:
        self.sent.append(len(body or b""))
        if urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.complaints.append(f"request to {url}")

    def _on_response(self, response: Any) -> None:
        if response.request.method == "POST" and urlsplit(response.url).path == "/sessions" and response.status == 201:
            self.created.append(response.url)

    def _on_websocket(self, socket: WebSocket) -> None:
        self._on_request(socket.url, None)
        socket.on("framesent", lambda frame: self.sent.append(len(frame)))
        self.session_id = urlsplit(socket.url).path.split("/")[2]


def ask(service: Service, path: str, **fields: Any) -> dict[str, Any]:
    """What a route answers."""
    with Connection(service.port) as connection:
        answer: dict[str, Any] = json.loads(connection.ask(post(path, **fields)))
    return answer


def suggestions(service: Service, text: str) -> list[str]:
    """What `/predict` suggests where a text ends: the next word, or the rest of the last."""
    cut = max(text.rfind(" "), text.rfind("\n")) + 1
    fields: dict[str, Any] = {"text": text[:cut], "prefix": text[cut:], "k": 5, "words_only": True}
    return [prediction["word"] for prediction in ask(service, "/predict", **fields)["predictions"]]


def scores(service: Service, text: str) -> list[dict[str, Any]]:
    """What `/perplexity` says of each token of a text."""
    answer = ask(service, "/perplexity", text=text, return_tokens=True, include_eos=False)
    found: list[dict[str, Any]] = answer["results"][0]["tokens"]
    return found
