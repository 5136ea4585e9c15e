"""One model that runs: an engine on its thread, and all that answers with it.

Boundary: from a model that was opened to one that answers, and to one whose memory is free again. Models share the
limits on requests and nothing else: queue, engine, vocabulary and remembered states are each model's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from app.admission import Admission
from app.completions import Completions
from app.metrics import Metrics, ModelMetrics
from app.model_service import ModelService
from app.prefix_cache import PrefixCache
from app.reader import RequestLimits
from app.scheduler import Scheduler
from app.schemas import ModelIdentity
from app.served_model import ServedModel
from app.settings import Settings


class Use:
    """How many use a model now, and how often it was used."""

    __slots__ = ("count", "times")

    def __init__(self) -> None:
        self.count = 0
        self.times = 0


@dataclass(frozen=True)
class Surroundings:
    """What every model of an application is given."""

    settings: Settings
    admission: Admission
    metrics: Metrics
    on_death: Callable[[Exception], None]
    """Told when an engine's thread died."""
    use: Use = field(default_factory=Use)
    """Of all models together."""


class RunningModel:
    """A model that answers. Whoever uses it holds it as a context manager, so that it is not closed meanwhile."""

    def __init__(
        self,
        served: ServedModel,
        service: ModelService,
        completions: Completions,
        scheduler: Scheduler,
        uses: tuple[Use, Use],
    ) -> None:
        self.served = served
        self.identity: ModelIdentity = service.identity
        self.service = service
        self.completions = completions
        self.use, self._all = uses
        """How it is used, and all models are."""
        self._scheduler = scheduler

    @classmethod
    async def start(cls, served: ServedModel, around: Surroundings) -> Self:
        """Build the engine and warm it up; whatever that raises, nothing of it is left."""
        settings, admission = around.settings, around.admission
        use, everyone = Use(), around.use
        metrics: ModelMetrics = around.metrics.of_model(served.name)

        def crowd() -> int:
            """Requests that may be about to ask this engine: all but those that are another's."""
            return admission.inside - everyone.count + use.count

        scheduler = Scheduler(served.build_engine, metrics, around.on_death, crowd, served.name)
        limits = RequestLimits(texts=settings.max_texts, tokens=settings.max_tokens)
        cache = PrefixCache(settings.prefix_cache_bytes)
        try:
            service = await ModelService.start(served, scheduler, cache, admission, limits)
        except BaseException:
            await asyncio.to_thread(scheduler.close)
            raise
        return cls(
            served, service, Completions(service.identity, service.reader, admission), scheduler, (use, everyone)
        )

    async def close(self) -> None:
        """End the engine's thread. With the last reference to this, the engine's memory is free."""
        await asyncio.to_thread(self._scheduler.close)
        self._scheduler.metrics.cache_bytes.set(0)

    def __enter__(self) -> Self:
        self.use.count += 1
        self.use.times += 1
        self._all.count += 1
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.use.count -= 1
        self._all.count -= 1
