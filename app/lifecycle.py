"""Where the service is between start and stop, and who may ask it what.

Boundary: a few facts that the lifespan and the server set and that routes and probes read, all on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from app.completions import Completions
from app.errors import DrainingError, ServiceError, StartingError
from app.model_service import ModelService
from app.sessions.service import SessionService


class Lifecycle:
    """Starting, then ready, then draining; or failed, where the engine could not be built or died."""

    def __init__(self) -> None:
        self.answers_while_starting = True
        """Whether probes and refusals are answered before the service is ready; else connections wait until it is."""
        self.on_ready: Callable[[], None] = lambda: None
        """Called once the service takes requests."""
        self.failure: Exception | None = None
        self.draining = False
        self._services: tuple[ModelService, SessionService, Completions] | None = None

    def set_ready(self, service: ModelService, sessions: SessionService, completions: Completions) -> None:
        """Take requests from now on."""
        self._services = service, sessions, completions
        self.on_ready()

    @property
    def service(self) -> ModelService:
        """What answers requests; `ServiceError` while nothing does."""
        return self._ready()[0]

    @property
    def sessions(self) -> SessionService:
        """What answers requests for sessions; `ServiceError` while nothing does."""
        return self._ready()[1]

    @property
    def completions(self) -> Completions:
        """What answers requests for completions and ids; `ServiceError` while nothing does."""
        return self._ready()[2]

    def _ready(self) -> tuple[ModelService, SessionService, Completions]:
        if self.failure is not None:
            raise ServiceError("the engine has failed; the log says why")
        if self._services is not None:
            return self._services
        raise StartingError("the model is being loaded; try again in a moment")

    def check_taking_requests(self) -> None:
        """Raise `DrainingError` once the service is stopping."""
        if self.draining:
            raise DrainingError("the service is stopping and takes no new requests; send this to another instance")
