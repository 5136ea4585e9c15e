"""The application: its routes, and the resources that live from start to stop.

Boundary: puts the parts together. `create_app` opens nothing; the lifespan does, and closes it.
`uvicorn app.main:create_app --factory` serves the same routes by the environment's settings. What belongs to the
process is then uvicorn's: `PRU_HOST`, `PRU_PORT` and `PRU_WORKERS` do not apply, nor do the limits on heads, on
connections and on slow clients (`app.http_protocol`), the refusal to listen beyond loopback without keys, one count of
quotas for all workers, the end of a process whose engine died, and the folder in which several workers add up their
numbers, which `PROMETHEUS_MULTIPROC_DIR` must name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from structlog.typing import FilteringBoundLogger

from app import problems
from app.access.keyring import Keyring
from app.access.middleware import AccessMiddleware
from app.admission import Admission
from app.completions import Completions
from app.errors import StoreError
from app.lifecycle import Lifecycle
from app.logs import make_logger
from app.metrics import Metrics
from app.middleware import RequestMiddleware
from app.model_service import ModelService
from app.prefix_cache import PrefixCache
from app.reader import RequestLimits
from app.routes import (
    completions,
    documentation,
    health,
    metrics,
    model,
    playground,
    session_stream,
    sessions,
    tokenizer,
)
from app.scheduler import Scheduler
from app.served_model import ServedModel, open_model
from app.sessions import open_store
from app.sessions.service import SessionService
from app.sessions.store import SessionStore
from app.sessions.watched import WatchedStore
from app.settings import Settings, load_settings
from app.tracing import tracing_of_environment

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

VERSION = "0.1.0"

DESCRIPTION = """Predicts the next word and scores text with a Pyramidal Recurrent Unit language model.
Errors are problem documents (RFC 9457) and carry the request's id; under `/v1` they have OpenAI's shape."""

PURGE_SECONDS = 60.0
REOPEN_SECONDS = 1.0

CORS: Any = {
    "allow_methods": ["GET", "POST", "DELETE"],
    "allow_headers": ["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id"],
    "expose_headers": ["Retry-After", "WWW-Authenticate", "X-Request-Id"],
}
"""What pages of the origins that are named may send, and see of answers. They get no cookies, since there are none."""

NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI would record what failed validation, and that is the user's text."""


def create_app(
    settings: Settings | None = None,
    served_model: ServedModel | None = None,
    logger: FilteringBoundLogger | None = None,
    store: SessionStore | None = None,
    keyring: Keyring | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Make the application.

    `served_model` is what to serve in place of the settings' bundle, already opened. Without it the lifespan opens the
    bundle and raises `BundleError` where it is broken, so that no server starts with it. `store` keeps sessions, in
    place of the settings' one. `keyring` holds the keys, where processes share their quotas; without it the lifespan
    reads the settings' ones and raises `ConfigurationError` where they cannot be read. `tracing` traces requests, in
    place of what the environment asks for; it is opened and closed with the service.
    """
    settings = settings or load_settings()
    numbers = Metrics()
    logger = logger or make_logger(settings.log_level)
    store = WatchedStore(store or open_store(settings.session_store), numbers, logger)
    lifecycle = Lifecycle()
    keyring = keyring or Keyring(settings)
    keyring.metrics = numbers
    tracing = tracing or tracing_of_environment()
    app: FastAPI = FastAPIOffline(
        title="PRU",
        version=VERSION,
        description=DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        swagger_ui_parameters={"validatorUrl": None},
        lifespan=_lifespan(settings, lifecycle, logger, numbers, served_model, store, keyring, tracing),
    )
    app.state.settings = settings
    app.state.lifecycle = lifecycle
    app.state.logger = logger
    app.state.metrics = numbers
    app.add_middleware(
        AccessMiddleware, keyring=keyring, open_routes=settings.open_routes, origins=settings.cors_origins
    )
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(
        RequestMiddleware,
        lifecycle=lifecycle,
        logger=logger,
        metrics=numbers,
        max_body_bytes=settings.max_body_bytes,
        deadline_seconds=settings.deadline_seconds,
    )
    if tracing:
        from app.tracing.middleware import TracingMiddleware  # noqa: PLC0415 - needs OpenTelemetry's SDK

        app.add_middleware(TracingMiddleware, tracing=tracing)
    problems.install(app)
    app.include_router(model.router)
    app.include_router(sessions.router)
    app.include_router(session_stream.router)
    app.include_router(completions.router)
    app.include_router(tokenizer.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    playground.install(app)
    documentation.add_problem_schema(app)
    return app


def _lifespan(
    settings: Settings,
    lifecycle: Lifecycle,
    logger: FilteringBoundLogger,
    numbers: Metrics,
    given: ServedModel | None,
    store: SessionStore,
    keyring: Keyring,
    tracing: Tracing | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """From a checked bundle to a drained engine. The engine warms up while probes are already answered."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for warning in keyring.load():
            logger.warning("the keys are kept carelessly", reason=warning)
        if tracing:
            tracing.open(VERSION)
        served = given if given is not None else await asyncio.to_thread(open_model, settings)
        app.state.served_model = served
        admission = Admission(settings.queue_limit, settings.queue_tokens, settings.deadline_seconds, numbers)
        on_death = _on_death(lifecycle, logger)
        scheduler = Scheduler(served.build_engine, numbers, on_death, lambda: admission.inside, served.name)
        start = asyncio.create_task(_start(settings, lifecycle, logger, numbers, served, scheduler, admission, store))
        tasks = [start, asyncio.create_task(_keep_store(store, logger, numbers))]
        tasks.append(asyncio.create_task(keyring.watch(logger)))
        if not lifecycle.answers_while_starting:
            await asyncio.wait([start])
        try:
            yield
        finally:
            lifecycle.draining = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.to_thread(scheduler.close)
            await store.close()
            keyring.close()
            if tracing:
                await asyncio.to_thread(tracing.close)
            logger.info("stopped")

    return lifespan


def _on_death(lifecycle: Lifecycle, logger: FilteringBoundLogger) -> Callable[[Exception], None]:
    """What follows when the engine's thread dies: nothing is answered any more, and the server ends."""

    def note(error: Exception) -> None:
        lifecycle.failure = error
        logger.error("the engine died", error=error)

    return note


async def _keep_store(store: SessionStore, logger: FilteringBoundLogger, numbers: Metrics) -> None:
    """Open the store, and now and then give back the space of what is expired. One that fails is tried again."""
    opened = False
    while True:
        with suppress(StoreError):  # The log has it already.
            if not opened:
                for warning in await store.open():
                    logger.warning("the session store promises less", reason=warning)
                opened = True
            await store.purge()
            numbers.sessions.set(await store.count())
        await asyncio.sleep(PURGE_SECONDS if opened else REOPEN_SECONDS)


async def _start(
    settings: Settings,
    lifecycle: Lifecycle,
    logger: FilteringBoundLogger,
    numbers: Metrics,
    served: ServedModel,
    scheduler: Scheduler,
    admission: Admission,
    store: SessionStore,
) -> None:
    """Warm the engine up and open the service; remember what went wrong where that fails."""
    began = perf_counter()
    try:
        limits = RequestLimits(texts=settings.max_texts, tokens=settings.max_tokens)
        service = await ModelService.start(
            served, scheduler, PrefixCache(settings.prefix_cache_bytes), admission, limits
        )
        sessions = SessionService(
            service.identity, service.reader, service.suggestions, admission, store, settings.session_ttl_seconds
        )
        completions = Completions(service.identity, service.reader, admission)
        numbers.serving(**service.identity.model_dump())
        numbers.starts.inc()
        lifecycle.set_ready(service, sessions, completions)
    except Exception as error:
        lifecycle.failure = error
        logger.error("the engine could not be started", error=error)
    else:
        logger.info("ready", **service.identity.model_dump(), seconds=round(perf_counter() - began, 3))
