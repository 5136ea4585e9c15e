"""A command's use of a model in its own process: opened, asked, and closed.

Boundary: settings and one piece of work in, what came of it out; no HTTP. Options that several commands have are here.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.settings import METRICS_FOLDER, Settings, load_settings, option_of, variable_of
from model.command_line import escaped

if TYPE_CHECKING:
    from app.model_service import ModelService

T = TypeVar("T")

UNLIMITED = sys.maxsize
"""A terminal's user waits as long as it takes; the limits on requests protect a server."""


def setting(name: str, **more: Any) -> Any:
    """An option that goes before the environment variable of a setting."""
    described = f"{Settings.model_fields[name].description} {escaped(f'[env var: {variable_of(name)}]')}"
    return typer.Option(option_of(name), help=described, metavar=name.upper(), show_default=False, **more)


def _engines(incomplete: str) -> list[str]:
    """Names of engines, for a shell that completes one."""
    from app.engines.choice import AUTO, CANDIDATES  # noqa: PLC0415 - `--help` needs no engine

    names = dict.fromkeys([AUTO, *(candidate.engine for candidate in CANDIDATES)])
    return [name for name in names if name.startswith(incomplete)]


Bundle = Annotated[str | None, setting("bundle")]
Engine = Annotated[str | None, setting("engine", autocompletion=_engines)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def count_alone() -> None:
    """Count metrics in this process: a folder for them that another program was given is not this one's."""
    os.environ.pop(METRICS_FOLDER, None)


def ask(work: Callable[[ModelService], Awaitable[T]], **given: str | None) -> T:
    """Open the settings' bundle, `given` options before the environment, let `work` use the service, and close it."""
    count_alone()
    from app.admission import Admission  # noqa: PLC0415 - `--help` needs no engine
    from app.metrics import Metrics  # noqa: PLC0415
    from app.model_service import ModelService  # noqa: PLC0415
    from app.prefix_cache import PrefixCache  # noqa: PLC0415
    from app.reader import RequestLimits  # noqa: PLC0415
    from app.scheduler import Scheduler  # noqa: PLC0415
    from app.served_model import open_model  # noqa: PLC0415

    settings = load_settings(**given)
    served = open_model(settings)

    async def session() -> T:
        metrics = Metrics()
        scheduler = Scheduler(served.build_engine, metrics.of_model(served.name))
        limits = RequestLimits(texts=UNLIMITED, tokens=UNLIMITED)
        try:
            return await work(
                await ModelService.start(
                    served, scheduler, PrefixCache(0), Admission(0, UNLIMITED, None, metrics), limits
                )
            )
        finally:
            scheduler.close()

    return asyncio.run(session())
