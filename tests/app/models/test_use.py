"""A model is held from the moment a request has chosen it until nothing of the request runs any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.admission import Admission
from app.logs import make_logger
from app.metrics import Metrics
from app.models.keeper import Keeper
from app.models.registry import Registry
from app.models.running import RunningModel, Surroundings
from app.openai_schemas import CompletionRequest
from app.routes.completions import complete
from app.settings import LogLevel, Settings
from tests.app.fakes import LogLines, fake_model
from tests.app.memory_store import MemoryStore

REQUEST = CompletionRequest(prompt="the", max_tokens=3, stream=True)


@asynccontextmanager
async def swapping() -> AsyncIterator[tuple[Keeper, Registry, RunningModel]]:
    """What keeps and finds one model, and another to put in its place."""
    metrics = Metrics()
    around = Surroundings(Settings(), Admission(10, 10**6, 60, metrics), metrics, lambda _: None)
    old, new = [await RunningModel.start(fake_model(), around) for _ in range(2)]
    registry = Registry(old)
    logger = make_logger(LogLevel.ERROR, LogLines())
    yield Keeper(Path("/nowhere"), registry, around, MemoryStore(), logger), registry, new
    for model in (old, new):
        await model.close()


def request_to(registry: Registry) -> Any:
    """What a route finds its models by."""
    return SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(lifecycle=SimpleNamespace(models=registry))))


@pytest.mark.anyio
async def test_a_stream_whose_work_has_not_begun_keeps_its_model_from_being_closed() -> None:
    async with swapping() as (keeper, registry, new):
        old = registry.default
        answering = asyncio.create_task(complete(REQUEST, request_to(registry)))
        await asyncio.sleep(0)  # The task that writes is made now, and has taken no step.
        registry.put(new, default=True)
        assert not await keeper._close_retired()
        response: Any = await answering
        events = [event async for event in response.body_iterator]
        assert b"[DONE]" in events[-1]
        assert old.use.count == 0
        assert await keeper._close_retired()


@pytest.mark.anyio
async def test_a_stream_that_is_given_up_before_its_work_began_lets_its_model_go() -> None:
    async with swapping() as (_, registry, _new):
        old = registry.default
        answering = asyncio.create_task(complete(REQUEST, request_to(registry)))
        await asyncio.sleep(0)
        assert old.use.count == 1
        answering.cancel()
        await asyncio.wait([answering])
        assert old.use.count == 0
