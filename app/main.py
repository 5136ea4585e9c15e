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
from functools import partial
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
from app.bodies import Bodies
from app.errors import StoreError
from app.lifecycle import Lifecycle
from app.logs import make_logger
from app.metrics import Metrics
from app.middleware import RequestMiddleware
from app.models.keeper import Keeper
from app.models.last_served import LastServed
from app.models.registry import Registry
from app.models.running import RunningModel, Surroundings
from app.personal import Adaptation
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
from app.served_model import ServedModel, open_model, open_source
from app.sessions import open_store
from app.sessions.service import SessionService
from app.sessions.store import SessionStore
from app.sessions.watched import WatchedStore
from app.settings import Settings, load_settings
from app.tracing import tracing_of_environment
from model.errors import PRUError

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
    last: LastServed | None = None,
) -> FastAPI:
    """Make the application.

    `served_model` is what to serve in place of the settings' bundle, already opened. Without it the lifespan opens the
    bundle and raises `BundleError` where it is broken, so that no server starts with it. `store` keeps sessions, in
    place of the settings' one. `keyring` holds the keys, where processes share their quotas; without it the lifespan
    reads the settings' ones and raises `ConfigurationError` where they cannot be read. `tracing` traces requests, in
    place of what the environment asks for; it is opened and closed with the service. `last` has what was served, for a
    process that takes another's place.
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
        lifespan=_lifespan(settings, lifecycle, logger, numbers, served_model, store, keyring, tracing, last),
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
        bodies=Bodies(settings.body_budget_bytes),
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
    last: LastServed | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """From a checked bundle to a drained engine. The engine warms up while probes are already answered."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for warning in keyring.load():
            logger.warning("the keys are kept carelessly", reason=warning)
        if tracing:
            tracing.open(VERSION)
        served = await asyncio.to_thread(_first, settings, given, last)
        admission = Admission(settings.queue_limit, settings.queue_tokens, settings.deadline_seconds, numbers)
        on_death = _on_death(lifecycle, logger)
        around = Surroundings(settings, admission, numbers, partial(on_death, "the engine died"))
        start = asyncio.create_task(_start(lifecycle, logger, served, around, store, last))
        tasks = [
            start,
            asyncio.create_task(_follow(start)),
            asyncio.create_task(_keep_store(store, logger, numbers)),
            asyncio.create_task(keyring.watch(logger)),
        ]
        for task in tasks:
            task.add_done_callback(partial(_observe, on_death))
        if not lifecycle.answers_while_starting:
            await asyncio.wait([start])
        try:
            yield
        finally:
            lifecycle.draining = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await lifecycle.close_models()
            await store.close()
            keyring.close()
            if tracing:
                await asyncio.to_thread(tracing.close)
            logger.info("stopped")

    return lifespan


def _first(settings: Settings, given: ServedModel | None, last: LastServed | None) -> ServedModel:
    """The default model. Since it was given, as to a worker that takes another's place, the file may have changed."""
    if given is None:
        return open_model(settings)
    if settings.models is not None:
        with suppress(PRUError):  # The log will have it, when the file is read for the other models.
            return open_model(settings, given)
        with suppress(PRUError):
            if last is not None and (plan := last.plan()) is not None:
                return open_source(plan.sources[plan.default], given)
    return given


def _on_death(lifecycle: Lifecycle, logger: FilteringBoundLogger) -> Callable[[str, BaseException], None]:
    """What follows when the engine's thread or a task dies: nothing is answered any more, and the server ends."""

    def note(event: str, error: BaseException) -> None:
        lifecycle.failure = lifecycle.failure or error
        logger.error(event, error=error)

    return note


def _observe(on_death: Callable[[str, BaseException], None], task: asyncio.Task[Any]) -> None:
    """Note the death of a task that was to run for as long as the service does."""
    if not task.cancelled() and (error := task.exception()) is not None:
        on_death("a task of the service died", error)


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
    lifecycle: Lifecycle,
    logger: FilteringBoundLogger,
    served: ServedModel,
    around: Surroundings,
    store: SessionStore,
    last: LastServed | None,
) -> Keeper | None:
    """Run the default model and open the service, then run the others; remember what went wrong with the first.

    Returns what keeps the models as their file has them, where there is a file.
    """
    began = perf_counter()
    settings = around.settings
    try:
        default = await RunningModel.start(served, around)
        models = Registry(default)
        around.metrics.serving(**default.identity.model_dump())
        around.metrics.starts.inc()
        adaptation = Adaptation(settings.personal_window, settings.personal_lambda, settings.personal_theta)
        sessions = SessionService(models, around.admission, store, settings.session_ttl_seconds, adaptation)
        lifecycle.set_ready(models, sessions)
    except Exception as error:
        lifecycle.failure = error
        logger.error("the engine could not be started", error=error)
        return None
    logger.info("ready", **default.identity.model_dump(), seconds=round(perf_counter() - began, 3))
    if settings.models is None:
        return None
    keeper = Keeper(settings.models, models, around, store, logger, last)
    lifecycle.look_again = keeper.look_again
    await keeper.look()
    return keeper


async def _follow(start: asyncio.Task[Keeper | None]) -> None:
    """Keep the models as their file has them, once they are."""
    await asyncio.wait([start])
    if start.cancelled() or start.exception() is not None:
        return
    if (keeper := start.result()) is not None:
        await keeper.follow()
