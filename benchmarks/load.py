"""Many clients at once on one event loop, as light as Python allows, and what they waited.

Boundary: requests and seconds. What they ask, and what is compared, is the business of other files here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any


class StreamClient:
    """One connection that sends a request at a time; `RuntimeError` for an answer that is none."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._key = f"Authorization: Bearer {key}\r\n" if key else ""

    @classmethod
    async def connect(cls, port: int, key: str = "") -> StreamClient:
        """A new connection to this machine; `key` goes with every request."""
        return cls(*await asyncio.open_connection("127.0.0.1", port), key)

    async def ask(self, path: str, fields: dict[str, Any]) -> tuple[bytes, bytes]:
        """Head and body of the answer to a POST, whatever its status."""
        self._send(path, fields)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        return head, await self._reader.readexactly(int(length))

    async def post(self, path: str, fields: dict[str, Any]) -> bytes:
        """The body of the answer to a POST that succeeds."""
        head, body = await self.ask(path, fields)
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{path} was answered {head[9:12].decode()} {body[:200]!r}")
        return body

    async def first_token(self, path: str, fields: dict[str, Any]) -> None:
        """Ask for a stream and wait for its first token."""
        self._send(path, fields)
        await self._reader.readuntil(b"event: token")

    async def rest(self) -> None:
        """Read a stream to its end."""
        await self._reader.readuntil(b"0\r\n\r\n")

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()

    def _send(self, path: str, fields: dict[str, Any]) -> None:
        body = json.dumps(fields).encode()
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{self._key}{content}\r\n"
        self._writer.write(head.encode() + body)


@dataclass(frozen=True)
class Load:
    """Seconds of each request of a run, and of the whole run."""

    seconds: list[float]
    wall: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.seconds) / self.wall

    def quantile(self, share: float) -> float:
        """The seconds that a share of the requests took at most."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


async def measure(
    clients: Sequence[StreamClient], ask: Callable[[StreamClient, int], Awaitable[object]], seconds: float
) -> Load:
    """Let every client ask one request after another for some seconds; `ask` is given the client and its number."""
    times: list[float] = []
    began = time.perf_counter()

    async def work(number: int, client: StreamClient) -> None:
        while (start := time.perf_counter()) < began + seconds:
            await ask(client, number)
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(work(number, client) for number, client in enumerate(clients)))
    return Load(times, time.perf_counter() - began)
