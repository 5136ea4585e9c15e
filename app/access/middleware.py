"""At the service's door: who asks, and may they.

Boundary: plain ASGI, before any of a body is read. A refusal is answered here, and costs the same whatever was sent: a
few comparisons and at most one hash of 47 bytes. Who was let in is the caller of all that follows.

A page of another site can open WebSockets to wherever its reader's browser reaches, without asking as it must for
requests with JSON. So one that names an origin other than the service's own address, or those that CORS allows, is
refused. What is no browser names none.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.caller import ANYBODY, CALLER, Caller
from app.access.keyring import Keyring
from app.access.routes import group_of
from app.errors import ForbiddenError, QuotaError, UnauthorizedError
from app.problems import problem_of

SUBPROTOCOL = "pru"
"""What a WebSocket speaks. A browser that sends a key names this beside it, and is told this, and not the key."""
KEY_SUBPROTOCOL = "pru.key."
"""Begins the subprotocol that carries a key: all that a browser's WebSocket lets a page say besides its address."""

NO_KEY = "this needs a key; send it as Authorization: Bearer KEY"
MANY_KEYS = "this brings more than one key; send one, and once"


class AccessMiddleware:
    """Lets in callers with a key that holds, anybody to open routes, and everybody where no keys are needed."""

    def __init__(
        self, app: ASGIApp, *, keyring: Keyring, open_routes: Collection[str], origins: Collection[str]
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._open = open_routes
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            if scope["type"] == "websocket":
                self._check_origin(scope)
            caller = self._caller_of(scope)
        except (UnauthorizedError, ForbiddenError, QuotaError) as error:
            if isinstance(error, UnauthorizedError):
                self._keyring.note_refused()
            request_id = scope.get("state", {}).get("request_id") or uuid.uuid4().hex
            await problem_of(error, request_id)(scope, receive, send)
            return
        if caller.name:
            scope.setdefault("state", {})["key"] = caller.name
        # Set for anybody too: a pipelined request begins in the context of the one before it.
        token = CALLER.set(caller)
        try:
            await self._app(scope, receive, send)
        finally:
            CALLER.reset(token)

    def _caller_of(self, scope: Scope) -> Caller:
        if not self._keyring.is_needed:
            return ANYBODY
        group = group_of(scope["path"])
        if group in self._open:
            return ANYBODY
        found = _keys(scope)
        if len(found) != 1:
            raise UnauthorizedError(MANY_KEYS if found else NO_KEY)
        caller = self._keyring.recognise(found[0], group)
        caller.begin()
        return caller

    def _check_origin(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        origins = headers.getlist("origin")
        if not origins or (len(origins) == 1 and origins[0] in self._origins):
            return
        hosts = headers.getlist("host")
        if len(origins) > 1 or len(hosts) != 1 or _host_of(origins[0]) != hosts[0].lower():
            raise ForbiddenError(
                "pages of this origin may not open WebSockets here; the operator can allow it with PRU_CORS_ORIGINS"
            )


def _host_of(origin: str) -> str | None:
    """The host and port that an origin names; None where it names none, as `null` does."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _keys(scope: Scope) -> list[bytes]:
    """Every key that a request brings; empty bytes for what brings none that is understood."""
    found = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            found.append(key.strip(b" ") if scheme.lower() == b"bearer" else b"")
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(KEY_SUBPROTOCOL):
            found.append(protocol.removeprefix(KEY_SUBPROTOCOL).encode("ascii", "replace"))
    return found
