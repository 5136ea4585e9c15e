"""The application: its routes, and the resources that live from start to stop.

Boundary: puts the parts together. `create_app` opens nothing; the lifespan does, and closes it.
`uvicorn app.main:create_app --factory` serves by the environment's settings, as `python -m app` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from structlog.typing import FilteringBoundLogger

from app import problems
from app.admission import Admission
from app.engine_thread import EngineThread
from app.lifecycle import Lifecycle
from app.logs import make_logger
from app.middleware import RequestMiddleware
from app.model_service import ModelService, RequestLimits
from app.routes import documentation, health, model
from app.served_model import ServedModel, open_model
from app.settings import Settings, load_settings

VERSION = "0.1.0"

DESCRIPTION = """Predicts the next word and scores text with a Pyramidal Recurrent Unit language model.
Errors are problem documents (RFC 9457) and carry the request's id."""

NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI would record what failed validation, and that is the user's text."""


def create_app(
    settings: Settings | None = None,
    served_model: ServedModel | None = None,
    logger: FilteringBoundLogger | None = None,
) -> FastAPI:
    """Make the application.

    `served_model` is what to serve in place of the settings' bundle, already opened. Without it the lifespan opens the
    bundle and raises `BundleError` where it is broken, so that no server starts with it.
    """
    settings = settings or load_settings()
    logger = logger or make_logger(settings.log_level)
    lifecycle = Lifecycle()
    app: FastAPI = FastAPIOffline(
        title="PRU",
        version=VERSION,
        description=DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        swagger_ui_parameters={"validatorUrl": None},
        lifespan=_lifespan(settings, lifecycle, logger, served_model),
    )
    app.state.settings = settings
    app.state.lifecycle = lifecycle
    app.add_middleware(RequestMiddleware, lifecycle=lifecycle, logger=logger, max_body_bytes=settings.max_body_bytes)
    problems.install(app)
    app.include_router(model.router)
    app.include_router(health.router)
    documentation.add_problem_schema(app)
    return app


def _lifespan(
    settings: Settings, lifecycle: Lifecycle, logger: FilteringBoundLogger, given: ServedModel | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """From a checked bundle to a drained engine. The engine warms up while probes are already answered."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served = given if given is not None else await asyncio.to_thread(open_model, settings)
        app.state.served_model = served
        engine = EngineThread(served.build_engine)
        starting = asyncio.create_task(_start(settings, lifecycle, logger, served, engine))
        try:
            yield
        finally:
            lifecycle.draining = True
            starting.cancel()
            await asyncio.wait([starting])
            await asyncio.to_thread(engine.close)
            logger.info("stopped")

    return lifespan


async def _start(
    settings: Settings, lifecycle: Lifecycle, logger: FilteringBoundLogger, served: ServedModel, engine: EngineThread
) -> None:
    """Warm the engine up and open the service; remember what went wrong where that fails."""
    began = perf_counter()
    try:
        built = await engine.start()
        identity = served.identity(built)
        limits = RequestLimits(texts=settings.max_texts, tokens=settings.max_tokens)
        admission = Admission(settings.queue_limit, settings.deadline_seconds)
        service = ModelService(identity, served.vocabulary, engine, admission, limits)
        await asyncio.to_thread(service.warm)
        lifecycle.set_ready(service)
    except Exception as error:
        lifecycle.failure = error
        logger.error("the engine could not be started", error=error)
    else:
        logger.info("ready", **identity.model_dump(), seconds=round(perf_counter() - began, 3))
