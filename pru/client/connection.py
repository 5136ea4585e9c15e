"""Sending: the same attempts twice, once for callers that block and once for asyncio.

Boundary: httpx2 and the clock. What is sent is a `Call`; what came of it, and whether it is sent again, is judged by
`pru.client.judging`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, Generic, TypeVar

import httpx2

from app.session_schemas import GeneratedToken
from model.errors import ConfigurationError, PRUError
from pru.api_key import bearer
from pru.client.calls import Call
from pru.client.judging import answer_of, check, translated, wait_after
from pru.client.writing import Writing

T = TypeVar("T")
Client = TypeVar("Client", httpx2.Client, httpx2.AsyncClient)

DEFAULT_URL = "http://127.0.0.1:8000"
"""Where the service listens unless it is told otherwise."""
CONNECT_SECONDS = 5.0


class _Common(Generic[Client]):
    """An HTTP client of one service."""

    def __init__(self, http: Client, max_retries: int) -> None:
        self._http: Client = http
        self._max_retries = max_retries
        self._place = http.base_url.netloc.decode("ascii")

    def _request(self, call: Call[Any]) -> httpx2.Request:
        return self._http.build_request(call.method, call.path, content=call.content, headers=call.headers)

    def _wait(self, error: PRUError, call: Call[Any], attempt: int) -> float:
        return wait_after(error, call, attempt, self._max_retries)


class Connection(_Common[httpx2.Client]):
    """Sends calls and blocks. Any number of threads may use it."""

    def ask(self, call: Call[T]) -> T:
        """The answer to a call."""
        attempt = 0
        while True:
            try:
                with translated(call, self._place):
                    response = self._http.send(self._request(call))
                return answer_of(call, response)
            except PRUError as error:
                seconds = self._wait(error, call, attempt)
            time.sleep(seconds)
            attempt += 1

    def write(self, writing: Writing) -> Generator[GeneratedToken]:
        """The tokens of a continuation; when they end, `writing` has its answer."""
        call = writing.call
        attempt = 0
        while True:
            try:
                with translated(call, self._place):
                    response = self._http.send(self._request(call), stream=True)
                    try:
                        if not response.is_success:
                            response.read()
                        check(call, response)
                        writing.begin()
                        for event in httpx2.EventSource(response):
                            if (token := writing.take(event)) is not None:
                                yield token
                        return writing.close()
                    finally:
                        response.close()
            except PRUError as error:
                seconds = self._wait(error, call, attempt)
            time.sleep(seconds)
            attempt += 1

    def close(self) -> None:
        """Close every connection."""
        self._http.close()


class AsyncConnection(_Common[httpx2.AsyncClient]):
    """Sends calls from the tasks of one event loop."""

    async def ask(self, call: Call[T]) -> T:
        """The answer to a call."""
        attempt = 0
        while True:
            try:
                with translated(call, self._place):
                    response = await self._http.send(self._request(call))
                return answer_of(call, response)
            except PRUError as error:
                seconds = self._wait(error, call, attempt)
            await asyncio.sleep(seconds)
            attempt += 1

    async def write(self, writing: Writing) -> AsyncGenerator[GeneratedToken]:
        """The tokens of a continuation; when they end, `writing` has its answer."""
        call = writing.call
        attempt = 0
        while True:
            try:
                with translated(call, self._place):
                    response = await self._http.send(self._request(call), stream=True)
                    try:
                        if not response.is_success:
                            await response.aread()
                        check(call, response)
                        writing.begin()
                        async for event in httpx2.EventSource(response):
                            if (token := writing.take(event)) is not None:
                                yield token
                        writing.close()
                        return
                    finally:
                        await response.aclose()
            except PRUError as error:
                seconds = self._wait(error, call, attempt)
            await asyncio.sleep(seconds)
            attempt += 1

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()


def connect(
    base_url: str | None,
    *,
    api_key: str | None,
    timeout: float,
    max_retries: int,
    headers: Mapping[str, str] | None,
    transport: httpx2.BaseTransport | None,
) -> Connection:
    """A connection that blocks. Nothing is sent yet."""
    settings = _settings(base_url, api_key, timeout, max_retries, headers)
    return Connection(httpx2.Client(**settings, transport=transport), max_retries)


def connect_async(
    base_url: str | None,
    *,
    api_key: str | None,
    timeout: float,
    max_retries: int,
    headers: Mapping[str, str] | None,
    transport: httpx2.AsyncBaseTransport | None,
) -> AsyncConnection:
    """A connection for asyncio. Nothing is sent yet."""
    settings = _settings(base_url, api_key, timeout, max_retries, headers)
    return AsyncConnection(httpx2.AsyncClient(**settings, transport=transport), max_retries)


def _settings(
    base_url: str | None, api_key: str | None, timeout: float, max_retries: int, headers: Mapping[str, str] | None
) -> dict[str, Any]:
    """What both clients of httpx2 are made with; `ConfigurationError` where it makes no sense."""
    if not timeout > 0 or max_retries < 0:
        raise ConfigurationError("a client's timeout must be above 0 seconds, and max_retries 0 or more")
    # A call waits for its turn on a connection as long as it must: that is not the service's silence.
    limits = httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS), pool=None)
    url = _address(base_url)
    return {"base_url": url, "timeout": limits, "headers": _with_key(httpx2.Headers(headers), api_key, url)}


def _with_key(headers: httpx2.Headers, api_key: str | None, url: httpx2.URL) -> httpx2.Headers:
    """The header fields of each request, the key among them unless the caller gives credentials of his own."""
    has_own = "Authorization" in headers or bool(url.userinfo)
    if api_key and has_own:
        raise ConfigurationError(
            "a request carries one credential; give the client api_key, or a password in its address or headers, and "
            "not both"
        )
    if not has_own and (field := bearer(api_key)):
        headers["Authorization"] = field
    return headers


def _address(base_url: str | None) -> httpx2.URL:
    try:
        url = httpx2.URL(base_url or os.environ.get("PRU_URL") or DEFAULT_URL)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise ConfigurationError(
            f"the service's address (base_url, or the variable PRU_URL) must be written as {DEFAULT_URL} or "
            "https://HOST/PATH"
        )
    return url
