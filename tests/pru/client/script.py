"""A transport that answers from a script, and notes what it was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2

from app.problems import problem
from pru.client import AsyncPRUClient, PRUClient

IDENTITY = {"name": "tiny", "sha256": "0" * 64, "engine": "numpy", "precision": "float32"}
PREDICTED = {"model": IDENTITY, "predictions": [], "token_count": 2}
STANDING = {
    "model": IDENTITY,
    "session_id": "abc",
    "position": 0,
    "earliest_position": 0,
    "expires_at": "2030-01-01T00:00:00Z",
}

Line = httpx2.Response | Exception


class Script:
    """Gives its lines in order, one for each request."""

    def __init__(self, *lines: Line) -> None:
        self.lines = list(lines)
        self.requests: list[httpx2.Request] = []
        self.transport = httpx2.MockTransport(self._answer)

    def client(self, **settings: Any) -> PRUClient:
        return PRUClient("http://pru.test", transport=self.transport, **settings)

    def async_client(self, **settings: Any) -> AsyncPRUClient:
        return AsyncPRUClient("http://pru.test", transport=self.transport, **settings)

    @property
    def keys(self) -> list[str | None]:
        """The key of each request."""
        return [request.headers.get("Idempotency-Key") for request in self.requests]

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        line = self.lines.pop(0)
        if isinstance(line, Exception):
            raise line
        # A copy: the client that reads a response makes it its own.
        return httpx2.Response(line.status_code, content=line.content, headers=line.headers)


def told(fields: Mapping[str, Any], status: int = 200) -> httpx2.Response:
    """An answer."""
    return httpx2.Response(status, json=fields)


def refused(status: int, detail: str = "not now", **headers: str) -> httpx2.Response:
    """A refusal as the service writes it; a header given empty is left out."""
    written = problem(status, detail, "id-1")
    kept = {**written.headers, **{name.replace("_", "-").lower(): value for name, value in headers.items()}}
    return httpx2.Response(
        status, content=bytes(written.body), headers={name: value for name, value in kept.items() if value}
    )


def events(*pairs: tuple[str, Mapping[str, Any]]) -> httpx2.Response:
    """A stream of server-sent events."""
    text = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in pairs)
    return httpx2.Response(200, content=text.encode(), headers={"Content-Type": "text/event-stream"})


def token(text: str) -> tuple[str, Mapping[str, Any]]:
    """An event `token`."""
    return "token", {"token": text.strip(), "text": text, "log_probability": -1.0}


def done(position: int) -> tuple[str, Mapping[str, Any]]:
    """The event `done`."""
    return "done", {**STANDING, "position": position, "finish_reason": "length", "seed": 7, "committed": True}
