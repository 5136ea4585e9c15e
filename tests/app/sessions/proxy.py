"""A stretch of network between a store and its Redis, on which things go wrong as a test asks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Proxy:
    """Passes on what a store and Redis say to each other, unless told otherwise."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.port = 0
        self.parcels = 0
        """Parts in which commands came."""
        self.cut = False
        """Whether the next reply is lost, and its connection with it."""
        self.reply: bytes | None = None
        """What is replied in Redis's place, which then hears nothing."""
        self.open = asyncio.Event()
        """Commands wait while this is not set."""
        self.open.set()

    async def serve(self, store: asyncio.StreamReader, to_store: asyncio.StreamWriter) -> None:
        """One connection."""
        redis, to_redis = await asyncio.open_unix_connection(self._socket)
        pumps = [
            asyncio.create_task(self._commands(store, to_redis, to_store)),
            asyncio.create_task(self._replies(redis, to_store)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in (to_redis, to_store):
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _commands(
        self, store: asyncio.StreamReader, to_redis: asyncio.StreamWriter, to_store: asyncio.StreamWriter
    ) -> None:
        while data := await store.read(2**20):
            self.parcels += 1
            await self.open.wait()
            if self.reply is None:
                to_redis.write(data)
            else:
                to_store.write(self.reply)

    async def _replies(self, redis: asyncio.StreamReader, to_store: asyncio.StreamWriter) -> None:
        while data := await redis.read(2**20):
            if self.cut:
                self.cut = False
                return
            to_store.write(data)


@asynccontextmanager
async def proxy_to(socket: Path, certificate: Path | None = None) -> AsyncIterator[Proxy]:
    """A proxy on a free port, with TLS where there is a certificate (and its key in the same file)."""
    proxy = Proxy(socket)
    connections: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.create_task(proxy.serve(reader, writer)))

    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()
    await server.wait_closed()
    await asyncio.gather(*connections)
