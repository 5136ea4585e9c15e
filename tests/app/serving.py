"""Services in this process around a small model, and clients that ask them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.logs import make_logger
from app.main import create_app
from app.served_model import ServedModel
from app.sessions.store import SessionStore
from app.settings import LogLevel, Settings
from app.tracing.spans import Tracing
from tests.app.fakes import LogLines, fake_model
from tests.app.memory_store import MemoryStore

PATIENCE = 60.0
"""Seconds after which something that should happen at once is held not to happen."""


def make_app(
    model: ServedModel | None = None,
    logs: LogLines | None = None,
    store: SessionStore | None = None,
    tracing: Tracing | None = None,
    **settings: Any,
) -> FastAPI:
    """An application around `model` that logs everything into `logs` and keeps sessions in memory or in `store`."""
    logger = make_logger(LogLevel.DEBUG, logs or LogLines())
    return create_app(Settings(**settings), model or fake_model(), logger, store or MemoryStore(), tracing=tracing)


@contextmanager
def serving(
    model: ServedModel | None = None,
    logs: LogLines | None = None,
    store: SessionStore | None = None,
    tracing: Tracing | None = None,
    **settings: Any,
) -> Iterator[TestClient]:
    """A ready service and a client that blocks."""
    with TestClient(make_app(model, logs, store, tracing, **settings)) as client:
        until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@asynccontextmanager
async def starting(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A service that has just been started and a client for many requests at once."""
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://test") as it:
        yield it


async def ready(client: httpx2.AsyncClient) -> None:
    """Wait until the service is ready."""
    async with asyncio.timeout(PATIENCE):
        while (await client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.005)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)
