"""Where the service is between start and stop, and who may ask it what.

Boundary: a few facts that the lifespan and the server set and that routes and probes read, all on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.errors import DrainingError, ServiceError, StartingError
from app.models.registry import Registry
from app.sessions.service import SessionService


class Lifecycle:
    """Starting, then ready, then draining; or failed, where the engine could not be built, or something died."""

    def __init__(self) -> None:
        self.answers_while_starting = True
        """Whether probes and refusals are answered before the service is ready; else connections wait until it is."""
        self.on_ready: Callable[[], None] = lambda: None
        """Called once the service takes requests."""
        self.look_again: Callable[[], None] = lambda: None
        """Reads the file of models again, where there is one."""
        self.failure: BaseException | None = None
        self.draining = False
        self._serving: tuple[Registry, SessionService] | None = None

    def set_ready(self, models: Registry, sessions: SessionService) -> None:
        """Take requests from now on."""
        self._serving = models, sessions
        self.on_ready()

    @property
    def models(self) -> Registry:
        """The models that answer requests; `ServiceError` while none does."""
        return self._ready()[0]

    @property
    def sessions(self) -> SessionService:
        """What answers requests for sessions; `ServiceError` while nothing does."""
        return self._ready()[1]

    def _ready(self) -> tuple[Registry, SessionService]:
        if self.failure is not None:
            raise ServiceError("the service has failed; the log says why")
        if self._serving is not None:
            return self._serving
        raise StartingError("the model is being loaded; try again in a moment")

    async def close_models(self) -> None:
        """End every engine; nothing is answered any more."""
        if self._serving is not None:
            await asyncio.gather(*(model.close() for model in self._serving[0].now))

    def check_taking_requests(self) -> None:
        """Raise `DrainingError` once the service is stopping."""
        if self.draining:
            raise DrainingError("the service is stopping and takes no new requests; send this to another instance")
